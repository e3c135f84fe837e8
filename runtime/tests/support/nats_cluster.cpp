#include "support/nats_cluster.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "support/faults.hpp"

namespace pipegen::testing {
namespace {

/// Ports that were free a moment ago: the nodes have to know each other's before they start.
std::vector<int> free_ports(int count) {
  std::vector<int> ports, sockets;
  for (int i = 0; i < count; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
      throw std::runtime_error("no free port");
    }
    ports.push_back(ntohs(address.sin_port));
    sockets.push_back(fd);
  }
  for (const int fd : sockets) ::close(fd);
  return ports;
}

}  // namespace

NatsCluster::NatsCluster(int nodes) {
  const auto ports = free_ports(nodes);
  std::string routes;
  for (const int port : ports)
    routes += (routes.empty() ? "nats://127.0.0.1:" : ",nats://127.0.0.1:") + std::to_string(port);
  for (int i = 0; i < nodes; ++i) {
    nodes_.push_back(std::make_unique<NatsServer>(std::vector<std::string>{
        "--name", "n" + std::to_string(i), "--cluster_name", "c1", "--cluster",
        "nats://127.0.0.1:" + std::to_string(ports[static_cast<std::size_t>(i)]), "--routes", routes}));
  }
}

std::string NatsCluster::urls() const {
  std::string urls;
  for (const auto& node : nodes_) urls += (urls.empty() ? "" : ",") + node->url();
  return urls;
}

NatsServer& NatsCluster::node(const std::string& name) {
  return *nodes_.at(static_cast<std::size_t>(std::stoi(name.substr(1))));
}

bool NatsCluster::caught_up(nats::Connection& connection, const std::string& stream) const {
  try {
    const auto info = stream_info(connection, stream);
    if (info->Cluster == nullptr || info->Cluster->Leader == nullptr) return false;
    for (int i = 0; i < info->Cluster->ReplicasLen; ++i) {
      if (!info->Cluster->Replicas[i]->Current || info->Cluster->Replicas[i]->Offline) return false;
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace pipegen::testing
