// Workflow status: one entry per handled message in the pipeline's key-value bucket.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "pipegen/stage.hpp"
#include "worker/outbox.hpp"

namespace pipegen::worker {

/// The name on the server of a key-value bucket that the schema calls `name`.
std::string bucket_name(const Topology& topology, const std::string& name);

/// The key that the API looks for: see http::status_key().
std::string status_key(const std::string& workflow_id, const Stage& stage, const std::string& message_id);

/// At most 2 KiB of a reason, cut between code points.
std::string shortened(std::string_view reason);

/// Publishes the entry of a handled message, through its outbox and only once; nothing without a workflow or a bucket.
/// A result that is too large for an entry is named in it without its payload.
void publish_done_status(const Stage& stage, const MessageInfo& message, CallOutbox& outbox);
std::string failed_status(const Stage& stage, const std::string& reason);

}  // namespace pipegen::worker
