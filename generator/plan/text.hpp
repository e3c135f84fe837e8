// Pieces of text in the languages that templates are written in: quoted, escaped, spelled as a person would.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/snake_case.hpp"

namespace pipegen::gen {

/// "a", "a and b", "a, b and c".
std::string listed(const std::vector<std::string>& items);

std::string upper_case(std::string_view name);

/// A C++ string literal; also right for TOML basic strings, JSON and double-quoted YAML as long as `text` is printable.
std::string cpp_string(std::string_view text);
std::string toml_string(std::string_view text);

/// 86400000 ms -> "std::chrono::hours(24)".
std::string cpp_duration(std::chrono::milliseconds duration);

/// C++ string literals that together are the text: one for each of its lines, long lines in several, broken after
/// blanks where there are any.
std::vector<std::string> cpp_strings(std::string_view text);

/// How long the lines of generated code become at most, where they can be broken.
inline constexpr std::size_t kLineWidth = 120;

/// `target = value`, to stand in a line of its own that is indented so far: the value in the next line if it has to be.
std::string fitted(const std::string& assignment, std::size_t indent);
/// `head`, the items with commas between and `tail` in one line; if it has to be, each item in its own line, below the
/// first or below `head`.
std::string aligned(const std::string& head, const std::vector<std::string>& items, const std::string& tail);
/// The lines of a doc comment, without the "/// ", wrapped, none ending in a backslash or its trigraph; without the
/// controls of writing direction, which compilers warn about.
std::vector<std::string> doc_lines(std::string_view doc);

}  // namespace pipegen::gen
