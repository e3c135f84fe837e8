#include "nats/stored.hpp"

#include <algorithm>
#include <deque>

#include "nats/replies.hpp"
#include "pipegen/json.hpp"

namespace pipegen::nats {
namespace {

constexpr std::size_t kRequestsInFlight = 64;

/// The server writes nanoseconds; a Timestamp has microseconds.
Timestamp read_time(std::string text) {
  const auto point = text.find('.');
  if (point != std::string::npos) {
    const auto end = std::min(text.find_first_not_of("0123456789", point + 1), text.size());
    if (end - point > 7) text.erase(point + 7, end - point - 7);
  }
  return parse_timestamp(text).value_or(Timestamp{});
}

struct Answer {
  Stored message{};
  std::optional<ApiError> error{};
};

Stored read_message(json::Reader& in) {
  static constexpr json::Field kFields[] = {
      {"subject"}, {"seq"}, {"hdrs", json::kOptional}, {"data", json::kOptional}, {"time", json::kOptional}};
  Stored message;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        message.subject = in.string();
        break;
      case 1:
        message.sequence = static_cast<std::uint64_t>(in.int64());
        break;
      case 2:
        message.headers = text_of(in.bytes());
        break;
      case 3:
        message.data = text_of(in.bytes());
        break;
      case 4:
        message.time = read_time(in.string());
        break;
    }
  }
  return message;
}

Answer read_answer(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"message", json::kOptional}, {"error", json::kOptional}};
  Answer answer;
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      answer.message = read_message(in);
      continue;
    }
    answer.error = read_api_error(in);
  }
  return answer;
}

std::optional<Stored> stored_of(const Message& message, const std::string& what) {
  Answer answer = json::parse(payload_of(message.get()), read_answer);
  if (!answer.error) return std::move(answer.message);
  if (answer.error->code == JSNoMessageFoundErr) return std::nullopt;
  if (answer.error->code == JSStreamNotFoundErr) {
    throw ConfigError(what +
                      " does not exist on the NATS server: start the service that declares it, or mend its name");
  }
  throw Unavailable(what + " cannot be read: " + answer.error->description);
}

std::string get_subject(const std::string& stream) { return "$JS.API.STREAM.MSG.GET." + stream; }

std::string last_by(const std::string& subject) {
  json::Writer request;
  request.begin_object();
  request.field("last_by_subj", subject);
  request.end_object();
  return request.take();
}

/// Many requests for one message each; those that get none are left out.
std::vector<Stored> messages_of(Connection::Handles& handles, const std::string& stream,
                                const std::vector<std::string>& requests, const std::string& what) {
  std::vector<Stored> messages;
  std::deque<std::future<Message>> in_flight;
  for (std::size_t next = 0; next < requests.size() || !in_flight.empty();) {
    if (next < requests.size() && in_flight.size() < kRequestsInFlight) {
      in_flight.push_back(handles.consume_replies->request(get_subject(stream), requests[next], what));
      ++next;
      continue;
    }
    if (auto stored = stored_of(in_flight.front().get(), what)) messages.push_back(*std::move(stored));
    in_flight.pop_front();
  }
  return messages;
}

}  // namespace

void check_bucket_name(const std::string& bucket) {
  const bool good = !bucket.empty() && std::all_of(bucket.begin(), bucket.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
  if (!good) throw ConfigError("\"" + bucket + "\" cannot name a bucket: letters, digits, '-' and '_' only");
}

std::optional<Stored> last_message(Connection::Handles& handles, const std::string& stream, const std::string& subject,
                                   const std::string& what) {
  handles.require_connected(what);
  return stored_of(handles.consume_replies->request(get_subject(stream), last_by(subject), what).get(), what);
}

std::vector<Stored> last_messages(Connection::Handles& handles, const std::string& stream,
                                  const std::vector<std::string>& subjects, const std::string& what) {
  handles.require_connected(what);
  std::vector<std::string> requests;
  for (const auto& subject : subjects) requests.push_back(last_by(subject));
  return messages_of(handles, stream, requests, what);
}

std::vector<Stored> messages_at(Connection::Handles& handles, const std::string& stream,
                                const std::vector<std::uint64_t>& sequences, const std::string& what) {
  handles.require_connected(what);
  std::vector<std::string> requests;
  for (const auto sequence : sequences) requests.push_back("{\"seq\":" + std::to_string(sequence) + "}");
  return messages_of(handles, stream, requests, what);
}

std::optional<Stored> next_message(Connection::Handles& handles, const std::string& stream, const std::string& subject,
                                   std::uint64_t sequence, const std::string& what) {
  handles.require_connected(what);
  json::Writer request;
  request.begin_object();
  request.field("seq", static_cast<std::int64_t>(sequence));
  request.field("next_by_subj", subject);
  request.end_object();
  return stored_of(handles.consume_replies->request(get_subject(stream), request.take(), what).get(), what);
}

std::vector<std::string> subjects_of(Connection::Handles& handles, const std::string& stream, const std::string& filter,
                                     const std::string& what) {
  handles.require_connected(what);
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Info.SubjectsFilter = filter.c_str();
  StreamInfo info;
  jsErrCode code{};
  const natsStatus status = js_GetStreamInfo(info.out(), handles.consume_js, stream.c_str(), &options, &code);
  if (static_cast<int>(code) == JSStreamNotFoundErr) {
    throw ConfigError(what +
                      " does not exist on the NATS server: start the service that declares it, or mend its name");
  }
  if (status != NATS_OK) throw_status(status, code, what);
  std::vector<std::string> subjects;
  const jsStreamStateSubjects* list = info->State.Subjects;
  for (int i = 0; list != nullptr && i < list->Count; ++i) subjects.emplace_back(list->List[i].Subject);
  return subjects;
}

bool subject_matches(std::string_view filter, std::string_view subject) {
  while (!filter.empty()) {
    if (filter == ">") return !subject.empty();
    if (subject.empty()) return false;
    const std::size_t filter_end = std::min(filter.find('.'), filter.size());
    const std::size_t subject_end = std::min(subject.find('.'), subject.size());
    const std::string_view token = filter.substr(0, filter_end);
    if (token != "*" && token != subject.substr(0, subject_end)) return false;
    filter.remove_prefix(std::min(filter_end + 1, filter.size()));
    subject.remove_prefix(std::min(subject_end + 1, subject.size()));
  }
  return subject.empty();
}

void purge(Connection::Handles& handles, const std::string& stream, const std::string& subject, std::uint64_t sequence,
           const std::string& what) {
  handles.require_connected(what);
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Purge.Subject = subject.c_str();
  options.Stream.Purge.Sequence = sequence;
  jsErrCode code{};
  const natsStatus status = js_PurgeStream(handles.consume_js, stream.c_str(), &options, &code);
  if (status != NATS_OK) throw_status(status, code, what);
}

}  // namespace pipegen::nats
