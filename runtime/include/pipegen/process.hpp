// Runs a program: an argument list, never a shell.
//
//   const auto result = pipegen::run_program({"chatllm", "-m", model, "-p", text}, {.stop = context.stop_token()});
#pragma once

#include <chrono>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "pipegen/types.hpp"

namespace pipegen {

struct ProgramOptions {
  BytesView input{};                    // its standard input
  std::filesystem::path directory{};    // where it runs; empty: here
  std::size_t max_output = 256u << 20;  // more on standard output is an error
  std::stop_token stop{};               // when triggered: SIGTERM to the program's process group, SIGKILL 2 s later
};

struct ProgramResult {
  int exit_status = 0;  // 128 + signal when a signal ended it
  Bytes output;
  std::string errors;  // the last 4 KiB of standard error
};

/// Starts the program in a process group of its own and waits. Throws ConfigError (the program is not there or
/// may not be run: a worker then waits until it is), PermanentError (too much output) or Cancelled. No descriptor but
/// the three standard ones is inherited. Thread safe.
ProgramResult run_program(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

}  // namespace pipegen
