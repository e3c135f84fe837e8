#include "http/service.hpp"

#include <linux/close_range.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <system_error>
#include <vector>

#include "pipegen/error.hpp"
#include "pipegen/log.hpp"

namespace pipegen {

namespace {

sigset_t stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

LogLevel log_level(const Settings& settings) {
  const std::string text = settings.text("log.level", "info");
  if (text == "debug") return LogLevel::kDebug;
  if (text == "info") return LogLevel::kInfo;
  if (text == "warning") return LogLevel::kWarning;
  if (text == "error") return LogLevel::kError;
  throw ConfigError("the setting log.level is \"" + text + "\": give debug, info, warning or error");
}

/// Whoever starts the service reads its last line: "a:\n  b\n  c" is "a: b; c" there.
std::string one_line(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\n') {
      out += text[at];
      continue;
    }
    while (at + 1 < text.size() && (text[at + 1] == ' ' || text[at + 1] == '\n')) ++at;
    out += out.empty() || out.ends_with(':') ? " " : "; ";
  }
  return out;
}

}  // namespace

int run_service(std::string_view name, const std::function<int(const Settings&)>& body) {
  const sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  try {
    const Settings settings = Settings::load();
    Logger::configure(name, log_level(settings));
    return body(settings);
  } catch (const ConfigError& error) {
    std::cerr << name << ": " << one_line(error.what()) << std::endl;
    return kExitConfig;
  } catch (const std::exception& error) {
    std::cerr << name << ": " << one_line(error.what()) << std::endl;
    return kExitSoftware;
  }
}

void begin_again() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(in, argument, '\0');) arguments.push_back(argument);
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  ::execv("/proc/self/exe", argv.data());
  throw std::system_error(errno, std::generic_category(), "the program cannot be run again");
}

bool wait_for_signal(std::chrono::milliseconds timeout) {
  const sigset_t signals = stop_signals();
  const auto until = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left = std::max(until - std::chrono::steady_clock::now(), std::chrono::steady_clock::duration::zero());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    timespec time{};
    time.tv_sec = seconds.count();
    time.tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(left - seconds).count();
    if (sigtimedwait(&signals, nullptr, &time) > 0) return true;
    if (left == std::chrono::steady_clock::duration::zero()) return false;
  }
}

}  // namespace pipegen
