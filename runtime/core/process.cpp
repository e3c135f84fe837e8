#include "pipegen/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "core/json_text.hpp"
#include "pipegen/error.hpp"

namespace pipegen {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kGrace = std::chrono::seconds(2);  // between SIGTERM and SIGKILL
constexpr std::size_t kKeptErrors = 4096;
constexpr std::size_t kShownErrors = 500;
constexpr int kDataError = 65;         // EX_DATAERR of sysexits.h
constexpr int kPollWithoutPidfd = 20;  // ms, on kernels without pidfd_open

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() { reset(); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int get() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  void reset() {
    if (number_ >= 0) ::close(number_);
    number_ = -1;
  }

 private:
  int number_;
};

[[noreturn]] void out_of(const char* what) {
  throw TransientError(std::string("cannot start a program: ") + what + ": " + std::strerror(errno));
}

/// Out of the way of 0, 1 and 2, which the child replaces one after the other.
Descriptor above_standard(Descriptor descriptor) {
  if (descriptor.get() > 2) return descriptor;
  Descriptor moved(::fcntl(descriptor.get(), F_DUPFD_CLOEXEC, 3));
  if (!moved.is_open()) out_of("fcntl");
  return moved;
}

struct Pipe {
  Descriptor read;
  Descriptor write;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) out_of("pipe");
  Descriptor read_end(ends[0]);
  Descriptor write_end(ends[1]);
  return {above_standard(std::move(read_end)), above_standard(std::move(write_end))};
}

Descriptor open_file(const std::filesystem::path& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (!file.is_open()) out_of(path.c_str());
  return above_standard(std::move(file));
}

void set_nonblocking(const Descriptor& descriptor) {
  ::fcntl(descriptor.get(), F_SETFL, ::fcntl(descriptor.get(), F_GETFL) | O_NONBLOCK);
}

/// While it lives, writing to a closed pipe is an error of write() in this thread, not the end of the process.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigset_t pending;
    ::sigpending(&pending);
    was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    if (!was_pending_) {
      const timespec now{};
      while (::sigtimedwait(&pipe_, nullptr, &now) < 0 && errno == EINTR) {
      }
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_, before_;
  bool was_pending_ = false;
};

/// The program, which is killed with its process group and waited for at the latest when this goes.
class Child {
 public:
  Child(const std::vector<std::string>& arguments, const std::filesystem::path& directory, const Pipe& in,
        const Pipe& out, const Pipe& errors) {
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_adddup2(&actions, in.read.get(), 0);
    ::posix_spawn_file_actions_adddup2(&actions, out.write.get(), 1);
    ::posix_spawn_file_actions_adddup2(&actions, errors.write.get(), 2);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    if (!directory.empty()) ::posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());

    // What this process ignores or blocks is not the program's business.
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD}) {
      sigaddset(&defaults, signal);
    }
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &defaults);
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

    const int error = ::posix_spawnp(&pid_, argv[0], &actions, &attributes, argv.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error == 0) return;
    pid_ = -1;
    const std::string what = "cannot start the program " + arguments[0] + ": " + std::strerror(error);
    if (error == ENOENT || error == ENOTDIR || error == EACCES || error == ENOEXEC) {
      throw ConfigError(what + "; install it or change the setting that names it");
    }
    if (error == EAGAIN || error == ENOMEM) throw TransientError(what);
    throw PermanentError(what);
  }
  ~Child() {
    if (pid_ > 0) reap();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }

  /// To everything that the program started, too, unless that left the process group.
  void signal(int number) const { ::kill(-pid_, number); }

  /// Leaves it a zombie, so that its process group keeps its number.
  bool ended() const {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
  }

  /// Kills what is left of the process group. Gives the exit status as a shell does.
  int reap() {
    signal(SIGKILL);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  pid_t pid_ = -1;
};

/// Reads what is there, but no more than a pipe can hold (1 MiB): a program that never stops writing must not keep the
/// caller from looking at the stop token. Closes the descriptor at its end. `take` gets each piece.
template <typename Take>
void drain(Descriptor& from, Take take) {
  std::array<std::byte, 65536> piece;
  for (std::size_t pieces = 0; pieces < (1u << 20) / piece.size() && from.is_open();) {
    const auto got = ::read(from.get(), piece.data(), piece.size());
    if (got > 0) {
      ++pieces;
      take(BytesView(piece.data(), static_cast<std::size_t>(got)));
    } else if (got == 0) {
      from.reset();
    } else if (errno != EINTR) {
      if (errno != EAGAIN) from.reset();
      return;
    }
  }
}

void feed(Descriptor& to, BytesView& input) {
  while (!input.empty()) {
    const auto put = ::write(to.get(), input.data(), input.size());
    if (put > 0) {
      input = input.subspan(static_cast<std::size_t>(put));
    } else if (put < 0 && errno == EINTR) {
      continue;
    } else {
      if (errno == EAGAIN) return;
      input = {};  // the program closed its input: it has read enough
    }
  }
  to.reset();
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  if (arguments.empty() || arguments[0].empty()) throw PermanentError("no program is named");
  const std::string& name = arguments[0];
  for (const std::string& argument : arguments) {
    if (argument.find('\0') != std::string::npos) {
      throw PermanentError("an argument for the program " + name + " has a NUL character");
    }
  }
  if (!options.directory.empty() && !std::filesystem::is_directory(options.directory)) {
    throw PermanentError("the program " + name + " cannot run in " + options.directory.string() + ": no such folder");
  }
  const auto cancelled = [&name] { return Cancelled("the program " + name + " was told to stop"); };
  if (options.stop.stop_requested()) throw cancelled();

  const NoPipeSignal no_pipe_signal;
  // A file in the place of a pipe leaves the end that is ours closed.
  Pipe in = options.input_file.empty() ? make_pipe() : Pipe{open_file(options.input_file, O_RDONLY), Descriptor()};
  Pipe out = options.output_file.empty()
                 ? make_pipe()
                 : Pipe{Descriptor(), open_file(options.output_file, O_WRONLY | O_CREAT | O_TRUNC)};
  Pipe errors = make_pipe();
  const Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.is_open()) out_of("eventfd");
  Child child(arguments, options.directory, in, out, errors);
  in.read.reset();
  out.write.reset();
  errors.write.reset();
  for (const Descriptor* ours : {&in.write, &out.read, &errors.read}) {
    if (ours->is_open()) set_nonblocking(*ours);
  }
  const Descriptor end(static_cast<int>(::syscall(SYS_pidfd_open, child.pid(), 0)));
  const std::stop_callback on_stop(options.stop, [&wake] { ::eventfd_write(wake.get(), 1); });

  ProgramResult result;
  BytesView input = options.input;
  std::optional<Clock::time_point> kill_at;
  bool killed = false;
  const auto take_all = [&] {
    drain(out.read, [&](BytesView piece) {
      if (result.output.size() + piece.size() > options.max_output) {
        throw PermanentError("the program " + name + " wrote more than " + std::to_string(options.max_output) +
                             " bytes of output");
      }
      result.output.insert(result.output.end(), piece.begin(), piece.end());
    });
    drain(errors.read, [&](BytesView piece) {
      result.errors += text_of(piece);
      if (result.errors.size() > kKeptErrors) result.errors.erase(0, result.errors.size() - kKeptErrors);
    });
  };

  while (!child.ended()) {
    int wait = end.is_open() ? -1 : kPollWithoutPidfd;
    if (options.stop.stop_requested() && !kill_at) {
      child.signal(SIGTERM);
      kill_at = Clock::now() + kGrace;
    }
    if (kill_at && !killed) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*kill_at - Clock::now()).count();
      if (left <= 0) {
        child.signal(SIGKILL);
        killed = true;
      } else {
        wait = wait < 0 ? static_cast<int>(left) : std::min(wait, static_cast<int>(left));
      }
    }
    // poll() leaves out what is closed (-1).
    std::array<pollfd, 5> events{{{in.write.get(), POLLOUT, 0},
                                  {out.read.get(), POLLIN, 0},
                                  {errors.read.get(), POLLIN, 0},
                                  {end.get(), POLLIN, 0},
                                  {kill_at ? -1 : wake.get(), POLLIN, 0}}};
    if (::poll(events.data(), events.size(), wait) < 0 && errno != EINTR) out_of("poll");
    if (in.write.is_open()) feed(in.write, input);
    take_all();
  }
  const bool stopped = kill_at.has_value();
  result.exit_status = child.reap();
  // Not until the end of the pipes: a process that left the group may keep them open for ever.
  take_all();
  if (stopped) throw cancelled();
  return result;
}

void throw_if_failed(const std::string& program, const ProgramResult& result) {
  if (result.exit_status == 0) return;
  std::string message = program + " ended with status " + std::to_string(result.exit_status);
  std::string_view errors = result.errors;
  while (errors.ends_with('\n')) errors.remove_suffix(1);
  if (errors.size() > kShownErrors) {
    // Whole lines, if there are any.
    errors.remove_prefix(errors.size() - kShownErrors);
    errors.remove_prefix(errors.find('\n') + 1);
  }
  if (!errors.empty()) message += ": " + json::repaired_utf8(errors);
  if (result.exit_status == kDataError) throw PermanentError(message);
  throw TransientError(message);
}

}  // namespace pipegen
