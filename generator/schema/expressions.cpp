// Field paths, literals and "{field}" interpolation: all the expressions that there are.
#include <algorithm>

#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

std::vector<std::string> field_names(const Record& record) {
  std::vector<std::string> names;
  for (const Field& field : record.fields) names.push_back(field.name);
  return names;
}

/// Values that have one obvious text.
bool is_textual(TypeKind kind) {
  switch (kind) {
    case TypeKind::kBytes:
    case TypeKind::kJson:
    case TypeKind::kList:
    case TypeKind::kMap:
    case TypeKind::kRecord:
      return false;
    default:
      return true;
  }
}

}  // namespace

std::optional<std::vector<TemplatePart>> split_template(Resolution& r, const Node& node) {
  std::vector<TemplatePart> parts;
  std::string text;
  const std::string& all = node.text;
  const auto fail = [&](std::size_t at, const std::string& message, const std::string& hint) {
    r.report.error(code::kExpression, part_of(node, at, 1), message, hint);
    return std::nullopt;
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    const char c = all[i];
    if ((c == '{' || c == '}') && i + 1 < all.size() && all[i + 1] == c) {
      text += c;
      ++i;
    } else if (c == '}') {
      return fail(i, "this '}' closes nothing", "write '}}' to mean the character");
    } else if (c == '{') {
      const std::size_t end = all.find('}', i);
      if (end == std::string::npos) return fail(i, "this '{' is never closed", "write '{{' to mean the character");
      if (!text.empty()) parts.push_back({false, std::exchange(text, {}), i});
      parts.push_back({true, all.substr(i + 1, end - i - 1), i + 1});
      i = end;
    } else {
      text += c;
    }
  }
  if (!text.empty()) parts.push_back({false, text, all.size()});
  return parts;
}

namespace {

/// The parts of a template whose placeholders are field paths.
std::optional<std::vector<TemplatePart>> split_paths(Resolution& r, const Node& node) {
  auto parts = split_template(r, node);
  if (!parts) return std::nullopt;
  for (const TemplatePart& part : *parts) {
    if (!part.is_placeholder || is_field_path(part.text)) continue;
    r.report.error(code::kExpression, part_of(node, part.offset - 1, 1),
                   in_quotes("{" + part.text + "}") + " holds no field path",
                   "write {page_number} or {header.workflow_id}");
    return std::nullopt;
  }
  return parts;
}

/// Reports what keeps a field from being part of a text.
bool can_be_text(Resolution& r, const Node& node, const TemplatePart& part, const FieldPath& path) {
  const Span span = part_of(node, part.offset, part.text.size());
  if (!is_textual(path.type.kind)) {
    r.report.error(code::kExpression, span,
                   in_quotes(part.text) + " is of type " + spelled(path.type) + ", which has no text");
    return false;
  }
  if (path.optional) {
    r.report.error(code::kExpression, span, in_quotes(part.text) + " is optional: the text would have a hole",
                   "use a field that is always there");
    return false;
  }
  return true;
}

}  // namespace

PathResult find_path(const Resolution& r, const Record& record, const std::string& path) {
  PathResult out;
  if (!is_field_path(path)) {
    out.problem = in_quotes(path) + " is no field path";
    out.hint = "write it as header.workflow_id";
    return out;
  }
  FieldPath found;
  const Record* at = &record;
  for (const std::string& name : split(path, '.')) {
    if (at == nullptr) {
      out.problem = in_quotes(found.names.back()) + " is of type " + spelled(found.type) + ", which has no fields";
      return out;
    }
    const Field* field = at->find(name);
    if (field == nullptr) {
      if (r.broken_records.contains(at->name)) {
        out.quiet = true;
        return out;
      }
      out.problem = in_quotes(at->name) + " has no field " + in_quotes(name);
      out.hint = did_you_mean(name, field_names(*at));
      return out;
    }
    if (r.broken_fields.contains(at->name + "." + name)) {
      out.quiet = true;
      return out;
    }
    found.names.push_back(name);
    found.optional = found.optional || field->optional;
    found.sensitive = found.sensitive || field->sensitive;
    found.type = field->type;
    out.field = field;
    at = nullptr;
    if (field->type.kind == TypeKind::kRecord) {
      const auto inner = r.pipeline.records.find(field->type.name);
      if (inner == r.pipeline.records.end()) {
        out.quiet = true;
        return out;
      }
      at = &inner->second;
    }
  }
  out.path = std::move(found);
  return out;
}

bool refuse_sensitive(Resolution& r, const FieldPath& path, const Span& span, const std::string& where) {
  if (!path.sensitive) return false;
  std::string text;
  for (const std::string& name : path.names) text += (text.empty() ? "" : ".") + name;
  r.report.error(code::kSensitive, span, in_quotes(text) + " is sensitive, and " + where + " can be seen in logs",
                 "use a field that everybody may see, or remove its 'sensitive'");
  return true;
}

std::optional<FieldPath> path_value(Resolution& r, const Node& node, const Record& record, const std::string& what) {
  const auto text = r.values.text(node, what);
  if (!text) return std::nullopt;
  PathResult result = find_path(r, record, *text);
  if (!result.path && !result.quiet) r.report.error(code::kExpression, node.span, result.problem, result.hint);
  return std::move(result.path);
}

bool fits(const Type& from, const Type& to) {
  if (from == to) return true;
  if (from.kind == TypeKind::kInt32 && to.kind == TypeKind::kInt64) return true;
  return from.kind == TypeKind::kEnum && to.kind == TypeKind::kString;
}

std::optional<Expression> value_of(Resolution& r, const Node& node, const Type& type, bool optional,
                                   const Record& consumed, const std::string& what) {
  Expression out;
  const bool wants_text = type.kind == TypeKind::kString || type.kind == TypeKind::kObject;

  // A bare word that names a field is the field.
  if (node.is_scalar() && node.plain && is_field_path(node.text) && node.text != "true" && node.text != "false") {
    const std::string first = node.text.substr(0, node.text.find('.'));
    const bool dotted = first.size() != node.text.size();
    if (consumed.find(first) != nullptr || (dotted && !consumed.fields.empty())) {
      PathResult result = find_path(r, consumed, node.text);
      if (!result.path) {
        if (!result.quiet) {
          r.report.error(code::kExpression, node.span, result.problem,
                         !result.hint.empty() ? result.hint
                         : wants_text         ? "put it in quotes to mean the text itself"
                                              : "");
        }
        return std::nullopt;
      }
      if (!fits(result.path->type, type)) {
        r.report.error(code::kMisfit, node.span,
                       what + " is of type " + spelled(type) + ", " + in_quotes(node.text) + " is of type " +
                           spelled(result.path->type),
                       wants_text ? "put it in quotes to mean the text itself, or write \"{" + node.text + "}\"" : "");
        return std::nullopt;
      }
      if (result.path->optional && !optional) {
        r.report.error(code::kMisfit, node.span,
                       what + " must always have a value, and " + in_quotes(node.text) + " is optional",
                       "make " + what + " optional, or " + in_quotes(node.text) + " required");
        return std::nullopt;
      }
      out.kind = Expression::Kind::kConsumed;
      out.path = std::move(*result.path);
      return out;
    }
    // Nearly the name of a field: more likely a typo than a text.
    const std::string near = node.text.size() > 3 ? did_you_mean(node.text, field_names(consumed)) : "";
    const auto enumeration = r.pipeline.enums.find(type.name);
    const bool is_value = type.kind == TypeKind::kEnum && enumeration != r.pipeline.enums.end() &&
                          std::ranges::find(enumeration->second.values, node.text) != enumeration->second.values.end();
    if (!near.empty() && !is_value) {
      r.report.error(code::kExpression, node.span, in_quotes(consumed.name) + " has no field " + in_quotes(node.text),
                     near + (wants_text ? " Put it in quotes to mean the text itself." : ""));
      return std::nullopt;
    }
  }

  if (node.is_scalar() && !node.plain && node.text.find_first_of("{}") != std::string::npos && wants_text) {
    auto parts = split_paths(r, node);
    if (!parts) return std::nullopt;
    out.kind = Expression::Kind::kInterpolation;
    for (const TemplatePart& part : *parts) {
      Expression::Part made;
      made.text = part.is_placeholder ? "" : part.text;
      if (part.is_placeholder) {
        PathResult result = find_path(r, consumed, part.text);
        if (!result.path) {
          if (!result.quiet) {
            r.report.error(code::kExpression, part_of(node, part.offset, part.text.size()), result.problem,
                           result.hint);
          }
          return std::nullopt;
        }
        if (!can_be_text(r, node, part, *result.path)) return std::nullopt;
        made.kind = Expression::Part::Kind::kConsumed;
        made.path = std::move(*result.path);
      }
      out.parts.push_back(std::move(made));
    }
    return out;
  }

  std::string why;
  auto literal = literal_as(r, node, type, why);
  if (!literal) {
    const bool is_template = node.is_scalar() && node.text.find('{') != std::string::npos;
    r.report.error(code::kMisfit, node.span, what + " is of type " + spelled(type) + ": " + why,
                   is_template ? "write the field's path without quotes and braces" : "");
    return std::nullopt;
  }
  out.literal = std::move(*literal);
  return out;
}

std::optional<Expression> named_value(Resolution& r, const Node& node, const Record& consumed,
                                      const std::string& what) {
  Type type;  // string
  if (node.is_scalar() && node.plain) {
    const Literal::Kind kind = literal_of(node).kind;
    const auto path = kind == Literal::Kind::kText ? find_path(r, consumed, node.text).path : std::nullopt;
    if (path && !is_textual(path->type.kind)) {
      r.report.error(code::kMisfit, node.span,
                     in_quotes(node.text) + " is of type " + spelled(path->type) + ", which has no text",
                     "name a field that is a single value");
      return std::nullopt;
    }
    if (path) type = path->type;
    if (kind == Literal::Kind::kBool) type.kind = TypeKind::kBool;
    // A whole number that no integer can hold keeps its digits as a text.
    if (to_int64(node.text)) {
      type.kind = TypeKind::kInt64;
    } else if (kind == Literal::Kind::kNumber && !is_integer(node.text)) {
      type.kind = TypeKind::kFloat64;
    }
  }
  return value_of(r, node, type, true, consumed, what);
}

std::optional<Expression> key_template(Resolution& r, const Node& node, const Record& produced, const Record& consumed,
                                       const std::map<std::string, std::string>& unavailable, const std::string& what) {
  if (!r.values.text(node, what)) return std::nullopt;
  const auto parts = split_paths(r, node);
  if (!parts) return std::nullopt;
  Expression out;
  out.kind = Expression::Kind::kInterpolation;
  bool varies = false;
  for (const TemplatePart& part : *parts) {
    Expression::Part made;
    if (!part.is_placeholder) {
      made.text = part.text;
      out.parts.push_back(std::move(made));
      continue;
    }
    const Span span = part_of(node, part.offset, part.text.size());
    const std::string first = part.text.substr(0, part.text.find('.'));
    const bool of_produced = produced.find(first) != nullptr;
    PathResult result = find_path(r, of_produced ? produced : consumed, part.text);
    if (!result.path) {
      if (!result.quiet) {
        std::vector<std::string> names = field_names(produced);
        for (std::string& name : field_names(consumed)) names.push_back(std::move(name));
        const std::string hint = of_produced ? result.hint : did_you_mean(first, names);
        const std::string message = of_produced ? result.problem
                                                : "neither " + in_quotes(produced.name) + " nor " +
                                                      in_quotes(consumed.name) + " has a field " + in_quotes(first);
        r.report.error(code::kKeyTemplate, span, message, hint);
      }
      return std::nullopt;
    }
    if (const auto why = unavailable.find(first); of_produced && why != unavailable.end()) {
      r.report.error(code::kKeyTemplate, span, in_quotes(first) + " is " + why->second, "use other fields");
      return std::nullopt;
    }
    if (of_produced && result.field->fresh != FreshKind::kNone) {
      r.report.error(code::kKeyTemplate, span,
                     in_quotes(part.text) + " is made anew when the event is published, after the object has its key",
                     "use a field that stays the same");
      return std::nullopt;
    }
    if (!can_be_text(r, node, part, *result.path)) return std::nullopt;
    if (refuse_sensitive(r, *result.path, span, "the name of an object")) return std::nullopt;
    made.kind = of_produced ? Expression::Part::Kind::kProduced : Expression::Part::Kind::kConsumed;
    made.path = std::move(*result.path);
    out.parts.push_back(std::move(made));
    varies = true;
  }
  if (!varies) {
    r.report.error(code::kKeyTemplate, node.span, "every message would write the same object",
                   "put what tells them apart into the key: \"{header.workflow_id}/{page_number}.pcm\"");
    return std::nullopt;
  }
  return out;
}

namespace {

/// "line_items[0]" as its name and index.
std::optional<PathStep> read_step(const std::string& text) {
  PathStep step;
  const std::size_t bracket = text.find('[');
  step.name = text.substr(0, bracket);
  if (!is_field_name(step.name)) return std::nullopt;
  if (bracket == std::string::npos) return step;
  const std::string rest = text.substr(bracket);
  const std::string digits = rest.size() > 2 && rest.back() == ']' ? rest.substr(1, rest.size() - 2) : "";
  const auto number = is_integer(digits) ? to_int64(digits) : std::nullopt;
  if (!number || *number < 0 || *number > 1'000'000) return std::nullopt;
  step.index = static_cast<std::size_t>(*number);
  return step;
}

}  // namespace

Steps find_steps(const Resolution& r, const Record& record, const std::string& text) {
  Steps out;
  const Record* at = &record;
  std::string seen;
  for (const std::string& part : split(text, '.')) {
    auto step = read_step(part);
    if (!step) {
      out.problem = in_quotes(text) + " is no path";
      out.hint = "write it as customer.address.city or line_items[0].tax";
      return out;
    }
    if (at == nullptr) {
      out.problem = in_quotes(seen) + " is of type " + spelled(out.type) + ", which has no fields";
      if (out.type.kind == TypeKind::kList) out.hint = "name one of its items: " + seen + "[0]." + part;
      return out;
    }
    const Field* field = at->find(step->name);
    if (r.broken_fields.contains(at->name + "." + step->name) ||
        (field == nullptr && r.broken_records.contains(at->name))) {
      out.quiet = true;
      return out;
    }
    if (field == nullptr) {
      out.problem = in_quotes(at->name) + " has no field " + in_quotes(step->name);
      out.hint = did_you_mean(step->name, field_names(*at));
      if (out.hint.empty()) out.hint = "name a field of the message";
      return out;
    }
    step->optional = field->optional;
    out.optional = out.optional || field->optional || step->index.has_value();
    out.type = field->type;
    out.field = field;
    seen += (seen.empty() ? "" : ".") + part;
    if (step->index) {
      if (field->type.kind != TypeKind::kList) {
        out.problem = in_quotes(step->name) + " is of type " + spelled(field->type) + ", which has no items";
        out.hint = "an index is for lists";
        return out;
      }
      const Type element = out.type.element.front();
      out.type = element;
    }
    at = nullptr;
    if (out.type.kind == TypeKind::kRecord) {
      const auto inner = r.pipeline.records.find(out.type.name);
      if (inner == r.pipeline.records.end()) {
        out.quiet = true;
        return out;
      }
      at = &inner->second;
    }
    out.path.push_back(std::move(*step));
  }
  return out;
}

}  // namespace pipegen::gen
