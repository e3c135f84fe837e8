#include <algorithm>
#include <array>
#include <functional>

#include "plan/cpp.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

/// What a service's events lead to: records in an order in which each comes after those that it holds; of those that
/// hold one another, the one comes last that the search entered first.
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

/// Every record that one leads to; itself only if it does.
std::set<const Record*> led_to(const Pipeline& pipeline, const Record& record) {
  std::set<const Record*> found;
  std::vector<const Record*> open{&record};
  while (!open.empty()) {
    const Record* at = open.back();
    open.pop_back();
    for (const Field& field : at->fields) {
      const Record* next = inner_record(pipeline, field.type);
      if (next != nullptr && found.insert(next).second) open.push_back(next);
    }
  }
  return found;
}

using Group = std::vector<const Record*>;

/// Adds the record to `sorted` after those of the group that it holds by value.
void sort_by_value(const Pipeline& pipeline, const Group& group, const Record* record, Group& sorted) {
  if (std::ranges::find(sorted, record) != sorted.end()) return;
  for (const Field& field : record->fields) {
    if (field.type.kind != TypeKind::kRecord) continue;
    const Record* held = &pipeline.records.at(field.type.name);
    if (std::ranges::find(group, held) != group.end()) sort_by_value(pipeline, group, held, sorted);
  }
  sorted.push_back(record);
}

/// The records of a service, those together that hold one another through lists and maps: mostly groups of one. Each
/// group comes after those that it holds.
std::vector<Group> groups_of(const Pipeline& pipeline, const std::vector<const Record*>& records) {
  std::map<const Record*, std::set<const Record*>> leads;
  for (const Record* record : records) leads[record] = led_to(pipeline, *record);
  std::vector<Group> groups;
  std::set<const Record*> placed;
  // From the back, since the last of a group is where the group has its place.
  for (auto last = records.rbegin(); last != records.rend(); ++last) {
    if (placed.contains(*last)) continue;
    Group group;
    for (const Record* each : records) {
      if (each == *last || (leads[each].contains(*last) && leads[*last].contains(each))) group.push_back(each);
    }
    placed.insert(group.begin(), group.end());
    Group sorted;
    for (const Record* each : group) sort_by_value(pipeline, group, each, sorted);
    groups.push_back(std::move(sorted));
  }
  std::ranges::reverse(groups);
  return groups;
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
    views[record.name] = {{"name", record.name}, {"fresh", std::move(lines)}};
  }
  json out = json::array();
  for (auto& [name, view] : views) out.push_back(std::move(view));
  return out;
}

json field_view(const Pipeline& pipeline, const Field& field, std::size_t index) {
  const bool has_default = field.default_value && field.default_value->kind != Literal::Kind::kNull;
  std::string presence;
  if (field.optional || has_default) {
    presence = ", pipegen::json::kOptional";
  } else if (field.fresh != FreshKind::kNone) {
    presence = ", pipegen::json::kFresh";
  }
  const std::string pattern = "kPattern" + std::to_string(index);
  const std::string target = "out." + field.cpp_name + " = ";
  const Place place{8 + target.size(), 8};
  json patterns = json::array();
  if (field.pattern) patterns.push_back({{"name", pattern}, {"expression", cpp_string(*field.pattern)}});
  return {{"index", index},
          {"name", field.cpp_name},
          {"type", cpp_member_type(pipeline, field)},
          {"initializer", has_default ? " = " + cpp_literal(pipeline, *field.default_value, field) : "{}"},
          {"doc", doc_lines(field.doc)},
          {"wire", cpp_string(field.json_name)},
          {"entry", "{" + cpp_string(field.json_name) + presence + "}"},
          {"read", target + read_expression(pipeline, field, pattern, &place)},
          {"patterns", std::move(patterns)}};
}

/// A struct of that name with the record's fields: the event's name where events share a record.
json record_view(const Pipeline& pipeline, const Record& record, const std::string& name) {
  json fields = json::array();
  json patterns = json::array();
  for (std::size_t i = 0; i < record.fields.size(); ++i) {
    fields.push_back(field_view(pipeline, record.fields[i], i));
    for (const json& pattern : fields.back()["patterns"]) patterns.push_back(pattern);
  }
  const bool has_fields = !fields.empty();
  return {{"name", name},
          {"read_function", read_function(name)},
          {"doc", doc_lines(record.doc)},
          {"fields", std::move(fields)},
          {"patterns", std::move(patterns)},
          {"has_fields", has_fields}};
}

json group_view(json records) {
  const bool is_mutual = records.size() > 1;
  // No type of a schema has such a name.
  const std::string scope = is_mutual ? records.front().at("name").get<std::string>() + "_Group" : "";
  return {{"is_mutual", is_mutual}, {"scope", scope}, {"records", std::move(records)}};
}

/// `.subject = …`: what an event is published on.
std::string subject_line(const Pipeline& pipeline, const Event& event) {
  constexpr std::size_t kIndent = 6;
  const std::string base =
      "outbox.settings().text(" + cpp_string("nats." + event.setting) + ", " + cpp_string(event.subject) + ")";
  if (event.placeholders.empty()) return fitted(".subject = " + base, kIndent);
  std::string values;
  for (const Placeholder& placeholder : event.placeholders) {
    const std::string value = placeholder.path
                                  ? path_expression(pipeline, event.record, "event", placeholder.path->names)
                                  : std::ranges::find(event.parameters, placeholder.text, &Parameter::name)->cpp_name;
    values += (values.empty() ? "" : ", ");
    values += "{" + cpp_string(placeholder.text) + ", pipegen::concat(" + value + ")}";
  }
  const std::string call = ".subject = pipegen::fill_subject(";
  const std::string one_line = call + base + ", {" + values + "})";
  if (kIndent + one_line.size() + 1 <= kLineWidth) return one_line;
  const std::string indent = "\n" + std::string(kIndent + 4, ' ');
  return call + indent + base + "," + indent + "{" + values + "})";
}

/// What it costs to compile, in plain fields: those with a container cost three times as much.
std::size_t weight_of(const json& view) {
  std::size_t weight = 1;
  if (!view.contains("fields")) return weight;
  for (const json& field : view["fields"]) {
    const std::string& type = field["type"].get_ref<const std::string&>();
    weight += type.find("std::vector") != std::string::npos || type.find("std::map") != std::string::npos ? 3 : 1;
  }
  return weight;
}

}  // namespace

std::vector<SourceFile> events_sources(const json& types) {
  // g++ 12 needs 0.4 s for the headers, and up to 15 ms for a field.
  constexpr std::size_t kMostWeight = 42;
  constexpr std::array kParts = {"enums", "records", "renews", "publishes"};
  json empty = {{"origin", types["origin"]}};
  for (const char* part : kParts) empty[part] = json::array();

  std::vector<json> views{empty};
  std::size_t weight = 0;
  for (const char* part : kParts) {
    for (const json& view : types[part]) {
      const std::size_t more = weight_of(view);
      if (weight > 0 && weight + more > kMostWeight) {
        views.push_back(empty);
        weight = 0;
      }
      views.back()[part].push_back(view);
      weight += more;
    }
  }
  std::vector<SourceFile> sources;
  for (json& view : views) {
    const std::string number = sources.empty() ? "" : "_" + std::to_string(sources.size() + 1);
    sources.emplace_back("generated/events" + number + ".cpp", std::move(view));
  }
  return sources;
}

json types_view(const Pipeline& pipeline, const std::set<std::string>& events, const std::set<std::string>& published,
                const std::set<std::string>& read) {
  Reachable reachable;
  std::set<std::string> seen;
  std::set<std::string> files;
  for (const std::string& name : events) {
    const Event& event = pipeline.events.at(name);
    files.insert(event.origin.file);
    for (const Field& field : pipeline.records.at(event.record).fields) visit(pipeline, field.type, reachable, seen);
  }
  for (const std::string& name : read) visit(pipeline, pipeline.records.at(name), reachable, seen);

  json enums = json::array();
  for (const std::string& name : reachable.enums) {
    const Enum& definition = pipeline.enums.at(name);
    files.insert(definition.origin.file);
    std::vector<std::string> wire_names;
    for (const std::string& value : definition.values) wire_names.push_back(cpp_string(value));
    enums.push_back({{"name", name},
                     {"names", aligned("constexpr std::string_view k" + name + "Names[] = {", wire_names, "}")},
                     {"function", snake_case(name)},
                     {"doc", doc_lines(definition.doc)},
                     {"enumerators", definition.cpp_names}});
  }

  json buckets = json::array();
  for (const std::string& name : reachable.buckets) {
    buckets.push_back({{"name", name}, {"tag", pipeline.buckets.at(name).cpp_name}});
  }

  // Records that events hold come first, each after what it holds; then the events, which nothing holds.
  json groups = json::array();
  json records = json::array();
  std::set<std::string> made;
  for (const Group& group : groups_of(pipeline, reachable.records)) {
    json views = json::array();
    for (const Record* record : group) {
      files.insert(record->origin.file);
      made.insert(record->name);
      views.push_back(record_view(pipeline, *record, record->name));
      records.push_back(views.back());
    }
    groups.push_back(group_view(std::move(views)));
  }
  json publishes = json::array();
  std::set<const Record*> renewed;
  for (const std::string& name : events) {
    const Event& event = pipeline.events.at(name);
    const Record& record = pipeline.records.at(event.record);
    if (!made.contains(name)) {
      json view = record_view(pipeline, record, name);
      const auto doc = event.doc.empty() ? doc_lines("Event on subject " + event.subject + ".") : doc_lines(event.doc);
      view["doc"] = doc;
      records.push_back(view);
      groups.push_back(group_view(json::array({std::move(view)})));
    }
    if (published.contains(name)) {
      json lines = json::array();
      fresh_lines(pipeline, record, "event", "", lines, renewed);
      std::vector<std::string> parameters{"pipegen::Outbox& outbox", name + " event"};
      for (const Parameter& parameter : event.parameters) {
        parameters.push_back("std::string_view " + parameter.cpp_name);
      }
      bool is_result = false;
      if (pipeline.ingest) {
        is_result = std::ranges::any_of(pipeline.ingest->uploads, [&](const UploadSpec& upload) {
          return upload.result && upload.result->event == name;
        });
      }
      publishes.push_back({{"event", name},
                           {"signature", aligned("void publish(", parameters, ")")},
                           {"subject", subject_line(pipeline, event)},
                           {"fresh", lines},
                           {"has_fresh", !lines.empty()},
                           {"is_result", is_result}});
    }
  }
  return {{"enums", std::move(enums)},
          {"buckets", std::move(buckets)},
          {"groups", std::move(groups)},
          {"records", std::move(records)},
          {"renews", renew_views(pipeline, std::move(renewed))},
          {"publishes", std::move(publishes)},
          {"has_events", !events.empty()},
          {"origin", origins(files)}};
}

std::string origins(const std::set<std::string>& files) {
  // What the line has besides.
  constexpr std::size_t kWidth =
      kLineWidth -
      std::string_view("// Generated by pipegen from . Do not edit: change the schema and generate again.").size();
  std::vector<std::string> names(files.begin(), files.end());
  std::string out = listed(names);
  while (out.size() > kWidth && names.size() > 1) {
    names.pop_back();
    std::vector<std::string> shown = names;
    shown.push_back(std::to_string(files.size() - names.size()) + " more");
    out = listed(shown);
  }
  return out;
}

}  // namespace pipegen::gen
