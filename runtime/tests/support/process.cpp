#include "support/process.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "support/eventually.hpp"

extern char** environ;

namespace pipegen::testing {

using std::chrono::milliseconds;

Process::Process(std::vector<std::string> arguments, std::vector<std::string> settings, std::string program) {
  const std::string log = (folder_.path() / "log").string();
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) environment.push_back(*variable);
  for (auto& variable : settings) environment.push_back(variable.data());
  environment.push_back(nullptr);
  std::vector<char*> argv = {program.data()};
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(out, STDERR_FILENO);
    ::execve(program.c_str(), argv.data(), environment.data());
    ::_exit(127);
  }
}

Process::~Process() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) const { ::kill(pid_, number); }

int Process::end(int number) {
  if (!ended()) {
    ::kill(pid_, number);
    ::waitpid(pid_, &status_, 0);
    pid_ = -1;
  }
  return exit_status();
}

bool Process::ended() {
  if (pid_ > 0 && ::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
  return pid_ <= 0;
}

bool Process::ends_within(milliseconds patience) {
  return eventually([this] { return ended(); }, patience);
}

int Process::exit_status() const { return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_); }

std::string Process::log() const {
  std::ifstream in(folder_.path() / "log", std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

bool Process::says(std::string_view text, milliseconds patience) {
  eventually([&] { return log().find(text) != std::string::npos || ended(); }, patience);
  return log().find(text) != std::string::npos;
}

int Process::logged(const std::string& name) {
  const std::string start = "\"" + name + "\":";
  if (!says(start)) return 0;
  const std::string text = log();
  return std::atoi(text.c_str() + text.find(start) + start.size());
}

}  // namespace pipegen::testing
