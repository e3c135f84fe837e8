#include "programs/ingest/generic_api.hpp"

#include <algorithm>
#include <deque>
#include <set>
#include <string>

#include "pipegen/error.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"
#include "programs/ingest/any_json.hpp"

namespace pipegen::ingest {

namespace {

using namespace std::chrono_literals;

std::string in_case(std::string text, char first, char last, int shift) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [&](char c) { return c >= first && c <= last ? static_cast<char>(c + shift) : c; });
  return text;
}
std::string lower(const std::string& text) { return in_case(text, 'A', 'Z', 'a' - 'A'); }
std::string upper(const std::string& text) { return in_case(text, 'a', 'z', 'A' - 'a'); }

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= 100 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

std::string name_of(const Settings& settings, const std::string& key, const std::string& fallback) {
  std::string name = settings.text("ingest." + key, fallback);
  if (!is_name(name)) {
    throw ConfigError("the setting ingest." + key + " is \"" + name + "\": letters, digits, '-' and '_' only");
  }
  return name;
}

Retention retention_of(const Settings& settings) {
  const std::string text = settings.text("ingest.retention", "work-queue");
  if (text == "work-queue") return Retention::kWorkQueue;
  if (text == "limits") return Retention::kLimits;
  if (text == "interest") return Retention::kInterest;
  throw ConfigError("the setting ingest.retention is \"" + text + "\": give work-queue, limits or interest");
}

/// What the API holds by reference, for as long as the process runs.
struct Texts {
  std::deque<std::string> names;
  std::string openapi;
};
Texts& texts() {
  static Texts kept;
  return kept;
}
std::string_view keep(std::string text) { return texts().names.emplace_back(std::move(text)); }

/// What the operations refer to.
constexpr std::string_view kComponents = R"({
  "securitySchemes": {
    "token": {"type": "http", "scheme": "bearer", "description": "Where `tokens` or `tokens_file` is set."}
  },
  "parameters": {
    "Entity": {"name": "entity", "in": "query", "schema": {"type": "string"}, "description": "Which entity the body is."},
    "EntityType": {"name": "X-Entity-Type", "in": "header", "schema": {"type": "string"}, "description": "The same."},
    "IdempotencyKey": {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"},
      "description": "The same key and content give the same answer and one message."}
  },
  "schemas": {
    "Accepted": {"type": "object", "required": ["message_id", "status", "timestamp"], "properties": {
      "message_id": {"type": "string"}, "status": {"const": "accepted"},
      "timestamp": {"type": "string", "format": "date-time"}}},
    "Batch": {"type": "object", "required": ["accepted", "rejected", "errors"], "properties": {
      "accepted": {"type": "integer"}, "rejected": {"type": "integer"},
      "more_errors": {"type": "integer", "description": "That are not in the list."},
      "errors": {"type": "array", "items": {"type": "object", "properties": {
        "line": {"type": "integer"}, "detail": {"type": "string"}}}}}},
    "Status": {"type": "object", "required": ["message_id", "status", "attempts"], "properties": {
      "message_id": {"type": "string"}, "entity_type": {"type": "string"},
      "status": {"enum": ["accepted", "processing", "completed", "failed", "dead_lettered", "consumed"],
        "description": "`failed` is tried again; `consumed`: done with, and no row says how."},
      "attempts": {"type": "integer"}, "error": {"type": "string"},
      "received_at": {"type": "string", "format": "date-time"},
      "updated_at": {"type": "string", "format": "date-time"},
      "traceparent": {"type": "string", "description": "The trace that the message belongs to (W3C)."}}}
  }
})";

void write_reference(json::Writer& out, std::string_view to) {
  out.begin_object();
  out.field("$ref", "#/components/" + std::string(to));
  out.end_object();
}

/// `schema`: of what it holds; empty for the problem details of a refusal.
void write_answer(json::Writer& out, std::string_view status, std::string_view description,
                  std::string_view schema = {}) {
  out.key(status);
  out.begin_object();
  out.field("description", description);
  if (!schema.empty()) {
    out.key("content");
    out.begin_object();
    out.key("application/json");
    out.begin_object();
    out.key("schema");
    write_reference(out, schema);
    out.end_object();
    out.end_object();
  }
  out.end_object();
}

/// `named`: the path says which entity it is.
void write_operation(json::Writer& out, const std::string& path, std::string_view id, std::string_view summary,
                     std::string_view media_type, std::string_view answer, bool named) {
  out.key(path);
  out.begin_object();
  out.key("post");
  out.begin_object();
  out.field("operationId", id);
  out.field("summary", summary);
  out.key("parameters");
  out.begin_array();
  write_reference(out, "parameters/IdempotencyKey");
  if (!named) {
    write_reference(out, "parameters/Entity");
    write_reference(out, "parameters/EntityType");
  }
  out.end_array();
  out.key("requestBody");
  out.begin_object();
  out.field("required", true);
  out.key("content");
  out.begin_object();
  out.key(media_type);
  out.begin_object();
  out.key("schema");
  out.begin_object();
  out.end_object();
  out.end_object();
  out.end_object();
  out.end_object();
  out.key("responses");
  out.begin_object();
  write_answer(out, "202", "Stored in the stream.", answer);
  write_answer(out, "400", "Not JSON.");
  write_answer(out, "401", "No token, or one that is not known.");
  write_answer(out, "408", "The body did not come in time.");
  write_answer(out, "409", "A request with this Idempotency-Key is being worked on.");
  write_answer(out, "413", "Too large.");
  write_answer(out, "415", "Another media type.");
  write_answer(out, "422", "No such entity, or nothing of a batch was accepted.");
  write_answer(out, "429", "Too many connections.");
  write_answer(out, "500", "Something went wrong inside; the log says what.");
  write_answer(out, "503", "Try again after the time in Retry-After.");
  out.end_object();
  out.end_object();
  out.end_object();
}

std::string describe(const IngestApi& api) {
  json::Writer out;
  out.begin_object();
  out.field("openapi", "3.1.0");
  out.key("info");
  out.begin_object();
  out.field("title", api.pipeline + " ingestion API");
  out.field("version", "1");
  out.end_object();
  out.field("servers", Json{R"([{"url": "/"}])"});
  out.field("security", Json{R"([{}, {"token": []}])"});  // either: tokens are a setting
  out.key("paths");
  out.begin_object();
  for (const auto& entity : api.entities) {
    write_operation(out, "/ingest/" + std::string(entity.path), "ingest_" + std::string(entity.path),
                    "One message of " + std::string(entity.name) + ".", "application/json", "schemas/Accepted", true);
  }
  write_operation(out, "/ingest/message", "ingest_message",
                  "One message of the entity that ?entity= or X-Entity-Type names.", "application/json",
                  "schemas/Accepted", false);
  write_operation(out, "/ingest/batch", "ingest_batch", "Many messages of one entity, one per line or as an array.",
                  "application/x-ndjson", "schemas/Batch", false);
  out.key("/ingest/status/{id}");
  out.begin_object();
  out.key("get");
  out.begin_object();
  out.field("operationId", "message_status");
  out.field("summary", "What became of a message.");
  out.key("parameters");
  out.begin_array();
  out.begin_object();
  out.field("name", "id");
  out.field("in", "path");
  out.field("required", true);
  out.key("schema");
  out.begin_object();
  out.field("type", "string");
  out.end_object();
  out.end_object();
  out.end_array();
  out.key("responses");
  out.begin_object();
  write_answer(out, "200", "Its status.", "schemas/Status");
  write_answer(out, "401", "No token, or one that is not known.");
  write_answer(out, "404", "No message of this id is known.");
  write_answer(out, "500", "Something went wrong inside; the log says what.");
  write_answer(out, "503", "Who knows is away; try again after the time in Retry-After.");
  out.end_object();
  out.end_object();
  out.end_object();
  out.end_object();
  out.field("components", Json{std::string(kComponents)});
  out.end_object();
  return out.take();
}

std::function<FindMessage(const Settings&)> status_of(const Settings& settings) {
  const auto url = settings.find("database.url");
  if (!url) return nullptr;
  if (url->starts_with("sqlite:")) return sql::find_message_in_sqlite;
  return sql::find_message_in_postgresql;
}

}  // namespace

IngestApi generic_api(const Settings& settings) {
  for (const auto& where :
       settings.unknown("ingest", {"pipeline", "entities", "subject", "stream", "retention", "max_age", "max_bytes",
                                   "duplicate_window", "replicas", "keys", "keys_max_age", "max_depth"})) {
    Logger().warning("a setting has no meaning; is it misspelt?", {{"setting", where}});
  }
  IngestApi api;
  api.section = "ingest_api";
  api.pipeline = name_of(settings, "pipeline", "pipegen");
  api.entity_stream = name_of(settings, "stream", upper(api.pipeline) + "_INGEST");
  api.idempotency_bucket = name_of(settings, "keys", upper(api.pipeline) + "_INGEST_KEYS");
  const std::string subject = settings.text("ingest.subject", lower(api.pipeline) + ".ingest.{entity}");
  const std::size_t place = subject.find("{entity}");
  const auto max_depth = static_cast<std::size_t>(settings.integer("ingest.max_depth", 100, 1, 1'000'000));
  const std::vector<std::string> entities = settings.list("ingest.entities", {});
  if (entities.empty()) {
    throw ConfigError("the setting ingest.entities is missing: name what is taken in, as in entities = [\"Order\"]");
  }
  std::set<std::string> paths;
  StreamSpec stream{.name = api.entity_stream,
                    .retention = retention_of(settings),
                    .max_age = settings.duration("ingest.max_age", 24h),
                    .max_bytes = settings.size("ingest.max_bytes", std::int64_t{1} << 30),
                    .duplicate_window = settings.duration("ingest.duplicate_window", 2min),
                    .replicas = static_cast<int>(settings.integer("ingest.replicas", 1, 1, 5))};
  for (const auto& name : entities) {
    const std::string path = lower(name);
    if (!is_name(name)) {
      throw ConfigError("the setting ingest.entities has \"" + name + "\": letters, digits, '-' and '_' only");
    }
    if (path == "message" || path == "batch" || path == "status") {
      throw ConfigError("the setting ingest.entities has \"" + name + "\", whose path /ingest/" + path +
                        " means something else: give it another name");
    }
    if (!paths.insert(path).second) {
      throw ConfigError("the setting ingest.entities has \"" + name + "\" twice: case does not count");
    }
    if (place == std::string::npos && entities.size() > 1) {
      throw ConfigError("the setting ingest.subject must hold {entity}, because there are several entities");
    }
    std::string own = subject;
    if (place != std::string::npos) own.replace(place, 8, path);
    if (own.find_first_of(" \t\r\n*>{}") != std::string::npos || own.empty()) {
      throw ConfigError("the setting ingest.subject gives \"" + own + "\", which is no subject to publish to");
    }
    stream.subjects.push_back(own);
    api.add_entity(
        {.name = keep(name), .path = keep(path), .subject = own, .check = [max_depth](std::string_view body) {
           check_any_json(body, max_depth);
         }});
  }
  api.topology.add_stream(std::move(stream));
  api.topology.add_key_value({.schema_name = api.idempotency_bucket,
                              .name = api.idempotency_bucket,
                              .max_age = settings.duration("ingest.keys_max_age", 24h)});
  api.open_status = status_of(settings);
  texts().openapi = describe(api);
  api.openapi = texts().openapi;
  return api;
}

}  // namespace pipegen::ingest
