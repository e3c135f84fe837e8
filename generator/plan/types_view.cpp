#include <algorithm>
#include <functional>

#include "plan/cpp.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

/// What a service's events lead to: records in an order in which each comes after those that it holds.
struct Reachable {
  std::vector<const Record*> records;
  std::set<std::string> enums;
  std::set<std::string> buckets;
};

void visit(const Pipeline& pipeline, const Record& record, Reachable& out, std::set<std::string>& seen);

void visit(const Pipeline& pipeline, const Type& type, Reachable& out, std::set<std::string>& seen) {
  switch (type.kind) {
    case TypeKind::kRecord:
      visit(pipeline, pipeline.records.at(type.name), out, seen);
      break;
    case TypeKind::kEnum:
      out.enums.insert(type.name);
      break;
    case TypeKind::kObject:
      out.buckets.insert(type.name);
      break;
    case TypeKind::kList:
    case TypeKind::kMap:
      visit(pipeline, type.element.at(0), out, seen);
      break;
    default:
      break;
  }
}

void visit(const Pipeline& pipeline, const Record& record, Reachable& out, std::set<std::string>& seen) {
  if (!seen.insert(record.name).second) return;
  for (const Field& field : record.fields) visit(pipeline, field.type, out, seen);
  out.records.push_back(&record);
}

/// The record that a list, map or optional holds in the end; nullptr when it is none.
const Record* inner_record(const Pipeline& pipeline, const Type& type) {
  if (!type.element.empty()) return inner_record(pipeline, type.element.at(0));
  return type.kind == TypeKind::kRecord ? &pipeline.records.at(type.name) : nullptr;
}

bool has_fresh(const Pipeline& pipeline, const Record& record, std::set<std::string>& seen) {
  if (!seen.insert(record.name).second) return false;
  return std::ranges::any_of(record.fields, [&](const Field& field) {
    const Record* inner = inner_record(pipeline, field.type);
    return field.fresh != FreshKind::kNone || (inner != nullptr && has_fresh(pipeline, *inner, seen));
  });
}

/// `event.header.event_id = fresh.uuid("header.event_id")` for each fresh field. Records in optionals, lists and maps
/// get a function, `renew`; `renewed` collects which.
void fresh_lines(const Pipeline& pipeline, const Record& record, const std::string& variable, const std::string& path,
                 json& lines, std::set<const Record*>& renewed) {
  for (const Field& field : record.fields) {
    const std::string member = variable + "." + field.cpp_name;
    const std::string name = path.empty() ? field.name : path + "." + field.name;
    std::set<std::string> seen;
    const Record* inner = inner_record(pipeline, field.type);
    if (field.fresh == FreshKind::kUuid) {
      lines.push_back(member + " = fresh.uuid(" + cpp_string(name) + ")");
    } else if (field.fresh == FreshKind::kNow) {
      lines.push_back(member + " = fresh.now()");
    } else if (inner == nullptr || !has_fresh(pipeline, *inner, seen)) {
      continue;
    } else if (field.type.kind == TypeKind::kRecord && !field.optional) {
      fresh_lines(pipeline, *inner, member, name, lines, renewed);
    } else {
      lines.push_back("renew(" + member + ", fresh.in(" + cpp_string(name) + "))");
      renewed.insert(inner);
    }
  }
}

/// The functions that `renewed` needs, and those that these need.
json renew_views(const Pipeline& pipeline, std::set<const Record*> renewed) {
  std::map<std::string, json> views;
  while (!renewed.empty()) {
    const Record& record = **renewed.begin();
    renewed.erase(renewed.begin());
    if (views.contains(record.name)) continue;
    json lines = json::array();
    fresh_lines(pipeline, record, "value", "", lines, renewed);
    views[record.name] = {{"name", record.name}, {"fresh", lines}};
  }
  json out = json::array();
  for (const auto& [name, view] : views) out.push_back(view);
  return out;
}

json field_view(const Pipeline& pipeline, const Record& record, const Field& field, std::size_t index,
                const std::set<std::string>& filled) {
  const bool has_default = field.default_value && field.default_value->kind != Literal::Kind::kNull;
  const bool required = !field.optional && !has_default && !filled.contains(record.name + "." + field.name);
  const std::string pattern = "kPattern" + std::to_string(index);
  json patterns = json::array();
  if (field.pattern) patterns.push_back({{"name", pattern}, {"expression", cpp_string(*field.pattern)}});
  return {{"index", index},
          {"name", field.cpp_name},
          {"type", cpp_member_type(pipeline, field)},
          {"initializer", has_default ? " = " + cpp_literal(pipeline, *field.default_value, field.type) : "{}"},
          {"doc", doc_lines(field.doc)},
          {"wire", cpp_string(field.json_name)},
          {"entry", "{" + cpp_string(field.json_name) + (required ? "}" : ", pipegen::json::kOptional}")},
          {"read", read_expression(pipeline, field, pattern)},
          {"patterns", patterns}};
}

json record_view(const Pipeline& pipeline, const Record& record, const std::string& name,
                 const std::set<std::string>& filled) {
  json fields = json::array();
  json patterns = json::array();
  for (std::size_t i = 0; i < record.fields.size(); ++i) {
    fields.push_back(field_view(pipeline, record, record.fields[i], i, filled));
    for (const json& pattern : fields.back()["patterns"]) patterns.push_back(pattern);
  }
  return {{"name", name},     {"function", snake_case(name)}, {"doc", doc_lines(record.doc)},
          {"fields", fields}, {"patterns", patterns},         {"has_fields", !fields.empty()}};
}

/// The subject that an event is published on, as an expression.
std::string subject_expression(const Pipeline& pipeline, const Event& event) {
  std::string base =
      "outbox.settings().text(" + cpp_string("nats." + event.setting) + ", " + cpp_string(event.subject) + ")";
  if (event.placeholders.empty()) return base;
  std::string values;
  for (const Placeholder& placeholder : event.placeholders) {
    const std::string value = placeholder.path
                                  ? path_expression(pipeline, event.record, "event", placeholder.path->names)
                                  : std::ranges::find(event.parameters, placeholder.text, &Parameter::name)->cpp_name;
    values += (values.empty() ? "" : ", ");
    values += "{" + cpp_string(placeholder.text) + ", pipegen::concat(" + value + ")}";
  }
  return "pipegen::fill_subject(" + base + ", {" + values + "})";
}

}  // namespace

json types_view(const Pipeline& pipeline, const std::set<std::string>& events, const std::set<std::string>& published,
                const std::set<std::string>& filled) {
  Reachable reachable;
  std::set<std::string> seen;
  std::set<std::string> files;
  for (const std::string& name : events) {
    const Event& event = pipeline.events.at(name);
    files.insert(event.origin.file);
    for (const Field& field : pipeline.records.at(event.record).fields) visit(pipeline, field.type, reachable, seen);
  }

  json enums = json::array();
  for (const std::string& name : reachable.enums) {
    const Enum& definition = pipeline.enums.at(name);
    files.insert(definition.origin.file);
    std::string wire_list;
    for (const std::string& value : definition.values) wire_list += (wire_list.empty() ? "" : ", ") + cpp_string(value);
    enums.push_back({{"name", name},
                     {"wire_list", "{" + wire_list + "}"},
                     {"function", snake_case(name)},
                     {"doc", doc_lines(definition.doc)},
                     {"enumerators", definition.cpp_names}});
  }

  json buckets = json::array();
  for (const std::string& name : reachable.buckets) {
    buckets.push_back({{"name", name}, {"tag", pipeline.buckets.at(name).cpp_name}});
  }

  // Records that events hold come first, each after what it holds; then the events, which nothing holds.
  json records = json::array();
  std::set<std::string> made;
  for (const Record* record : reachable.records) {
    files.insert(record->origin.file);
    made.insert(record->name);
    records.push_back(record_view(pipeline, *record, record->name, filled));
  }
  json publishes = json::array();
  std::set<const Record*> renewed;
  for (const std::string& name : events) {
    const Event& event = pipeline.events.at(name);
    const Record& record = pipeline.records.at(event.record);
    if (!made.contains(name)) {
      json view = record_view(pipeline, record, name, filled);
      const auto doc = event.doc.empty() ? doc_lines("Event on subject " + event.subject + ".") : doc_lines(event.doc);
      view["doc"] = doc;
      records.push_back(view);
    }
    if (published.contains(name)) {
      json lines = json::array();
      fresh_lines(pipeline, record, "event", "", lines, renewed);
      std::string parameters;
      for (const Parameter& parameter : event.parameters) parameters += ", std::string_view " + parameter.cpp_name;
      bool is_result = false;
      if (pipeline.ingest) {
        is_result = std::ranges::any_of(pipeline.ingest->uploads, [&](const UploadSpec& upload) {
          return upload.result && upload.result->event == name;
        });
      }
      publishes.push_back({{"event", name},
                           {"parameters", parameters},
                           {"subject", subject_expression(pipeline, event)},
                           {"fresh", lines},
                           {"has_fresh", !lines.empty()},
                           {"is_result", is_result}});
    }
  }
  return {{"enums", enums},         {"buckets", buckets},
          {"records", records},     {"renews", renew_views(pipeline, std::move(renewed))},
          {"publishes", publishes}, {"origin", origins(files)}};
}

std::string origins(const std::set<std::string>& files) {
  std::string out;
  std::size_t left = files.size();
  for (const std::string& file : files) {
    --left;
    out += file + (left == 0 ? "" : left == 1 ? " and " : ", ");
  }
  return out;
}

}  // namespace pipegen::gen
