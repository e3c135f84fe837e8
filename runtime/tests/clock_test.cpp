// A day in seconds: what the runtime does by the clock, with a clock that stands still until the test moves it.
#include "core/clock.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "entities/entity_worker.hpp"
#include "http/idempotency.hpp"
#include "http/later.hpp"
#include "nats/certificate_watch.hpp"
#include "nats/garbage.hpp"
#include "nats/handles.hpp"
#include "pipegen/context.hpp"
#include "pipegen/metrics.hpp"
#include "support/eventually.hpp"
#include "support/held_clock.hpp"
#include "support/nats_server.hpp"
#include "support/postgres_server.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::eventually;
using testing::HeldClock;
using testing::NatsServer;

TEST(HeldClockTest, StandsStillUntilItIsMoved) {
  HeldClock clock;
  const auto began = clock.now();
  const Timestamp wall = clock.wall_time();
  std::this_thread::sleep_for(2ms);
  EXPECT_EQ(clock.now(), began);
  clock.advance(24h);
  EXPECT_EQ(clock.now() - began, 24h);
  EXPECT_EQ(clock.wall_time() - wall, 24h);
}

TEST(HeldClockTest, WakesEveryWaiterWhoseTimeHasComeAndNoOther) {
  HeldClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<int> woken = 0;
  std::atomic<bool> stop = false;
  std::vector<std::jthread> waiters;
  for (const auto time : {1h, 2h, 2h, 24h}) {
    waiters.emplace_back([&, time] {
      std::unique_lock lock(mutex);
      clock.wait_for(changed, lock, time, [&] { return stop.load(); });
      ++woken;
    });
  }
  ASSERT_TRUE(clock.await_waiting(4));
  clock.advance(59min);
  EXPECT_TRUE(clock.await_waiting(4));
  EXPECT_EQ(woken, 0);
  clock.advance(1min);
  EXPECT_TRUE(eventually([&] { return woken == 1; }));
  clock.advance(1h);
  EXPECT_TRUE(eventually([&] { return woken == 3; }));
  EXPECT_TRUE(clock.await_waiting(1));
  {
    const std::lock_guard lock(mutex);
    stop = true;
    changed.notify_all();
  }
  EXPECT_TRUE(eventually([&] { return woken == 4; }));
}

TEST(RealClockTest, EndsAWaitByItselfOrByItsCondition) {
  const AnyClock& clock = AnyClock::real();
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_lock lock(mutex);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(clock.wait_for(changed, lock, 20ms, [] { return false; }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 20ms);
  bool done = false;
  std::jthread other([&] {
    const std::lock_guard held(mutex);
    done = true;
    changed.notify_all();
  });
  EXPECT_TRUE(clock.wait_for(changed, lock, 1h, [&] { return done; }));
}

class DayTest : public ::testing::Test {
 protected:
  std::uint64_t messages_in(const std::string& stream) {
    nats::StreamInfo info;
    nats::check(js_GetStreamInfo(info.out(), connection_.handles().consume_js, stream.c_str(), nullptr, nullptr),
                stream);
    return info->State.Msgs;
  }

  NatsServer server_;
  nats::Connection connection_{{.url = server_.url()}};
  HeldClock clock_;
};

TEST_F(DayTest, GarbageIsLookedForEverySixHoursAndTakenWhenItIsAnHourOld) {
  const Topology topology{.object_buckets = {{.schema_name = "FILES", .name = "FILES"}}};
  nats::ensure(connection_, topology);
  connection_.publish("$O.FILES.C.of-the-dead", "chunk", "");
  Metrics metrics;
  nats::GarbageCollector garbage(connection_, topology, metrics, {.clock = &clock_});
  // After a round it sleeps again: the number of its sleeps is the number of its rounds, and one.
  ASSERT_TRUE(clock_.await_waiting(1));
  clock_.advance(10min);
  ASSERT_TRUE(eventually([&] { return clock_.waits() == 2; })) << "no round in the first ten minutes";
  EXPECT_EQ(messages_in("OBJ_FILES"), 1u) << "a writer that is at work still lost its chunk";
  const std::size_t before = clock_.waits();
  std::size_t taken_in_round = 0;
  for (auto time = 0min; time < 24h; time += 10min) {
    clock_.advance(10min);
    ASSERT_TRUE(clock_.await_waiting(1));
    if (taken_in_round == 0 && messages_in("OBJ_FILES") == 0) taken_in_round = clock_.waits() - before;
  }
  EXPECT_EQ(taken_in_round, 1u);
  // Six hours, give or take a fifth.
  EXPECT_GE(clock_.waits() - before, 3u);
  EXPECT_LE(clock_.waits() - before, 5u);
  EXPECT_NE(metrics.render().find("pipegen_garbage_collected_total{bucket=\"FILES\"} 1\n"), std::string::npos);
}

TEST_F(DayTest, AnIdempotencyKeyOfAProcessThatDiedIsFreeAfterTenMinutes) {
  nats::ensure(connection_, {.key_values = {{.schema_name = "KEYS", .name = "KEYS"}}});
  using State = http::Idempotency::Claim::State;
  http::Idempotency died(connection_, "KEYS", 10min, clock_);
  auto claim = died.begin("/documents", "k");
  ASSERT_EQ(claim.state, State::kMine);
  http::Idempotency next(connection_, "KEYS", 10min, clock_);
  for (int minute = 0; minute < 10; ++minute) {
    clock_.advance(1min);
    EXPECT_EQ(next.begin("/documents", "k").state, State::kBusy) << minute;
  }
  clock_.advance(1s);
  const auto taken = next.begin("/documents", "k");
  EXPECT_EQ(taken.state, State::kMine);
  EXPECT_EQ(taken.id, claim.id);
  EXPECT_THROW(died.commit(claim, "digest"), http::Problem);
  next.finish(taken, "answer");
  clock_.advance(24h);
  EXPECT_EQ(next.begin("/documents", "k").state, State::kDone);
}

TEST(CertificateWatchTest, RenewedFilesAreNoticedWithinTwoMinutesOnceTheyStayAsTheyAre) {
  testing::TempFolder folder;
  const auto file = [&](const char* name) { return (folder.path() / name).string(); };
  const auto make = [&](const std::string& name) {
    const std::string command = "cd " + folder.path().string() +
                                " && openssl req -x509 -newkey rsa:2048 -nodes -days 2 " + "-subj /CN=" + name +
                                " -keyout " + name + ".key -out " + name + ".pem >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  };
  make("used");
  make("new");
  HeldClock clock;
  nats::CertificateWatch watch({.tls_certificate_file = file("used.pem"), .tls_key_file = file("used.key")}, 1min,
                               clock);
  for (int minute = 0; minute < 24 * 60; ++minute) {
    clock.advance(1min);
    ASSERT_FALSE(watch.renewed()) << "nothing has changed";
  }
  // The certificate is there and its key is not yet: what does not belong together is not taken.
  std::filesystem::rename(file("new.pem"), file("used.pem"));
  for (int minute = 0; minute < 5; ++minute) {
    clock.advance(1min);
    EXPECT_FALSE(watch.renewed());
  }
  std::filesystem::rename(file("new.key"), file("used.key"));
  EXPECT_FALSE(watch.renewed()) << "it is not time to look";
  clock.advance(1min);
  EXPECT_FALSE(watch.renewed()) << "they may still be written";
  clock.advance(1min);
  EXPECT_TRUE(watch.renewed());
}

TEST(LaterTest, IsTriedEverySecondOnceNatsIsBackAndGivenUpAfterAHundredTries) {
  HeldClock clock;
  std::atomic<bool> back = false;
  std::atomic<int> asked = 0, tries = 0;
  http::Later later(clock);
  later.add([&] {
    ++tries;
    throw Unavailable("not yet");
  });
  later.start([&] {
    ++asked;
    return back.load();
  });
  const auto pass = [&](std::chrono::seconds step) {
    ASSERT_TRUE(clock.await_waiting(1));
    clock.advance(step);
    ASSERT_TRUE(clock.await_waiting(1));
  };
  for (int minute = 0; minute < 24 * 60; ++minute) pass(1min);  // away for a day
  EXPECT_EQ(asked, 24 * 60);
  EXPECT_EQ(tries, 0);
  back = true;
  for (int second = 0; second < 99; ++second) pass(1s);
  EXPECT_EQ(tries, 99);
  for (int second = 0; second < 20; ++second) pass(1s);
  EXPECT_EQ(tries, 100);
}

// ---------------------------------------------------------------------------------------------------- workers

/// What anybody publishes to a subject, with the held time of its arrival.
class Watcher {
 public:
  struct Seen {
    std::chrono::nanoseconds at;
    std::string subject;
    std::string payload;
  };
  Watcher(const NatsServer& server, const HeldClock& clock, const std::string& subject)
      : clock_(clock), began_(clock.now()), connection_({.url = server.url(), .name = "watcher"}) {
    nats::check(
        natsConnection_Subscribe(subscription_.out(), connection_.handles().consume, subject.c_str(), on_message, this),
        "cannot watch");
    natsConnection_Flush(connection_.handles().consume);
  }

  std::size_t count(std::string_view payload) const {
    const std::lock_guard lock(mutex_);
    return static_cast<std::size_t>(
        std::count_if(seen_.begin(), seen_.end(), [&](const Seen& one) { return one.payload == payload; }));
  }
  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return seen_.size();
  }
  std::vector<Seen> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  static void on_message(natsConnection*, natsSubscription*, natsMsg* raw, void* self) {
    const nats::Message message(raw);
    auto& watcher = *static_cast<Watcher*>(self);
    const auto at = watcher.clock_.now() - watcher.began_;
    const std::lock_guard lock(watcher.mutex_);
    watcher.seen_.push_back({at, natsMsg_GetSubject(raw), std::string(nats::payload_of(raw))});
  }

  const HeldClock& clock_;
  const AnyClock::TimePoint began_;
  mutable std::mutex mutex_;
  std::vector<Seen> seen_;
  nats::Connection connection_;  // before the subscription, which goes first
  nats::Subscription subscription_;
};

class WorkerDayTest : public DayTest {
 protected:
  static Stage make_stage(std::function<void(std::string_view, Context&, Outbox&)> handle) {
    Stage stage;
    stage.pipeline = "day";
    stage.name = "work";
    stage.section = "work_service";
    stage.topology.streams = {{.name = "IN", .subjects = {"in"}, .retention = Retention::kWorkQueue},
                              {.name = "OUT", .subjects = {"out"}, .discard = Discard::kNew, .max_messages = 1},
                              {.name = "DAY_DLQ", .subjects = {"dlq.day.>"}}};
    stage.topology.key_values = {{.schema_name = "STATE", .name = "STATE"}};
    stage.stream = "IN";
    stage.durable = "work-workers";
    stage.filter_subject = "in";
    stage.event = "Input";
    stage.dead_letter_stream = "DAY_DLQ";
    stage.dead_letter_subject = "dlq.day.work";
    stage.handle = std::move(handle);
    return stage;
  }

  /// Its end does not wait for a clock that stands, also when the test failed.
  auto start(const Stage& stage) {
    nats::ensure(connection_, stage.topology);
    const auto end = [this](worker::Worker* worker) {
      clock_.let_go();
      delete worker;
    };
    std::unique_ptr<worker::Worker, decltype(end)> worker(
        new worker::Worker(connection_, stage, Settings(), metrics_, {.grace_period = 2s, .clock = &clock_}), end);
    worker->start();
    return worker;
  }

  /// Moves the clock step by step; after each, waits until `waiters` threads have done what was due.
  void pass(std::chrono::nanoseconds time, std::chrono::nanoseconds step, std::size_t waiters = 1) {
    ASSERT_TRUE(clock_.await_waiting(waiters));
    for (std::chrono::nanoseconds passed{0}; passed < time; passed += step) {
      clock_.advance(step);
      ASSERT_TRUE(clock_.await_waiting(waiters)) << "after " << std::chrono::duration<double>(passed).count() << " s";
    }
  }

  Metrics metrics_;
};

/// A handler that waits until it is let go, or told to stop.
class Gate {
 public:
  void wait(std::stop_token stop) {
    std::unique_lock lock(mutex_);
    ++arrived_;
    if (!changed_.wait(lock, std::move(stop), [this] { return open_; })) throw Cancelled("told to stop");
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  int arrived() const { return arrived_; }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool open_ = false;
  std::atomic<int> arrived_ = 0;
};

TEST_F(WorkerDayTest, AHandlerThatTakesADayIsSignalledEveryTenSecondsAndCalledOnce) {
  Gate gate;
  Stage stage = make_stage([&](std::string_view, Context& context, Outbox&) { gate.wait(context.stop_token()); });
  stage.ack_wait = 30s;
  stage.timeout = 48h;
  const Watcher answers(server_, clock_, "$JS.ACK.>");
  auto worker = start(stage);
  connection_.publish("in", "x", "x");
  ASSERT_TRUE(eventually([&] { return gate.arrived() == 1; }));
  ASSERT_TRUE(clock_.await_waiting(1));
  const auto began = std::chrono::steady_clock::now();
  for (std::size_t round = 1; round <= 24 * 6; ++round) {
    pass(10min, 5s);
    ASSERT_TRUE(eventually([&] { return answers.count("+WPI") >= round * 60; })) << "in ten minutes number " << round;
    ASSERT_EQ(answers.count("+WPI"), round * 60);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("figure: a day of in-progress signals: %.1f s\n", took.count());
  EXPECT_TRUE(worker->readiness().ready);
  gate.open();
  ASSERT_TRUE(eventually([&] { return messages_in("IN") == 0; }));
  EXPECT_EQ(gate.arrived(), 1);
  EXPECT_EQ(messages_in("DAY_DLQ"), 0u);
}

TEST_F(WorkerDayTest, AHandlerIsToldToStopAtItsDeadlineAndNotBefore) {
  Gate gate;
  std::atomic<bool> stopped = false;
  Stage stage = make_stage([&](std::string_view, Context& context, Outbox&) {
    const std::stop_callback note(context.stop_token(), [&] { stopped = true; });
    gate.wait(context.stop_token());
  });
  stage.timeout = 6h;
  stage.backoff = {1min};
  const Watcher answers(server_, clock_, "$JS.ACK.>");
  auto worker = start(stage);
  connection_.publish("in", "x", "x");
  ASSERT_TRUE(eventually([&] { return gate.arrived() == 1; }));
  pass(6h - 1s, 1s);
  EXPECT_FALSE(stopped);
  pass(1s, 1s);
  EXPECT_TRUE(eventually([&] { return stopped.load(); }));
  ASSERT_TRUE(eventually([&] {
    const auto seen = answers.seen();
    return !seen.empty() && seen.back().payload.starts_with("-NAK");
  }));
}

/// Of "-NAK {"delay":NANOSECONDS}".
std::chrono::nanoseconds delay_of(const std::string& nak) {
  const auto at = nak.find(':');
  return std::chrono::nanoseconds(at == std::string::npos ? 0 : std::stoll(nak.substr(at + 1)));
}

TEST_F(WorkerDayTest, EachFailureAsksForTheDelayOfItsPlaceInBackoff) {
  Stage stage = make_stage([](std::string_view, Context&, Outbox&) { throw TransientError("not yet"); });
  stage.backoff = {1s, 10s, 1min};
  stage.max_deliver = 6;
  stage.status_bucket = "STATE";
  nats::ensure(connection_, stage.topology);
  KeyValue counts(connection_, "STATE");
  // Messages that have failed before, as earlier workers counted it: the delays are the server's to wait for.
  for (int failures = 0; failures < 6; ++failures) {
    const auto ack = connection_.publish("in", std::to_string(failures), "m" + std::to_string(failures));
    nats::Message message;
    nats::check(js_GetMsg(message.out(), connection_.handles().publish_js, "IN", ack.sequence, nullptr, nullptr), "IN");
    if (failures == 0) continue;
    counts.put("_failed.work.IN." + std::to_string(ack.sequence) + "-" + std::to_string(natsMsg_GetTime(message.get())),
               std::to_string(failures));
  }
  const Watcher answers(server_, clock_, "$JS.ACK.>");
  auto worker = start(stage);
  ASSERT_TRUE(eventually([&] { return answers.size() >= 6; }));
  clock_.let_go();
  worker->stop();
  std::map<int, std::string> by_message;  // the first answer to each
  for (const auto& one : answers.seen()) {
    int deliveries = 0, sequence = 0;
    ASSERT_EQ(std::sscanf(one.subject.c_str(), "$JS.ACK.IN.work-workers.%d.%d.", &deliveries, &sequence), 2);
    by_message.emplace(sequence - 1, one.payload);
  }
  // A delay that was asked for is not cut short, and up to a fifth longer.
  const std::chrono::nanoseconds expected[] = {1s, 10s, 60s, 60s, 60s};
  for (int failures = 0; failures < 5; ++failures) {
    EXPECT_GE(delay_of(by_message[failures]), expected[failures]) << failures << ": " << by_message[failures];
    EXPECT_LE(delay_of(by_message[failures]), expected[failures] * 6 / 5) << failures << ": " << by_message[failures];
  }
  EXPECT_EQ(by_message[5], "+TERM");
  EXPECT_EQ(messages_in("DAY_DLQ"), 1u);
}

TEST_F(WorkerDayTest, WhileSomethingIsAwayForADayTriesComeHalfASecondApartThenTenSeconds) {
  std::mutex mutex;
  std::vector<AnyClock::TimePoint> tries;
  std::atomic<bool> back = false;
  const Stage stage = make_stage([&](std::string_view, Context&, Outbox&) {
    {
      const std::lock_guard lock(mutex);
      tries.push_back(clock_.now());
    }
    if (!back) throw Unavailable("the archive is away");
  });
  auto worker = start(stage);
  connection_.publish("in", "x", "x");
  // The ticker and the handler's thread.
  pass(2min, 50ms, 2);
  EXPECT_EQ(worker->readiness().reason, "the archive is away");
  {
    const std::lock_guard lock(mutex);
    std::chrono::nanoseconds delay = 500ms;
    ASSERT_GE(tries.size(), 10u);
    for (std::size_t i = 1; i < tries.size(); ++i, delay = std::min<std::chrono::nanoseconds>(delay * 2, 10s)) {
      EXPECT_GE(tries[i] - tries[i - 1], delay * 4 / 5) << i;
      EXPECT_LE(tries[i] - tries[i - 1], delay * 6 / 5 + 50ms) << i;
    }
    tries.clear();
  }
  pass(24h - 2min, 2s, 2);
  {
    const std::lock_guard lock(mutex);
    EXPECT_GE(tries.size(), 24u * 3600 / 14 - 10);
    EXPECT_LE(tries.size(), 24u * 3600 / 8);
    std::printf("figure: tries in a day of something away: %zu\n", tries.size());
  }
  EXPECT_EQ(messages_in("DAY_DLQ"), 0u);
  EXPECT_EQ(messages_in("IN"), 1u);
  back = true;
  ASSERT_TRUE(eventually([&] {
    clock_.advance(1s);
    return messages_in("IN") == 0;
  }));
}

TEST_F(WorkerDayTest, AnEventForAStreamThatIsFullForADayIsStoredOnceThereIsRoom) {
  const Stage stage = make_stage([](std::string_view, Context&, Outbox& outbox) {
    outbox.publish({.event = "Output", .subject = "out", .payload = "second"});
  });
  const Watcher tries(server_, clock_, "out");
  auto worker = start(stage);
  connection_.publish("out", "first", "first");
  connection_.publish("in", "x", "x");
  ASSERT_TRUE(eventually([&] { return tries.count("second") == 1; }));
  for (auto time = 0s; time < 24h; time += 5s) {
    pass(5s, 5s);
    ASSERT_EQ(messages_in("OUT"), 1u);  // and the answer to the last try has the time that it needs
  }
  const std::size_t count = tries.count("second");
  std::printf("figure: publishes in a day of a full stream: %zu\n", count);
  // Half a second, doubled up to five seconds from the answer, which comes some steps late.
  EXPECT_GE(count, 100u);
  EXPECT_LE(count, 24u * 3600 / 5 + 5);
  EXPECT_FALSE(worker->readiness().ready);
  EXPECT_EQ(messages_in("IN"), 1u);
  nats::check(js_PurgeStream(connection_.handles().publish_js, "OUT", nullptr, nullptr), "OUT");
  ASSERT_TRUE(eventually([&] {
    clock_.advance(1s);
    return messages_in("IN") == 0;
  }));
  EXPECT_EQ(messages_in("OUT"), 1u);
  EXPECT_EQ(messages_in("DAY_DLQ"), 0u);
}

TEST_F(WorkerDayTest, AGroupWithAMissingItemExpiresAfterItsDayAndNotBefore) {
  Stage stage = make_stage({});
  std::atomic<int> joined = 0;
  stage.collect =
      Collect{.state_bucket = "STATE",
              .expires = 24h,
              .item = [](std::string_view) { return Collect::Item{.group = "book", .index = 1, .count = 2}; },
              .handle = [&](const std::vector<std::string>&, Context&, Outbox&) { ++joined; }};
  auto worker = start(stage);
  connection_.publish("in", "page 1", "x");
  ASSERT_TRUE(eventually([&] { return messages_in("IN") == 0; }));
  // The ticker, and the thread that looks for expired groups every minute.
  pass(24h - 10min, 10min, 2);
  EXPECT_EQ(messages_in("DAY_DLQ"), 0u);
  EXPECT_NE(metrics_.render().find("pipegen_groups_open{stage=\"work\"} 1\n"), std::string::npos);
  pass(20min, 10min, 2);
  ASSERT_EQ(messages_in("DAY_DLQ"), 1u);
  nats::Message dead;
  nats::check(js_GetLastMsg(dead.out(), connection_.handles().publish_js, "DAY_DLQ", "dlq.day.work", nullptr, nullptr),
              "DAY_DLQ");
  const char* reason = nullptr;
  ASSERT_EQ(natsMsgHeader_Get(dead.get(), "Pipegen-Error-Message", &reason), NATS_OK);
  EXPECT_STREQ(reason, "item 2 of 2 never came within 1d (group book)");
  EXPECT_EQ(joined, 0);
}

TEST_F(WorkerDayTest, RowsWaitForADatabaseThatIsAwayForADayAndAreNotDeliveredAgain) {
  testing::PostgresServer postgres;
  const Settings settings = Settings::from("[database]\nurl = \"" + postgres.url() + "\"", "day", {});
  EntityWorkerSpec spec;
  spec.pipeline = "day";
  spec.name = "entities";
  spec.section = "worker";
  spec.topology.add_stream({.name = "IN", .subjects = {"in"}, .retention = Retention::kWorkQueue});
  spec.topology.add_stream({.name = "DAY_DLQ", .subjects = {"dlq.>"}});
  spec.stream = "IN";
  spec.dead_letter_stream = "DAY_DLQ";
  spec.dead_letter_subject = "dlq.day";
  spec.schema.pipeline = "day";
  spec.schema.add_table({.name = "things", .columns = {{.name = "id"}}, .key = {0}});
  spec.add_entity({.name = "Thing",
                   .subject = "in",
                   .durable = "things",
                   .add_rows = [](std::string_view payload, sql::Batch& batch) { batch.add_row(0).add(payload); }});
  nats::ensure(connection_, spec.topology);
  const auto database = sql::open_postgresql(settings, spec.schema);
  database->migrate();
  const Watcher answers(server_, clock_, "$JS.ACK.>");
  entities::EntityWorker worker(connection_, spec, settings, *database, metrics_,
                                {.grace_period = 2s, .clock = &clock_});
  const std::shared_ptr<void> end(nullptr, [&](void*) { clock_.let_go(); });
  worker.start();
  connection_.publish("in", "before", "before");
  ASSERT_TRUE(eventually([&] { return messages_in("IN") == 0; }));
  postgres.stop();
  connection_.publish("in", "x", "x");
  ASSERT_TRUE(eventually([&] { return !worker.readiness().ready; }));
  // Only a message in hand is signalled for: until there is one, the clock may go on.
  ASSERT_TRUE(eventually([&] {
    clock_.advance(10s);
    return answers.count("+WPI") > 0;
  }));
  const std::size_t before = answers.count("+WPI");
  pass(24h, 10s, 3);  // the ticker, the writer that holds the row, and who removes old status rows
  ASSERT_TRUE(eventually([&] { return answers.count("+WPI") >= before + 24 * 360; }));
  EXPECT_EQ(messages_in("IN"), 1u);
  postgres.start();
  EXPECT_TRUE(eventually([&] {
    clock_.advance(1s);
    return messages_in("IN") == 0;
  }));
  EXPECT_EQ(messages_in("DAY_DLQ"), 0u);
  EXPECT_NE(metrics_.render().find("pipegen_redeliveries_total{stage=\"entities\"} 0\n"), std::string::npos);
  // Nobody has written it for thirty days, by this clock.
  EXPECT_TRUE(database->session()->find_status("before"));
  for (int hour = 0; hour < 30 * 24; ++hour) {
    clock_.advance(1h);
    ASSERT_TRUE(clock_.await_waiting(2));
  }
  EXPECT_TRUE(eventually([&] {
    clock_.advance(1h);
    return !database->session()->find_status("before");
  }));
}

}  // namespace
}  // namespace pipegen
