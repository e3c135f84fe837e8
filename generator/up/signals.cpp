#include "up/signals.hpp"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "up/child.hpp"

namespace pipegen::gen {

namespace {

/// A terminal and a program like timeout(1) between it and us may both send the signal of one Ctrl-C.
constexpr std::chrono::seconds kOneKeystroke{1};

}  // namespace

Signals::Signals() {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&mask, number);
  ::sigprocmask(SIG_BLOCK, &mask, &old_mask_);
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &old_pipe_);
  fd_ = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd_ < 0) throw UpError(std::string("cannot receive signals: ") + std::strerror(errno));
}

Signals::~Signals() {
  ::close(fd_);
  ::sigaction(SIGPIPE, &old_pipe_, nullptr);
  ::sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
}

void Signals::wait(const std::vector<int>& readable, std::chrono::milliseconds time) {
  std::vector<pollfd> entries{{fd_, POLLIN, 0}};
  for (const int fd : readable) entries.push_back({fd, POLLIN, 0});
  if (::poll(entries.data(), entries.size(), static_cast<int>(std::max<std::int64_t>(0, time.count()))) <= 0) return;
  signalfd_siginfo info{};
  while (::read(fd_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;
    const auto now = std::chrono::steady_clock::now();
    if (stop_requests_ == 0 || now - last_stop_ >= kOneKeystroke) ++stop_requests_;
    last_stop_ = now;
  }
}

}  // namespace pipegen::gen
