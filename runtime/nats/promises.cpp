#include "nats/promises.hpp"

#include <algorithm>

#include "nats/handles.hpp"

namespace pipegen::nats {
namespace {

/// What people may expect of a stream and do not get from this one.
std::string not_promised(const jsStreamConfig& config) {
  std::string text;
  const auto add = [&](const std::string& sentence) { text += (text.empty() ? "" : "; ") + sentence; };
  if (config.Storage == js_MemoryStorage) {
    add("messages are in memory only: they are lost when the server ends");
  } else {
    // Whether it is set, no client can see.
    add("an ack does not wait for the disk unless nats-server (2.10 or later) has sync_interval: always: a machine "
        "that loses power may lose what was just acked");
  }
  if (config.Replicas <= 1)
    add("one replica: a lost disk loses messages, and nothing is served while its server is away");
  const bool has_limits = config.MaxMsgs > 0 || config.MaxBytes > 0 || config.MaxMsgsPerSubject > 0;
  if (has_limits && config.Discard != js_DiscardNew) add("a full stream drops its oldest messages, handled or not");
  if (config.MaxAge > 0) {
    add("messages older than " + seconds_text(config.MaxAge) + " are dropped, handled or not");
  }
  return text;
}

}  // namespace

std::string seconds_text(std::int64_t nanoseconds) {
  std::string text = std::to_string(static_cast<double>(nanoseconds) / 1e9);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text + "s";
}

Logger with_promises(Connection& connection, const std::string& stream, const Logger& log) {
  StreamInfo info;
  jsErrCode code = static_cast<jsErrCode>(0);
  const natsStatus status =
      js_GetStreamInfo(info.out(), connection.handles().consume_js, stream.c_str(), nullptr, &code);
  if (status != NATS_OK) throw_status(status, code, "stream " + stream);
  const jsStreamConfig& config = *info->Config;
  return log.with({{"stream", stream},
                   {"replicas", config.Replicas},
                   {"storage", config.Storage == js_MemoryStorage ? "memory" : "file"},
                   {"discard", config.Discard == js_DiscardNew ? "new" : "old"},
                   {"retention", config.Retention == js_WorkQueuePolicy  ? "work_queue"
                                 : config.Retention == js_InterestPolicy ? "interest"
                                                                         : "limits"},
                   {"duplicate_window", seconds_text(config.Duplicates)},
                   {"not_promised", not_promised(config)}});
}

void log_published(Connection& connection, const Topology& topology, const Logger& log, const std::string& consumed) {
  for (const StreamSpec& stream : topology.streams) {
    const bool of_dead_letters = std::all_of(stream.subjects.begin(), stream.subjects.end(),
                                             [](const std::string& subject) { return subject.starts_with("dlq."); });
    if (stream.name == consumed || of_dead_letters) continue;
    with_promises(connection, stream.name, log).info("publishing");
  }
}

}  // namespace pipegen::nats
