// What every service process does around its work: settings, logging, signals, exit statuses.
#pragma once

#include <chrono>
#include <functional>
#include <string_view>

#include "pipegen/settings.hpp"

namespace pipegen {

inline constexpr int kExitConfig = 78;    // EX_CONFIG: it cannot start with these settings, or against this server
inline constexpr int kExitSoftware = 70;  // EX_SOFTWARE: it gave up

/// Blocks SIGTERM and SIGINT (in every thread made afterwards: read them with wait_for_signal), loads the settings,
/// sets up the log as `name`, and calls `body`, whose value is the exit status. A ConfigError becomes one line on
/// standard error and kExitConfig, any other error one line and kExitSoftware. Call it first thing in main().
int run_service(std::string_view name, const std::function<int(const Settings&)>& body);

/// Runs the program anew in this process, with the same arguments and environment: for what is read only at the start.
/// Whatever is still open is closed. Throws std::system_error when the program cannot be run.
[[noreturn]] void begin_again();

/// Waits for SIGTERM or SIGINT; false when `timeout` passed without one.
bool wait_for_signal(std::chrono::milliseconds timeout = std::chrono::hours(24 * 365));

}  // namespace pipegen
