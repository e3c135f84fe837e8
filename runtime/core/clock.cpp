#include "core/clock.hpp"

namespace pipegen {
namespace {

class RealClock : public AnyClock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
  Timestamp wall_time() const override { return pipegen::now(); }

 protected:
  void wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end) const override {
    changed.wait_until(lock, end);
  }
};

}  // namespace

void AnyClock::sleep_for(std::chrono::nanoseconds time) const {
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  wait_for(never, lock, time, [] { return false; });
}

const AnyClock& AnyClock::real() {
  static const RealClock clock;
  return clock;
}

}  // namespace pipegen
