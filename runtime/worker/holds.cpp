#include "worker/holds.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "worker/retries.hpp"

namespace pipegen::worker {

Holds::Holds(Metrics& metrics, std::string stage, Options options, Counter& failed, std::function<void()> released)
    : metrics_(metrics),
      stage_(std::move(stage)),
      options_(std::move(options)),
      failed_(failed),
      released_(std::move(released)),
      log_(Logger().with({{"stage", stage_}})) {
  for (const std::string& kind : options_.kinds) gauge(kind);
}

bool Holds::until_available(const std::string& what, const std::function<void()>& work) {
  auto delay = options_.first;
  for (bool held = false;; held = true) {
    try {
      work();
      if (held) release(what);
      return true;
    } catch (const std::exception& error) {
      failed_.add();
      hold(what, error.what());
    }
    std::unique_lock lock(mutex_);
    if (options_.clock->wait_for(stopped_, lock, jittered(delay), [this] { return stopping_; })) {
      lock.unlock();
      release(what);
      return false;
    }
    delay = std::min(delay * 2, options_.most);
  }
}

/// By kind ("nats", "events", "message"): a time series for each message would be too many.
Gauge& Holds::gauge(const std::string& what) {
  return metrics_.gauge("pipegen_held", "What the worker waits for something for, without fetching more.",
                        {{"stage", stage_}, {"what", what.substr(0, what.find(' '))}});
}

void Holds::hold(const std::string& what, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    const auto [at, is_new] = held_.insert_or_assign(what, reason);
    if (!is_new) return;
    any_ = true;
  }
  gauge(what).add(1);
  log_.warning("holding: something is away", {{"what", what}, {"reason", reason}});
}

void Holds::release(const std::string& what) {
  {
    const std::lock_guard lock(mutex_);
    if (held_.erase(what) == 0) return;
    any_ = !held_.empty();
  }
  gauge(what).add(-1);
  log_.info("going on", {{"what", what}});
  if (!any_) released_();
}

std::string Holds::reason() const {
  const std::lock_guard lock(mutex_);
  return held_.empty() ? std::string() : held_.begin()->second;
}

void Holds::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  stopped_.notify_all();
}

}  // namespace pipegen::worker
