// Keeps a set of services running: starts them, shows what they log, starts again those that die, stops them.
//
//   Supervisor supervisor(programs, console);
//   while (signals.stop_requests() == 0 && !supervisor.gave_up()) supervisor.step(signals);
//   supervisor.stop(signals, std::chrono::seconds(30));
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "up/child.hpp"
#include "up/console.hpp"
#include "up/line_reader.hpp"
#include "up/metrics.hpp"
#include "up/signals.hpp"

namespace pipegen::gen {

/// A service to run.
struct Program {
  std::string name{};
  std::vector<std::string> arguments{};
  std::map<std::string, std::string> environment{};
  bool is_api = false;          // stopped before the others
  std::string port_variable{};  // environment variable with the API's port: once known, a restart keeps it
};

/// How long it waits before it starts a service again (twice as long each time) and when it gives one up.
struct RestartPolicy {
  std::chrono::milliseconds first_wait{500};
  std::chrono::milliseconds longest_wait{10'000};
  std::chrono::milliseconds good_run{20'000};  // after a run as long as this the wait starts over
  int config_errors = 5;                       // exits with 78 (it cannot start with these settings) in a row
};

/// Main thread only.
class Supervisor {
 public:
  Supervisor(std::vector<Program> programs, Console& console, RestartPolicy policy = {});
  ~Supervisor();

  /// Waits for something to happen, at most until the next thing to do or `longest`, and deals with it.
  void step(Signals& signals, std::chrono::milliseconds longest = std::chrono::seconds(1));
  /// Every service has said "ready", since it was last started.
  bool all_ready() const;
  /// Where the API listens.
  std::optional<int> api_port() const;
  /// Why there is no point in going on.
  const std::optional<std::string>& gave_up() const noexcept { return gave_up_; }

  /// Asks each service for its figures and prints those that changed.
  void show_figures();

  /// SIGTERM to the API, then to the others; SIGKILL to what is left after `time`, or at the next signal.
  void stop(Signals& signals, std::chrono::milliseconds time);

 private:
  struct Service;

  void start(Service& service);
  void read_output(Service& service);
  void handle_exit(Service& service, int status);
  /// Waits until no service (no API, when `apis_only`) runs, or `until`. False when the time was over.
  bool wait_for_end(Signals& signals, bool apis_only, std::chrono::steady_clock::time_point until, int stop_requests);

  std::vector<std::unique_ptr<Service>> services_;
  Console& console_;
  RestartPolicy policy_;
  std::optional<std::string> gave_up_;
};

}  // namespace pipegen::gen
