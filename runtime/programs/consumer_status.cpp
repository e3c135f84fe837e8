#include "programs/consumer_status.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <string_view>
#include <tuple>

#include "nats/handles.hpp"
#include "nats/stored.hpp"
#include "programs/dead_letter_box.hpp"

namespace pipegen {
namespace {

using StreamList = std::unique_ptr<jsStreamInfoList, void (*)(jsStreamInfoList*)>;
using ConsumerList = std::unique_ptr<jsConsumerInfoList, void (*)(jsConsumerInfoList*)>;

std::string text_of(const char* text) { return text == nullptr ? std::string() : std::string(text); }

bool is_gone(natsStatus status, jsErrCode code) { return status == NATS_NOT_FOUND || code == JSStreamNotFoundErr; }

StreamList streams_of(nats::Connection& connection) {
  jsStreamInfoList* raw = nullptr;
  jsErrCode code = static_cast<jsErrCode>(0);
  const natsStatus status = js_Streams(&raw, connection.handles().consume_js, nullptr, &code);
  StreamList list(raw, jsStreamInfoList_Destroy);
  // Says so when there is none.
  if (status != NATS_OK && status != NATS_NOT_FOUND) nats::throw_status(status, code, "the server's streams");
  return list;
}

bool exists(nats::Connection& connection, const std::string& stream) {
  nats::StreamInfo info;
  jsErrCode code = static_cast<jsErrCode>(0);
  const natsStatus status =
      js_GetStreamInfo(info.out(), connection.handles().consume_js, stream.c_str(), nullptr, &code);
  if (is_gone(status, code)) return false;
  if (status != NATS_OK) nats::throw_status(status, code, "stream " + stream);
  return true;
}

/// Dead letters that have the same origin.
struct Origin {
  std::string stage, stream, subject;
  auto operator<=>(const Origin&) const = default;
};
struct Letters {
  std::uint64_t count = 0;
  ConsumerStatus::Failure newest{};
};
using Tally = std::map<Origin, Letters>;

Tally letters_of(nats::Connection& connection, const std::vector<std::string>& streams) {
  Tally tally;
  for (const std::string& stream : streams) {
    if (!exists(connection, stream)) continue;
    DeadLetterBox(connection, stream).each({.headers_only = true}, [&](const DeadLetter& letter) {
      Letters& letters = tally[{letter.header("Pipegen-Error-Stage"), letter.header("Pipegen-Error-Stream"),
                                letter.header("Pipegen-Error-Subject")}];
      ++letters.count;
      if (letter.stored_at >= letters.newest.at) {
        letters.newest = {letter.stored_at, letter.header("Pipegen-Error-Class"),
                          letter.header("Pipegen-Error-Message")};
      }
      return true;
    });
  }
  return tally;
}

/// A consumer's, before the dead letters are known.
struct Found {
  ConsumerStatus status{};
  std::string filter{};  // empty: every subject
};

Found look_at(nats::Connection& connection, const ConsumerName& name) {
  Found found;
  found.status.name = name;
  nats::ConsumerInfo info;
  jsErrCode code = static_cast<jsErrCode>(0);
  const std::string what = "consumer " + name.durable + " of stream " + name.stream;
  const natsStatus status = js_GetConsumerInfo(info.out(), connection.handles().consume_js, name.stream.c_str(),
                                               name.durable.c_str(), nullptr, &code);
  if (is_gone(status, code)) return found;
  if (status != NATS_OK) nats::throw_status(status, code, what);
  found.status.exists = true;
  found.status.pending = info->NumPending;
  found.status.in_hand = static_cast<std::uint64_t>(info->NumAckPending);
  found.status.redelivered = static_cast<std::uint64_t>(info->NumRedelivered);
  found.filter = text_of(info->Config->FilterSubject);
  if (found.status.pending + found.status.in_hand > 0) {
    const auto oldest = nats::next_message(connection.handles(), name.stream, found.filter.empty() ? ">" : found.filter,
                                           info->AckFloor.Stream + 1, "stream " + name.stream);
    if (oldest) found.status.oldest = oldest->time;
  }
  return found;
}

/// Whether the messages of that origin were this consumer's to handle.
bool is_of(const Found& found, const Origin& origin) {
  const ConsumerName& name = found.status.name;
  if (origin.stream != name.stream) return false;
  // What is no message, as a group that expired, has no subject.
  if (origin.subject.empty()) return origin.stage == name.stage || name.durable.starts_with(origin.stage);
  return found.filter.empty() || nats::subject_matches(found.filter, origin.subject);
}

}  // namespace

std::vector<ConsumerName> consumers_of(nats::Connection& connection) {
  std::vector<ConsumerName> names;
  const StreamList streams = streams_of(connection);
  for (int i = 0; streams != nullptr && i < streams->Count; ++i) {
    const std::string stream = streams->List[i]->Config->Name;
    jsConsumerInfoList* raw = nullptr;
    jsErrCode code = static_cast<jsErrCode>(0);
    const natsStatus status = js_Consumers(&raw, connection.handles().consume_js, stream.c_str(), nullptr, &code);
    const ConsumerList consumers(raw, jsConsumerInfoList_Destroy);
    if (is_gone(status, code)) continue;
    if (status != NATS_OK) nats::throw_status(status, code, "the consumers of stream " + stream);
    for (int j = 0; consumers != nullptr && j < consumers->Count; ++j) {
      const std::string durable = text_of(consumers->List[j]->Config->Durable);
      if (!durable.empty()) names.push_back({.stage = {}, .stream = stream, .durable = durable});
    }
  }
  std::sort(names.begin(), names.end(), [](const ConsumerName& a, const ConsumerName& b) {
    return std::tie(a.stream, a.durable) < std::tie(b.stream, b.durable);
  });
  return names;
}

std::vector<std::string> dead_letter_streams_of(nats::Connection& connection) {
  std::vector<std::string> names;
  const StreamList streams = streams_of(connection);
  for (int i = 0; streams != nullptr && i < streams->Count; ++i) {
    const jsStreamConfig& config = *streams->List[i]->Config;
    for (int j = 0; j < config.SubjectsLen; ++j) {
      if (!std::string_view(config.Subjects[j]).starts_with("dlq.")) continue;
      names.emplace_back(config.Name);
      break;
    }
  }
  return names;
}

std::vector<ConsumerStatus> status_of(nats::Connection& connection, const std::vector<ConsumerName>& names,
                                      const std::vector<std::string>& dead_letter_streams) {
  connection.handles().require_connected("the status of consumers");
  std::vector<Found> all;
  for (const ConsumerName& name : names) all.push_back(look_at(connection, name));
  for (const auto& entry : letters_of(connection, dead_letter_streams)) {
    const Origin& origin = entry.first;
    const Letters& letters = entry.second;
    std::vector<Found*> owners;
    for (Found& found : all) {
      if (is_of(found, origin)) owners.push_back(&found);
    }
    // Several consumers may take the same messages: then it is the one that its name gives away.
    const auto by_name = [&](const Found* found) {
      const ConsumerName& name = found->status.name;
      return name.stage.empty() ? name.durable.starts_with(origin.stage + "-") : name.stage == origin.stage;
    };
    if (owners.size() > 1 && std::any_of(owners.begin(), owners.end(), by_name)) {
      std::erase_if(owners, [&](const Found* found) { return !by_name(found); });
    }
    for (Found* owner : owners) {
      ConsumerStatus& status = owner->status;
      status.dead_letters += letters.count;
      if (!status.last_error || status.last_error->at <= letters.newest.at) status.last_error = letters.newest;
    }
  }
  std::vector<ConsumerStatus> result;
  for (Found& found : all) result.push_back(std::move(found.status));
  return result;
}

}  // namespace pipegen
