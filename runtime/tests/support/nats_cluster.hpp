// Several nats-servers that are one JetStream cluster, on loopback.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pipegen/nats.hpp"
#include "support/nats_server.hpp"

namespace pipegen::testing {

class NatsCluster {
 public:
  explicit NatsCluster(int nodes);

  /// Of every node, with commas: what nats.url takes.
  std::string urls() const;
  /// By the name that the server gives a leader.
  NatsServer& node(const std::string& name);
  /// Whether the stream has a leader, and every other node has what it has.
  bool caught_up(nats::Connection& connection, const std::string& stream) const;

 private:
  std::vector<std::unique_ptr<NatsServer>> nodes_;
};

}  // namespace pipegen::testing
