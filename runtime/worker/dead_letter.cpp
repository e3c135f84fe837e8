#include "worker/dead_letter.hpp"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "pipegen/log.hpp"
#include "worker/status.hpp"

namespace pipegen::worker {
namespace {

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

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

void DeadLetters::publish(const Delivery& delivery, const DeadLetterReason& reason) {
  HeaderList headers;
  const char** names = nullptr;
  int count = 0;
  if (natsMsgHeader_Keys(delivery.message.get(), &names, &count) == NATS_OK) {
    const std::unique_ptr<const char*, Free> owned_names(names);
    for (int i = 0; i < count; ++i) {
      const char** values = nullptr;
      int value_count = 0;
      if (natsMsgHeader_Values(delivery.message.get(), names[i], &values, &value_count) != NATS_OK) continue;
      const std::unique_ptr<const char*, Free> owned_values(values);
      const std::string name =
          std::string_view(names[i]).starts_with("Nats-") ? std::string("Pipegen-Original-") + names[i] : names[i];
      for (int j = 0; j < value_count; ++j) headers.emplace_back(name, values[j]);
    }
  }
  const std::size_t needed_from = headers.size();
  const auto stored = Timestamp(std::chrono::microseconds(delivery.key.stored_at / 1000));
  headers.emplace_back("Pipegen-Error-Stage", stage_.name);
  headers.emplace_back("Pipegen-Error-Class", header_value(reason.error_class));
  headers.emplace_back("Pipegen-Error-Message", header_value(reason.message));
  headers.emplace_back("Pipegen-Error-Stream", delivery.info.stream);
  headers.emplace_back("Pipegen-Error-Seq", std::to_string(delivery.info.sequence));
  headers.emplace_back("Pipegen-Error-Deliveries", std::to_string(delivery.info.deliveries));
  headers.emplace_back("Pipegen-Error-Subject", delivery.info.subject);
  headers.emplace_back("Pipegen-Error-First-Seen", to_string(stored));
  headers.emplace_back("Pipegen-Error-Worker", worker_name());
  // With the time, because sequences begin again in a stream that was deleted and made again.
  send(delivery.payload(),
       "dlq:" + delivery.info.stream + ":" + std::to_string(delivery.info.sequence) + ":" +
           std::to_string(delivery.key.stored_at),
       headers, needed_from);
}

void DeadLetters::publish(std::string_view payload, std::string_view message_id, const std::string& workflow_id,
                          const DeadLetterReason& reason) {
  HeaderList headers;
  if (!workflow_id.empty()) headers.emplace_back("Pipegen-Workflow-Id", workflow_id);
  headers.emplace_back("Pipegen-Error-Stage", stage_.name);
  headers.emplace_back("Pipegen-Error-Class", header_value(reason.error_class));
  headers.emplace_back("Pipegen-Error-Message", header_value(reason.message));
  headers.emplace_back("Pipegen-Error-Stream", stage_.stream);
  headers.emplace_back("Pipegen-Error-Worker", worker_name());
  send(payload, message_id, headers, 0);
}

void DeadLetters::send(std::string_view payload, std::string_view message_id, const HeaderList& headers,
                       std::size_t needed_from) {
  auto& handles = connection_.handles();
  const std::string what = "cannot store a dead letter on " + stage_.dead_letter_subject;
  handles.require_connected(what);

  // A message that just fitted has no room for the reason: then its own headers give way, at last the end of its
  // payload.
  const std::int64_t limit = connection_.max_payload();
  const auto size_from = [&](std::size_t first) {
    std::size_t size = 256 + message_id.size();
    for (std::size_t i = first; i < headers.size(); ++i) size += headers[i].first.size() + headers[i].second.size() + 4;
    return size;
  };
  std::size_t first = 0;
  std::string_view kept = payload;
  if (limit > 0) {
    const auto room = static_cast<std::size_t>(limit);
    if (payload.size() + size_from(0) > room) first = needed_from;
    if (payload.size() + size_from(first) > room) kept = payload.substr(0, room - std::min(room, size_from(first)));
  }

  nats::Message message;
  nats::check(natsMsg_Create(message.out(), stage_.dead_letter_subject.c_str(), nullptr, kept.data(),
                             static_cast<int>(kept.size())),
              what);
  for (std::size_t i = first; i < headers.size(); ++i) {
    nats::check(natsMsgHeader_Add(message.get(), headers[i].first.c_str(), headers[i].second.c_str()), what);
  }
  if (kept.size() != payload.size()) {
    nats::check(natsMsgHeader_Set(message.get(), "Pipegen-Error-Cut", std::to_string(payload.size()).c_str()), what);
    Logger().error("a dead letter had to be cut to fit",
                   {{"stage", stage_.name}, {"octets", payload.size()}, {"kept", kept.size()}});
  }

  jsPubOptions options;
  jsPubOptions_Init(&options);
  const std::string id(message_id);
  options.MsgId = id.c_str();
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
