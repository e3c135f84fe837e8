#include "worker/delivery.hpp"

#include <array>
#include <charconv>

#include "core/trace.hpp"

namespace pipegen::worker {
namespace {

template <typename T>
bool read_number(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

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

TraceContext Delivery::trace() const {
  if (const auto traceparent = header("traceparent"); !traceparent.empty()) {
    if (auto context = trace::parse(traceparent, header("tracestate")); context.has_trace()) return context;
  }
  return trace::begin_for(id());
}

MessageInfo Delivery::info(TraceContext trace) const {
  return {.id = std::string(id()),
          .subject = std::string(subject()),
          .stream = std::string(stream),
          .sequence = key.sequence,
          .deliveries = deliveries,
          .workflow_id = std::string(workflow_id()),
          .trace = std::move(trace)};
}

}  // namespace pipegen::worker
