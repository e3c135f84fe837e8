#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using json = nlohmann::ordered_json;

json number(const std::string& text) {
  const json parsed = json::parse(text, nullptr, false);
  return parsed.is_discarded() ? json(text) : parsed;
}

json schema_of(const Type& type);

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
  if (field.pattern) schema["pattern"] = "^(?:" + *field.pattern + ")$";
  if (!field.doc.empty() && !schema.contains("$ref")) schema["description"] = field.doc;
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

void add_schemas(const Pipeline& pipeline, const Type& type, json& schemas);

void add_record(const Pipeline& pipeline, const Record& record, const std::string& name, json& schemas) {
  if (schemas.contains(name)) return;
  schemas[name] = json::object();
  json schema = {{"type", "object"}};
  if (!record.doc.empty()) schema["description"] = record.doc;
  json properties = json::object();
  json required = json::array();
  for (const Field& field : record.fields) {
    properties[field.json_name] = schema_of(field);
    // What the publisher makes anew need not be sent.
    if (!field.optional && !field.default_value && field.fresh == FreshKind::kNone) required.push_back(field.json_name);
  }
  schema["properties"] = properties;
  if (!required.empty()) schema["required"] = required;
  schemas[name] = schema;
  for (const Field& field : record.fields) add_schemas(pipeline, field.type, schemas);
}

void add_schemas(const Pipeline& pipeline, const Type& type, json& schemas) {
  if (type.kind == TypeKind::kRecord) add_record(pipeline, pipeline.records.at(type.name), type.name, schemas);
  if (type.kind == TypeKind::kEnum)
    schemas[type.name] = {{"type", "string"}, {"enum", pipeline.enums.at(type.name).values}};
  for (const Type& element : type.element) add_schemas(pipeline, element, schemas);
}

json problem(const std::string& description) {
  return {{"description", description},
          {"content", {{"application/problem+json", {{"schema", {{"$ref", "#/components/schemas/Problem"}}}}}}}};
}

json accepted() {
  return {{"description", "Accepted: the message is stored in its stream."},
          {"headers", {{"Location", {{"schema", {{"type", "string"}}}}}}},
          {"content", {{"application/json", {{"schema", {{"$ref", "#/components/schemas/Accepted"}}}}}}}};
}

json parameter(const std::string& name, const std::string& in, bool required, const std::string& description) {
  return {{"name", name},
          {"in", in},
          {"required", required},
          {"description", description},
          {"schema", {{"type", "string"}}}};
}

}  // namespace

std::string openapi(const Pipeline& pipeline) {
  json schemas = {
      {"Problem",
       {{"type", "object"},
        {"description", "RFC 9457 problem details."},
        {"properties",
         {{"type", {{"type", "string"}}},
          {"title", {{"type", "string"}}},
          {"status", {{"type", "integer"}}},
          {"detail", {{"type", "string"}}},
          {"errors",
           {{"type", "array"},
            {"items",
             {{"type", "object"},
              {"properties", {{"pointer", {{"type", "string"}}}, {"detail", {{"type", "string"}}}}}}}}}}}}},
      {"Accepted",
       {{"type", "object"},
        {"properties",
         {{"workflow_id", {{"type", "string"}}},
          {"message_id", {{"type", "string"}}},
          {"status", {{"const", "accepted"}}},
          {"timestamp", {{"type", "string"}, {"format", "date-time"}}}}},
        {"required", {"message_id", "status", "timestamp"}}}},
  };
  json paths = json::object();
  for (const UploadSpec& upload : pipeline.ingest->uploads) {
    json content = json::object();
    for (const std::string& type : upload.media_types) content[type] = {{"schema", json::object()}};
    if (upload.media_types.empty()) content["application/octet-stream"] = {{"schema", json::object()}};
    content["multipart/form-data"] = {
        {"schema",
         {{"type", "object"},
          {"properties", {{"file", {{"type", "string"}, {"contentMediaType", "application/octet-stream"}}}}},
          {"required", {"file"}}}}};
    paths[upload.path]["post"] = {
        {"operationId", "upload_" + upload.name},
        {"summary", "Stores the body and starts a workflow."},
        {"parameters",
         {parameter("Idempotency-Key", "header", false, "The same key and content give the same workflow.")}},
        {"requestBody", {{"required", true}, {"content", content}}},
        {"responses",
         {{"202", accepted()},
          {"400", problem("The request is malformed.")},
          {"409", problem("A request with this Idempotency-Key is running.")},
          {"413", problem("The body is larger than allowed.")},
          {"415", problem("The media type is not accepted.")},
          {"422", problem("A field is wrong, or the Idempotency-Key was used for another content.")},
          {"503", problem("The message cannot be stored now; try again later.")}}}};
    const json id = parameter("workflow_id", "path", true, "As the upload's answer gave it.");
    paths[upload.path + "/{workflow_id}"]["get"] = {
        {"operationId", "status_" + upload.name},
        {"summary", "How far the workflow is."},
        {"parameters", {id}},
        {"responses",
         {{"200",
           {{"description", "The state of the workflow."},
            {"content", {{"application/json", {{"schema", {{"type", "object"}}}}}}}}},
          {"404", problem("No such workflow.")}}}};
    if (upload.result) {
      paths[upload.path + "/{workflow_id}/" + upload.result->as]["get"] = {
          {"operationId", "result_" + upload.name},
          {"summary", "The finished object; ranges are served."},
          {"parameters", {id}},
          {"responses",
           {{"200",
             {{"description", "The object."},
              {"content", {{upload.result->media_type, {{"schema", json::object()}}}}}}},
            {"206", {{"description", "A part of the object."}}},
            {"404", problem("No such workflow, or it is not finished.")},
            {"416", problem("The range cannot be served.")}}}};
    }
  }
  for (const std::string& name : pipeline.ingest->events) {
    const Event& event = pipeline.events.at(name);
    add_record(pipeline, pipeline.records.at(event.record), name, schemas);
    paths["/events/" + name]["post"] = {
        {"operationId", "publish_" + name},
        {"summary", event.doc.empty() ? "Publishes a " + name + "." : event.doc},
        {"requestBody",
         {{"required", true},
          {"content", {{"application/json", {{"schema", {{"$ref", "#/components/schemas/" + name}}}}}}}}},
        {"responses",
         {{"202", accepted()},
          {"400", problem("The body is not JSON.")},
          {"413", problem("The body is larger than allowed.")},
          {"415", problem("The media type is not application/json.")},
          {"422", problem("A field is wrong.")},
          {"503", problem("The message cannot be stored now; try again later.")}}}};
  }
  const json document = {{"openapi", "3.1.0"},
                         {"info", {{"title", pipeline.name}, {"version", "1"}}},
                         {"paths", paths},
                         {"components", {{"schemas", schemas}}}};
  return document.dump(2);
}

}  // namespace pipegen::gen
