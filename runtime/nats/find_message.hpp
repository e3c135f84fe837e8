// Where a message of a stream is, by its id.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "pipegen/nats.hpp"
#include "pipegen/types.hpp"

namespace pipegen::nats {

struct MessagePlace {
  std::uint64_t sequence = 0;
  std::string subject{};   // empty when it is no longer there
  bool stored = false;     // it is in the stream
  bool delivered = false;  // a consumer of its subject has had it
  bool acked = false;      // it is gone, or a consumer of its subject has acked everything up to it
  Timestamp received{};    // by the stream, when it is still there
};

/// Finds the message of this Nats-Msg-Id: at once within the stream's duplicate window; later, when `made` says about
/// when it was published, by looking at the messages from just before then on, at most some ten thousand of them.
/// Nothing when it is not found, also when it was acked and removed longer ago than that window. `subject` is one of
/// the stream's; `message_id` must be fit for a header. Blocks. Throws Unavailable; ConfigError when there is no such
/// stream.
std::optional<MessagePlace> find_message(Connection& connection, const std::string& stream, const std::string& subject,
                                         const std::string& message_id, std::optional<Timestamp> made);

}  // namespace pipegen::nats
