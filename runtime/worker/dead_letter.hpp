// What cannot be handled goes to the dead-letter stream, as it came, with the reason in headers.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
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
  /// Many at once, each waited for. Throws Unavailable when one of them is not stored: others may be, and publishing
  /// all of them again is harmless.
  struct Letter {
    std::shared_ptr<const Delivery> delivery;
    DeadLetterReason reason;
    nats::Headers more{};  // besides the message's own and the reason
  };
  void publish_all(std::span<const Letter> letters);
  /// One that no single message is to blame for.
  void publish(std::string_view payload, std::string_view message_id, const std::string& workflow_id,
               const DeadLetterReason& reason);

 private:
  using HeaderList = std::vector<std::pair<std::string, std::string>>;
  /// What a dead letter says; `needed_from` is where the headers begin that it cannot do without.
  struct Draft {
    HeaderList headers;
    std::size_t needed_from = 0;
    std::string message_id;
  };
  Draft draft(const Delivery& delivery, const DeadLetterReason& reason, const nats::Headers& more = {}) const;
  /// Cuts off what is too much for the server; gives how much of the payload is kept.
  std::size_t fit(Draft& draft, std::string_view payload) const;
  void send(std::string_view payload, Draft draft);

  nats::Connection& connection_;
  const Stage& stage_;
};

}  // namespace pipegen::worker
