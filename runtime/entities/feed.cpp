#include "entities/feed.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "pipegen/error.hpp"

namespace pipegen::entities {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstDelay{500}, kMostDelay{10'000};

}  // namespace

Feed::Feed(nats::Connection& connection, const Stage& stage, worker::PullConsumer::Options options, Hooks hooks)
    : connection_(connection),
      consumer_(connection, stage, options),
      durable_(stage.durable),
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

void Feed::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
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

void Feed::wait(milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [this] { return stopping_ || woken_; });
  woken_ = false;
}

void Feed::run() {
  milliseconds delay = kFirstDelay;
  while (!stopping_) {
    if (!consumer_.bound()) {
      try {
        consumer_.bind();
        log_.info("the consumer is back");
        set_trouble("");
      } catch (const Error& error) {
        log_.warning("the consumer cannot be reached; trying again", {{"error", error.what()}});
        set_trouble(error.what());
        wait(delay);
        delay = std::min(delay * 2, kMostDelay);
      }
      continue;
    }
    if (consumer_.outstanding() == 0 && connection_.connected()) {
      if (const std::size_t room = hooks_.room(); room > 0) consumer_.request(room);
    }
    const bool waiting = consumer_.outstanding() > 0;
    if (!waiting && consumer_.bound()) wait(milliseconds(20));
    if (consumer_.bound()) {
      nats::Message message = consumer_.next(milliseconds(waiting ? 100 : 0));
      if (message) hooks_.take(std::move(message), consumer_.stream_created());
    }
    if (!consumer_.bound()) {
      log_.warning("the consumer went away", {{"reason", consumer_.trouble()}});
      set_trouble(consumer_.trouble());
      if (consumer_.heard()) {
        delay = kFirstDelay;
      } else {  // one that can be bound and serves nothing
        wait(delay);
        delay = std::min(delay * 2, kMostDelay);
      }
    }
  }
  consumer_.close(hooks_.leftover);
}

}  // namespace pipegen::entities
