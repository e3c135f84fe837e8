#include "http/status.hpp"

#include <algorithm>

#include "core/json_text.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"

namespace pipegen::http {

namespace {

/// The text of which KeyValue::key_token made `token`.
std::string text_of_token(std::string_view token) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  std::string text;
  for (std::size_t i = 0; i < token.size(); ++i) {
    if (token[i] == '=' && i + 2 < token.size() && digit(token[i + 1]) >= 0 && digit(token[i + 2]) >= 0) {
      text.push_back(static_cast<char>(digit(token[i + 1]) * 16 + digit(token[i + 2])));
      i += 2;
    } else {
      text.push_back(token[i]);
    }
  }
  return text;
}

StatusEntry read_entry(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"state"},
                                            {"at"},
                                            {"event", json::kOptional},
                                            {"produced", json::kOptional},
                                            {"reason", json::kOptional},
                                            {"result", json::kOptional}};
  static constexpr json::Field kResultFields[] = {{"event"}, {"payload"}};
  StatusEntry out;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.state = in.string();
        break;
      case 1:
        out.at = in.timestamp();
        break;
      case 2:
        out.event = in.string();
        break;
      case 3:
        out.produced = in.map<std::int64_t>([](json::Reader& value) { return value.int64({.min = 0}); });
        break;
      case 4:
        out.reason = in.string();
        break;
      case 5:
        for (json::Object result(in, kResultFields); result.next();) {
          (result.index() == 0 ? out.result_event : out.result_payload) = in.string();
        }
        break;
    }
  }
  return out;
}

}  // namespace

std::string status_key(std::string_view workflow_id, std::string_view stage, std::string_view message_id) {
  return KeyValue::key_token(workflow_id) + "." + KeyValue::key_token(stage) + "." + KeyValue::key_token(message_id);
}

std::string status_value(const StatusEntry& entry) {
  json::Writer out;
  out.begin_object();
  out.field("state", entry.state);
  out.field("at", entry.at);
  out.field("event", entry.event);
  out.field("produced", entry.produced);
  if (entry.state == "failed") out.field("reason", json::repaired_utf8(entry.reason));
  if (!entry.result_event.empty()) {
    out.key("result");
    out.begin_object();
    out.field("event", entry.result_event);
    out.field("payload", entry.result_payload);
    out.end_object();
  }
  out.end_object();
  return out.take();
}

std::vector<StatusEntry> read_status(KeyValue& store, std::string_view workflow_id) {
  std::vector<StatusEntry> entries;
  for (const auto& found : store.entries(KeyValue::key_token(workflow_id) + ".>")) {
    try {
      StatusEntry entry = json::parse(found.value, read_entry);
      const std::size_t first = found.key.find('.');
      const std::size_t second = found.key.find('.', first + 1);
      entry.stage = text_of_token(std::string_view(found.key).substr(first + 1, second - first - 1));
      entry.message_id = text_of_token(std::string_view(found.key).substr(second + 1));
      entries.push_back(std::move(entry));
    } catch (const json::Invalid& error) {
      Logger().warning("an entry of the status bucket is not readable", {{"key", found.key}, {"error", error.what()}});
    }
  }
  return entries;
}

WorkflowStatus summarize(std::vector<StatusEntry> entries, const std::vector<StageInfo>& stages,
                         std::optional<std::string_view> result_event) {
  WorkflowStatus status;
  std::map<std::string, std::int64_t> produced;
  for (const auto& entry : entries) {
    for (const auto& [event, count] : entry.produced) produced[event] += count;
    const bool earlier = status.accepted_at == Timestamp{} || entry.at < status.accepted_at;
    if (earlier) status.accepted_at = entry.at;
    status.updated_at = std::max(status.updated_at, entry.at);
  }
  bool waiting = false;
  for (const auto& stage : stages) {
    StageStatus sums{.stage = std::string(stage.name), .expected = produced[std::string(stage.consumes)]};
    for (const auto& entry : entries) {
      if (entry.stage != stage.name) continue;
      ++(entry.state == "failed" ? sums.failed : sums.done);
    }
    sums.waiting = std::max<std::int64_t>(0, sums.expected - sums.done - sums.failed);
    // A stage that collects waits for the pages that failed before it: that does not keep the workflow going.
    waiting = waiting || (sums.waiting > 0 && !stage.collects);
    status.stages.push_back(std::move(sums));
  }
  bool collecting = false;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    collecting = collecting || (stages[i].collects && status.stages[i].waiting > 0);
  }
  for (auto& entry : entries) {
    if (entry.state == "failed") {
      status.failures.push_back(entry);
    } else if (result_event && entry.result_event == *result_event) {
      status.result = entry;
    }
  }
  std::sort(status.failures.begin(), status.failures.end(),
            [](const StatusEntry& a, const StatusEntry& b) { return a.at < b.at; });
  const bool finished = result_event ? status.result.has_value() : !waiting && !collecting && status.failures.empty();
  if (finished) {
    status.state = WorkflowStatus::State::kCompleted;
  } else if (!status.failures.empty() && !waiting) {
    status.state = WorkflowStatus::State::kFailed;
  }
  return status;
}

}  // namespace pipegen::http
