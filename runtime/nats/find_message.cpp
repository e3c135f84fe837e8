#include "nats/find_message.hpp"

#include <algorithm>
#include <deque>

#include "nats/handles.hpp"
#include "nats/replies.hpp"
#include "nats/stored.hpp"
#include "pipegen/json.hpp"

namespace pipegen::nats {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kRequestsInFlight = 16;  // of messages of up to 1 MiB each
constexpr int kMaxLooks = 20'000;
constexpr auto kBefore = 2s;  // the clocks of the API and of the NATS server may differ
constexpr auto kJustBefore = 100ms;
constexpr auto kAfter = 10s;

struct ConsumerState {
  std::string filter{};  // empty: every subject
  std::uint64_t delivered = 0;
  std::uint64_t ack_floor = 0;
};

std::uint64_t read_stream_sequence(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"stream_seq", json::kOptional}};
  std::uint64_t sequence = 0;
  for (json::Object fields(in, kFields); fields.next();) sequence = static_cast<std::uint64_t>(in.int64());
  return sequence;
}

ConsumerState read_consumer(json::Reader& in) {
  static constexpr json::Field kFields[] = {
      {"config", json::kOptional}, {"delivered", json::kOptional}, {"ack_floor", json::kOptional}};
  static constexpr json::Field kConfig[] = {{"filter_subject", json::kOptional}};
  ConsumerState state;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        for (json::Object config(in, kConfig); config.next();) state.filter = in.string();
        break;
      case 1:
        state.delivered = read_stream_sequence(in);
        break;
      case 2:
        state.ack_floor = read_stream_sequence(in);
        break;
    }
  }
  return state;
}

struct ConsumerPage {
  std::int64_t total = 0;
  std::vector<ConsumerState> consumers{};
};

ConsumerPage read_page(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"total", json::kOptional}, {"consumers", json::kOptional}};
  ConsumerPage page;
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      page.total = in.int64();
    } else {
      page.consumers = in.list<ConsumerState>(read_consumer);
    }
  }
  return page;
}

/// Fills in what the consumers of its subject have done with it.
void look_at_consumers(Replies& replies, const std::string& stream, const std::string& what, MessagePlace& place) {
  for (std::int64_t offset = 0;;) {
    const Message answer =
        replies.request("$JS.API.CONSUMER.LIST." + stream, "{\"offset\":" + std::to_string(offset) + "}", what).get();
    const ConsumerPage page = json::parse(payload_of(answer.get()), read_page);
    for (const auto& consumer : page.consumers) {
      if (!consumer.filter.empty() && !subject_matches(consumer.filter, place.subject)) continue;
      place.delivered = place.delivered || consumer.delivered >= place.sequence;
      place.acked = place.acked || consumer.ack_floor >= place.sequence;
    }
    offset += static_cast<std::int64_t>(page.consumers.size());
    if (page.consumers.empty() || offset >= page.total) return;
  }
}

/// The sequence of the message of this id, as the stream remembers it within its duplicate window. Publishes what
/// cannot be stored, because it names a last sequence that no stream has: the server looks for duplicates first.
std::optional<std::uint64_t> remembered(Replies& replies, const std::string& stream, const std::string& subject,
                                        const std::string& message_id, const std::string& what) {
  const Outcome outcome = replies.publish(subject, {},
                                          {{"Nats-Msg-Id", message_id},
                                           {"Nats-Expected-Stream", stream},
                                           {"Nats-Expected-Last-Sequence", "1000000000000000000"}});
  if (outcome.stored() && outcome.ack.duplicate) return outcome.ack.sequence;
  if (outcome.status != NATS_OK) throw_outcome(outcome, what);
  return std::nullopt;
}

bool has_id(const Stored& message, const std::string& message_id) {
  return message.headers.find("Nats-Msg-Id: " + message_id + "\r\n") != std::string::npos ||
         message.headers.find("Nats-Msg-Id:" + message_id + "\r\n") != std::string::npos;
}

/// Looks at messages from `sequence` on, until one is of after `end`.
std::optional<Stored> scan(Connection::Handles& handles, const std::string& stream, std::uint64_t sequence,
                           std::uint64_t last, Timestamp end, const std::string& message_id, int& looks,
                           const std::string& what) {
  for (; sequence <= last && looks > 0;) {
    std::vector<std::uint64_t> sequences;
    for (; sequences.size() < kRequestsInFlight && sequence <= last; ++sequence) sequences.push_back(sequence);
    looks -= static_cast<int>(sequences.size());
    const std::vector<Stored> found = messages_at(handles, stream, sequences, what);
    for (const auto& message : found) {
      if (message.time > end) return std::nullopt;
      if (has_id(message, message_id)) return message;
    }
    if (found.empty() && sequence <= last) {  // a hole: go to where there are messages again
      const auto next = next_message(handles, stream, ">", sequence, what);
      if (!next) return std::nullopt;
      sequence = next->sequence;
    }
  }
  return std::nullopt;
}

std::optional<Stored> search(Connection::Handles& handles, const std::string& stream, const std::string& message_id,
                             Timestamp made, const std::string& what) {
  StreamInfo info;
  jsErrCode code{};
  const natsStatus status = js_GetStreamInfo(info.out(), handles.consume_js, stream.c_str(), nullptr, &code);
  if (status != NATS_OK) throw_status(status, code, what);
  if (info->State.Msgs == 0) return std::nullopt;
  const std::uint64_t last = info->State.LastSeq;
  /// The first sequence whose message came at `time` or later.
  const auto first_at = [&](Timestamp time) {
    std::uint64_t low = info->State.FirstSeq;
    std::uint64_t high = last + 1;
    while (low < high) {
      const std::uint64_t middle = low + (high - low) / 2;
      const auto message = next_message(handles, stream, ">", middle, what);
      if (!message || message->time >= time) {
        high = middle;
      } else {
        low = message->sequence + 1;
      }
    }
    return low;
  };
  int looks = kMaxLooks;
  const std::uint64_t near = first_at(made - kJustBefore);
  if (auto found = scan(handles, stream, near, last, made + kAfter, message_id, looks, what)) return found;
  if (near <= 1) return std::nullopt;
  return scan(handles, stream, first_at(made - kBefore), near - 1, made, message_id, looks, what);
}

}  // namespace

std::optional<MessagePlace> find_message(Connection& connection, const std::string& stream, const std::string& subject,
                                         const std::string& message_id, std::optional<Timestamp> made) {
  Connection::Handles& handles = connection.handles();
  const std::string what = "stream " + stream;
  handles.require_connected(what);
  MessagePlace place;
  std::optional<Stored> message;
  if (const auto sequence = remembered(*handles.consume_replies, stream, subject, message_id, what)) {
    place.sequence = *sequence;
    auto found = messages_at(handles, stream, {*sequence}, what);
    if (!found.empty()) message = std::move(found.front());
  } else {
    if (made) message = search(handles, stream, message_id, *made, what);
    if (!message) return std::nullopt;
    place.sequence = message->sequence;
  }
  if (!message) {
    place.delivered = place.acked = true;
    return place;
  }
  place.stored = true;
  place.subject = message->subject;
  place.received = message->time;
  look_at_consumers(*handles.consume_replies, stream, what, place);
  return place;
}

}  // namespace pipegen::nats
