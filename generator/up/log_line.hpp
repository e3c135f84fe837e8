// One line that a service logged: JSON by the runtime, anything by a library that prints.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pipegen::gen {

struct LogLine {
  std::string level{};  // "info"; empty when the line is not one of the runtime's
  std::string message{};
  std::string text{};  // for a person: `message key=value …`, without control characters
  // What `up` has to know, when the line says so.
  std::optional<int> admin_port{};
  std::optional<int> api_port{};
  bool ready = false;
};

LogLine parse_log_line(std::string_view line);

}  // namespace pipegen::gen
