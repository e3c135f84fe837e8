#include "support/held_clock.hpp"

#include <algorithm>
#include <thread>

namespace pipegen::testing {

AnyClock::TimePoint HeldClock::now() const {
  const std::lock_guard lock(mutex_);
  return present();
}

Timestamp HeldClock::wall_time() const {
  return wall_began_ + std::chrono::floor<std::chrono::microseconds>(now() - began_);
}

AnyClock::TimePoint HeldClock::present() const {
  const auto time = began_ + passed_;
  return let_go_at_ ? time + (std::chrono::steady_clock::now() - *let_go_at_) : time;
}

void HeldClock::wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end) const {
  std::list<Waiter>::iterator self;
  {
    const std::lock_guard held(mutex_);
    if (present() >= end) return;
    if (let_go_at_) {
      self = waiters_.end();
    } else {
      self = waiters_.insert(waiters_.end(), {&changed, lock.mutex(), end});
      ++waits_;
      more_waiting_.notify_all();
    }
  }
  if (self == waiters_.end()) {
    changed.wait_for(lock, end - now());
    return;
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
  wake();
}

void HeldClock::let_go() {
  {
    const std::lock_guard lock(mutex_);
    if (!let_go_at_) let_go_at_ = std::chrono::steady_clock::now();
  }
  wake();
}

void HeldClock::wake() {
  while (!try_to_wake()) std::this_thread::yield();
}

/// False when some of those that are to be woken hold their mutex still: they are on their way into their wait, and
/// would not hear it.
bool HeldClock::try_to_wake() {
  const std::lock_guard lock(mutex_);
  bool all = true;
  for (Waiter& waiter : waiters_) {
    if (waiter.woken || (waiter.end > present() && !let_go_at_)) continue;
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
      std::count_if(waiters_.begin(), waiters_.end(), [&](const Waiter& one) { return one.end > present(); }));
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
