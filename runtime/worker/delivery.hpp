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
  std::string stream;
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

/// One message. Immutable once it is in hand, but for `reply`, which belongs to InHand.
struct Delivery {
  Delivery(nats::Message received, AckSubject from);

  std::string_view payload() const { return nats::payload_of(message.get()); }
  std::string_view header(const char* name) const;

  nats::Message message;
  MessageInfo info;
  DeliveryKey key;
  std::string reply;
  std::size_t size = 0;
};

}  // namespace pipegen::worker
