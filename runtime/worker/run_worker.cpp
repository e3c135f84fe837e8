#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>

#include "http/service.hpp"
#include "nats/garbage.hpp"
#include "nats/handles.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/worker.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using std::chrono::milliseconds;

constexpr int kExitUsage = 64;  // EX_USAGE

/// Waits for SIGTERM or SIGINT in a thread of its own: the connection may take for ever to come.
class StopSignal {
 public:
  explicit StopSignal(milliseconds grace_period) {
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

  /// From here on a signal no longer ends the process at once; wait for it with wait().
  void take_over() {
    const std::lock_guard lock(state_->mutex);
    state_->interruptible = false;
  }
  /// True when a signal came within `time`.
  bool wait(milliseconds time) {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, time, [this] { return state_->requested; });
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool requested = false;
    bool interruptible = true;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

std::string seconds_text(std::int64_t nanoseconds) {
  const double seconds = static_cast<double>(nanoseconds) / 1e9;
  std::string text = std::to_string(seconds);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text + "s";
}

/// What the messages may rely on here, as the server says it and not as the schema does.
void log_promises(nats::Connection& connection, const Stage& stage, const Logger& log) {
  nats::StreamInfo info;
  jsErrCode code = static_cast<jsErrCode>(0);
  const std::string what = "stream " + stage.stream;
  const natsStatus status =
      js_GetStreamInfo(info.out(), connection.handles().consume_js, stage.stream.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, what);
  const jsStreamConfig& config = *info->Config;
  log.info("consuming", {{"stage", stage.name},
                         {"stream", stage.stream},
                         {"consumer", stage.durable},
                         {"subject", stage.filter_subject},
                         {"replicas", config.Replicas},
                         {"storage", config.Storage == js_MemoryStorage ? "memory" : "file"},
                         {"discard", config.Discard == js_DiscardNew ? "new" : "old"},
                         {"retention", config.Retention == js_WorkQueuePolicy  ? "work_queue"
                                       : config.Retention == js_InterestPolicy ? "interest"
                                                                               : "limits"},
                         {"duplicate_window", seconds_text(config.Duplicates)},
                         {"ack_wait", seconds_text(std::chrono::nanoseconds(stage.ack_wait).count())},
                         {"timeout", seconds_text(std::chrono::nanoseconds(stage.timeout).count())},
                         {"max_deliver", stage.max_deliver},
                         {"dead_letters", stage.dead_letter_subject}});
}

/// Only a new connection can go on, and whoever runs the service starts a new process.
void exit_if_closed_for_good(const nats::Connection& connection, const Logger& log) {
  if (!connection.closed_for_good()) return;
  log.error("the process exits so that a new one can connect");
  ::_exit(kExitSoftware);
}

int run(const Settings& settings, std::string_view service, bool check_only,
        const std::function<Stage(const Settings&)>& make_stage) {
  const Logger log;
  const Stage stage = make_stage(settings);
  worker::WorkerOptions options;
  options.grace_period = settings.duration(stage.section + ".grace_period", options.grace_period);
  options.deadline_grace = settings.duration(stage.section + ".deadline_grace", options.deadline_grace);
  StopSignal stop(options.grace_period);

  if (check_only) {
    nats::Connection connection(nats::options_from(settings, service), std::chrono::seconds(5));
    nats::ensure(connection, stage.topology);
    Metrics metrics;
    worker::Worker(connection, stage, settings, metrics, options).check();
    log_promises(connection, stage, log);
    return 0;
  }

  Metrics metrics;
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
      log_promises(connection, stage, log);
      worker.check();
      stop.take_over();
      worker.start();
      break;
    } catch (const Unavailable& error) {
      log.warning("cannot start yet", {{"reason", error.what()}});
      exit_if_closed_for_good(connection, log);
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
    exit_if_closed_for_good(connection, log);
    if (!was_ready && worker.readiness().ready) {
      was_ready = true;
      log.info("ready");
    }
  }
  log.info("stopping");
  garbage.request_stop();
  const bool clean = worker.stop();
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
  bool check_only = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--check") {
      check_only = true;
      continue;
    }
    const bool help = argument == "--help" || argument == "-h";
    std::fprintf(help ? stdout : stderr,
                 "usage: %s [--check]\n"
                 "  --check   connect, create or compare what the service needs on the server, and exit\n"
                 "Settings come from environment variables, then project.toml.\n",
                 argv[0]);
    return help ? 0 : kExitUsage;
  }
  return run_service(service, [&](const Settings& settings) { return run(settings, service, check_only, make_stage); });
}

}  // namespace pipegen
