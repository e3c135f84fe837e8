// What the routes of one ingestion API share: its NATS connection, once it has one, and doing a request once per
// Idempotency-Key.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.hpp"
#include "http/later.hpp"
#include "http/server.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/ingest.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/settings.hpp"

namespace pipegen::http {

/// For requests that publish at once. With another request of the same Idempotency-Key:
inline constexpr std::chrono::milliseconds kPatience{5'000};
/// Its process may have died after the publish: the message is published again, and the stream must still know its id.
/// One that lives after all does no harm, for it publishes under the same id or loses the key before it does.
inline constexpr std::chrono::milliseconds kTakeover{10'000};

/// What a request was answered with when it was accepted; kept for repetitions of it.
struct Accepted {
  std::string body{};
  std::string location{};

  Response response() const;
};

/// 202 for one message. `workflow_id` may be empty.
Accepted accepted(const std::string& workflow_id, const std::string& message_id, std::string location);

/// One try at a request.
struct Attempt {
  std::string id{};  // a UUID that its message ids are made of, the same for every try with one Idempotency-Key
  /// To be called with the digest of the payload when everything is checked and nothing is visible yet.
  std::function<void(const std::string& digest)> commit = [](const std::string&) {};
  /// To be called now and then by one that may take longer than the task's `takeover`.
  std::function<void()> keep = [] {};
  bool may_be_stored = false;  // this try or one before it may have published, whatever the answer is
};

/// A request that is done once per key.
struct OnceTask {
  std::function<Accepted(Attempt& attempt)> accept{};
  /// Reads the payload of a repetition, without storing it.
  std::function<std::string()> digest{};
  /// What an attempt of this id was answered with, if that can be found out after its process died.
  std::function<std::optional<Accepted>(const std::string& id)> accepted_before{};
  std::chrono::milliseconds patience{0};  // for another request of this key that is on its way
  /// After this time, from its start or the last keep(), its process is taken to have died. 0: when an upload would be
  /// over.
  std::chrono::milliseconds takeover{0};
};

/// Thread safe.
struct IngestContext {
  IngestContext(IngestApi given, const Settings& used, const AnyClock& used_clock);

  Readiness readiness() const;
  /// What metrics call it: the name of the service, as of its section of the settings.
  std::string stage_label() const;
  /// Throws Problem 503 while there is none.
  nats::Connection& connection() const;
  static std::string name_of(const std::vector<BucketSpec>& buckets, const std::string& schema_name);
  /// Does it now, or when NATS is back.
  void now_or_later(std::function<void()> task);
  /// Runs the task once per key; a repetition of the same payload gets the first answer.
  Response once(Request& request, const std::optional<std::string>& key, const OnceTask& task);
  static std::optional<std::string> idempotency_key(const Request& request);
  /// The request's trace on its log lines.
  static void log_trace(Request& request);
  /// Of one message that the request publishes; its context goes into the message's headers.
  static trace::Span begin_send(const Request& request, std::string_view subject, std::string_view message_id,
                                std::size_t size);
  /// Runs `send`; when it throws, the span says so.
  template <typename Send>
  static void send_in(trace::Span span, Send send) {
    try {
      send(span.context());
    } catch (const std::exception& error) {
      span.fail("publish", error.what());
      throw;
    }
  }

  const IngestApi api;
  const Settings settings;
  const std::chrono::milliseconds upload_timeout;
  const AnyClock& clock;
  std::atomic<nats::Connection*> attached = nullptr;
  Later later;
};

}  // namespace pipegen::http
