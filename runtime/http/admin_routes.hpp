// /health, /ready and /metrics, for whichever server has them.
#pragma once

#include <functional>

#include "http/server.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/metrics.hpp"

namespace pipegen::http {

/// `metrics` must outlive the server.
void add_admin_routes(HttpServer& server, Metrics& metrics, std::function<Readiness()> readiness);

}  // namespace pipegen::http
