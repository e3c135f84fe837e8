#include "http/client.hpp"

#include <httplib.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "pipegen/error.hpp"

namespace pipegen::http {

namespace {

constexpr std::size_t kStart = 4096;  // octets that are kept of an answer that is not the result

struct Target {
  std::string server;  // "https://host:port"
  std::string path;
};

Target parse_url(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const bool known = url.starts_with("http://") || url.starts_with("https://");
  const std::size_t authority = scheme == std::string::npos ? 0 : scheme + 3;
  const std::size_t path = std::min(url.find_first_of("/?#", authority), url.size());
  const std::string host = url.substr(authority, path - authority);
  // The URL is not repeated as it may hold a password.
  if (!known || host.empty() || host.find('@') != std::string::npos ||
      url.find_first_of(" \r\n") != std::string::npos) {
    throw ConfigError("the URL of an HTTP endpoint must look like https://host:port/path, without user or password");
  }
  std::string rest = url.substr(path, url.find('#') == std::string::npos ? std::string::npos : url.find('#') - path);
  if (rest.empty() || rest.front() != '/') rest.insert(0, "/");
  return {url.substr(0, path), rest};
}

/// Ends the call from outside when its time is over: httplib's own timeouts start anew with every read.
class Watchdog {
 public:
  Watchdog(httplib::Client& client, std::chrono::milliseconds timeout, std::stop_token stop)
      : thread_([this, &client, deadline = std::chrono::steady_clock::now() + timeout, stop = std::move(stop)] {
          const std::stop_callback wake_up(stop, [this] {
            const std::lock_guard guard(mutex_);
            woken_ = true;
            changed_.notify_all();
          });
          std::unique_lock lock(mutex_);
          changed_.wait_until(lock, deadline, [this] { return done_ || woken_; });
          // Again and again: while a connection is being made there is nothing yet to stop.
          while (!done_) {
            client.stop();
            changed_.wait_for(lock, std::chrono::milliseconds(50), [this] { return done_; });
          }
        }) {}
  ~Watchdog() {
    {
      const std::lock_guard guard(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  bool done_ = false;
  std::thread thread_;
};

std::string in_words(httplib::Error error) {
  switch (error) {
    case httplib::Error::Connection:
      return "no connection";
    case httplib::Error::ConnectionTimeout:
      return "no connection in time";
    case httplib::Error::SSLConnection:
      return "no TLS connection";
    case httplib::Error::SSLServerVerification:
      return "its certificate cannot be trusted";
    case httplib::Error::Read:
      return "it was closed before the answer was complete";
    case httplib::Error::Write:
      return "it was closed before the request was complete";
    default:
      return httplib::to_string(error);
  }
}

/// Whether there was no connection: nothing that the request could be to blame for.
bool is_away(httplib::Error error) {
  switch (error) {
    case httplib::Error::Read:
    case httplib::Error::Write:
    case httplib::Error::Canceled:
    case httplib::Error::Compression:
      return false;
    default:
      return true;
  }
}

}  // namespace

HttpResponse call(const HttpRequest& wanted, std::chrono::milliseconds timeout, std::stop_token stop) {
  const Target target = parse_url(wanted.url);
  const auto cancelled = [&] { return Cancelled("the call of " + target.server + " was cancelled"); };
  if (stop.stop_requested()) throw cancelled();
  httplib::Client client(target.server);
  if (!client.is_valid()) throw ConfigError("cannot call " + target.server + ": TLS cannot be set up");
  client.set_tcp_nodelay(true);
  client.set_keep_alive(false);
  client.set_url_encode(false);  // it is a URL already: httplib would turn the '+' of a query into something else
  client.set_connection_timeout(std::min<std::chrono::milliseconds>(timeout, std::chrono::seconds(10)));
  client.set_read_timeout(timeout);
  client.set_write_timeout(timeout);

  std::exception_ptr failure;  // of a function of the request: none may leave through httplib
  const auto guarded = [&failure](const auto& action) {
    try {
      return action();
    } catch (...) {
      failure = std::current_exception();
      return false;
    }
  };

  httplib::Request request;
  request.method = wanted.method;
  request.path = target.path;
  for (const auto& [name, value] : wanted.headers) request.set_header(name, value);
  if (wanted.bearer_token) request.set_header("Authorization", "Bearer " + *wanted.bearer_token);
  request.body = wanted.body;
  std::vector<std::byte> block;
  if (wanted.read_body) {
    block.resize(64 * 1024);
    request.content_length_ = wanted.body_size;
    request.content_provider_ = [&](std::size_t, std::size_t, httplib::DataSink& sink) {
      return guarded([&] {
        const std::size_t got = wanted.read_body(block);
        return got > 0 && sink.write(reinterpret_cast<const char*>(block.data()), got);
      });
    };
  }

  HttpResponse answer;
  answer.server = target.server;
  bool all = false;        // the body is the result
  bool too_large = false;  // and larger than it may be
  bool enough = false;     // the rest is not looked at
  std::uint64_t size = 0;
  request.response_handler = [&](const httplib::Response& head) {
    answer.status = head.status;
    all = answer.is_success() && wanted.keep == HttpRequest::Keep::kAll;
    return true;
  };
  request.content_receiver = [&](const char* data, std::size_t length, std::uint64_t, std::uint64_t) {
    size += length;
    if (!all) {
      answer.body.append(data, std::min(length, kStart - answer.body.size()));
      enough = size >= kStart;
      return !enough;
    }
    too_large = size > wanted.max_answer;
    if (too_large) return false;
    if (!wanted.take_body) {
      answer.body.append(data, length);
      return true;
    }
    return guarded([&] {
      wanted.take_body(bytes_of({data, length}));
      return true;
    });
  };

  const auto start = std::chrono::steady_clock::now();
  const httplib::Result result = [&] {
    const Watchdog watchdog(client, timeout, stop);
    return client.send(request);
  }();
  if (failure) std::rethrow_exception(failure);
  if (result) answer.status = result->status;
  if (result || enough) return answer;
  if (stop.stop_requested()) throw cancelled();
  if (too_large) {
    throw PermanentError(target.server + " answered with more than " + std::to_string(wanted.max_answer) + " bytes");
  }
  if (std::chrono::steady_clock::now() - start >= timeout) {
    throw Unavailable(target.server + " gave no answer within " + std::to_string(timeout.count()) + " ms");
  }
  const std::string why = in_words(result.error());
  if (is_away(result.error())) throw Unavailable("cannot call " + target.server + ": " + why);
  throw TransientError("the connection to " + target.server + " broke: " + why);
}

HttpResponse post_json(const std::string& url, const std::string& body, const std::optional<std::string>& bearer_token,
                       std::chrono::milliseconds timeout, std::stop_token stop) {
  HttpRequest request;
  request.url = url;
  request.headers = {{"Content-Type", "application/json"}, {"Accept", "application/json"}};
  request.bearer_token = bearer_token;
  request.body = body;
  return call(request, timeout, std::move(stop));
}

}  // namespace pipegen::http
