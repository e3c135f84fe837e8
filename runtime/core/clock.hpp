// The clock by which the runtime decides what is due: the machine's, or one that a test holds, which sees a day go by
// in a second.
//
//   std::unique_lock lock(mutex_);
//   options_.clock->wait_for(changed_, lock, 30s, [&] { return stopping_; });
//
// What only measures (a histogram) or bounds a system call asks std::chrono.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "pipegen/types.hpp"

namespace pipegen {

/// Thread safe. Whoever is given one must not outlive it.
class AnyClock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// The machine's.
  static const AnyClock& real();

  AnyClock() = default;
  virtual ~AnyClock() = default;
  AnyClock(const AnyClock&) = delete;
  AnyClock& operator=(const AnyClock&) = delete;

  /// For durations and deadlines in this process.
  virtual TimePoint now() const = 0;
  /// For what is compared with times that other processes wrote.
  virtual Timestamp wall_time() const = 0;

  /// Blocks until `done()` or `end`; `done()` is called under the lock. Gives what it said last.
  template <typename Predicate>
  bool wait_until(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end,
                  Predicate done) const {
    while (!done()) {
      if (now() >= end) return false;
      wait(changed, lock, end);
    }
    return true;
  }
  template <typename Predicate>
  bool wait_for(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, std::chrono::nanoseconds time,
                Predicate done) const {
    return wait_until(changed, lock, now() + time, std::move(done));
  }
  /// For loops that nobody wakes.
  void sleep_for(std::chrono::nanoseconds time) const;

 protected:
  /// May return early.
  virtual void wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end) const = 0;
};

}  // namespace pipegen
