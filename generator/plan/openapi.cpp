#include <algorithm>
#include <string_view>

#include "model/snake_case.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using json = nlohmann::ordered_json;

// Schemas of the API itself; the dot keeps them apart from the types of any pipeline.
constexpr const char* kProblem = "pipegen.Problem";
constexpr const char* kAccepted = "pipegen.Accepted";
constexpr const char* kStatus = "pipegen.Status";
constexpr const char* kBatch = "pipegen.Batch";
constexpr const char* kMessage = "pipegen.Message";

json number(const std::string& text) {
  const json parsed = json::parse(text, nullptr, false);
  return parsed.is_discarded() ? json(text) : parsed;
}

/// Whether ECMA-262, which JSON Schema means, reads a POSIX extended regular expression as POSIX does: brackets with
/// classes, with a ']' that does not end them, or with a backslash are something else there, and so is `{,3}`.
bool is_ecma_too(std::string_view posix) {
  for (std::size_t i = 0; i < posix.size(); ++i) {
    if (posix[i] == '\\') {
      ++i;
    } else if (posix.substr(i).starts_with("{,")) {
      return false;
    } else if (posix[i] == '[') {
      if (posix.substr(++i).starts_with('^')) ++i;
      const std::string_view inside = posix.substr(i, posix.find(']', i) - i);
      for (const char* mark : {"\\", "[:", "[.", "[="}) {
        if (inside.empty() || inside.find(mark) != std::string_view::npos) return false;
      }
      i += inside.size();
    }
  }
  return true;
}

/// Adds a sentence to what a schema says of itself.
void describe(json& schema, const std::string& sentence) {
  const std::string before = schema.value("description", "");
  schema["description"] = before + (before.empty() ? "" : before.ends_with('.') ? " " : ". ") + sentence;
}

json schema_of(const Type& type);

/// What a schema cannot say of an exact number, which is text so that no client rounds it.
void describe_decimal(const Field& field, json& schema) {
  const int whole = field.type.precision - field.type.scale;
  std::string limits = "An exact number of at most " + std::to_string(whole) + " digits before the point and " +
                       std::to_string(field.type.scale) + " after it";
  if (field.min) limits += ", " + *field.min + " or more";
  if (field.max) limits += ", " + *field.max + " or less";
  schema["format"] = "decimal";
  describe(schema, limits + ".");
}

json schema_of(const Field& field) {
  json schema = schema_of(field.type);
  const bool sized = field.type.kind == TypeKind::kList;
  const bool text = field.type.kind == TypeKind::kString;
  const bool numeric = field.type.kind == TypeKind::kInt32 || field.type.kind == TypeKind::kInt64 ||
                       field.type.kind == TypeKind::kFloat64;
  if (field.min && numeric) schema["minimum"] = number(*field.min);
  if (field.max && numeric) schema["maximum"] = number(*field.max);
  if (field.min_length && (text || sized)) schema[sized ? "minItems" : "minLength"] = *field.min_length;
  if (field.max_length && (text || sized)) schema[sized ? "maxItems" : "maxLength"] = *field.max_length;
  if (field.type.kind == TypeKind::kMap) {
    if (field.min_length) schema["minProperties"] = *field.min_length;
    if (field.max_length) schema["maxProperties"] = *field.max_length;
  }
  if (field.pattern && is_ecma_too(*field.pattern)) schema["pattern"] = "^(?:" + *field.pattern + ")$";
  if (!field.doc.empty() && !schema.contains("$ref")) schema["description"] = field.doc;
  if (field.pattern && !schema.contains("pattern")) {
    describe(schema, "Matches the POSIX extended regular expression " + *field.pattern);
  }
  if (field.type.kind == TypeKind::kDecimal) describe_decimal(field, schema);
  return schema;
}

json schema_of(const Type& type) {
  switch (type.kind) {
    case TypeKind::kBool:
      return {{"type", "boolean"}};
    case TypeKind::kInt32:
      return {{"type", "integer"}, {"format", "int32"}};
    case TypeKind::kInt64:
      return {{"type", "integer"}, {"format", "int64"}};
    case TypeKind::kFloat64:
      return {{"type", "number"}, {"format", "double"}};
    case TypeKind::kDecimal:
    case TypeKind::kString:
      return {{"type", "string"}};
    case TypeKind::kObject:
      return {{"type", "string"}, {"minLength", 1}, {"maxLength", 1024}};
    case TypeKind::kBytes:
      return {{"type", "string"}, {"contentEncoding", "base64"}};
    case TypeKind::kUuid:
      return {{"type", "string"}, {"format", "uuid"}};
    case TypeKind::kTimestamp:
      return {{"type", "string"}, {"format", "date-time"}};
    case TypeKind::kDate:
      return {{"type", "string"}, {"format", "date"}};
    case TypeKind::kJson:
      return json::object();
    case TypeKind::kList:
      return {{"type", "array"}, {"items", schema_of(type.element.at(0))}};
    case TypeKind::kMap:
      return {{"type", "object"}, {"additionalProperties", schema_of(type.element.at(0))}};
    case TypeKind::kRecord:
    case TypeKind::kEnum:
      return {{"$ref", "#/components/schemas/" + type.name}};
  }
  return json::object();
}

/// What the API needs to know of the schema, and the schemas that it has written so far.
struct Schemas {
  const Pipeline& pipeline;
  json written;
  bool of_entities = false;  // whose fresh fields nobody makes anew
};

void add_schemas(const Type& type, Schemas& schemas);

/// `made` are the pointers of what the API fills in (made_by_api), `prefix` that of the record.
json record_schema(const Record& record, const std::vector<std::string>& made, const std::string& prefix,
                   const Schemas& schemas) {
  json schema = {{"type", "object"}};
  if (!record.doc.empty()) schema["description"] = record.doc;
  json properties = json::object();
  json required = json::array();
  for (const Field& field : record.fields) {
    const std::string pointer = prefix + "/" + field.json_name;
    const bool leads_to_made =
        std::ranges::any_of(made, [&](const std::string& other) { return other.starts_with(pointer + "/"); });
    json property = schema_of(field);
    // Elsewhere the same record has to be whole.
    if (leads_to_made) property = record_schema(schemas.pipeline.records.at(field.type.name), made, pointer, schemas);
    properties[field.json_name] = std::move(property);
    const bool is_made =
        (field.fresh != FreshKind::kNone && !schemas.of_entities) || std::ranges::find(made, pointer) != made.end();
    if (!field.optional && !field.default_value && !is_made) required.push_back(field.json_name);
  }
  schema["properties"] = properties;
  if (!required.empty()) schema["required"] = required;
  return schema;
}

void add_record(const Record& record, const std::string& name, const std::vector<std::string>& made, Schemas& schemas) {
  if (schemas.written.contains(name)) return;
  schemas.written[name] = json::object();
  schemas.written[name] = record_schema(record, made, "", schemas);
  for (const Field& field : record.fields) add_schemas(field.type, schemas);
}

void add_schemas(const Type& type, Schemas& schemas) {
  const Pipeline& pipeline = schemas.pipeline;
  if (type.kind == TypeKind::kRecord) add_record(pipeline.records.at(type.name), type.name, {}, schemas);
  if (type.kind == TypeKind::kEnum)
    schemas.written[type.name] = {{"type", "string"}, {"enum", pipeline.enums.at(type.name).values}};
  for (const Type& element : type.element) add_schemas(element, schemas);
}

json ref(const std::string& kind, const std::string& name) { return {{"$ref", "#/components/" + kind + "/" + name}}; }

json content(const std::string& media_type, json schema) { return {{media_type, {{"schema", std::move(schema)}}}}; }

json answer(const std::string& description, json body) {
  return {{"description", description}, {"content", std::move(body)}};
}

json problem(const std::string& description) {
  return answer(description, content("application/problem+json", ref("schemas", kProblem)));
}

json text() { return {{"type", "string"}}; }
json count() { return {{"type", "integer"}, {"minimum", 0}}; }
json time() { return {{"type", "string"}, {"format", "date-time"}}; }

json retry_after() { return {{"Retry-After", {{"description", "Seconds."}, {"schema", {{"type", "integer"}}}}}}; }

json parameter(const std::string& name, const std::string& in, const std::string& description) {
  return {{"name", name}, {"in", in}, {"required", in == "path"}, {"description", description}, {"schema", text()}};
}

/// A field that may come with an upload, as a query parameter. What is not text is JSON.
json query_parameter(const ClientField& field) {
  json out = {{"name", field.name}, {"in", "query"}, {"required", false}};
  if (!field.field->doc.empty()) out["description"] = field.field->doc;
  if (field.is_text) {
    out["schema"] = schema_of(*field.field);
  } else {
    out["content"] = content("application/json", schema_of(*field.field));
  }
  return out;
}

/// What every route that publishes may answer besides 202.
json refusals() {
  return {{"400", ref("responses", "Malformed")},  {"401", ref("responses", "Unauthorized")},
          {"408", ref("responses", "TooSlow")},    {"409", ref("responses", "InProgress")},
          {"413", ref("responses", "TooLarge")},   {"415", ref("responses", "WrongMediaType")},
          {"422", ref("responses", "Invalid")},    {"500", ref("responses", "Failed")},
          {"503", ref("responses", "Unavailable")}};
}

json upload_operation(const UploadSpec& upload, const std::vector<ClientField>& fields, bool has_workflow) {
  json parameters = json::array({ref("parameters", "IdempotencyKey")});
  json form = {{"file", {{"type", "string"}, {"contentMediaType", "application/octet-stream"}}}};
  for (const ClientField& field : fields) {
    parameters.push_back(query_parameter(field));
    form[field.name] = schema_of(*field.field);
  }
  json bodies = json::object();
  for (const std::string& type : upload.media_types) bodies[type] = {{"schema", json::object()}};
  if (upload.media_types.empty()) bodies["application/octet-stream"] = {{"schema", json::object()}};
  bodies["multipart/form-data"] = {
      {"schema", {{"type", "object"}, {"properties", form}, {"required", json::array({"file"})}}}};
  json responses = {{"202", ref("responses", has_workflow ? "Started" : "Stored")}};
  responses.update(refusals());
  return {{"operationId", "upload_" + upload.name},
          {"summary", has_workflow ? "Stores the body and starts a workflow."
                                   : "Stores the body and publishes a " + upload.produces + "."},
          {"parameters", parameters},
          {"requestBody", {{"required", true}, {"content", bodies}}},
          {"responses", responses}};
}

json status_operation(const UploadSpec& upload) {
  return {{"operationId", "status_" + upload.name},
          {"summary", "How far the workflow is."},
          {"parameters", json::array({ref("parameters", "WorkflowId")})},
          {"responses",
           {{"200", answer("The state of the workflow.", content("application/json", ref("schemas", kStatus)))},
            {"401", ref("responses", "Unauthorized")},
            {"404", problem("No such workflow.")},
            {"500", ref("responses", "Failed")},
            {"503", ref("responses", "Unavailable")}}}};
}

json result_operation(const UploadSpec& upload) {
  const json body = content(upload.result->media_type, json::object());
  json whole = answer("The object.", body);
  whole["headers"] = {{"ETag", {{"schema", text()}}}, {"Accept-Ranges", {{"schema", {{"const", "bytes"}}}}}};
  json part = answer("A part of the object.", body);
  part["headers"] = {{"ETag", {{"schema", text()}}}, {"Content-Range", {{"schema", text()}}}};
  json outside = problem("The range lies outside of the object.");
  outside["headers"] = {{"Content-Range", {{"schema", text()}}}};
  return {{"operationId", "result_" + upload.name},
          {"summary", "The finished object; ranges are served."},
          {"parameters",
           json::array({ref("parameters", "WorkflowId"),
                        parameter("Range", "header", "One range of octets: \"bytes=0-1023\". Others are ignored."),
                        parameter("If-Range", "header", "The ETag for which the range is meant.")})},
          {"responses",
           {{"200", whole},
            {"206", part},
            {"401", ref("responses", "Unauthorized")},
            {"404", problem("No such workflow, or it is not finished; \"state\" says how far it is.")},
            {"416", outside},
            {"500", ref("responses", "Failed")},
            {"503", ref("responses", "Unavailable")}}}};
}

json event_operation(const std::string& name, const Event& event) {
  json responses = {{"202", ref("responses", "Published")}};
  responses.update(refusals());
  return {{"operationId", "publish_" + name},
          {"summary", event.doc.empty() ? "Publishes a " + name + "." : event.doc},
          {"parameters", json::array({ref("parameters", "IdempotencyKey")})},
          {"requestBody", {{"required", true}, {"content", content("application/json", ref("schemas", name))}}},
          {"responses", responses}};
}

json entity_parameters(bool named) {
  json parameters = json::array({ref("parameters", "IdempotencyKey")});
  if (named) return parameters;
  parameters.push_back(ref("parameters", "Entity"));
  parameters.push_back(ref("parameters", "EntityType"));
  return parameters;
}

json entity_responses() {
  json responses = {{"202", ref("responses", "Taken")}};
  responses.update(refusals());
  responses["429"] = ref("responses", "TooMany");
  return responses;
}

/// POST /ingest/{entity}: `schema` is that of its body.
json entity_operation(const std::string& id, const std::string& summary, json schema, bool named) {
  return {{"operationId", id},
          {"summary", summary},
          {"parameters", entity_parameters(named)},
          {"requestBody", {{"required", true}, {"content", content("application/json", std::move(schema))}}},
          {"responses", entity_responses()}};
}

json batch_operation(const json& any) {
  json bodies = {{"application/x-ndjson", {{"schema", text()}}}};
  bodies.update(content("application/json", {{"type", "array"}, {"items", any}}));
  json responses = entity_responses();
  responses["422"] = problem("None was accepted; `errors` says why, as in the answer to one that was.");
  responses["503"] = problem("Try again later; the good ones up to the line `accepted_through` are accepted.");
  responses["503"]["headers"] = retry_after();
  responses["202"] = answer("What was accepted is stored in its stream; what was not is in `errors`.",
                            content("application/json", ref("schemas", kBatch)));
  return {{"operationId", "ingest_batch"},
          {"summary", "Accepts any number of entities: one a line, or as an array."},
          {"parameters", entity_parameters(false)},
          {"requestBody", {{"required", true}, {"content", bodies}}},
          {"responses", responses}};
}

json message_operation() {
  return {{"operationId", "ingest_status"},
          {"summary", "What became of a message."},
          {"parameters", json::array({ref("parameters", "MessageId")})},
          {"responses",
           {{"200", answer("The state of the message.", content("application/json", ref("schemas", kMessage)))},
            {"401", ref("responses", "Unauthorized")},
            {"404", problem("No such message, or its state is no longer known.")},
            {"500", ref("responses", "Failed")},
            {"503", ref("responses", "Unavailable")}}}};
}

/// The routes of entities, and what only they need of the shared parts.
void add_entity_operations(Schemas& schemas, json& paths, json& parameters, json& responses) {
  const Pipeline& pipeline = schemas.pipeline;
  json choices = json::array();
  for (const std::string& name : pipeline.ingest->entities) {
    const Entity& entity = *std::ranges::find(pipeline.entities, name, &Entity::name);
    choices.push_back(ref("schemas", entity.record));
    paths["/ingest/" + snake_case(name)]["post"] =
        entity_operation("ingest_" + name, entity.doc.empty() ? "Accepts one " + name + "." : entity.doc,
                         ref("schemas", entity.record), true);
  }
  const json any = choices.size() == 1 ? choices.front() : json{{"anyOf", choices}};
  paths["/ingest/message"]["post"] = entity_operation(
      "ingest_message", "Accepts one entity: the one that is named, or the only one that fits.", any, false);
  paths["/ingest/batch"]["post"] = batch_operation(any);
  paths["/ingest/status/{message_id}"]["get"] = message_operation();

  const json violation = {{"type", "object"}, {"properties", {{"pointer", text()}, {"detail", text()}}}};
  const json line = {{"type", "object"},
                     {"properties",
                      {{"line", {{"type", "integer"}, {"minimum", 1}}},
                       {"entity", text()},
                       {"detail", text()},
                       {"errors", {{"type", "array"}, {"items", violation}}}}},
                     {"required", json::array({"line", "detail"})}};
  schemas.written[kBatch] = {
      {"type", "object"},
      {"properties",
       {{"accepted", count()},
        {"rejected", count()},
        {"errors", {{"type", "array"}, {"items", line}, {"description", "By line; the first thousand."}}},
        {"more_errors", count()}}},
      {"required", json::array({"accepted", "rejected", "errors"})}};
  schemas.written[kMessage] = {
      {"type", "object"},
      {"properties",
       {{"message_id", text()},
        {"entity_type", text()},
        {"status",
         {{"enum", json::array({"accepted", "processing", "completed", "failed", "dead_lettered", "consumed"})},
          {"description", "`failed` is tried again; `consumed`: done with, and no row says how."}}},
        {"attempts", count()},
        {"error", text()},
        {"received_at", time()},
        {"updated_at", time()},
        {"traceparent",
         {{"type", "string"}, {"description", "The trace that the message belongs to, as W3C writes it."}}}}},
      {"required", json::array({"message_id", "status", "attempts"})}};
  json entity_type = parameter("X-Entity-Type", "header", "Which entity the body is.");
  entity_type["schema"]["enum"] = pipeline.ingest->entities;
  json entity = parameter("entity", "query", "The same; it wins.");
  entity["schema"]["enum"] = pipeline.ingest->entities;
  parameters["Entity"] = entity;
  parameters["EntityType"] = entity_type;
  parameters["MessageId"] = parameter("message_id", "path", "As the answer to the message gave it.");
  json taken =
      answer("Accepted: the message is stored in its stream.", content("application/json", ref("schemas", kAccepted)));
  taken["headers"] = {{"Location", {{"description", "Where the message's state is."}, {"schema", text()}}}};
  responses["Taken"] = taken;
  responses["TooMany"] = problem("Too many requests; try again later.");
  responses["TooMany"]["headers"] = retry_after();
}

/// Of the routes that every service has.
void add_admin_operations(json& paths) {
  const json said = content("application/json", {{"type", "object"}, {"properties", {{"status", text()}}}});
  paths["/health"]["get"] = {{"operationId", "health"},
                             {"summary", "Whether the service is alive."},
                             {"responses", {{"200", answer("It is.", said)}}}};
  paths["/ready"]["get"] = {
      {"operationId", "ready"},
      {"summary", "Whether the service can do its work now."},
      {"responses", {{"200", answer("It can.", said)}, {"503", ref("responses", "Unavailable")}}}};
  paths["/metrics"]["get"] = {
      {"operationId", "metrics"},
      {"summary", "Metrics for Prometheus."},
      {"responses", {{"200", answer("In Prometheus' text format.", content("text/plain", text()))}}}};
  paths["/openapi.json"]["get"] = {
      {"operationId", "openapi"},
      {"summary", "This document."},
      {"responses", {{"200", answer("OpenAPI 3.1.", content("application/json", {{"type", "object"}}))}}}};
}

json shared_schemas() {
  const json violation = {{"type", "object"}, {"properties", {{"pointer", text()}, {"detail", text()}}}};
  const json state = {{"enum", json::array({"running", "completed", "failed"})}};
  const json stage = {
      {"type", "object"},
      {"description", "Messages made for the stage so far, and what has become of them."},
      {"properties",
       {{"stage", text()}, {"expected", count()}, {"done", count()}, {"failed", count()}, {"waiting", count()}}},
      {"required", json::array({"stage", "expected", "done", "failed", "waiting"})}};
  const json failure = {{"type", "object"},
                        {"properties", {{"stage", text()}, {"message_id", text()}, {"reason", text()}, {"at", time()}}},
                        {"required", json::array({"stage", "message_id", "reason", "at"})}};
  return {
      {kProblem,
       {{"type", "object"},
        {"description", "RFC 9457 problem details."},
        {"properties",
         {{"type", text()},
          {"title", text()},
          {"status", {{"type", "integer"}}},
          {"detail", text()},
          {"errors", {{"type", "array"}, {"items", violation}}},
          {"state", state}}},
        {"required", json::array({"type", "title", "status", "detail"})}}},
      {kAccepted,
       {{"type", "object"},
        {"properties",
         {{"workflow_id", text()}, {"message_id", text()}, {"status", {{"const", "accepted"}}}, {"timestamp", time()}}},
        {"required", json::array({"message_id", "status", "timestamp"})}}},
      {kStatus,
       {{"type", "object"},
        {"properties",
         {{"workflow_id", text()},
          {"state", state},
          {"accepted_at", time()},
          {"updated_at", time()},
          {"stages", {{"type", "array"}, {"items", stage}}},
          {"failures", {{"type", "array"}, {"items", failure}}},
          {"result",
           {{"type", "object"},
            {"description", "The path of the finished object, by its name."},
            {"additionalProperties", text()}}}}},
        {"required", json::array({"workflow_id", "state", "accepted_at", "updated_at", "stages", "failures"})}}}};
}

json shared_parameters() {
  return {{"IdempotencyKey",
           parameter("Idempotency-Key", "header",
                     "1 to 255 visible characters. The same key and content give the same answer for 24 hours.")},
          {"WorkflowId", parameter("workflow_id", "path", "As the upload's answer gave it.")}};
}

json shared_responses() {
  const json stored = answer("Accepted: the object and the message are stored.",
                             content("application/json", ref("schemas", kAccepted)));
  json started = stored;
  started["headers"] = {{"Location", {{"description", "Where the workflow's state is."}, {"schema", text()}}}};
  const json retry = retry_after();
  json in_progress = problem("A request with this Idempotency-Key is being worked on.");
  in_progress["headers"] = retry;
  json unavailable = problem("This cannot be done now; try again later.");
  unavailable["headers"] = retry;
  return {{"Started", started},
          {"Stored", stored},
          {"Published", answer("Accepted: the message is stored in its stream.",
                               content("application/json", ref("schemas", kAccepted)))},
          {"Malformed", problem("The request is malformed.")},
          {"Unauthorized", problem("A token is missing, or it is not one of those that are accepted.")},
          {"TooSlow", problem("The body did not arrive in time.")},
          {"InProgress", in_progress},
          {"TooLarge", problem("The body is larger than allowed.")},
          {"WrongMediaType", problem("The media type or the content encoding is not accepted.")},
          {"Invalid", problem("A field is wrong, or the Idempotency-Key was used for another content.")},
          {"Failed", problem("The service failed; its log says why.")},
          {"Unavailable", unavailable}};
}

/// Shared parts that this API does not refer to, which the next may.
void leave_out_unused(json& document) {
  for (bool changed = true; changed;) {
    changed = false;
    const std::string text = document.dump();
    for (const std::string kind : {"schemas", "parameters", "responses"}) {
      json& parts = document["components"][kind];
      for (auto part = parts.begin(); part != parts.end();) {
        const std::string reference = '"' + ref(kind, part.key())["$ref"].get<std::string>() + '"';
        if (text.find(reference) == std::string::npos) {
          part = parts.erase(part);
          changed = true;
        } else {
          ++part;
        }
      }
    }
  }
}

}  // namespace

std::string openapi(const Pipeline& pipeline, const std::map<std::string, std::vector<ClientField>>& fields) {
  Schemas schemas{pipeline, shared_schemas()};
  // First, since what they share with events has to be whole there.
  schemas.of_entities = true;
  for (const std::string& name : pipeline.ingest->entities) {
    const std::string& record = std::ranges::find(pipeline.entities, name, &Entity::name)->record;
    add_record(pipeline.records.at(record), record, {}, schemas);
  }
  schemas.of_entities = false;
  json paths = json::object();
  for (const UploadSpec& upload : pipeline.ingest->uploads) {
    const auto& client_fields = fields.at(upload.name);
    for (const ClientField& field : client_fields) add_schemas(field.field->type, schemas);
    const bool has_workflow = !status_bucket(pipeline).empty();
    paths[upload.path]["post"] = upload_operation(upload, client_fields, has_workflow);
    if (!has_workflow) continue;
    paths[upload.path + "/{workflow_id}"]["get"] = status_operation(upload);
    if (upload.result) {
      paths[upload.path + "/{workflow_id}/" + upload.result->as]["get"] = result_operation(upload);
    }
  }
  for (const std::string& name : pipeline.ingest->events) {
    const Event& event = pipeline.events.at(name);
    add_record(pipeline.records.at(event.record), name, made_by_api(pipeline, event), schemas);
    paths["/events/" + name]["post"] = event_operation(name, event);
  }
  json parameters = shared_parameters();
  json responses = shared_responses();
  if (!pipeline.ingest->entities.empty()) add_entity_operations(schemas, paths, parameters, responses);
  add_admin_operations(paths);
  json document = {
      {"openapi", "3.1.0"},
      {"info", {{"title", pipeline.name}, {"version", "1"}}},
      {"servers", json::array({{{"url", "/"}}})},
      // Either: whether a token is asked for is a setting.
      {"security", json::array({json::object(), {{"token", json::array()}}})},
      {"paths", paths},
      {"components",
       {{"schemas", schemas.written},
        {"parameters", parameters},
        {"responses", responses},
        {"securitySchemes",
         {{"token",
           {{"type", "http"},
            {"scheme", "bearer"},
            {"description", "Where the service is set to accept those with one of its tokens only."}}}}}}}};
  leave_out_unused(document);
  return document.dump(2);
}

}  // namespace pipegen::gen
