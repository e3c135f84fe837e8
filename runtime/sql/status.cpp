#include "sql/status.hpp"

#include <algorithm>
#include <array>

#include "core/json_text.hpp"

namespace pipegen::sql {
namespace {

// In the order of MessageState. They stand in databases: never change one.
constexpr std::array<std::string_view, 5> kStates = {"accepted", "processing", "completed", "failed", "dead_lettered"};

}  // namespace

std::string_view to_string(MessageState state) { return kStates.at(static_cast<std::size_t>(state)); }

std::optional<MessageState> parse_message_state(std::string_view text) {
  for (std::size_t i = 0; i < kStates.size(); ++i) {
    if (kStates[i] == text) return static_cast<MessageState>(i);
  }
  return std::nullopt;
}

std::string storable(std::string_view text) {
  std::string repaired = json::repaired_utf8(text);
  std::replace(repaired.begin(), repaired.end(), '\0', ' ');
  return repaired;
}

std::optional<MessageRecord> record_of(std::optional<MessageStatus> status) {
  if (!status) return std::nullopt;
  return MessageRecord{.state = std::string(to_string(status->state)),
                       .entity_type = std::move(status->entity_type),
                       .attempts = status->attempts,
                       .error = std::move(status->error),
                       .received_at = status->received_at,
                       .updated_at = status->updated_at,
                       .traceparent = std::move(status->traceparent)};
}

}  // namespace pipegen::sql
