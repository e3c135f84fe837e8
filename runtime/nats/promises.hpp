// For runtime/nats, runtime/worker and runtime/http: what a stream promises, for the line that a service begins with.
//
//   nats::with_promises(connection, "TTS_JOBS", log).info("consuming", {{"consumer", durable}});
#pragma once

#include <cstdint>
#include <string>

#include "pipegen/log.hpp"
#include "pipegen/nats.hpp"

namespace pipegen::nats {

/// "120s", "0.5s"
std::string seconds_text(std::int64_t nanoseconds);

/// `log` with the settings of the stream as the server has them, not as the schema does; "not_promised" says in words
/// what it cannot give with them. Throws Unavailable, ConfigError.
Logger with_promises(Connection& connection, const std::string& stream, const Logger& log);

/// A line "publishing" for each stream of the topology but `consumed` and those of dead letters. Throws Unavailable,
/// ConfigError.
void log_published(Connection& connection, const Topology& topology, const Logger& log,
                   const std::string& consumed = "");

}  // namespace pipegen::nats
