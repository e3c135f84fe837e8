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

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const auto end = std::min(path.find('/'), path.size());
    segments.push_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return segments;
}

std::optional<std::map<std::string, std::string>> match(std::string_view pattern, std::string_view path) {
  if (path.empty() || path.front() != '/') return std::nullopt;
  const auto want = segments_of(pattern);
  const auto have = segments_of(path);
  if (want.size() != have.size()) return std::nullopt;
  std::map<std::string, std::string> parameters;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (want[i].size() > 2 && want[i].front() == '{' && want[i].back() == '}') {
      if (have[i].empty()) return std::nullopt;
      parameters.emplace(want[i].substr(1, want[i].size() - 2), have[i]);
    } else if (want[i] != have[i]) {
      return std::nullopt;
    }
  }
  return parameters;
}

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

void Router::add(std::string method, std::string pattern, Handler handler, Lane lane) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(handler), lane});
}

bool Router::is_reserved(std::string_view path) const {
  return std::any_of(routes_.begin(), routes_.end(),
                     [path](const Route& route) { return route.lane == Lane::kReserved && route.pattern == path; });
}

Response Router::answer(Request& request, const std::function<void(const Response&)>& admit) const {
  const auto start = std::chrono::steady_clock::now();
  std::string pattern = "unmatched";
  Response response = [&] {
    try {
      Response given = find(request, pattern)(request);
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
  if (metrics_ != nullptr) {
    metrics_
        ->seconds("http_server_request_duration_seconds", "Time from the head of a request to its answer.",
                  {{"route", pattern}, {"method", request.method}, {"status", std::to_string(response.status)}})
        .observe(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return response;
}

const Handler& Router::find(Request& request, std::string& pattern) const {
  const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
  std::set<std::string> allowed;
  for (const Route& route : routes_) {
    auto parameters = match(route.pattern, request.path);
    if (!parameters) continue;
    pattern = route.pattern;
    if (route.method == method) {
      request.parameters = std::move(*parameters);
      return route.handler;
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
