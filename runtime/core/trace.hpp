// Spans: what a process did in a trace, for whoever takes them (see http/trace_exporter.hpp). Nobody does by default: a
// span is then only an id that goes out with what the process publishes.
//
//   trace::Span span(trace::Kind::kConsumer, "process", "text.processed", delivery.info.trace);
//   const trace::Scope scope(span);          // what this thread calls from here on are its children
//   span.set("messaging.system", "nats");
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "pipegen/trace.hpp"

namespace pipegen::trace {

/// What the two headers say; no trace when the first is missing or is none. A tracestate of more than 512 octets is
/// left out: messages have limits, and the recommendation asks for no more.
TraceContext parse(std::string_view traceparent, std::string_view tracestate = {});
/// A new trace, without a span.
TraceContext begin();
/// The trace of a message that came without one: the same at every delivery of it.
TraceContext begin_for(std::string_view message_id);
/// Adds the two headers; nothing without a span.
void add_to(std::map<std::string, std::string>& headers, const TraceContext& context);

enum class Kind { kInternal = 1, kServer, kClient, kProducer, kConsumer };  // as OTLP numbers them

using Value = std::variant<std::string, std::int64_t, double, bool>;
/// Names are literals.
struct Attribute {
  std::string_view name{};
  Value value{};
};

struct Event {
  std::string_view name{};
  std::int64_t time = 0;  // nanoseconds since the epoch, as all times here
  std::vector<Attribute> attributes{};
};

/// A span that has ended.
struct SpanData {
  TraceContext context{};
  std::uint64_t parent = 0;  // 0: the first of its trace
  Kind kind = Kind::kInternal;
  std::string name{};
  std::int64_t start = 0;
  std::int64_t end = 0;
  std::vector<Attribute> attributes{};
  std::vector<Event> events{};
  std::vector<TraceContext> links{};
  std::uint32_t dropped_links = 0;
  bool failed = false;
  std::string error{};  // why
};

/// Takes spans as they end, from any thread. Must not block.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void take(SpanData span) noexcept = 0;
};

/// Which spans are recorded.
struct Sampler {
  bool parent_based = true;  // what has a parent does as its parent does
  double ratio = 1;          // of the traces; chosen by their ids, so that every process chooses the same

  bool sample(const TraceContext& context, bool has_parent) const;
};

struct Tracer {
  Sink* sink = nullptr;
  Sampler sampler{};
};
/// Gives the spans of this process to `tracer`, or to nobody (null). Spans that have begun go to the one that they
/// began with: it must live until the process ends.
void use(const Tracer* tracer);
/// Whether anybody takes spans.
bool recording();

/// A piece of work. It has an id and a place in a trace in any case; everything else costs nothing unless it is
/// recorded. Ends when it is destroyed. Not thread safe; may move to another thread.
class Span {
 public:
  /// Nothing, without a trace.
  Span() = default;
  /// A child of `parent`, or the first span of its trace if that has none yet; of a new trace if there is none. Its
  /// name is "<verb> <object>".
  Span(Kind kind, std::string_view verb, std::string_view object, const TraceContext& parent);
  /// Recorded if one of `from` is, and linked to those: for a batch. A child of the first one if they are all of one
  /// trace, else the first span of a trace of its own. Contexts without a span do not count.
  static Span of_batch(Kind kind, std::string_view verb, std::string_view object,
                       const std::vector<TraceContext>& from);
  /// A child of what this thread works on; nothing when that is not recorded.
  static Span of_current(Kind kind, std::string_view verb, std::string_view object);
  Span(Span&&) noexcept = default;
  Span& operator=(Span&& other) noexcept;
  ~Span() { end(); }

  /// What goes out with whatever the span sends.
  const TraceContext& context() const noexcept { return context_; }
  bool recorded() const noexcept { return data_ != nullptr; }

  void set(std::string_view name, std::string_view value);
  void set(std::string_view name, const char* value) { set(name, std::string_view(value)); }
  void set(std::string_view name, const std::string& value) { set(name, std::string_view(value)); }
  void set(std::string_view name, bool value);
  void set(std::string_view name, double value);
  template <std::integral T>
  requires(!std::same_as<T, bool>) void set(std::string_view name, T value) {
    set_integer(name, static_cast<std::int64_t>(value));
  }
  /// It failed: sets error.type and the status, and adds an exception event.
  void fail(std::string_view type, std::string_view message);
  void end() noexcept;

 private:
  void record(const Tracer& tracer, Kind kind, std::string_view verb, std::string_view object, std::uint64_t parent);
  void set_integer(std::string_view name, std::int64_t value);

  TraceContext context_{};
  std::unique_ptr<SpanData> data_{};  // null: not recorded
  Sink* sink_ = nullptr;
  std::chrono::steady_clock::time_point began_{};
};

/// While it lives, what this thread calls belongs to the span, which must outlive it.
class Scope {
 public:
  explicit Scope(const Span& span);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  const Span* before_;
};

}  // namespace pipegen::trace
