// Sends the spans of this process to a collector: OTLP over HTTP, as JSON.
//
//   const auto traces = http::export_traces("tts", "pdf-to-audio", metrics);   // null unless the environment asks for
//   it
//
// Environment variables, as OpenTelemetry names and means them:
//   OTEL_EXPORTER_OTLP_ENDPOINT    http://127.0.0.1:4318; without it, and without the next, nothing happens at all
//   OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, _HEADERS, _TIMEOUT (and the same with OTLP_TRACES_)
//   OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER (otlp, none)
//   OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
//   OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_SCHEDULE_DELAY
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/trace.hpp"
#include "pipegen/metrics.hpp"

namespace pipegen::http {

struct TraceExporterOptions {
  using Texts = std::vector<std::pair<std::string, std::string>>;
  std::string url{};  // of the traces
  Texts headers{};    // secrets: they are never logged
  Texts resource{};   // attributes: what the spans are of
  trace::Sampler sampler{};
  std::chrono::milliseconds timeout{10'000};  // of one request
  std::size_t max_queue = 2'048;              // spans that wait; more are dropped
  std::size_t max_batch = 512;                // spans of one request
  std::chrono::milliseconds delay{5'000};     // between requests, unless a batch is full before
  // While the collector is away: this between requests, doubled up to that.
  std::chrono::milliseconds retry_first{1'000};
  std::chrono::milliseconds retry_most{30'000};
  std::chrono::milliseconds flush_time{3'000};  // of close()
};

/// Nothing when no endpoint is given, or it is switched off. What has no meaning is logged, and its default taken: a
/// service does not stay down for its traces.
std::optional<TraceExporterOptions> trace_options_from_environment(std::string_view service, std::string_view pipeline);

/// An ExportTraceServiceRequest.
std::string otlp_json(const std::vector<trace::SpanData>& spans, const TraceExporterOptions::Texts& resource);

/// Takes the spans of the process from its construction to close(). A thread of its own sends them; a span never waits
/// for it, and is dropped, which is counted, when too many wait. A collector that is away is logged once, and once when
/// it is back. Counts in pipegen_spans_exported_total and pipegen_spans_dropped_total.
class TraceExporter {
 public:
  TraceExporter(TraceExporterOptions options, Metrics& metrics);
  ~TraceExporter() { close(); }
  TraceExporter(const TraceExporter&) = delete;
  TraceExporter& operator=(const TraceExporter&) = delete;

  /// Sends what waits, for `flush_time` at the most, and takes no more.
  void close();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

/// What trace_options_from_environment() asks for; null when that is nothing. `metrics` must outlive it.
std::unique_ptr<TraceExporter> export_traces(std::string_view service, std::string_view pipeline, Metrics& metrics);

}  // namespace pipegen::http
