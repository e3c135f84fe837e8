// What has become of a workflow: computed from the entries that the API and the stages write to the status bucket.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/ingest.hpp"
#include "pipegen/key_value.hpp"
#include "pipegen/stage.hpp"

namespace pipegen::http {

/// The stage name of the API's own entries.
inline constexpr std::string_view kIngestStage = "_ingest";

/// One handled message. Key and value are read by every service of a pipeline: do not change them.
struct StatusEntry {
  std::string stage;         // of the key, as is
  std::string message_id{};  // this
  std::string state;         // "done" or "failed"
  Timestamp at{};
  std::string event;  // the one that was handled
  std::map<std::string, std::int64_t> produced;
  std::string reason;
  std::string result_event;    // of the workflow's result, if this made it
  std::string result_payload;  // JSON
};

/// "<workflow>.<stage>.<message>", each as KeyValue::key_token().
std::string status_key(std::string_view workflow_id, std::string_view stage, std::string_view message_id);
std::string status_value(const StatusEntry& entry);
/// Entries of a workflow; those that are not readable are left out (and logged). Throws Unavailable.
std::vector<StatusEntry> read_status(KeyValue& store, std::string_view workflow_id);

struct StageStatus {
  std::string stage;
  std::int64_t expected = 0;  // messages made for it so far
  std::int64_t done = 0;
  std::int64_t failed = 0;
  std::int64_t waiting = 0;  // made, and neither done nor failed
};

struct WorkflowStatus {
  enum class State { kRunning, kCompleted, kFailed };
  State state = State::kRunning;
  Timestamp accepted_at{};
  Timestamp updated_at{};
  std::vector<StageStatus> stages;
  std::vector<StatusEntry> failures;
  std::optional<StatusEntry> result;
};

/// `result_event`: the event that completes the workflow; without one it is complete when nothing waits any more.
WorkflowStatus summarize(std::vector<StatusEntry> entries, const std::vector<StageInfo>& stages,
                         std::optional<std::string_view> result_event);

}  // namespace pipegen::http
