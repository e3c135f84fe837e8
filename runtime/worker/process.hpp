// What every worker process does around its loop: arguments, the stop signal, the line that says what it promises.
//
//   return run_process(settings, service, pipeline, check_only, grace_period, [&](auto& connection, auto& metrics) {
//     return std::make_unique<MyProgram>(connection, metrics);
//   });
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "pipegen/admin.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/settings.hpp"
#include "pipegen/stage.hpp"

namespace pipegen::worker {

/// Whether `--check` was given; an exit status when the process is to end at once (usage, --help).
struct Arguments {
  bool check_only = false;
  std::optional<int> exit_status{};
};
Arguments parse_arguments(int argc, char** argv);

/// Waits for SIGTERM or SIGINT in a thread of its own: the connection may take for ever to come. The first signal ends
/// the process at once, or after take_over() when the grace period is over.
class StopSignal {
 public:
  explicit StopSignal(std::chrono::milliseconds grace_period);

  /// From here on a signal no longer ends the process at once; wait for it with wait().
  void take_over();
  /// True when a signal came within `time`.
  bool wait(std::chrono::milliseconds time);

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    bool requested = false;
    bool interruptible = true;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

/// What the messages may rely on here, as the server says it and not as the schema does: a line for the stream that is
/// consumed, and one for each that is published to. Throws Unavailable, ConfigError.
void log_promises(nats::Connection& connection, const Stage& stage, const Logger& log);

/// A worker of any kind, as its process sees it.
class Program {
 public:
  virtual ~Program() = default;
  /// Makes or compares what it needs on the servers, and says what it promises. Called until it throws no Unavailable.
  virtual void prepare() = 0;
  /// Begins to consume; after prepare(). Throws like it.
  virtual void start() = 0;
  /// False when something goes on that cannot be stopped: then the process has to exit, it cannot be destroyed.
  virtual bool stop() = 0;
  virtual Readiness readiness() const = 0;
};

/// Runs the program from its first connection to its stop signal, with its admin endpoints; or only prepares it, when
/// `check_only`. Gives the exit status. Throws ConfigError, and Unavailable when `check_only`.
int run_process(
    const Settings& settings, std::string_view service, std::string_view pipeline, bool check_only,
    std::chrono::milliseconds grace_period,
    const std::function<std::unique_ptr<Program>(nats::Connection& connection, Metrics& metrics)>& make_program);

}  // namespace pipegen::worker
