// Builds a workspace with CMake.
#pragma once

#include <filesystem>

#include "up/console.hpp"
#include "up/signals.hpp"

namespace pipegen::gen {

/// Configures <workspace>/build when that has not been done and builds what changed. The tools' output is shown only
/// when they fail. False when it failed or was interrupted; `signals` says which. Throws UpError when a tool is
/// missing.
bool build_workspace(const std::filesystem::path& workspace, Console& console, Signals& signals);

}  // namespace pipegen::gen
