#include "worker/worker.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "pipegen/json.hpp"
#include "worker/retries.hpp"
#include "worker/status.hpp"

namespace pipegen::worker {
namespace {

using std::chrono::milliseconds;

constexpr int kExitGaveUp = 70;        // EX_SOFTWARE
constexpr int kMostAloneAttempts = 2;  // that never came back
/// How long counts are kept in a bucket of their own: longer than a message is tried.
constexpr auto kCountsAge = std::chrono::hours(7 * 24);

Counter& errors_of(Metrics& metrics, const Stage& stage, const char* kind) {
  return metrics.counter("pipegen_errors_total", "Calls of the handler that failed.",
                         {{"stage", stage.name}, {"kind", kind}});
}

std::optional<KeyValue> status_store(nats::Connection& connection, const Stage& stage) {
  if (stage.status_bucket.empty()) return std::nullopt;
  return KeyValue(connection, bucket_name(stage.topology, stage.status_bucket));
}

}  // namespace

Worker::Worker(nats::Connection& connection, Stage stage, Settings settings, Metrics& metrics, WorkerOptions options)
    : connection_(connection),
      stage_(std::move(stage)),
      settings_(std::move(settings)),
      options_(std::move(options)),
      concurrency_(static_cast<std::size_t>(
          std::max<std::int64_t>(1, settings_.integer(stage_.section + ".worker_pool_size", stage_.concurrency)))),
      log_(Logger().with({{"stage", stage_.name}})),
      metrics_(metrics),
      stores_(connection, stage_.topology),
      publisher_(connection,
                 metrics.counter("pipegen_publish_retries_total", "Publishes that failed and were sent again.",
                                 {{"stage", stage_.name}}),
                 *options_.clock),
      sent_(metrics, stage_.name),
      dead_letters_(connection, stage_),
      status_(status_store(connection, stage_)),
      intake_(connection.handles().consume, metrics, stage_.name, {stage_.filter_subject}, [this] { finished(); }),
      feed_(connection, stage_,
            {.consumer = options_.consumer,
             .first_delay = options_.hold_first,
             .most_delay = options_.hold_most,
             .clock = options_.clock},
            {.room = [this] { return room(); },
             .take = [this](nats::Message message, std::int64_t) { accept(std::move(message)); },
             .leftover = [this](nats::Message message) { intake_.leave(message); },
             .pending = [this](std::uint64_t count) { intake_.set_pending(0, count); }}),
      errors_permanent_(errors_of(metrics, stage_, "permanent")),
      errors_transient_(errors_of(metrics, stage_, "transient")),
      errors_unavailable_(errors_of(metrics, stage_, "unavailable")),
      errors_timeout_(errors_of(metrics, stage_, "timeout")),
      duration_(metrics.seconds("messaging_process_duration_seconds", "Duration of one call of the handler.",
                                {{"stage", stage_.name}})),
      connected_(metrics.gauge("pipegen_nats_connected", "1 while the NATS server is connected.")),
      holds_(metrics, stage_.name,
             {.first = options_.hold_first,
              .most = options_.hold_most,
              .kinds = {"nats", "events", "message"},
              .clock = options_.clock},
             errors_unavailable_, [this] {
               const std::lock_guard lock(mutex_);
               work_.notify_all();
             }) {
  if (stage_.collect) collector_.emplace(connection_, stage_, *options_.clock);
}

Worker::~Worker() {
  stop();
  publisher_.close();  // its callbacks come to this object
}

void Worker::check() { feed_.check(); }

void Worker::start() {
  feed_.start();
  const std::lock_guard lock(mutex_);
  handlers_left_ = concurrency_;
  ticking_ = true;
  for (std::size_t i = 0; i < concurrency_; ++i) handlers_.emplace_back([this] { handle_messages(); });
  ticker_ = std::thread([this] { tick(); });
  if (collector_) expirer_ = std::thread([this] { expire_groups(); });
}

bool Worker::stop() {
  std::deque<std::shared_ptr<Delivery>> unstarted;
  {
    const std::lock_guard lock(mutex_);
    if (!ticker_.joinable()) return true;
    stopping_ = true;
    work_.notify_all();
    changed_.notify_all();
  }
  holds_.stop();
  const auto began = options_.clock->now();
  feed_.stop();  // hands back what was on its way
  {
    const std::lock_guard lock(mutex_);
    unstarted.swap(queue_);
    unstarted.insert(unstarted.end(), suspects_.begin(), suspects_.end());
    suspects_.clear();
    for (const Task& task : refused_) unstarted.push_back(task.delivery);
    refused_.clear();
  }
  for (const auto& delivery : unstarted) intake_.hand_back(*delivery);

  // Handlers that are told to stop need some of the time too.
  const auto margin = std::min<milliseconds>(options_.grace_period / 4, milliseconds(3'000));
  const auto end = began + options_.grace_period;
  std::vector<std::shared_ptr<Call>> running;
  {
    std::unique_lock lock(mutex_);
    options_.clock->wait_until(changed_, lock, end - margin, [&] { return handlers_left_ == 0; });
    cancelling_ = true;
    running = calls_;
  }
  // Outside the lock: callbacks of the handler's stop token run in this thread.
  for (const auto& call : running) {
    StopReason none = StopReason::kNone;
    call->reason.compare_exchange_strong(none, StopReason::kShutdown);
    call->stop.request_stop();
  }
  bool all_left = false;
  {
    std::unique_lock lock(mutex_);
    all_left = options_.clock->wait_until(changed_, lock, end - margin / 4, [&] { return handlers_left_ == 0; });
    // Events on their way to the stream: without their acks, the messages they belong to are handed back.
    options_.clock->wait_until(changed_, lock, end, [&] { return in_hand() == 0 || !connection_.connected(); });
    ticking_ = false;
    changed_.notify_all();
  }
  intake_.hand_back_all();
  ticker_.join();
  if (expirer_.joinable()) expirer_.join();
  if (!all_left) {
    log_.error("a handler does not react to being told to stop; its message is handed back");
    forget_alone();
    natsConnection_FlushTimeout(connection_.handles().consume, 1'000);
    return false;
  }
  for (auto& handler : handlers_) handler.join();
  handlers_.clear();
  if (connection_.connected()) natsConnection_FlushTimeout(connection_.handles().consume, 2'000);
  intake_.show();
  return true;
}

Readiness Worker::readiness() const {
  if (!connection_.connected()) return {false, "NATS is away"};
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return {false, "stopping"};
  }
  if (std::string trouble = feed_.trouble(); !trouble.empty()) return {false, std::move(trouble)};
  if (std::string reason = holds_.reason(); !reason.empty()) return {false, std::move(reason)};
  return {true, {}};
}

// ---------------------------------------------------------------------------------------------------- fetching

std::size_t Worker::room() {
  if (holds_.any()) return 0;
  InHand& in_hand = intake_.in_hand();
  const std::size_t room = in_hand.room(concurrency_, options_.most_in_hand, options_.most_bytes_in_hand);
  const std::size_t have = in_hand.size();
  // Not a few at a time while much is in hand: a request costs a round trip.
  return have < concurrency_ || have <= 4 * room ? room : 0;
}

void Worker::accept(nats::Message message) {
  const auto delivery = intake_.take(std::move(message));
  if (!delivery) return;
  const std::lock_guard lock(mutex_);
  const bool suspect = delivery->deliveries > static_cast<std::uint64_t>(std::max(1, stage_.max_deliver));
  (suspect ? suspects_ : queue_).push_back(delivery);
  work_.notify_one();
}

/// Messages left the hand.
void Worker::finished() {
  feed_.wake();
  const std::lock_guard lock(mutex_);
  if (stopping_) changed_.notify_all();
}

// ---------------------------------------------------------------------------------------------------- handling

void Worker::handle_messages() {
  while (auto task = take()) {
    const auto& delivery = task->delivery;
    if (!task->decided) {
      handle(delivery, task->alone);
    } else if (!holds_.until_available("message " + std::to_string(delivery->key.sequence),
                                       [&] { settle(delivery, *task->decided); })) {
      intake_.hand_back(*delivery);
    }
    leave(task->alone);
  }
  const std::lock_guard lock(mutex_);
  --handlers_left_;
  changed_.notify_all();
}

std::optional<Worker::Task> Worker::take() {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [&] {
    if (stopping_ || !refused_.empty()) return true;
    if (alone_ || holds_.any()) return false;
    // A suspect waits until nothing else runs, and nothing begins before it ran.
    return suspects_.empty() ? !queue_.empty() : running_ == 0;
  });
  if (stopping_) return std::nullopt;
  ++running_;
  if (!refused_.empty()) {
    Task task = std::move(refused_.front());
    refused_.pop_front();
    return task;
  }
  alone_ = !suspects_.empty();
  auto& from = alone_ ? suspects_ : queue_;
  Task task{.delivery = std::move(from.front()), .alone = alone_};
  from.pop_front();
  return task;
}

void Worker::leave(bool alone) {
  const std::lock_guard lock(mutex_);
  --running_;
  if (alone) alone_ = false;
  if (alone || !suspects_.empty()) work_.notify_all();
}

void Worker::handle(const std::shared_ptr<Delivery>& delivery, bool alone) {
  const std::string what = "message " + std::to_string(delivery->key.sequence);
  std::optional<DeadLetterReason> killer;
  std::optional<int> attempt;
  bool begun = !alone;
  Outcome outcome;
  const bool handled = holds_.until_available(what, [&] {
    // Once, however often something is away: only an end of the process may count.
    if (!begun && (killer = begin_alone(delivery, attempt))) return;
    begun = true;
    outcome = call(delivery);
  });
  if (!handled) {
    forget_alone();
    return intake_.hand_back(*delivery);
  }
  if (killer) outcome = {Outcome::Kind::kDeadLetter, *killer, std::string(delivery->workflow_id())};
  // Until the entry is gone, a later crash would count against this message.
  if (alone && !killer && !holds_.until_available(what, [&] { end_alone(*delivery); }))
    return intake_.hand_back(*delivery);
  if (outcome.kind == Outcome::Kind::kDone) return;  // acked when its events are stored
  if (!holds_.until_available(what, [&] { settle(delivery, outcome); })) return intake_.hand_back(*delivery);
  if (killer) holds_.until_available(what, [&] { end_alone(*delivery); });
}

Worker::Outcome Worker::call(const std::shared_ptr<Delivery>& delivery) {
  const auto call = std::make_shared<Call>();
  call->delivery = delivery;
  const auto began = Clock::now();
  call->deadline = options_.clock->now() + stage_.timeout;
  {
    const std::lock_guard lock(mutex_);
    if (cancelling_) return {Outcome::Kind::kHandBack, {}, {}};
    calls_.push_back(call);
  }
  trace::Span span = begin_span(*delivery);
  const trace::Scope scope(span);
  CallContext context(delivery->info(span.context()), stage_, settings_, log_, stores_, call->deadline,
                      call->stop.get_token());
  CallOutbox outbox(publisher_, sent_, settings_, stage_, context.message(), call->stop.get_token());
  Outcome outcome;
  std::string unavailable;
  const auto failed = [&](Outcome::Kind kind, std::string error_class, std::string message) {
    outcome.kind = kind;
    outcome.reason = {std::move(error_class), std::move(message)};
  };
  try {
    if (collector_) {
      collector_->take(delivery->payload(), context, outbox);
    } else {
      stage_.handle(delivery->payload(), context, outbox);
    }
    publish_done_status(stage_, context.message(), outbox);
  } catch (const Unavailable& error) {
    unavailable = error.what();
    if (unavailable.empty()) unavailable = "something is away";
  } catch (const ConfigError& error) {
    // No message is to blame for a setting: they wait until somebody mends it.
    unavailable = error.what();
  } catch (const PermanentError& error) {
    failed(Outcome::Kind::kDeadLetter, class_of(error), error.what());
    errors_permanent_.add();
  } catch (const Cancelled& error) {
    if (call->reason == StopReason::kDeadline) {
      failed(Outcome::Kind::kRetry, "TransientError", "timed out after " + timeout_text());
      errors_timeout_.add();
    } else {
      failed(Outcome::Kind::kRetry, class_of(error), error.what());
      if (call->reason == StopReason::kNone) errors_transient_.add();
    }
  } catch (const std::exception& error) {
    failed(Outcome::Kind::kRetry, class_of(error), error.what());
    errors_transient_.add();
  } catch (...) {
    failed(Outcome::Kind::kRetry, "unknown", "the handler threw something that is no std::exception");
    errors_transient_.add();
  }
  duration_.observe(std::chrono::duration<double>(Clock::now() - began).count());
  outcome.workflow_id = context.message().workflow_id;
  if (span.recorded()) end_span(span, outcome, unavailable);
  {
    std::unique_lock lock(mutex_);
    std::erase(calls_, call);
    // The process is about to exit and the message's outcome is decided: nothing may happen to it any more.
    while (call->given_up) changed_.wait_for(lock, std::chrono::hours(1));
  }
  if (outcome.kind == Outcome::Kind::kDone && unavailable.empty()) {
    outbox.publishes()->seal([this, delivery, workflow_id = outcome.workflow_id](const std::string& refusal) {
      if (refusal.empty()) return intake_.ack(*delivery);
      refuse(delivery, {Outcome::Kind::kDeadLetter, {"PermanentError", refusal}, workflow_id});
    });
    return outcome;
  }
  outbox.publishes()->abandon();
  // Told to stop for the shutdown, a handler may fail in any way: that says nothing about the message.
  if (call->reason == StopReason::kShutdown) return {Outcome::Kind::kHandBack, {}, outcome.workflow_id};
  if (!unavailable.empty()) throw Unavailable(unavailable);
  return outcome;
}

/// A child of whatever made the message: what one upload leads to is one trace.
trace::Span Worker::begin_span(const Delivery& delivery) const {
  trace::Span span(trace::Kind::kConsumer, "process", stage_.filter_subject, delivery.trace());
  if (!span.recorded()) return span;
  span.set("messaging.system", "nats");
  span.set("messaging.operation.name", "process");
  span.set("messaging.operation.type", "process");
  span.set("messaging.destination.name", delivery.subject());
  span.set("messaging.consumer.group.name", stage_.durable);
  span.set("messaging.message.id", delivery.id());
  span.set("messaging.message.body.size", delivery.payload().size());
  span.set("pipegen.pipeline", stage_.pipeline);
  span.set("pipegen.stage", stage_.name);
  span.set("pipegen.stream", delivery.stream);
  span.set("pipegen.stream.sequence", delivery.key.sequence);
  span.set("pipegen.deliveries", delivery.deliveries);
  return span;
}

/// Ended when the handler has: what it published is stored after that, which the spans of those say.
void Worker::end_span(trace::Span& span, const Outcome& outcome, const std::string& unavailable) {
  if (!outcome.workflow_id.empty()) span.set("messaging.message.conversation_id", outcome.workflow_id);
  if (!unavailable.empty()) {
    span.fail("Unavailable", unavailable);
  } else if (outcome.kind != Outcome::Kind::kDone) {
    span.fail(outcome.reason.error_class, outcome.reason.message);
  }
  span.end();
}

/// May be called again when it threw Unavailable.
void Worker::settle(const std::shared_ptr<Delivery>& delivery, Outcome& outcome) {
  switch (outcome.kind) {
    case Outcome::Kind::kDone:
      return;
    case Outcome::Kind::kHandBack:
      return intake_.hand_back(*delivery);
    case Outcome::Kind::kDeadLetter:
      return bury(delivery, outcome.reason, outcome.workflow_id);
    case Outcome::Kind::kRetry:
      break;
  }
  // Not the server's deliveries: those count restarts, crashes of others and late in-progress signals too.
  const std::string key = count_key("_failed", *delivery);
  if (!outcome.failures) outcome.failures = count_of(key) + 1;
  if (*outcome.failures >= std::max(1, stage_.max_deliver)) return bury(delivery, outcome.reason, outcome.workflow_id);
  counts().put(key, std::to_string(*outcome.failures));
  milliseconds delay(0);
  if (!stage_.backoff.empty()) {
    delay = at_least(stage_.backoff[std::min(static_cast<std::size_t>(*outcome.failures), stage_.backoff.size()) - 1]);
  }
  const MessageInfo info = delivery->info();
  log_.warning("the handler failed; the message will be delivered again", {{"message_id", info.id},
                                                                           {"workflow_id", outcome.workflow_id},
                                                                           {"trace_id", info.trace.trace_id()},
                                                                           {"delivery", info.deliveries},
                                                                           {"failures", *outcome.failures},
                                                                           {"delay_ms", delay.count()},
                                                                           {"class", outcome.reason.error_class},
                                                                           {"error", outcome.reason.message}});
  intake_.nak(*delivery, delay);
}

/// One of the message's events can never be stored. Called from whichever thread learned that, so that a handler thread
/// does what waits for the server.
void Worker::refuse(const std::shared_ptr<Delivery>& delivery, Outcome outcome) {
  errors_permanent_.add();
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      refused_.push_back({.delivery = delivery, .decided = std::move(outcome)});
      work_.notify_one();
      return;
    }
  }
  intake_.hand_back(*delivery);
}

void Worker::bury(const std::shared_ptr<Delivery>& delivery, const DeadLetterReason& reason,
                  const std::string& workflow_id) {
  const MessageInfo info = delivery->info();
  if (collector_) collector_->failed(*delivery);
  dead_letters_.publish(*delivery, reason);
  put_failed_status(workflow_id, info.id, reason.message);
  log_.error("the message is dead-lettered", {{"message_id", info.id},
                                              {"workflow_id", workflow_id},
                                              {"trace_id", info.trace.trace_id()},
                                              {"sequence", info.sequence},
                                              {"deliveries", info.deliveries},
                                              {"class", reason.error_class},
                                              {"error", reason.message}});
  intake_.term(*delivery);
}

/// Throws Unavailable. An entry that can never be stored must not keep the message.
void Worker::put_failed_status(const std::string& workflow_id, const std::string& message_id,
                               const std::string& reason) {
  if (!status_ || workflow_id.empty()) return;
  try {
    status_->put(status_key(workflow_id, stage_, message_id), failed_status(stage_, reason));
  } catch (const PermanentError& error) {
    log_.error("a status entry can never be stored", {{"message_id", message_id}, {"error", error.what()}});
  }
}

// ---------------------------------------------------------------------------------------------------- counts

/// The status bucket; for a pipeline without one a bucket of its own, made when it is needed. (The number of deliveries
/// would not do: a crash counts one for every message in hand.)
KeyValue Worker::counts() {
  if (status_) return *status_;
  const std::string bucket = "PIPEGEN_SUSPECTS";
  KeyValue store(connection_, bucket);
  if (!has_counts_) {
    try {
      store.get("_any");  // a bucket that is there is taken as it is
    } catch (const ConfigError&) {
      Topology topology;
      topology.key_values = {{.schema_name = bucket, .name = bucket, .max_age = kCountsAge}};
      nats::ensure(connection_, topology);
    }
    has_counts_ = true;
  }
  return store;
}

int Worker::count_of(const std::string& key) {
  const auto entry = counts().get(key);
  return entry ? std::atoi(entry->value.c_str()) : 0;
}

/// With the time, because sequences begin again in a stream that was deleted and made again.
std::string Worker::count_key(const char* kind, const Delivery& delivery) const {
  return std::string(kind) + "." + KeyValue::key_token(stage_.name) + "." + KeyValue::key_token(delivery.stream) + "." +
         std::to_string(delivery.key.sequence) + "-" + std::to_string(delivery.key.stored_at);
}

// ---------------------------------------------------------------------------------------------------- suspects

/// Notes that the message is run alone now; or says that this killed the process often enough. May be called again,
/// with the same `attempt`, when it threw: that is no other attempt.
std::optional<DeadLetterReason> Worker::begin_alone(const std::shared_ptr<Delivery>& delivery,
                                                    std::optional<int>& attempt) {
  const std::string key = count_key("_suspect", *delivery);
  if (!attempt) attempt = count_of(key) + 1;
  if (*attempt > kMostAloneAttempts) {
    return DeadLetterReason{"Crash", "the process died while handling it, " + std::to_string(kMostAloneAttempts) +
                                         " times with nothing else running"};
  }
  log_.warning("a message that was in hand at several crashes is run alone",
               {{"message_id", delivery->id()}, {"sequence", delivery->key.sequence}, {"attempt", *attempt}});
  {
    const std::lock_guard lock(mutex_);
    noted_ = delivery;  // before it is: a put that got no answer may be stored
  }
  counts().put(key, std::to_string(*attempt));
  return std::nullopt;
}

void Worker::end_alone(const Delivery& delivery) {
  counts().purge(count_key("_suspect", delivery));
  const std::lock_guard lock(mutex_);
  noted_.reset();
}

/// The message that runs alone is handed back, which is no crash.
void Worker::forget_alone() {
  std::shared_ptr<Delivery> delivery;
  {
    const std::lock_guard lock(mutex_);
    delivery = noted_;
  }
  if (!delivery || !connection_.connected()) return;
  try {
    end_alone(*delivery);
  } catch (const std::exception& error) {
    log_.warning("the end of the process counts as a crash of the message that ran alone",
                 {{"message_id", delivery->id()}, {"reason", error.what()}});
  }
}

// ---------------------------------------------------------------------------------------------------- ticking

void Worker::tick() {
  const auto signal_every = std::max<milliseconds>(stage_.ack_wait / 3, milliseconds(10));
  const auto pause = std::min<milliseconds>(signal_every / 2, milliseconds(50));
  auto signal_due = options_.clock->now() + signal_every;
  std::unique_lock lock(mutex_);
  while (ticking_) {
    options_.clock->wait_for(changed_, lock, pause, [&] { return !ticking_; });
    if (!ticking_) break;
    lock.unlock();
    const bool connected = connection_.connected();
    connected_.set(connected ? 1 : 0);
    if (connected) {
      holds_.release("nats");
      publisher_.repeat_failed();
    } else {
      holds_.hold("nats", "NATS is away");
    }
    const std::string trouble = publisher_.trouble();
    if (trouble.empty()) {
      holds_.release("events");
    } else {
      holds_.hold("events", trouble);
    }
    if (const auto present = options_.clock->now(); present >= signal_due) {
      signal_due = present + signal_every;
      intake_.signal_progress();
    }
    intake_.show();
    check_deadlines();
    lock.lock();
  }
}

void Worker::check_deadlines() {
  const auto now = options_.clock->now();
  std::vector<std::shared_ptr<Call>> late, deaf;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& call : calls_) {
      if (now < call->deadline) continue;
      if (call->reason == StopReason::kNone) late.push_back(call);
      if (call->reason == StopReason::kDeadline && now >= call->deadline + options_.deadline_grace) {
        deaf.push_back(call);
        call->given_up = true;
      }
    }
  }
  // Outside the lock: callbacks of the handler's stop token run in this thread.
  for (const auto& call : late) {
    StopReason none = StopReason::kNone;
    if (call->reason.compare_exchange_strong(none, StopReason::kDeadline)) call->stop.request_stop();
  }
  if (!deaf.empty()) give_up(deaf);
}

void Worker::give_up(const std::vector<std::shared_ptr<Call>>& deaf) {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    work_.notify_all();
    changed_.notify_all();
  }
  holds_.stop();
  // What is handed back must not come back to this process. (No join: stop() may be doing that.)
  feed_.stop_within(std::chrono::seconds(2));
  const std::string why =
      "the handler did not return within " + timeout_text() + " and did not react to being told to stop";
  for (const auto& call : deaf) {
    const auto& delivery = call->delivery;
    log_.error(why + "; the process exits so that a new one can go on", {{"message_id", delivery->id()}});
    Outcome outcome{Outcome::Kind::kRetry, {"TransientError", why}, std::string(delivery->workflow_id())};
    try {
      settle(delivery, outcome);
    } catch (const std::exception& error) {
      log_.error("its message is handed back", {{"reason", error.what()}});
      intake_.hand_back(*delivery);
    }
  }
  forget_alone();
  intake_.hand_back_all();
  natsConnection_FlushTimeout(connection_.handles().consume, 2'000);
  if (options_.give_up) options_.give_up();
  ::_exit(kExitGaveUp);
}

void Worker::expire_groups() {
  Gauge& open = metrics_.gauge("pipegen_groups_open", "Groups that wait for items or are being joined, by any worker.",
                               {{"stage", stage_.name}});
  Counter& expired =
      metrics_.counter("pipegen_groups_expired_total", "Groups given up by this worker.", {{"stage", stage_.name}});
  const auto every = std::clamp<milliseconds>(stage_.collect->expires / 10, milliseconds(50), milliseconds(60'000));
  std::unique_lock lock(mutex_);
  while (!options_.clock->wait_for(changed_, lock, jittered(every), [&] { return stopping_; })) {
    lock.unlock();
    try {
      const auto round = collector_->expire(dead_letters_);
      open.set(static_cast<double>(round.open));
      for (const auto& group : round.expired) {
        expired.add();
        log_.error("a group expired", {{"group", group.group}, {"reason", group.reason}});
        intake_.count_dead_letter();
        put_failed_status(group.workflow_id, "collect:" + group.group, group.reason);
      }
    } catch (const std::exception& error) {  // the next round tries again
      log_.warning("expired groups could not be looked for", {{"reason", error.what()}});
    }
    lock.lock();
  }
}

std::string Worker::timeout_text() const {
  const auto ms = stage_.timeout.count();
  if (ms % 60'000 == 0) return std::to_string(ms / 60'000) + "m";
  if (ms % 1'000 == 0) return std::to_string(ms / 1'000) + "s";
  return std::to_string(ms) + "ms";
}

}  // namespace pipegen::worker
