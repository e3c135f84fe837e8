// What waits at the durable consumers of a server, and what went wrong with what they took.
//
//   for (const ConsumerStatus& status : status_of(connection, consumers_of(connection), {"TPCH_DLQ"})) …
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipegen/nats.hpp"
#include "pipegen/types.hpp"

namespace pipegen {

/// A durable consumer; `stage` is whose it is, empty when nobody said.
struct ConsumerName {
  std::string stage{};
  std::string stream{};
  std::string durable{};
};

struct ConsumerStatus {
  ConsumerName name{};
  bool exists = false;             // else no service has made it yet
  std::uint64_t pending = 0;       // not delivered yet
  std::uint64_t in_hand = 0;       // delivered and not acked
  std::uint64_t redelivered = 0;   // of those in hand: delivered more than once
  std::uint64_t dead_letters = 0;  // of its messages, that nobody has replayed or dropped
  /// When the oldest message was stored that is not acked.
  std::optional<Timestamp> oldest{};
  /// The newest dead letter's.
  struct Failure {
    Timestamp at{};
    std::string error_class{};
    std::string message{};
  };
  std::optional<Failure> last_error{};
};

// All of it blocks, and throws Unavailable and ConfigError.

/// Every durable consumer of the server, by stream and name.
std::vector<ConsumerName> consumers_of(nats::Connection& connection);
/// The streams that have dead letters of any pipeline.
std::vector<std::string> dead_letter_streams_of(nats::Connection& connection);
/// In the order of `names`. Streams of dead letters that are not there have none.
std::vector<ConsumerStatus> status_of(nats::Connection& connection, const std::vector<ConsumerName>& names,
                                      const std::vector<std::string>& dead_letter_streams);

}  // namespace pipegen
