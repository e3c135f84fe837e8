// For runtime/nats only: reading stored messages one by one, without a consumer.
#pragma once

#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nats/handles.hpp"
#include "pipegen/types.hpp"

namespace pipegen::nats {

/// Throws ConfigError unless ADR-8 and ADR-20 allow the name.
void check_bucket_name(const std::string& bucket);

struct Stored {
  std::string subject{};
  std::uint64_t sequence = 0;
  std::string headers{};  // as on the wire
  std::string data{};
  Timestamp time{};
};

/// Everything here asks the stream's leader, so it sees every write that was acknowledged before. `what` is how a
/// person calls the stream ("bucket PDF_FILES"). Throws Unavailable, and ConfigError when there is no such stream.
std::optional<Stored> last_message(Connection::Handles& handles, const std::string& stream, const std::string& subject,
                                   const std::string& what);
/// The last message of each subject, in the same order; those that are gone meanwhile are left out.
std::vector<Stored> last_messages(Connection::Handles& handles, const std::string& stream,
                                  const std::vector<std::string>& subjects, const std::string& what);
/// The first message of `subject` at `sequence` or after it.
std::optional<Stored> next_message(Connection::Handles& handles, const std::string& stream, const std::string& subject,
                                   std::uint64_t sequence, const std::string& what);
/// The messages of these sequences, in the same order; those that are gone are left out.
std::vector<Stored> messages_at(Connection::Handles& handles, const std::string& stream,
                                const std::vector<std::uint64_t>& sequences, const std::string& what);
/// Whether a filter ("orders.*.created", "orders.>") takes the subject.
bool subject_matches(std::string_view filter, std::string_view subject);
/// The subjects that match and have a message.
std::vector<std::string> subjects_of(Connection::Handles& handles, const std::string& stream, const std::string& filter,
                                     const std::string& what);
/// Removes the messages of `subject`; those before `sequence` only when it is not 0.
void purge(Connection::Handles& handles, const std::string& stream, const std::string& subject, std::uint64_t sequence,
           const std::string& what);

}  // namespace pipegen::nats
