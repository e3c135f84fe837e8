// The consumer loop of one stage in one process.
//
//   Worker worker(connection, stage, settings, metrics);
//   worker.start();
//   …
//   worker.stop();
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/clock.hpp"
#include "core/trace.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/stage.hpp"
#include "worker/collect.hpp"
#include "worker/context.hpp"
#include "worker/dead_letter.hpp"
#include "worker/feed.hpp"
#include "worker/holds.hpp"
#include "worker/intake.hpp"
#include "worker/outbox.hpp"

namespace pipegen::worker {

/// What every worker does the same; tests make it faster.
struct WorkerOptions {
  std::chrono::milliseconds grace_period{25'000};  // of stop()
  // A handler's, to react to its deadline. Longer than an object's last acks (10 s) and the purge of what was written
  // of it (5 s), which do not react to the stop token: a server that elects a leader is not the handler's fault.
  std::chrono::milliseconds deadline_grace{20'000};
  std::chrono::milliseconds hold_first{500};    // between tries while something is away: this …
  std::chrono::milliseconds hold_most{10'000};  // … doubled up to this
  std::size_t most_in_hand = 1'000;
  std::size_t most_bytes_in_hand = 64u << 20;
  PullConsumer::Options consumer{};
  const AnyClock* clock = &AnyClock::real();
  /// Called when a handler neither returned nor reacted to its deadline; must not return.
  std::function<void()> give_up{};
};

/// Threads: one fetches, `concurrency` run handlers, one ticks (in-progress signals, deadlines, failed publishes), one
/// looks for expired groups if the stage collects. Acks are sent from whichever thread learns that the last event is
/// stored.
class Worker {
 public:
  Worker(nats::Connection& connection, Stage stage, Settings settings, Metrics& metrics, WorkerOptions options = {});
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Creates or compares the durable consumer. Throws ConfigError, Unavailable.
  void check();
  /// check(), then begins to consume.
  void start();
  /// No more fetches; what has not begun is handed back; running handlers may finish, then are told to stop and handed
  /// back. False when a handler did not even react to that: the process must exit then, the object cannot be destroyed.
  bool stop();

  Readiness readiness() const;
  std::size_t in_hand() const { return intake_.in_hand().size(); }

 private:
  using Clock = std::chrono::steady_clock;

  enum class StopReason { kNone, kDeadline, kShutdown };
  struct Call {
    std::shared_ptr<Delivery> delivery;
    Clock::time_point deadline;
    std::stop_source stop{};
    std::atomic<StopReason> reason{StopReason::kNone};
    std::atomic<bool> given_up = false;
  };
  struct Outcome {
    enum class Kind { kDone, kRetry, kDeadLetter, kHandBack } kind = Kind::kDone;
    DeadLetterReason reason{};
    std::string workflow_id{};
    std::optional<int> failures{};  // of the handler with this message, once they are counted
  };

  std::size_t room();
  void accept(nats::Message message);
  void finished();

  // handling
  struct Task {
    std::shared_ptr<Delivery> delivery{};
    bool alone = false;
    std::optional<Outcome> decided{};  // handled already: only to be settled
  };
  void handle_messages();
  std::optional<Task> take();
  void leave(bool alone);
  void handle(const std::shared_ptr<Delivery>& delivery, bool alone);
  Outcome call(const std::shared_ptr<Delivery>& delivery);
  trace::Span begin_span(const Delivery& delivery) const;
  static void end_span(trace::Span& span, const Outcome& outcome, const std::string& unavailable);
  void settle(const std::shared_ptr<Delivery>& delivery, Outcome& outcome);
  void refuse(const std::shared_ptr<Delivery>& delivery, Outcome outcome);
  void bury(const std::shared_ptr<Delivery>& delivery, const DeadLetterReason& reason, const std::string& workflow_id);
  void put_failed_status(const std::string& workflow_id, const std::string& message_id, const std::string& reason);

  // what is counted of a message from one delivery to the next
  KeyValue counts();
  int count_of(const std::string& key);
  std::string count_key(const char* kind, const Delivery& delivery) const;

  // suspects: messages that were delivered so often that they may be what kills the process
  std::optional<DeadLetterReason> begin_alone(const std::shared_ptr<Delivery>& delivery, std::optional<int>& attempt);
  void end_alone(const Delivery& delivery);
  void forget_alone();

  void tick();
  void check_deadlines();
  void give_up(const std::vector<std::shared_ptr<Call>>& deaf);
  void expire_groups();
  std::string timeout_text() const;

  nats::Connection& connection_;
  const Stage stage_;
  const Settings settings_;
  const WorkerOptions options_;
  const std::size_t concurrency_;
  Logger log_;
  Metrics& metrics_;
  Stores stores_;
  Publisher publisher_;
  SentCounters sent_;
  DeadLetters dead_letters_;
  std::optional<Collector> collector_;
  std::optional<KeyValue> status_;
  Intake intake_;
  Feed feed_;

  Counter& errors_permanent_;
  Counter& errors_transient_;
  Counter& errors_unavailable_;
  Counter& errors_timeout_;
  Histogram& duration_;
  Gauge& connected_;
  Holds holds_;

  mutable std::mutex mutex_;
  std::condition_variable work_;     // for handler threads: something to do, or the end
  std::condition_variable changed_;  // for everybody else
  std::deque<std::shared_ptr<Delivery>> queue_;
  std::deque<std::shared_ptr<Delivery>> suspects_;
  std::deque<Task> refused_;
  std::vector<std::shared_ptr<Call>> calls_;
  std::size_t running_ = 0;
  bool alone_ = false;               // only one suspect runs at a time
  std::shared_ptr<Delivery> noted_;  // the suspect whose end counts as a crash until its note is taken back
  bool stopping_ = false;
  bool cancelling_ = false;
  bool ticking_ = false;
  std::atomic<bool> has_counts_ = false;
  std::size_t handlers_left_ = 0;

  std::vector<std::thread> handlers_;
  std::thread ticker_;
  std::thread expirer_;
};

}  // namespace pipegen::worker
