// One HTTP call out, for actions that ask a server (a chat endpoint, say).
#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>

namespace pipegen::http {

struct HttpResponse {
  int status = 0;
  std::string body;
};

/// POSTs JSON to an http or https URL (certificates are verified against the system's store) and gives whatever the
/// server answers; redirects are not followed. Throws Unavailable when there is no connection or no complete answer
/// within `timeout`, Cancelled when `stop` is triggered, PermanentError for an answer beyond 64 MiB, ConfigError for a
/// malformed URL. Thread safe.
HttpResponse post_json(const std::string& url, const std::string& body, const std::optional<std::string>& bearer_token,
                       std::chrono::milliseconds timeout, std::stop_token stop);

}  // namespace pipegen::http
