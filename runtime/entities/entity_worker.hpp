// Messages become rows, many in one transaction.
//
//   EntityWorker worker(connection, spec, settings, *database, metrics);
//   worker.start();
//   …
//   worker.stop();
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.hpp"
#include "core/trace.hpp"
#include "pipegen/admin.hpp"
#include "pipegen/entities.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/stage.hpp"
#include "sql/database.hpp"
#include "worker/dead_letter.hpp"
#include "worker/delivery.hpp"
#include "worker/feed.hpp"
#include "worker/holds.hpp"
#include "worker/intake.hpp"

namespace pipegen::entities {

/// What tests make faster.
struct EntityWorkerOptions {
  std::chrono::milliseconds grace_period{25'000};
  std::chrono::milliseconds ack_wait{30'000};
  std::chrono::milliseconds hold_first{500};    // between tries while something is away: this …
  std::chrono::milliseconds hold_most{10'000};  // … doubled up to this
  /// Before a message is tried again that refers to a row that is not there, or whose transform threw.
  std::vector<std::chrono::milliseconds> backoff{std::chrono::seconds(1), std::chrono::seconds(5),
                                                 std::chrono::seconds(30), std::chrono::minutes(1)};
  std::chrono::milliseconds check_every{5'000};  // whether the database is there, while there is nothing to write
  // Octets of messages, besides those of one request of each entity (consumer.max_bytes).
  std::size_t most_bytes_in_hand = 64u << 20;
  std::size_t most_bytes_in_batch = 16u << 20;
  worker::PullConsumer::Options consumer{.max_bytes = 16u << 20};
  const AnyClock* clock = &AnyClock::real();
};

/// Threads: one per entity fetches, each writer (a session of the database) takes what has come, up to a batch, and
/// writes it in one transaction; one ticks (in-progress signals); one removes old status rows. A message is acked after
/// the commit of its rows.
///
/// A batch that the database does not take is halved until the one row is alone that is at fault. What can never be a
/// row is dead-lettered, in the same transaction as the others' rows are written its status is. While the database or
/// NATS is away the worker holds what it has, and nothing counts as a failure of a message.
class EntityWorker {
 public:
  EntityWorker(nats::Connection& connection, EntityWorkerSpec spec, const Settings& settings, sql::Database& database,
               Metrics& metrics, EntityWorkerOptions options = {});
  ~EntityWorker();
  EntityWorker(const EntityWorker&) = delete;
  EntityWorker& operator=(const EntityWorker&) = delete;

  /// Creates or compares the durable consumers. Throws ConfigError, Unavailable.
  void check();
  /// check(), then begins to consume. The tables must be there.
  void start();
  /// No more fetches; what has not begun is handed back; transactions that run may finish. False when one does not
  /// within the grace period: the process must exit then, the object cannot be destroyed.
  bool stop();

  Readiness readiness() const;
  /// As one of its entities: for what is logged about the stream and its consumer.
  const Stage& stage(std::size_t entity) const { return *stages_[entity]; }

 private:
  /// A message in hand.
  struct Item {
    std::shared_ptr<worker::Delivery> delivery{};
    std::size_t entity = 0;
    std::int64_t version = 0;
    bool was_here = false;  // delivered before, or published again: there may be a status row of it
  };
  using Items = std::vector<Item>;
  /// What a writer has of its own.
  struct Writer {
    explicit Writer(EntityWorker& worker);
    std::unique_ptr<sql::Session> session;
    sql::Batch batch;
    std::vector<sql::MessageStatus> statuses;
    std::vector<Item> in_batch;  // by message of the batch
    bool note_all = false;       // status rows even if they are off, of an attempt that is counted
  };
  struct Failure {
    Item item;
    worker::DeadLetterReason reason;
    bool is_counted = false;  // among the attempts of its status row
  };

  void accept(std::size_t entity, nats::Message message, std::int64_t stream_created);
  std::size_t room() const;

  // writing
  void write_batches();
  Items take(bool& alone, bool& idle);
  bool is_suspect(const worker::Delivery& delivery) const;
  std::size_t suspects_at_a_time(const Item& item) const;
  void leave();
  void write(Writer& writer, const Items& items);
  trace::Span begin_span(const Items& items) const;
  std::vector<sql::Session::Rejected> write_to_database(Writer& writer);
  void write_alone(Writer& writer, const Items& items);
  void write_rows(Writer& writer, std::span<const Item> items, std::vector<Failure>& failures,
                  std::vector<Failure>& hopeless);
  void add_rows(Writer& writer, const Item& item, std::vector<Failure>& failures, std::vector<Failure>& hopeless);
  void retry_or_bury(Writer& writer, const std::vector<Failure>& failures, std::vector<Failure>& hopeless);
  void bury(Writer& writer, const std::vector<Failure>& failures);
  sql::MessageStatus status_of(const Item& item, sql::MessageState state, std::string error = {},
                               int attempts = 0) const;

  void remove_old_statuses();
  void tick();

  nats::Connection& connection_;
  const EntityWorkerSpec spec_;
  const EntityWorkerOptions options_;
  const std::size_t batch_size_;
  const std::size_t writers_count_;
  const bool status_rows_;
  const std::chrono::milliseconds status_max_age_;  // 0: they are kept
  const int max_deliver_;
  sql::Database& database_;
  Logger log_;
  std::vector<std::unique_ptr<Stage>> stages_;  // of the entities, for the parts that consumers share with stages
  worker::DeadLetters dead_letters_;
  /// Answers on the connection whose writes the library batches: the acks of a batch are one write.
  worker::Intake intake_;

  Counter& errors_permanent_;
  Counter& errors_transient_;
  Counter& errors_unavailable_;
  Histogram& duration_;
  Gauge& connected_;
  worker::Holds holds_;

  mutable std::mutex mutex_;
  std::condition_variable work_;     // for the writers
  std::condition_variable changed_;  // for everybody else
  std::deque<Item> queue_;
  std::deque<Item> suspects_;  // delivered so often that they may be what ends the process: written apart
  std::size_t writing_ = 0;
  bool alone_ = false;  // suspects are being written
  bool stopping_ = false;
  bool ticking_ = false;
  std::size_t threads_left_ = 0;  // of writers_

  std::vector<std::unique_ptr<worker::Feed>> feeds_;
  std::vector<std::thread> writers_;  // of the database: of rows, and who removes old ones
  std::thread ticker_;
};

}  // namespace pipegen::entities
