// A stage: what a generated worker tells the runtime about itself. See worker.hpp for how it runs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/nats.hpp"
#include "pipegen/outbox.hpp"
#include "pipegen/settings.hpp"

namespace pipegen {

class Context;

/// Fan-in: which messages belong together. State is kept in a key-value bucket, so any number of replicas may share it.
struct Collect {
  std::string state_bucket{};  // as the schema names it
  std::chrono::milliseconds expires{std::chrono::hours(24)};
  /// Reads the place of an item from its payload. Throws json::Invalid.
  struct Item {
    std::string group{};
    std::int64_t index = 0;  // counted from 1
    std::int64_t count = 0;  // of the whole group
  };
  std::function<Item(std::string_view payload)> item{};
  /// Called for one message of a complete group, with every payload in order of index.
  std::function<void(const std::vector<std::string>& payloads, Context& context, Outbox& outbox)> handle{};
};

/// Everything the runtime needs to know about one stage.
struct Stage {
  std::string pipeline{};  // "pdf-to-audio"
  std::string name{};      // "tts"
  std::string section{};   // of the settings: "tts_service"
  Topology topology{};
  std::string stream{};
  std::string durable{};
  std::string filter_subject{};
  std::string event{};  // the consumed event's name in the schema
  /// Subjects of the events that it publishes, as far as they are known before there is an event.
  std::vector<std::string> publishes{};
  int concurrency = 1;  // overridden by <section>.worker_pool_size
  std::chrono::milliseconds ack_wait{30'000};
  std::chrono::milliseconds timeout{std::chrono::minutes(5)};
  int max_deliver = 5;  // failures of the handler with one message, the last one included
  std::vector<std::chrono::milliseconds> backoff{std::chrono::seconds(1), std::chrono::seconds(10),
                                                 std::chrono::minutes(1)};
  std::string dead_letter_stream{};   // "PDF_TO_AUDIO_DLQ"
  std::string dead_letter_subject{};  // "dlq.pdf-to-audio.tts"
  std::string status_bucket{};        // key-value bucket of workflow states; empty: none kept

  /// One message: parse, call the handler, publish. Unset for a stage that collects.
  std::function<void(std::string_view payload, Context& context, Outbox& outbox)> handle{};
  std::optional<Collect> collect{};
};

}  // namespace pipegen
