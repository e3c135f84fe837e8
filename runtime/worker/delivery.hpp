// A message in hand, from its arrival to its ack.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nats/handles.hpp"
#include "pipegen/context.hpp"

namespace pipegen::worker {

/// What a JetStream message's reply subject says about it ("$JS.ACK.<stream>.<consumer>.…").
struct AckSubject {
  std::string_view stream;  // in the text that was parsed
  std::uint64_t deliveries = 0;
  std::uint64_t sequence = 0;
  std::int64_t stored_at = 0;  // nanoseconds since the epoch
  std::uint64_t pending = 0;   // messages that the consumer has not delivered yet
};
std::optional<AckSubject> parse_ack_subject(std::string_view reply);

/// Tells one message from every other, also after the stream was deleted and made again.
struct DeliveryKey {
  std::uint64_t sequence = 0;
  std::int64_t stored_at = 0;
  bool operator==(const DeliveryKey&) const = default;
};
struct DeliveryKeyHash {
  std::size_t operator()(const DeliveryKey& key) const noexcept {
    return static_cast<std::size_t>(key.sequence * 0x9E3779B97F4A7C15ULL ^ static_cast<std::uint64_t>(key.stored_at));
  }
};

/// One message. Immutable once it is in hand, but for `later_reply`, which belongs to InHand. What it gives lives as
/// long as it does; nothing is copied out of the message before somebody asks for it.
struct Delivery {
  Delivery(nats::Message received, const AckSubject& from);
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;

  std::string_view payload() const { return nats::payload_of(message.get()); }
  std::string_view header(const char* name) const;
  std::string_view id() const { return made_id.empty() ? given_id : made_id; }
  std::string_view workflow_id() const { return header("Pipegen-Workflow-Id"); }
  std::string_view subject() const { return natsMsg_GetSubject(message.get()); }
  /// Where it came from. Without a word about that, its trace begins here: the same one at every delivery.
  TraceContext trace() const;
  /// Where the server waits for the answer.
  const char* reply() const { return later_reply.empty() ? natsMsg_GetReply(message.get()) : later_reply.c_str(); }
  MessageInfo info() const { return info(trace()); }
  MessageInfo info(TraceContext trace) const;

  nats::Message message;
  DeliveryKey key;
  std::string_view stream;
  std::uint64_t deliveries = 1;  // 1 at the first
  std::size_t size = 0;
  std::string_view given_id;
  std::string made_id;
  std::string later_reply;
};

}  // namespace pipegen::worker
