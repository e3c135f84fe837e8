// Entities: messages that become rows. The main() of a generated entity worker is one call of run_entity_worker.
//
// What is in the stream, so that any NATS client can publish it too: the entity as JSON on its subject
// ("tpch.ingest.order"), with headers that may all be missing:
//   Nats-Msg-Id          the message's id, for its status and against duplicates
//   Pipegen-Received-At  when it came in (RFC 3339); else the time of the stream
//   Pipegen-Source       who took it in: "http"; else "nats"
//   Pipegen-Version      where it stands among all messages, for one that is published again; else its place in the
//                        stream
//   traceparent          W3C trace context
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/nats.hpp"
#include "pipegen/settings.hpp"
#include "pipegen/sql.hpp"

namespace pipegen {

namespace sql {
class Database;
std::unique_ptr<Database> open_sqlite(const Settings& settings, const Schema& schema);
std::unique_ptr<Database> open_postgresql(const Settings& settings, const Schema& schema);
}  // namespace sql

/// An entity as an entity worker sees it.
struct EntitySpec {
  std::string_view name{};  // "Order"
  std::string subject{};    // "tpch.ingest.order"
  std::string durable{};    // "order-writers"
  /// Parses one message and adds its rows. Throws json::Invalid; what a transform of the user's throws comes through.
  std::function<void(std::string_view payload, sql::Batch& batch)> add_rows{};
};

/// Everything the runtime needs to know about an entity worker.
struct EntityWorkerSpec {
  std::string pipeline{};  // "tpch"
  std::string name{};      // "entity-worker"
  std::string section{};   // of the settings: "entity_worker_service"
  Topology topology{};
  std::string stream{};               // "TPCH_INGEST"
  std::string dead_letter_stream{};   // "TPCH_DLQ"
  std::string dead_letter_subject{};  // "dlq.tpch.entity-worker"
  sql::Schema schema{};
  /// Which database: sql::open_sqlite or sql::open_postgresql.
  std::unique_ptr<sql::Database> (*open_database)(const Settings& settings, const sql::Schema& schema) = nullptr;
  std::vector<EntitySpec> entities{};

  void add_entity(EntitySpec entity);
};

/// Like run_worker: settings, logging, admin endpoints, connection, topology, migrations; then consumes in batches (one
/// transaction each, acked after its commit) until SIGTERM or SIGINT. Same exit statuses. `--check` connects, compares,
/// migrates and exits.
/// Settings: "<section>.batch_size" (500), "<section>.worker_pool_size" (writers; 2, with SQLite always 1),
/// "<section>.status_rows" (true), "<section>.max_deliver" (5), "<section>.ack_wait" (30 s; how soon the messages of a
/// process that died go to another one), "<section>.grace_period" (25 s).
int run_entity_worker(int argc, char** argv, std::string_view service,
                      const std::function<EntityWorkerSpec(const Settings& settings)>& make_spec);

}  // namespace pipegen
