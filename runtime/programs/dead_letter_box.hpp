// A dead-letter stream as its operator sees it.
//
//   DeadLetterBox box(connection, "TPCH_DLQ");
//   box.each({.stage = "entity-worker"}, [](const DeadLetter& letter) { … return true; });
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nats/handles.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/types.hpp"

namespace pipegen {

struct DeadLetter {
  std::uint64_t sequence = 0;  // in the dead-letter stream: what it is called by
  Timestamp stored_at{};
  std::vector<std::pair<std::string, std::string>> headers{};
  std::string payload{};

  /// The first value of a header; empty: there is none.
  std::string header(std::string_view name) const;
};

/// Calls block, and throw Unavailable (the server is away), ConfigError (there is no such stream, or no permission).
/// Not thread safe.
class DeadLetterBox {
 public:
  DeadLetterBox(nats::Connection& connection, std::string stream);

  struct Filter {
    std::string stage{};        // empty: all
    bool headers_only = false;  // letters have no payload then, and come faster
  };
  /// Those that are there now, in order, until `see` gives false.
  void each(const Filter& filter, const std::function<bool(const DeadLetter&)>& see);
  std::optional<DeadLetter> find(std::uint64_t sequence);

  /// Publishes the message where it came from, as it was, and returns when it is stored there. It has the same message
  /// id as before (Pipegen-Message-Id), so that what it makes is the same, and its own Nats-Msg-Id, so that the stream
  /// takes it: replayed twice it is there once, or is handled twice with the same result. Throws PermanentError when
  /// the dead letter is no message that could be replayed.
  void replay(const DeadLetter& letter);
  /// False when it was gone already.
  bool drop(std::uint64_t sequence);

 private:
  nats::Connection& connection_;
  std::string stream_;
};

}  // namespace pipegen
