// The endpoints that every service has: /health (the process is alive), /ready (it can do its work now), /metrics.
//
//   pipegen::AdminServer admin("127.0.0.1", 0, metrics, [&] { return pipegen::Readiness{nats.connected(), "NATS is
//   away"}; });
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "pipegen/metrics.hpp"

namespace pipegen {

struct Readiness {
  bool ready = false;
  std::string reason;  // why not, in words
};

/// Serves from its own thread until destroyed. `metrics` gets pipegen_ready, as of each time that somebody asks. Port 0
/// takes a free one. Throws ConfigError when it cannot listen.
class AdminServer {
 public:
  AdminServer(const std::string& host, int port, Metrics& metrics, std::function<Readiness()> readiness);
  ~AdminServer();
  int port() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pipegen
