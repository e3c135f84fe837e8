#include "http/protocol.hpp"

#include <httplib.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "pipegen/log.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;

constexpr int kRequestsPerConnection = 10'000;

/// What httplib may know of a head: the request line, and what it needs to write an answer. It would decode the values
/// of headers, act on ranges, and refuse what is long.
std::string head_for_httplib(const RequestHead& head) {
  std::string text = head.method + " " + head.target + " " + head.version + "\r\n";
  if (head.has_word("Connection", "close")) {
    text += "Connection: close\r\n";
  } else if (head.has_word("Connection", "keep-alive")) {
    text += "Connection: Keep-Alive\r\n";
  }
  if (const auto codings = head.header("Accept-Encoding")) text.append("Accept-Encoding: ").append(*codings) += "\r\n";
  return text += "\r\n";
}

/// What httplib reads a request from and writes its answer to. It declares the virtual functions of several versions of
/// httplib, hence no "override".
class SocketStream : public httplib::Stream {
 public:
  SocketStream(std::string head, Transfer& transfer) : head_(std::move(head)), transfer_(transfer) {}

  virtual bool is_readable() const { return true; }
  virtual bool wait_readable() const { return true; }
  virtual bool is_writable() const { return true; }
  virtual bool wait_writable() const { return true; }
  virtual time_t duration() const { return 0; }
  virtual void get_remote_ip_and_port(std::string&, int&) const {}
  virtual void get_local_ip_and_port(std::string&, int&) const {}
  virtual socket_t socket() const { return transfer_.connection().fd; }

  /// The head alone: bodies are ours.
  virtual ssize_t read(char* out, std::size_t size) {
    const std::size_t part = std::min(size, head_.size() - read_);
    std::memcpy(out, head_.data() + read_, part);
    read_ += part;
    return static_cast<ssize_t>(part);
  }
  virtual ssize_t write(const char* data, std::size_t size) {
    return transfer_.write(data, size) ? static_cast<ssize_t>(size) : -1;
  }
  using httplib::Stream::write;

 private:
  const std::string head_;
  std::size_t read_ = 0;
  Transfer& transfer_;
};

/// Reads the body itself: httplib would unpack it, keep multipart forms in memory, and run regular expressions over
/// them.
class ServedRequest final : public Request {
 public:
  ServedRequest(const httplib::Request& request, const RequestHead& head, Transfer& transfer)
      : head_(head), transfer_(transfer), body_left_open_(head.has_body()) {
    method = request.method;
    path = request.path;
    for (const auto& [name, value] : request.params) query.emplace_back(name, value);
  }

  std::optional<std::string> header(std::string_view name) const override {
    const auto value = head_.header(name);
    return value ? std::optional<std::string>(*value) : std::nullopt;
  }

  std::optional<std::uint64_t> content_length() const override {
    if (head_.chunked) return std::nullopt;
    return head_.length;
  }

  void read_body(std::uint64_t limit, std::chrono::milliseconds timeout,
                 const std::function<void(BytesView)>& sink) override {
    if (!body_left_open_) return;
    limit_ = limit;
    if (!head_.chunked && head_.length > limit) throw too_large();
    const bool is_there = !head_.chunked && transfer_.connection().unread().size() >= head_.length;
    if (!is_there) hold_slot();
    if (head_.expects_continue && !is_there) {
      constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      transfer_.write(kContinue.data(), kContinue.size());
    }
    transfer_.read_within(timeout);
    if (head_.chunked) {
      read_chunked(sink);
    } else {
      read_part(head_.length, sink);
    }
    body_left_open_ = false;
  }

  bool body_left_open() const { return body_left_open_; }

  /// For a transfer that may wait for the client.
  void hold_slot() {
    if (!transfer_.hold_slot()) throw too_many();
  }

 private:
  static Problem too_many() { return Problem(503, "too many transfers at a time", {{"Retry-After", "5"}}); }
  Problem too_large() const {
    return Problem(413, "the body is larger than the " + std::to_string(limit_) + " octets that are allowed");
  }

  std::size_t read_some(char* out, std::size_t size) {
    const ssize_t got = transfer_.read(out, size);
    if (got > 0) return static_cast<std::size_t>(got);
    if (transfer_.failure() == Transfer::Failure::kNoSlot) throw too_many();
    if (transfer_.failure() == Transfer::Failure::kTooSlow) throw Problem(408, "the body did not arrive in time");
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

  const RequestHead& head_;
  Transfer& transfer_;
  bool body_left_open_;  // there are octets of the body on the connection
  std::uint64_t limit_ = 0;
};

/// Sends a body that is made meanwhile; true when all `length` octets went out.
bool send_stream(const Response& response, const Request& request, const Transfer& transfer, httplib::DataSink& sink) {
  std::uint64_t sent = 0;
  bool listens = true;
  std::string reason = "it ended before its length";
  try {
    response.stream([&](BytesView data) {
      const std::size_t part = static_cast<std::size_t>(std::min<std::uint64_t>(data.size(), response.length - sent));
      listens = listens && (part == 0 || sink.write(reinterpret_cast<const char*>(data.data()), part));
      if (listens) sent += part;
      return listens && part == data.size();
    });
  } catch (const std::exception& error) {
    reason = error.what();
  }
  if (sent == response.length) return true;
  if (!listens) {
    reason = transfer.failure() == Transfer::Failure::kTooSlow  ? "the client reads too slowly"
             : transfer.failure() == Transfer::Failure::kNoSlot ? "the client reads slowly, and too many others do"
                                                                : "the client went away";
  }
  request.log.warning("an answer was cut",
                      {{"path", request.path}, {"sent", sent}, {"length", response.length}, {"reason", reason}});
  return false;
}

}  // namespace

class Protocol::Adapter final : public httplib::Server {
 public:
  Adapter(const Router& router, Slots& slots, std::chrono::milliseconds idle_timeout, std::chrono::milliseconds window)
      : router_(router), slots_(slots), window_(window) {
    set_keep_alive_max_count(kRequestsPerConnection);
    set_keep_alive_timeout(std::chrono::duration_cast<std::chrono::seconds>(idle_timeout).count());
    // Runs before httplib routes, so that neither its regular expressions nor its reading of bodies is used.
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      serve(request, response);
      return HandlerResponse::Handled;
    });
    // What httplib refuses by itself has no body.
    set_error_handler(Handler([](const httplib::Request&, httplib::Response& response) {
      if (response.body.empty()) give(Problem(response.status, "the request is not HTTP/1.1"), response);
    }));
    // Its own says in a header what went wrong inside.
    set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
      give(Problem(500, "the service failed"), response);
    });
  }

  bool serve_one(Connection& connection, bool last) {
    const RequestHead head = connection.take_head();
    Transfer transfer(connection, slots_, window_);
    SocketStream stream(head_for_httplib(head), transfer);
    head_ = &head;
    transfer_ = &transfer;
    must_close_ = true;  // unless a request was understood and read to its end
    last_ = last;
    svr_sock_ = connection.fd;  // httplib takes an invalid one as the sign to stop sending
    bool closed = false;
    const bool written = process(*this, stream, last, closed, [](httplib::Request&) {});
    svr_sock_ = INVALID_SOCKET;
    request_.reset();
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

  static void give(const Problem& problem, httplib::Response& out) {
    const Response response = problem.response();
    out.status = response.status;
    out.set_content(response.body, response.content_type);
  }

  void serve(const httplib::Request& in, httplib::Response& out) {
    request_ = std::make_unique<ServedRequest>(in, *head_, *transfer_);
    Response response = router_.answer(*request_, [this](const Response& given) {
      if (given.stream && given.length > 0 && request_->method != "HEAD") request_->hold_slot();
    });
    must_close_ = request_->body_left_open();
    out.status = response.status;
    for (const auto& [name, value] : response.headers) out.set_header(name, value);
    if (must_close_ && !last_) out.set_header("Connection", "close");
    if (response.stream && response.length > 0) {
      const auto length = static_cast<std::size_t>(response.length);
      const std::string content_type = response.content_type;
      // The request outlives the answer: it is gone when serve_one() returns.
      out.set_content_provider(
          length, content_type,
          [this, response = std::move(response)](std::size_t, std::size_t, httplib::DataSink& sink) {
            return send_stream(response, *request_, *transfer_, sink);
          });
    } else if (!response.content_type.empty()) {
      out.set_content(response.body, response.content_type);
    }
  }

  const Router& router_;
  Slots& slots_;
  const std::chrono::milliseconds window_;
  // Of the request that is being served:
  const RequestHead* head_ = nullptr;
  Transfer* transfer_ = nullptr;
  std::unique_ptr<ServedRequest> request_;
  bool must_close_ = false;
  bool last_ = false;
};

Protocol::Protocol(const Router& router, Slots& slots, std::chrono::milliseconds idle_timeout,
                   std::chrono::milliseconds window)
    : adapter_(std::make_unique<Adapter>(router, slots, idle_timeout, window)) {}
Protocol::~Protocol() = default;
bool Protocol::serve_one(Connection& connection, bool last) { return adapter_->serve_one(connection, last); }

}  // namespace pipegen::http
