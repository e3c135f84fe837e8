#include "up/build.hpp"

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <thread>

#include "up/child.hpp"
#include "up/line_reader.hpp"

namespace pipegen::gen {

namespace {

using namespace std::chrono_literals;

/// Runs one tool to its end, showing how far it is. False when it failed or a signal came.
bool run_tool(std::vector<std::string> arguments, const std::string& what, Console& console, Signals& signals) {
  // SIGTERM and not SIGKILL, should we die: ninja and make then end the compilers that they started.
  Child tool({.arguments = std::move(arguments), .death_signal = SIGTERM});
  LineReader reader;
  std::string output;
  bool open = true;
  while (open && signals.stop_requests() == 0) {
    signals.wait({tool.output()}, 1s);
    open = reader.read(tool.output(), [&](std::string_view line) {
      output.append(line) += '\n';
      // Ninja's "[12/80] …".
      if (line.starts_with('[')) console.status(what + " " + std::string(line.substr(0, line.find(']') + 1)));
    });
  }
  if (open) tool.signal(SIGTERM);
  // A tool that ignores the signal is killed by ~Child.
  for (const auto deadline = std::chrono::steady_clock::now() + 10s;
       !tool.exit_status() && std::chrono::steady_clock::now() < deadline;) {
    signals.wait({}, 50ms);
  }
  if (signals.stop_requests() > 0) return false;
  if (tool.exit_status() == 0) return true;
  console.say(output + what + " failed");
  return false;
}

}  // namespace

bool builds_some_only(const std::filesystem::path& workspace) {
  constexpr std::string_view kVariable = "PIPEGEN_SERVICES:";
  std::ifstream cache(workspace / "build" / "CMakeCache.txt");
  for (std::string line; std::getline(cache, line);) {
    if (line.starts_with(kVariable)) return !line.ends_with("=ALL");
  }
  return false;
}

bool build_workspace(const std::filesystem::path& workspace, Console& console, Signals& signals) {
  const std::filesystem::path build = workspace / "build";
  if (!find_program("cmake")) throw UpError("cmake is not installed: `sudo apt-get install cmake ninja-build g++`");
  const auto start = std::chrono::steady_clock::now();

  const auto configured = [&] {
    return std::filesystem::exists(build / "build.ninja") || std::filesystem::exists(build / "Makefile");
  };
  console.status("building");
  if (!configured() || builds_some_only(workspace)) {
    std::vector<std::string> arguments{"cmake", "-S",           workspace.string(),
                                       "-B",    build.string(), "-DPIPEGEN_SERVICES=ALL"};
    if (!std::filesystem::exists(build / "CMakeCache.txt")) {
      arguments.emplace_back("-DCMAKE_BUILD_TYPE=Release");
      if (find_program("ninja")) arguments.insert(arguments.end(), {"-G", "Ninja"});
      if (find_program("ccache") && std::getenv("CMAKE_CXX_COMPILER_LAUNCHER") == nullptr) {
        arguments.emplace_back("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache");
      }
    }
    if (!run_tool(arguments, "configuring", console, signals)) return false;
  }

  // The build tool itself and not `cmake --build`, which would leave it behind when it is stopped.
  const bool ninja = std::filesystem::exists(build / "build.ninja");
  const std::string cores = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
  if (!run_tool({ninja ? "ninja" : "make", "-C", build.string(), "-j", cores}, "building", console, signals)) {
    return false;
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - start);
  console.say("built " + workspace.string() + " in " + std::to_string(seconds.count()) + " s");
  return true;
}

}  // namespace pipegen::gen
