// Finds the handler of a request and runs it; whatever happens becomes an answer.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "http/server.hpp"

namespace pipegen::http {

/// "Not Found"
const char* title_of(int status);

/// Thread safe once every route is added.
class Router {
 public:
  /// `metrics` gets the duration of requests, and how many run; may be null. `traces`: requests have spans.
  Router(Metrics* metrics, bool traces);

  void add(std::string method, std::string pattern, Handler handler, Lane lane);
  /// Whether the path, as it came, is of a route on the reserved lane.
  bool is_reserved(std::string_view path) const;
  /// `admit` sees what the handler gave before it counts as the answer, and may throw Problem instead.
  Response answer(Request& request, const std::function<void(const Response&)>& admit) const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    Handler handler;
    Lane lane;
    /// By status, from 100 on: the histograms of this route and its method, once they are known.
    mutable std::array<std::atomic<Histogram*>, 500> seconds{};
  };

  /// Throws Problem when there is none; `pattern` is that of a route of another method then, if there is one.
  const Route& find(Request& request, std::string& pattern) const;
  void observe(const Route* route, const std::string& pattern, const std::string& method, int status,
               double seconds) const;

  std::deque<Route> routes_;
  Metrics* metrics_;
  Gauge* active_ = nullptr;
  bool traces_;
};

}  // namespace pipegen::http
