// "{name}" in settings that are filled for each message: arguments of programs, URLs. Internal to the runtime.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace pipegen {

/// What each placeholder stands for; nothing: a value that this message does not have.
using Placeholders = std::map<std::string, std::optional<std::string>, std::less<>>;

/// The text with its placeholders replaced, each value going through `encode` if there is one; "{{" and "}}" are the
/// braces themselves. Nothing when a value that it needs is absent. Throws ConfigError, naming the setting as `what`,
/// for a placeholder that is not among `values` and for a brace that is none.
std::optional<std::string> fill(std::string_view text, const Placeholders& values, std::string_view what,
                                const std::function<std::string(std::string_view)>& encode = {});

struct Arguments {
  std::vector<std::string> list;            // the program first
  std::set<std::string, std::less<>> used;  // placeholders that are in it
};

/// The setting `program` as an argument list. An argument whose value is absent is left out, together with the option
/// before it: of ["--seed", "{seed}"] nothing is left without a seed. An option is what begins with '-' and has no
/// placeholder of its own. Throws ConfigError as fill() does, for an empty list, and for a placeholder in the program's
/// name: no message chooses what is run.
Arguments fill_arguments(const std::vector<std::string>& program, const Placeholders& values);

}  // namespace pipegen
