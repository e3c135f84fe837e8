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
  std::filesystem::path input_file{};   // read by the program itself, in place of `input`
  std::filesystem::path output_file{};  // made anew; standard output goes there, however much, in place of the result
  std::filesystem::path directory{};    // where it runs; empty: here
  std::size_t max_output = 256u << 20;  // more on standard output is an error
  std::stop_token stop{};               // when triggered: SIGTERM to the program's process group, SIGKILL 2 s later
};

struct ProgramResult {
  int exit_status = 0;  // 128 + signal when a signal ended it
  Bytes output;         // empty with output_file
  std::string errors;   // the last 4 KiB of standard error
};

/// Starts the program in a process group of its own and waits. Throws ConfigError (the program is not there or
/// may not be run: a worker then waits until it is), PermanentError (too much output), TransientError (a file cannot be
/// opened) or Cancelled. No descriptor but the three standard ones is inherited. Thread safe.
ProgramResult run_program(const std::vector<std::string>& arguments, const ProgramOptions& options = {});

/// What an exit status says about the message: nothing for 0, PermanentError for 65 (EX_DATAERR: the input is at
/// fault), TransientError for any other. The last lines of standard error are part of the message.
void throw_if_failed(const std::string& program, const ProgramResult& result);

}  // namespace pipegen
