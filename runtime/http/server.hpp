// The HTTP server inside a service: cpp-httplib reads requests and writes answers, the connections are ours.
//
//   pipegen::http::HttpServer server({.host = "127.0.0.1", .port = 0});
//   server.route("GET", "/things/{id}", [](Request& request) { return Response::json(200,
//   thing(request.parameter("id"))); }); server.start();
//
// Why not httplib's own listener: it gives every connection a thread from accept to close and only knows timeouts per
// read, so a few clients that send a byte now and then hold every thread for ever. Here one thread waits for all
// connections until the head of a request is complete; a pool of threads serves requests, each under a deadline.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/trace.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/types.hpp"

namespace pipegen::http {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Response {
  int status = 200;
  Headers headers{};
  std::string content_type{};
  std::string body{};
  /// A body of `length` octets that is made while it is sent: called once with a function that sends octets and says
  /// whether more is wanted. Throwing, or sending less, cuts the connection; what is more is not sent.
  std::uint64_t length = 0;
  std::function<void(const std::function<bool(BytesView)>& send)> stream{};

  static Response json(int status, std::string text) {
    return {.status = status, .content_type = "application/json", .body = std::move(text)};
  }
};

/// An answer that is an error, as application/problem+json (RFC 9457). Thrown by handlers. What it says is meant for
/// the client.
class Problem : public std::runtime_error {
 public:
  explicit Problem(int status, const std::string& detail, Headers headers = {})
      : std::runtime_error(detail), status_(status), headers_(std::move(headers)) {}
  /// Adds a member: `json` is its value as JSON.
  Problem& with(std::string name, std::string json) {
    members_.emplace_back(std::move(name), std::move(json));
    return *this;
  }
  int status() const noexcept { return status_; }
  Response response() const;

 private:
  int status_;
  Headers headers_;
  Headers members_;
};

/// A request. Valid while its handler runs.
class Request {
 public:
  virtual ~Request() = default;

  std::string method;
  std::string path;  // decoded
  std::vector<std::pair<std::string, std::string>> query;
  std::map<std::string, std::string> parameters;  // of the route's "{name}" segments

  /// Of a server that traces; else nothing. What the handler sends is its child.
  trace::Span span;

  /// For lines about this request. What a handler binds to it is on the lines about its failure too.
  Logger log;

  /// The first header of this name, in any case, as the client sent it.
  virtual std::optional<std::string> header(std::string_view name) const = 0;
  /// What the client announced; nothing when the body is chunked.
  virtual std::optional<std::uint64_t> content_length() const = 0;
  /// Gives the body to `sink` part by part. Throws Problem 413 beyond `limit` octets, 408 when the body is not there
  /// within `timeout` or trickles in, 400 when it ends early, 503 when too many threads wait for clients already; what
  /// `sink` throws goes through.
  virtual void read_body(std::uint64_t limit, std::chrono::milliseconds timeout,
                         const std::function<void(BytesView)>& sink) = 0;
  std::string read_text(std::uint64_t limit, std::chrono::milliseconds timeout = std::chrono::seconds(30));
};

using Handler = std::function<Response(Request&)>;

/// kReserved: for quick answers that must come however busy the server is (GET without parameters only). They have a
/// thread of their own.
enum class Lane { kOrdinary, kReserved };

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;                     // 0 takes a free one
  int threads = 64;                 // requests served at a time
  int connections = 800;            // open at a time; more are answered with 503 (select() allows no more than 1024)
  int connections_per_address = 0;  // more are answered with 429; 0: as many as there are. An IPv6 network (/64) is one
  int queue = 1000;                 // requests that wait for a thread; more are answered with 503
  std::size_t max_head = 32 * 1024;  // request line and headers; more is answered with 431
  std::chrono::milliseconds head_timeout{
      10'000};  // from a connection's first octet (or its start) to the end of the head
  std::chrono::milliseconds body_timeout{30'000};  // from there to the end of a body of up to 64 KiB
  std::chrono::milliseconds idle_timeout{60'000};  // between requests of a connection
  /// A client that gives or takes a larger body has to move 1 KiB a second (8 KiB when many are at it) in each window
  /// of this length. At most three quarters of the threads wait for such clients; further ones get 503.
  std::chrono::milliseconds pace_window{15'000};
  Metrics* metrics = nullptr;  // gets http_server_request_duration_seconds, _active_requests, _refused_requests_total
  bool traces = false;         // requests have spans, but for those on the reserved lane
};

/// Thread safe once started. Errors that handlers throw become problem+json: Problem as it is, json::Invalid 422 with
/// the violations, Unavailable 503 with Retry-After, anything else 500 without a word about the inside (that is
/// logged).
class HttpServer {
 public:
  /// Binds. Throws ConfigError when the address is taken (also by another pipegen service: ports are never shared) or
  /// wrong.
  explicit HttpServer(ServerOptions options);
  /// Stops at once.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Adds a route, before start(). A segment "{name}" matches any one segment. GET serves HEAD too.
  void route(std::string method, std::string pattern, Handler handler, Lane lane = Lane::kOrdinary);
  void start();
  int port() const noexcept;

  /// Takes no more connections and gives running requests `grace` to finish; then cuts them. Returns how many were cut.
  int stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pipegen::http
