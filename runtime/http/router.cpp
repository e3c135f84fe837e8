#include "http/router.hpp"

#include <algorithm>
#include <chrono>
#include <set>

#include "core/json_text.hpp"
#include "http/request_text.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"

namespace pipegen::http {

namespace {

/// Takes the first segment of a path: what stands between its slash and the next one.
std::string_view take_segment(std::string_view& path) {
  path.remove_prefix(1);
  const std::string_view segment = path.substr(0, path.find('/'));
  path.remove_prefix(segment.size());
  return segment;
}

std::optional<std::map<std::string, std::string>> match(std::string_view pattern, std::string_view path) {
  if (path.empty() || path.front() != '/') return std::nullopt;
  std::map<std::string, std::string> parameters;
  while (!pattern.empty() && !path.empty()) {
    const std::string_view want = take_segment(pattern);
    const std::string_view have = take_segment(path);
    if (want.size() > 2 && want.front() == '{' && want.back() == '}') {
      if (have.empty()) return std::nullopt;
      parameters.emplace(want.substr(1, want.size() - 2), have);
    } else if (want != have) {
      return std::nullopt;
    }
  }
  if (!pattern.empty() || !path.empty()) return std::nullopt;
  return parameters;
}

/// One more, as long as it lives.
class Active {
 public:
  explicit Active(Gauge& gauge) : gauge_(gauge) { gauge_.add(1); }
  ~Active() { gauge_.add(-1); }
  Active(const Active&) = delete;
  Active& operator=(const Active&) = delete;

 private:
  Gauge& gauge_;
};

Problem problem_of(const json::Invalid& invalid) {
  return Problem(422, "the request is not what the schema says").with("errors", violations_json(invalid.violations()));
}

}  // namespace

const char* title_of(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    default:
      return "Error";
  }
}

Response Problem::response() const {
  json::Writer body;
  body.begin_object();
  body.field("type", "about:blank");
  body.field("title", title_of(status_));
  body.field("status", std::int32_t{status_});
  body.field("detail", json::repaired_utf8(what()));
  for (const auto& [name, value] : members_) body.field(name, Json{value});
  body.end_object();
  return {.status = status_, .headers = headers_, .content_type = "application/problem+json", .body = body.take()};
}

Router::Router(Metrics* metrics, bool traces) : metrics_(metrics), traces_(traces) {
  if (metrics_ != nullptr) {
    active_ = &metrics_->gauge("http_server_active_requests", "Requests that are being served, but for admin routes.");
  }
}

void Router::add(std::string method, std::string pattern, Handler handler, Lane lane) {
  Route& route = routes_.emplace_back();
  route.method = std::move(method);
  route.pattern = std::move(pattern);
  route.handler = std::move(handler);
  route.lane = lane;
}

bool Router::is_reserved(std::string_view path) const {
  return std::any_of(routes_.begin(), routes_.end(),
                     [path](const Route& route) { return route.lane == Lane::kReserved && route.pattern == path; });
}

namespace {

/// The work that the client's own span waits for, if it said that it has one.
trace::Span begin_span(const Request& request, const std::string& pattern) {
  const auto traceparent = request.header("traceparent");
  TraceContext from;
  if (traceparent) from = trace::parse(*traceparent, request.header("tracestate").value_or(""));
  trace::Span span(trace::Kind::kServer, request.method, pattern, from);
  span.set("http.request.method", request.method);
  span.set("http.route", pattern);
  span.set("url.path", request.path);
  span.set("url.scheme", "http");
  return span;
}

}  // namespace

Response Router::answer(Request& request, const std::function<void(const Response&)>& admit) const {
  const auto start = std::chrono::steady_clock::now();
  std::string pattern = "unmatched";
  const Route* route = nullptr;
  std::optional<Active> active;
  Response response = [&] {
    try {
      route = &find(request, pattern);
      if (active_ != nullptr && route->lane == Lane::kOrdinary) active.emplace(*active_);
      if (traces_ && route->lane == Lane::kOrdinary) request.span = begin_span(request, pattern);
      const trace::Scope scope(request.span);
      Response given = route->handler(request);
      admit(given);
      return given;
    } catch (const Problem& problem) {
      return problem.response();
    } catch (const json::Invalid& invalid) {
      return problem_of(invalid).response();
    } catch (const Unavailable& error) {
      request.log.warning("a request could not be served",
                          {{"method", request.method}, {"path", request.path}, {"reason", error.what()}});
      return Problem(503, "something that this service depends on is away; try again", {{"Retry-After", "5"}})
          .response();
    } catch (const std::exception& error) {
      request.log.error("a request failed",
                        {{"method", request.method}, {"path", request.path}, {"error", error.what()}});
      return Problem(500, "the service failed; its log says why").response();
    }
  }();
  if (request.span.recorded()) {
    request.span.set("http.response.status_code", response.status);
    // What the client did wrong is no failure of the server.
    if (response.status >= 500) request.span.fail(std::to_string(response.status), title_of(response.status));
    request.span.end();
  }
  if (metrics_ != nullptr) {
    observe(route, pattern, request.method, response.status,
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return response;
}

void Router::observe(const Route* route, const std::string& pattern, const std::string& method, int status,
                     double seconds) const {
  std::atomic<Histogram*>* known = nullptr;
  if (route != nullptr && route->method == method && status >= 100 && status < 600) {
    known = &route->seconds[static_cast<std::size_t>(status - 100)];
  }
  Histogram* histogram = known != nullptr ? known->load(std::memory_order_acquire) : nullptr;
  if (histogram == nullptr) {
    histogram =
        &metrics_->seconds("http_server_request_duration_seconds", "Time from the head of a request to its answer.",
                           {{"route", pattern}, {"method", method}, {"status", std::to_string(status)}});
    if (known != nullptr) known->store(histogram, std::memory_order_release);
  }
  histogram->observe(seconds);
}

const Router::Route& Router::find(Request& request, std::string& pattern) const {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  std::set<std::string> allowed;
  for (const Route& route : routes_) {
    auto parameters = match(route.pattern, request.path);
    if (!parameters) continue;
    pattern = route.pattern;
    if (route.method == method) {
      request.parameters = std::move(*parameters);
      return route;
    }
    allowed.insert(route.method);
    if (route.method == "GET") allowed.insert("HEAD");
  }
  if (allowed.empty()) throw Problem(404, "there is nothing at this path");
  std::string methods;
  for (const auto& name : allowed) methods += (methods.empty() ? "" : ", ") + name;
  throw Problem(405, "this path takes " + methods, {{"Allow", methods}});
}

}  // namespace pipegen::http
