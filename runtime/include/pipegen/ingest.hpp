// The ingestion API: HTTP in, events and entities out. The main() of a generated API is one call of run_ingest_api.
//
// Settings, in the section of the API ("ingest_api"):
//   host, port               where it listens ("127.0.0.1", and what the schema says)
//   tokens, tokens_file      bearer tokens, with commas between them: every route but /, /health, /ready, /metrics and
//                            /openapi.json needs one (none: everybody is let in)
//   threads                  requests that are served at a time (64)
//   queue                    requests that wait for a thread; more get 503 (1000)
//   connections              open at a time; more get 503 (800)
//   connections_per_address  open at a time from one address, or IPv6 network; more get 429. Off (0) because behind a
//                            proxy every client has the proxy's address
//   upload_timeout           for the whole body of an upload or a batch (10 min)
//   grace_period             for requests that run when the service is stopped (25 s)
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/message_status.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/outbox.hpp"
#include "pipegen/settings.hpp"

namespace pipegen {

/// A field of an event that a client may give with an upload: as a part of a multipart body or a query parameter of
/// this name. Text values are turned into JSON by kind, then read by the generated parser like any message.
struct UploadField {
  enum class Kind { kText, kJson };  // kText becomes a JSON string; kJson (numbers, records, lists) is JSON already
  std::string_view name{};           // on the wire, a literal; dots lead into records: "header.userId"
  Kind kind = Kind::kText;
};

/// The finished object of a workflow: GET <path>/{workflow_id}/<as>.
struct UploadResult {
  std::string as{};          // "audio"
  std::string bucket{};      // as the schema names it
  std::string media_type{};  // "audio/wav"
  std::string event{};       // the event that carries its key
  /// Reads the object's key from that event's payload.
  std::function<std::string(std::string_view payload)> object_key{};
};

/// POST <path> with a raw body or multipart/form-data: the body becomes an object, then an event is published.
struct Upload {
  std::string path{};                      // "/documents"
  std::string bucket{};                    // as the schema names it
  std::vector<std::string> media_types{};  // empty: any
  std::int64_t max_size = 0;
  std::string object_extension{};  // of the object's key, "pdf"
  std::vector<UploadField> fields{};
  std::string event{};
  /// Publishes the event: `fields` is a JSON object of what the client gave (throws json::Invalid, answered with 422).
  std::function<void(std::string_view fields, const std::string& workflow_id, const std::string& object_key,
                     Outbox& outbox)>
      publish{};
  /// Checks `fields` alone, before the body is stored.
  std::function<void(std::string_view fields, const std::string& workflow_id)> check{};
  std::optional<UploadResult> result{};
};

/// POST /events/<event> with the event as JSON.
struct EventRoute {
  std::string event{};
  /// Parses, makes fresh fields anew, publishes; gives the workflow id ("" when there is none).
  std::function<std::string(std::string_view body, Outbox& outbox)> publish{};
};

/// POST /ingest/<path> with the entity as JSON; also by name through /ingest/message and /ingest/batch.
struct EntityIngest {
  std::string_view name{};  // "Order"
  std::string_view path{};  // "order"; not "message", "batch" or "status"
  std::string subject{};    // "tpch.ingest.order"
  /// Throws json::Invalid when the body is no such entity.
  std::function<void(std::string_view body)> check{};
};

/// A step of the pipeline, for the status of a workflow: which events each stage takes and makes. The texts are
/// literals.
struct StageInfo {
  std::string_view name{};
  std::string_view consumes{};
  std::vector<std::string_view> produces{};
  bool collects = false;
};

struct IngestApi {
  std::string pipeline{};
  std::string section{};  // "ingest_api"
  int port = 8080;        // overridden by <section>.port; host by <section>.host
  Topology topology{};
  std::string status_bucket{};
  std::string idempotency_bucket{};
  std::vector<Upload> uploads{};
  std::vector<EventRoute> events{};
  std::vector<StageInfo> stages{};
  std::vector<EntityIngest> entities{};
  std::string entity_stream{};  // "TPCH_INGEST"
  /// sql::find_message_in_sqlite or sql::find_message_in_postgresql.
  std::function<FindMessage(const Settings& settings)> open_status{};
  std::string_view openapi{};  // the document that /openapi.json answers

  void add_upload(Upload upload);
  void add_event(EventRoute route);
  void add_entity(EntityIngest entity);
  void add_stage(StageInfo stage);
};

/// Like run_worker: settings, logging, connection, topology, then HTTP until SIGTERM or SIGINT. Same exit statuses: 0,
/// 78 it cannot start, 70 the NATS server closed the connection for good.
int run_ingest_api(int argc, char** argv, std::string_view service,
                   const std::function<IngestApi(const Settings& settings)>& make_api);

}  // namespace pipegen
