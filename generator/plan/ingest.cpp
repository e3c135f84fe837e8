#include <algorithm>
#include <cctype>
#include <span>

#include "plan/cpp.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

bool is_text(const Type& type) {
  switch (type.kind) {
    case TypeKind::kString:
    case TypeKind::kBytes:
    case TypeKind::kUuid:
    case TypeKind::kTimestamp:
    case TypeKind::kDate:
    case TypeKind::kDecimal:
    case TypeKind::kEnum:
    case TypeKind::kObject:
      return true;
    default:
      return false;
  }
}

/// What a client may give along with an upload: everything but what the API fills in itself. `path` leads from the
/// record to the workflow id, if it has it; `key` is the field for the object's key.
void client_fields(const Pipeline& pipeline, const Record& record, std::span<const std::string> path,
                   const std::string& key, const std::string& prefix, std::vector<ClientField>& out) {
  for (const Field& field : record.fields) {
    if (field.fresh != FreshKind::kNone || field.name == key) continue;
    if (path.empty() || path.front() != field.name) {
      out.push_back({prefix + field.json_name, &field, is_text(field.type)});
    } else if (path.size() > 1) {
      // The record that the workflow id is in may have fields for the client: header.userId.
      client_fields(pipeline, pipeline.records.at(field.type.name), path.subspan(1), "", prefix + field.json_name + ".",
                    out);
    }
  }
}

/// Adds the pointers of what is made on the path from a record to the workflow id; whether that is all that the record
/// has to have.
bool add_made(const Pipeline& pipeline, const Record& record, std::span<const std::string> path,
              const std::string& prefix, std::vector<std::string>& out) {
  bool all = true;
  for (const Field& field : record.fields) {
    bool made = field.optional || field.default_value || field.fresh != FreshKind::kNone;
    if (!path.empty() && path.front() == field.name) {
      const std::string pointer = prefix + "/" + field.json_name;
      made =
          path.size() == 1 || add_made(pipeline, pipeline.records.at(field.type.name), path.subspan(1), pointer, out);
      if (made) out.push_back(pointer);
    }
    all = all && made;
  }
  return all;
}

/// `auto event = pipegen::json::parse_new(…)`
std::string read_line(const std::string& text, const std::string& event, const std::vector<std::string>& made) {
  std::string pointers;
  for (const std::string& pointer : made) pointers += (pointers.empty() ? "" : ", ") + cpp_string(pointer);
  return aligned("  auto event = pipegen::json::parse_new(", {text, read_function(event), "{" + pointers + "}"}, ");")
      .substr(2);
}

/// How the workflow id of an event is reached, found missing, set from text, and made anew.
json workflow_view(const Pipeline& pipeline, const Event& event) {
  if (pipeline.workflow_id.empty()) {
    return {{"workflow", ""}, {"workflow_missing", ""}, {"workflow_given", ""}, {"workflow_made", ""}};
  }
  const Record* record = &pipeline.records.at(event.record);
  const Field* last = nullptr;
  for (const std::string& step : pipeline.workflow_id) {
    last = record->find(step);
    if (last->type.kind == TypeKind::kRecord) record = &pipeline.records.at(last->type.name);
  }
  const std::string path = path_expression(pipeline, event.record, "event", pipeline.workflow_id);
  const bool is_uuid = last->type.kind == TypeKind::kUuid;
  std::string name;
  for (const std::string& step : pipeline.workflow_id) name += (name.empty() ? "" : ".") + step;
  // Like a fresh field: the same when a request is repeated with its Idempotency-Key.
  const std::string made = "outbox.fresh().uuid(" + cpp_string(name) + ")";
  return {{"workflow", path},
          {"workflow_missing", is_uuid ? path + " == pipegen::Uuid{}" : path + ".empty()"},
          {"workflow_given", is_uuid ? "pipegen::Uuid::parse(workflow_id).value()" : "workflow_id"},
          {"workflow_made", is_uuid ? made : made + ".to_string()"}};
}

std::string extension_of(const UploadSpec& upload) {
  if (upload.media_types.size() != 1) return "bin";
  const std::string& type = upload.media_types.front();
  if (type == "application/pdf") return "pdf";
  if (type == "audio/wav" || type == "audio/x-wav") return "wav";
  if (type == "text/plain") return "txt";
  const std::size_t slash = type.find('/');
  const std::string subtype = slash == std::string::npos ? "" : type.substr(slash + 1);
  const bool plain =
      !subtype.empty() && std::ranges::all_of(subtype, [](unsigned char c) { return std::isalnum(c) != 0; });
  return plain ? subtype : "bin";
}

}  // namespace

std::vector<const Stage*> stages_in_order(const Pipeline& pipeline) {
  std::vector<const Stage*> ordered;
  std::set<std::string> placed;
  while (ordered.size() < pipeline.stages.size()) {
    for (const auto& [name, stage] : pipeline.stages) {
      if (placed.contains(name)) continue;
      const bool waits = std::ranges::any_of(pipeline.stages, [&, &name = name, &stage = stage](const auto& entry) {
        return !placed.contains(entry.first) && entry.first != name &&
               std::ranges::find(entry.second.produces, stage.consumes, &ProducedEvent::event) !=
                   entry.second.produces.end();
      });
      if (waits) continue;
      ordered.push_back(&stage);
      placed.insert(name);
    }
  }
  return ordered;
}

std::vector<std::string> made_by_api(const Pipeline& pipeline, const Event& event) {
  std::vector<std::string> pointers;
  add_made(pipeline, pipeline.records.at(event.record), pipeline.workflow_id, "", pointers);
  std::ranges::sort(pointers);
  return pointers;
}

void plan_ingest(const Pipeline& pipeline, Database database, Plan& plan) {
  const Ingest& ingest = *pipeline.ingest;
  const Service service = ingest_service(pipeline, database);
  std::set<std::string> events, published, origin_files{ingest.origin.file};
  Needs needs;

  std::map<std::string, std::vector<ClientField>> fields;
  json uploads = json::array();
  for (const UploadSpec& upload : ingest.uploads) {
    const Event& event = pipeline.events.at(upload.produces);
    events.insert(upload.produces);
    published.insert(upload.produces);
    needs.streams.insert(event.stream);
    needs.buckets.insert(upload.bucket);
    const Record& record = pipeline.records.at(event.record);
    // The object's key comes with the upload: any other route that takes the event asks for it.
    std::vector<std::string> made = made_by_api(pipeline, event);
    made.push_back("/" + record.find(upload.key)->json_name);
    const std::string function = snake_case(upload.name) + "_event";
    const std::vector<std::string> parameters{
        "std::string_view fields",
        pipeline.workflow_id.empty() ? "const std::string&" : "const std::string& workflow_id",
        "const std::string& object_key"};
    json view = {{"name", upload.name},
                 {"function", function},
                 {"path", cpp_string(upload.path)},
                 {"bucket", cpp_string(upload.bucket)},
                 {"max_size", upload.max_size},
                 {"extension", cpp_string(extension_of(upload))},
                 {"event", upload.produces},
                 {"event_literal", cpp_string(upload.produces)},
                 {"read_line", read_line("fields", upload.produces, made)},
                 {"signature", aligned(upload.produces + " " + function + "(", parameters, ")")},
                 {"key", path_expression(pipeline, event.record, "event", {upload.key})},
                 {"has_workflow", !pipeline.workflow_id.empty()}};
    view.update(workflow_view(pipeline, event));
    std::string media;
    for (const std::string& type : upload.media_types) media += (media.empty() ? "" : ", ") + cpp_string(type);
    view["media_types"] = "{" + media + "}";
    client_fields(pipeline, record, pipeline.workflow_id, upload.key, "", fields[upload.name]);
    view["fields"] = json::array();
    for (const ClientField& field : fields[upload.name]) {
      view["fields"].push_back({{"name", cpp_string(field.name)}, {"kind", field.is_text ? "kText" : "kJson"}});
    }
    view["has_client_fields"] = !fields[upload.name].empty();
    view["has_result"] = upload.result.has_value();
    if (upload.result) {
      const Event& result = pipeline.events.at(upload.result->event);
      events.insert(upload.result->event);
      needs.buckets.insert(pipeline.records.at(result.record).find(upload.result->object)->type.name);
      needs.streams.insert(result.stream);
      view["result"] = {
          {"as", cpp_string(upload.result->as)},
          {"bucket", cpp_string(pipeline.records.at(result.record).find(upload.result->object)->type.name)},
          {"media_type", cpp_string(upload.result->media_type)},
          {"event", cpp_string(upload.result->event)},
          {"function", snake_case(upload.name) + "_result"},
          {"read", read_function(upload.result->event)},
          {"key", path_expression(pipeline, result.record, "event", {upload.result->object})}};
    }
    uploads.push_back(view);
  }

  json routes = json::array();
  for (const std::string& name : ingest.events) {
    const Event& event = pipeline.events.at(name);
    events.insert(name);
    published.insert(name);
    needs.streams.insert(event.stream);
    json view = {{"event", name},
                 {"event_literal", cpp_string(name)},
                 {"function", "post_" + snake_case(name)},
                 {"read_line", read_line("body", name, made_by_api(pipeline, event))},
                 {"has_workflow", !pipeline.workflow_id.empty()}};
    view.update(workflow_view(pipeline, event));
    routes.push_back(view);
  }

  json entities = json::array();
  std::set<std::string> entity_records;
  for (const std::string& name : ingest.entities) {
    const Entity& entity = *std::ranges::find(pipeline.entities, name, &Entity::name);
    entity_records.insert(entity.record);
    needs.streams.insert(pipeline.entity_stream);
    entities.push_back({{"lines",
                         {".name = " + cpp_string(name), ".path = " + cpp_string(snake_case(name)),
                          fitted(".subject = " + setting_text("nats", entity.setting, entity.subject), 6)}},
                        {"read", read_function(entity.record)}});
  }
  json entity_lines = json::array();
  if (!entities.empty()) {
    const Stream& stream = pipeline.streams.at(pipeline.entity_stream);
    entity_lines.push_back(fitted(".entity_stream = " + setting_text("nats", stream.setting, stream.name), 6));
    entity_lines.push_back(".open_status = pipegen::sql::find_message_in_" + to_string(database));
  }

  json stages = json::array();
  for (const Stage* stage : stages_in_order(pipeline)) {
    std::vector<std::string> produces;
    for (const ProducedEvent& produced : stage->produces) produces.push_back(cpp_string(produced.event));
    stages.push_back({{"name", cpp_string(stage->name)},
                      {"consumes", cpp_string(stage->consumes)},
                      {"produces", aligned("      .produces = {", produces, "}").substr(6)},
                      {"collects", stage->collect ? "true" : "false"}});
  }

  json types = types_view(pipeline, events, published, entity_records);
  std::set<std::string> sources{"generated/api.cpp", "generated/main.cpp", "generated/openapi.cpp"};
  json base = {{"service", service.name},
               {"namespace", service.cpp_name},
               {"pipeline", pipeline.name},
               {"schema", ingest.origin.file},
               {"title", service.name},
               {"doc", doc_lines("The HTTP API in front of the pipeline.")},
               {"is_api", true},
               {"has_transforms", false},
               {"is_custom", false},
               {"components", service.components},
               {"origin", origins(origin_files)}};
  ServiceFiles files(plan, service, std::move(base), std::move(types), std::move(sources));
  files.header("api.hpp", "ingest/generated/api.hpp");
  files.generated("main.cpp", "ingest/generated/main.cpp");
  files.generated("openapi.cpp", "ingest/generated/openapi.cpp",
                  {{"pieces", cpp_strings(openapi(pipeline, fields) + "\n")}});
  files.generated("api.cpp", "ingest/generated/api.cpp",
                  {{"uploads", uploads},
                   {"events", routes},
                   {"has_events", !routes.empty()},
                   {"entities", entities},
                   {"entity_lines", entity_lines},
                   {"stages", stages},
                   {"port", ingest.port},
                   {"status_bucket", cpp_string(status_bucket(pipeline))},
                   {"idempotency_bucket", cpp_string(pipeline.constant + "_IDEMPOTENCY")},
                   {"topology", topology_view(pipeline, needs, true)}});
  plan_service(pipeline, service, needs, files.view(), plan);
}

}  // namespace pipegen::gen
