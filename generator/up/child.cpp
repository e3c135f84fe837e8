#include "up/child.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

extern "C" char** environ;  // NOLINT: POSIX declares it nowhere

namespace pipegen::gen {

namespace {

struct Pipe {
  int read = -1;
  int write = -1;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw UpError(std::string("cannot make a pipe: ") + std::strerror(errno));
  return {ends[0], ends[1]};
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& extra) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (!extra.contains(std::string(text.substr(0, text.find('='))))) result.emplace_back(text);
  }
  for (const auto& [name, value] : extra) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::optional<std::filesystem::path> find_program(const std::string& name) {
  const auto executable = [](const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) {
    return executable(name) ? std::optional(std::filesystem::path(name)) : std::nullopt;
  }
  const char* path = std::getenv("PATH");
  const std::string folders =
      std::string(path != nullptr ? path : "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin";
  for (std::size_t begin = 0; begin <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', begin), folders.size());
    const std::filesystem::path candidate = std::filesystem::path(folders.substr(begin, end - begin)) / name;
    if (executable(candidate)) return candidate;
    begin = end + 1;
  }
  return std::nullopt;
}

Child::Child(const ChildOptions& options) {
  const std::string& name = options.arguments.at(0);
  const auto program = find_program(name);
  if (!program) throw UpError("cannot start " + name + ": there is no such program");

  std::vector<std::string> arguments = options.arguments;
  std::vector<std::string> environment = merged_environment(options.environment);
  // Everything that allocates happens before the fork.
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);

  Pipe out;
  int log = -1;
  if (options.log) {
    log = ::open(options.log->c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0) throw UpError("cannot write " + options.log->string() + ": " + std::strerror(errno));
  } else {
    out = make_pipe();
  }
  const Pipe failure = make_pipe();  // closed by a successful exec, else brings errno
  const pid_t parent = ::getpid();

  pid_ = ::fork();
  if (pid_ == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, options.death_signal);
    if (::getppid() != parent) ::_exit(127);  // it died before the line above

    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD}) ::signal(number, SIG_DFL);

    const int null = ::open("/dev/null", O_RDONLY);
    const int sink = options.log ? log : out.write;
    if (::dup2(null, STDIN_FILENO) >= 0 && ::dup2(sink, STDOUT_FILENO) >= 0 && ::dup2(sink, STDERR_FILENO) >= 0) {
      if (null > STDERR_FILENO) ::close(null);
      ::execve(program->c_str(), argv.data(), envp.data());
    }
    const int error = errno;
    (void)!::write(failure.write, &error, sizeof error);
    ::_exit(127);
  }
  const int fork_error = errno;
  ::close(failure.write);
  if (log >= 0) ::close(log);
  if (out.write >= 0) ::close(out.write);

  int error = pid_ < 0 ? fork_error : 0;
  if (pid_ > 0) {
    ::setpgid(pid_, pid_);  // whoever comes first; without it a signal right now would miss the group
    while (::read(failure.read, &error, sizeof error) < 0 && errno == EINTR) {
    }
  }
  ::close(failure.read);
  if (error != 0) {
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
    if (out.read >= 0) ::close(out.read);
    throw UpError("cannot start " + program->string() + ": " + std::strerror(error));
  }
  output_ = out.read;
  if (output_ >= 0) ::fcntl(output_, F_SETFL, O_NONBLOCK);
}

Child::~Child() {
  if (!exit_status()) {
    signal(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (output_ >= 0) ::close(output_);
}

void Child::signal(int number) {
  if (!status_) ::kill(-pid_, number);
}

std::optional<int> Child::exit_status() {
  if (status_) return status_;
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) {
    return std::nullopt;
  }
  // Before it is reaped, so that the number of the group still belongs to it.
  ::kill(-pid_, SIGKILL);
  int status = 0;
  ::waitpid(pid_, &status, 0);
  status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return status_;
}

}  // namespace pipegen::gen
