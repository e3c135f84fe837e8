// What the executable carries: the templates, and the sources of the runtime that a workspace gets a copy of.
#pragma once

#include <map>
#include <optional>
#include <string_view>

namespace pipegen::gen {

/// The text of a template by its path in templates/, without ".mustache" ("worker/main.cpp"); nothing when there is
/// none.
std::optional<std::string_view> embedded_template(std::string_view name);

struct EmbeddedFile {
  std::string_view content;
  std::string_view sha256;  // in hexadecimal digits
};

/// Every file of the runtime (not its tests) by its path in runtime/: "core/CMakeLists.txt".
const std::map<std::string_view, EmbeddedFile>& embedded_runtime();

}  // namespace pipegen::gen
