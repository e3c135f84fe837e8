#include "entities/entity_worker.hpp"

#include <algorithm>
#include <charconv>
#include <exception>
#include <utility>

#include "core/json_text.hpp"
#include "core/sha256.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"
#include "worker/retries.hpp"

namespace pipegen::entities {
namespace {

using std::chrono::milliseconds;
using worker::DeadLetterReason;
using worker::Delivery;
using Clock = std::chrono::steady_clock;

/// Where a message stands among all that ever were in its stream, also before the stream was deleted and made again: no
/// stream takes more than one message per nanosecond. One that is published again says where it stood.
std::int64_t version_of(const Delivery& delivery, std::int64_t stream_created) {
  const std::string_view given = delivery.header("Pipegen-Version");
  std::int64_t version = 0;
  const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), version);
  if (!given.empty() && error == std::errc() && end == given.data() + given.size()) return version;
  return stream_created + static_cast<std::int64_t>(delivery.key.sequence);
}

Timestamp received_at(const Delivery& delivery) {
  if (const auto given = parse_timestamp(delivery.header("Pipegen-Received-At"))) return *given;
  return Timestamp(std::chrono::microseconds(delivery.key.stored_at / 1000));
}

constexpr auto kRemoveStatusesEvery = std::chrono::hours(1);
constexpr std::size_t kStatusesAtATime = 5'000;   // that are removed in one transaction
constexpr auto kRemovePause = milliseconds(100);  // between two: the writers want to write, too

// Octets. An index of PostgreSQL takes no entry of some thousands, and the API asks for no longer id.
constexpr std::size_t kMaxMessageId = 256;

/// The id as the key of a status row. Whoever publishes chooses it: one that databases do not take gives way to its
/// hash.
std::string status_id(std::string_view id) {
  if (id.size() <= kMaxMessageId && id.find('\0') == std::string_view::npos && json::is_utf8(id))
    return std::string(id);
  return "sha256:" + hex(Sha256::of(bytes_of(id)));
}

Counter& errors_of(Metrics& metrics, const std::string& stage, const char* kind) {
  return metrics.counter("pipegen_errors_total", "Messages that were not written, and tries that were not.",
                         {{"stage", stage}, {"kind", kind}});
}

/// What the parts that are made for stages have to know of an entity.
std::unique_ptr<Stage> stage_of(const EntityWorkerSpec& spec, const EntitySpec& entity, milliseconds ack_wait,
                                int max_deliver) {
  auto stage = std::make_unique<Stage>();
  stage->pipeline = spec.pipeline;
  stage->name = spec.name;
  stage->section = spec.section;
  stage->stream = spec.stream;
  stage->durable = entity.durable;
  stage->filter_subject = entity.subject;
  stage->event = entity.name;
  stage->ack_wait = ack_wait;
  stage->timeout = milliseconds(0);
  stage->max_deliver = max_deliver;
  stage->dead_letter_stream = spec.dead_letter_stream;
  stage->dead_letter_subject = spec.dead_letter_subject;
  return stage;
}

std::vector<std::string> subjects_of(const EntityWorkerSpec& spec) {
  std::vector<std::string> subjects;
  for (const EntitySpec& entity : spec.entities) subjects.push_back(entity.subject);
  return subjects;
}

std::size_t writers_of(const EntityWorkerSpec& spec, const Settings& settings, const sql::Database& database) {
  const auto wanted = settings.integer(spec.section + ".worker_pool_size", 2, 1, 64);
  return database.concurrent() ? static_cast<std::size_t>(wanted) : 1;
}

}  // namespace

EntityWorker::Writer::Writer(EntityWorker& worker)
    : session(worker.database_.session()), batch(worker.database_.schema()), statuses(), in_batch() {}

EntityWorker::EntityWorker(nats::Connection& connection, EntityWorkerSpec spec, const Settings& settings,
                           sql::Database& database, Metrics& metrics, EntityWorkerOptions options)
    : connection_(connection),
      spec_(std::move(spec)),
      options_(std::move(options)),
      batch_size_(static_cast<std::size_t>(settings.integer(spec_.section + ".batch_size", 500, 1, 10'000))),
      writers_count_(writers_of(spec_, settings, database)),
      status_rows_(settings.flag(spec_.section + ".status_rows", true)),
      status_max_age_(settings.duration(spec_.section + ".status_max_age", std::chrono::hours(30 * 24))),
      max_deliver_(static_cast<int>(settings.integer(spec_.section + ".max_deliver", 5, 1, 1'000))),
      database_(database),
      log_(Logger().with({{"stage", spec_.name}})),
      stages_([&] {
        std::vector<std::unique_ptr<Stage>> stages;
        for (const EntitySpec& entity : spec_.entities) {
          stages.push_back(stage_of(spec_, entity, options_.ack_wait, max_deliver_));
        }
        if (stages.empty()) throw ConfigError("the entity worker " + spec_.name + " has no entities");
        return stages;
      }()),
      dead_letters_(connection, *stages_.front()),
      intake_(connection.handles().publish, metrics, spec_.name, subjects_of(spec_), [] {}),
      errors_permanent_(errors_of(metrics, spec_.name, "permanent")),
      errors_transient_(errors_of(metrics, spec_.name, "transient")),
      errors_unavailable_(errors_of(metrics, spec_.name, "unavailable")),
      duration_(metrics.seconds("messaging_process_duration_seconds", "Duration of one batch, commit included.",
                                {{"stage", spec_.name}})),
      connected_(metrics.gauge("pipegen_nats_connected", "1 while the NATS server is connected.")),
      holds_(metrics, spec_.name,
             {.first = options_.hold_first,
              .most = options_.hold_most,
              .kinds = {"database", "dead-letters", "transform"},
              .clock = options_.clock},
             errors_unavailable_, [this] {
               const std::lock_guard lock(mutex_);
               work_.notify_all();
             }) {
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    feeds_.push_back(std::make_unique<worker::Feed>(
        connection_, *stages_[i],
        worker::Feed::Options{.consumer = options_.consumer,
                              .first_delay = options_.hold_first,
                              .most_delay = options_.hold_most,
                              .clock = options_.clock},
        worker::Feed::Hooks{
            .room = [this] { return room(); },
            .take = [this, i](nats::Message message, std::int64_t created) { accept(i, std::move(message), created); },
            .leftover = [this](nats::Message message) { intake_.leave(message); },
            .pending = [this, i](std::uint64_t count) { intake_.set_pending(i, count); }}));
  }
}

EntityWorker::~EntityWorker() { stop(); }

void EntityWorker::check() {
  for (const auto& feed : feeds_) feed->check();
}

void EntityWorker::start() {
  check();
  {
    const std::lock_guard lock(mutex_);
    ticking_ = true;
    threads_left_ = writers_count_ + (status_max_age_ > milliseconds(0) ? 1 : 0);
  }
  for (std::size_t i = 0; i < writers_count_; ++i) writers_.emplace_back([this] { write_batches(); });
  if (status_max_age_ > milliseconds(0)) writers_.emplace_back([this] { remove_old_statuses(); });
  ticker_ = std::thread([this] { tick(); });
  for (const auto& feed : feeds_) feed->start();
}

bool EntityWorker::stop() {
  std::deque<Item> unwritten;
  {
    const std::lock_guard lock(mutex_);
    if (!ticker_.joinable()) return true;
    stopping_ = true;
    work_.notify_all();
    changed_.notify_all();
  }
  holds_.stop();
  const auto end = options_.clock->now() + options_.grace_period;
  for (const auto& feed : feeds_) feed->request_stop();
  for (const auto& feed : feeds_) feed->stop();
  bool all_left = false;
  {
    std::unique_lock lock(mutex_);
    unwritten.swap(queue_);
    unwritten.insert(unwritten.end(), suspects_.begin(), suspects_.end());
    suspects_.clear();
    lock.unlock();
    for (const Item& item : unwritten) intake_.hand_back(*item.delivery);
    lock.lock();
    all_left = options_.clock->wait_until(changed_, lock, end, [&] { return threads_left_ == 0; });
    ticking_ = false;
    changed_.notify_all();
  }
  intake_.hand_back_all();
  ticker_.join();
  if (connection_.connected()) natsConnection_FlushTimeout(connection_.handles().publish, 2'000);
  if (!all_left) {
    log_.error("a transaction did not end in time; its messages are handed back");
    return false;
  }
  for (auto& writer : writers_) writer.join();
  writers_.clear();
  intake_.show();
  return true;
}

Readiness EntityWorker::readiness() const {
  if (!connection_.connected()) return {false, "NATS is away"};
  for (const auto& feed : feeds_) {
    if (std::string trouble = feed->trouble(); !trouble.empty()) return {false, std::move(trouble)};
  }
  if (std::string reason = holds_.reason(); !reason.empty()) return {false, std::move(reason)};
  const std::lock_guard lock(mutex_);
  if (stopping_) return {false, "stopping"};
  return {true, {}};
}

// ---------------------------------------------------------------------------------------------------- fetching

/// Enough that each writer finds a whole batch when it comes back, and not a few at a time: a request costs a round
/// trip.
std::size_t EntityWorker::room() const {
  const std::size_t most = batch_size_ * (2 * writers_count_ + 2);
  if (holds_.any()) return 0;
  const worker::InHand& in_hand = intake_.in_hand();
  const std::size_t have = in_hand.size();
  return have <= most - batch_size_ && in_hand.bytes() < options_.most_bytes_in_hand ? most - have : 0;
}

void EntityWorker::accept(std::size_t entity, nats::Message message, std::int64_t stream_created) {
  auto delivery = intake_.take(std::move(message), entity);
  if (!delivery) return;
  const bool suspect = is_suspect(*delivery);
  const std::int64_t version = version_of(*delivery, stream_created);
  const bool was_here = delivery->deliveries > 1 || !delivery->header("Pipegen-Version").empty();
  const std::lock_guard lock(mutex_);
  (suspect ? suspects_ : queue_).push_back({std::move(delivery), entity, version, was_here});
  work_.notify_one();
}

// ---------------------------------------------------------------------------------------------------- writing

void EntityWorker::write_batches() {
  Writer writer(*this);
  for (;;) {
    bool alone = false, idle = false;
    const Items items = take(alone, idle);
    if (idle) {
      holds_.until_available("database", [&] { writer.session->check(); });
      continue;
    }
    if (items.empty()) break;
    const auto began = Clock::now();
    alone ? write_alone(writer, items) : write(writer, items);
    // The next suspect may end the process: by then the acks of these have to be gone, or they share its blame.
    if (is_suspect(*items.front().delivery)) natsConnection_FlushTimeout(connection_.handles().publish, 2'000);
    duration_.observe(std::chrono::duration<double>(Clock::now() - began).count());
    leave();
    for (const auto& feed : feeds_) feed->wake();
  }
  const std::lock_guard lock(mutex_);
  --threads_left_;
  changed_.notify_all();
}

/// Nothing at the end, or when there was nothing to do for a while: then `idle`.
EntityWorker::Items EntityWorker::take(bool& alone, bool& idle) {
  std::unique_lock lock(mutex_);
  const auto something = [&] {
    if (stopping_) return true;
    if (alone_ || holds_.any()) return false;
    // Suspects wait until nothing else is written, and nothing begins before they were.
    return suspects_.empty() ? !queue_.empty() : writing_ == 0;
  };
  if (!options_.clock->wait_for(work_, lock, options_.check_every, something)) {
    idle = queue_.empty() && !holds_.any();
    if (idle) return {};
    work_.wait(lock, something);
  }
  Items items;
  if (stopping_) return items;
  ++writing_;
  alone_ = !suspects_.empty();
  auto& from = alone_ ? suspects_ : queue_;
  const std::size_t count = std::min(alone_ ? suspects_at_a_time(from.front()) : batch_size_, from.size());
  alone = alone_ && count == 1;
  items.reserve(count);
  for (std::size_t i = 0, size = 0; i < count && size < options_.most_bytes_in_batch; ++i) {
    size += from.front().delivery->size;
    items.push_back(std::move(from.front()));
    from.pop_front();
  }
  return items;
}

/// In hand at so many ends of the process that it may be what ends it.
bool EntityWorker::is_suspect(const Delivery& delivery) const {
  return delivery.deliveries > static_cast<std::uint64_t>(max_deliver_);
}

/// An eighth at each further end of the process: what was in hand with the one that ends it is soon out of its way.
std::size_t EntityWorker::suspects_at_a_time(const Item& item) const {
  const std::uint64_t more = item.delivery->deliveries - static_cast<std::uint64_t>(max_deliver_);
  return more > 6 ? 1 : std::max<std::size_t>(1, batch_size_ >> (3 * more));
}

void EntityWorker::leave() {
  const std::lock_guard lock(mutex_);
  --writing_;
  if (std::exchange(alone_, false) || !suspects_.empty()) work_.notify_all();
}

/// Linked to whatever made its messages, and a part of their trace if they have but one. Only when somebody takes
/// spans: nothing goes out from here.
trace::Span EntityWorker::begin_span(const Items& items) const {
  if (!trace::recording()) return {};
  std::vector<TraceContext> from;
  from.reserve(items.size());
  for (const Item& item : items) from.push_back(item.delivery->trace());
  const std::size_t entity = items.front().entity;
  const bool one_entity =
      std::all_of(items.begin(), items.end(), [entity](const Item& item) { return item.entity == entity; });
  const std::string destination = one_entity ? spec_.entities[entity].subject : spec_.pipeline + ".ingest.>";
  trace::Span span = trace::Span::of_batch(trace::Kind::kConsumer, "process", destination, from);
  if (!span.recorded()) return span;
  span.set("messaging.system", "nats");
  span.set("messaging.operation.name", "process");
  span.set("messaging.operation.type", "process");
  span.set("messaging.destination.name", destination);
  if (one_entity) span.set("messaging.consumer.group.name", spec_.entities[entity].durable);
  span.set("messaging.batch.message_count", items.size());
  span.set("pipegen.pipeline", spec_.pipeline);
  span.set("pipegen.stage", spec_.name);
  span.set("pipegen.stream", spec_.stream);
  if (items.size() == 1) {
    span.set("messaging.message.id", items.front().delivery->id());
    span.set("pipegen.deliveries", items.front().delivery->deliveries);
  }
  return span;
}

/// One transaction.
std::vector<sql::Session::Rejected> EntityWorker::write_to_database(Writer& writer) {
  trace::Span span = trace::Span::of_current(trace::Kind::kClient, "BATCH", "INSERT");
  if (span.recorded()) {
    span.set("db.system.name", database_.system());
    span.set("db.operation.name", "BATCH INSERT");
    span.set("db.operation.batch.size", writer.batch.messages());
  }
  try {
    return writer.session->write(writer.batch, writer.statuses);
  } catch (const std::exception& error) {
    span.fail(worker::class_of(error), error.what());
    throw;
  }
}

void EntityWorker::write(Writer& writer, const Items& items) {
  trace::Span span = begin_span(items);
  const trace::Scope scope(span);
  std::vector<Failure> failures, hopeless;
  write_rows(writer, items, failures, hopeless);
  for (const auto* some : {&failures, &hopeless}) {
    if (!span.recorded()) break;
    for (const Failure& failure : *some) {
      span.fail(failure.reason.error_class, std::string(failure.item.delivery->id()) + ": " + failure.reason.message);
    }
  }
  if (!failures.empty()) retry_or_bury(writer, failures, hopeless);
  if (!hopeless.empty()) bury(writer, hopeless);
}

/// A message that was in hand at many ends of the process. What ends it now is this one's fault.
void EntityWorker::write_alone(Writer& writer, const Items& items) {
  const Item& item = items.front();
  const std::string why = "the process ended while it was written, with nothing else";
  int attempts = 0;
  const bool noted = holds_.until_available("database", [&] {
    attempts = writer.session->note_attempt(status_of(item, sql::MessageState::kProcessing, why, 1));
  });
  if (!noted) return intake_.hand_back(*item.delivery);
  log_.warning("a message that was in hand at several ends of the process is written alone",
               {{"message_id", item.delivery->id()}, {"attempts", attempts}});
  if (attempts > max_deliver_) return bury(writer, {Failure{item, {"Crash", why}, true}});
  writer.note_all = true;  // or it would count as being written for ever
  write(writer, items);
  writer.note_all = false;
}

/// Parses a message into the batch, if that can be done. Throws Unavailable and ConfigError, of a transform.
void EntityWorker::add_rows(Writer& writer, const Item& item, std::vector<Failure>& failures,
                            std::vector<Failure>& hopeless) {
  writer.batch.begin_message(item.version);
  try {
    spec_.entities[item.entity].add_rows(item.delivery->payload(), writer.batch);
    writer.in_batch.push_back(item);
    return;
  } catch (const Unavailable&) {
    writer.batch.take_back_message();
    throw;
  } catch (const ConfigError&) {
    writer.batch.take_back_message();
    throw;
  } catch (const PermanentError& error) {
    errors_permanent_.add();
    hopeless.push_back({item, {worker::class_of(error), error.what()}});
  } catch (const std::exception& error) {  // of a transform
    errors_transient_.add();
    failures.push_back({item, {worker::class_of(error), error.what()}});
  }
  writer.batch.take_back_message();
}

void EntityWorker::write_rows(Writer& writer, std::span<const Item> items, std::vector<Failure>& failures,
                              std::vector<Failure>& hopeless) {
  writer.batch.clear();
  writer.in_batch.clear();
  std::size_t parsed = 0;
  const bool complete = holds_.until_available("transform", [&] {
    for (; parsed < items.size(); ++parsed) add_rows(writer, items[parsed], failures, hopeless);
  });
  if (!complete) {
    for (const Item& item : items.subspan(parsed)) intake_.hand_back(*item.delivery);
  }
  if (writer.in_batch.empty()) return;
  writer.statuses.clear();
  for (const Item& item : writer.in_batch) {
    // What failed before has a row in any case, which must not go on to say so.
    if (!status_rows_ && !writer.note_all && !item.was_here) continue;
    // One that is written alone was counted before.
    writer.statuses.push_back(status_of(item, sql::MessageState::kCompleted, {}, writer.note_all ? 0 : 1));
  }
  const Items written = writer.in_batch;  // halving fills it anew
  std::vector<sql::Session::Rejected> rejected;
  std::optional<Failure> refused;  // what the database said, and whether it can change its mind
  bool hopeless_one = false;
  const bool available = holds_.until_available("database", [&] {
    try {
      rejected = write_to_database(writer);
    } catch (const TransientError& error) {
      refused = Failure{written.front(), {worker::class_of(error), error.what()}};
    } catch (const PermanentError& error) {
      refused = Failure{written.front(), {worker::class_of(error), error.what()}};
      hopeless_one = true;
    }
  });
  if (!available) {
    for (const Item& item : written) intake_.hand_back(*item.delivery);
    return;
  }
  if (refused && written.size() > 1) {
    const std::span<const Item> all(written);
    write_rows(writer, all.first(all.size() / 2), failures, hopeless);
    return write_rows(writer, all.subspan(all.size() / 2), failures, hopeless);
  }
  if (refused) {
    (hopeless_one ? errors_permanent_ : errors_transient_).add();
    (hopeless_one ? hopeless : failures).push_back(std::move(*refused));
    return;
  }
  if (!rejected.empty()) {  // nothing is written yet
    std::vector<bool> out(written.size(), false);
    for (auto& [message, reason] : rejected) {
      if (out[message]) continue;
      out[message] = true;
      errors_permanent_.add();
      hopeless.push_back({written[message], {"Conflict", std::move(reason)}});
    }
    Items rest;
    for (std::size_t i = 0; i < written.size(); ++i) {
      if (!out[i]) rest.push_back(written[i]);
    }
    return write_rows(writer, rest, failures, hopeless);
  }
  std::vector<const Delivery*> done;
  done.reserve(written.size());
  for (const Item& item : written) done.push_back(item.delivery.get());
  intake_.ack_all(done);
}

void EntityWorker::retry_or_bury(Writer& writer, const std::vector<Failure>& failures, std::vector<Failure>& hopeless) {
  for (const Failure& failure : failures) {
    const Delivery& delivery = *failure.item.delivery;
    int attempts = 0;
    const bool available = holds_.until_available("database", [&] {
      // One that is written alone was counted before.
      attempts = writer.session->note_attempt(
          status_of(failure.item, sql::MessageState::kFailed, failure.reason.message, writer.note_all ? 0 : 1));
    });
    if (!available) {
      intake_.hand_back(delivery);
    } else if (attempts >= max_deliver_) {
      hopeless.push_back({failure.item, failure.reason, true});
    } else {
      const auto& backoff = options_.backoff;
      const milliseconds delay =
          backoff.empty() ? milliseconds(0)
                          : worker::at_least(backoff[std::min(static_cast<std::size_t>(attempts), backoff.size()) - 1]);
      log_.warning("the message could not be written; it will be delivered again",
                   {{"message_id", delivery.id()},
                    {"trace_id", delivery.trace().trace_id()},
                    {"attempts", attempts},
                    {"delay_ms", delay.count()},
                    {"class", failure.reason.error_class},
                    {"error", failure.reason.message}});
      intake_.nak(delivery, delay);
    }
  }
}

void EntityWorker::bury(Writer& writer, const std::vector<Failure>& failures) {
  std::vector<worker::DeadLetters::Letter> letters;
  writer.statuses.clear();
  for (const Failure& failure : failures) {
    // Published again, it must not pass for newer than what came after it. (What was before has the header.)
    nats::Headers more;
    if (failure.item.delivery->header("Pipegen-Version").empty()) {
      more["Pipegen-Version"] = std::to_string(failure.item.version);
    }
    letters.push_back({failure.item.delivery, failure.reason, std::move(more)});
    writer.statuses.push_back(status_of(failure.item, sql::MessageState::kDeadLettered, failure.reason.message,
                                        failure.is_counted || writer.note_all ? 0 : 1));
  }
  writer.batch.clear();
  const auto note = [&] {
    try {
      writer.session->write(writer.batch, writer.statuses);
    } catch (const PermanentError& error) {
      // To try again would never end; the dead letters say the same.
      log_.warning("the status of dead letters could not be written", {{"error", error.what()}});
    }
  };
  const bool noted = holds_.until_available("dead-letters", [&] { dead_letters_.publish_all(letters); }) &&
                     holds_.until_available("database", note);
  for (const Failure& failure : failures) {
    const Delivery& delivery = *failure.item.delivery;
    if (!noted) {
      intake_.hand_back(delivery);
      continue;
    }
    log_.error("the message is dead-lettered", {{"message_id", delivery.id()},
                                                {"trace_id", delivery.trace().trace_id()},
                                                {"sequence", delivery.key.sequence},
                                                {"deliveries", delivery.deliveries},
                                                {"class", failure.reason.error_class},
                                                {"error", failure.reason.message}});
    intake_.term(delivery);
  }
}

sql::MessageStatus EntityWorker::status_of(const Item& item, sql::MessageState state, std::string error,
                                           int attempts) const {
  return {.message_id = status_id(item.delivery->id()),
          .entity_type = std::string(spec_.entities[item.entity].name),
          .state = state,
          .attempts = attempts,
          .error = std::move(error),
          .received_at = received_at(*item.delivery),
          .updated_at = now(),
          .traceparent = item.delivery->trace().traceparent()};
}

/// At the start, and then every hour. Other processes may do the same; what goes wrong with it stops nobody.
void EntityWorker::remove_old_statuses() {
  const auto wait = [this](milliseconds time) {  // false at the end
    std::unique_lock lock(mutex_);
    return !options_.clock->wait_for(changed_, lock, time, [this] { return stopping_; });
  };
  do {
    try {
      const auto session = database_.session();
      std::size_t all = 0, removed = 0;
      do {
        removed = session->remove_statuses(options_.clock->wall_time() - status_max_age_, kStatusesAtATime);
        all += removed;
      } while (removed == kStatusesAtATime && wait(kRemovePause));
      if (all > 0) log_.info("old status rows are removed", {{"rows", all}});
    } catch (const std::exception& error) {
      log_.warning("old status rows could not be removed; the next try is in an hour", {{"error", error.what()}});
    }
  } while (wait(kRemoveStatusesEvery));
  const std::lock_guard lock(mutex_);
  --threads_left_;
  changed_.notify_all();
}

void EntityWorker::tick() {
  const auto signal_every = std::max<milliseconds>(options_.ack_wait / 3, milliseconds(10));
  const auto pause = std::min<milliseconds>(signal_every / 2, milliseconds(50));
  auto signal_due = options_.clock->now() + signal_every;
  std::unique_lock lock(mutex_);
  while (ticking_) {
    options_.clock->wait_for(changed_, lock, pause, [&] { return !ticking_; });
    if (!ticking_) break;
    lock.unlock();
    connected_.set(connection_.connected() ? 1 : 0);
    if (const auto present = options_.clock->now(); present >= signal_due) {
      signal_due = present + signal_every;
      intake_.signal_progress();
    }
    intake_.show();
    lock.lock();
  }
}

}  // namespace pipegen::entities
