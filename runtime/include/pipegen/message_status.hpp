// What became of an entity's message, as the database of its rows knows it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "pipegen/settings.hpp"
#include "pipegen/types.hpp"

namespace pipegen {

struct MessageRecord {
  std::string state{};  // "processing", "completed", "failed" (will be tried again), "dead_lettered"
  std::string entity_type{};
  int attempts = 0;     // to write it, the last one included
  std::string error{};  // of the last one; empty: none
  Timestamp received_at{};
  Timestamp updated_at{};
  std::string traceparent{};  // that the message came with: its trace; empty: none
};

/// Looks a message up by its id; nothing when the database has not heard of it. Thread safe. Throws Unavailable,
/// ConfigError.
using FindMessage = std::function<std::optional<MessageRecord>(std::string_view message_id)>;

namespace sql {
/// Of the database that [database] url names. Does not connect yet. Throw ConfigError.
FindMessage find_message_in_sqlite(const Settings& settings);
FindMessage find_message_in_postgresql(const Settings& settings);
}  // namespace sql

}  // namespace pipegen
