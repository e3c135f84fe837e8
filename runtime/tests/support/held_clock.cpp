#include "support/held_clock.hpp"

#include <algorithm>
#include <thread>

namespace pipegen::testing {

AnyClock::TimePoint HeldClock::now() const {
  const std::lock_guard lock(mutex_);
  return began_ + passed_;
}

Timestamp HeldClock::wall_time() const {
  const std::lock_guard lock(mutex_);
  return wall_began_ + std::chrono::floor<std::chrono::microseconds>(passed_);
}

void HeldClock::wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end) const {
  std::list<Waiter>::iterator self;
  {
    const std::lock_guard held(mutex_);
    if (began_ + passed_ >= end) return;
    self = waiters_.insert(waiters_.end(), {&changed, lock.mutex(), end});
    ++waits_;
    more_waiting_.notify_all();
  }
  changed.wait(lock);
  const std::lock_guard held(mutex_);
  waiters_.erase(self);
}

void HeldClock::advance(std::chrono::nanoseconds time) {
  {
    const std::lock_guard lock(mutex_);
    passed_ += time;
  }
  while (!wake_due()) std::this_thread::yield();
}

/// False when some of those that are due hold their mutex still: they are on their way into their wait, and would not
/// hear it.
bool HeldClock::wake_due() {
  const std::lock_guard lock(mutex_);
  bool all = true;
  for (Waiter& waiter : waiters_) {
    if (waiter.woken || waiter.end > began_ + passed_) continue;
    // Only tried: a waiter takes the two locks in the other order.
    if (const std::unique_lock theirs(*waiter.mutex, std::try_to_lock); theirs) {
      waiter.woken = true;
      waiter.changed->notify_all();
    } else {
      all = false;
    }
  }
  return all;
}

std::size_t HeldClock::waiting() const {
  return static_cast<std::size_t>(
      std::count_if(waiters_.begin(), waiters_.end(), [&](const Waiter& one) { return one.end > began_ + passed_; }));
}

bool HeldClock::await_waiting(std::size_t threads, std::chrono::milliseconds patience) const {
  std::unique_lock lock(mutex_);
  return more_waiting_.wait_for(lock, patience, [&] { return waiting() >= threads; });
}

std::size_t HeldClock::waits() const {
  const std::lock_guard lock(mutex_);
  return waits_;
}

}  // namespace pipegen::testing
