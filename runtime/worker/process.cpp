#include "worker/process.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "http/service.hpp"
#include "http/trace_exporter.hpp"
#include "nats/certificate_watch.hpp"
#include "nats/promises.hpp"

namespace pipegen::worker {
namespace {

using std::chrono::milliseconds;

constexpr int kExitUsage = 64;  // EX_USAGE

/// Only a new connection can go on, and whoever runs the service starts a new process.
void exit_if_closed_for_good(const nats::Connection& connection, const Logger& log) {
  if (!connection.closed_for_good()) return;
  log.error("the process exits so that a new one can connect");
  ::_exit(kExitSoftware);
}

}  // namespace

Arguments parse_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--check") {
      arguments.check_only = true;
      continue;
    }
    const bool help = argument == "--help" || argument == "-h";
    std::fprintf(help ? stdout : stderr,
                 "usage: %s [--check]\n"
                 "  --check   connect, create or compare what the service needs on the server, and exit\n"
                 "Settings come from environment variables, then project.toml.\n",
                 argv[0]);
    arguments.exit_status = help ? 0 : kExitUsage;
    return arguments;
  }
  return arguments;
}

StopSignal::StopSignal(milliseconds grace_period) {
  std::thread([state = state_, grace_period] {
    while (!wait_for_signal()) {
    }
    {
      const std::lock_guard lock(state->mutex);
      state->requested = true;
      state->changed.notify_all();
      if (state->interruptible) {
        Logger().info("stopped before it was ready");
        ::_exit(0);
      }
    }
    // Stopping waits for a server that may hang and for other people's code: nothing else bounds the sum of it.
    if (wait_for_signal(grace_period + std::chrono::seconds(1))) ::_exit(1);  // somebody insists
    Logger().warning("the grace period is over; the server hands out again what is left when ack_wait is over");
    ::_exit(0);
  }).detach();
}

void StopSignal::take_over() {
  const std::lock_guard lock(state_->mutex);
  state_->interruptible = false;
}

bool StopSignal::wait(milliseconds time) {
  std::unique_lock lock(state_->mutex);
  return state_->changed.wait_for(lock, time, [this] { return state_->requested; });
}

void log_promises(nats::Connection& connection, const Stage& stage, const Logger& log) {
  const auto text = [](milliseconds time) { return nats::seconds_text(std::chrono::nanoseconds(time).count()); };
  nats::with_promises(connection, stage.stream, log.with({{"stage", stage.name}}))
      .info("consuming", {{"consumer", stage.durable},
                          {"subject", stage.filter_subject},
                          {"ack_wait", text(stage.ack_wait)},
                          {"timeout", text(stage.timeout)},
                          {"max_deliver", stage.max_deliver},
                          {"dead_letters", stage.dead_letter_subject}});
  nats::log_published(connection, stage.topology, log.with({{"stage", stage.name}}), stage.stream);
}

int run_process(
    const Settings& settings, std::string_view service, std::string_view pipeline, bool check_only,
    milliseconds grace_period,
    const std::function<std::unique_ptr<Program>(nats::Connection& connection, Metrics& metrics)>& make_program) {
  const Logger log;
  StopSignal stop(grace_period);
  Metrics metrics;
  if (check_only) {
    nats::Connection connection(nats::options_from(settings, service), std::chrono::seconds(5));
    make_program(connection, metrics)->prepare();
    return 0;
  }

  // Before whatever makes spans, so that it goes after that.
  const auto traces = http::export_traces(service, pipeline, metrics);
  std::mutex mutex;
  const Program* running = nullptr;
  std::string waiting_for = "waiting for NATS";
  AdminServer admin(settings.text("admin.host", "127.0.0.1"), static_cast<int>(settings.integer("admin.port", 0)),
                    metrics, [&] {
                      const std::lock_guard lock(mutex);
                      return running != nullptr ? running->readiness() : Readiness{false, waiting_for};
                    });
  log.info("admin endpoints are served", {{"admin_port", admin.port()}});

  nats::ConnectionOptions options = nats::options_from(settings, service);
  options.metrics = &metrics;
  nats::CertificateWatch certificates(options, settings);  // compares with what the connection reads now
  nats::Connection connection(options, milliseconds(0));
  const std::unique_ptr<Program> program = make_program(connection, metrics);
  for (milliseconds delay(250);; delay = std::min<milliseconds>(delay * 2, std::chrono::seconds(5))) {
    try {
      program->prepare();
      stop.take_over();
      program->start();
      break;
    } catch (const Unavailable& error) {
      if (const std::string why = connection.forbidden(); !why.empty()) throw ConfigError(why);
      log.warning("cannot start yet", {{"reason", error.what()}});
      {
        const std::lock_guard lock(mutex);
        waiting_for = error.what();
      }
      exit_if_closed_for_good(connection, log);
      if (stop.wait(delay)) return 0;
    }
  }
  {
    const std::lock_guard lock(mutex);
    running = program.get();
  }
  bool was_ready = false, begins_again = false;
  while (!begins_again && !stop.wait(milliseconds(was_ready ? 1'000 : 20))) {
    begins_again = certificates.renewed();
    exit_if_closed_for_good(connection, log);
    if (!was_ready && program->readiness().ready) {
      was_ready = true;
      log.info("ready");
    }
  }
  log.info(begins_again ? "the certificates were renewed: the service begins again with them" : "stopping");
  const bool clean = program->stop();
  if (traces) traces->close();
  log.info("stopped");
  // Whoever told it to end while it stopped does not want it again.
  if (begins_again && !stop.wait(milliseconds(0))) begin_again();
  // Without a server, or with a handler or transaction that goes on, there is nothing that destructors could wait for
  // in time.
  if (!clean || !connection.connected()) ::_exit(0);
  const std::lock_guard lock(mutex);
  running = nullptr;
  return 0;
}

}  // namespace pipegen::worker
