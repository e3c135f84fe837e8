// `ingest:`: what the HTTP API accepts.
#include <algorithm>

#include "model/snake_case.hpp"
#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

bool is_path(std::string_view text) {
  if (!text.starts_with('/') || text.size() < 2 || text.size() > 200) return false;
  return std::ranges::all_of(split(text.substr(1), '/'),
                             [](const std::string& part) { return is_resource_name(part); });
}

bool is_media_type(std::string_view text) {
  const auto parts = split(text, '/');
  const auto good = [](const std::string& part) {
    return !part.empty() && std::ranges::all_of(part, [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) ||
             std::string_view("!#$&-^_.+").find(c) != std::string_view::npos;
    });
  };
  return parts.size() == 2 && std::ranges::all_of(parts, good);
}

/// The object field of an event that a value names; reports what is wrong.
const Field* object_field(Resolution& r, const Node& node, const std::string& event, const std::string& what) {
  const auto name = r.values.text(node, what);
  const Record* record = r.record_of(event);
  if (!name || record == nullptr || r.broken_fields.contains(record->name + "." + *name)) return nullptr;
  const Field* field = record->find(*name);
  if (field == nullptr) {
    if (r.broken_records.contains(record->name)) return nullptr;
    std::vector<std::string> objects;
    for (const Field& each : record->fields) {
      if (each.type.kind == TypeKind::kObject) objects.push_back(each.name);
    }
    std::string hint = did_you_mean(*name, objects);
    if (hint.empty() && !objects.empty()) hint = "its objects: " + one_of(objects);
    r.report.error(code::kUnknownField, node.span, in_quotes(event) + " has no field " + in_quotes(*name), hint);
    return nullptr;
  }
  if (field->type.kind != TypeKind::kObject || field->optional) {
    r.report.error(
        code::kUpload, node.span,
        what + " is the key of an object, " + in_quotes(*name) + " is of type " + spelled(field->type, field->optional),
        "name a required field of type object<…>");
    return nullptr;
  }
  return field;
}

/// The API has no values for the parameters of a subject.
void refuse_parameters(Resolution& r, const Node& event) {
  const auto found = r.pipeline.events.find(event.text);
  if (found == r.pipeline.events.end() || found->second.parameters.empty()) return;
  const std::string& name = found->second.parameters.front().name;
  r.report.error(code::kNoParameter, event.span,
                 "the API cannot publish " + in_quotes(event.text) + ": nothing gives its subject the " +
                     in_quotes("{" + name + "}"),
                 "make " + in_quotes(name) + " a field of the event, or publish it from a custom stage");
}

std::optional<UploadSpec::Result> resolve_result(Resolution& r, const Node& node, const Span& where) {
  const MapView map(r.report, node, "'result'", where, {"event", "object", "as", "media_type"});
  if (!map) return std::nullopt;
  UploadSpec::Result result;
  if (const Node* event = map.require("event", "name the event that tells of the finished object")) {
    if (r.find(Section::kEvents, *event) != nullptr) result.event = event->text;
  }
  if (const Node* object = map.require("object", "name the field that holds its key")) {
    if (!result.event.empty() && object_field(r, *object, result.event, "'object'") != nullptr)
      result.object = object->text;
  }
  if (const Node* as = map.require("as", "name the last part of its address: audio")) {
    const auto text = r.values.text(*as, "'as'");
    if (text && !is_kebab_name(*text)) {
      r.report.error(code::kBadName, as->span, in_quotes(*text) + " cannot be the last part of an address",
                     "small letters, digits and '-'");
    }
    result.as = text.value_or("");
  }
  result.media_type = result.as == "audio" ? "audio/wav" : "application/octet-stream";
  if (const Node* type = map.find("media_type")) {
    const auto text = r.values.text(*type, "'media_type'");
    if (text && !is_media_type(*text)) {
      r.report.error(code::kUpload, type->span, in_quotes(*text) + " is no media type", "write it as audio/wav");
    } else if (text) {
      result.media_type = *text;
    }
  }
  if (r.declared.workflow_id.key == nullptr) {
    r.report.error(code::kUpload, where, "a result is found by its workflow, and this pipeline has no 'workflow_id'",
                   "write workflow_id: header.workflow_id");
  }
  return result;
}

UploadSpec resolve_upload(Resolution& r, const Node& key, const Node& value) {
  UploadSpec upload;
  upload.name = key.text;
  upload.path = "/" + key.text;
  upload.max_size = std::int64_t{512} << 20;
  if (!is_kebab_name(upload.name)) {
    r.report.error(code::kBadName, key.span, in_quotes(upload.name) + " is no name of an upload",
                   "small letters, digits and '-', the first a letter: documents");
  }
  const MapView map(r.report, value, named("upload", upload.name), key.span,
                    {"bucket", "produces", "key", "media_types", "max_size", "path", "result", "doc"});
  if (!map) return upload;
  if (const Node* doc = map.find("doc")) r.values.text(*doc, "'doc'");
  if (const Node* bucket = map.require("bucket", "name the bucket that the body goes to")) {
    if (r.find(Section::kBuckets, *bucket) != nullptr) upload.bucket = bucket->text;
  }
  if (const Node* produces = map.require("produces", "name the event that tells of the upload")) {
    if (r.find(Section::kEvents, *produces) != nullptr) {
      upload.produces = produces->text;
      refuse_parameters(r, *produces);
    }
  }
  if (const Node* field = map.require("key", "name the field of the event that gets the object's key")) {
    const Field* object = upload.produces.empty() ? nullptr : object_field(r, *field, upload.produces, "'key'");
    if (object != nullptr) {
      upload.key = object->name;
      if (!upload.bucket.empty() && object->type.name != upload.bucket) {
        r.report.error(code::kUpload, field->span,
                       in_quotes(field->text) + " is a key in bucket " + in_quotes(object->type.name) +
                           ", the upload goes to " + in_quotes(upload.bucket),
                       "make both the same");
      }
    }
  }
  if (const Node* types = map.find("media_types")) {
    for (const Node* type : r.values.list(*types, "'media_types'")) {
      if (!is_media_type(type->text)) {
        r.report.error(code::kUpload, type->span, in_quotes(type->text) + " is no media type",
                       "write it as application/pdf");
      } else {
        upload.media_types.push_back(lower_case(type->text));
      }
    }
  }
  if (const Node* size = map.find("max_size"))
    upload.max_size = r.values.size(*size, "'max_size'").value_or(upload.max_size);
  if (const Node* path = map.find("path")) {
    const auto text = r.values.text(*path, "'path'");
    if (text && !is_path(*text)) {
      r.report.error(code::kRoute, path->span, in_quotes(*text) + " is no path of the API",
                     "write it as /documents: letters, digits, '_' and '-' between slashes");
    } else if (text) {
      upload.path = *text;
    }
  }
  if (const Node* result = map.find("result")) upload.result = resolve_result(r, *result, key.span);
  return upload;
}

/// A client gives the fields of an upload by their paths on the wire, where a dot leads into a record: of the event,
/// and of the records that the workflow's id is in.
void refuse_dots(Resolution& r, const UploadSpec& upload, const Record& record, std::size_t depth) {
  const std::vector<std::string>& workflow = r.pipeline.workflow_id;
  for (const Field& field : record.fields) {
    const bool on_the_way = depth < workflow.size() && workflow[depth] == field.name;
    const bool is_filled = field.fresh != FreshKind::kNone || (depth == 0 && field.name == upload.key) ||
                           (on_the_way && depth + 1 == workflow.size());
    if (!is_filled && field.json_name.find('.') != std::string::npos) {
      r.report.error(code::kUpload, r.field_spans.at({record.name, field.name}),
                     "no client could give " + in_quotes(field.json_name) + " with the upload " +
                         in_quotes(upload.name) + ": the dot would lead into a record",
                     "write a 'json' without dots");
    }
    const auto inner = r.pipeline.records.find(field.type.name);
    if (on_the_way && field.type.kind == TypeKind::kRecord && inner != r.pipeline.records.end()) {
      refuse_dots(r, upload, inner->second, depth + 1);
    }
  }
}

/// POST /ingest/order: the last part is that of the entity.
void check_entity_route(Resolution& r, const Node& entity) {
  static const std::set<std::string> kTaken{"batch", "message", "status"};
  const std::string route = snake_case(entity.text);
  if (!kTaken.contains(route)) return;
  r.report.error(code::kRoute, entity.span,
                 in_quotes("/ingest/" + route) + " is a route of the API for all entities, so it cannot take in " +
                     in_quotes(entity.text),
                 "rename the entity, and keep its table with table: " + route);
}

void check_routes(Resolution& r, const std::vector<std::pair<UploadSpec, Span>>& uploads) {
  static const std::set<std::string> kTaken{"events", "health", "metrics", "openapi.json", "ready", "docs"};
  for (std::size_t i = 0; i < uploads.size(); ++i) {
    const auto& [upload, span] = uploads[i];
    const std::string first = split(upload.path.substr(1), '/').front();
    if (kTaken.contains(first) || (first == "ingest" && !r.entity_texts.empty())) {
      r.report.error(code::kRoute, span, "the API answers " + in_quotes("/" + first) + " itself",
                     "give the upload another 'path'");
    }
    for (std::size_t j = 0; j < i; ++j) {
      const auto& [other, other_span] = uploads[j];
      const bool nested =
          (upload.path + "/").starts_with(other.path + "/") || (other.path + "/").starts_with(upload.path + "/");
      if (!nested) continue;
      r.report
          .error(code::kRoute, span,
                 "the paths " + in_quotes(other.path) + " and " + in_quotes(upload.path) + " get in each other's way",
                 "change one of them")
          .notes.push_back({other_span, "the other one"});
    }
  }
}

}  // namespace

void resolve_ingest(Resolution& r) {
  const Declaration& declaration = r.declared.ingest;
  if (declaration.key == nullptr) return;
  const MapView map(r.report, *declaration.value, "'ingest'", declaration.key->span,
                    {"port", "uploads", "events", "entities"});
  if (!map) return;
  Ingest ingest;
  ingest.origin = {declaration.file->origin};
  if (const Node* port = map.find("port"))
    ingest.port = static_cast<int>(r.values.integer(*port, "'port'", 1, 65535).value_or(8080));
  std::vector<std::pair<UploadSpec, Span>> uploads;
  if (const Node* node = map.find("uploads")) {
    if (const MapView all(r.report, *node, "'uploads'", declaration.key->span, {}); all) {
      for (std::size_t i = 0; i < node->keys.size(); ++i)
        uploads.emplace_back(resolve_upload(r, node->keys[i], node->items[i]), node->keys[i].span);
    }
  }
  std::ranges::sort(uploads, {}, [](const auto& each) { return each.first.name; });
  check_routes(r, uploads);
  for (const auto& [upload, span] : uploads) {
    if (const Record* record = r.record_of(upload.produces)) refuse_dots(r, upload, *record, 0);
  }
  for (auto& [upload, span] : uploads) ingest.uploads.push_back(std::move(upload));
  if (const Node* events = map.find("events")) {
    std::set<std::string> seen;
    for (const Node* event : r.values.list(*events, "'events'")) {
      if (r.find(Section::kEvents, *event) == nullptr) continue;
      if (!seen.insert(event->text).second) {
        r.report.error(code::kDuplicate, event->span, in_quotes(event->text) + " is there twice", "remove one");
      } else {
        refuse_parameters(r, *event);
      }
    }
    ingest.events.assign(seen.begin(), seen.end());
  }
  if (const Node* entities = map.find("entities")) {
    std::set<std::string> seen;
    for (const Node* entity : r.values.list(*entities, "'entities'")) {
      if (!names_root_entity(r, *entity)) continue;
      if (!seen.insert(entity->text).second) {
        r.report.error(code::kDuplicate, entity->span, in_quotes(entity->text) + " is there twice", "remove one");
      }
      check_entity_route(r, *entity);
    }
    ingest.entities.assign(seen.begin(), seen.end());
  }
  r.pipeline.ingest = std::move(ingest);
}

}  // namespace pipegen::gen
