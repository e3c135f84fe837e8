#include "support/trace_collector.hpp"

#include <httplib.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace pipegen::testing {
namespace {

using nlohmann::json;

std::string hex_id(const json& span, const char* name, std::size_t digits) {
  const auto text = span.at(name).get<std::string>();
  if (text.size() != digits || text.find_first_not_of("0123456789abcdef") != std::string::npos ||
      text.find_first_not_of('0') == std::string::npos) {
    throw std::runtime_error(std::string(name) + " is " + text);
  }
  return text;
}

std::int64_t nanoseconds(const json& span, const char* name) {
  const auto text = span.at(name).get<std::string>();  // a string: JSON numbers do not hold them
  if (text.size() != 19) throw std::runtime_error(std::string(name) + " is " + text);
  return std::stoll(text);
}

json value_of(const json& value) {
  if (value.size() != 1) throw std::runtime_error("a value is " + value.dump());
  const std::string kind = value.begin().key();
  const json& inner = value.begin().value();
  if (kind == "stringValue" && inner.is_string()) return inner;
  if (kind == "intValue" && inner.is_string()) return std::stoll(inner.get<std::string>());
  if (kind == "doubleValue" && inner.is_number()) return inner;
  if (kind == "boolValue" && inner.is_boolean()) return inner;
  throw std::runtime_error("a value is " + value.dump());
}

std::map<std::string, json> attributes_of(const json& owner) {
  std::map<std::string, json> out;
  if (!owner.contains("attributes")) return out;
  for (const json& attribute : owner.at("attributes")) {
    const auto name = attribute.at("key").get<std::string>();
    if (!out.emplace(name, value_of(attribute.at("value"))).second) throw std::runtime_error(name + " is there twice");
  }
  return out;
}

CollectedSpan read_span(const json& span, const std::string& service) {
  CollectedSpan out;
  out.service = service;
  out.trace = hex_id(span, "traceId", 32);
  out.id = hex_id(span, "spanId", 16);
  if (span.contains("parentSpanId")) out.parent = hex_id(span, "parentSpanId", 16);
  out.name = span.at("name");
  out.state = span.value("traceState", "");
  out.kind = span.at("kind").get<int>();
  out.flags = span.value("flags", 0);
  out.start = nanoseconds(span, "startTimeUnixNano");
  out.end = nanoseconds(span, "endTimeUnixNano");
  if (out.end < out.start) throw std::runtime_error(out.name + " ends before it begins");
  out.failed = span.at("status").value("code", 0) == 2;
  out.error = span.at("status").value("message", "");
  out.attributes = attributes_of(span);
  for (const json& link : span.value("links", json::array())) {
    out.links.push_back({hex_id(link, "traceId", 32), hex_id(link, "spanId", 16)});
  }
  for (const json& event : span.value("events", json::array())) {
    nanoseconds(event, "timeUnixNano");
    if (event.at("name") == "exception") {
      out.exceptions.push_back(attributes_of(event).at("exception.message").get<std::string>());
    }
  }
  return out;
}

}  // namespace

struct TraceCollector::Impl {
  void take(const httplib::Request& request, httplib::Response& response) {
    std::unique_lock lock(mutex);
    ++requests;
    headers.clear();
    for (const auto& [name, value] : request.headers) headers[name] = value;
    changed.wait(lock, [this] { return !held; });
    response.status = status;
    response.set_content(body, "application/json");
    if (status != 200) return;
    try {
      if (request.get_header_value("Content-Type") != "application/json") {
        throw std::runtime_error("it is " + request.get_header_value("Content-Type"));
      }
      const json document = json::parse(request.body);
      for (const json& resource : document.at("resourceSpans")) {
        const auto of = attributes_of(resource.at("resource"));
        const auto service = of.at("service.name").get<std::string>();
        for (const json& scope : resource.at("scopeSpans")) {
          for (const json& span : scope.at("spans")) {
            spans.push_back(read_span(span, service));
            if (!ids.insert(spans.back().trace + spans.back().id).second) {
              problems.push_back("a span came twice: " + span.dump());
            }
          }
        }
      }
    } catch (const std::exception& error) {
      problems.push_back(std::string(error.what()) + " in " + request.body.substr(0, 2'000));
    }
  }

  httplib::Server server;
  int port = 0;
  std::thread thread;
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::vector<CollectedSpan> spans;
  std::set<std::string> ids;
  std::vector<std::string> problems;
  std::map<std::string, std::string> headers;
  int requests = 0;
  int status = 200;
  std::string body = "{}";
  bool held = false;
};

TraceCollector::TraceCollector() : impl_(std::make_unique<Impl>()) {
  impl_->server.Post("/v1/traces", [impl = impl_.get()](const httplib::Request& request, httplib::Response& response) {
    impl->take(request, response);
  });
  impl_->port = impl_->server.bind_to_any_port("127.0.0.1");
  if (impl_->port <= 0) throw std::runtime_error("the collector finds no port");
  impl_->thread = std::thread([impl = impl_.get()] { impl->server.listen_after_bind(); });
  while (!impl_->server.is_running()) std::this_thread::yield();  // one that does not run yet cannot be stopped
}

TraceCollector::~TraceCollector() {
  release();
  impl_->server.stop();
  impl_->thread.join();
}

std::string TraceCollector::url() const { return "http://127.0.0.1:" + std::to_string(impl_->port); }

std::vector<CollectedSpan> TraceCollector::spans() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->spans;
}

std::vector<CollectedSpan> TraceCollector::of_trace(const std::string& trace) const {
  std::vector<CollectedSpan> out = spans();
  std::erase_if(out, [&](const CollectedSpan& span) { return span.trace != trace; });
  return out;
}

std::vector<std::string> TraceCollector::problems() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->problems;
}

int TraceCollector::requests() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->requests;
}

std::map<std::string, std::string> TraceCollector::last_headers() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->headers;
}

void TraceCollector::answer(int status, std::string body) {
  const std::lock_guard lock(impl_->mutex);
  impl_->status = status;
  impl_->body = std::move(body);
}

void TraceCollector::hold() {
  const std::lock_guard lock(impl_->mutex);
  impl_->held = true;
}

void TraceCollector::release() {
  const std::lock_guard lock(impl_->mutex);
  impl_->held = false;
  impl_->changed.notify_all();
}

std::multiset<std::string> orphans(const std::vector<CollectedSpan>& spans) {
  std::set<std::string> ids;
  for (const auto& span : spans) ids.insert(span.trace + span.id);
  std::multiset<std::string> out;
  for (const auto& span : spans) {
    if (!span.parent.empty() && !ids.contains(span.trace + span.parent)) out.insert(span.service + ": " + span.name);
  }
  return out;
}

}  // namespace pipegen::testing
