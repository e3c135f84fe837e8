// What tests of faults have in common: waiting for conditions, figures, and this program once more as a service.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nats/handles.hpp"
#include "support/nats_server.hpp"
#include "support/soak.hpp"

namespace pipegen::testing {

bool eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds patience = std::chrono::milliseconds(30'000));

/// Seconds since `began`.
double seconds_since(std::chrono::steady_clock::time_point began);

/// How often something was handled, by what it says. Thread safe.
class Tally {
 public:
  int add(std::string_view payload);
  int of(const std::string& payload) const;
  std::size_t distinct() const;
  std::size_t total() const;
  /// The most often that any of them was.
  int most() const;
  std::set<std::string> all() const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int> counts_;
  std::size_t total_ = 0;
};

nats::StreamInfo stream_info(nats::Connection& connection, const std::string& stream);
nats::ConsumerInfo consumer_info(nats::Connection& connection, const std::string& stream, const std::string& durable);
/// Messages in the stream; throws Unavailable when the server does not say.
std::uint64_t stored(nats::Connection& connection, const std::string& stream);
/// What the server says of both, for the message of a test that failed.
std::string state_of(nats::Connection& connection, const std::string& stream, const std::string& durable);
/// The payloads of every message in the stream, in order.
std::vector<std::string> payloads(nats::Connection& connection, const std::string& stream);
/// The same, and takes them out of the stream: those and no others.
std::vector<std::string> take_payloads(nats::Connection& connection, const std::string& stream);

/// This program once more, with `settings` ("NAME=value") in its environment; main() says what it is then. Killed by
/// the destructor, and by the kernel when the test dies. Made and ended by one thread.
class Process {
 public:
  Process(std::vector<std::string> arguments, std::vector<std::string> settings);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const;
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
