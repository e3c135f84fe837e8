// What a worker waits for: while something is away it holds what it has and fetches nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"

namespace pipegen::worker {

/// Thread safe.
class Holds {
 public:
  struct Options {
    std::chrono::milliseconds first{500};    // between tries while something is away: this …
    std::chrono::milliseconds most{10'000};  // … doubled up to this
    std::vector<std::string> kinds{};        // of what may be held: known to the metrics before it is
    const AnyClock* clock = &AnyClock::real();
  };
  /// `failed` counts the tries that found something away; `released` is called when nothing is held any more.
  Holds(Metrics& metrics, std::string stage, Options options, Counter& failed, std::function<void()> released);

  /// Runs `work` until it throws nothing, and holds meanwhile; false when stop() came first. Whatever it throws, no
  /// message is to blame: only a worker's own errands (a dead letter, a transaction, an entry) come here.
  bool until_available(const std::string& what, const std::function<void()>& work);

  void hold(const std::string& what, const std::string& reason);
  void release(const std::string& what);

  bool any() const { return any_; }
  /// Of one of the things that are held; empty when nothing is.
  std::string reason() const;
  /// Ends every until_available() that waits.
  void stop();

 private:
  Gauge& gauge(const std::string& what);

  Metrics& metrics_;
  const std::string stage_;
  const Options options_;
  Counter& failed_;
  const std::function<void()> released_;
  Logger log_;
  mutable std::mutex mutex_;
  std::condition_variable stopped_;
  std::map<std::string, std::string> held_;  // what waits -> why
  std::atomic<bool> any_ = false;
  bool stopping_ = false;
};

}  // namespace pipegen::worker
