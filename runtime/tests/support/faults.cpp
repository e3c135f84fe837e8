#include "support/faults.hpp"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>

extern char** environ;

namespace pipegen::testing {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

bool eventually(const std::function<bool()>& condition, milliseconds patience) {
  for (const auto end = Clock::now() + patience; Clock::now() < end; std::this_thread::sleep_for(milliseconds(10))) {
    if (condition()) return true;
  }
  return condition();
}

double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

int Tally::add(std::string_view payload) {
  const std::lock_guard lock(mutex_);
  ++total_;
  return ++counts_[std::string(payload)];
}

int Tally::of(const std::string& payload) const {
  const std::lock_guard lock(mutex_);
  const auto at = counts_.find(payload);
  return at == counts_.end() ? 0 : at->second;
}

std::size_t Tally::distinct() const {
  const std::lock_guard lock(mutex_);
  return counts_.size();
}

std::size_t Tally::total() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

int Tally::most() const {
  const std::lock_guard lock(mutex_);
  int most = 0;
  for (const auto& [payload, count] : counts_) most = std::max(most, count);
  return most;
}

std::set<std::string> Tally::all() const {
  const std::lock_guard lock(mutex_);
  std::set<std::string> out;
  for (const auto& [payload, count] : counts_) out.insert(payload);
  return out;
}

nats::StreamInfo stream_info(nats::Connection& connection, const std::string& stream) {
  nats::StreamInfo info;
  jsErrCode code{};
  const natsStatus status =
      js_GetStreamInfo(info.out(), connection.handles().publish_js, stream.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "stream " + stream);
  return info;
}

nats::ConsumerInfo consumer_info(nats::Connection& connection, const std::string& stream, const std::string& durable) {
  nats::ConsumerInfo info;
  jsErrCode code{};
  const natsStatus status =
      js_GetConsumerInfo(info.out(), connection.handles().publish_js, stream.c_str(), durable.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "consumer " + durable);
  return info;
}

std::uint64_t stored(nats::Connection& connection, const std::string& stream) {
  return stream_info(connection, stream)->State.Msgs;
}

std::string state_of(nats::Connection& connection, const std::string& stream, const std::string& durable) {
  const auto s = stream_info(connection, stream);
  const auto c = consumer_info(connection, stream, durable);
  return stream + ": " + std::to_string(s->State.Msgs) + " messages, " + std::to_string(s->State.FirstSeq) + " to " +
         std::to_string(s->State.LastSeq) + "; " + durable + ": delivered " + std::to_string(c->Delivered.Stream) +
         ", floor " + std::to_string(c->AckFloor.Stream) + ", pending " + std::to_string(c->NumPending) +
         ", ack pending " + std::to_string(c->NumAckPending) + ", waiting " + std::to_string(c->NumWaiting) + "\n";
}

namespace {

std::vector<std::string> payloads_to(nats::Connection& connection, const std::string& stream, std::uint64_t& last) {
  std::vector<std::string> out;
  const auto info = stream_info(connection, stream);
  last = info->State.LastSeq;
  for (std::uint64_t seq = info->State.FirstSeq; seq != 0 && seq <= last; ++seq) {
    nats::Message message;
    if (js_GetMsg(message.out(), connection.handles().publish_js, stream.c_str(), seq, nullptr, nullptr) == NATS_OK) {
      out.emplace_back(nats::payload_of(message.get()));
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> payloads(nats::Connection& connection, const std::string& stream) {
  std::uint64_t last = 0;
  return payloads_to(connection, stream, last);
}

std::vector<std::string> take_payloads(nats::Connection& connection, const std::string& stream) {
  std::uint64_t last = 0;
  auto taken = payloads_to(connection, stream, last);
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Purge.Sequence = last + 1;
  jsErrCode code{};
  const natsStatus status = js_PurgeStream(connection.handles().publish_js, stream.c_str(), &options, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "stream " + stream);
  return taken;
}

Process::Process(std::vector<std::string> arguments, std::vector<std::string> settings) {
  const std::string log = (folder_.path() / "log").string();
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) environment.push_back(*variable);
  for (auto& variable : settings) environment.push_back(variable.data());
  environment.push_back(nullptr);
  std::string self = "/proc/self/exe";
  std::vector<char*> argv = {self.data()};
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(out, STDERR_FILENO);
    ::execve("/proc/self/exe", argv.data(), environment.data());
    ::_exit(127);
  }
}

Process::~Process() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) const { ::kill(pid_, number); }

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
