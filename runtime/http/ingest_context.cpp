#include "http/ingest_context.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "http/idempotency.hpp"
#include "http/request_text.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;

std::string text_of(const Accepted& accepted) {
  json::Writer out;
  out.begin_object();
  out.field("body", accepted.body);
  out.field("location", accepted.location);
  out.end_object();
  return out.take();
}

Accepted read_accepted(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"body"}, {"location"}};
  Accepted out;
  for (json::Object fields(in, kFields); fields.next();) (fields.index() == 0 ? out.body : out.location) = in.string();
  return out;
}

}  // namespace

Response Accepted::response() const {
  Response out = Response::json(202, body);
  if (!location.empty()) out.headers.emplace_back("Location", location);
  return out;
}

Accepted accepted(const std::string& workflow_id, const std::string& message_id, std::string location) {
  json::Writer out;
  out.begin_object();
  if (!workflow_id.empty()) out.field("workflow_id", workflow_id);
  out.field("message_id", message_id);
  out.field("status", "accepted");
  out.field("timestamp", now());
  out.end_object();
  return {out.take(), std::move(location)};
}

IngestContext::IngestContext(IngestApi given, const Settings& used, const AnyClock& used_clock)
    : api(std::move(given)),
      settings(used),
      upload_timeout(settings.duration(api.section + ".upload_timeout", 10min)),
      clock(used_clock),
      later(clock) {}

std::string IngestContext::stage_label() const {
  std::string label = api.section;
  std::replace(label.begin(), label.end(), '_', '-');
  return label;
}

Readiness IngestContext::readiness() const {
  const nats::Connection* nats = attached;
  if (nats == nullptr) return {false, "the service is starting: it waits for NATS"};
  return {nats->connected(), "NATS is away"};
}

nats::Connection& IngestContext::connection() const {
  nats::Connection* nats = attached;
  if (nats == nullptr || !nats->connected()) {
    throw Problem(503, nats == nullptr ? "the service is starting" : "the message server is away; try again",
                  {{"Retry-After", "5"}});
  }
  return *nats;
}

std::string IngestContext::name_of(const std::vector<BucketSpec>& buckets, const std::string& schema_name) {
  for (const auto& bucket : buckets) {
    if (bucket.schema_name == schema_name) return bucket.name;
  }
  return schema_name;
}

void IngestContext::now_or_later(std::function<void()> task) {
  try {
    task();
  } catch (const Unavailable&) {
    later.add(std::move(task));
  }
}

Response IngestContext::once(Request& request, const std::optional<std::string>& key, const OnceTask& task) {
  Attempt attempt{.id = Uuid::random().to_string()};
  if (!key || api.idempotency_bucket.empty()) return task.accept(attempt).response();
  const auto takeover =
      task.takeover > 0ms ? task.takeover : std::max<std::chrono::milliseconds>(10min, upload_timeout + 1min);
  Idempotency idempotency(connection(), name_of(api.topology.key_values, api.idempotency_bucket), takeover, clock);
  Idempotency::Claim claim = idempotency.begin(request.path, *key);
  const auto give_up = clock.now() + task.patience;
  for (auto pause = 5ms; claim.state == Idempotency::Claim::State::kBusy && clock.now() < give_up;
       pause = std::min(pause * 2, 100ms)) {
    clock.sleep_for(pause);
    claim = idempotency.begin(request.path, *key);
  }
  switch (claim.state) {
    case Idempotency::Claim::State::kBusy:
      throw Problem(409, "a request with this Idempotency-Key is being worked on", {{"Retry-After", "1"}});
    case Idempotency::Claim::State::kUnsure:
      now_or_later([idempotency, claim]() mutable { idempotency.release(claim, !claim.digest.empty()); });
      throw Unavailable("the NATS server went away before it answered");
    case Idempotency::Claim::State::kDone:
      if (task.digest() != claim.digest) throw other_payload();
      return json::parse(claim.response, read_accepted).response();
    case Idempotency::Claim::State::kMine:
      break;
  }
  attempt.id = claim.id;
  attempt.commit = [&](const std::string& payload) { idempotency.commit(claim, payload); };
  attempt.keep = [&] { idempotency.keep(claim); };
  attempt.may_be_stored = !claim.digest.empty();
  try {
    // The one that had the key before may have died between publishing and saying so.
    const auto before =
        attempt.may_be_stored && task.accepted_before ? task.accepted_before(claim.id) : std::optional<Accepted>();
    if (before && task.digest() != claim.digest) throw other_payload();
    const Accepted answer = before ? *before : task.accept(attempt);
    try {
      now_or_later([idempotency, claim, answer]() mutable { idempotency.finish(claim, text_of(answer)); });
    } catch (const PermanentError& error) {
      // It is done all the same: who repeats it is told that it is being worked on.
      request.log.warning("the answer to a request with an Idempotency-Key could not be kept",
                          {{"error", error.what()}});
    }
    return answer.response();
  } catch (...) {
    const bool published = attempt.may_be_stored;
    now_or_later([idempotency, claim, published]() mutable { idempotency.release(claim, published); });
    throw;
  }
}

std::optional<std::string> IngestContext::idempotency_key(const Request& request) {
  const auto header = request.header("Idempotency-Key");
  if (!header) return std::nullopt;
  return parse_idempotency_key(*header);
}

void IngestContext::log_trace(Request& request) {
  const TraceContext& trace = request.span.context();
  request.log = request.log.with({{"trace_id", trace.trace_id()}, {"span_id", trace.span_id()}});
}

trace::Span IngestContext::begin_send(const Request& request, std::string_view subject, std::string_view message_id,
                                      std::size_t size) {
  trace::Span span(trace::Kind::kProducer, "send", subject, request.span.context());
  if (!span.recorded()) return span;
  span.set("messaging.system", "nats");
  span.set("messaging.operation.name", "send");
  span.set("messaging.operation.type", "send");
  span.set("messaging.destination.name", subject);
  span.set("messaging.message.id", message_id);
  span.set("messaging.message.body.size", size);
  return span;
}

}  // namespace pipegen::http
