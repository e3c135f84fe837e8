// How the things of a schema are spelled in generated C++.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "model/pipeline.hpp"

namespace pipegen::gen {

/// "std::vector<LineItem>", "pipegen::ObjectKey<TextFiles>"; without the optional.
std::string cpp_type(const Pipeline& pipeline, const Type& type);
/// The same as a member of a struct is declared: "std::optional<std::string>".
std::string cpp_member_type(const Pipeline& pipeline, const Field& field);

/// "read_event_header".
std::string read_function(std::string_view type_name);

/// Where an expression begins, so that it can be broken into lines: `column` of a line that is indented by `indent`.
struct Place {
  std::size_t column = 0;
  std::size_t indent = 0;
};

/// The expression that reads a value of the field's type from `in`: `in.int32({.min = 1})`. A pattern is expected in a
/// variable named `pattern_name`. Lists and maps take several lines where they have to; none without a place.
std::string read_expression(const Pipeline& pipeline, const Field& field, const std::string& pattern_name,
                            const Place* place = nullptr);

/// The literal as a value of the type: `7`, `"en"`, `SummaryPlacement::kTop`.
std::string cpp_literal(const Pipeline& pipeline, const Literal& literal, const Type& type);
/// The same as the value of a field: `std::vector<std::int32_t>{1, 2}` where braces alone would not do.
std::string cpp_literal(const Pipeline& pipeline, const Literal& literal, const Field& field);

/// A number as a double: `200.0`.
std::string float_literal(const std::string& text);

/// `event.header.workflow_id`; with optional steps, an expression that is an optional:
/// `pipegen::reach(event.augmentation, &Augmentation::commentary)`.
std::string path_expression(const Pipeline& pipeline, const std::string& record, const std::string& variable,
                            const std::vector<std::string>& names);

/// A `set:`, `keys:` or `with:` expression; `type` is what is wanted. Paths lead into the variables `event` (consumed)
/// and `out` (produced).
std::string value_expression(const Pipeline& pipeline, const Expression& expression, const Type& type,
                             const std::string& consumed_record, const std::string& produced_record);
/// The same as the value of a field.
std::string value_expression(const Pipeline& pipeline, const Expression& expression, const Field& field,
                             const std::string& consumed_record, const std::string& produced_record);

/// The key of an object: `pipegen::concat(event.header.workflow_id, "/", out.page_number, ".pcm")`.
std::string interpolation(const Pipeline& pipeline, const std::vector<Expression::Part>& parts,
                          const std::string& consumed_record, const std::string& produced_record);

/// A lookup in the settings: `settings.text("nats.pdf_stream_name", "PDF_JOBS")`.
std::string setting_text(const std::string& section, const std::string& key, const std::string& fallback);

}  // namespace pipegen::gen
