#include "http/server.hpp"

#include <fcntl.h>
#include <httplib.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "pipegen/error.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"

namespace pipegen::http {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto kRequestTimeout = 30s;     // of a request whose handler says nothing else
constexpr auto kStall = 15s;              // between two octets, either way
constexpr auto kRateGrace = 20s;          // from here on a transfer must keep up kMinRate
constexpr std::uint64_t kMinRate = 1024;  // octets per second
constexpr int kRequestsPerConnection = 10'000;
constexpr auto kDrainTime = 2s;  // a client that is still sending may read its answer for this long

const char* title_of(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
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

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](unsigned char x, unsigned char y) {
           return std::tolower(x) == std::tolower(y);
         });
}

/// An open connection and what it sent that nobody has read yet.
struct Connection {
  explicit Connection(int descriptor) : fd(descriptor) {}
  ~Connection() { ::close(fd); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  std::string_view unread() const { return std::string_view(input).substr(offset); }
  bool has_head() const { return unread().find("\r\n\r\n") != std::string_view::npos; }
  void consume(std::size_t octets) {
    offset += octets;
    if (offset == input.size()) {
      input.clear();
      offset = 0;
    }
  }

  enum class Fill { kMore, kNothing, kClosed };
  /// Takes what the socket has, without waiting.
  Fill fill() {
    if (offset > 0) {
      input.erase(0, offset);
      offset = 0;
    }
    char part[16 * 1024];
    const ssize_t got = ::recv(fd, part, sizeof part, MSG_DONTWAIT);
    if (got > 0) {
      input.append(part, static_cast<std::size_t>(got));
      return Fill::kMore;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return Fill::kNothing;
    return Fill::kClosed;
  }

  const int fd;
  std::string input;
  std::size_t offset = 0;
  int served = 0;
  bool draining = false;       // answered; reads only so that the client sees the answer before the end
  Clock::time_point deadline;  // of whatever the poller waits for
};

/// What httplib reads a request from and writes its answer to: a connection with deadlines. It declares the virtual
/// functions of several versions of httplib, hence no "override".
class SocketStream : public httplib::Stream {
 public:
  explicit SocketStream(Connection& connection)
      : connection_(connection), read_deadline_(Clock::now() + kRequestTimeout) {}

  virtual bool is_readable() const { return true; }
  virtual bool wait_readable() const { return true; }
  virtual bool is_writable() const { return true; }
  virtual bool wait_writable() const { return true; }
  virtual time_t duration() const { return 0; }
  virtual void get_remote_ip_and_port(std::string&, int&) const {}
  virtual void get_local_ip_and_port(std::string&, int&) const {}
  virtual socket_t socket() const { return connection_.fd; }

  virtual ssize_t read(char* out, std::size_t size) {
    while (connection_.unread().empty()) {
      const auto now = Clock::now();
      if (now >= read_deadline_ || too_slow(now - read_start_, received_)) return timed_out();
      if (!wait(POLLIN, std::min(read_deadline_, now + kStall))) return timed_out();
      if (size >= 4096) {
        const ssize_t got = ::recv(connection_.fd, out, size, 0);
        if (got > 0) received_ += static_cast<std::uint64_t>(got);
        return got;
      }
      if (connection_.fill() == Connection::Fill::kClosed) return 0;
      received_ += connection_.unread().size();
    }
    const std::string_view unread = connection_.unread();
    const std::size_t part = std::min(size, unread.size());
    std::memcpy(out, unread.data(), part);
    connection_.consume(part);
    return static_cast<ssize_t>(part);
  }

  virtual ssize_t write(const char* data, std::size_t size) {
    std::size_t done = 0;
    while (done < size) {
      const ssize_t sent = ::send(connection_.fd, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) {
        done += static_cast<std::size_t>(sent);
        sent_ += static_cast<std::uint64_t>(sent);
        continue;
      }
      if (sent < 0 && errno == EINTR) continue;
      if (sent == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) return -1;
      const auto now = Clock::now();
      if (write_start_ == Clock::time_point{}) write_start_ = now;
      if (too_slow(now - write_start_, sent_) || !wait(POLLOUT, now + kStall)) return -1;
    }
    return static_cast<ssize_t>(size);
  }
  using httplib::Stream::write;

  void expect_body_within(std::chrono::milliseconds timeout) {
    read_start_ = Clock::now();
    read_deadline_ = read_start_ + timeout;
    received_ = 0;
  }
  bool read_timed_out() const { return read_timed_out_; }

 private:
  static bool too_slow(Clock::duration since, std::uint64_t octets) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since).count();
    return since > kRateGrace && octets < kMinRate * static_cast<std::uint64_t>(seconds);
  }
  ssize_t timed_out() {
    read_timed_out_ = true;
    return -1;
  }
  bool wait(short events, Clock::time_point until) const {
    while (true) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
      if (left <= 0) return false;
      pollfd descriptor{connection_.fd, events, 0};
      const int ready = ::poll(&descriptor, 1, static_cast<int>(std::min<long>(left, 60'000)));
      if (ready > 0) return true;
      if (ready < 0 && errno != EINTR) return false;
    }
  }

  Connection& connection_;
  Clock::time_point read_deadline_;
  Clock::time_point read_start_ = Clock::now();
  Clock::time_point write_start_{};
  std::uint64_t received_ = 0;
  std::uint64_t sent_ = 0;
  bool read_timed_out_ = false;
};

/// Reads the body itself: httplib would unpack it, keep multipart forms in memory, and run regular expressions over
/// them.
class ServedRequest final : public Request {
 public:
  ServedRequest(const httplib::Request& request, SocketStream& stream, bool expects_continue)
      : request_(request), stream_(stream), expects_continue_(expects_continue) {
    method = request.method;
    path = request.path;
    for (const auto& [name, value] : request.params) query.emplace_back(name, value);
  }

  /// Finds out how the body ends (RFC 9112, 6.3). Anything that two servers may read differently is refused.
  void frame() {
    const std::size_t codings = request_.get_header_value_count("Transfer-Encoding");
    const std::size_t lengths = request_.get_header_value_count("Content-Length");
    if (codings > 0) {
      body_left_open_ = true;
      if (codings > 1 || lengths > 0 || !same_word(request_.get_header_value("Transfer-Encoding"), "chunked")) {
        throw Problem(400, "the framing of the body is not clear: send Content-Length, or Transfer-Encoding: chunked");
      }
      chunked_ = true;
    } else if (lengths > 0) {
      const std::string text = request_.get_header_value("Content-Length");
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length_);
      body_left_open_ = lengths > 1 || error != std::errc() || end != text.data() + text.size() || length_ > 0;
      if (lengths > 1 || error != std::errc() || end != text.data() + text.size()) {
        throw Problem(400, "Content-Length is not a number");
      }
    }
    if (body_left_open_ && header("Content-Encoding") && !same_word(*header("Content-Encoding"), "identity")) {
      throw Problem(415, "send the body without Content-Encoding", {{"Accept-Encoding", "identity"}});
    }
  }

  std::optional<std::string> header(std::string_view name) const override {
    const std::string key(name);
    if (!request_.has_header(key)) return std::nullopt;
    return request_.get_header_value(key);
  }

  std::optional<std::uint64_t> content_length() const override {
    if (chunked_) return std::nullopt;
    return length_;
  }

  void read_body(std::uint64_t limit, std::chrono::milliseconds timeout,
                 const std::function<void(BytesView)>& sink) override {
    if (!body_left_open_) return;
    limit_ = limit;
    if (!chunked_ && length_ > limit) throw too_large();
    if (expects_continue_) stream_.write("HTTP/1.1 100 Continue\r\n\r\n");
    stream_.expect_body_within(timeout);
    if (chunked_) {
      read_chunked(sink);
    } else {
      read_part(length_, sink);
    }
    body_left_open_ = false;
  }

  bool body_left_open() const { return body_left_open_; }

 private:
  Problem too_large() const {
    return Problem(413, "the body is larger than the " + std::to_string(limit_) + " octets that are allowed");
  }

  std::size_t read_some(char* out, std::size_t size) {
    const ssize_t got = stream_.read(out, size);
    if (got > 0) return static_cast<std::size_t>(got);
    if (stream_.read_timed_out()) throw Problem(408, "the body did not arrive in time");
    throw Problem(400, "the body ended before its end");
  }

  void read_part(std::uint64_t length, const std::function<void(BytesView)>& sink) {
    std::vector<char> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(length, 64 * 1024)));
    while (length > 0) {
      const std::size_t got =
          read_some(buffer.data(), static_cast<std::size_t>(std::min<std::uint64_t>(length, buffer.size())));
      length -= got;
      sink(bytes_of({buffer.data(), got}));
    }
  }

  std::string read_line() {
    std::string line;
    for (char c = 0; line.size() < 1024;) {
      read_some(&c, 1);
      if (c == '\n' && !line.empty() && line.back() == '\r') {
        line.pop_back();
        return line;
      }
      line.push_back(c);
    }
    throw Problem(400, "a line of the chunked body is too long");
  }

  void read_chunked(const std::function<void(BytesView)>& sink) {
    for (std::uint64_t total = 0;;) {
      const std::string line = read_line();
      std::uint64_t size = 0;
      const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), size, 16);
      if (error != std::errc() || (end != line.data() + line.size() && *end != ';' && *end != ' ')) {
        throw Problem(400, "the body is not in chunks");
      }
      if (size == 0) break;
      if (size > limit_ - total) throw too_large();
      total += size;
      read_part(size, sink);
      if (!read_line().empty()) throw Problem(400, "a chunk of the body is longer than it says");
    }
    for (int trailers = 0; !read_line().empty(); ++trailers) {
      if (trailers == 16) throw Problem(431, "too many trailers");
    }
  }

  const httplib::Request& request_;
  SocketStream& stream_;
  bool expects_continue_;
  bool chunked_ = false;
  bool body_left_open_ = false;  // there are octets of the body on the connection
  std::uint64_t length_ = 0;
  std::uint64_t limit_ = 0;
};

struct Route {
  std::string method;
  std::string pattern;
  Handler handler;
};

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

/// Finds the route and runs its handler; every error becomes an answer.
class Router {
 public:
  explicit Router(Metrics* metrics) : metrics_(metrics) {}

  void add(Route route) { routes_.push_back(std::move(route)); }

  Response answer(ServedRequest& request) {
    const auto start = Clock::now();
    std::string pattern = "unmatched";
    Response response = [&] {
      try {
        request.frame();
        return find(request, pattern)(request);
      } catch (const Problem& problem) {
        return problem.response();
      } catch (const json::Invalid& invalid) {
        Problem problem(422, "the request is not what the schema says");
        json::Writer errors;
        errors.begin_array();
        for (const auto& violation : invalid.violations()) {
          errors.begin_object();
          errors.field("pointer", violation.pointer);
          errors.field("detail", violation.detail);
          errors.end_object();
        }
        errors.end_array();
        return problem.with("errors", errors.take()).response();
      } catch (const Unavailable& error) {
        log_.warning("a request could not be served", {{"path", request.path}, {"reason", error.what()}});
        return Problem(503, "something that this service depends on is away; try again", {{"Retry-After", "5"}})
            .response();
      } catch (const std::exception& error) {
        log_.error("a request failed", {{"method", request.method}, {"path", request.path}, {"error", error.what()}});
        return Problem(500, "the service failed; its log says why").response();
      }
    }();
    if (metrics_ != nullptr) {
      metrics_
          ->seconds("http_server_request_duration_seconds", "Time from the head of a request to its answer.",
                    {{"route", pattern}, {"method", request.method}, {"status", std::to_string(response.status)}})
          .observe(std::chrono::duration<double>(Clock::now() - start).count());
    }
    return response;
  }

 private:
  const Handler& find(ServedRequest& request, std::string& pattern) const {
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

  std::vector<Route> routes_;
  Metrics* metrics_;
  Logger log_;
};

/// httplib's part: parses the head, writes the answer. One per thread, because it serves one request at a time.
class Protocol final : public httplib::Server {
 public:
  Protocol(Router& router, std::chrono::milliseconds idle_timeout) : router_(router) {
    set_keep_alive_max_count(kRequestsPerConnection);
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(idle_timeout).count());
    // Runs before httplib routes, so that neither its regular expressions nor its reading of bodies is used.
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      serve(request, response);
      return HandlerResponse::Handled;
    });
    // What httplib refuses by itself has no body.
    set_error_handler(Handler([](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty()) return;
      const Response problem = Problem(response.status, "the request is not HTTP/1.1").response();
      response.set_content(problem.body, problem.content_type);
    }));
  }

  /// Serves the request whose head is there; false when the connection must end.
  bool serve_one(Connection& connection, bool last) {
    SocketStream stream(connection);
    stream_ = &stream;
    must_close_ = true;  // unless a request was understood and read to its end
    last_ = last;
    expects_continue_ = false;
    svr_sock_ = connection.fd;  // httplib takes an invalid one as the sign to stop sending
    bool closed = false;
    const std::function<void(httplib::Request&)> setup = [this](httplib::Request& request) {
      request.ranges.clear();  // the handler's business
      expects_continue_ = same_word(request.get_header_value("Expect"), "100-continue");
      if (expects_continue_) request.headers.erase("Expect");  // said when the body is wanted
    };
    const bool written = process(*this, stream, last, closed, setup);
    svr_sock_ = INVALID_SOCKET;
    return written && !closed && !last && !must_close_;
  }

 private:
  template <typename Self>
  static bool process(Self& self, SocketStream& stream, bool last, bool& closed,
                      const std::function<void(httplib::Request&)>& setup) {
    if constexpr (requires { self.process_request(stream, last, closed, setup); }) {
      return self.process_request(stream, last, closed, setup);
    } else {  // httplib 0.15 and later
      return self.process_request(stream, std::string(), 0, std::string(), 0, last, closed, setup);
    }
  }

  void serve(const httplib::Request& in, httplib::Response& out) {
    ServedRequest request(in, *stream_, expects_continue_);
    Response response = router_.answer(request);
    must_close_ = request.body_left_open();
    out.status = response.status;
    for (const auto& [name, value] : response.headers) out.set_header(name, value);
    if (must_close_ && !last_) out.set_header("Connection", "close");
    if (response.stream && response.length > 0) {
      out.set_content_provider(
          static_cast<std::size_t>(response.length), response.content_type,
          [stream = std::move(response.stream)](std::size_t, std::size_t, httplib::DataSink& sink) {
            try {
              stream([&sink](BytesView data) {
                return sink.write(reinterpret_cast<const char*>(data.data()), data.size());
              });
              return true;
            } catch (const std::exception& error) {
              Logger().warning("an answer was cut short", {{"reason", error.what()}});
              return false;
            }
          });
    } else if (!response.content_type.empty()) {
      out.set_content(response.body, response.content_type);
    }
  }

  Router& router_;
  SocketStream* stream_ = nullptr;
  bool must_close_ = false;
  bool last_ = false;
  bool expects_continue_ = false;
};

int bind_to(const ServerOptions& options) {
  const std::string place = options.host + ":" + std::to_string(options.port);
  if (options.port < 0 || options.port > 65535) throw ConfigError("cannot listen on " + place + ": no such port");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &found)) {
    throw ConfigError("cannot listen on " + place + ": " + ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, &::freeaddrinfo);
  int error = 0;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
      error = errno;
      continue;
    }
    // SO_REUSEADDR lets a restart have its port back at once. Not SO_REUSEPORT, with which a second process would
    // silently take half of the connections.
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd, at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd, 1024) == 0) return fd;
    error = errno;
    ::close(fd);
  }
  throw ConfigError("cannot listen on " + place + ": " + std::strerror(error) +
                    (error == EADDRINUSE ? "; give it another port" : ""));
}

int port_of(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

}  // namespace

Response Problem::response() const {
  json::Writer body;
  body.begin_object();
  body.field("type", "about:blank");
  body.field("title", title_of(status_));
  body.field("status", std::int32_t{status_});
  body.field("detail", std::string_view(what()));
  for (const auto& [name, value] : members_) body.field(name, Json{value});
  body.end_object();
  return {.status = status_, .headers = headers_, .content_type = "application/problem+json", .body = body.take()};
}

std::string Request::read_text(std::uint64_t limit, std::chrono::milliseconds timeout) {
  std::string text;
  read_body(limit, timeout, [&text](BytesView part) { text.append(text_of(part)); });
  return text;
}

struct HttpServer::Impl {
  using Owned = std::unique_ptr<Connection>;

  explicit Impl(ServerOptions given)
      : options(std::move(given)),
        router(options.metrics),
        listener(bind_to(options)),
        number(port_of(listener)),
        poller(::epoll_create1(EPOLL_CLOEXEC)),
        waker(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    watch(listener);
    watch(waker);
  }
  ~Impl() {
    stop(0ms);
    ::close(waker);
    ::close(poller);
    if (listener >= 0) ::close(listener);
  }

  void start() {
    if (poll_thread.joinable()) return;
    poll_thread = std::thread([this] { poll(); });
    for (int i = 0; i < options.threads; ++i) threads.emplace_back([this] { work(); });
  }

  int stop(std::chrono::milliseconds grace) {
    if (!poll_thread.joinable()) return 0;
    stopping = true;
    wake();
    poll_thread.join();
    int cut = 0;
    {
      std::unique_lock lock(mutex);
      done = true;
      has_work.notify_all();
      is_idle.wait_for(lock, grace, [this] { return queue.empty() && serving.empty(); });
      cut = static_cast<int>(queue.size() + serving.size());
      queue.clear();
      for (const int fd : serving) ::shutdown(fd, SHUT_RDWR);
    }
    for (auto& thread : threads) thread.join();
    threads.clear();
    returned.clear();
    return cut;
  }

  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
  }
  void unwatch(int fd) const { ::epoll_ctl(poller, EPOLL_CTL_DEL, fd, nullptr); }
  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(waker, &one, sizeof one);
  }

  // --- the polling thread: connections that are between requests -----------------------------------------------------

  void poll() {
    epoll_event events[64];
    Clock::time_point closing{};
    Clock::time_point last_sweep = Clock::now();
    while (true) {
      if (stopping && closing == Clock::time_point{}) {
        // What reached the port before the signal is still served.
        accept_all();
        unwatch(listener);
        ::close(listener);
        listener = -1;
        closing = Clock::now() + 200ms;
      }
      if (stopping && (waiting.empty() || Clock::now() >= closing)) break;
      const int count = ::epoll_wait(poller, events, 64, stopping ? 20 : 250);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == waker) {
          std::uint64_t ignored = 0;
          [[maybe_unused]] const auto got = ::read(waker, &ignored, sizeof ignored);
        } else if (fd == listener) {
          accept_all();
        } else {
          readable(fd);
        }
      }
      take_returned();
      if (Clock::now() - last_sweep > 100ms) {
        last_sweep = Clock::now();
        sweep(last_sweep);
      }
    }
    for (auto& [fd, connection] : waiting) unwatch(fd);
    open -= static_cast<int>(waiting.size());
    waiting.clear();
  }

  void accept_all() {
    while (true) {
      const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0 && errno == EINTR) continue;
      if (fd < 0) {
        // Out of descriptors: the pending connection keeps the listener readable, so don't spin on it.
        if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(50ms);
        return;
      }
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      auto connection = std::make_unique<Connection>(fd);
      ++open;
      if (open > options.connections) make_room();
      if (open > options.connections || fd >= FD_SETSIZE) {
        refuse(std::move(connection), Problem(503, "too many connections", {{"Retry-After", "1"}}));
        continue;
      }
      wait_for(std::move(connection), Clock::now() + options.head_timeout);
    }
  }

  /// Gives up the connection between requests that would be given up next anyway.
  void make_room() {
    const auto next = std::min_element(waiting.begin(), waiting.end(), [](const auto& a, const auto& b) {
      return a.second->deadline < b.second->deadline;
    });
    if (next != waiting.end()) drop(next);
  }

  void wait_for(Owned connection, Clock::time_point deadline) {
    const int fd = connection->fd;
    connection->deadline = deadline;
    waiting[fd] = std::move(connection);
    watch(fd);
  }

  void readable(int fd) {
    const auto found = waiting.find(fd);
    if (found == waiting.end()) return;
    Connection& connection = *found->second;
    const bool idle = connection.unread().empty();
    const auto got = connection.fill();
    if (got == Connection::Fill::kNothing) return;
    if (got == Connection::Fill::kClosed) return drop(found);
    if (connection.draining) return connection.consume(connection.unread().size());
    // The time for a head runs from its first octet, however the rest of it trickles in.
    if (idle && connection.served > 0) connection.deadline = Clock::now() + options.head_timeout;
    if (connection.has_head()) return hand_over(found);
    if (connection.unread().size() > options.max_head) {
      Owned owned = take(found);
      refuse(std::move(owned), Problem(431, "the head of the request is too large"));
    }
  }

  using Waiting = std::unordered_map<int, Owned>;
  Owned take(Waiting::iterator at) {
    Owned connection = std::move(at->second);
    unwatch(connection->fd);
    waiting.erase(at);
    return connection;
  }
  void drop(Waiting::iterator at) {
    take(at);
    --open;
  }
  void hand_over(Waiting::iterator at) {
    Owned connection = take(at);
    {
      const std::lock_guard lock(mutex);
      queue.push_back(std::move(connection));
    }
    has_work.notify_one();
  }

  /// Answers without a request, and lets the client read the answer.
  void refuse(Owned connection, const Problem& problem) {
    const Response response = problem.response();
    std::string text = "HTTP/1.1 " + std::to_string(response.status) + " " + title_of(response.status) +
                       "\r\nConnection: close\r\nContent-Type: " + response.content_type +
                       "\r\nContent-Length: " + std::to_string(response.body.size()) + "\r\n";
    for (const auto& [name, value] : response.headers) text.append(name).append(": ").append(value).append("\r\n");
    text.append("\r\n").append(response.body);
    ::send(connection->fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    linger(std::move(connection));
  }

  // Closing while octets of the client are unread would reset the connection and take the answer with it.
  void linger(Owned connection) {
    ::shutdown(connection->fd, SHUT_WR);
    connection->draining = true;
    connection->consume(connection->unread().size());
    wait_for(std::move(connection), Clock::now() + kDrainTime);
  }

  void take_returned() {
    std::vector<Owned> back;
    {
      const std::lock_guard lock(mutex);
      back.swap(returned);
    }
    for (auto& connection : back) {
      if (connection->draining) {
        linger(std::move(connection));
      } else {
        const bool idle = connection->unread().empty();
        wait_for(std::move(connection), Clock::now() + (idle ? options.idle_timeout : options.head_timeout));
      }
    }
  }

  void sweep(Clock::time_point now) {
    std::vector<int> late;
    for (const auto& [fd, connection] : waiting) {
      if (now >= connection->deadline) late.push_back(fd);
    }
    for (const int fd : late) {
      const auto found = waiting.find(fd);
      if (found->second->draining || found->second->unread().empty()) {
        drop(found);
      } else {
        Owned owned = take(found);
        refuse(std::move(owned), Problem(408, "the head of the request did not arrive in time"));
      }
    }
  }

  // --- the serving threads -------------------------------------------------------------------------------------------

  void work() {
    Protocol protocol(router, options.idle_timeout);
    std::unique_lock lock(mutex);
    while (true) {
      has_work.wait(lock, [this] { return done || !queue.empty(); });
      if (queue.empty()) return;
      Owned connection = std::move(queue.front());
      queue.pop_front();
      const int fd = connection->fd;
      serving.insert(fd);
      lock.unlock();
      const bool keep = serve(protocol, *connection);
      lock.lock();
      serving.erase(fd);
      if ((keep || connection->draining) && !done) {
        returned.push_back(std::move(connection));
        lock.unlock();
        wake();
        lock.lock();
      } else {
        connection.reset();
        --open;
      }
      if (queue.empty() && serving.empty()) is_idle.notify_all();
    }
  }

  /// Serves what is there and what follows at once; true when the connection stays open.
  bool serve(Protocol& protocol, Connection& connection) {
    while (true) {
      ++connection.served;
      if (!protocol.serve_one(connection, stopping || connection.served >= kRequestsPerConnection)) {
        connection.draining = true;
        ::shutdown(connection.fd, SHUT_WR);
        return false;
      }
      // A client that asks again at once need not take the way through the poller; not while others wait for a thread.
      if (!connection.has_head()) {
        pollfd descriptor{connection.fd, POLLIN, 0};
        if (!nobody_waits() || ::poll(&descriptor, 1, 2) <= 0) return true;
        if (connection.fill() == Connection::Fill::kClosed) return false;
        if (!connection.has_head()) return true;
      }
    }
  }

  bool nobody_waits() {
    const std::lock_guard lock(mutex);
    return queue.empty();
  }

  const ServerOptions options;
  Router router;
  int listener;
  const int number;
  const int poller;
  const int waker;
  Waiting waiting;  // the polling thread's own
  std::atomic<int> open = 0;
  std::atomic<bool> stopping = false;

  std::mutex mutex;  // guards what follows
  std::condition_variable has_work, is_idle;
  std::deque<Owned> queue;
  std::vector<Owned> returned;
  std::set<int> serving;
  bool done = false;

  std::thread poll_thread;
  std::vector<std::thread> threads;
};

HttpServer::HttpServer(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpServer::~HttpServer() = default;
void HttpServer::route(std::string method, std::string pattern, Handler handler) {
  impl_->router.add({std::move(method), std::move(pattern), std::move(handler)});
}
void HttpServer::start() { impl_->start(); }
int HttpServer::port() const noexcept { return impl_->number; }
int HttpServer::stop(std::chrono::milliseconds grace) { return impl_->stop(grace); }

}  // namespace pipegen::http
