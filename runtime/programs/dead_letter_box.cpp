#include "programs/dead_letter_box.hpp"

#include <chrono>
#include <memory>
#include <string_view>

#include "pipegen/error.hpp"

namespace pipegen {
namespace {

constexpr auto kSequenceNotFound = static_cast<jsErrCode>(10043);
constexpr std::string_view kError = "Pipegen-Error-", kOriginal = "Pipegen-Original-";

DeadLetter letter_of(natsMsg* message, std::uint64_t sequence, std::int64_t stored_at) {
  return {.sequence = sequence,
          .stored_at = Timestamp(std::chrono::microseconds(stored_at / 1000)),
          .headers = nats::headers_of(message),
          .payload = std::string(nats::payload_of(message))};
}

}  // namespace

std::string DeadLetter::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

DeadLetterBox::DeadLetterBox(nats::Connection& connection, std::string stream)
    : connection_(connection), stream_(std::move(stream)) {}

void DeadLetterBox::each(const Filter& filter, const std::function<bool(const DeadLetter&)>& see) {
  auto& handles = connection_.handles();
  const std::string what = "dead-letter stream " + stream_;
  jsErrCode code = static_cast<jsErrCode>(0);
  nats::StreamInfo info;
  natsStatus status = js_GetStreamInfo(info.out(), handles.consume_js, stream_.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, what);
  if (info->State.Msgs == 0) return;
  // Not what comes while this runs: that may never end, because what is replayed may come back.
  const std::uint64_t last = info->State.LastSeq;

  // Asked for one after the other, ordered by the server: a message that goes missing on the way is sent again.
  jsSubOptions options;
  jsSubOptions_Init(&options);
  options.Stream = stream_.c_str();
  options.Ordered = true;
  options.Config.HeadersOnly = filter.headers_only;
  nats::Subscription subscription;
  status = js_SubscribeSync(subscription.out(), handles.consume_js, ">", nullptr, &options, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "cannot read " + what);
  for (;;) {
    nats::Message message;
    status = natsSubscription_NextMsg(message.out(), subscription.get(), 5'000);
    if (status == NATS_TIMEOUT) throw Unavailable(what + ": the server does not send what it has; try again");
    if (status != NATS_OK) nats::throw_status(status, "cannot read " + what);
    jsMsgMetaData* raw = nullptr;
    nats::check(natsMsg_GetMetaData(&raw, message.get()), "cannot read " + what);
    const std::unique_ptr<jsMsgMetaData, void (*)(jsMsgMetaData*)> meta(raw, jsMsgMetaData_Destroy);
    const std::uint64_t sequence = meta->Sequence.Stream;
    if (sequence > last) return;
    const DeadLetter letter = letter_of(message.get(), sequence, meta->Timestamp);
    const bool is_meant = filter.stage.empty() || letter.header("Pipegen-Error-Stage") == filter.stage;
    if (is_meant && !see(letter)) return;
    if (sequence == last || meta->NumPending == 0) return;
  }
}

std::optional<DeadLetter> DeadLetterBox::find(std::uint64_t sequence) {
  jsErrCode code = static_cast<jsErrCode>(0);
  nats::Message message;
  const natsStatus status =
      js_GetMsg(message.out(), connection_.handles().consume_js, stream_.c_str(), sequence, nullptr, &code);
  if (status == NATS_NOT_FOUND && code != JSStreamNotFoundErr) return std::nullopt;
  if (status != NATS_OK) nats::throw_status(status, code, "dead-letter stream " + stream_);
  return letter_of(message.get(), natsMsg_GetSequence(message.get()), natsMsg_GetTime(message.get()));
}

void DeadLetterBox::replay(const DeadLetter& letter) {
  const std::string name = "dead letter " + std::to_string(letter.sequence);
  const std::string subject = letter.header("Pipegen-Error-Subject");
  if (subject.empty()) {
    throw PermanentError(name + " is no message that came from a subject: " + letter.header("Pipegen-Error-Message"));
  }
  if (!letter.header("Pipegen-Error-Cut").empty()) {
    throw PermanentError(name + " had to be cut to fit, so it is not the whole message");
  }
  nats::Headers headers;
  std::string id = letter.header("Pipegen-Message-Id");
  for (const auto& [key, value] : letter.headers) {
    if (key == "Pipegen-Original-Nats-Msg-Id" && id.empty()) id = value;
    if (key.starts_with(kError) || key.starts_with(kOriginal) || key.starts_with("Nats-")) continue;
    if (!headers.try_emplace(key, value).second) headers[key] += ", " + value;  // RFC 9110, 5.3
  }
  // Letters of older services do not say it: one without an id was called by its place in its stream, which the dead
  // letter's own id told then.
  const std::string own = letter.header("Nats-Msg-Id");
  if (id.empty() && own.starts_with("dlq:")) id = own.substr(4);
  if (!id.empty()) headers["Pipegen-Message-Id"] = id;
  const std::string replay_id = "replay:" + stream_ + ":" + std::to_string(letter.sequence) + ":" +
                                std::to_string(letter.stored_at.time_since_epoch().count());
  connection_.publish(subject, letter.payload, replay_id, headers);
}

bool DeadLetterBox::drop(std::uint64_t sequence) {
  jsErrCode code = static_cast<jsErrCode>(0);
  const natsStatus status = js_DeleteMsg(connection_.handles().consume_js, stream_.c_str(), sequence, nullptr, &code);
  if (status == NATS_OK) return true;
  const bool is_gone = status == NATS_NOT_FOUND || code == JSNoMessageFoundErr || code == kSequenceNotFound ||
                       code == JSStreamMsgDeleteFailed;
  if (is_gone && code != JSStreamNotFoundErr) return false;
  nats::throw_status(status, code, "dead-letter stream " + stream_);
}

}  // namespace pipegen
