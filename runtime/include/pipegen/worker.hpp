// Runs a stage as a process: the main() of a generated worker is this one call.
//
//   int main(int argc, char** argv) { return pipegen::run_worker(argc, argv, "tts", tts::stage); }
#pragma once

#include <functional>
#include <string_view>

#include "pipegen/settings.hpp"
#include "pipegen/stage.hpp"

namespace pipegen {

/// Loads the settings, configures logging, serves /health, /ready and /metrics, connects, creates or compares what the
/// stage needs, and consumes until SIGTERM or SIGINT. Then: no more fetches, running handlers finish or are handed
/// back, and the process exits within "<section>.grace_period" (25 s). A handler has "<section>.deadline_grace" (20 s)
/// to react to its deadline. Exit status: 0 stopped cleanly, 78 (EX_CONFIG)
/// it cannot start with these settings or this server, 70 (EX_SOFTWARE) the process gave up so that a new one can go
/// on: a handler neither returned nor reacted to its deadline (one that does not react to SIGTERM is left behind with
/// status 0), or the NATS server closed the connection for good.
/// `--check` connects, compares and exits.
int run_worker(int argc, char** argv, std::string_view service,
               const std::function<Stage(const Settings& settings)>& make_stage);

}  // namespace pipegen
