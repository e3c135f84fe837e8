#include "worker/delivery.hpp"

#include <array>
#include <charconv>
#include <random>
#include <vector>

namespace pipegen::worker {
namespace {

template <typename T>
bool read_number(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

constexpr char kHexDigits[] = "0123456789abcdef";

void append_hex(std::string& text, std::uint64_t bits) {
  for (int shift = 60; shift >= 0; shift -= 4) text += kHexDigits[bits >> shift & 15];
}

std::string random_span() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  std::string text;
  append_hex(text, generator());
  return text;
}

/// 128 bits that look random, the same for the same text (FNV-1a, mixed as in SplitMix64).
std::string trace_of(std::string_view text) {
  std::string out;
  for (std::uint64_t hash : {0xcbf29ce484222325ULL, 0x9e3779b97f4a7c15ULL}) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9ULL;
    hash = (hash ^ hash >> 27) * 0x94d049bb133111ebULL;
    append_hex(out, hash ^ hash >> 31);
  }
  return out;
}

bool is_hex(std::string_view text) { return text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }
bool is_zero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

}  // namespace

std::optional<AckSubject> parse_ack_subject(std::string_view reply) {
  static constexpr std::string_view kPrefix = "$JS.ACK.";
  if (!reply.starts_with(kPrefix)) return std::nullopt;
  std::array<std::string_view, 12> tokens;
  std::size_t count = 0;
  for (std::size_t at = kPrefix.size();; ++count) {
    if (count == tokens.size()) return std::nullopt;
    const auto dot = reply.find('.', at);
    tokens[count] = reply.substr(at, dot == std::string_view::npos ? dot : dot - at);
    if (dot == std::string_view::npos) break;
    at = dot + 1;
  }
  ++count;
  // <stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>; newer servers put <domain>.<account>
  // before it and may add a token.
  if (count != 7 && count < 9) return std::nullopt;
  const std::size_t first = count == 7 ? 0 : 2;
  AckSubject out;
  out.stream = tokens[first];
  if (!read_number(tokens[first + 2], out.deliveries) || !read_number(tokens[first + 3], out.sequence) ||
      !read_number(tokens[first + 5], out.stored_at) || !read_number(tokens[first + 6], out.pending)) {
    return std::nullopt;
  }
  return out;
}

Trace trace_from(std::string_view traceparent, std::string_view message_id) {
  // "00-<32 hex>-<16 hex>-<2 hex>"; a later version may go on after that.
  if (traceparent.size() >= 55 && traceparent[2] == '-' && traceparent[35] == '-' && traceparent[52] == '-') {
    const auto version = traceparent.substr(0, 2), trace = traceparent.substr(3, 32), span = traceparent.substr(36, 16),
               flags = traceparent.substr(53, 2);
    const bool whole = version == "00" ? traceparent.size() == 55 : traceparent.size() == 55 || traceparent[55] == '-';
    if (whole && version != "ff" && is_hex(version) && is_hex(trace) && is_hex(span) && is_hex(flags) &&
        !is_zero(trace) && !is_zero(span)) {
      return {std::string(trace), std::string(flags)};
    }
  }
  return {trace_of(message_id), "01"};
}

std::string child_of(const Trace& trace) { return "00-" + trace.id + "-" + random_span() + "-" + trace.flags; }

std::string_view Delivery::header(const char* name) const {
  const char* value = nullptr;
  return natsMsgHeader_Get(message.get(), name, &value) == NATS_OK && value != nullptr ? value : std::string_view();
}

Delivery::Delivery(nats::Message received, const AckSubject& from)
    : message(std::move(received)),
      key{from.sequence, from.stored_at},
      stream(from.stream),
      deliveries(from.deliveries),
      size(static_cast<std::size_t>(natsMsg_GetDataLength(message.get()))) {
  // One that is published again needs another Nats-Msg-Id, or the server would take it for a duplicate; it is the same
  // message all the same.
  given_id = header("Pipegen-Message-Id");
  if (given_id.empty()) given_id = header("Nats-Msg-Id");
  if (given_id.empty()) {
    made_id = std::string(stream) + ":" + std::to_string(key.sequence) + ":" + std::to_string(key.stored_at);
  }
}

MessageInfo Delivery::info() const {
  Trace trace = this->trace();
  return {.id = std::string(id()),
          .subject = std::string(subject()),
          .stream = std::string(stream),
          .sequence = key.sequence,
          .deliveries = deliveries,
          .workflow_id = std::string(workflow_id()),
          .trace_id = std::move(trace.id),
          .trace_flags = std::move(trace.flags)};
}

}  // namespace pipegen::worker
