// Built-in action http_call: one HTTP request for a message.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "pipegen/actions/values.hpp"
#include "pipegen/context.hpp"

namespace pipegen::actions {

struct HttpCall {
  std::string url{};                  // http or https; "{name}" is replaced by the value of that name, percent-encoded
  std::string method = "POST";        // GET, POST, PUT, PATCH or DELETE
  std::optional<ObjectRef> input{};   // the body; without it POST, PUT and PATCH send the values as a JSON object
  std::string content_type{};         // of the body; empty: application/octet-stream of an input, else application/json
  std::optional<ObjectRef> output{};  // where the answer's body goes, at most 512 MiB
  bool text = false;                  // the answer's body is wanted as text: at most 1 MiB of UTF-8
  Values values{};
  std::optional<std::string> bearer_token{};  // secret
};

struct HttpCallResult {
  std::int32_t status = 0;
  std::string text{};
};

/// Streams both bodies: memory stays flat. Every request has the message's id as its Idempotency-Key and goes on with
/// the message's trace (traceparent). Redirects are not followed; an https server's certificate must be good. Ends with
/// the context's stop token. Throws PermanentError (any answer but 2xx that is not among the following, an answer that
/// is too large, text that is not UTF-8, no value for a placeholder), TransientError (408, 425, 429, any 5xx, the
/// connection broke), Unavailable (no connection), ConfigError (the settings cannot be read), Cancelled, and what the
/// object store throws.
HttpCallResult http_call(Context& context, const HttpCall& options);

}  // namespace pipegen::actions
