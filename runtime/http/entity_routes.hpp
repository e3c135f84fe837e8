// The routes of an ingestion API for entities: POST /ingest/{entity}, /ingest/message, /ingest/batch,
// GET /ingest/status/{id}.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "http/ingest_context.hpp"
#include "http/server.hpp"
#include "nats/sent.hpp"
#include "pipegen/message_status.hpp"
#include "pipegen/metrics.hpp"

namespace pipegen::http {

/// Thread safe.
class EntityRoutes {
 public:
  /// Both must outlive it. Throws ConfigError: of the database for the status.
  EntityRoutes(IngestContext& context, Metrics& metrics);

  using Add = std::function<void(std::string method, std::string pattern, Handler handler)>;
  /// Nothing when the API has no entities. It must outlive the server.
  void add_to(const Add& add);

 private:
  struct Entity {
    const EntityIngest* api;
    Counter* accepted;
    Counter* rejected;
  };
  class Batch;

  Response post_entity(Request& request, const Entity* entity);
  Response post_batch(Request& request);
  Response get_status(Request& request) const;

  /// The one that the client names: with ?entity= or X-Entity-Type, by name or path in any case. Null when it names
  /// none; throws Problem 422 for one that there is not.
  const Entity* named(const Request& request) const;
  const Entity* find(std::string_view name) const;
  /// The only one that takes the body. Throws Problem 400, 422.
  const Entity& fitting(std::string_view body) const;
  std::uint64_t max_body() const;
  std::string names() const;

  IngestContext& context_;
  nats::SentCounters sent_;
  std::vector<Entity> entities_;
  FindMessage find_row_;
};

}  // namespace pipegen::http
