// A process that we started: an argument list, never a shell, in a process group of its own.
//
//   Child child({.arguments = {"nats-server", "-js"}});
//   if (const auto status = child.exit_status()) …
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace pipegen::gen {

/// Something that `up` needs does not work; what() says what, and what to do.
class UpError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct ChildOptions {
  std::vector<std::string> arguments{};              // the program first: a path, or a name to be found in PATH
  std::map<std::string, std::string> environment{};  // on top of our own
  std::optional<std::filesystem::path> log{};        // its output is appended here; nothing: piped to output()
  int death_signal = SIGKILL;                        // what the kernel sends it when we die
};

/// Where `name` is, in PATH or one of the sbin folders, which a user's PATH often lacks.
std::optional<std::filesystem::path> find_program(const std::string& name);

/// Start it from the main thread only: the death signal comes when the thread that started it ends. Destroyed while it
/// runs, it is killed with its whole process group. Not thread safe.
class Child {
 public:
  /// Throws UpError when the program cannot be started.
  explicit Child(const ChildOptions& options);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const noexcept { return pid_; }
  /// Its standard output and error in one pipe, non-blocking; -1 when they go to a log file.
  int output() const noexcept { return output_; }
  /// To the whole process group. Nothing happens when it has ended.
  void signal(int number);
  /// Nothing while it runs; then its exit status, 128 + n when signal n ended it. Does not block. What is left of its
  /// process group is killed then.
  std::optional<int> exit_status();

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  std::optional<int> status_;
};

}  // namespace pipegen::gen
