// Signals as a file descriptor, so that one poll() waits for them, for the services' output and for the clock.
#pragma once

#include <signal.h>

#include <chrono>
#include <vector>

namespace pipegen::gen {

/// While it lives, SIGINT, SIGTERM, SIGHUP and SIGCHLD arrive here and SIGPIPE is ignored. One at a time, main thread
/// only.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  /// Waits until a signal comes, one of `readable` can be read, or the time is over.
  void wait(const std::vector<int>& readable, std::chrono::milliseconds time);
  /// How often somebody asked us to stop: SIGINT, SIGTERM or SIGHUP, those within a second counted once.
  int stop_requests() const noexcept { return stop_requests_; }

 private:
  int fd_ = -1;
  int stop_requests_ = 0;
  std::chrono::steady_clock::time_point last_stop_{};
  sigset_t old_mask_{};
  struct sigaction old_pipe_ {};
};

}  // namespace pipegen::gen
