#include <unistd.h>

#include <mutex>

#include "http/service.hpp"
#include "http/trace_exporter.hpp"
#include "nats/garbage.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/worker.hpp"
#include "worker/process.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using std::chrono::milliseconds;

int run(const Settings& settings, std::string_view service, bool check_only,
        const std::function<Stage(const Settings&)>& make_stage) {
  const Logger log;
  const Stage stage = make_stage(settings);
  worker::WorkerOptions options;
  options.grace_period = settings.duration(stage.section + ".grace_period", options.grace_period);
  options.deadline_grace = settings.duration(stage.section + ".deadline_grace", options.deadline_grace);
  worker::StopSignal stop(options.grace_period);

  if (check_only) {
    nats::Connection connection(nats::options_from(settings, service), std::chrono::seconds(5));
    nats::ensure(connection, stage.topology);
    Metrics metrics;
    worker::Worker(connection, stage, settings, metrics, options).check();
    worker::log_promises(connection, stage, log);
    return 0;
  }

  Metrics metrics;
  // Before whatever makes spans, so that it goes after that.
  const auto traces = http::export_traces(service, stage.pipeline, metrics);
  std::mutex running_mutex;
  const worker::Worker* running = nullptr;
  AdminServer admin(settings.text("admin.host", "127.0.0.1"), static_cast<int>(settings.integer("admin.port", 0)),
                    metrics, [&] {
                      const std::lock_guard lock(running_mutex);
                      return running != nullptr ? running->readiness() : Readiness{false, "waiting for NATS"};
                    });
  log.info("admin endpoints are served", {{"admin_port", admin.port()}});

  nats::ConnectionOptions connection_options = nats::options_from(settings, service);
  connection_options.metrics = &metrics;
  nats::Connection connection(connection_options, milliseconds(0));
  worker::Worker worker(connection, stage, settings, metrics, options);
  for (milliseconds delay(250);; delay = std::min<milliseconds>(delay * 2, std::chrono::seconds(5))) {
    try {
      nats::ensure(connection, stage.topology);
      worker::log_promises(connection, stage, log);
      worker.check();
      stop.take_over();
      worker.start();
      break;
    } catch (const Unavailable& error) {
      log.warning("cannot start yet", {{"reason", error.what()}});
      worker::exit_if_closed_for_good(connection, log);
      if (stop.wait(delay)) return 0;
    }
  }
  {
    const std::lock_guard lock(running_mutex);
    running = &worker;
  }
  nats::GarbageCollector garbage(connection, stage.topology, metrics, nats::GarbageCollector::options_from(settings));
  bool was_ready = false;
  while (!stop.wait(milliseconds(was_ready ? 1'000 : 20))) {
    worker::exit_if_closed_for_good(connection, log);
    if (!was_ready && worker.readiness().ready) {
      was_ready = true;
      log.info("ready");
    }
  }
  log.info("stopping");
  garbage.request_stop();
  const bool clean = worker.stop();
  if (traces) traces->close();
  log.info("stopped");
  // Without a server, or with a handler that goes on, there is nothing that destructors could wait for in time.
  if (!clean || !connection.connected()) ::_exit(0);
  const std::lock_guard lock(running_mutex);
  running = nullptr;
  return 0;
}

}  // namespace

int run_worker(int argc, char** argv, std::string_view service,
               const std::function<Stage(const Settings& settings)>& make_stage) {
  const worker::Arguments arguments = worker::parse_arguments(argc, argv);
  if (arguments.exit_status) return *arguments.exit_status;
  return run_service(
      service, [&](const Settings& settings) { return run(settings, service, arguments.check_only, make_stage); });
}

}  // namespace pipegen
