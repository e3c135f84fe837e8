// Built-in action exec: runs any program for a message, by its argument list and never through a shell.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pipegen/actions/values.hpp"
#include "pipegen/context.hpp"

namespace pipegen::actions {

struct Exec {
  // The program and its arguments. "{input}" and "{output}" are replaced by the names of files (in the scratch folder
  // of the call, with the extensions of the objects' keys), "{name}" by the value of that name, "{{" and "}}" by the
  // braces themselves. An argument whose value is absent is left out together with the option before it: of
  // ["--width", "{width}"] nothing is left. A value can begin with '-': put "--" before it where the program knows
  // that.
  std::vector<std::string> program{};
  std::optional<ObjectRef> input{};   // without "{input}" in the program it goes to standard input
  std::optional<ObjectRef> output{};  // without "{output}" in the program it is what is written to standard output
  bool text = false;                  // standard output is wanted as text: at most 1 MiB of UTF-8
  Values values{};
};

struct ExecResult {
  std::string text{};  // without the line break at its end
};

/// Runs the program until it ends, at the latest until the context's stop token is triggered: then its whole process
/// group is ended. Objects go through files: memory stays flat. The output is stored when the program ended with 0.
/// Throws PermanentError (it ended with 65, EX_DATAERR, its text is too large or not UTF-8), TransientError (any other
/// exit status, with the last lines of standard error), ConfigError (the setting program cannot be read, or there is no
/// such program), Cancelled, and what the object store throws.
ExecResult exec(Context& context, const Exec& options);

}  // namespace pipegen::actions
