// What every worker process does around its loop: arguments, the stop signal, the line that says what it promises.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "pipegen/log.hpp"
#include "pipegen/nats.hpp"
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

/// Only a new connection can go on, and whoever runs the service starts a new process.
void exit_if_closed_for_good(const nats::Connection& connection, const Logger& log);

}  // namespace pipegen::worker
