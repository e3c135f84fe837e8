// What cannot be handled goes to the dead-letter stream, as it came, with the reason in headers.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipegen/stage.hpp"
#include "worker/delivery.hpp"

namespace pipegen::worker {

struct DeadLetterReason {
  std::string error_class;  // "Invalid", "TransientError", …
  std::string message;
};

class DeadLetters {
 public:
  DeadLetters(nats::Connection& connection, const Stage& stage) : connection_(connection), stage_(stage) {}

  /// Publishes and waits for the ack. Throws Unavailable. Headers for the server ("Nats-…": a message id, an expected
  /// sequence) must not take effect again, so they are kept as "Pipegen-Original-Nats-…".
  void publish(const Delivery& delivery, const DeadLetterReason& reason);
  /// One that no single message is to blame for.
  void publish(std::string_view payload, std::string_view message_id, const std::string& workflow_id,
               const DeadLetterReason& reason);

 private:
  using HeaderList = std::vector<std::pair<std::string, std::string>>;
  void send(std::string_view payload, std::string_view message_id, const HeaderList& headers, std::size_t needed_from);

  nats::Connection& connection_;
  const Stage& stage_;
};

}  // namespace pipegen::worker
