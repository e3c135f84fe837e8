#include "plan/cpp.hpp"

#include <algorithm>

#include "plan/text.hpp"

namespace pipegen::gen {

namespace {

/// What the reader's call is given: ".min = 1, .max = 9" in braces, or nothing.
std::string limits(const std::vector<std::string>& parts) {
  if (parts.empty()) return "";
  std::string out = "{";
  for (std::size_t i = 0; i < parts.size(); ++i) out += (i ? ", " : "") + parts[i];
  return out + "}";
}

std::string int_literal(const std::string& text) {
  // The most negative value has no literal of its own.
  if (text == "-9223372036854775808") return "std::numeric_limits<std::int64_t>::min()";
  return text;
}

std::vector<std::string> number_limits(const Field& field, bool integral) {
  std::vector<std::string> parts;
  const auto spell = [&](const std::string& text) { return integral ? int_literal(text) : float_literal(text); };
  if (field.min) parts.push_back(".min = " + spell(*field.min));
  if (field.max) parts.push_back(".max = " + spell(*field.max));
  return parts;
}

std::vector<std::string> length_limits(const Field& field) {
  std::vector<std::string> parts;
  if (field.min_length) parts.push_back(".min_length = " + std::to_string(*field.min_length));
  if (field.max_length) parts.push_back(".max_length = " + std::to_string(*field.max_length));
  return parts;
}

std::string joined(const std::string& first, const std::string& second) {
  return second.empty() ? first : first + ", " + second;
}

constexpr const char* kItemReader = "[](pipegen::json::Reader& item) {";

/// The callable that reads one item of a list or map; nothing but its body may take more than one line.
std::string item_reader(const Pipeline& pipeline, const Type& element, const Place* place) {
  if (element.kind == TypeKind::kRecord || element.kind == TypeKind::kEnum) return read_function(element.name);
  Field item;
  item.type = element;
  if (place == nullptr) return kItemReader + (" return " + read_expression(pipeline, item, "")) + "; }";
  const std::string indent(place->indent, ' ');
  const Place body{place->indent + 9, place->indent + 2};  // behind "return "
  return kItemReader + ("\n" + indent) + "  return " + read_expression(pipeline, item, "", &body) + ";\n" + indent +
         "}";
}

/// `in.list<Color>(read_color, {.max_length = 9})`: `call` is what comes before the item's reader.
std::string read_items(const Pipeline& pipeline, const std::string& call, const Type& element,
                       const std::string& limits, const Place* place) {
  const std::string reader = item_reader(pipeline, element, nullptr);
  const std::string one_line = call + joined(reader, limits) + ")";
  const auto fits = [&](std::size_t size) { return place == nullptr || place->column + size + 1 <= kLineWidth; };
  if (fits(one_line.size())) return one_line;
  if (!limits.empty() && fits(call.size() + reader.size())) {
    return call + reader + ",\n" + std::string(place->column + call.size(), ' ') + limits + ")";
  }
  if (limits.empty()) return call + item_reader(pipeline, element, place) + ")";
  const Place argument{place->indent + 4, place->indent + 4};
  const std::string indent = "\n" + std::string(argument.indent, ' ');
  return call + indent + item_reader(pipeline, element, &argument) + "," + indent + limits + ")";
}

/// An optional takes bare braces for its own: `{}` would be no value, `{1, 2}` would not compile.
std::string braces_of(const Pipeline& pipeline, const Field& field, const std::string& value) {
  return field.optional && value.starts_with('{') ? cpp_type(pipeline, field.type) + value : value;
}

const Record* record_of(const Pipeline& pipeline, const std::string& name) {
  const auto found = pipeline.records.find(name);
  return found == pipeline.records.end() ? nullptr : &found->second;
}

}  // namespace

std::string cpp_type(const Pipeline& pipeline, const Type& type) {
  switch (type.kind) {
    case TypeKind::kBool:
      return "bool";
    case TypeKind::kInt32:
      return "std::int32_t";
    case TypeKind::kInt64:
      return "std::int64_t";
    case TypeKind::kFloat64:
      return "double";
    case TypeKind::kDecimal:
      return "pipegen::Decimal";
    case TypeKind::kString:
      return "std::string";
    case TypeKind::kBytes:
      return "pipegen::Bytes";
    case TypeKind::kUuid:
      return "pipegen::Uuid";
    case TypeKind::kTimestamp:
      return "pipegen::Timestamp";
    case TypeKind::kDate:
      return "pipegen::Date";
    case TypeKind::kJson:
      return "pipegen::Json";
    case TypeKind::kList:
      return "std::vector<" + cpp_type(pipeline, type.element.at(0)) + ">";
    case TypeKind::kMap:
      return "std::map<std::string, " + cpp_type(pipeline, type.element.at(0)) + ">";
    case TypeKind::kRecord:
    case TypeKind::kEnum:
      return type.name;
    case TypeKind::kObject:
      return "pipegen::ObjectKey<" + pipeline.buckets.at(type.name).cpp_name + ">";
  }
  return "";
}

std::string cpp_member_type(const Pipeline& pipeline, const Field& field) {
  const std::string type = cpp_type(pipeline, field.type);
  return field.optional ? "std::optional<" + type + ">" : type;
}

std::string read_function(std::string_view type_name) { return "read_" + snake_case(type_name); }

std::string read_expression(const Pipeline& pipeline, const Field& field, const std::string& pattern_name,
                            const Place* place) {
  // Items of lists are read through a lambda whose reader is called `item`.
  const std::string reader = field.name.empty() ? "item" : "in";
  const Type& type = field.type;
  switch (type.kind) {
    case TypeKind::kBool:
      return reader + ".boolean()";
    case TypeKind::kInt32:
      return reader + ".int32(" + limits(number_limits(field, true)) + ")";
    case TypeKind::kInt64:
      return reader + ".int64(" + limits(number_limits(field, true)) + ")";
    case TypeKind::kFloat64:
      return reader + ".float64(" + limits(number_limits(field, false)) + ")";
    case TypeKind::kDecimal: {
      std::vector<std::string> parts{".precision = " + std::to_string(type.precision),
                                     ".scale = " + std::to_string(type.scale)};
      if (field.min) parts.push_back(".min = " + cpp_string(*field.min));
      if (field.max) parts.push_back(".max = " + cpp_string(*field.max));
      return reader + ".decimal(" + limits(parts) + ")";
    }
    case TypeKind::kString: {
      auto parts = length_limits(field);
      if (field.pattern) parts.push_back(".pattern = &" + pattern_name);
      return reader + ".string(" + limits(parts) + ")";
    }
    case TypeKind::kBytes:
      return reader + ".bytes(" + limits(length_limits(field)) + ")";
    case TypeKind::kUuid:
      return reader + ".uuid()";
    case TypeKind::kTimestamp:
      return reader + ".timestamp()";
    case TypeKind::kDate:
      return reader + ".date()";
    case TypeKind::kJson:
      return reader + ".json()";
    case TypeKind::kList:
    case TypeKind::kMap: {
      const Type& element = type.element.at(0);
      const char* call = type.kind == TypeKind::kList ? ".list<" : ".map<";
      return read_items(pipeline, reader + call + cpp_type(pipeline, element) + ">(", element,
                        limits(length_limits(field)), place);
    }
    case TypeKind::kRecord:
    case TypeKind::kEnum:
      return read_function(type.name) + "(" + reader + ")";
    case TypeKind::kObject:
      return reader + ".object_key<" + pipeline.buckets.at(type.name).cpp_name + ">()";
  }
  return "";
}

std::string cpp_literal(const Pipeline& pipeline, const Literal& literal, const Type& type) {
  switch (type.kind) {
    case TypeKind::kEnum: {
      const Enum& definition = pipeline.enums.at(type.name);
      const auto found = std::ranges::find(definition.values, literal.text);
      return type.name + "::" + definition.cpp_names.at(static_cast<std::size_t>(found - definition.values.begin()));
    }
    case TypeKind::kBool:
      return literal.text;
    case TypeKind::kInt32:
    case TypeKind::kInt64:
      return int_literal(literal.text);
    case TypeKind::kFloat64:
      return float_literal(literal.text);
    case TypeKind::kDecimal:
      return "*pipegen::Decimal::parse(" + cpp_string(literal.text) + ", " + std::to_string(type.precision) + ", " +
             std::to_string(type.scale) + ")";
    case TypeKind::kUuid:
      return "*pipegen::Uuid::parse(" + cpp_string(literal.text) + ")";
    case TypeKind::kTimestamp:
      return "*pipegen::parse_timestamp(" + cpp_string(literal.text) + ")";
    case TypeKind::kDate:
      return "*pipegen::parse_date(" + cpp_string(literal.text) + ")";
    case TypeKind::kObject:
    case TypeKind::kJson:
      return "{" + cpp_string(literal.text) + "}";
    case TypeKind::kList: {
      std::string out = "{";
      for (std::size_t i = 0; i < literal.items.size(); ++i) {
        out += (i ? ", " : "") + cpp_literal(pipeline, literal.items[i], type.element.at(0));
      }
      return out + "}";
    }
    default:
      return cpp_string(literal.text);
  }
}

// "1" alone would be an int, which braces refuse to narrow in some places, and which many digits do not fit into.
std::string float_literal(const std::string& text) {
  return text.find_first_of(".eE") == std::string::npos ? text + ".0" : text;
}

std::string cpp_literal(const Pipeline& pipeline, const Literal& literal, const Field& field) {
  return braces_of(pipeline, field, cpp_literal(pipeline, literal, field.type));
}

std::string path_expression(const Pipeline& pipeline, const std::string& record, const std::string& variable,
                            const std::vector<std::string>& names) {
  std::string path = variable;
  std::string members;  // behind an optional record
  const Record* at = record_of(pipeline, record);
  bool behind_optional = false;
  for (std::size_t i = 0; i < names.size() && at != nullptr; ++i) {
    const Field* field = at->find(names[i]);
    if (field == nullptr) break;
    if (behind_optional) {
      members += ", &" + at->name + "::" + field->cpp_name;
    } else {
      path += "." + field->cpp_name;
    }
    behind_optional = behind_optional || field->optional;
    at = field->type.kind == TypeKind::kRecord ? record_of(pipeline, field->type.name) : nullptr;
  }
  return members.empty() ? path : "pipegen::reach(" + path + members + ")";
}

std::string interpolation(const Pipeline& pipeline, const std::vector<Expression::Part>& parts,
                          const std::string& consumed_record, const std::string& produced_record) {
  std::string out = "pipegen::concat(";
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Expression::Part& part = parts[i];
    if (i) out += ", ";
    switch (part.kind) {
      case Expression::Part::Kind::kText:
        out += cpp_string(part.text);
        break;
      case Expression::Part::Kind::kConsumed:
        out += path_expression(pipeline, consumed_record, "event", part.path.names);
        break;
      case Expression::Part::Kind::kProduced:
        out += path_expression(pipeline, produced_record, "out", part.path.names);
        break;
    }
  }
  return out + ")";
}

std::string value_expression(const Pipeline& pipeline, const Expression& expression, const Type& type,
                             const std::string& consumed_record, const std::string& produced_record) {
  switch (expression.kind) {
    case Expression::Kind::kLiteral:
      return cpp_literal(pipeline, expression.literal, type);
    case Expression::Kind::kConsumed: {
      const std::string path = path_expression(pipeline, consumed_record, "event", expression.path.names);
      // An enum is handed to an action by its name on the wire.
      if (expression.path.type.kind == TypeKind::kEnum && type.kind == TypeKind::kString) {
        return expression.path.optional ? "pipegen::optional_text(" + path + ")" : "to_text(" + path + ")";
      }
      return path;
    }
    case Expression::Kind::kInterpolation: {
      const std::string text = interpolation(pipeline, expression.parts, consumed_record, produced_record);
      return type.kind == TypeKind::kObject ? "{" + text + "}" : text;
    }
  }
  return "";
}

std::string value_expression(const Pipeline& pipeline, const Expression& expression, const Field& field,
                             const std::string& consumed_record, const std::string& produced_record) {
  return braces_of(pipeline, field,
                   value_expression(pipeline, expression, field.type, consumed_record, produced_record));
}

std::string setting_text(const std::string& section, const std::string& key, const std::string& fallback) {
  return "settings.text(" + cpp_string(section + "." + key) + ", " + cpp_string(fallback) + ")";
}

}  // namespace pipegen::gen
