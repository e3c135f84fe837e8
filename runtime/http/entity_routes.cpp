#include "http/entity_routes.hpp"

#include <algorithm>
#include <mutex>
#include <span>

#include "core/json_text.hpp"
#include "core/sha256.hpp"
#include "http/entity_batch.hpp"
#include "http/head.hpp"
#include "http/request_text.hpp"
#include "nats/find_message.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxMessageId = 256;
constexpr std::size_t kMaxErrors = 1'000;  // that the answer to a batch lists
// Octets of all of them. Twice as much has to fit a message of 1 MiB, where repetitions find the answer.
constexpr std::size_t kMaxErrorsSize = 256 * 1024;
constexpr std::size_t kMaxErrorSize = 16 * 1024;
constexpr std::size_t kMaxViolations = 100;  // of one line
// Of a batch, which says every so often that it is worked on still. A client that stalls, or a stream that gives no
// acks, keeps it from that for no longer than this takeover leaves it.
constexpr auto kBatchKeep = 10s;
constexpr auto kBatchTakeover = 60s;
constexpr std::uint64_t kAnySize = UINT64_MAX / 2;  // of a batch: it is never in memory as a whole

/// Of a version 7 UUID.
std::optional<Timestamp> made_at(std::string_view id) {
  const auto uuid = Uuid::parse(id);
  if (!uuid || uuid->octets[6] >> 4 != 7) return std::nullopt;
  std::int64_t millis = 0;
  for (std::size_t i = 0; i < 6; ++i) millis = millis << 8 | uuid->octets[i];
  return Timestamp(std::chrono::milliseconds(millis));
}

/// The id of one message of a batch: the same whenever it is sent again, in its place, with the same Idempotency-Key.
/// (A batch that broke midway may be followed by other lines under its key: in no way are they those of before.) It has
/// the time of `base`, a version 7 UUID, and is one.
std::string line_id(const Uuid& base, std::int64_t number, std::string_view subject, std::string_view text) {
  Sha256 sum;
  sum.update(std::as_bytes(std::span(base.octets)));
  sum.update(bytes_of(std::to_string(number) + " " + std::string(subject) + " "));
  sum.update(bytes_of(text));
  const auto digest = sum.finish();
  Uuid id = base;
  for (std::size_t i = 6; i < 16; ++i) id.octets[i] = std::to_integer<std::uint8_t>(digest[i]);
  id.octets[6] = static_cast<std::uint8_t>((id.octets[6] & 0x0f) | 0x70);
  id.octets[8] = static_cast<std::uint8_t>((id.octets[8] & 0x3f) | 0x80);
  return id.to_string();
}

nats::Headers headers_of(const TraceContext& trace) {
  nats::Headers headers{{"Pipegen-Received-At", to_string(now())}, {"Pipegen-Source", "http"}};
  trace::add_to(headers, trace);
  return headers;
}

Problem stream_full() {
  return Problem(503, "there is no room for more messages until some of these are worked on; try again later",
                 {{"Retry-After", "10"}});
}

/// For the log lines about a request; only when there are any.
template <typename Function>
auto with_trace(Request& request, Function function) {
  try {
    return function();
  } catch (...) {
    IngestContext::log_trace(request);
    throw;
  }
}

}  // namespace

EntityRoutes::EntityRoutes(IngestContext& context, Metrics& metrics)
    : context_(context), sent_(metrics, context.stage_label()) {
  for (const EntityIngest& entity : context.api.entities) {
    const auto counter = [&](const char* outcome) {
      return &metrics.counter("pipegen_ingested_messages_total", "Messages that clients sent, by what became of them.",
                              {{"entity", std::string(entity.name)}, {"outcome", outcome}});
    };
    entities_.push_back({&entity, counter("accepted"), counter("rejected")});
  }
  if (context.api.open_status) find_row_ = context.api.open_status(context.settings);
}

void EntityRoutes::add_to(const Add& add) {
  if (entities_.empty()) return;
  // The routes that are not of one entity first: they win over an entity of that name.
  add("POST", "/ingest/message", [this](Request& request) { return post_entity(request, named(request)); });
  add("POST", "/ingest/batch", [this](Request& request) { return post_batch(request); });
  add("GET", "/ingest/status/{id}", [this](Request& request) { return get_status(request); });
  for (const Entity& entity : entities_) {
    add("POST", "/ingest/" + std::string(entity.api->path),
        [this, &entity](Request& request) { return post_entity(request, &entity); });
  }
  add("POST", "/ingest/{entity}", [this](Request& request) {
    const Entity* entity = find(request.parameters.at("entity"));
    if (entity == nullptr) {
      throw Problem(404, "there is no entity " + request.parameters.at("entity") + "; there are " + names());
    }
    return post_entity(request, entity);
  });
}

const EntityRoutes::Entity* EntityRoutes::find(std::string_view name) const {
  const auto found = std::find_if(entities_.begin(), entities_.end(), [name](const Entity& entity) {
    return same_word(entity.api->name, name) || same_word(entity.api->path, name);
  });
  return found == entities_.end() ? nullptr : &*found;
}

const EntityRoutes::Entity* EntityRoutes::named(const Request& request) const {
  std::optional<std::string> name;
  for (const auto& [key, value] : request.query) {
    if (key == "entity") name = value;
  }
  if (!name) name = request.header("X-Entity-Type");
  if (!name) return entities_.size() == 1 ? &entities_.front() : nullptr;
  const Entity* entity = find(*name);
  if (entity == nullptr) throw Problem(422, "there is no entity " + *name + "; there are " + names());
  return entity;
}

std::string EntityRoutes::names() const {
  std::vector<std::string> all;
  for (const Entity& entity : entities_) all.emplace_back(entity.api->name);
  return joined(all);
}

const EntityRoutes::Entity& EntityRoutes::fitting(std::string_view body) const {
  check_json(body);
  const Entity* fit = nullptr;
  std::vector<std::string> also;
  json::Writer candidates;
  candidates.begin_array();
  for (const Entity& entity : entities_) {
    try {
      entity.api->check(body);
      if (fit == nullptr) fit = &entity;
      also.emplace_back(entity.api->name);
    } catch (const json::Invalid& invalid) {
      candidates.begin_object();
      candidates.field("entity", entity.api->name);
      candidates.field("errors", Json{violations_json(invalid.violations(), kMaxViolations)});
      candidates.end_object();
    }
  }
  candidates.end_array();
  if (fit == nullptr) {
    throw Problem(422, "the body is none of the entities " + names()).with("candidates", candidates.take());
  }
  if (also.size() > 1) {
    throw Problem(422, "the body may be each of " + joined(also) +
                           ": say which with ?entity= or the header X-Entity-Type, or send it to its own path");
  }
  return *fit;
}

std::uint64_t EntityRoutes::max_body() const {
  return static_cast<std::uint64_t>(
      std::clamp<std::int64_t>(context_.connection().max_payload() - kHeaderRoom, 1, kMaxEventBody));
}

// --- POST /ingest/<entity>, POST /ingest/message ---------------------------------------------------------------------

Response EntityRoutes::post_entity(Request& request, const Entity* entity) {
  nats::Connection& nats = context_.connection();
  if (media_type_of(request.header("Content-Type").value_or("")) != "application/json") {
    throw Problem(415, "send the message with Content-Type: application/json");
  }
  const auto digest_of = [](const Entity& used, const std::string& body) {
    return base64url(Sha256::of(bytes_of(std::string(used.api->path) + "\n" + body)));
  };
  /// The body, checked; `entity` is known from then on.
  const auto read = [&] {
    std::string body = request.read_text(max_body());
    if (entity == nullptr) {
      entity = &fitting(body);
      return body;
    }
    try {
      entity->api->check(body);
    } catch (const json::Invalid&) {
      entity->rejected->add();
      check_json(body);
      throw;
    }
    return body;
  };
  const auto accept = [&](Attempt& attempt) {
    const std::string body = read();
    if (attempt.commit) attempt.commit(digest_of(*entity, body));
    try {
      IngestContext::send_in(IngestContext::begin_send(request, entity->api->subject, attempt.id, body.size()),
                             [&](const TraceContext& trace) {
                               nats.publish_together(entity->api->subject, body, attempt.id, headers_of(trace));
                             });
    } catch (const nats::StreamFull&) {
      throw stream_full();
    } catch (const nats::Unconfirmed&) {
      attempt.may_be_stored = true;
      throw;
    } catch (const PermanentError&) {
      throw Problem(413, "the message is larger than the message server takes");
    }
    entity->accepted->add();
    sent_.count(entity->api->subject, body.size());
    return accepted("", attempt.id, "/ingest/status/" + attempt.id);
  };
  return with_trace(request, [&] {
    const auto key = IngestContext::idempotency_key(request);
    if (!key) {
      Attempt attempt{.id = Uuid::random().to_string(), .commit = nullptr};
      return accept(attempt).response();
    }
    return context_.once(request, key,
                         {.accept = accept,
                          .digest =
                              [&] {
                                const std::string body = read();
                                return digest_of(*entity, body);
                              },
                          .patience = kPatience,
                          .takeover = kTakeover});
  });
}

// --- POST /ingest/batch ----------------------------------------------------------------------------------------------

/// One batch on its way in.
class EntityRoutes::Batch {
 public:
  Batch(EntityRoutes& routes, const Entity* entity, const TraceContext& trace, std::optional<Uuid> base)
      : routes_(routes),
        entity_(entity),
        base_(base),
        headers_(headers_of(trace)),
        publisher_(routes.context_.connection()) {}

  struct Stopped {};  // the publisher has failed: what follows need not be read

  void message(std::int64_t number, std::string_view text) {
    const Entity* entity = entity_;
    try {
      if (entity == nullptr) {
        entity = &routes_.fitting(text);
      } else {
        entity->api->check(text);
      }
    } catch (const json::Invalid& invalid) {
      entity->rejected->add();
      return reject(number, invalid.what(), violations_json(invalid.violations(), kMaxViolations));
    } catch (const Problem& problem) {
      return reject(number, problem.what(), "[]");
    }
    const std::string id = base_ ? line_id(*base_, number, entity->api->subject, text) : Uuid::random().to_string();
    if (!publisher_.publish(number, entity->api->subject, text, id, headers_)) throw Stopped();
    entity->accepted->add();
    routes_.sent_.count(entity->api->subject, text.size());
  }

  void reject(std::int64_t number, std::string detail, std::string errors = "[]") {
    ++rejected_;
    if (errors_.size() >= kMaxErrors || errors_size_ >= kMaxErrorsSize) {
      ++more_errors_;
      return;
    }
    // A client chooses how long its names are, and they stand in what is said of them.
    if (detail.size() > kMaxErrorSize) detail.replace(kMaxErrorSize, std::string::npos, "…");
    if (errors.size() > kMaxErrorSize) errors = "[]";
    errors_size_ += detail.size() + errors.size();
    errors_.push_back({number, std::move(detail), std::move(errors)});
  }

  /// Waits for the acks. Throws Problem 503 when not all that was sent is stored for sure.
  void finish() {
    BatchPublisher::Result result = publisher_.finish();
    accepted_ = result.accepted;
    for (const auto& refused : result.refused) reject(refused.number, refused.reason);
    const auto not_listed = result.refused_count - static_cast<std::int64_t>(result.refused.size());
    rejected_ += not_listed;
    more_errors_ += not_listed;
    if (!result.first_lost) return;
    Problem problem =
        result.full ? stream_full() : Problem(503, "the message server went away", {{"Retry-After", "5"}});
    problem =
        Problem(503,
                std::string(problem.what()) + ": " + std::to_string(accepted_) + " messages are accepted, among " +
                    "them every good one before line " + std::to_string(*result.first_lost),
                {{"Retry-After", result.full ? "10" : "5"}});
    throw add_counts(problem).with("accepted_through", std::to_string(*result.first_lost - 1));
  }

  std::int64_t accepted() const { return accepted_; }

  Problem& add_counts(Problem& problem) {
    problem.with("accepted", std::to_string(accepted_)).with("rejected", std::to_string(rejected_));
    problem.with("errors", errors_json());
    if (more_errors_ > 0) problem.with("more_errors", std::to_string(more_errors_));
    return problem;
  }

  std::string answer() {
    json::Writer out;
    out.begin_object();
    out.field("accepted", accepted_);
    out.field("rejected", rejected_);
    out.field("errors", Json{errors_json()});
    if (more_errors_ > 0) out.field("more_errors", more_errors_);
    out.end_object();
    return out.take();
  }

 private:
  struct Rejected {
    std::int64_t line;
    std::string detail;
    std::string errors;
  };

  std::string errors_json() {
    std::stable_sort(errors_.begin(), errors_.end(),
                     [](const Rejected& a, const Rejected& b) { return a.line < b.line; });
    json::Writer out;
    out.begin_array();
    for (const auto& error : errors_) {
      out.begin_object();
      out.field("line", error.line);
      out.field("detail", json::repaired_utf8(error.detail));
      if (error.errors != "[]") out.field("errors", Json{error.errors});
      out.end_object();
    }
    out.end_array();
    return out.take();
  }

  EntityRoutes& routes_;
  const Entity* entity_;
  const std::optional<Uuid> base_;
  const nats::Headers headers_;
  BatchPublisher publisher_;
  std::int64_t accepted_ = 0;
  std::int64_t rejected_ = 0;
  std::int64_t more_errors_ = 0;
  std::vector<Rejected> errors_;
  std::size_t errors_size_ = 0;
};

Response EntityRoutes::post_batch(Request& request) {
  const std::string media_type = media_type_of(request.header("Content-Type").value_or(""));
  BatchReader::Form form = BatchReader::Form::kEither;
  if (media_type == "application/x-ndjson" || media_type == "application/jsonl") {
    form = BatchReader::Form::kLines;
  } else if (!media_type.empty() && media_type != "application/json" && media_type != "text/plain" &&
             media_type != "application/x-www-form-urlencoded") {  // which curl says unless it is told otherwise
    throw Problem(415, "send the messages one per line as application/x-ndjson, or as an array in application/json");
  }
  const Entity* entity = named(request);
  const std::uint64_t max_line = max_body();
  const auto key = IngestContext::idempotency_key(request);

  const auto accept = [&](Attempt& attempt) {
    // The messages are children of the request itself: a span for each of a million lines would tell nothing more.
    Batch batch(*this, entity, request.span.context(), key ? Uuid::parse(attempt.id) : std::nullopt);
    BatchReader reader(
        form, max_line, [&](std::int64_t number, std::string_view text) { batch.message(number, text); },
        [&](std::int64_t number, const std::string& detail) { batch.reject(number, detail); });
    Sha256 sum;
    std::optional<Problem> broken;
    attempt.may_be_stored = true;
    auto keep_at = context_.clock.now() + kBatchKeep;
    try {
      request.read_body(kAnySize, context_.upload_timeout, [&](BytesView part) {
        if (key) sum.update(part);
        if (key && context_.clock.now() >= keep_at) {
          attempt.keep();
          keep_at = context_.clock.now() + kBatchKeep;
        }
        reader.feed(text_of(part));
      });
      reader.finish();
    } catch (const Batch::Stopped&) {
    } catch (const Problem& problem) {  // the client's fault; what it sent before is accepted all the same
      broken = problem;
    }
    batch.finish();
    request.span.set("messaging.batch.message_count", batch.accepted());
    if (broken) throw batch.add_counts(*broken);
    if (batch.accepted() == 0) {
      Problem nothing(422, "none of the messages was accepted");
      attempt.may_be_stored = false;
      throw batch.add_counts(nothing);
    }
    attempt.commit(base64url(sum.finish()));
    return Accepted{batch.answer(), ""};
  };
  const auto digest = [&] {
    Sha256 sum;
    request.read_body(kAnySize, context_.upload_timeout, [&](BytesView part) { sum.update(part); });
    return base64url(sum.finish());
  };
  return with_trace(request, [&] {
    return context_.once(request, key, {.accept = accept, .digest = digest, .takeover = kBatchTakeover});
  });
}

// --- GET /ingest/status/{id} -----------------------------------------------------------------------------------------

namespace {

Response status_answer(const std::string& message_id, const MessageRecord& record) {
  json::Writer out;
  out.begin_object();
  out.field("message_id", message_id);
  out.field("status", record.state);
  if (!record.entity_type.empty()) out.field("entity_type", json::repaired_utf8(record.entity_type));
  out.field("attempts", std::int32_t{record.attempts});
  if (!record.error.empty()) out.field("error", json::repaired_utf8(record.error));
  if (record.received_at != Timestamp{}) out.field("received_at", record.received_at);
  if (record.updated_at != Timestamp{}) out.field("updated_at", record.updated_at);
  if (!record.traceparent.empty()) out.field("traceparent", json::repaired_utf8(record.traceparent));
  out.end_object();
  return Response::json(200, out.take());
}

}  // namespace

Response EntityRoutes::get_status(Request& request) const {
  const std::string& id = request.parameters.at("id");
  const Problem unknown(404, "no message of this id is known here");
  const bool visible = std::all_of(id.begin(), id.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (id.size() > kMaxMessageId || !visible) throw unknown;

  bool database_away = false;
  const auto row = [&]() -> std::optional<MessageRecord> {
    if (!find_row_) return std::nullopt;
    try {
      return find_row_(id);
    } catch (const PermanentError&) {
      throw;
    } catch (const Error& error) {
      database_away = true;
      request.log.warning("the status of a message could not be read from the database", {{"error", error.what()}});
      return std::nullopt;
    }
  };
  if (const auto record = row()) return status_answer(id, *record);

  std::optional<nats::MessagePlace> place;
  if (!context_.api.entity_stream.empty()) {
    try {
      place = nats::find_message(context_.connection(), context_.api.entity_stream, entities_.front().api->subject, id,
                                 made_at(id));
    } catch (const json::Invalid& error) {
      throw Unavailable(std::string("the NATS server answers what is no JetStream API: ") + error.what());
    }
  }
  if (place && !place->acked) {
    MessageRecord record{.state = place->delivered ? "processing" : "accepted", .received_at = place->received};
    for (const Entity& entity : entities_) {
      if (entity.api->subject == place->subject) record.entity_type = entity.api->name;
    }
    return status_answer(id, record);
  }
  // It may have got its row in between.
  if (place && !database_away) {
    if (const auto record = row()) return status_answer(id, *record);
  }
  if (database_away) {
    throw Problem(503, "the database that knows about this message is away; try again", {{"Retry-After", "5"}});
  }
  if (!place) throw unknown;
  // A worker has done with it, and nothing says how.
  return status_answer(id, {.state = "consumed", .received_at = place->received});
}

}  // namespace pipegen::http
