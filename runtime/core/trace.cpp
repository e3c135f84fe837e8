#include "core/trace.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "core/random.hpp"

namespace pipegen {
namespace {

constexpr char kDigits[] = "0123456789abcdef";

void append_hex(std::string& text, std::uint64_t number, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) text += kDigits[(number >> shift) & 15];
}

}  // namespace

std::string TraceContext::trace_id() const {
  std::string text;
  if (!has_trace()) return text;
  text.reserve(32);
  append_hex(text, trace_high, 16);
  append_hex(text, trace_low, 16);
  return text;
}

std::string TraceContext::span_id() const {
  std::string text;
  if (span != 0) append_hex(text, span, 16);
  return text;
}

std::string TraceContext::traceparent() const {
  std::string text;
  if (!has_trace() || span == 0) return text;
  text.reserve(55);
  text += "00-";
  append_hex(text, trace_high, 16);
  append_hex(text, trace_low, 16);
  text += '-';
  append_hex(text, span, 16);
  text += '-';
  append_hex(text, flags, 2);
  return text;
}

namespace trace {
namespace {

constexpr std::size_t kMostState = 512;
constexpr std::size_t kMostText = 2'048;  // octets of an attribute
constexpr std::size_t kMostName = 256;    // octets of a span's name
constexpr std::size_t kMostLinks = 128;   // of a span, as OpenTelemetry limits them
constexpr std::size_t kMostEvents = 16;   // of a span

std::atomic<const Tracer*> active = nullptr;
thread_local const Span* current = nullptr;

/// Lower case only, as the recommendation has it.
std::optional<std::uint64_t> hex_number(std::string_view text) {
  std::uint64_t number = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      number = number << 4 | static_cast<std::uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      number = number << 4 | static_cast<std::uint64_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return number;
}

/// Not zero. The kernel is asked once a thread: a system call for each message would be felt.
std::uint64_t random_id() {
  thread_local std::mt19937_64 generator = [] {
    std::array<std::uint32_t, 16> entropy{};
    fill_random(std::as_writable_bytes(std::span(entropy)));
    std::seed_seq seed(entropy.begin(), entropy.end());
    return std::mt19937_64(seed);
  }();
  std::uint64_t id = 0;
  while (id == 0) id = generator();
  return id;
}

/// SplitMix64's finalizer: every bit of the number has a say in every bit of the result.
std::uint64_t mixed(std::uint64_t number) {
  number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9ULL;
  number = (number ^ (number >> 27)) * 0x94D049BB133111EBULL;
  return number ^ (number >> 31);
}

std::int64_t wall_clock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string shortened(std::string_view text, std::size_t most) { return std::string(text.substr(0, most)); }

}  // namespace

TraceContext parse(std::string_view traceparent, std::string_view tracestate) {
  // "00-<32 hex>-<16 hex>-<2 hex>"; a later version may go on after that.
  TraceContext none;
  if (traceparent.size() < 55 || traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-') return none;
  const std::string_view version = traceparent.substr(0, 2);
  if (version == "ff" ||
      (version == "00" ? traceparent.size() != 55 : traceparent.size() > 55 && traceparent[55] != '-'))
    return none;
  const auto high = hex_number(traceparent.substr(3, 16)), low = hex_number(traceparent.substr(19, 16)),
             span = hex_number(traceparent.substr(36, 16)), flags = hex_number(traceparent.substr(53, 2));
  if (!hex_number(version) || !high || !low || !span || !flags || (*high | *low) == 0 || *span == 0) return none;
  TraceContext context{
      .trace_high = *high, .trace_low = *low, .span = *span, .flags = static_cast<std::uint8_t>(*flags)};
  const bool printable =
      std::all_of(tracestate.begin(), tracestate.end(), [](unsigned char c) { return c >= 0x20 && c < 0x7f; });
  if (!tracestate.empty() && tracestate.size() <= kMostState && printable) {
    context.state = std::make_shared<const std::string>(tracestate);
  }
  return context;
}

TraceContext begin() { return {.trace_high = random_id(), .trace_low = random_id()}; }

TraceContext begin_for(std::string_view message_id) {
  TraceContext context;
  context.trace_high = 0xCBF29CE484222325ULL;
  context.trace_low = 0x9E3779B97F4A7C15ULL;
  for (std::uint64_t* half : {&context.trace_high, &context.trace_low}) {  // FNV-1a
    for (const char c : message_id) *half = (*half ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
    *half = mixed(*half);
  }
  if (!context.has_trace()) context.trace_low = 1;
  return context;
}

void add_to(std::map<std::string, std::string>& headers, const TraceContext& context) {
  if (!context.has_trace() || context.span == 0) return;
  headers.insert_or_assign("traceparent", context.traceparent());
  if (context.state) headers.insert_or_assign("tracestate", *context.state);
}

bool Sampler::sample(const TraceContext& context, bool has_parent) const {
  if (parent_based && has_parent) return context.sampled();
  if (ratio >= 1) return true;
  if (!(ratio > 0)) return false;
  // As OpenTelemetry's own samplers choose: by the last 63 bits.
  return context.trace_low >> 1 < static_cast<std::uint64_t>(std::ldexp(ratio, 63));
}

void use(const Tracer* tracer) { active.store(tracer, std::memory_order_release); }
bool recording() { return active.load(std::memory_order_acquire) != nullptr; }

Span::Span(Kind kind, std::string_view verb, std::string_view object, const TraceContext& parent)
    : context_(parent.has_trace() ? parent : begin()) {
  context_.span = random_id();
  const Tracer* tracer = active.load(std::memory_order_acquire);
  if (tracer == nullptr) return;
  const bool sampled = tracer->sampler.sample(context_, parent.span != 0);
  context_.flags = static_cast<std::uint8_t>(sampled ? context_.flags | 1 : context_.flags & ~1);
  if (sampled) record(*tracer, kind, verb, object, parent.has_trace() ? parent.span : 0);
}

Span Span::of_batch(Kind kind, std::string_view verb, std::string_view object, const std::vector<TraceContext>& from) {
  const TraceContext* first = nullptr;
  bool one_trace = true, sampled = false;
  for (const TraceContext& context : from) {
    if (context.span == 0) continue;
    if (first == nullptr) first = &context;
    one_trace = one_trace && context.trace_high == first->trace_high && context.trace_low == first->trace_low;
    sampled = sampled || context.sampled();
  }
  if (first == nullptr) return {kind, verb, object, begin()};
  Span span;
  span.context_ = one_trace ? *first : begin();
  span.context_.span = random_id();
  const Tracer* tracer = active.load(std::memory_order_acquire);
  if (tracer == nullptr) return span;
  // What its messages say, even where the batch has a trace of its own: else a small ratio would leave the writing out
  // of nearly every trace that is recorded.
  if (!tracer->sampler.parent_based) sampled = tracer->sampler.sample(span.context_, true);
  span.context_.flags = static_cast<std::uint8_t>(sampled ? span.context_.flags | 1 : span.context_.flags & ~1);
  if (!sampled) return span;
  span.record(*tracer, kind, verb, object, one_trace ? first->span : 0);
  for (const TraceContext& context : from) {
    if (context.span == 0 || !context.sampled()) continue;
    if (span.data_->links.size() == kMostLinks) {
      ++span.data_->dropped_links;
    } else {
      span.data_->links.push_back(context);
    }
  }
  return span;
}

Span Span::of_current(Kind kind, std::string_view verb, std::string_view object) {
  if (current == nullptr || !current->recorded()) return {};
  return {kind, verb, object, current->context()};
}

Span& Span::operator=(Span&& other) noexcept {
  end();
  context_ = std::move(other.context_);
  data_ = std::move(other.data_);
  sink_ = other.sink_;
  began_ = other.began_;
  return *this;
}

void Span::record(const Tracer& tracer, Kind kind, std::string_view verb, std::string_view object,
                  std::uint64_t parent) {
  data_ = std::make_unique<SpanData>();
  data_->parent = parent;
  data_->kind = kind;
  data_->name = object.empty() ? std::string(verb) : std::string(verb) + " " + shortened(object, kMostName);
  data_->start = wall_clock();
  began_ = std::chrono::steady_clock::now();
  sink_ = tracer.sink;
}

void Span::set(std::string_view name, std::string_view value) {
  if (data_) data_->attributes.push_back({name, shortened(value, kMostText)});
}
void Span::set(std::string_view name, bool value) {
  if (data_) data_->attributes.push_back({name, value});
}
void Span::set(std::string_view name, double value) {
  if (data_) data_->attributes.push_back({name, value});
}
void Span::set_integer(std::string_view name, std::int64_t value) {
  if (data_) data_->attributes.push_back({name, value});
}

void Span::fail(std::string_view type, std::string_view message) {
  if (!data_) return;
  if (!data_->failed) set("error.type", type);
  data_->failed = true;
  data_->error = shortened(message, kMostText);
  if (data_->events.size() == kMostEvents) return;
  data_->events.push_back(
      {"exception", wall_clock(), {{"exception.type", std::string(type)}, {"exception.message", data_->error}}});
}

void Span::end() noexcept {
  if (!data_) return;
  const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - began_);
  data_->end = data_->start + took.count();  // whatever happens to the clock on the wall meanwhile
  data_->context = context_;
  const std::unique_ptr<SpanData> data = std::move(data_);
  sink_->take(std::move(*data));
}

Scope::Scope(const Span& span) : before_(std::exchange(current, &span)) {}
Scope::~Scope() { current = before_; }

}  // namespace trace
}  // namespace pipegen
