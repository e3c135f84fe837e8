// W3C trace context: which span of which trace something belongs to.
//
//   request.set_header("traceparent", context.message().trace.traceparent());
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace pipegen {

/// A value; cheap to make and to copy, because its ids become text only when somebody asks for it.
struct TraceContext {
  std::uint64_t trace_high = 0;                // the trace id's first half …
  std::uint64_t trace_low = 0;                 // … and its second; both 0: no trace
  std::uint64_t span = 0;                      // 0: a trace that has no span yet
  std::uint8_t flags = 1;                      // as they came in; the lowest bit says that the trace is recorded
  std::shared_ptr<const std::string> state{};  // tracestate, carried along as it came; may be null

  bool has_trace() const noexcept { return (trace_high | trace_low) != 0; }
  bool sampled() const noexcept { return (flags & 1) != 0; }
  std::string trace_id() const;     // 32 hex digits; empty: there is none
  std::string span_id() const;      // 16 hex digits; empty: there is none
  std::string traceparent() const;  // empty unless there are both
};

}  // namespace pipegen
