// Work that must be done although NATS was away when it was its turn.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "core/clock.hpp"

namespace pipegen::http {

/// Does it as soon as NATS is back. What it holds is lost with the process, so nothing here may be needed for a
/// promise, only for tidiness. Thread safe.
class Later {
 public:
  explicit Later(const AnyClock& clock = AnyClock::real()) : clock_(clock) {}
  ~Later() { stop(); }

  void start(std::function<bool()> can_run);
  void add(std::function<void()> task);
  void stop();

 private:
  struct Task {
    std::function<void()> run;
    int tries = 0;
  };
  using Tasks = std::vector<Task>;

  /// Gives back those whose time has not come.
  static Tasks run(Tasks tasks);

  const AnyClock& clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<bool()> can_run_;
  Tasks tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace pipegen::http
