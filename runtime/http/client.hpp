// One HTTP call out, for actions that ask a server: http_call, and ocr's chat endpoint.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "pipegen/types.hpp"

namespace pipegen::http {

struct HttpRequest {
  std::string method = "POST";
  std::string url{};  // http or https
  std::vector<std::pair<std::string, std::string>> headers{};
  std::optional<std::string> bearer_token{};
  std::string body{};
  /// In place of `body`: fills the buffer, gives the number of octets, `body_size` in all. May throw.
  std::function<std::size_t(std::span<std::byte>)> read_body{};
  std::uint64_t body_size = 0;

  // What is kept of the body of a 2xx answer.
  enum class Keep {
    kAll,    // it is the result: more than `max_answer` octets are a PermanentError
    kStart,  // nobody needs it: its first 4 KiB, as of any other answer
  } keep = Keep::kAll;
  std::uint64_t max_answer = 64u << 20;
  /// Gets the pieces of what is kept as they come, in place of HttpResponse::body. May throw.
  std::function<void(BytesView)> take_body{};
};

struct HttpResponse {
  int status = 0;
  std::string body;
  std::string server;  // "https://host:port", for messages

  bool is_success() const { return status >= 200 && status < 300; }
};

/// Sends the request (the certificate of an https server is verified against the system's store) and gives whatever the
/// server answers; redirects are not followed. Throws Unavailable when there is no connection or no complete answer
/// within `timeout`; TransientError when the connection breaks in between, as the request may be what broke it;
/// Cancelled when `stop` is triggered; PermanentError for an answer that is too large; ConfigError for a malformed URL;
/// whatever the functions of the request throw. Thread safe.
HttpResponse call(const HttpRequest& request, std::chrono::milliseconds timeout, std::stop_token stop);

/// POSTs JSON.
HttpResponse post_json(const std::string& url, const std::string& body, const std::optional<std::string>& bearer_token,
                       std::chrono::milliseconds timeout, std::stop_token stop);

}  // namespace pipegen::http
