// What tests of faults have in common: counting what was handled, and what the server says of its streams.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nats/handles.hpp"
#include "support/eventually.hpp"
#include "support/nats_server.hpp"
#include "support/process.hpp"
#include "support/soak.hpp"

namespace pipegen::testing {

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

}  // namespace pipegen::testing
