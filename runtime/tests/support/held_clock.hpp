// A clock that stands still until the test moves it.
//
//   HeldClock clock;
//   options.clock = &clock;
//   …
//   clock.await_waiting(1);   // the ticker sleeps
//   clock.advance(10s);       // and is woken
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <mutex>
#include <optional>

#include "core/clock.hpp"

namespace pipegen::testing {

/// Begins at the machine's time. Thread safe.
class HeldClock : public AnyClock {
 public:
  TimePoint now() const override;
  Timestamp wall_time() const override;

  /// Moves the time and wakes every waiter whose time has come. Not under a lock that a waiter waits with.
  void advance(std::chrono::nanoseconds time);
  /// From here on it goes by itself: for the end of a test, which may wait for what the test did not.
  void let_go();
  /// Until at least that many threads wait for a time that has not come; false when that takes longer than `patience`
  /// of the machine's time.
  bool await_waiting(std::size_t threads, std::chrono::milliseconds patience = std::chrono::seconds(30)) const;
  /// How many of these waits there were since the beginning.
  std::size_t waits() const;

 protected:
  void wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end) const override;

 private:
  struct Waiter {
    std::condition_variable* changed;
    std::mutex* mutex;
    TimePoint end;
    bool woken = false;
  };
  TimePoint present() const;
  std::size_t waiting() const;
  void wake();
  bool try_to_wake();

  const TimePoint began_ = std::chrono::steady_clock::now();
  const Timestamp wall_began_ = pipegen::now();
  mutable std::mutex mutex_;
  mutable std::condition_variable more_waiting_;
  std::chrono::nanoseconds passed_{0};
  std::optional<TimePoint> let_go_at_;  // of the machine
  mutable std::list<Waiter> waiters_;
  mutable std::size_t waits_ = 0;
};

}  // namespace pipegen::testing
