#include "http/client.hpp"

#include <httplib.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "pipegen/error.hpp"

namespace pipegen::http {

namespace {

constexpr std::size_t kMaxAnswer = 64u << 20;

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

}  // namespace

HttpResponse post_json(const std::string& url, const std::string& body, const std::optional<std::string>& bearer_token,
                       std::chrono::milliseconds timeout, std::stop_token stop) {
  const Target target = parse_url(url);
  if (stop.stop_requested()) throw Cancelled("the call of " + target.server + " was cancelled");
  httplib::Client client(target.server);
  if (!client.is_valid()) throw ConfigError("cannot call " + target.server + ": TLS cannot be set up");
  client.set_tcp_nodelay(true);
  client.set_keep_alive(false);
  client.set_connection_timeout(std::min<std::chrono::milliseconds>(timeout, std::chrono::seconds(10)));
  client.set_read_timeout(timeout);
  client.set_write_timeout(timeout);

  httplib::Request request;
  request.method = "POST";
  request.path = target.path;
  request.body = body;
  request.set_header("Content-Type", "application/json");
  request.set_header("Accept", "application/json");
  if (bearer_token) request.set_header("Authorization", "Bearer " + *bearer_token);
  HttpResponse answer;
  bool too_large = false;
  request.content_receiver = [&](const char* data, std::size_t size, std::uint64_t, std::uint64_t) {
    too_large = answer.body.size() + size > kMaxAnswer;
    if (!too_large) answer.body.append(data, size);
    return !too_large;
  };

  const auto start = std::chrono::steady_clock::now();
  const httplib::Result result = [&] {
    const Watchdog watchdog(client, timeout, stop);
    return client.send(request);
  }();
  if (result) {
    answer.status = result->status;
    return answer;
  }
  if (stop.stop_requested()) throw Cancelled("the call of " + target.server + " was cancelled");
  if (too_large) throw PermanentError(target.server + " answered with more than 64 MiB");
  if (std::chrono::steady_clock::now() - start >= timeout) {
    throw Unavailable(target.server + " gave no answer within " + std::to_string(timeout.count()) + " ms");
  }
  throw Unavailable("cannot call " + target.server + ": " + httplib::to_string(result.error()));
}

}  // namespace pipegen::http
