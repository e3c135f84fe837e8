// Traces: what the headers say, which spans are recorded, how they reach a collector; and whole pipelines on a real
// nats-server whose spans hang together.
#include "core/trace.hpp"

#include <gtest/gtest.h>
#include <httplib.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "entities/entity_worker.hpp"
#include "http/ingest_server.hpp"
#include "http/trace_exporter.hpp"
#include "nats/handles.hpp"
#include "pipegen/json.hpp"
#include "sql/database.hpp"
#include "support/eventually.hpp"
#include "support/nats_server.hpp"
#include "support/trace_collector.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using http::TraceExporter;
using http::TraceExporterOptions;
using std::chrono::milliseconds;
using testing::CollectedSpan;
using testing::eventually;
using testing::NatsServer;
using testing::TempFolder;
using testing::TraceCollector;
using trace::Kind;
using Clock = std::chrono::steady_clock;

constexpr const char* kTraceId = "0af7651916cd43dd8448eb211c80319c";
constexpr const char* kSpanId = "b7ad6b7169203331";
const std::string kParent = std::string("00-") + kTraceId + "-" + kSpanId + "-01";

// ------------------------------------------------------------------------------------------------ the headers

TEST(TraceContextTest, ReadsWhatW3cCallsATraceparentAndNothingElse) {
  const TraceContext context = trace::parse(kParent, "vendor=1,other=2");
  EXPECT_EQ(context.trace_id(), kTraceId);
  EXPECT_EQ(context.span_id(), kSpanId);
  EXPECT_TRUE(context.sampled());
  EXPECT_EQ(context.traceparent(), kParent);
  ASSERT_TRUE(context.state);
  EXPECT_EQ(*context.state, "vendor=1,other=2");
  EXPECT_FALSE(trace::parse(kParent.substr(0, 53) + "00").sampled());
  EXPECT_EQ(trace::parse(kParent.substr(0, 53) + "03").traceparent(), kParent.substr(0, 53) + "03");
  // A later version may have more to say behind it; ours says nothing that it does not know.
  EXPECT_EQ(trace::parse("cc" + kParent.substr(2) + "-more").traceparent(), kParent);
  EXPECT_EQ(trace::parse("cc" + kParent.substr(2)).traceparent(), kParent);

  const std::string zeros(32, '0');
  for (const std::string& bad :
       {std::string(), std::string("00"), kParent.substr(0, 54), kParent + "-more", "ff" + kParent.substr(2),
        "cc" + kParent.substr(2) + "more", "0g" + kParent.substr(2), "00-" + zeros + "-" + kSpanId + "-01",
        std::string("00-") + kTraceId + "-" + zeros.substr(0, 16) + "-01",
        std::string("00-") + "0AF7651916CD43DD8448EB211C80319C" + "-" + kSpanId + "-01",
        std::string("00_") + kTraceId + "-" + kSpanId + "-01", kParent.substr(0, 53) + "0x"}) {
    EXPECT_FALSE(trace::parse(bad, "vendor=1").has_trace()) << bad;
    EXPECT_FALSE(trace::parse(bad, "vendor=1").state) << bad;
  }
  EXPECT_TRUE(trace::parse(kParent, std::string(512, 'x')).state);
  EXPECT_FALSE(trace::parse(kParent, std::string(513, 'x')).state) << "messages have limits";
  EXPECT_FALSE(trace::parse(kParent, "a=b\r\nEvil: 1").state);
}

TEST(TraceContextTest, AMessageWithoutOneIsInTheSameTraceAtEveryDelivery) {
  const TraceContext once = trace::begin_for("JOBS:7:1700000000000000000");
  EXPECT_EQ(once.trace_id(), trace::begin_for("JOBS:7:1700000000000000000").trace_id());
  EXPECT_EQ(once.trace_id().size(), 32u);
  EXPECT_EQ(once.traceparent(), "") << "it has no span yet";
  std::set<std::string> ids;
  for (int i = 0; i < 10'000; ++i) ids.insert(trace::begin_for("JOBS:" + std::to_string(i) + ":17").trace_id());
  EXPECT_EQ(ids.size(), 10'000u);
  EXPECT_TRUE(trace::begin_for("").has_trace());
}

TEST(TraceContextTest, GoesIntoTheHeadersOfAMessage) {
  std::map<std::string, std::string> headers{{"traceparent", "old"}};
  trace::add_to(headers, trace::begin());
  EXPECT_EQ(headers.at("traceparent"), "old") << "there is no span to name";
  trace::add_to(headers, trace::parse(kParent, "vendor=1"));
  EXPECT_EQ(headers.at("traceparent"), kParent);
  EXPECT_EQ(headers.at("tracestate"), "vendor=1");
}

TEST(SpanTest, WithoutAnExporterItIsAnIdAndCostsNothing) {
  ASSERT_FALSE(trace::recording());
  const TraceContext parent = trace::parse(kParent, "vendor=1");
  trace::Span span(Kind::kConsumer, "process", "text.processed", parent);
  EXPECT_FALSE(span.recorded());
  EXPECT_EQ(span.context().trace_id(), kTraceId);
  EXPECT_NE(span.context().span_id(), kSpanId);
  EXPECT_EQ(span.context().traceparent().size(), 55u);
  EXPECT_EQ(*span.context().state, "vendor=1");
  EXPECT_TRUE(trace::Span(Kind::kServer, "GET", "/", {}).context().has_trace());
  EXPECT_FALSE(trace::Span().context().has_trace());
  {
    const trace::Scope scope(span);
    EXPECT_FALSE(trace::Span::of_current(Kind::kClient, "put", "FILES").context().has_trace());
  }

  constexpr int kSpans = 1'000'000;
  std::uint64_t all = 0;
  const auto began = Clock::now();
  for (int i = 0; i < kSpans; ++i) {
    trace::Span one(Kind::kConsumer, "process", "text.processed", trace::begin_for("JOBS:7:17"));
    one.set("messaging.system", "nats");
    all += one.context().span;
  }
  const double nanoseconds = std::chrono::duration<double, std::nano>(Clock::now() - began).count() / kSpans;
  EXPECT_NE(all, 0u);
  std::printf("figure: a span without an exporter: %.0f ns\n", nanoseconds);
  EXPECT_LT(nanoseconds, 2'000) << "a message takes 25 us of which this is none";
}

// ------------------------------------------------------------------------------------------------ which, and how

struct Kept : trace::Sink {
  void take(trace::SpanData span) noexcept override { spans.push_back(std::move(span)); }
  std::vector<trace::SpanData> spans;
};

/// Gives spans to `kept` for as long as it lives. (Both live on, as tracers have to.)
struct Recording {
  explicit Recording(trace::Sampler sampler = {}) : kept(*new Kept) {
    static auto& all = *new std::vector<std::pair<std::unique_ptr<Kept>, std::unique_ptr<trace::Tracer>>>;
    all.emplace_back(&kept, std::make_unique<trace::Tracer>(trace::Tracer{&kept, sampler}));
    trace::use(all.back().second.get());
  }
  ~Recording() { trace::use(nullptr); }
  Kept& kept;
};

TEST(SpanTest, ChildrenNameTheirParentsAndStayInTheirTrace) {
  Recording recording;
  {
    trace::Span server(Kind::kServer, "POST", "/documents", trace::parse(kParent, "vendor=1"));
    const trace::Scope scope(server);
    trace::Span put = trace::Span::of_current(Kind::kClient, "put", "PDF_FILES");
    put.set("size", 12);
    EXPECT_TRUE(put.recorded());
    std::thread([] { EXPECT_FALSE(trace::Span::of_current(Kind::kClient, "put", "elsewhere").recorded()); }).join();
  }
  const auto& spans = recording.kept.spans;
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].name, "put PDF_FILES");
  EXPECT_EQ(spans[1].name, "POST /documents");
  EXPECT_EQ(spans[0].parent, spans[1].context.span);
  EXPECT_EQ(TraceContext{.span = spans[1].parent}.span_id(), kSpanId);
  for (const auto& span : spans) {
    EXPECT_EQ(span.context.trace_id(), kTraceId);
    EXPECT_EQ(*span.context.state, "vendor=1");
    EXPECT_GE(span.end, span.start);
  }
}

TEST(SpanTest, TheSampledFlagOfTheParentIsKept) {
  Recording recording({.parent_based = true, .ratio = 1});
  const TraceContext unsampled = trace::parse(kParent.substr(0, 53) + "02");
  {
    trace::Span span(Kind::kConsumer, "process", "x", unsampled);
    EXPECT_FALSE(span.recorded());
    EXPECT_EQ(span.context().flags, 2) << "what else stood there stays";
    trace::Span child(Kind::kProducer, "send", "y", span.context());
    EXPECT_FALSE(child.recorded());
    EXPECT_TRUE(trace::Span(Kind::kConsumer, "process", "x", trace::parse(kParent)).recorded());
  }
  EXPECT_EQ(recording.kept.spans.size(), 1u);
}

TEST(SpanTest, ARatioChoosesTracesAndEveryProcessTheSameOnes) {
  const trace::Sampler tenth{.parent_based = true, .ratio = 0.1};
  int chosen = 0;
  for (int i = 0; i < 20'000; ++i) {
    const TraceContext context = trace::begin();
    chosen += tenth.sample(context, false) ? 1 : 0;
    EXPECT_EQ(tenth.sample(context, false), tenth.sample(context, false));
    EXPECT_TRUE(tenth.sample(context, true)) << "its parent is recorded";
  }
  EXPECT_NEAR(chosen, 2'000, 300);
  // As OpenTelemetry's own: the last 63 bits of the id against the ratio.
  EXPECT_TRUE(tenth.sample({.trace_high = ~0ULL, .trace_low = 0x0CCCCCCCCCCCC000ULL * 2}, false));
  EXPECT_FALSE(tenth.sample({.trace_high = 1, .trace_low = 0x0CCCCCCCCCCCE000ULL * 2}, false));
  EXPECT_FALSE((trace::Sampler{.ratio = 0}.sample(trace::begin(), false)));

  Recording recording({.parent_based = true, .ratio = 0});
  trace::Span dropped(Kind::kServer, "GET", "/", {});
  EXPECT_FALSE(dropped.recorded());
  EXPECT_FALSE(dropped.context().sampled()) << "so that nobody behind it records half of a trace";
}

TEST(SpanTest, ABatchIsLinkedToItsMessagesAndAPartOfTheirTraceIfThereIsOne) {
  Recording recording;
  const TraceContext one = trace::parse(kParent);
  TraceContext sibling = one;
  sibling.span = 7;
  TraceContext quiet = trace::Span(Kind::kServer, "GET", "/", {}).context();
  const TraceContext other = quiet;
  quiet.flags = 0;
  recording.kept.spans.clear();

  EXPECT_EQ(trace::Span::of_batch(Kind::kConsumer, "process", "x", std::vector{one, sibling}).context().trace_id(),
            kTraceId);
  const std::string mixed =
      trace::Span::of_batch(Kind::kConsumer, "process", "x", std::vector{one, other}).context().trace_id();
  EXPECT_FALSE(trace::Span::of_batch(Kind::kConsumer, "process", "x", std::vector{quiet, quiet}).recorded());
  trace::Span::of_batch(Kind::kConsumer, "process", "x", std::vector{quiet, one});
  trace::Span::of_batch(Kind::kConsumer, "process", "x", std::vector{trace::begin()});
  trace::Span::of_batch(Kind::kConsumer, "process", "x", std::vector<TraceContext>(200, one));

  const auto& spans = recording.kept.spans;
  ASSERT_EQ(spans.size(), 5u);
  EXPECT_EQ(spans[0].parent, one.span);
  EXPECT_EQ(spans[0].links.size(), 2u);
  EXPECT_EQ(spans[1].parent, 0u);
  EXPECT_NE(mixed, kTraceId);
  EXPECT_NE(mixed, other.trace_id());
  EXPECT_EQ(spans[1].links.size(), 2u);
  ASSERT_EQ(spans[2].links.size(), 1u) << "what is not recorded cannot be linked to";
  EXPECT_EQ(spans[2].links[0].trace_id(), kTraceId);
  EXPECT_TRUE(spans[3].links.empty());
  EXPECT_EQ(spans[4].links.size(), 128u);
  EXPECT_EQ(spans[4].dropped_links, 72u);
}

TEST(OtlpTest, SpansAreEncodedAsTheSpecificationHasIt) {
  trace::SpanData span;
  span.context = trace::parse(kParent, "vendor=1");
  span.parent = 0x1122334455667788;
  span.kind = Kind::kConsumer;
  span.name = "process text.processed";
  span.start = 1'700'000'000'000'000'001;
  span.end = 1'700'000'000'000'000'999;
  span.attributes = {{"text", std::string("a \"b\"\xff")},
                     {"count", std::int64_t{9'007'199'254'740'993}},
                     {"share", 0.5},
                     {"flag", true}};
  span.events = {{"exception", 1'700'000'000'000'000'500, {{"exception.type", std::string("PermanentError")}}}};
  span.links = {trace::parse(kParent)};
  span.dropped_links = 3;
  span.failed = true;
  span.error = "no such page";
  const auto json = nlohmann::json::parse(http::otlp_json({span}, {{"service.name", "tts"}, {"process.pid", "42"}}));
  EXPECT_EQ(json, nlohmann::json::parse(R"({"resourceSpans":[{
    "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"tts"}},
                              {"key":"process.pid","value":{"intValue":"42"}}]},
    "scopeSpans":[{"scope":{"name":"pipegen"},"spans":[{
      "traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","traceState":"vendor=1","flags":1,
      "parentSpanId":"1122334455667788","name":"process text.processed","kind":5,
      "startTimeUnixNano":"1700000000000000001","endTimeUnixNano":"1700000000000000999",
      "attributes":[{"key":"text","value":{"stringValue":"a \"b\"\ufffd"}},
                    {"key":"count","value":{"intValue":"9007199254740993"}},
                    {"key":"share","value":{"doubleValue":0.5}},
                    {"key":"flag","value":{"boolValue":true}}],
      "events":[{"timeUnixNano":"1700000000000000500","name":"exception",
                 "attributes":[{"key":"exception.type","value":{"stringValue":"PermanentError"}}]}],
      "links":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","flags":1}],
      "droppedLinksCount":3,
      "status":{"code":2,"message":"no such page"}}]}]}]})"));
  EXPECT_EQ(static_cast<int>(Kind::kInternal), 1);
  EXPECT_EQ(static_cast<int>(Kind::kServer), 2);
  EXPECT_EQ(static_cast<int>(Kind::kClient), 3);
  EXPECT_EQ(static_cast<int>(Kind::kProducer), 4);
}

// ------------------------------------------------------------------------------------------------ the environment

/// Variables of this process, put back in the end.
class Environment {
 public:
  Environment(std::initializer_list<std::pair<std::string, std::string>> values) {
    for (const auto& [name, value] : values) {
      ::setenv(name.c_str(), value.c_str(), 1);
      names_.push_back(name);
    }
  }
  ~Environment() {
    for (const auto& name : names_) ::unsetenv(name.c_str());
  }

 private:
  std::vector<std::string> names_;
};

std::string attribute(const TraceExporterOptions& options, const std::string& name) {
  for (const auto& [key, value] : options.resource) {
    if (key == name) return value;
  }
  return "";
}

TEST(TraceOptionsTest, WithoutAnEndpointNothingHappens) {
  EXPECT_FALSE(http::trace_options_from_environment("tts", "p"));
  Metrics metrics;
  EXPECT_EQ(http::export_traces("tts", "p", metrics), nullptr);
  EXPECT_FALSE(trace::recording());
  EXPECT_EQ(metrics.render().find("pipegen_spans"), std::string::npos);
  for (const auto& off : {std::pair("OTEL_SDK_DISABLED", "True"), std::pair("OTEL_TRACES_EXPORTER", "none")}) {
    const Environment environment{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"}, {off.first, off.second}};
    EXPECT_FALSE(http::trace_options_from_environment("tts", "p")) << off.first;
  }
  const Environment empty{{"OTEL_EXPORTER_OTLP_ENDPOINT", ""}};
  EXPECT_FALSE(http::trace_options_from_environment("tts", "p"));
}

TEST(TraceOptionsTest, TheVariablesMeanWhatOpenTelemetrySays) {
  {
    const Environment environment{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"}};
    const auto options = http::trace_options_from_environment("tts", "pdf-to-audio");
    ASSERT_TRUE(options);
    EXPECT_EQ(options->url, "http://collector:4318/v1/traces");
    EXPECT_EQ(attribute(*options, "service.name"), "tts");
    EXPECT_EQ(attribute(*options, "service.namespace"), "pdf-to-audio");
    EXPECT_EQ(options->max_queue, 2'048u);
    EXPECT_EQ(options->max_batch, 512u);
    EXPECT_EQ(options->delay, 5s);
    EXPECT_EQ(options->timeout, 10s);
    EXPECT_TRUE(options->sampler.parent_based);
    EXPECT_EQ(options->sampler.ratio, 1);
  }
  const Environment environment{{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"},
                                {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/otlp"},
                                {"OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret%20one, x-tenant = 7 ,broken, a b=c"},
                                {"OTEL_EXPORTER_OTLP_TIMEOUT", "2500"},
                                {"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"},
                                {"OTEL_SERVICE_NAME", "speech"},
                                {"OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb"},
                                {"OTEL_TRACES_SAMPLER", "parentbased_traceidratio"},
                                {"OTEL_TRACES_SAMPLER_ARG", "0.25"},
                                {"OTEL_BSP_MAX_QUEUE_SIZE", "100"},
                                {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "500"},
                                {"OTEL_BSP_SCHEDULE_DELAY", "nonsense"}};
  const auto options = http::trace_options_from_environment("tts", "");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->url, "https://traces.example/otlp") << "as it is";
  EXPECT_EQ(options->headers, (TraceExporterOptions::Texts{{"api-key", "secret one"}, {"x-tenant", "7"}}));
  EXPECT_EQ(options->timeout, 1'500ms);
  EXPECT_EQ(attribute(*options, "service.name"), "speech");
  EXPECT_EQ(attribute(*options, "deployment.environment.name"), "a,b");
  EXPECT_EQ(attribute(*options, "service.namespace"), "");
  EXPECT_TRUE(options->sampler.parent_based);
  EXPECT_EQ(options->sampler.ratio, 0.25);
  EXPECT_EQ(options->max_queue, 100u);
  EXPECT_EQ(options->max_batch, 100u) << "no more than wait at a time";
  EXPECT_EQ(options->delay, 5s);
  for (const auto& [name, parent_based, ratio] :
       {std::tuple("always_on", false, 1.0), std::tuple("always_off", false, 0.0),
        std::tuple("parentbased_always_off", true, 0.0), std::tuple("traceidratio", false, 0.25),
        std::tuple("sometimes", true, 1.0)}) {
    ::setenv("OTEL_TRACES_SAMPLER", name, 1);
    const auto other = http::trace_options_from_environment("tts", "");
    EXPECT_EQ(other->sampler.parent_based, parent_based) << name;
    EXPECT_EQ(other->sampler.ratio, ratio) << name;
  }
}

// ------------------------------------------------------------------------------------------------ the exporter

TraceExporterOptions options_for(const std::string& url) {
  TraceExporterOptions options;
  options.url = url + "/v1/traces";
  options.resource = {{"service.name", "test"}};
  options.delay = 20ms;
  options.retry_first = 20ms;
  options.retry_most = 50ms;
  return options;
}

double metric(const Metrics& metrics, const std::string& name) {
  const std::string text = metrics.render(), line = "\n" + name + " ";
  const auto at = text.find(line);
  return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + line.size(), nullptr);
}
double exported(const Metrics& metrics) { return metric(metrics, "pipegen_spans_exported_total"); }
double dropped(const Metrics& metrics) { return metric(metrics, "pipegen_spans_dropped_total"); }

void make_spans(int count) {
  for (int i = 0; i < count; ++i) trace::Span(Kind::kInternal, "work", "", {});
}

/// A port that nobody listens on.
std::string nobody() {
  const TraceCollector gone;
  return gone.url();
}

TEST(TraceExporterTest, SendsInBatchesWithItsHeadersAndTheRestAtTheEnd) {
  TraceCollector collector;
  Metrics metrics;
  TraceExporterOptions options = options_for(collector.url());
  options.headers = {{"api-key", "secret"}};
  options.max_batch = 10;
  options.delay = 1h;
  TraceExporter exporter(options, metrics);
  make_spans(25);
  EXPECT_TRUE(eventually([&] { return exported(metrics) >= 10; })) << "a full batch does not wait";
  exporter.close();
  EXPECT_EQ(collector.spans().size(), 25u);
  EXPECT_EQ(collector.requests(), 3);
  EXPECT_EQ(collector.last_headers()["api-key"], "secret");
  EXPECT_EQ(collector.problems(), std::vector<std::string>{});
  EXPECT_EQ(exported(metrics), 25);
  EXPECT_EQ(dropped(metrics), 0);
  EXPECT_FALSE(trace::recording());
  make_spans(5);
  exporter.close();
  EXPECT_EQ(collector.spans().size(), 25u);
}

TEST(TraceExporterTest, WhileTheCollectorIsAwaySpansBeyondTheQueueAreDroppedAndCounted) {
  Metrics metrics;
  TraceExporterOptions options = options_for(nobody());
  options.max_queue = 64;
  options.max_batch = 16;
  TraceExporter exporter(options, metrics);
  const auto began = Clock::now();
  make_spans(10'000);
  EXPECT_LT(Clock::now() - began, 2s) << "nobody waits for it";
  // At most one batch is being tried, the queue is full, the rest is lost.
  EXPECT_GE(dropped(metrics), 10'000 - 64 - 16);
  EXPECT_EQ(exported(metrics), 0);
  const auto closing = Clock::now();
  exporter.close();
  EXPECT_LT(Clock::now() - closing, options.flush_time + 2s);
  EXPECT_EQ(dropped(metrics), 10'000);
}

TEST(TraceExporterTest, WhatACollectorRefusesForNowIsSentAgainAndNothingElse) {
  ::testing::internal::CaptureStderr();
  Logger::configure("test", LogLevel::kInfo);
  TraceCollector collector;
  Metrics metrics;
  TraceExporterOptions options = options_for(collector.url());
  options.url += "?key=secret";
  options.headers = {{"api-key", "secret"}};
  collector.answer(503);
  TraceExporter exporter(options, metrics);
  make_spans(3);
  ASSERT_TRUE(eventually([&] { return collector.requests() >= 5; }));
  EXPECT_EQ(exported(metrics), 0);
  EXPECT_EQ(dropped(metrics), 0);
  collector.answer(200);
  ASSERT_TRUE(eventually([&] { return exported(metrics) == 3; }));
  EXPECT_EQ(collector.spans().size(), 3u);
  const std::string log = ::testing::internal::GetCapturedStderr();
  const std::string said = "spans cannot be exported";
  ASSERT_NE(log.find(said), std::string::npos) << log;
  EXPECT_EQ(log.find(said), log.rfind(said)) << "once, not at every try: " << log;
  EXPECT_NE(log.find("the collector takes spans again"), std::string::npos) << log;
  EXPECT_EQ(log.find("secret"), std::string::npos) << log;

  collector.answer(400);
  const int before = collector.requests();
  make_spans(2);
  ASSERT_TRUE(eventually([&] { return dropped(metrics) == 2; }));
  EXPECT_EQ(collector.requests(), before + 1);

  collector.answer(200, R"({"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}})");
  make_spans(4);
  ASSERT_TRUE(eventually([&] { return exported(metrics) == 6; }));
  EXPECT_EQ(dropped(metrics), 3);
}

TEST(TraceExporterTest, ACollectorThatHangsHoldsUpNeitherSpansNorTheEnd) {
  TraceCollector collector;
  collector.hold();
  Metrics metrics;
  TraceExporterOptions options = options_for(collector.url());
  options.max_queue = 100;
  options.flush_time = 500ms;
  TraceExporter exporter(options, metrics);
  make_spans(1);
  ASSERT_TRUE(eventually([&] { return collector.requests() == 1; }));
  const auto began = Clock::now();
  make_spans(1'000);
  EXPECT_LT(Clock::now() - began, 1s);
  EXPECT_EQ(dropped(metrics), 900);
  const auto closing = Clock::now();
  exporter.close();
  EXPECT_LT(Clock::now() - closing, 3s);
  EXPECT_EQ(exported(metrics), 0);
}

TEST(TraceExporterTest, AnEndpointThatIsNoUrlStopsNobody) {
  Metrics metrics;
  TraceExporterOptions options = options_for("");
  options.url = "collector:4318";
  TraceExporter exporter(options, metrics);
  make_spans(3);
  EXPECT_TRUE(eventually([&] { return dropped(metrics) == 3; }));
}

// ------------------------------------------------------------------------------------------------ pipelines

Topology book_topology() {
  Topology out;
  out.streams = {{.name = "JOBS", .subjects = {"book.>"}, .max_age = 1h},
                 {.name = "BOOK_DLQ", .subjects = {"dlq.book.>"}}};
  out.object_buckets = {{.schema_name = "BOOKS", .name = "BOOKS"}};
  out.key_values = {{.schema_name = "STATUS", .name = "BOOK_STATUS"}, {.schema_name = "STATE", .name = "BOOK_STATE"}};
  return out;
}

/// POST /books publishes book.created with the workflow's id.
IngestApi book_api() {
  IngestApi api;
  api.pipeline = "book";
  api.section = "ingest_api";
  api.port = 0;
  api.topology = book_topology();
  api.status_bucket = "STATUS";
  api.openapi = "{}";
  Upload upload;
  upload.path = "/books";
  upload.bucket = "BOOKS";
  upload.max_size = 1 << 20;
  upload.event = "BookCreated";
  upload.publish = [](std::string_view, const std::string& workflow, const std::string&, Outbox& outbox) {
    outbox.publish({.event = "BookCreated", .subject = "book.created", .payload = workflow});
  };
  api.add_upload(std::move(upload));
  return api;
}

Stage book_stage(std::string name, std::string subject,
                 std::function<void(std::string_view, Context&, Outbox&)> handle) {
  Stage stage;
  stage.pipeline = "book";
  stage.name = name;
  stage.section = name + "_service";
  stage.topology = book_topology();
  stage.stream = "JOBS";
  stage.durable = name + "-workers";
  stage.filter_subject = std::move(subject);
  stage.event = "Input";
  stage.concurrency = 2;
  stage.ack_wait = 5s;
  stage.timeout = 20s;
  stage.backoff = {20ms};
  stage.dead_letter_stream = "BOOK_DLQ";
  stage.dead_letter_subject = "dlq.book." + name;
  stage.status_bucket = "STATUS";
  stage.handle = std::move(handle);
  return stage;
}

constexpr int kPages = 4;

/// Splits a book into pages, reads each, joins them: an API and three workers, as in four processes but for the one
/// exporter.
class Pipeline : public ::testing::Test {
 protected:
  Pipeline() { nats::ensure(connection_, book_topology()); }

  void export_to(TraceExporterOptions options) {
    exporter_ = std::make_unique<TraceExporter>(std::move(options), metrics_);
  }

  void start() {
    api_ = std::make_unique<http::IngestServer>(book_api(), Settings(), metrics_);
    api_->start();
    api_->attach(connection_);
    run(book_stage("split", "book.created", [](std::string_view book, Context& context, Outbox& outbox) {
      if (!context.objects("BOOKS").info(book)) throw PermanentError("there is no such book");
      context.objects("BOOKS").get(book);
      for (int page = 1; page <= kPages; ++page) {
        outbox.publish(
            {.event = "Page", .subject = "book.page", .payload = std::string(book) + " " + std::to_string(page)});
      }
    }));
    run(book_stage("read", "book.page", [](std::string_view page, Context& context, Outbox& outbox) {
      context.log().info("reading");
      // The second page fails once, after it has published what it makes; the message is delivered again.
      const bool fails = page.ends_with(" 2") && context.message().deliveries == 1;
      context.objects("BOOKS").put(std::string(page) + ".txt", bytes_of("text"));
      outbox.publish({.event = "Text", .subject = "book.text", .payload = std::string(page)});
      if (fails) throw TransientError("the lamp went out");
    }));
    Stage join = book_stage("join", "book.text", {});
    join.collect = Collect{
        .state_bucket = "STATE",
        .expires = 1h,
        .item =
            [](std::string_view payload) {
              Collect::Item item;
              item.group = std::string(payload.substr(0, payload.find(' ')));
              item.index = std::stoi(std::string(payload.substr(payload.find(' ') + 1)));
              item.count = kPages;
              return item;
            },
        .handle =
            [](const std::vector<std::string>& pages, Context&, Outbox& outbox) {
              outbox.publish({.event = "Audio", .subject = "book.audio", .payload = pages[0], .is_result = true});
            }};
    run(std::move(join));
  }

  void run(Stage stage) {
    worker::WorkerOptions options;
    options.hold_first = 50ms;
    options.hold_most = 200ms;
    workers_.push_back(std::make_unique<worker::Worker>(connection_, std::move(stage), Settings(), metrics_, options));
    workers_.back()->start();
  }

  void upload(const std::string& traceparent = "") {
    httplib::Client http("127.0.0.1", api_->port());
    httplib::Headers headers;
    if (!traceparent.empty()) headers = {{"traceparent", traceparent}, {"tracestate", "vendor=1"}};
    const auto answer = http.Post("/books", headers, "a book", "text/plain");
    ASSERT_TRUE(answer);
    ASSERT_EQ(answer->status, 202) << answer->body;
  }

  /// What was published on the subject, by header.
  std::vector<std::string> headers_on(const std::string& subject, const char* name) {
    std::vector<std::string> out;
    nats::StreamInfo info;
    auto* js = connection_.handles().consume_js;
    EXPECT_EQ(js_GetStreamInfo(info.out(), js, "JOBS", nullptr, nullptr), NATS_OK);
    for (std::uint64_t at = 1; info && at <= info->State.LastSeq; ++at) {
      nats::Message message;
      if (js_GetMsg(message.out(), js, "JOBS", at, nullptr, nullptr) != NATS_OK) continue;
      if (subject != natsMsg_GetSubject(message.get())) continue;
      const char* value = nullptr;
      out.emplace_back(natsMsgHeader_Get(message.get(), name, &value) == NATS_OK ? value : "");
    }
    return out;
  }

  bool finished(std::size_t books) {
    return eventually([&] { return headers_on("book.audio", "traceparent").size() >= books; }) && eventually([&] {
             return std::all_of(workers_.begin(), workers_.end(),
                                [](const auto& worker) { return worker->in_hand() == 0; });
           });
  }

  NatsServer server_;
  nats::Connection connection_{{.url = server_.url()}};
  Metrics metrics_;
  std::unique_ptr<TraceExporter> exporter_;
  std::unique_ptr<http::IngestServer> api_;
  std::vector<std::unique_ptr<worker::Worker>> workers_;
};

std::vector<CollectedSpan> named(const std::vector<CollectedSpan>& spans, const std::string& name) {
  std::vector<CollectedSpan> out;
  for (const auto& span : spans) {
    if (span.name == name) out.push_back(span);
  }
  return out;
}

TEST_F(Pipeline, OneUploadIsOneTraceAlsoWhenAMessageIsDeliveredAgain) {
  TraceCollector collector;
  export_to(options_for(collector.url()));
  start();
  upload();
  upload(kParent);
  ASSERT_TRUE(finished(2));
  workers_.clear();
  api_.reset();
  exporter_->close();

  EXPECT_EQ(collector.problems(), std::vector<std::string>{});
  EXPECT_EQ(dropped(metrics_), 0);
  std::set<std::string> traces;
  for (const auto& span : collector.spans()) traces.insert(span.trace);
  ASSERT_EQ(traces.size(), 2u) << "each upload is one trace, and nothing else is";
  ASSERT_TRUE(traces.contains(kTraceId));
  for (const std::string& trace : traces) {
    const auto spans = collector.of_trace(trace);
    const bool from_client = trace == kTraceId;
    SCOPED_TRACE(from_client ? "with the client's trace" : "without a trace of the client's");
    if (from_client) {  // the client's own span is not ours to export
      EXPECT_EQ(orphans(spans), std::multiset<std::string>{"test: POST /books"});
      for (const auto& span : spans) EXPECT_EQ(span.state, "vendor=1") << span.name;
      for (const auto& state : headers_on("book.audio", "tracestate"))
        EXPECT_TRUE(state.empty() || state == "vendor=1");
    } else {
      EXPECT_EQ(orphans(spans), std::multiset<std::string>{});
      EXPECT_EQ(std::count_if(spans.begin(), spans.end(), [](const auto& span) { return span.parent.empty(); }), 1);
    }
    const auto server = named(spans, "POST /books");
    ASSERT_EQ(server.size(), 1u);
    EXPECT_EQ(server[0].kind, 2);
    EXPECT_EQ(server[0].parent, from_client ? kSpanId : "");
    EXPECT_TRUE(server[0].has("http.route", "/books"));
    EXPECT_TRUE(server[0].has("http.response.status_code", 202));
    ASSERT_EQ(named(spans, "put BOOKS").size(), 1u + kPages + 1);

    const auto sent = named(spans, "send book.created");
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_EQ(sent[0].kind, 4);
    EXPECT_EQ(sent[0].parent, server[0].id);
    const auto split = named(spans, "process book.created");
    ASSERT_EQ(split.size(), 1u);
    EXPECT_EQ(split[0].kind, 5);
    EXPECT_EQ(split[0].parent, sent[0].id);
    EXPECT_TRUE(split[0].has("messaging.system", "nats"));
    EXPECT_TRUE(split[0].has("messaging.operation.name", "process"));
    EXPECT_TRUE(split[0].has("messaging.message.id", sent[0].attributes.at("messaging.message.id")));
    EXPECT_TRUE(
        split[0].has("messaging.message.conversation_id", sent[0].attributes.at("messaging.message.conversation_id")));
    EXPECT_TRUE(split[0].has("messaging.consumer.group.name", "split-workers"));
    EXPECT_TRUE(split[0].has("pipegen.stream", "JOBS"));
    EXPECT_TRUE(split[0].has("pipegen.deliveries", 1));
    EXPECT_FALSE(split[0].failed);
    EXPECT_EQ(named(spans, "get BOOKS").at(0).parent, split[0].id);

    // A page is sent once and read once, but for the one that failed: that one is read twice, in the same trace.
    const auto pages = named(spans, "send book.page");
    ASSERT_EQ(pages.size(), static_cast<std::size_t>(kPages));
    std::set<std::string> page_ids;
    for (const auto& page : pages) {
      EXPECT_EQ(page.parent, split[0].id);
      page_ids.insert(page.id);
    }
    const auto reads = named(spans, "process book.page");
    ASSERT_EQ(reads.size(), static_cast<std::size_t>(kPages) + 1);
    int failed = 0;
    std::set<std::string> parents;
    for (const auto& read : reads) {
      EXPECT_TRUE(page_ids.contains(read.parent));
      parents.insert(read.parent);
      if (!read.failed) continue;
      ++failed;
      EXPECT_TRUE(read.has("pipegen.deliveries", 1));
      EXPECT_EQ(read.error, "the lamp went out");
      EXPECT_TRUE(read.has("error.type", "TransientError"));
      EXPECT_EQ(read.exceptions, std::vector<std::string>{"the lamp went out"});
    }
    EXPECT_EQ(failed, 1);
    EXPECT_EQ(parents.size(), static_cast<std::size_t>(kPages));
    const auto audio = named(spans, "send book.audio");
    ASSERT_EQ(audio.size(), 1u);
  }
  // What goes on from here, in whatever process, is a child of a span that was exported.
  std::set<std::string> ids;
  for (const auto& span : collector.spans()) ids.insert("00-" + span.trace + "-" + span.id + "-01");
  for (const char* subject : {"book.created", "book.page", "book.text", "book.audio"}) {
    for (const auto& traceparent : headers_on(subject, "traceparent")) {
      EXPECT_TRUE(ids.contains(traceparent)) << subject << " " << traceparent;
    }
  }
}

TEST_F(Pipeline, WhatTheClientDoesNotRecordNobodyRecords) {
  TraceCollector collector;
  export_to(options_for(collector.url()));
  start();
  upload(kParent.substr(0, 53) + "00");
  ASSERT_TRUE(finished(1));
  upload(kParent);
  ASSERT_TRUE(finished(2));
  workers_.clear();
  exporter_->close();
  EXPECT_EQ(named(collector.spans(), "POST /books").size(), 1u);
  EXPECT_EQ(named(collector.spans(), "process book.created").size(), 1u);
  EXPECT_TRUE(headers_on("book.audio", "traceparent").at(0).ends_with("-00"));
  EXPECT_TRUE(headers_on("book.audio", "traceparent").at(1).ends_with("-01"));
}

TEST_F(Pipeline, TheLinesOfAHandlerNameItsTraceAndItsSpan) {
  ::testing::internal::CaptureStderr();
  Logger::configure("test", LogLevel::kInfo);
  TraceCollector collector;
  export_to(options_for(collector.url()));
  start();
  upload(kParent);
  ASSERT_TRUE(finished(1));
  workers_.clear();
  exporter_->close();
  const std::string log = ::testing::internal::GetCapturedStderr();
  const auto spans = collector.of_trace(kTraceId);
  const auto reads = named(spans, "process book.page");
  ASSERT_EQ(reads.size(), static_cast<std::size_t>(kPages) + 1);
  for (const auto& read : reads) {
    EXPECT_NE(log.find(std::string(R"("trace_id":")") + kTraceId + R"(","span_id":")" + read.id + "\""),
              std::string::npos)
        << read.id << "\n"
        << log;
  }
  EXPECT_NE(log.find(R"("span_id":")" + named(spans, "POST /books").at(0).id + "\""), std::string::npos) << log;
}

TEST_F(Pipeline, ACollectorThatIsAwaySlowOrRefusesHoldsNoMessageUp) {
  TraceCollector collector;
  TraceExporterOptions options = options_for(nobody());
  const auto away = options.url;
  options.max_queue = 32;
  options.max_batch = 16;
  options.flush_time = 500ms;
  std::size_t books = 0;
  for (const std::string kind : {"away", "hangs", "refuses"}) {
    SCOPED_TRACE(kind);
    options.url = kind == "away" ? away : collector.url() + "/v1/traces";
    kind == "hangs" ? collector.hold() : collector.release();
    if (kind == "refuses") collector.answer(503);
    exporter_.reset();
    const double before = std::max(0.0, dropped(metrics_));
    export_to(options);
    if (books == 0) start();
    for (int i = 0; i < 10; ++i) upload();
    books += 10;
    ASSERT_TRUE(finished(books));
    EXPECT_GT(dropped(metrics_), before) << "the queue is small, and counted is what did not fit";
    EXPECT_EQ(exported(metrics_), 0);
    const auto closing = Clock::now();
    exporter_->close();
    EXPECT_LT(Clock::now() - closing, 3s);
  }
}

// ------------------------------------------------------------------------------------------------ rows

Topology shop_topology() {
  Topology out;
  out.add_stream({.name = "SHOP_INGEST", .subjects = {"shop.ingest.>"}, .retention = Retention::kWorkQueue});
  out.add_stream({.name = "SHOP_DLQ", .subjects = {"dlq.shop.>"}});
  return out;
}

std::int64_t read_id(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"id"}};
  std::int64_t id = 0;
  for (json::Object fields(in, kFields); fields.next();) id = in.int64();
  return id;
}

/// An API for things, and the worker that makes rows of them in SQLite.
class Rows : public ::testing::Test {
 protected:
  Rows() {
    nats::ensure(connection_, shop_topology());
    schema_.pipeline = "shop";
    schema_.add_table({.name = "things", .columns = {{.name = "id", .kind = sql::Kind::kInt64}}, .key = {0}});
    database_ = sql::open_sqlite(settings_, schema_);
    database_->migrate();
    IngestApi api;
    api.pipeline = "shop";
    api.section = "ingest_api";
    api.port = 0;
    api.topology = shop_topology();
    api.entity_stream = "SHOP_INGEST";
    api.open_status = sql::find_message_in_sqlite;
    api.openapi = "{}";
    api.add_entity(
        {.name = "Thing", .path = "thing", .subject = "shop.ingest.thing", .check = [](std::string_view body) {
           json::parse(body, read_id);
         }});
    api_ = std::make_unique<http::IngestServer>(std::move(api), settings_, metrics_);
    api_->start();
    api_->attach(connection_);
    exporter_ = std::make_unique<TraceExporter>(options_for(collector_.url()), metrics_);
  }

  void start_worker() {
    EntityWorkerSpec spec;
    spec.pipeline = "shop";
    spec.name = "entity-worker";
    spec.section = "entity_worker_service";
    spec.topology = shop_topology();
    spec.stream = "SHOP_INGEST";
    spec.dead_letter_stream = "SHOP_DLQ";
    spec.dead_letter_subject = "dlq.shop.entity-worker";
    spec.schema = schema_;
    spec.add_entity({.name = "Thing",
                     .subject = "shop.ingest.thing",
                     .durable = "things",
                     .add_rows = [](std::string_view payload, sql::Batch& batch) {
                       const std::int64_t id = json::parse(payload, read_id);
                       if (id == 13) throw PermanentError("nobody wants this one");
                       sql::Row row = batch.add_row(0);
                       row.add(id);
                     }});
    worker_ = std::make_unique<entities::EntityWorker>(connection_, std::move(spec), settings_, *database_, metrics_);
    worker_->start();
  }

  /// Gives the message's id.
  std::string post(int id, const std::string& traceparent = "") {
    httplib::Client http("127.0.0.1", api_->port());
    httplib::Headers headers;
    if (!traceparent.empty()) headers = {{"traceparent", traceparent}};
    const auto answer = http.Post("/ingest/thing", headers, R"({"id":)" + std::to_string(id) + "}", "application/json");
    EXPECT_TRUE(answer);
    EXPECT_EQ(answer->status, 202) << answer->body;
    return nlohmann::json::parse(answer->body).at("message_id").get<std::string>();
  }

  nlohmann::json status(const std::string& id) {
    httplib::Client http("127.0.0.1", api_->port());
    const auto answer = http.Get("/ingest/status/" + id);
    return answer && answer->status == 200 ? nlohmann::json::parse(answer->body) : nlohmann::json();
  }
  bool has_state(const std::string& id, const std::string& state) {
    return eventually([&] {
      const auto now = status(id);
      return now.is_object() && now.at("status") == state;
    });
  }

  void end() {
    worker_->stop();
    api_.reset();
    exporter_->close();
    EXPECT_EQ(collector_.problems(), std::vector<std::string>{});
  }

  NatsServer server_;
  TempFolder folder_;
  TraceCollector collector_;
  Metrics metrics_;
  Settings settings_ =
      Settings::from("[database]\nurl = 'sqlite:" + (folder_.path() / "shop.db").string() + "'\n", "project.toml", {});
  sql::Schema schema_;
  nats::Connection connection_{{.url = server_.url()}};
  std::unique_ptr<sql::Database> database_;
  std::unique_ptr<TraceExporter> exporter_;
  std::unique_ptr<http::IngestServer> api_;
  std::unique_ptr<entities::EntityWorker> worker_;
};

TEST_F(Rows, TheTraceOfAPostReachesItsRowAndGoesThroughTheTransaction) {
  start_worker();
  const std::string id = post(1, kParent);
  ASSERT_TRUE(has_state(id, "completed"));
  const auto said = status(id);
  const std::string bad = post(13);
  ASSERT_TRUE(has_state(bad, "dead_lettered"));
  const auto bad_said = status(bad);
  end();

  const auto spans = collector_.of_trace(kTraceId);
  EXPECT_EQ(orphans(spans), std::multiset<std::string>{"test: POST /ingest/thing"});
  const auto server = named(spans, "POST /ingest/thing").at(0);
  const auto sent = named(spans, "send shop.ingest.thing").at(0);
  EXPECT_EQ(server.parent, kSpanId);
  EXPECT_EQ(sent.parent, server.id);
  EXPECT_EQ(said.at("traceparent"), "00-" + sent.trace + "-" + sent.id + "-01");
  const auto batch = named(spans, "process shop.ingest.thing").at(0);
  EXPECT_EQ(batch.kind, 5);
  EXPECT_EQ(batch.parent, sent.id);
  ASSERT_EQ(batch.links.size(), 1u);
  EXPECT_EQ(batch.links[0].span, sent.id);
  EXPECT_TRUE(batch.has("messaging.batch.message_count", 1));
  const auto transaction = named(spans, "BATCH INSERT").at(0);
  EXPECT_EQ(transaction.kind, 3);
  EXPECT_EQ(transaction.parent, batch.id);
  EXPECT_TRUE(transaction.has("db.system.name", "sqlite"));

  // A trace of its own, and the row of a dead letter has it too.
  const std::string other = bad_said.at("traceparent").get<std::string>().substr(3, 32);
  EXPECT_NE(other, kTraceId);
  const auto failed = named(collector_.of_trace(other), "process shop.ingest.thing").at(0);
  EXPECT_TRUE(failed.failed);
  EXPECT_EQ(failed.exceptions, std::vector<std::string>{bad + ": nobody wants this one"});
}

TEST_F(Rows, ABatchOfSeveralTracesHasOneOfItsOwnAndIsLinkedToEach) {
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.insert(post(i));
  httplib::Client http("127.0.0.1", api_->port());
  const auto answer =
      http.Post("/ingest/batch?entity=thing", "{\"id\":7}\n{\"id\":8}\n{\"id\":9}\n", "application/x-ndjson");
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->status, 202) << answer->body;
  start_worker();
  for (const auto& id : ids) ASSERT_TRUE(has_state(id, "completed"));
  ASSERT_TRUE(
      eventually([&] { return exported(metrics_) > 0 && named(collector_.spans(), "BATCH INSERT").size() > 0; }));
  end();

  const auto spans = collector_.spans();
  std::set<std::string> created;  // the contexts of the messages
  for (const auto& span : named(spans, "send shop.ingest.thing")) created.insert(span.trace + span.id);
  ASSERT_EQ(created.size(), 3u);
  const auto many = named(spans, "POST /ingest/batch").at(0);
  EXPECT_TRUE(many.has("messaging.batch.message_count", 3));
  created.insert(many.trace + many.id);  // of all of its messages

  std::set<std::string> linked;
  std::int64_t messages = 0;
  for (const auto& batch : named(spans, "process shop.ingest.thing")) {
    for (const auto& link : batch.links) linked.insert(link.trace + link.span);
    messages += batch.attributes.at("messaging.batch.message_count").get<std::int64_t>();
    std::set<std::string> of;
    for (const auto& link : batch.links) of.insert(link.trace);
    EXPECT_EQ(batch.parent.empty(), of.size() > 1);
    EXPECT_EQ(of.contains(batch.trace), of.size() == 1);
  }
  EXPECT_EQ(messages, 6);
  EXPECT_EQ(linked, created);
  EXPECT_EQ(orphans(spans), std::multiset<std::string>{});
}

}  // namespace
}  // namespace pipegen
