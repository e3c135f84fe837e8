// A program as a process of its own, for tests.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "support/nats_server.hpp"

namespace pipegen::testing {

/// This program once more, or another one, with `settings` ("NAME=value") in its environment; main() says what it is
/// then. Killed by the destructor, and by the kernel when the test dies. Made and ended by one thread.
class Process {
 public:
  Process(std::vector<std::string> arguments, std::vector<std::string> settings,
          std::string program = "/proc/self/exe");
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const;
  /// Sends the signal, waits for the end and gives the exit status, or 128 and the signal that ended it.
  int end(int number);
  bool ended();
  /// Waits for its end; false when it goes on for longer than `patience`.
  bool ends_within(std::chrono::milliseconds patience);
  /// Once it has ended: its exit status, or 128 and the signal.
  int exit_status() const;
  /// What it wrote to its standard error.
  std::string log() const;
  bool says(std::string_view text, std::chrono::milliseconds patience = std::chrono::milliseconds(30'000));
  /// What it logs as a number of this name, a port; 0 when it never does.
  int logged(const std::string& name);

 private:
  TempFolder folder_;
  pid_t pid_ = -1;
  int status_ = 0;
};

}  // namespace pipegen::testing
