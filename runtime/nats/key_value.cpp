#include "pipegen/key_value.hpp"

#include <algorithm>

#include "nats/replies.hpp"
#include "nats/stored.hpp"
#include "pipegen/error.hpp"

namespace pipegen {
namespace {

using nats::Connection;
using nats::Headers;
using nats::Outcome;
using nats::Stored;

constexpr std::size_t kMostOfToken = 200;
constexpr const char* kOperation = "KV-Operation";
constexpr const char* kExpectedSequence = "Nats-Expected-Last-Subject-Sequence";

std::string stream_of(const std::string& bucket) { return "KV_" + bucket; }
std::string prefix_of(const std::string& bucket) { return "$KV." + bucket + "."; }
std::string what_of(const std::string& bucket) { return "key-value bucket " + bucket; }

bool is_key_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '/' ||
         c == '_' || c == '=' || c == '.';
}

void check_key(std::string_view key) {
  const bool good = !key.empty() && key.front() != '.' && key.back() != '.' &&
                    key.find("..") == std::string_view::npos && std::all_of(key.begin(), key.end(), is_key_character);
  if (!good) {
    throw PermanentError("\"" + std::string(key) +
                         "\" is no key of a key-value bucket: letters, digits and -/_=. only, no dot at an end");
  }
}

void check_filter(std::string_view filter) {
  std::string key(filter);
  std::replace(key.begin(), key.end(), '*', 'a');
  if (key.ends_with('>')) key.back() = 'a';
  check_key(key);
}

Headers purge_headers() { return {{kOperation, "PURGE"}, {"Nats-Rollup", "sub"}}; }

/// DEL and PURGE markers are what a removed key leaves behind.
bool is_marker(const Stored& message) {
  return message.headers.find("KV-Operation: DEL") != std::string::npos ||
         message.headers.find("KV-Operation: PURGE") != std::string::npos ||
         message.headers.find("KV-Operation:DEL") != std::string::npos ||
         message.headers.find("KV-Operation:PURGE") != std::string::npos;
}

KeyValue::Entry entry_of(Stored message, const std::string& bucket) {
  return {.key = message.subject.substr(prefix_of(bucket).size()),
          .value = std::move(message.data),
          .revision = message.sequence,
          .created = message.time};
}

Outcome publish(Connection& connection, const std::string& bucket, std::string_view key, std::string_view value,
                const Headers& headers) {
  auto& handles = connection.handles();
  const std::string what = what_of(bucket);
  handles.require_connected(what);
  Outcome outcome = handles.consume_replies->publish(prefix_of(bucket) + std::string(key), value, headers);
  if (outcome.status == NATS_NO_RESPONDERS) {
    // Either JetStream is away, or there is no such bucket; asking for anything tells which.
    nats::last_message(handles, stream_of(bucket), prefix_of(bucket) + std::string(key), what);
  }
  return outcome;
}

std::uint64_t revision_of(const Outcome& outcome, const std::string& bucket, std::string_view key) {
  if (!outcome.stored()) nats::throw_outcome(outcome, "key " + std::string(key) + " of " + what_of(bucket));
  return outcome.ack.sequence;
}

/// Nothing when the key has moved on from `revision` (0: it has no message at all).
std::optional<std::uint64_t> publish_if(Connection& connection, const std::string& bucket, std::string_view key,
                                        std::string_view value, std::uint64_t revision, Headers headers = {}) {
  headers[kExpectedSequence] = std::to_string(revision);
  const Outcome outcome = publish(connection, bucket, key, value, headers);
  if (outcome.code == JSStreamWrongLastSequenceErr) return std::nullopt;
  return revision_of(outcome, bucket, key);
}

}  // namespace

KeyValue::KeyValue(nats::Connection& connection, std::string bucket)
    : connection_(&connection), bucket_(std::move(bucket)) {
  nats::check_bucket_name(bucket_);
}

std::optional<KeyValue::Entry> KeyValue::get(std::string_view key) {
  check_key(key);
  auto message = nats::last_message(connection_->handles(), stream_of(bucket_), prefix_of(bucket_) + std::string(key),
                                    what_of(bucket_));
  if (!message || is_marker(*message)) return std::nullopt;
  return entry_of(*std::move(message), bucket_);
}

std::uint64_t KeyValue::put(std::string_view key, std::string_view value) {
  check_key(key);
  return revision_of(publish(*connection_, bucket_, key, value, {}), bucket_, key);
}

std::optional<std::uint64_t> KeyValue::create(std::string_view key, std::string_view value) {
  check_key(key);
  for (std::uint64_t expected = 0;;) {
    if (const auto revision = publish_if(*connection_, bucket_, key, value, expected)) return revision;
    const auto current = nats::last_message(connection_->handles(), stream_of(bucket_),
                                            prefix_of(bucket_) + std::string(key), what_of(bucket_));
    if (current && !is_marker(*current)) return std::nullopt;
    expected = current ? current->sequence : 0;
  }
}

std::optional<std::uint64_t> KeyValue::update(std::string_view key, std::string_view value, std::uint64_t revision) {
  check_key(key);
  return publish_if(*connection_, bucket_, key, value, revision);
}

void KeyValue::remove(std::string_view key) {
  check_key(key);
  revision_of(publish(*connection_, bucket_, key, {}, {{kOperation, "DEL"}}), bucket_, key);
}

void KeyValue::purge(std::string_view key) {
  check_key(key);
  const auto revision = revision_of(publish(*connection_, bucket_, key, {}, purge_headers()), bucket_, key);
  // The marker told the watchers; without it the key takes no room any more.
  nats::purge(connection_->handles(), stream_of(bucket_), prefix_of(bucket_) + std::string(key), revision + 1,
              what_of(bucket_));
}

bool KeyValue::purge(std::string_view key, std::uint64_t revision) {
  check_key(key);
  const auto marker = publish_if(*connection_, bucket_, key, {}, revision, purge_headers());
  if (!marker) return false;
  nats::purge(connection_->handles(), stream_of(bucket_), prefix_of(bucket_) + std::string(key), *marker + 1,
              what_of(bucket_));
  return true;
}

std::size_t KeyValue::count(std::string_view filter) {
  check_filter(filter);
  return nats::subjects_of(connection_->handles(), stream_of(bucket_), prefix_of(bucket_) + std::string(filter),
                           what_of(bucket_))
      .size();
}

std::vector<std::string> KeyValue::keys(std::string_view filter) {
  std::vector<std::string> keys;
  for (auto& entry : entries(filter)) keys.push_back(std::move(entry.key));
  return keys;
}

std::vector<KeyValue::Entry> KeyValue::entries(std::string_view filter) {
  check_filter(filter);
  auto& handles = connection_->handles();
  auto subjects =
      nats::subjects_of(handles, stream_of(bucket_), prefix_of(bucket_) + std::string(filter), what_of(bucket_));
  std::sort(subjects.begin(), subjects.end());
  std::vector<Entry> entries;
  for (auto& message : nats::last_messages(handles, stream_of(bucket_), subjects, what_of(bucket_))) {
    if (!is_marker(message)) entries.push_back(entry_of(std::move(message), bucket_));
  }
  return entries;
}

std::string KeyValue::key_token(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string token;
  for (const char c : text) {
    const auto octet = static_cast<unsigned char>(c);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_') {
      token += c;
    } else {
      token += {'=', kHex[octet >> 4], kHex[octet & 15]};
    }
    if (token.size() > kMostOfToken) return "=h" + Uuid::derived(text).to_string();
  }
  return token;
}

}  // namespace pipegen
