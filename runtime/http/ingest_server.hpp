// The ingestion API as an object: routes over HttpServer, without the process around it (that is run_ingest_api).
#pragma once

#include <chrono>
#include <memory>

#include "core/clock.hpp"
#include "pipegen/ingest.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/settings.hpp"

namespace pipegen::http {

/// Binds when made, serves from start() on; every route but /health answers 503 until it is attached to NATS. Thread
/// safe.
class IngestServer {
 public:
  /// `metrics` and `clock` must outlive it. Throws ConfigError: a setting is wrong, the port is taken.
  IngestServer(IngestApi api, const Settings& settings, Metrics& metrics, const AnyClock& clock = AnyClock::real());
  /// Stops at once.
  ~IngestServer();

  void start();
  int port() const noexcept;
  /// From here on requests are done. The topology must exist; `connection` must outlive the server.
  void attach(nats::Connection& connection);
  /// See HttpServer::stop.
  int stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pipegen::http
