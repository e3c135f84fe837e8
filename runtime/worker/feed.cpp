#include "worker/feed.hpp"

#include <algorithm>
#include <utility>

#include "pipegen/error.hpp"
#include "worker/retries.hpp"

namespace pipegen::worker {
namespace {

using std::chrono::milliseconds;

/// What is handled after the last look need not wake anybody: there is another look after this time.
constexpr milliseconds kLookEvery{20};
constexpr milliseconds kPatience{100};

}  // namespace

Feed::Feed(nats::Connection& connection, const Stage& stage, Options options, Hooks hooks)
    : connection_(connection),
      consumer_(connection, stage, options.consumer),
      options_(options),
      hooks_(std::move(hooks)),
      log_(Logger().with({{"stage", stage.name}, {"consumer", stage.durable}})) {}

void Feed::start() {
  consumer_.bind();
  set_trouble("");
  thread_ = std::thread([this] { run(); });
}

void Feed::request_stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

void Feed::stop() {
  request_stop();
  if (thread_.joinable()) thread_.join();
}

void Feed::stop_within(milliseconds patience) {
  request_stop();
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [this] { return over_; });
}

void Feed::wake() {
  woken_ = true;
  if (!waiting_) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

std::string Feed::trouble() const {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

void Feed::set_trouble(std::string why) {
  const std::lock_guard lock(mutex_);
  trouble_ = std::move(why);
}

void Feed::wait_for_room() {
  std::unique_lock lock(mutex_);
  waiting_ = true;
  changed_.wait_for(lock, kLookEvery, [this] { return stopping_ || woken_; });
  waiting_ = false;
}

void Feed::wait(milliseconds time) {
  std::unique_lock lock(mutex_);
  options_.clock->wait_for(changed_, lock, jittered(time), [this] { return stopping_.load(); });
}

void Feed::run() {
  milliseconds delay = options_.first_delay;
  const auto back_off = [&] {
    wait(delay);
    delay = std::min(delay * 2, options_.most_delay);
  };
  while (!stopping_) {
    if (!consumer_.bound()) {
      try {
        consumer_.bind();
        log_.info("the consumer is back");
        set_trouble("");
      } catch (const Error& error) {
        log_.warning("the consumer cannot be reached; trying again", {{"error", error.what()}});
        set_trouble(error.what());
        back_off();
      }
      continue;
    }
    if (consumer_.outstanding() == 0 && connection_.connected()) {
      woken_ = false;  // before the look: what makes room after it shall be heard
      if (const std::size_t room = hooks_.room(); room > 0) consumer_.request(room);
    }
    const bool waiting = consumer_.outstanding() > 0;
    if (!waiting && consumer_.bound()) wait_for_room();
    if (consumer_.bound()) {
      nats::Message message = consumer_.next(waiting ? kPatience : milliseconds(0));
      if (message) hooks_.take(std::move(message), consumer_.stream_created());
    }
    if (const auto pending = consumer_.take_pending(); pending && hooks_.pending) hooks_.pending(*pending);
    if (!consumer_.bound()) {
      log_.warning("the consumer went away", {{"reason", consumer_.trouble()}});
      set_trouble(consumer_.trouble());
      if (consumer_.heard()) {
        delay = options_.first_delay;
      } else {  // one that can be bound and serves nothing
        back_off();
      }
    }
  }
  consumer_.close(hooks_.leftover);
  const std::lock_guard lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

}  // namespace pipegen::worker
