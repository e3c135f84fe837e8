// Template and view to text: standard Mustache (variables, sections, inverted sections, partials, comments, standalone
// lines and partial indentation as the Mustache specification says), strict and without HTML escaping: a name that the
// view does not have, an unclosed or stray section, a value that is no scalar are errors with template, line and
// column.
//
// Where the specification leaves room: blank lines of an indented partial stay blank; a section over a string renders
// when the string is not empty; a section over a number, a `null` as a value and other delimiters are errors. `{{{x}}}`
// and
// `{{&x}}` mean `{{x}}`. Text that needs two braces of its own writes them apart: `{ {1, 2}, {3, 4} }`.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pipegen::gen {

/// A mistake in a template or its view: ours, not the user's. what() is "worker/main.cpp.mustache:3:7: …".
class TemplateError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Gives the text of a template by name ("worker/main.cpp", without ".mustache"); nothing when there is none. The text
/// must stay valid until render() returns.
using TemplateSource = std::function<std::optional<std::string_view>(std::string_view name)>;

std::string render(const TemplateSource& templates, std::string_view name, const nlohmann::json& view);

}  // namespace pipegen::gen
