#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <utility>

#include "nats/handles.hpp"
#include "nats/replies.hpp"
#include "nats/stored.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"

namespace pipegen {

void Topology::add_stream(StreamSpec stream) { streams.push_back(std::move(stream)); }
void Topology::add_object_bucket(BucketSpec bucket) { object_buckets.push_back(std::move(bucket)); }
void Topology::add_key_value(BucketSpec bucket) { key_values.push_back(std::move(bucket)); }

}  // namespace pipegen

namespace pipegen::nats {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

/// A freshly started cluster needs a few seconds to elect its leaders.
constexpr auto kPatience = std::chrono::seconds(20);

/// What this library asks for, whether the schema calls it a stream or a bucket.
struct Wanted {
  std::string what{};  // "stream TTS_JOBS", for errors
  StreamSpec spec{};
  std::int64_t max_per_subject = -1;
  bool bucket = false;  // rollup, direct gets, discard new: what ADR-8 and ADR-20 ask for
  bool deny_delete = false;
};

const char* text_of(jsRetentionPolicy retention) {
  switch (retention) {
    case js_InterestPolicy:
      return "interest";
    case js_WorkQueuePolicy:
      return "work_queue";
    default:
      return "limits";
  }
}
const char* text_of(jsStorageType storage) { return storage == js_MemoryStorage ? "memory" : "file"; }
const char* text_of(jsDiscardPolicy discard) { return discard == js_DiscardNew ? "new" : "old"; }
const char* text_of(bool flag) { return flag ? "true" : "false"; }

jsRetentionPolicy retention_of(Retention retention) {
  switch (retention) {
    case Retention::kInterest:
      return js_InterestPolicy;
    case Retention::kWorkQueue:
      return js_WorkQueuePolicy;
    default:
      return js_LimitsPolicy;
  }
}

std::string time_text(std::int64_t nanos) {
  if (nanos <= 0) return "no limit";
  const std::int64_t ms = nanos / 1'000'000;
  for (const auto& [unit, size] : {std::pair{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}}) {
    if (ms % size == 0) return std::to_string(ms / size) + unit;
  }
  return std::to_string(ms) + "ms";
}

std::string limit_text(std::int64_t limit) { return limit <= 0 ? "no limit" : std::to_string(limit); }

std::string list_text(std::vector<std::string> list) {
  std::sort(list.begin(), list.end());
  std::string text = "[";
  for (const auto& item : list) text += (text.size() > 1 ? ", " : "") + item;
  return text + "]";
}

std::int64_t nanos(milliseconds time) { return nanoseconds(time).count(); }

/// Whether every subject that matches `narrow` matches `wide`.
bool covers(std::string_view wide, std::string_view narrow) {
  for (;;) {
    const std::string_view left = wide.substr(0, wide.find('.'));
    const std::string_view right = narrow.substr(0, narrow.find('.'));
    if (left == ">") return true;
    if (right == ">" || (left != "*" && left != right)) return false;
    const bool ends = left.size() == wide.size();
    if (ends || right.size() == narrow.size()) return ends && right.size() == narrow.size();
    wide.remove_prefix(left.size() + 1);
    narrow.remove_prefix(right.size() + 1);
  }
}

bool cover(const std::vector<std::string>& wide, const std::string& narrow) {
  return std::any_of(wide.begin(), wide.end(), [&](const auto& subject) { return covers(subject, narrow); });
}

/// The server refuses a window that is longer than the messages live.
milliseconds window_of(const StreamSpec& spec) {
  return spec.max_age.count() > 0 ? std::min(spec.duplicate_window, spec.max_age) : spec.duplicate_window;
}

void check_spec(const Wanted& wanted) {
  const StreamSpec& spec = wanted.spec;
  const bool bad_name = spec.name.empty() || spec.name.find_first_of(" \t\r\n.*>/\\") != std::string::npos;
  if (bad_name) throw ConfigError("\"" + spec.name + "\" cannot name a stream: no space, dot, '*', '>' or slash");
  const bool limited = spec.max_age.count() > 0 || spec.max_bytes > 0 || spec.max_messages > 0;
  if (spec.retention == Retention::kWorkQueue && spec.discard == Discard::kOld && limited) {
    throw ConfigError(wanted.what +
                      " is a work queue that discards old messages: it would delete work that nobody has done; set "
                      "discard: new");
  }
}

/// Calls until the server has made up its mind: a cluster without a leader answers 503 or nothing.
natsStatus settled(Connection::Handles& handles, const std::string& what,
                   const std::function<natsStatus(jsErrCode*)>& call, jsErrCode* code) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    handles.require_connected(what, std::chrono::seconds(10));
    *code = {};
    const natsStatus status = call(code);
    const int number = static_cast<int>(*code);
    const bool unsettled = number == JSClusterNotAvailErr || number == JSClusterNotLeaderErr ||
                           number == JSClusterIncompleteErr || number == JSStreamOfflineErr ||
                           (number == 0 && (status == NATS_TIMEOUT || status == NATS_NO_RESPONDERS ||
                                            status == NATS_CONNECTION_DISCONNECTED));
    if (status == NATS_OK || !unsettled) return status;
    handles.refuse_if_forbidden();
    if (std::chrono::steady_clock::now() > end) throw_status(status, *code, what);
    std::this_thread::sleep_for(milliseconds(200));
  }
}

natsStatus add(Connection::Handles& handles, const Wanted& wanted, jsErrCode* code) {
  const StreamSpec& spec = wanted.spec;
  std::vector<const char*> subjects;
  for (const auto& subject : spec.subjects) subjects.push_back(subject.c_str());
  jsStreamConfig config;
  jsStreamConfig_Init(&config);
  config.Name = spec.name.c_str();
  config.Subjects = subjects.data();
  config.SubjectsLen = static_cast<int>(subjects.size());
  config.Retention = retention_of(spec.retention);
  config.Storage = spec.storage == Storage::kMemory ? js_MemoryStorage : js_FileStorage;
  config.Discard = spec.discard == Discard::kNew ? js_DiscardNew : js_DiscardOld;
  config.MaxAge = nanos(spec.max_age);
  config.MaxBytes = spec.max_bytes > 0 ? spec.max_bytes : -1;
  config.MaxMsgs = spec.max_messages > 0 ? spec.max_messages : -1;
  config.MaxMsgsPerSubject = wanted.max_per_subject;
  config.Duplicates = nanos(window_of(spec));
  config.Replicas = spec.replicas;
  config.AllowRollup = wanted.bucket;
  config.AllowDirect = wanted.bucket;
  config.DenyDelete = wanted.deny_delete;
  return js_AddStream(nullptr, handles.consume_js, &config, nullptr, code);
}

/// Names the streams that hold one of the subjects; empty when the server does not tell.
std::string owners_of(Connection::Handles& handles, const StreamSpec& spec) {
  std::string owners;
  for (const auto& subject : spec.subjects) {
    try {
      json::Writer request;
      request.begin_object();
      request.field("subject", subject);
      request.end_object();
      const auto answer = handles.consume_replies->request("$JS.API.STREAM.NAMES", request.take(), spec.name).get();
      const auto names = json::parse(payload_of(answer.get()), [](json::Reader& in) {
        static constexpr json::Field kFields[] = {{"streams", json::kOptional}};
        std::vector<std::string> list;
        for (json::Object fields(in, kFields); fields.next();) {
          list = in.list<std::string>([](json::Reader& item) { return item.string(); });
        }
        return list;
      });
      for (const auto& name : names) {
        if (name != spec.name) owners += (owners.empty() ? "" : "; ") + subject + " belongs to stream " + name;
      }
    } catch (const Error&) {
      return owners;
    }
  }
  return owners;
}

void compare(const Wanted& wanted, const jsStreamConfig& server, std::int64_t max_payload) {
  const StreamSpec& spec = wanted.spec;
  std::string lines;
  const auto line = [&](const char* setting, const std::string& has, const std::string& wants) {
    if (has != wants) lines += std::string("\n  ") + setting + ": server has " + has + ", schema wants " + wants;
  };
  line("retention", text_of(server.Retention), text_of(retention_of(spec.retention)));
  line("storage", text_of(server.Storage), spec.storage == Storage::kMemory ? "memory" : "file");
  if (!wanted.bucket) line("discard", text_of(server.Discard), spec.discard == Discard::kNew ? "new" : "old");
  line("max_age", time_text(server.MaxAge), time_text(nanos(spec.max_age)));
  line("max_bytes", limit_text(server.MaxBytes), limit_text(spec.max_bytes));
  if (!wanted.bucket) line("max_messages", limit_text(server.MaxMsgs), limit_text(spec.max_messages));
  if (wanted.bucket) line("allow_rollup_hdrs", text_of(server.AllowRollup), "true");
  // What no schema asks for, because messages would be lost by it.
  line("no_ack", text_of(server.NoAck), "false");
  line("sealed", text_of(server.Sealed), "false");
  if (!wanted.bucket) line("max_msgs_per_subject", limit_text(server.MaxMsgsPerSubject), limit_text(0));
  if (!wanted.bucket && server.MaxMsgSize < max_payload)
    line("max_msg_size", limit_text(server.MaxMsgSize), limit_text(0));
  if (lines.empty()) return;
  throw ConfigError(wanted.what + " exists with other settings:" + lines +
                    "\nchange the schema, or change the server (`nats stream edit " + spec.name +
                    "`), or give it another name in project.toml");
}

[[noreturn]] void throw_refused(Connection::Handles& handles, const Wanted& wanted, natsStatus status, jsErrCode code) {
  const char* last = nats_GetLastError(nullptr);
  const std::string why = without_secrets(last == nullptr ? "" : last);
  switch (static_cast<int>(code)) {
    case JSStreamSubjectOverlapErr: {
      const std::string owners = owners_of(handles, wanted.spec);
      throw ConfigError(wanted.what + " wants subjects that another stream has (" +
                        (owners.empty() ? list_text(wanted.spec.subjects) : owners) +
                        "): a subject can be stored by one stream only, so change one of the two");
    }
    case JSStreamReplicasNotSupportedErr:
    case JSClusterNoPeersErr:
      throw ConfigError(
          wanted.what + " wants " + std::to_string(wanted.spec.replicas) +
          " replicas, and this NATS server has no cluster of that size: set replicas: 1, or use a cluster");
    case JSNotEnabledErr:
    case JSNotEnabledForAccountErr:
      throw ConfigError("the NATS server has no JetStream: start it as `nats-server -js`");
    case JSInsufficientResourcesErr:
    case JSStorageResourcesExceededErr:
    case JSMemoryResourcesExceededErr:
    case JSAccountResourcesExceededErr:
    case JSStreamInvalidConfig:
    case JSMaximumStreamsLimitErr:
    case JSStreamMaxBytesRequiredErr:
    case JSStreamMaxStreamBytesExceededErr:
      throw ConfigError(wanted.what + " cannot be made: " + why);
    default:
      throw_status(status, code, wanted.what + " cannot be made");
  }
}

struct ApiAnswer {
  std::map<std::string, Json> config{};
  std::optional<ApiError> error{};
};

ApiAnswer read_answer(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"config", json::kOptional}, {"error", json::kOptional}};
  ApiAnswer answer;
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      answer.config = in.map<Json>([](json::Reader& value) { return value.json(); });
      continue;
    }
    answer.error = read_api_error(in);
  }
  return answer;
}

/// Not by the library's functions: those would drop what a newer server knows of a stream and the library does not.
ApiAnswer ask(Connection::Handles& handles, const Wanted& wanted, const char* request, std::string body) {
  handles.require_connected(wanted.what, std::chrono::seconds(10));
  const auto answer = handles.consume_replies->request(request + wanted.spec.name, std::move(body), wanted.what).get();
  ApiAnswer read = json::parse(payload_of(answer.get()), read_answer);
  if (!read.error) return read;
  const int code = read.error->code;
  if (code == JSStreamSubjectOverlapErr || code == JSStreamReplicasNotSupportedErr || code == JSClusterNoPeersErr) {
    throw_refused(handles, wanted, NATS_ERR, static_cast<jsErrCode>(code));
  }
  const bool unsettled = code == JSClusterNotAvailErr || code == JSClusterNotLeaderErr ||
                         code == JSClusterIncompleteErr || code == JSStreamOfflineErr;
  const std::string text = wanted.what + " cannot be extended: " + read.error->description;
  if (unsettled) throw Unavailable(text);
  throw ConfigError(text);
}

/// Services of one pipeline that were generated from different files know different events of a stream. So what can
/// only help is added to what is there: subjects, replicas, and time in which a repeated message is told from a new
/// one. False when there was something to add: another service may have done the same at the same moment, and the
/// server keeps what came last, so the caller looks again.
bool extended(Connection::Handles& handles, const Wanted& wanted, const jsStreamInfo& info) {
  const jsStreamConfig& server = *info.Config;
  const StreamSpec& spec = wanted.spec;
  const std::vector<std::string> has(server.Subjects, server.Subjects + server.SubjectsLen);
  std::vector<std::string> subjects;
  for (const auto& subject : spec.subjects) {
    if (!cover(has, subject)) subjects.push_back(subject);
  }
  const std::int64_t window = wanted.bucket ? 0 : nanos(window_of(spec));
  if (subjects.empty() && server.Duplicates >= window && server.Replicas >= spec.replicas) return true;

  // A single server takes the number, and has one replica all the same.
  const bool clustered = info.Cluster != nullptr && info.Cluster->Name != nullptr && *info.Cluster->Name != '\0';
  if (server.Replicas < spec.replicas && !clustered) {
    throw_refused(handles, wanted, NATS_ERR, JSStreamReplicasNotSupportedErr);
  }

  auto config = ask(handles, wanted, "$JS.API.STREAM.INFO.", "").config;
  const Logger log;
  if (!subjects.empty()) {
    log.info("a stream lacks subjects of this service; adding them",
             {{"stream", spec.name}, {"subjects", list_text(subjects)}});
    for (const auto& subject : has) {
      if (!cover(subjects, subject)) subjects.push_back(subject);
    }
    config["subjects"].text = json::to_json(subjects);
  }
  if (server.Duplicates < window) {
    log.warning("the duplicate window of a stream is too short for this service; making it longer",
                {{"stream", spec.name}, {"from", time_text(server.Duplicates)}, {"to", time_text(window)}});
    config["duplicate_window"].text = std::to_string(window);
  }
  if (server.Replicas < spec.replicas) {
    log.warning("a stream has fewer replicas than the schema says; adding them",
                {{"stream", spec.name}, {"from", server.Replicas}, {"to", spec.replicas}});
    config["num_replicas"].text = std::to_string(spec.replicas);
  }
  ask(handles, wanted, "$JS.API.STREAM.UPDATE.", json::to_json(config));
  return false;
}

void ensure_stream(Connection::Handles& handles, const Wanted& wanted) {
  check_spec(wanted);
  const std::string& name = wanted.spec.name;
  StreamInfo info;
  const auto look = [&](jsErrCode* code) {
    return js_GetStreamInfo(info.out(), handles.consume_js, name.c_str(), nullptr, code);
  };
  jsErrCode code{};
  natsStatus status = settled(handles, wanted.what, look, &code);
  if (static_cast<int>(code) == JSStreamNotFoundErr) {
    status = settled(
        handles, wanted.what, [&](jsErrCode* c) { return add(handles, wanted, c); }, &code);
    if (status == NATS_OK) return;
    // Another service made it in this moment; then it is there to be compared.
    if (static_cast<int>(code) != JSStreamNameExistErr) throw_refused(handles, wanted, status, code);
    status = settled(handles, wanted.what, look, &code);
  }
  for (;;) {
    if (status != NATS_OK) throw_status(status, code, wanted.what);
    compare(wanted, *info->Config, natsConnection_GetMaxPayload(handles.publish));
    if (extended(handles, wanted, *info.get())) return;
    // By now, whoever read the old settings before our change has written its own; not at the same time as it again.
    thread_local std::minstd_rand random(std::random_device{}());
    std::this_thread::sleep_for(milliseconds(std::uniform_int_distribution<>(300, 600)(random)));
    status = settled(handles, wanted.what, look, &code);
  }
}

StreamSpec bucket_stream(const BucketSpec& bucket, const char* prefix, std::vector<std::string> subjects) {
  check_bucket_name(bucket.name);
  StreamSpec spec;
  spec.name = prefix + bucket.name;
  spec.subjects = std::move(subjects);
  spec.storage = bucket.storage;
  spec.max_age = bucket.max_age;
  spec.max_bytes = bucket.max_bytes;
  spec.replicas = bucket.replicas;
  return spec;
}

}  // namespace

void ensure(Connection& connection, const Topology& topology) {
  auto& handles = connection.handles();
  for (const auto& spec : topology.streams) {
    Wanted wanted;
    wanted.what = "stream " + spec.name;
    wanted.spec = spec;
    ensure_stream(handles, wanted);
  }
  for (const auto& bucket : topology.object_buckets) {
    Wanted wanted;
    wanted.what = "object bucket " + bucket.name;
    wanted.spec = bucket_stream(bucket, "OBJ_", {"$O." + bucket.name + ".C.>", "$O." + bucket.name + ".M.>"});
    wanted.bucket = true;
    ensure_stream(handles, wanted);
  }
  for (const auto& bucket : topology.key_values) {
    Wanted wanted;
    wanted.what = "key-value bucket " + bucket.name;
    wanted.spec = bucket_stream(bucket, "KV_", {"$KV." + bucket.name + ".>"});
    wanted.max_per_subject = 1;
    wanted.bucket = true;
    wanted.deny_delete = true;
    ensure_stream(handles, wanted);
  }
}

}  // namespace pipegen::nats
