#include "pipegen/ingest.hpp"

#include <atomic>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "http/ingest_server.hpp"
#include "http/service.hpp"
#include "http/trace_exporter.hpp"
#include "nats/certificate_watch.hpp"
#include "nats/garbage.hpp"
#include "nats/promises.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"

namespace pipegen {

namespace {

using namespace std::chrono_literals;

constexpr int kExitUsage = 64;  // EX_USAGE

/// As far as it is known: the subjects of events are told when they are published.
std::vector<std::string> published_by(const IngestApi& api) {
  std::vector<std::string> subjects;
  for (const auto& entity : api.entities) subjects.push_back(entity.subject);
  return subjects;
}

int check(const IngestApi& api, const Settings& settings, std::string_view service) {
  try {
    nats::Connection connection(nats::options_from(settings, service));
    nats::ensure(connection, api.topology);
    connection.require_publishable(published_by(api));
    nats::log_published(connection, api.topology, Logger());
  } catch (const Unavailable& error) {
    throw ConfigError(error.what());
  }
  std::cout << service << ": the settings and the server are good" << std::endl;
  return 0;
}

int serve(IngestApi api, const Settings& settings, std::string_view service) {
  const Logger log;
  Metrics metrics;
  // Before whatever makes spans, so that it goes after that.
  const auto traces = http::export_traces(service, api.pipeline, metrics);
  nats::ConnectionOptions options = nats::options_from(settings, service);
  options.metrics = &metrics;
  nats::CertificateWatch certificates(options, settings);  // compares with what the connection reads now
  const Topology topology = api.topology;
  const std::vector<std::string> subjects = published_by(api);
  const auto grace = settings.duration(api.section + ".grace_period", 25s);

  // Declared before the server, which uses it until it is gone.
  std::unique_ptr<nats::Connection> connection;
  http::IngestServer server(std::move(api), settings, metrics);
  std::unique_ptr<AdminServer> admin;
  std::atomic<bool> ready = false;
  if (settings.find("admin.port")) {
    admin = std::make_unique<AdminServer>(settings.text("admin.host", "127.0.0.1"),
                                          static_cast<int>(settings.integer("admin.port", 0, 0, 65'535)), metrics, [&] {
                                            if (!ready)
                                              return Readiness{false, "the service is starting: it waits for NATS"};
                                            return Readiness{connection->connected(), "NATS is away"};
                                          });
    log.info("admin endpoints are served", {{"admin_port", admin->port()}});
  }
  server.start();
  log.info("the API is served", {{"api_port", server.port()}});

  // The server may not be there yet. /health is answered while we wait, and a signal ends the wait.
  std::atomic<bool> set_up = false;
  std::exception_ptr failure;
  std::thread setup([&] {
    try {
      connection = std::make_unique<nats::Connection>(options, 0ms);
      while (true) {
        try {
          nats::ensure(*connection, topology);
          connection->require_publishable(subjects);
          nats::log_published(*connection, topology, log);
          break;
        } catch (const Unavailable& error) {
          if (const std::string why = connection->forbidden(); !why.empty()) throw ConfigError(why);
          log.warning("NATS went away while the service started", {{"reason", error.what()}});
          if (connection->closed_for_good()) throw;
          std::this_thread::sleep_for(1s);
        }
      }
      server.attach(*connection);
      ready = true;
      log.info("ready");
    } catch (...) {
      failure = std::current_exception();
    }
    set_up = true;
  });
  bool told_to_stop = false;
  while (!set_up && !told_to_stop) told_to_stop = wait_for_signal(50ms);
  if (!set_up) {
    // The library cannot be told to stop connecting. Nothing was accepted, so there is nothing to lose.
    log.info("stopped before NATS was there");
    std::_Exit(0);
  }
  setup.join();
  if (failure) std::rethrow_exception(failure);

  nats::GarbageCollector garbage(*connection, topology, metrics, nats::GarbageCollector::options_from(settings));
  bool begins_again = false;
  while (!told_to_stop && !begins_again) {
    told_to_stop = wait_for_signal(1s);
    begins_again = !told_to_stop && certificates.renewed();
    if (!told_to_stop && connection->closed_for_good()) {
      // Only a new connection can go on, and whoever runs the service starts a new process.
      log.error("the process exits so that a new one can connect");
      std::_Exit(kExitSoftware);
    }
  }
  log.info(begins_again ? "the certificates were renewed: the service begins again with them" : "stopping");
  garbage.request_stop();
  const int cut = server.stop(grace);
  if (cut > 0) log.warning("requests were cut at the end of the grace period", {{"requests", cut}});
  if (traces) traces->close();
  log.info("stopped");
  if (begins_again) begin_again();
  return 0;
}

}  // namespace

void IngestApi::add_upload(Upload upload) { uploads.push_back(std::move(upload)); }
void IngestApi::add_event(EventRoute route) { events.push_back(std::move(route)); }
void IngestApi::add_entity(EntityIngest entity) { entities.push_back(std::move(entity)); }
void IngestApi::add_stage(StageInfo stage) { stages.push_back(std::move(stage)); }

int run_ingest_api(int argc, char** argv, std::string_view service,
                   const std::function<IngestApi(const Settings& settings)>& make_api) {
  bool only_check = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--check") {
      only_check = true;
      continue;
    }
    const bool help = argument == "--help" || argument == "-h";
    (help ? std::cout : std::cerr) << (help ? ""
                                            : std::string(service) + ": unknown argument " + std::string(argument) +
                                                  "\n")
                                   << "usage: " << service << " [--check]\n"
                                   << "  --check  connect, compare what is on the server with the schema, and exit\n";
    return help ? 0 : kExitUsage;
  }
  return run_service(service, [&](const Settings& settings) {
    IngestApi api = make_api(settings);
    return only_check ? check(api, settings, service) : serve(std::move(api), settings, service);
  });
}

}  // namespace pipegen
