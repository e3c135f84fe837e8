// Messages of one durable consumer, as they come: asked for, noticed when they stop, handed over one by one.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "core/clock.hpp"
#include "nats/handles.hpp"
#include "pipegen/log.hpp"
#include "worker/consumer.hpp"

namespace pipegen::worker {

/// A thread of its own from start() to stop().
class Feed {
 public:
  struct Options {
    PullConsumer::Options consumer{};
    std::chrono::milliseconds first_delay{500};    // between tries while the consumer cannot be had: this …
    std::chrono::milliseconds most_delay{10'000};  // … doubled up to this
    const AnyClock* clock = &AnyClock::real();
  };
  struct Hooks {
    /// How many more messages may come; zero while something is held.
    std::function<std::size_t()> room;
    /// `stream_created`: when the stream was made, in nanoseconds since 1970.
    std::function<void(nats::Message message, std::int64_t stream_created)> take;
    /// Messages that came when it was too late.
    std::function<void(nats::Message message)> leftover;
    /// How many messages the consumer has still to deliver, as the server says now and then. May be empty.
    std::function<void(std::uint64_t count)> pending{};
  };
  Feed(nats::Connection& connection, const Stage& stage, Options options, Hooks hooks);
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
  /// request_stop(), then waits `patience` at most for the last `leftover`. For a process that is about to exit.
  void stop_within(std::chrono::milliseconds patience);
  bool started() const { return thread_.joinable(); }
  /// There may be room again. From any thread, cheap.
  void wake();
  /// Why nothing can be fetched; empty: all is well.
  std::string trouble() const;

 private:
  void run();
  void set_trouble(std::string why);
  void wait_for_room();
  void wait(std::chrono::milliseconds time);

  nats::Connection& connection_;
  PullConsumer consumer_;
  const Options options_;
  Hooks hooks_;
  Logger log_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string trouble_ = "not started";
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> woken_ = false;
  std::atomic<bool> waiting_ = false;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace pipegen::worker
