#include "worker/dead_letter.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "pipegen/log.hpp"
#include "worker/status.hpp"

namespace pipegen::worker {
namespace {

constexpr std::size_t kMostHeaders = 65'535;  // octets that JetStream stores, whatever max_payload is
constexpr std::size_t kLongId = 4'096;        // one that is longer is not worth a letter that cannot be stored

/// Text as the value of a header: one line, not too long.
std::string header_value(std::string_view text) {
  std::string out = shortened(text);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return out;
}

std::string worker_name() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  return std::string(host.data()) + ":" + std::to_string(::getpid());
}

}  // namespace

DeadLetters::Draft DeadLetters::draft(const Delivery& delivery, const DeadLetterReason& reason,
                                      const nats::Headers& more) const {
  Draft draft;
  HeaderList& headers = draft.headers;
  for (auto& [name, value] : nats::headers_of(delivery.message.get())) {
    if (name == "Pipegen-Message-Id") continue;  // below
    headers.emplace_back(name.starts_with("Nats-") ? "Pipegen-Original-" + name : std::move(name), std::move(value));
  }
  draft.needed_from = headers.size() + (delivery.id().size() > kLongId ? 1 : 0);
  headers.emplace_back("Pipegen-Message-Id", delivery.id());
  const auto stored = Timestamp(std::chrono::microseconds(delivery.key.stored_at / 1000));
  headers.emplace_back("Pipegen-Error-Stage", stage_.name);
  headers.emplace_back("Pipegen-Error-Class", header_value(reason.error_class));
  headers.emplace_back("Pipegen-Error-Message", header_value(reason.message));
  headers.emplace_back("Pipegen-Error-Stream", delivery.stream);
  headers.emplace_back("Pipegen-Error-Seq", std::to_string(delivery.key.sequence));
  headers.emplace_back("Pipegen-Error-Deliveries", std::to_string(delivery.deliveries));
  headers.emplace_back("Pipegen-Error-Subject", delivery.subject());
  headers.emplace_back("Pipegen-Error-First-Seen", to_string(stored));
  headers.emplace_back("Pipegen-Error-Worker", worker_name());
  headers.insert(headers.end(), more.begin(), more.end());
  // With the stage, because several may refuse the same message; with the time, because sequences begin again in a
  // stream that was deleted and made again.
  draft.message_id = "dlq:" + stage_.name + ":" + std::string(delivery.stream) + ":" +
                     std::to_string(delivery.key.sequence) + ":" + std::to_string(delivery.key.stored_at);
  return draft;
}

void DeadLetters::publish(const Delivery& delivery, const DeadLetterReason& reason) {
  send(delivery.payload(), draft(delivery, reason));
}

void DeadLetters::publish(std::string_view payload, std::string_view message_id, const std::string& workflow_id,
                          const DeadLetterReason& reason) {
  Draft draft;
  HeaderList& headers = draft.headers;
  if (!workflow_id.empty()) headers.emplace_back("Pipegen-Workflow-Id", workflow_id);
  headers.emplace_back("Pipegen-Error-Stage", stage_.name);
  headers.emplace_back("Pipegen-Error-Class", header_value(reason.error_class));
  headers.emplace_back("Pipegen-Error-Message", header_value(reason.message));
  headers.emplace_back("Pipegen-Error-Stream", stage_.stream);
  headers.emplace_back("Pipegen-Error-Worker", worker_name());
  draft.message_id = message_id;
  send(payload, std::move(draft));
}

void DeadLetters::publish_all(std::span<const Letter> letters) {
  if (letters.empty()) return;
  connection_.handles().require_connected("cannot store a dead letter on " + stage_.dead_letter_subject);
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t open = 0;
    std::string trouble;
  };
  const auto waiting = std::make_shared<Waiting>();
  for (const Letter& letter : letters) {
    Draft draft = this->draft(*letter.delivery, letter.reason, letter.more);
    const std::string_view payload = letter.delivery->payload();
    const std::size_t kept = fit(draft, payload);
    nats::Headers headers(draft.headers.begin(), draft.headers.end());
    if (kept != payload.size() || headers.size() != draft.headers.size()) {
      // Cut, or with a header of several values: rare, so one by one.
      send(payload, this->draft(*letter.delivery, letter.reason, letter.more));
      continue;
    }
    if (!stage_.dead_letter_stream.empty()) headers["Nats-Expected-Stream"] = stage_.dead_letter_stream;
    {
      const std::lock_guard lock(waiting->mutex);
      ++waiting->open;
    }
    connection_.publish_async(stage_.dead_letter_subject, payload, draft.message_id, headers,
                              [waiting](const nats::PublishAck* ack, std::string_view error, bool) {
                                const std::lock_guard lock(waiting->mutex);
                                if (ack == nullptr) waiting->trouble = error;
                                if (--waiting->open == 0) waiting->changed.notify_all();
                              });
  }
  std::unique_lock lock(waiting->mutex);
  waiting->changed.wait(lock, [&] { return waiting->open == 0; });
  if (!waiting->trouble.empty()) throw Unavailable("cannot store a dead letter: " + waiting->trouble);
}

/// A message that just fitted has no room for the reason: then its own headers give way, at last the end of its
/// payload.
std::size_t DeadLetters::fit(Draft& draft, std::string_view payload) const {
  const std::int64_t limit = connection_.max_payload();
  if (limit <= 0) return payload.size();
  const auto room = static_cast<std::size_t>(limit);
  const auto size = [&] {
    std::size_t sum = 256 + draft.message_id.size();
    for (const auto& [name, value] : draft.headers) sum += name.size() + value.size() + 4;
    return sum;
  };
  if (size() <= kMostHeaders && payload.size() + size() <= room) return payload.size();
  draft.headers.erase(draft.headers.begin(), draft.headers.begin() + static_cast<std::ptrdiff_t>(draft.needed_from));
  draft.needed_from = 0;
  const std::size_t needed = size();
  return payload.size() + needed <= room ? payload.size() : room - std::min(room, needed);
}

void DeadLetters::send(std::string_view payload, Draft draft) {
  auto& handles = connection_.handles();
  const std::string what = "cannot store a dead letter on " + stage_.dead_letter_subject;
  handles.require_connected(what);

  const std::string_view kept = payload.substr(0, fit(draft, payload));
  nats::Message message;
  nats::check(natsMsg_Create(message.out(), stage_.dead_letter_subject.c_str(), nullptr, kept.data(),
                             static_cast<int>(kept.size())),
              what);
  for (const auto& [name, value] : draft.headers) {
    nats::check(natsMsgHeader_Add(message.get(), name.c_str(), value.c_str()), what);
  }
  if (kept.size() != payload.size()) {
    nats::check(natsMsgHeader_Set(message.get(), "Pipegen-Error-Cut", std::to_string(payload.size()).c_str()), what);
    Logger().error("a dead letter had to be cut to fit",
                   {{"stage", stage_.name}, {"octets", payload.size()}, {"kept", kept.size()}});
  }

  jsPubOptions options;
  jsPubOptions_Init(&options);
  options.MsgId = draft.message_id.c_str();
  options.MaxWait = 5'000;
  if (!stage_.dead_letter_stream.empty()) options.ExpectStream = stage_.dead_letter_stream.c_str();
  jsErrCode code = static_cast<jsErrCode>(0);
  const natsStatus status = js_PublishMsg(nullptr, handles.publish_js, message.get(), &options, &code);
  if (status == NATS_OK) return;
  // Whatever the server says here, the message is not to blame: it stays in hand until its dead letter is stored.
  try {
    nats::throw_status(status, code, what);
  } catch (const Unavailable&) {
    throw;
  } catch (const Error& error) {
    throw Unavailable(error.what());
  }
}

}  // namespace pipegen::worker
