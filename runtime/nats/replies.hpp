// For runtime/nats only: many requests in flight on one connection, their answers matched by the inbox they come to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "nats/handles.hpp"

namespace pipegen::json {
class Reader;
}

namespace pipegen::nats {

/// Why JetStream refuses a request ("error" of its answer).
struct ApiError {
  int code = 0;  // err_code
  std::string description{};
};
ApiError read_api_error(json::Reader& in);

/// What became of one publish.
struct Outcome {
  PublishAck ack{};
  natsStatus status = NATS_OK;  // of the way to the server and back
  int code = 0;                 // JetStream's error code; 0: stored
  std::string error{};          // JetStream's text for it
  bool stored() const { return status == NATS_OK && code == 0 && error.empty(); }
};

/// Why `outcome` is not stored(), for a person. `what` is "event text.processed" or "object book.pdf".
std::string explain(const Outcome& outcome, std::string_view what);
/// Whether trying again can never help.
bool is_permanent(const Outcome& outcome);
/// Throws that as Unavailable, PermanentError or ConfigError.
[[noreturn]] void throw_outcome(const Outcome& outcome, std::string_view what);

/// Sends with a reply subject of its own inbox. Every send ends in exactly one call of its handler, from one of two
/// threads of this object: with the answer, or with NATS_TIMEOUT, NATS_NO_RESPONDERS or what the send failed with.
/// Thread safe. Not the library's js_PublishMsgAsync, because that gives up silently on messages whose connection
/// broke.
class Replies {
 public:
  using Handler = std::function<void(natsStatus status, Message answer)>;

  Replies(natsConnection* connection, std::chrono::milliseconds timeout);
  ~Replies();
  Replies(const Replies&) = delete;
  Replies& operator=(const Replies&) = delete;

  void send(const std::string& subject, std::string_view payload, const Headers& headers, Handler handler);
  void publish(const std::string& subject, std::string_view payload, const Headers& headers,
               std::function<void(Outcome)> done);
  /// Publishes and waits.
  Outcome publish(const std::string& subject, std::string_view payload, const Headers& headers);
  /// The connection broke: no answer comes to what was sent so far. Their handlers get NATS_CONNECTION_DISCONNECTED,
  /// a moment later (answers that have arrived come first), instead of waiting for the timeout. Does not block.
  void connection_lost();
  /// The future throws like throw_status().
  std::future<Message> request(const std::string& subject, std::string payload, std::string what);

 private:
  using Clock = std::chrono::steady_clock;

  static void on_message(natsConnection*, natsSubscription*, natsMsg* raw, void* self);
  static void on_complete(void* self);
  void finish(std::uint64_t id, natsStatus status, Message answer);
  void watch();

  natsConnection* connection_;
  const std::chrono::milliseconds timeout_;
  std::string inbox_;  // "_INBOX.<nuid>."
  Subscription subscription_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t last_id_ = 0;
  std::unordered_map<std::uint64_t, Handler> waiting_;
  std::deque<std::pair<Clock::time_point, std::uint64_t>> deadlines_;  // in order, because the timeout is one
  std::deque<std::pair<std::uint64_t, natsStatus>> failed_;            // not even sent
  std::deque<std::pair<Clock::time_point, std::uint64_t>> lost_;       // sent before the connection broke
  bool stopping_ = false;
  bool subscription_done_ = false;
  std::thread watcher_;
};

}  // namespace pipegen::nats
