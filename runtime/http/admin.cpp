#include "pipegen/admin.hpp"

#include "http/admin_routes.hpp"
#include "http/server.hpp"
#include "pipegen/json.hpp"

namespace pipegen {

namespace http {

void add_admin_routes(HttpServer& server, Metrics& metrics, std::function<Readiness()> readiness) {
  Gauge& ready = metrics.gauge("pipegen_ready", "1 while the service can do its work, as /ready says.");
  server.route(
      "GET", "/health", [](Request&) { return Response::json(200, R"({"status":"alive"})"); }, Lane::kReserved);
  server.route(
      "GET", "/ready",
      [readiness](Request&) {
        const Readiness now = readiness();
        if (!now.ready) throw Problem(503, now.reason, {{"Retry-After", "5"}});
        return Response::json(200, R"({"status":"ready"})");
      },
      Lane::kReserved);
  server.route(
      "GET", "/metrics",
      [&metrics, &ready, readiness = std::move(readiness)](Request&) {
        ready.set(readiness().ready ? 1 : 0);
        return Response{.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics.render()};
      },
      Lane::kReserved);
}

}  // namespace http

struct AdminServer::Impl {
  http::HttpServer server;
};

AdminServer::AdminServer(const std::string& host, int port, Metrics& metrics, std::function<Readiness()> readiness)
    : impl_(new Impl{http::HttpServer({.host = host, .port = port, .threads = 2, .connections = 64})}) {
  http::add_admin_routes(impl_->server, metrics, std::move(readiness));
  impl_->server.start();
}

AdminServer::~AdminServer() = default;

int AdminServer::port() const { return impl_->server.port(); }

}  // namespace pipegen
