#include "http/ingest_server.hpp"

#include <algorithm>
#include <charconv>

#include "core/json_text.hpp"
#include "core/sha256.hpp"
#include "http/admin_routes.hpp"
#include "http/bearer.hpp"
#include "http/entity_routes.hpp"
#include "http/head.hpp"
#include "http/idempotency.hpp"
#include "http/ingest_context.hpp"
#include "http/ingest_page.hpp"
#include "http/multipart.hpp"
#include "http/request_text.hpp"
#include "http/server.hpp"
#include "http/status.hpp"
#include "pipegen/json.hpp"
#include "pipegen/key_value.hpp"
#include "pipegen/log.hpp"
#include "pipegen/object_store.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxFields = 1u << 20;  // octets of all fields of a form
constexpr std::size_t kMaxWorkflowId = 512;

Problem invalid(const std::string& pointer, const std::string& detail) {
  return Problem(422, detail).with("errors", violations_json({{pointer, detail}}));
}

/// The fields that a client gives with an upload.
class Fields {
 public:
  explicit Fields(const std::vector<UploadField>& known) : known_(known) {}

  void check_name(const std::string& name) const { find(name); }
  bool has(const std::string& name) const {
    return std::any_of(known_.begin(), known_.end(), [&name](const UploadField& field) { return field.name == name; });
  }

  void add(const std::string& name, const std::string& text) {
    const UploadField& field = find(name);
    if (!json::is_utf8(text)) throw invalid(pointer(name), "the field " + name + " is not UTF-8");
    std::string json;
    if (field.kind == UploadField::Kind::kJson) {
      try {
        json = json::parse(text, [](json::Reader& in) { return in.json(); }).text;
      } catch (const json::Invalid&) {
        throw invalid(pointer(name), "the field " + name + " is not JSON");
      }
    } else {
      json = json::to_json(text);
    }
    Node* at = &root_;
    for (std::size_t start = 0;;) {
      const std::size_t dot = std::min(name.find('.', start), name.size());
      if (at->json) throw clash(name);
      at = &at->members[name.substr(start, dot - start)];
      if (dot == name.size()) break;
      start = dot + 1;
    }
    if (at->json) throw invalid(pointer(name), "the field " + name + " is there more than once");
    if (!at->members.empty()) throw clash(name);
    at->json = std::move(json);
  }

  /// As a JSON object, in order of name: the same fields give the same text.
  std::string json() const {
    json::Writer out;
    write_node(out, root_);
    return out.take();
  }

 private:
  struct Node {
    std::optional<std::string> json;
    std::map<std::string, Node> members;
  };

  const UploadField& find(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& field : known_) {
      if (field.name == name) return field;
      names.emplace_back(field.name);
    }
    throw invalid(pointer(name),
                  "there is no field " + name +
                      (names.empty() ? "; this upload takes none" : "; this upload takes " + joined(names)));
  }
  static std::string pointer(std::string name) {
    std::replace(name.begin(), name.end(), '.', '/');
    return "/" + name;
  }
  static Problem clash(const std::string& name) {
    return invalid(pointer(name), "the field " + name + " is given both as a whole and in parts");
  }
  static void write_node(json::Writer& out, const Node& node) {
    if (node.json) return out.value(Json{*node.json});
    out.begin_object();
    for (const auto& [name, member] : node.members) {
      out.key(name);
      write_node(out, member);
    }
    out.end_object();
  }

  const std::vector<UploadField>& known_;
  Node root_;
};

/// Collects what the generated code publishes; flush() sends it and waits for the acks.
class IngestOutbox final : public Outbox {
 public:
  /// Message ids are derived from `base`.
  IngestOutbox(const Settings& settings, std::string base) : settings_(settings), base_(std::move(base)) {}

  const Settings& settings() const override { return settings_; }
  Fresh fresh() override { return Fresh(message_id(events_.size())); }
  void publish(Outgoing event) override { events_.push_back(std::move(event)); }

  void flush(nats::Connection& connection, const Request& request, std::string_view workflow_id,
             nats::SentCounters& sent) {
    const auto room = static_cast<std::size_t>(std::max<std::int64_t>(0, connection.max_payload() - kHeaderRoom));
    for (const auto& event : events_) {
      if (event.payload.size() > room) {
        throw Problem(413,
                      "the event is larger than the " + std::to_string(room) + " octets that the message server takes");
      }
    }
    for (std::size_t i = 0; i < events_.size(); ++i) {
      const std::string id = message_id(i);
      trace::Span span = IngestContext::begin_send(request, events_[i].subject, id, events_[i].payload.size());
      if (!workflow_id.empty()) span.set("messaging.message.conversation_id", workflow_id);
      try {
        IngestContext::send_in(std::move(span), [&](const TraceContext& trace) {
          nats::Headers headers;
          trace::add_to(headers, trace);
          if (!workflow_id.empty()) headers["Pipegen-Workflow-Id"] = workflow_id;
          connection.publish(events_[i].subject, events_[i].payload, id, headers);
        });
      } catch (const nats::Unconfirmed&) {
        may_be_stored_ = true;
        throw;
      }
      may_be_stored_ = true;
      sent.count(events_[i].subject, events_[i].payload.size());
    }
  }

  /// Whether flush(), when it threw, may have stored something all the same.
  bool may_be_stored() const { return may_be_stored_; }
  std::string first_message_id() const { return message_id(0); }
  std::map<std::string, std::int64_t> produced() const {
    std::map<std::string, std::int64_t> counts;
    for (const auto& event : events_) ++counts[std::string(event.event)];
    return counts;
  }

 private:
  std::string message_id(std::size_t index) const {
    return Uuid::derived(base_ + ":" + std::string(kIngestStage) + ":" + std::to_string(index)).to_string();
  }

  const Settings& settings_;
  std::string base_;
  std::vector<Outgoing> events_;
  bool may_be_stored_ = false;
};

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

/// A single range of RFC 9110, 14.2; nothing when the header is to be ignored (not a range of octets, or several).
/// Throws Problem 416 for one that lies outside.
std::optional<ByteRange> parse_range(std::string_view header, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  if (!same_word(header.substr(0, kUnit.size()), kUnit) || header.find(',') != std::string_view::npos) {
    return std::nullopt;
  }
  header.remove_prefix(kUnit.size());
  const std::size_t dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto number = [](std::string_view text) -> std::optional<std::uint64_t> {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end != text.data() + text.size()) return std::nullopt;
    if (error == std::errc::result_out_of_range) return UINT64_MAX;  // beyond any object, but a number
    if (error != std::errc()) return std::nullopt;
    return value;
  };
  const std::string_view first_text = header.substr(0, dash);
  const std::string_view last_text = header.substr(dash + 1);
  const auto first = number(first_text);
  const auto last = number(last_text);
  const auto impossible = [size] {
    return Problem(416, "the object has " + std::to_string(size) + " octets",
                   {{"Content-Range", "bytes */" + std::to_string(size)}});
  };
  if (first_text.empty()) {  // the last n octets
    if (!last) return std::nullopt;
    if (*last == 0 || size == 0) throw impossible();
    const std::uint64_t length = std::min(*last, size);
    return ByteRange{size - length, length};
  }
  if (!first || (!last && !last_text.empty()) || (last && *last < *first)) return std::nullopt;
  if (*first >= size) throw impossible();
  return ByteRange{*first, std::min(last.value_or(size - 1), size - 1) - *first + 1};
}

const char* word_of(WorkflowStatus::State state) {
  switch (state) {
    case WorkflowStatus::State::kCompleted:
      return "completed";
    case WorkflowStatus::State::kFailed:
      return "failed";
    case WorkflowStatus::State::kRunning:
      break;
  }
  return "running";
}

}  // namespace

struct IngestServer::Impl {
  Impl(IngestApi given, const Settings& used, Metrics& metrics, const AnyClock& clock)
      : context(std::move(given), used, clock),
        api(context.api),
        settings(context.settings),
        upload_timeout(context.upload_timeout),
        tokens(settings, api.section),
        sent(metrics, context.stage_label()),
        entities(context, metrics),
        server(server_options(context, metrics)) {
    if (!api.entities.empty()) {
      server.route("GET", "/", [page = ingest_page(api, tokens.needed())](Request&) { return page; });
    }
    entities.add_to([this](std::string method, std::string pattern, Handler handler) {
      add(std::move(method), std::move(pattern), std::move(handler));
    });
    add_admin_routes(server, metrics, [this] { return context.readiness(); });
    server.route("GET", "/openapi.json", [this](Request&) { return Response::json(200, std::string(api.openapi)); });
    for (const Upload& upload : api.uploads) {
      add("POST", upload.path, [this, &upload](Request& request) { return post_upload(request, upload); });
      // Without workflows there is nothing to ask for.
      if (api.status_bucket.empty()) continue;
      add("GET", upload.path + "/{workflow_id}",
          [this, &upload](Request& request) { return get_status(request, upload); });
      if (!upload.result) continue;
      add("GET", upload.path + "/{workflow_id}/" + upload.result->as,
          [this, &upload](Request& request) { return get_result(request, upload); });
    }
    for (const EventRoute& event : api.events) {
      add("POST", "/events/" + event.event, [this, &event](Request& request) { return post_event(request, event); });
    }
  }

  static ServerOptions server_options(const IngestContext& context, Metrics& metrics) {
    const std::string& section = context.api.section;
    const Settings& settings = context.settings;
    for (const auto& where :
         settings.unknown(section, {"host", "port", "threads", "connections", "connections_per_address", "queue",
                                    "upload_timeout", "grace_period", "tokens", "tokens_file"})) {
      Logger().warning("a setting has no meaning; is it misspelt?", {{"setting", where}});
    }
    return {
        .host = settings.text(section + ".host", "127.0.0.1"),
        .port = static_cast<int>(settings.integer(section + ".port", context.api.port, 0, 65'535)),
        .threads = static_cast<int>(settings.integer(section + ".threads", 64, 2, 512)),
        .connections = static_cast<int>(settings.integer(section + ".connections", 800, 1, 1000)),
        .connections_per_address = static_cast<int>(settings.integer(section + ".connections_per_address", 0, 0, 1000)),
        .queue = static_cast<int>(settings.integer(section + ".queue", 1000, 1, 1000)),
        .metrics = &metrics,
        .traces = true};
  }

  /// A route for those who have a token, if tokens are set.
  void add(std::string method, std::string pattern, Handler handler) {
    if (!tokens.needed()) return server.route(std::move(method), std::move(pattern), std::move(handler));
    server.route(std::move(method), std::move(pattern), [this, handler = std::move(handler)](Request& request) {
      tokens.check(request);
      return handler(request);
    });
  }

  // --- what the requests need ----------------------------------------------------------------------------------------

  ObjectStore objects(const std::string& bucket) const {
    return ObjectStore(context.connection(), IngestContext::name_of(api.topology.object_buckets, bucket));
  }
  KeyValue status_store() const {
    return KeyValue(context.connection(), IngestContext::name_of(api.topology.key_values, api.status_bucket));
  }

  void note_accepted(const std::string& workflow_id, const IngestOutbox& outbox) {
    if (workflow_id.empty() || api.status_bucket.empty()) return;
    const std::string key = status_key(workflow_id, kIngestStage, outbox.first_message_id());
    const std::string value = status_value({.stage = {},
                                            .state = "done",
                                            .at = now(),
                                            .event = {},
                                            .produced = outbox.produced(),
                                            .reason = {},
                                            .result_event = {},
                                            .result_payload = {}});
    context.now_or_later([this, key, value] {
      nats::Connection& nats = *context.attached;
      KeyValue(nats, IngestContext::name_of(api.topology.key_values, api.status_bucket)).put(key, value);
    });
  }

  /// Whether the event of a request that died was published and noted.
  bool is_noted(const std::string& workflow_id, const IngestOutbox& outbox) const {
    if (workflow_id.empty() || api.status_bucket.empty()) return false;
    return status_store().get(status_key(workflow_id, kIngestStage, outbox.first_message_id())).has_value();
  }

  /// Whether a request that died had come to its end.
  std::optional<Accepted> accepted_before(const std::string& path, const std::string& workflow_id) const {
    if (api.status_bucket.empty()) return std::nullopt;
    KeyValue store = status_store();
    if (store.count(KeyValue::key_token(workflow_id) + "." + KeyValue::key_token(kIngestStage) + ".*") == 0) {
      return std::nullopt;
    }
    return accepted(workflow_id, IngestOutbox(settings, workflow_id).first_message_id(), path + "/" + workflow_id);
  }

  // --- POST <upload> -------------------------------------------------------------------------------------------------

  static void check_media_type(const Upload& upload, const std::string& media_type) {
    if (upload.media_types.empty()) return;
    for (const auto& known : upload.media_types) {
      if (media_type_of(known) == media_type) return;
    }
    throw Problem(415, (media_type.empty() ? "the document has no Content-Type"
                                           : "documents of type " + media_type + " are not taken") +
                           std::string("; send ") + joined(upload.media_types) +
                           " as the body, or as a file of a multipart/form-data form");
  }

  /// Gives the document to `sink`, and what else a form holds to `fields`.
  void receive(Request& request, const Upload& upload, Fields& fields,
               const std::function<void(BytesView)>& sink) const {
    const std::string content_type = request.header("Content-Type").value_or("");
    const std::uint64_t max_size = upload.max_size > 0 ? static_cast<std::uint64_t>(upload.max_size) : UINT64_MAX / 2;
    std::uint64_t size = 0;
    const auto document = [&](BytesView part) {
      size += part.size();
      if (size > max_size) {
        throw Problem(413, "the document is larger than the " + std::to_string(max_size) + " octets that are allowed");
      }
      if (!part.empty()) sink(part);
    };
    if (media_type_of(content_type) != "multipart/form-data") {
      request.read_body(max_size, upload_timeout, document);
    } else {
      bool in_document = false;
      bool had_document = false;
      std::string name, value;
      std::size_t fields_size = 0;
      MultipartReader form(header_parameter(content_type, "boundary").value_or(""),
                           {.begin =
                                [&](const PartHead& part) {
                                  // A browser gives a field that is a Blob a file name too.
                                  in_document = !fields.has(part.name) &&
                                                (part.filename || part.name == "file" || part.name == "document");
                                  if (in_document && had_document)
                                    throw Problem(422, "the form holds more than one document");
                                  if (in_document) {
                                    had_document = true;
                                    check_media_type(upload, media_type_of(part.content_type));
                                  } else {
                                    fields.check_name(part.name);
                                    name = part.name;
                                    value.clear();
                                  }
                                },
                            .data =
                                [&](std::string_view part) {
                                  if (in_document) return document(bytes_of(part));
                                  fields_size += part.size();
                                  if (fields_size > kMaxFields)
                                    throw Problem(413, "the fields of the form are larger than 1 MiB");
                                  value.append(part);
                                },
                            .end =
                                [&] {
                                  if (!in_document) fields.add(name, value);
                                }});
      request.read_body(max_size + 2 * kMaxFields, upload_timeout,
                        [&](BytesView part) { form.feed(pipegen::text_of(part)); });
      form.finish();
      if (!had_document) {
        throw Problem(422, "the form holds no document: send it as a part with a file name, or one named \"file\"");
      }
    }
    if (size == 0) throw Problem(422, "the document is empty");
  }

  Response post_upload(Request& request, const Upload& upload) {
    nats::Connection& nats = context.connection();
    IngestContext::log_trace(request);
    const auto key = IngestContext::idempotency_key(request);
    const std::string media_type = media_type_of(request.header("Content-Type").value_or(""));
    const bool is_form = media_type == "multipart/form-data";
    if (!is_form) check_media_type(upload, media_type);
    Fields fields(upload.fields);
    for (const auto& [name, value] : request.query) fields.add(name, value);

    const auto accept = [&](Attempt& attempt) {
      const std::string& workflow_id = attempt.id;
      IngestOutbox outbox(settings, workflow_id);
      request.log = request.log.with({{"workflow_id", workflow_id}, {"message_id", outbox.first_message_id()}});
      if (!is_form && upload.check) upload.check(fields.json(), workflow_id);
      const std::string object_key =
          upload.object_extension.empty() ? workflow_id : workflow_id + "." + upload.object_extension;
      ObjectStore store = objects(upload.bucket);
      Sha256 sum;
      ObjectWriter object = store.create(object_key);
      receive(request, upload, fields, [&](BytesView part) {
        sum.update(part);
        object.write(part);
      });
      const std::string given = fields.json();
      sum.update(bytes_of(given));
      if (is_form && upload.check) upload.check(given, workflow_id);
      attempt.commit(base64url(sum.finish()));
      const ObjectInfo stored = object.finish();
      try {
        upload.publish(given, workflow_id, object_key, outbox);
        outbox.flush(nats, request, workflow_id, sent);
      } catch (...) {
        attempt.may_be_stored = attempt.may_be_stored || outbox.may_be_stored();
        // An event that may be stored must find its object.
        if (!attempt.may_be_stored) remove_later_if_away(store, object_key, key.has_value());
        throw;
      }
      note_accepted(workflow_id, outbox);
      request.log.info("accepted", {{"event", upload.event}, {"bytes", stored.size}});
      if (api.status_bucket.empty()) return accepted("", outbox.first_message_id(), "");
      return accepted(workflow_id, outbox.first_message_id(), upload.path + "/" + workflow_id);
    };
    const auto digest = [&] {
      Sha256 sum;
      receive(request, upload, fields, [&](BytesView part) { sum.update(part); });
      sum.update(bytes_of(fields.json()));
      return base64url(sum.finish());
    };
    return context.once(request, key,
                        {.accept = accept, .digest = digest, .accepted_before = [&](const std::string& id) {
                           return accepted_before(upload.path, id);
                         }});
  }

  void remove_later_if_away(ObjectStore store, const std::string& object_key, bool repeatable) {
    auto remove = [store, object_key]() mutable { store.remove(object_key); };
    try {
      remove();
    } catch (const Unavailable&) {
      // With an Idempotency-Key the client will store the same object again, and that one must stay.
      if (!repeatable) context.later.add(remove);
    } catch (const std::exception& error) {
      log.warning("the object of a failed upload could not be removed",
                  {{"object", object_key}, {"error", error.what()}});
    }
  }

  // --- GET <upload>/{workflow_id} ------------------------------------------------------------------------------------

  WorkflowStatus status_of(const std::string& workflow_id, const Upload& upload) const {
    const Problem unknown(404, "there is no workflow of this id here");
    if (workflow_id.size() > kMaxWorkflowId) throw unknown;
    KeyValue store = status_store();
    std::vector<StatusEntry> entries = read_status(store, workflow_id);
    // The entry of the API itself says which upload began the workflow.
    const bool elsewhere = std::any_of(entries.begin(), entries.end(), [&upload](const StatusEntry& entry) {
      return entry.stage == kIngestStage && !entry.produced.contains(upload.event);
    });
    if (entries.empty() || elsewhere) throw unknown;
    std::optional<std::string_view> result_event;
    if (upload.result) result_event = upload.result->event;
    return summarize(std::move(entries), api.stages, result_event);
  }

  Response get_status(Request& request, const Upload& upload) const {
    const std::string& workflow_id = request.parameters.at("workflow_id");
    request.log = request.log.with({{"workflow_id", workflow_id}});
    const WorkflowStatus status = status_of(workflow_id, upload);
    json::Writer out;
    out.begin_object();
    out.field("workflow_id", workflow_id);
    out.field("state", word_of(status.state));
    out.field("accepted_at", status.accepted_at);
    out.field("updated_at", status.updated_at);
    out.key("stages");
    out.begin_array();
    for (const auto& stage : status.stages) {
      out.begin_object();
      out.field("stage", stage.stage);
      out.field("expected", stage.expected);
      out.field("done", stage.done);
      out.field("failed", stage.failed);
      out.field("waiting", stage.waiting);
      out.end_object();
    }
    out.end_array();
    out.key("failures");
    out.begin_array();
    for (const auto& failure : status.failures) {
      out.begin_object();
      out.field("stage", failure.stage);
      out.field("message_id", failure.message_id);
      out.field("reason", failure.reason);
      out.field("at", failure.at);
      out.end_object();
    }
    out.end_array();
    if (status.result && upload.result) {
      out.key("result");
      out.begin_object();
      out.field(upload.result->as, upload.path + "/" + workflow_id + "/" + upload.result->as);
      out.end_object();
    }
    out.end_object();
    return Response::json(200, out.take());
  }

  // --- GET <upload>/{workflow_id}/<as> -------------------------------------------------------------------------------

  Response get_result(Request& request, const Upload& upload) const {
    const UploadResult& result = *upload.result;
    const std::string& workflow_id = request.parameters.at("workflow_id");
    request.log = request.log.with({{"workflow_id", workflow_id}});
    const WorkflowStatus status = status_of(workflow_id, upload);
    if (!status.result) {
      const bool failed = status.state == WorkflowStatus::State::kFailed;
      const std::string detail =
          failed ? "the workflow failed in " + status.failures.front().stage + ": " + status.failures.front().reason
                 : "the workflow is not finished yet";
      throw Problem(404, detail).with("state", json::to_json(std::string(word_of(status.state))));
    }
    const std::string object_key = result.object_key(status.result->result_payload);
    ObjectStore store = objects(result.bucket);
    const auto info = store.info(object_key);
    if (!info) throw Problem(404, "the result is no longer there");

    const std::string etag = "\"" + info->digest + "\"";
    Response response{.content_type = result.media_type};
    response.headers = {{"Accept-Ranges", "bytes"}, {"ETag", etag}};
    ByteRange range{0, info->size};
    // RFC 9110, 14.2: a range has no meaning with HEAD.
    const auto wanted = request.method == "GET" ? request.header("Range") : std::nullopt;
    const auto same = request.header("If-Range");
    if (wanted && (!same || *same == etag)) {
      if (const auto part = parse_range(*wanted, info->size)) {
        range = *part;
        response.status = 206;
        response.headers.emplace_back("Content-Range", "bytes " + std::to_string(range.offset) + "-" +
                                                           std::to_string(range.offset + range.length - 1) + "/" +
                                                           std::to_string(info->size));
      }
    }
    response.length = range.length;
    response.stream = [store, object = *info, range](const std::function<bool(BytesView)>& send) mutable {
      store.get_range(object, range.offset, range.length, send);
    };
    return response;
  }

  // --- POST /events/<Event> ------------------------------------------------------------------------------------------

  Response post_event(Request& request, const EventRoute& event) {
    nats::Connection& nats = context.connection();
    if (media_type_of(request.header("Content-Type").value_or("")) != "application/json") {
      throw Problem(415, "send the event as application/json");
    }
    IngestContext::log_trace(request);
    const auto key = IngestContext::idempotency_key(request);
    const auto max_body =
        static_cast<std::uint64_t>(std::clamp<std::int64_t>(nats.max_payload() - kHeaderRoom, 1, kMaxEventBody));
    const auto digest_of = [](const std::string& body) { return base64url(Sha256::of(bytes_of(body))); };
    const auto accept = [&](Attempt& attempt) {
      const std::string body = request.read_text(max_body);
      check_json(body);
      IngestOutbox outbox(settings, attempt.id);
      const std::string workflow_id = event.publish(body, outbox);
      request.log = request.log.with({{"workflow_id", workflow_id}, {"message_id", outbox.first_message_id()}});
      if (workflow_id.size() > kMaxWorkflowId) {
        throw Problem(422, "the workflow id is longer than " + std::to_string(kMaxWorkflowId) + " octets");
      }
      attempt.commit(digest_of(body));
      // Long after, the stream has forgotten the id.
      const bool published = attempt.may_be_stored && is_noted(workflow_id, outbox);
      try {
        if (!published) outbox.flush(nats, request, workflow_id, sent);
      } catch (...) {
        attempt.may_be_stored = attempt.may_be_stored || outbox.may_be_stored();
        throw;
      }
      if (!published) note_accepted(workflow_id, outbox);
      request.log.debug("accepted", {{"event", event.event}});
      return accepted(workflow_id, outbox.first_message_id(), "");
    };
    return context.once(request, key,
                        {.accept = accept,
                         .digest = [&] { return digest_of(request.read_text(max_body)); },
                         .patience = kPatience,
                         .takeover = kTakeover});
  }

  IngestContext context;
  const IngestApi& api;
  const Settings& settings;
  const std::chrono::milliseconds upload_timeout;
  const BearerTokens tokens;
  nats::SentCounters sent;
  EntityRoutes entities;
  HttpServer server;
  Logger log;
};

IngestServer::IngestServer(IngestApi api, const Settings& settings, Metrics& metrics, const AnyClock& clock)
    : impl_(std::make_unique<Impl>(std::move(api), settings, metrics, clock)) {}

IngestServer::~IngestServer() { stop(std::chrono::milliseconds(0)); }

void IngestServer::start() {
  impl_->context.later.start([impl = impl_.get()] { return impl->context.readiness().ready; });
  impl_->server.start();
}

int IngestServer::port() const noexcept { return impl_->server.port(); }

void IngestServer::attach(nats::Connection& connection) { impl_->context.attached = &connection; }

int IngestServer::stop(std::chrono::milliseconds grace) {
  const int cut = impl_->server.stop(grace);
  impl_->context.later.stop();
  return cut;
}

}  // namespace pipegen::http
