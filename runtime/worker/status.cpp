#include "worker/status.hpp"

#include "core/json_text.hpp"
#include "http/status.hpp"
#include "pipegen/json.hpp"

namespace pipegen::worker {

std::string bucket_name(const Topology& topology, const std::string& name) {
  for (const BucketSpec& bucket : topology.key_values) {
    if (bucket.schema_name == name) return bucket.name;
  }
  return name;
}

std::string status_key(const std::string& workflow_id, const Stage& stage, const std::string& message_id) {
  return http::status_key(workflow_id, stage.name, message_id);
}

std::string shortened(std::string_view reason) {
  constexpr std::size_t kMost = 2048;
  std::string out(reason.substr(0, kMost));
  if (reason.size() > kMost) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0) out.pop_back();
    out += "…";
  }
  return out;
}

namespace {

std::string done_status(const Stage& stage, const CallOutbox& outbox, bool with_payload) {
  json::Writer out;
  out.begin_object();
  out.field("state", "done");
  out.field("at", now());
  out.field("event", stage.event);
  out.key("produced");
  out.begin_object();
  for (const auto& [event, count] : outbox.produced()) out.field(event, count);
  out.end_object();
  if (outbox.result()) {
    out.key("result");
    out.begin_object();
    out.field("event", outbox.result()->event);
    out.field("payload", with_payload ? std::string_view(outbox.result()->payload) : std::string_view());
    out.end_object();
  }
  out.end_object();
  return out.take();
}

}  // namespace

void publish_done_status(const Stage& stage, const MessageInfo& message, CallOutbox& outbox) {
  if (stage.status_bucket.empty() || message.workflow_id.empty() || outbox.has_status()) return;
  const std::string subject = "$KV." + bucket_name(stage.topology, stage.status_bucket) + "." +
                              status_key(message.workflow_id, stage, message.id);
  try {
    outbox.publish_entry(subject, done_status(stage, outbox, true));
  } catch (const PermanentError&) {  // too large: as text in JSON it is longer than the event was
    outbox.publish_entry(subject, done_status(stage, outbox, false));
  }
  outbox.set_has_status();
}

std::string failed_status(const Stage& stage, const std::string& reason) {
  json::Writer out;
  out.begin_object();
  out.field("state", "failed");
  out.field("at", now());
  out.field("event", stage.event);
  out.key("produced");
  out.begin_object();
  out.end_object();
  // What a handler or a library throws may be in any encoding, or cut within a character.
  out.field("reason", json::repaired_utf8(shortened(reason)));
  out.end_object();
  return out.take();
}

}  // namespace pipegen::worker
