// Pieces of text in the languages that templates are written in: quoted, escaped, spelled as a person would.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/snake_case.hpp"

namespace pipegen::gen {

std::string upper_case(std::string_view name);

/// A C++ string literal; also right for TOML basic strings, JSON and double-quoted YAML as long as `text` is printable.
std::string cpp_string(std::string_view text);
std::string toml_string(std::string_view text);

/// 86400000 ms -> "std::chrono::hours(24)".
std::string cpp_duration(std::chrono::milliseconds duration);
/// 86400000 ms -> "24h".
std::string short_duration(std::chrono::milliseconds duration);

/// The lines of a doc comment, without the "/// ", wrapped, none ending in a backslash.
std::vector<std::string> doc_lines(std::string_view doc);

}  // namespace pipegen::gen
