// One request at a time over a connection: cpp-httplib takes the path apart and writes the answer.
#pragma once

#include <chrono>
#include <memory>

#include "http/connection.hpp"
#include "http/router.hpp"

namespace pipegen::http {

/// For one thread.
class Protocol {
 public:
  /// `slots` and `window`: see Transfer.
  Protocol(const Router& router, Slots& slots, std::chrono::milliseconds idle_timeout,
           std::chrono::milliseconds window);
  ~Protocol();

  /// Serves the request that connection.ready() has found; false when the connection must end. `last`: say that no
  /// further request of this connection is served.
  bool serve_one(Connection& connection, bool last);

 private:
  class Adapter;
  std::unique_ptr<Adapter> adapter_;
};

}  // namespace pipegen::http
