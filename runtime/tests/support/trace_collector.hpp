// A collector for tests: takes OTLP over HTTP as JSON and looks closely at it. A server of its own, that shares no code
// with what it tests.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace pipegen::testing {

struct CollectedSpan {
  struct Link {
    std::string trace, span;
  };
  std::string service, trace, id, parent, name, state;
  int kind = 0;
  int flags = 0;
  bool failed = false;
  std::string error;
  std::int64_t start = 0, end = 0;
  std::map<std::string, nlohmann::json> attributes;  // by name, the value itself
  std::vector<Link> links;
  std::vector<std::string> exceptions;  // messages of them

  bool has(const std::string& attribute, const nlohmann::json& value) const {
    const auto found = attributes.find(attribute);
    return found != attributes.end() && found->second == value;
  }
};

/// Listens from the constructor on, on a free port of 127.0.0.1.
class TraceCollector {
 public:
  TraceCollector();
  ~TraceCollector();
  TraceCollector(const TraceCollector&) = delete;
  TraceCollector& operator=(const TraceCollector&) = delete;

  /// What OTEL_EXPORTER_OTLP_ENDPOINT is set to.
  std::string url() const;
  /// What it took so far.
  std::vector<CollectedSpan> spans() const;
  std::vector<CollectedSpan> of_trace(const std::string& trace) const;
  /// What about the requests is not as OTLP has it; empty when all is well.
  std::vector<std::string> problems() const;
  int requests() const;
  std::map<std::string, std::string> last_headers() const;

  /// Of the answers from now on.
  void answer(int status, std::string body = "{}");
  /// Requests from now on wait until release().
  void hold();
  void release();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Spans whose parent is in none of these, and that do have one; by name.
std::multiset<std::string> orphans(const std::vector<CollectedSpan>& spans);

}  // namespace pipegen::testing
