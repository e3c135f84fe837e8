// Messages of one durable consumer, as they come: asked for, noticed when they stop, handed over one by one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/log.hpp"
#include "worker/consumer.hpp"

namespace pipegen::entities {

/// A thread of its own from start() to stop().
class Feed {
 public:
  struct Hooks {
    /// How many more messages may come; zero while something is held.
    std::function<std::size_t()> room;
    /// `stream_created`: when the stream was made, in nanoseconds since 1970.
    std::function<void(nats::Message message, std::int64_t stream_created)> take;
    /// Messages that came when it was too late.
    std::function<void(nats::Message message)> leftover;
  };
  Feed(nats::Connection& connection, const Stage& stage, worker::PullConsumer::Options options, Hooks hooks);
  ~Feed() { stop(); }
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;

  /// Creates or compares the durable consumer. Throws ConfigError, Unavailable.
  void check() { consumer_.ensure(); }
  /// check(), then begins. Throws like it.
  void start();
  /// No more requests; what was on its way goes to `leftover`. stop() returns when the thread is gone.
  void request_stop();
  void stop();
  /// There may be room again. From any thread.
  void wake();
  /// Why nothing can be fetched; empty: all is well.
  std::string trouble() const;

 private:
  void run();
  void set_trouble(std::string why);
  void wait(std::chrono::milliseconds time);

  nats::Connection& connection_;
  worker::PullConsumer consumer_;
  const std::string durable_;
  Hooks hooks_;
  Logger log_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string trouble_ = "not started";
  std::atomic<bool> stopping_ = false;
  bool woken_ = false;
  std::thread thread_;
};

}  // namespace pipegen::entities
