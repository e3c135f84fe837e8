// Builds a workspace with CMake.
#pragma once

#include <filesystem>

#include "up/console.hpp"
#include "up/signals.hpp"

namespace pipegen::gen {

/// Whether <workspace>/build was configured to build some of the services only, with -DPIPEGEN_SERVICES=…, which CMake
/// remembers.
bool builds_some_only(const std::filesystem::path& workspace);

/// Configures <workspace>/build for all services when that has not been done and builds what changed. The tools' output
/// is shown only when they fail. False when it failed or was interrupted; `signals` says which. Throws UpError when a
/// tool is missing.
bool build_workspace(const std::filesystem::path& workspace, Console& console, Signals& signals);

}  // namespace pipegen::gen
