// A key-value bucket, by ADR-8: readable and writable by the official clients.
//
//   pipegen::KeyValue state(connection, "WAV_AGGREGATOR_STATE");
//   if (!state.create("job-1.page-3", json)) { /* somebody else was first */ }
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/types.hpp"

namespace pipegen {

namespace nats {
class Connection;
}

/// One bucket. Cheap to make; thread safe. Keys: [-/_=.a-zA-Z0-9]+, no leading or trailing dot; see key_token().
/// Reads ask the stream's leader, so they see every write that was acknowledged before. Every call blocks until the
/// server answered, and throws ConfigError when there is no such bucket, Unavailable when the server is away (after 2 s
/// without a connection), does not answer (after 5 s; a write may be stored all the same) or has no room, and
/// PermanentError for a key that is none or a value larger than the server's max_payload.
class KeyValue {
 public:
  struct Entry {
    std::string key;
    std::string value;
    std::uint64_t revision = 0;
    Timestamp created{};
  };

  KeyValue(nats::Connection& connection, std::string bucket);

  std::optional<Entry> get(std::string_view key);
  std::uint64_t put(std::string_view key, std::string_view value);
  /// The new revision; nothing when the key has a value already.
  std::optional<std::uint64_t> create(std::string_view key, std::string_view value);
  /// The new revision; nothing when the key is no longer at `revision`.
  std::optional<std::uint64_t> update(std::string_view key, std::string_view value, std::uint64_t revision);
  void remove(std::string_view key);
  /// Removes the key and its history.
  void purge(std::string_view key);
  /// The same; false when the key is no longer at `revision`, which then stays as it is.
  bool purge(std::string_view key, std::uint64_t revision);

  /// How many live keys match `filter` ("job-1.*", "job-1.>"). Deleted keys that were not purged count.
  std::size_t count(std::string_view filter);
  /// Their keys / their latest entries, in order of key.
  std::vector<std::string> keys(std::string_view filter);
  std::vector<Entry> entries(std::string_view filter);

  /// Any text as one token of a key, 200 characters at most: letters, digits, '-' and '_' stay, every other octet
  /// becomes "=XX". What would be longer becomes "=h" and a digest of the text: the server closes a connection that
  /// publishes to a subject of 4 KiB.
  static std::string key_token(std::string_view text);

 private:
  nats::Connection* connection_;
  std::string bucket_;
};

}  // namespace pipegen
