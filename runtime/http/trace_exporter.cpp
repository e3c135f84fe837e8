#include "http/trace_exporter.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <stop_token>
#include <thread>
#include <variant>

#include "core/json_text.hpp"
#include "http/client.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

// ---- options --------------------------------------------------------------------------------------------------------

/// Of a variable; empty counts as not set, as OpenTelemetry wants it.
std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

/// The variable for traces alone wins.
std::optional<std::string> otlp_variable(const std::string& name) {
  if (auto own = variable(("OTEL_EXPORTER_OTLP_TRACES_" + name).c_str())) return own;
  return variable(("OTEL_EXPORTER_OTLP_" + name).c_str());
}

void warn(const std::string& name, const std::string& what) {
  Logger().warning("an environment variable has no meaning; its default is taken",
                   {{"variable", name}, {"reason", what}});
}

std::int64_t number(const std::string& name, const std::optional<std::string>& text, std::int64_t standard,
                    std::int64_t least, std::int64_t most) {
  if (!text) return standard;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error == std::errc() && end == text->data() + text->size() && value >= least && value <= most) return value;
  warn(name, "it is no number from " + std::to_string(least) + " to " + std::to_string(most));
  return standard;
}

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned octet = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, octet, 16).ptr == text.data() + i + 3) {
      out += static_cast<char>(octet);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// "key=value,key=value" with percent-encoded values. What is wrong is named by its place: it may be a secret.
TraceExporterOptions::Texts pairs(const std::string& name, const std::string& text) {
  TraceExporterOptions::Texts out;
  int place = 0;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string_view item = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++place;
    if (trimmed(item).empty()) continue;
    const std::size_t equals = std::min(item.find('='), item.size());
    std::string key = trimmed(item.substr(0, equals));
    std::string value = percent_decoded(trimmed(item.substr(std::min(equals + 1, item.size()))));
    const bool fine = equals < item.size() && !key.empty() && key.find_first_of(" \t:\r\n") == std::string::npos &&
                      value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos;
    if (!fine) {
      Logger().warning("an entry of an environment variable is left out: it is not name=value",
                       {{"variable", name}, {"entry", place}});
      continue;
    }
    out.emplace_back(std::move(key), std::move(value));
  }
  return out;
}

trace::Sampler sampler() {
  const std::string kind = variable("OTEL_TRACES_SAMPLER").value_or("parentbased_always_on");
  trace::Sampler out;
  out.parent_based = kind.starts_with("parentbased_");
  const std::string root = out.parent_based ? kind.substr(12) : kind;
  if (root == "always_on") return out;
  if (root == "always_off") {
    out.ratio = 0;
  } else if (root == "traceidratio") {
    const auto text = variable("OTEL_TRACES_SAMPLER_ARG");
    if (!text) return out;
    double ratio = 1;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), ratio);
    if (error == std::errc() && end == text->data() + text->size() && ratio >= 0 && ratio <= 1) {
      out.ratio = ratio;
    } else {
      warn("OTEL_TRACES_SAMPLER_ARG", "it is no number from 0 to 1");
    }
  } else {
    warn("OTEL_TRACES_SAMPLER",
         "give always_on, always_off, traceidratio, or one of these with parentbased_ before it");
    out.parent_based = true;
  }
  return out;
}

std::optional<std::string> url_of_traces() {
  if (auto url = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) return url;
  auto url = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
  if (!url) return std::nullopt;
  while (url->ends_with('/')) url->pop_back();
  return *url + "/v1/traces";
}

// ---- JSON -----------------------------------------------------------------------------------------------------------
// As the JSON encoding of OTLP has it: ids in hexadecimal, 64-bit numbers as strings, enums as numbers.

void write_text(json::Writer& out, std::string_view name, std::string_view text) {
  if (json::is_utf8(text)) return out.field(name, text);
  out.field(name, json::repaired_utf8(text));
}

void write_value(json::Writer& out, const trace::Value& value) {
  out.key("value");
  out.begin_object();
  if (const auto* text = std::get_if<std::string>(&value)) {
    write_text(out, "stringValue", *text);
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    out.field("intValue", std::to_string(*integer));
  } else if (const auto* real = std::get_if<double>(&value)) {
    out.field("doubleValue", *real);
  } else {
    out.field("boolValue", std::get<bool>(value));
  }
  out.end_object();
}

void write_attribute(json::Writer& out, std::string_view name, const trace::Value& value) {
  out.begin_object();
  write_text(out, "key", name);
  write_value(out, value);
  out.end_object();
}

void write_attributes(json::Writer& out, const std::vector<trace::Attribute>& attributes) {
  if (attributes.empty()) return;
  out.key("attributes");
  out.begin_array();
  for (const auto& attribute : attributes) write_attribute(out, attribute.name, attribute.value);
  out.end_array();
}

void write_context(json::Writer& out, const TraceContext& context) {
  out.field("traceId", context.trace_id());
  out.field("spanId", context.span_id());
  if (context.state) out.field("traceState", *context.state);
  out.field("flags", static_cast<std::int64_t>(context.flags));
}

void write_span(json::Writer& out, const trace::SpanData& span) {
  out.begin_object();
  write_context(out, span.context);
  if (span.parent != 0) out.field("parentSpanId", TraceContext{.span = span.parent}.span_id());
  write_text(out, "name", span.name);
  out.field("kind", static_cast<std::int32_t>(span.kind));
  out.field("startTimeUnixNano", std::to_string(span.start));
  out.field("endTimeUnixNano", std::to_string(span.end));
  write_attributes(out, span.attributes);
  if (!span.events.empty()) {
    out.key("events");
    out.begin_array();
    for (const auto& event : span.events) {
      out.begin_object();
      out.field("timeUnixNano", std::to_string(event.time));
      out.field("name", event.name);
      write_attributes(out, event.attributes);
      out.end_object();
    }
    out.end_array();
  }
  if (!span.links.empty()) {
    out.key("links");
    out.begin_array();
    for (const auto& link : span.links) {
      out.begin_object();
      write_context(out, link);
      out.end_object();
    }
    out.end_array();
    if (span.dropped_links > 0) out.field("droppedLinksCount", static_cast<std::int64_t>(span.dropped_links));
  }
  out.key("status");
  out.begin_object();
  if (span.failed) {
    out.field("code", std::int32_t{2});
    write_text(out, "message", span.error);
  }
  out.end_object();
  out.end_object();
}

/// {"partialSuccess":{"rejectedSpans":"2"}}: how many of a request the collector did not take.
std::size_t rejected_spans(const std::string& answer) {
  try {
    return json::parse(answer, [](json::Reader& in) {
      static constexpr json::Field kOuter[] = {{"partialSuccess", json::kOptional}};
      static constexpr json::Field kInner[] = {{"rejectedSpans", json::kOptional}};
      std::size_t rejected = 0;
      for (json::Object outer(in, kOuter); outer.next();) {
        for (json::Object inner(in, kInner); inner.next();) {
          std::string digits = in.json().text;  // a string, or a number
          std::erase(digits, '"');
          rejected = static_cast<std::size_t>(std::strtoull(digits.c_str(), nullptr, 10));
        }
      }
      return rejected;
    });
  } catch (const std::exception&) {
    return 0;  // it took them; what else it says is its own affair
  }
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string();
}

/// The URL without what may be secret.
std::string shown(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t host = scheme == std::string::npos ? 0 : scheme + 3;
  std::string server = url.substr(0, url.find_first_of("/?#", host));
  if (const std::size_t at = server.rfind('@'); at != std::string::npos) server.erase(host, at + 1 - host);
  return server;
}

}  // namespace

std::optional<TraceExporterOptions> trace_options_from_environment(std::string_view service,
                                                                   std::string_view pipeline) {
  const auto url = url_of_traces();
  if (!url) return std::nullopt;
  std::string disabled = variable("OTEL_SDK_DISABLED").value_or("");
  std::transform(disabled.begin(), disabled.end(), disabled.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (disabled == "true") return std::nullopt;
  const std::string exporter = variable("OTEL_TRACES_EXPORTER").value_or("otlp");
  if (exporter == "none") return std::nullopt;
  if (exporter != "otlp") warn("OTEL_TRACES_EXPORTER", "give otlp or none");
  if (otlp_variable("PROTOCOL").value_or("") == "grpc") {
    warn("OTEL_EXPORTER_OTLP_PROTOCOL", "spans go over HTTP as JSON: give the collector's port for HTTP, 4318 mostly");
  }

  TraceExporterOptions options;
  options.url = *url;
  if (const auto text = otlp_variable("HEADERS")) options.headers = pairs("OTEL_EXPORTER_OTLP_HEADERS", *text);
  options.timeout =
      milliseconds(number("OTEL_EXPORTER_OTLP_TIMEOUT", otlp_variable("TIMEOUT"), options.timeout.count(), 1, 600'000));
  options.sampler = sampler();
  const auto size = [](const char* name, std::size_t standard) {
    return static_cast<std::size_t>(number(name, variable(name), static_cast<std::int64_t>(standard), 1, 1'000'000));
  };
  options.max_queue = size("OTEL_BSP_MAX_QUEUE_SIZE", options.max_queue);
  options.max_batch = std::min(options.max_queue, size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", options.max_batch));
  options.delay = milliseconds(
      number("OTEL_BSP_SCHEDULE_DELAY", variable("OTEL_BSP_SCHEDULE_DELAY"), options.delay.count(), 1, 600'000));

  // What stands first stays; the name of the service by its own variable, then as an attribute, then its name here.
  TraceExporterOptions::Texts all;
  if (auto name = variable("OTEL_SERVICE_NAME")) all.emplace_back("service.name", std::move(*name));
  if (const auto text = variable("OTEL_RESOURCE_ATTRIBUTES")) {
    for (auto& pair : pairs("OTEL_RESOURCE_ATTRIBUTES", *text)) all.push_back(std::move(pair));
  }
  all.emplace_back("service.name", std::string(service));
  if (!pipeline.empty()) all.emplace_back("service.namespace", std::string(pipeline));
  all.emplace_back("service.instance.id", Uuid::random().to_string());
  all.emplace_back("host.name", host_name());
  all.emplace_back("process.pid", std::to_string(::getpid()));
  all.emplace_back("telemetry.sdk.name", "pipegen");
  all.emplace_back("telemetry.sdk.language", "cpp");
  for (auto& [name, value] : all) {
    const bool there = std::any_of(options.resource.begin(), options.resource.end(),
                                   [&name = name](const auto& known) { return known.first == name; });
    if (!there && !value.empty()) options.resource.emplace_back(name, std::move(value));
  }
  return options;
}

std::string otlp_json(const std::vector<trace::SpanData>& spans, const TraceExporterOptions::Texts& resource) {
  json::Writer out;
  out.begin_object();
  out.key("resourceSpans");
  out.begin_array();
  out.begin_object();
  out.key("resource");
  out.begin_object();
  out.key("attributes");
  out.begin_array();
  for (const auto& [name, value] : resource) {
    if (name == "process.pid") {
      write_attribute(out, name, std::int64_t{std::strtoll(value.c_str(), nullptr, 10)});
    } else {
      write_attribute(out, name, value);
    }
  }
  out.end_array();
  out.end_object();
  out.key("scopeSpans");
  out.begin_array();
  out.begin_object();
  out.key("scope");
  out.begin_object();
  out.field("name", "pipegen");
  out.end_object();
  out.key("spans");
  out.begin_array();
  for (const auto& span : spans) write_span(out, span);
  out.end_array();
  out.end_object();
  out.end_array();
  out.end_object();
  out.end_array();
  out.end_object();
  return out.take();
}

// ---- the exporter ---------------------------------------------------------------------------------------------------

struct TraceExporter::Impl final : trace::Sink, std::enable_shared_from_this<TraceExporter::Impl> {
  Impl(TraceExporterOptions given, Metrics& metrics)
      : options(std::move(given)),
        exported(metrics.counter("pipegen_spans_exported_total", "Spans that the collector has taken.")),
        dropped(metrics.counter("pipegen_spans_dropped_total",
                                "Spans that were not sent, because too many waited, or that the collector refused.")) {
    tracer = {.sink = this, .sampler = options.sampler};
  }

  void take(trace::SpanData span) noexcept override {
    const std::lock_guard lock(mutex);
    if (closed) return;
    if (queue.size() >= options.max_queue) return dropped.add();
    try {
      queue.push_back(std::move(span));
    } catch (const std::bad_alloc&) {
      return dropped.add();
    }
    if (queue.size() == options.max_batch) changed.notify_all();
  }

  /// Its own thread, from construction to close().
  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait_for(lock, options.delay, [this] { return closing || queue.size() >= options.max_batch; });
      while (!queue.empty() && !given_up) send_some(lock);
      if (closing) break;
    }
    dropped_unless_closed(queue.size());
    queue.clear();
    over = true;
    changed.notify_all();
  }

  /// One request, as often as it takes. The lock is not held meanwhile.
  void send_some(std::unique_lock<std::mutex>& lock) {
    const std::size_t count = std::min(queue.size(), options.max_batch);
    const auto end = queue.begin() + static_cast<std::ptrdiff_t>(count);
    std::vector<trace::SpanData> spans(std::make_move_iterator(queue.begin()), std::make_move_iterator(end));
    queue.erase(queue.begin(), end);
    lock.unlock();
    HttpRequest request;
    request.url = options.url;
    request.headers = {{"Content-Type", "application/json"}, {"Accept", "application/json"}};
    request.headers.insert(request.headers.end(), options.headers.begin(), options.headers.end());
    request.keep = HttpRequest::Keep::kStart;
    request.body = otlp_json(spans, options.resource);
    spans.clear();
    milliseconds pause = options.retry_first;
    for (;; pause = std::min(pause * 2, options.retry_most)) {
      const Result result = send(request);
      lock.lock();
      if (result.kind != Result::kAgain) {
        const std::size_t rejected = result.kind == Result::kTaken ? std::min(result.rejected, count) : count;
        if (!closed) exported.add(static_cast<double>(count - rejected));
        dropped_unless_closed(rejected);
        return;
      }
      changed.wait_for(lock, pause, [this] { return given_up || closing; });
      if (given_up || closing) {  // one more try at the end would only take the time of those that wait
        given_up = true;
        dropped_unless_closed(count);
        return;
      }
      lock.unlock();
    }
  }

  struct Result {
    enum Kind { kTaken, kAgain, kRefused } kind = kTaken;
    std::size_t rejected = 0;
  };

  Result send(const HttpRequest& request) {
    try {
      const HttpResponse answer = call(request, options.timeout, stop.get_token());
      if (answer.is_success()) {
        if (away) log.info("the collector takes spans again", {{"endpoint", shown(options.url)}});
        away = false;
        return {Result::kTaken, rejected_spans(answer.body)};
      }
      // As OTLP has it: these pass, anything else does not.
      static constexpr int kPassing[] = {408, 429, 502, 503, 504};
      const bool passing = std::find(std::begin(kPassing), std::end(kPassing), answer.status) != std::end(kPassing);
      say_once("it answers " + std::to_string(answer.status));
      return {passing ? Result::kAgain : Result::kRefused};
    } catch (const ConfigError& error) {
      say_once(error.what());
      return {Result::kRefused};
    } catch (const std::exception& error) {
      say_once(error.what());
      return {Result::kAgain};
    }
  }

  void say_once(const std::string& reason) {
    if (std::exchange(away, true)) return;
    log.warning("spans cannot be exported; those that do not find room meanwhile are dropped",
                {{"endpoint", shown(options.url)}, {"reason", reason}});
  }

  void dropped_unless_closed(std::size_t spans) {
    if (!closed && spans > 0) dropped.add(static_cast<double>(spans));
  }

  void close() {
    std::unique_lock lock(mutex);
    if (closed) return;
    closing = true;
    changed.notify_all();
    const auto end = SteadyClock::now() + options.flush_time;
    if (!changed.wait_until(lock, end, [this] { return over; })) {
      given_up = true;
      changed.notify_all();
      lock.unlock();
      stop.request_stop();
      lock.lock();
      changed.wait_for(lock, 500ms, [this] { return over; });
    }
    closed = true;  // the counters are not touched any more
    queue.clear();
    const bool joins = over;
    lock.unlock();
    // A name that is being looked up cannot be told to stop; the thread holds what it needs.
    joins ? thread.join() : thread.detach();
  }

  const TraceExporterOptions options;
  Counter& exported;
  Counter& dropped;
  trace::Tracer tracer{};
  const Logger log{};
  std::stop_source stop{};
  bool away = false;  // the thread's own
  std::mutex mutex{};
  std::condition_variable changed{};
  std::deque<trace::SpanData> queue{};
  bool closing = false;
  bool given_up = false;  // nothing is sent any more
  bool over = false;      // the thread has ended
  bool closed = false;
  std::thread thread{};
};

TraceExporter::TraceExporter(TraceExporterOptions options, Metrics& metrics)
    : impl_(std::make_shared<Impl>(std::move(options), metrics)) {
  // Any thread may be about to give it a span, at any time: it stays, without its spans, until the process ends.
  static std::mutex mutex;
  static auto& all = *new std::vector<std::shared_ptr<Impl>>;
  {
    const std::lock_guard lock(mutex);
    all.push_back(impl_);
  }
  impl_->thread = std::thread([impl = impl_] { impl->run(); });
  trace::use(&impl_->tracer);
  impl_->log.info("traces are exported", {{"endpoint", shown(impl_->options.url)}});
}

void TraceExporter::close() {
  trace::use(nullptr);
  impl_->close();
}

std::unique_ptr<TraceExporter> export_traces(std::string_view service, std::string_view pipeline, Metrics& metrics) {
  auto options = trace_options_from_environment(service, pipeline);
  if (!options) return nullptr;
  return std::make_unique<TraceExporter>(std::move(*options), metrics);
}

}  // namespace pipegen::http
