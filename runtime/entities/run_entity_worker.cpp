#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "entities/entity_worker.hpp"
#include "http/service.hpp"
#include "http/trace_exporter.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/entities.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "sql/database.hpp"
#include "worker/process.hpp"

namespace pipegen {
namespace {

using std::chrono::milliseconds;

void check_settings(const Settings& settings, const std::string& section, const Logger& log) {
  for (const auto& where : settings.unknown(
           section, {"batch_size", "worker_pool_size", "status_rows", "max_deliver", "ack_wait", "grace_period"})) {
    log.warning("a setting has no meaning; is it misspelt?", {{"setting", where}});
  }
}

int run(const Settings& settings, std::string_view service, bool check_only,
        const std::function<EntityWorkerSpec(const Settings&)>& make_spec) {
  const Logger log;
  const EntityWorkerSpec spec = make_spec(settings);
  check_settings(settings, spec.section, log);
  entities::EntityWorkerOptions options;
  options.grace_period = settings.duration(spec.section + ".grace_period", options.grace_period);
  options.ack_wait =
      std::max<milliseconds>(settings.duration(spec.section + ".ack_wait", options.ack_wait), std::chrono::seconds(1));
  worker::StopSignal stop(options.grace_period);
  const std::unique_ptr<sql::Database> database = spec.open_database(settings, spec.schema);

  Metrics metrics;
  if (check_only) {
    nats::Connection connection(nats::options_from(settings, service), std::chrono::seconds(5));
    nats::ensure(connection, spec.topology);
    entities::EntityWorker worker(connection, spec, settings, *database, metrics, options);
    worker.check();
    worker::log_promises(connection, worker.stage(0), log);
    database->migrate();
    log.info("the tables are there", {{"database", database->description()}});
    return 0;
  }

  // Before whatever makes spans, so that it goes after that.
  const auto traces = http::export_traces(service, spec.pipeline, metrics);
  std::mutex running_mutex;
  const entities::EntityWorker* running = nullptr;
  std::string waiting_for = "waiting for NATS";
  AdminServer admin(settings.text("admin.host", "127.0.0.1"), static_cast<int>(settings.integer("admin.port", 0)),
                    metrics, [&] {
                      const std::lock_guard lock(running_mutex);
                      return running != nullptr ? running->readiness() : Readiness{false, waiting_for};
                    });
  log.info("admin endpoints are served", {{"admin_port", admin.port()}});

  nats::ConnectionOptions connection_options = nats::options_from(settings, service);
  connection_options.metrics = &metrics;
  nats::Connection connection(connection_options, milliseconds(0));
  entities::EntityWorker worker(connection, spec, settings, *database, metrics, options);
  for (milliseconds delay(250);; delay = std::min<milliseconds>(delay * 2, std::chrono::seconds(5))) {
    try {
      nats::ensure(connection, spec.topology);
      worker.check();
      database->migrate();
      log.info("the tables are there", {{"database", database->description()}});
      for (std::size_t i = 0; i < spec.entities.size(); ++i) worker::log_promises(connection, worker.stage(i), log);
      stop.take_over();
      worker.start();
      break;
    } catch (const Unavailable& error) {
      log.warning("cannot start yet", {{"reason", error.what()}});
      {
        const std::lock_guard lock(running_mutex);
        waiting_for = error.what();
      }
      worker::exit_if_closed_for_good(connection, log);
      if (stop.wait(delay)) return 0;
    }
  }
  {
    const std::lock_guard lock(running_mutex);
    running = &worker;
  }
  bool was_ready = false;
  while (!stop.wait(milliseconds(was_ready ? 1'000 : 20))) {
    worker::exit_if_closed_for_good(connection, log);
    if (!was_ready && worker.readiness().ready) {
      was_ready = true;
      log.info("ready");
    }
  }
  log.info("stopping");
  const bool clean = worker.stop();
  if (traces) traces->close();
  log.info("stopped");
  // Without a server, or with a transaction that goes on, there is nothing that destructors could wait for in time.
  if (!clean || !connection.connected()) ::_exit(0);
  const std::lock_guard lock(running_mutex);
  running = nullptr;
  return 0;
}

}  // namespace

void EntityWorkerSpec::add_entity(EntitySpec entity) { entities.push_back(std::move(entity)); }

int run_entity_worker(int argc, char** argv, std::string_view service,
                      const std::function<EntityWorkerSpec(const Settings& settings)>& make_spec) {
  const worker::Arguments arguments = worker::parse_arguments(argc, argv);
  if (arguments.exit_status) return *arguments.exit_status;
  return run_service(service,
                     [&](const Settings& settings) { return run(settings, service, arguments.check_only, make_spec); });
}

}  // namespace pipegen
