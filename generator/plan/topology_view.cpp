#include "plan/cpp.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

constexpr std::size_t kIndent = 6;  // of a member of a stream or bucket
constexpr std::string_view kFilter = "pipegen::subject_filter(";

/// `.max_age = …` and the like, only where the schema says something else than the runtime's default.
void add_limits(json& lines, std::chrono::milliseconds max_age, std::int64_t max_bytes, int replicas, Storage storage) {
  if (storage == Storage::kMemory) lines.push_back(".storage = pipegen::Storage::kMemory");
  if (max_age.count() > 0) lines.push_back(".max_age = " + cpp_duration(max_age));
  if (max_bytes > 0) lines.push_back(".max_bytes = " + std::to_string(max_bytes));
  if (replicas != 1) lines.push_back(".replicas = " + std::to_string(replicas));
}

std::string subject_filter(const Event& event) {
  const std::string text = setting_text("nats", event.setting, event.subject);
  return event.placeholders.empty() ? text : std::string(kFilter) + text + ")";
}

/// `.subjects = {…}`, each subject in a line of its own if they have to be.
std::string subjects_line(const Pipeline& pipeline, const Stream& stream) {
  std::vector<std::string> filters;
  for (const std::string& event : stream.events) filters.push_back(subject_filter(pipeline.events.at(event)));
  if (stream.name == pipeline.entity_stream) {
    for (const Entity& entity : pipeline.entities) {
      if (entity.parent.empty()) filters.push_back(setting_text("nats", entity.setting, entity.subject));
    }
  }
  std::string one_line, lines;
  for (std::string& filter : filters) {
    one_line += (one_line.empty() ? "" : ", ") + filter;
    const std::string indent(kIndent + 8, ' ');
    if (indent.size() + filter.size() + 1 > kLineWidth && filter.starts_with(kFilter)) {
      filter.insert(kFilter.size(), "\n" + indent + "    ");
    }
    lines += indent + filter + ",\n";
  }
  one_line = ".subjects = {" + one_line + "}";
  if (kIndent + one_line.size() + 1 <= kLineWidth) return one_line;
  const std::string brace_indent(kIndent + 4, ' ');
  return ".subjects =\n" + brace_indent + "{\n" + lines + brace_indent + "}";
}

json bucket_lines(const Bucket& bucket) {
  json lines = json::array();
  lines.push_back(".schema_name = " + cpp_string(bucket.name));
  lines.push_back(fitted(".name = " + setting_text("nats", bucket.setting, bucket.name), kIndent));
  add_limits(lines, bucket.max_age, bucket.max_bytes, bucket.replicas, bucket.storage);
  return lines;
}

/// A bucket of the runtime's own.
json own_bucket(const Pipeline& pipeline, const std::string& name, std::chrono::milliseconds max_age) {
  json lines = {".schema_name = " + cpp_string(name), ".name = " + cpp_string(name)};
  add_limits(lines, max_age, 0, most_replicas(pipeline), Storage::kFile);
  return {{"lines", lines}};
}

}  // namespace

json topology_view(const Pipeline& pipeline, const Needs& needs, bool idempotency) {
  json stream_views = json::array();
  for (const std::string& name : needs.streams) {
    const Stream& stream = pipeline.streams.at(name);
    json lines = json::array();
    lines.push_back(fitted(".name = " + setting_text("nats", stream.setting, stream.name), kIndent));
    lines.push_back(subjects_line(pipeline, stream));
    if (stream.retention == Retention::kWorkQueue) lines.push_back(".retention = pipegen::Retention::kWorkQueue");
    if (stream.retention == Retention::kInterest) lines.push_back(".retention = pipegen::Retention::kInterest");
    if (stream.storage == Storage::kMemory) lines.push_back(".storage = pipegen::Storage::kMemory");
    if (stream.discard == Discard::kOld) lines.push_back(".discard = pipegen::Discard::kOld");
    if (stream.max_age.count() > 0) lines.push_back(".max_age = " + cpp_duration(stream.max_age));
    if (stream.max_bytes > 0) lines.push_back(".max_bytes = " + std::to_string(stream.max_bytes));
    if (stream.max_messages > 0) lines.push_back(".max_messages = " + std::to_string(stream.max_messages));
    if (stream.duplicate_window != std::chrono::milliseconds(120'000)) {
      lines.push_back(".duplicate_window = " + cpp_duration(stream.duplicate_window));
    }
    if (stream.replicas != 1) lines.push_back(".replicas = " + std::to_string(stream.replicas));
    stream_views.push_back({{"lines", lines}});
  }
  json dead_letters = {".name = " + cpp_string(dead_letter_stream(pipeline)),
                       ".subjects = {" + cpp_string("dlq." + pipeline.name + ".>") + "}"};
  add_limits(dead_letters, std::chrono::hours(24 * 30), 0, most_replicas(pipeline), Storage::kFile);
  stream_views.push_back({{"lines", dead_letters}});

  json object_views = json::array();
  for (const std::string& name : needs.buckets) {
    object_views.push_back({{"lines", bucket_lines(pipeline.buckets.at(name))}});
  }
  json key_value_views = json::array();
  for (const std::string& name : needs.key_values) {
    key_value_views.push_back({{"lines", bucket_lines(pipeline.key_values.at(name))}});
  }
  if (const std::string status = status_bucket(pipeline); !status.empty()) {
    key_value_views.push_back(own_bucket(pipeline, status, std::chrono::hours(24 * 7)));
  }
  if (idempotency) {
    key_value_views.push_back(own_bucket(pipeline, pipeline.constant + "_IDEMPOTENCY", std::chrono::hours(24)));
  }
  return {{"streams", stream_views}, {"object_buckets", object_views}, {"key_values", key_value_views}};
}

}  // namespace pipegen::gen
