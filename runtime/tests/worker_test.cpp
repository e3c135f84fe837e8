#include "pipegen/worker.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/json.hpp"
#include "support/nats_server.hpp"
#include "worker/worker.hpp"

extern char** environ;

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::NatsServer;
using testing::TempFolder;
using worker::Worker;
using worker::WorkerOptions;
using Clock = std::chrono::steady_clock;

bool eventually(const std::function<bool()>& condition, milliseconds patience = 30s) {
  for (const auto end = Clock::now() + patience; Clock::now() < end; std::this_thread::sleep_for(10ms)) {
    if (condition()) return true;
  }
  return condition();
}

/// Counts what was handled, by payload.
class Tally {
 public:
  int add(std::string_view payload) {
    const std::lock_guard lock(mutex_);
    return ++counts_[std::string(payload)];
  }
  int of(const std::string& payload) const {
    const std::lock_guard lock(mutex_);
    const auto at = counts_.find(payload);
    return at == counts_.end() ? 0 : at->second;
  }
  std::size_t distinct() const {
    const std::lock_guard lock(mutex_);
    return counts_.size();
  }
  int most() const {
    const std::lock_guard lock(mutex_);
    int most = 0;
    for (const auto& [payload, count] : counts_) most = std::max(most, count);
    return most;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int> counts_;
};

Topology topology() {
  Topology out;
  out.streams = {{.name = "IN", .subjects = {"in.>"}, .retention = Retention::kWorkQueue},
                 {.name = "OUT", .subjects = {"out.>"}},
                 {.name = "TEST_DLQ", .subjects = {"dlq.test.>"}}};
  out.key_values = {{.schema_name = "TEST_STATUS", .name = "TEST_STATUS"},
                    {.schema_name = "STATE", .name = "TEST_STATE"}};
  return out;
}

Stage make_stage(std::function<void(std::string_view, Context&, Outbox&)> handle) {
  Stage stage;
  stage.pipeline = "test";
  stage.name = "work";
  stage.section = "work_service";
  stage.topology = topology();
  stage.stream = "IN";
  stage.durable = "work-workers";
  stage.filter_subject = "in.a";
  stage.event = "Input";
  stage.concurrency = 4;
  stage.ack_wait = 2s;
  stage.timeout = 20s;
  stage.backoff = {50ms};
  stage.dead_letter_stream = "TEST_DLQ";
  stage.dead_letter_subject = "dlq.test.work";
  stage.status_bucket = "TEST_STATUS";
  stage.handle = std::move(handle);
  return stage;
}

Outgoing output(std::string payload) { return {.event = "Output", .subject = "out.a", .payload = std::move(payload)}; }

/// Item payloads are "<group> <index> <count>".
Stage make_collecting_stage(std::function<void(const std::vector<std::string>&, Context&, Outbox&)> handle,
                            milliseconds expires = 1h) {
  Stage stage = make_stage({});
  stage.collect =
      Collect{.state_bucket = "STATE",
              .expires = expires,
              .item =
                  [](std::string_view payload) {
                    Collect::Item item;
                    std::array<char, 64> group{};
                    int index = 0, count = 0;
                    if (std::sscanf(std::string(payload).c_str(), "%63s %d %d", group.data(), &index, &count) != 3) {
                      throw json::Invalid(std::vector<json::Violation>{{"", "not an item"}});
                    }
                    item.group = group.data();
                    item.index = index;
                    item.count = count;
                    return item;
                  },
              .handle = std::move(handle)};
  return stage;
}

WorkerOptions quick() {
  WorkerOptions options;
  options.hold_first = 50ms;
  options.hold_most = 200ms;
  options.grace_period = 5s;
  return options;
}

struct Stored {
  std::string subject;
  std::string payload;
  std::map<std::string, std::string> headers;
};

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() { nats::ensure(connection_, topology()); }

  std::unique_ptr<Worker> start(Stage stage, WorkerOptions options = quick()) {
    auto worker = std::make_unique<Worker>(connection_, std::move(stage), Settings(), metrics_, std::move(options));
    worker->start();
    return worker;
  }

  void send(const std::string& payload, nats::Headers headers = {{"Pipegen-Workflow-Id", "job"}}) {
    connection_.publish("in.a", payload, "id-" + std::to_string(sent_++), headers);
  }

  nats::StreamInfo info(const std::string& stream) {
    nats::StreamInfo info;
    jsErrCode code{};
    EXPECT_EQ(js_GetStreamInfo(info.out(), connection_.handles().publish_js, stream.c_str(), nullptr, &code), NATS_OK);
    return info;
  }
  std::uint64_t stored(const std::string& stream) { return info(stream)->State.Msgs; }

  std::vector<Stored> all(const std::string& stream) {
    std::vector<Stored> out;
    const auto state = info(stream);
    for (std::uint64_t seq = state->State.FirstSeq; seq != 0 && seq <= state->State.LastSeq; ++seq) {
      nats::Message message;
      if (js_GetMsg(message.out(), connection_.handles().publish_js, stream.c_str(), seq, nullptr, nullptr) != NATS_OK)
        continue;
      Stored one{natsMsg_GetSubject(message.get()), std::string(nats::payload_of(message.get())), {}};
      const char** keys = nullptr;
      int count = 0;
      if (natsMsgHeader_Keys(message.get(), &keys, &count) == NATS_OK) {
        for (int i = 0; i < count; ++i) {
          const char* value = nullptr;
          natsMsgHeader_Get(message.get(), keys[i], &value);
          one.headers[keys[i]] = value;
        }
        std::free(static_cast<void*>(keys));
      }
      out.push_back(std::move(one));
    }
    return out;
  }

  bool all_acked() {
    return eventually([this] { return stored("IN") == 0; });
  }

  NatsServer server_;
  nats::Connection connection_{{.url = server_.url()}};
  Metrics metrics_;
  int sent_ = 0;
};

TEST_F(WorkerTest, HandlesEveryMessageOnceAcksItAndKeepsItsStatus) {
  Tally tally;
  auto worker = start(make_stage([&](std::string_view payload, Context&, Outbox& outbox) {
    tally.add(payload);
    outbox.publish(output("of " + std::string(payload)));
  }));
  for (int i = 0; i < 500; ++i) send(std::to_string(i));
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(tally.distinct(), 500u);
  EXPECT_EQ(tally.most(), 1);
  EXPECT_EQ(stored("OUT"), 500u);
  EXPECT_TRUE(worker->readiness().ready);
  KeyValue status(connection_, "TEST_STATUS");
  const auto entries = status.entries("job.work.*");
  ASSERT_EQ(entries.size(), 500u);
  EXPECT_NE(entries[0].value.find(R"("state":"done")"), std::string::npos) << entries[0].value;
  EXPECT_NE(entries[0].value.find(R"("produced":{"Output":1})"), std::string::npos) << entries[0].value;
  EXPECT_TRUE(worker->stop());
  EXPECT_EQ(worker->in_hand(), 0u);
}

TEST_F(WorkerTest, EventsOfARedeliveredMessageHaveTheSameIds) {
  auto worker = start(make_stage([&](std::string_view, Context& context, Outbox& outbox) {
    outbox.publish(output("first"));
    if (context.message().deliveries == 1) throw TransientError("not yet");
    outbox.publish(output("second"));
  }));
  send("x",
       {{"Pipegen-Workflow-Id", "job"}, {"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}});
  ASSERT_TRUE(all_acked());
  const auto out = all("OUT");
  ASSERT_EQ(out.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(out[i].headers.at("Nats-Msg-Id"), Uuid::derived("id-0:work:" + std::to_string(i)).to_string());
    EXPECT_EQ(out[i].headers.at("Pipegen-Workflow-Id"), "job");
    EXPECT_EQ(out[i].headers.at("traceparent").substr(0, 36), "00-0af7651916cd43dd8448eb211c80319c-");
    EXPECT_NE(out[i].headers.at("traceparent").substr(36, 16), "b7ad6b7169203331");
  }
}

TEST_F(WorkerTest, APermanentErrorDeadLettersAtOnceWithItsReason) {
  nats::Subscription advisories;
  ASSERT_EQ(natsConnection_SubscribeSync(advisories.out(), connection_.handles().consume,
                                         "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"),
            NATS_OK);
  Tally tally;
  auto worker = start(make_stage([&](std::string_view payload, Context&, Outbox&) {
    tally.add(payload);
    if (payload == "bad") throw PermanentError("the PDF needs\na password");
  }));
  send("good");
  send("bad", {{"Pipegen-Workflow-Id", "job"}, {"X-Mine", "kept"}});
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].subject, "dlq.test.work");
  EXPECT_EQ(dead[0].payload, "bad");
  const auto& headers = dead[0].headers;
  EXPECT_EQ(headers.at("Nats-Msg-Id"), "dlq:IN:2");
  EXPECT_EQ(headers.at("Pipegen-Original-Nats-Msg-Id"), "id-1");
  EXPECT_EQ(headers.at("X-Mine"), "kept");
  EXPECT_EQ(headers.at("Pipegen-Workflow-Id"), "job");
  EXPECT_EQ(headers.at("Pipegen-Error-Stage"), "work");
  EXPECT_EQ(headers.at("Pipegen-Error-Class"), "PermanentError");
  EXPECT_EQ(headers.at("Pipegen-Error-Message"), "the PDF needs a password");
  EXPECT_EQ(headers.at("Pipegen-Error-Stream"), "IN");
  EXPECT_EQ(headers.at("Pipegen-Error-Seq"), "2");
  EXPECT_EQ(headers.at("Pipegen-Error-Deliveries"), "1");
  EXPECT_EQ(headers.at("Pipegen-Error-Subject"), "in.a");
  EXPECT_TRUE(headers.contains("Pipegen-Error-First-Seen"));
  EXPECT_TRUE(headers.contains("Pipegen-Error-Worker"));
  EXPECT_EQ(tally.of("bad"), 1);
  nats::Message advisory;
  EXPECT_EQ(natsSubscription_NextMsg(advisory.out(), advisories.get(), 5'000), NATS_OK);
  const auto entry = KeyValue(connection_, "TEST_STATUS").get("job.work.id-1");
  ASSERT_TRUE(entry.has_value());
  EXPECT_NE(entry->value.find(R"("state":"failed")"), std::string::npos) << entry->value;
  EXPECT_NE(entry->value.find("password"), std::string::npos) << entry->value;
}

TEST_F(WorkerTest, AReasonThatIsNoUtf8StopsNobodyAndIsReadable) {
  Tally tally;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox&) {
    tally.add(payload);
    if (payload == "bad") throw TransientError("half a caf\xC3");
  });
  stage.concurrency = 1;
  stage.max_deliver = 1;
  auto worker = start(stage);
  send("bad");
  send("good");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(tally.of("good"), 1);
  EXPECT_EQ(tally.of("bad"), 1);
  ASSERT_EQ(stored("TEST_DLQ"), 1u);
  const auto entry = KeyValue(connection_, "TEST_STATUS").get("job.work.id-0");
  ASSERT_TRUE(entry.has_value());
  EXPECT_NE(entry->value.find("\"reason\":\"half a caf\xEF\xBF\xBD\""), std::string::npos) << entry->value;
}

TEST_F(WorkerTest, AMessageThatJustFitsTheServerCanStillBeDeadLettered) {
  auto worker = start(make_stage([](std::string_view, Context&, Outbox&) { throw PermanentError("no"); }));
  const auto limit = static_cast<std::size_t>(connection_.max_payload());
  send(std::string(limit - 200, 'x'));
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Seq"), "1");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Cut"), std::to_string(limit - 200));
}

TEST_F(WorkerTest, ATransientErrorIsTriedAgainWithItsDelayAndDeadLetteredAfterMaxDeliver) {
  std::mutex mutex;
  std::vector<Clock::time_point> calls;
  auto stage = make_stage([&](std::string_view, Context&, Outbox&) {
    const std::lock_guard lock(mutex);
    calls.push_back(Clock::now());
    throw std::runtime_error("flaky");
  });
  stage.max_deliver = 3;
  stage.backoff = {200ms, 400ms};
  auto worker = start(stage);
  send("x");
  ASSERT_TRUE(all_acked());
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_GE(calls[1] - calls[0], 190ms);
  EXPECT_GE(calls[2] - calls[1], 390ms);
  EXPECT_LT(calls[2] - calls[0], 1'900ms) << "it was the server's ack_wait that brought it back";
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Deliveries"), "3");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Class"), "std::runtime_error");
}

TEST_F(WorkerTest, WhatIsAwayHoldsTheWorkerAndBlamesNoMessage) {
  std::atomic<bool> away = true;
  std::atomic<int> failures = 0;
  Tally done;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox&) {
    if (away) {
      ++failures;
      throw Unavailable("the database is away");
    }
    done.add(payload);
  });
  stage.ack_wait = 500ms;
  stage.max_deliver = 2;
  auto worker = start(stage);
  for (int i = 0; i < 100; ++i) send(std::to_string(i));
  ASSERT_TRUE(eventually([&] { return failures > 20; }));
  EXPECT_FALSE(worker->readiness().ready);
  EXPECT_EQ(worker->readiness().reason, "the database is away");
  EXPECT_LT(worker->in_hand(), 20u) << "it went on fetching";
  away = false;
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(done.distinct(), 100u);
  EXPECT_EQ(done.most(), 1);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
}

TEST_F(WorkerTest, AWrongSettingHoldsTheWorkerAndBlamesNoMessage) {
  std::atomic<bool> wrong = true;
  std::atomic<int> refusals = 0;
  Tally done;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox&) {
    if (wrong) {
      ++refusals;
      throw ConfigError("work_service.engine must be one that exists");
    }
    done.add(payload);
  });
  stage.max_deliver = 2;
  auto worker = start(stage);
  send("x");
  ASSERT_TRUE(eventually([&] { return refusals > 3; }));
  EXPECT_FALSE(worker->readiness().ready);
  EXPECT_EQ(worker->readiness().reason, "work_service.engine must be one that exists");
  wrong = false;
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(done.of("x"), 1);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
}

TEST_F(WorkerTest, AnEventThatTheStreamRefusesHoldsItsMessageUntilThereIsRoom) {
  auto full = topology();
  full.streams = {{.name = "SMALL", .subjects = {"small.>"}, .max_messages = 1}};
  full.key_values.clear();
  nats::ensure(connection_, full);
  connection_.publish("small.a", "in the way", "");
  auto worker = start(make_stage([](std::string_view payload, Context&, Outbox& outbox) {
    outbox.publish({.event = "Output", .subject = "small.a", .payload = std::string(payload)});
  }));
  send("x");
  ASSERT_TRUE(eventually([&] { return !worker->readiness().ready; }));
  EXPECT_NE(worker->readiness().reason.find("small.a"), std::string::npos) << worker->readiness().reason;
  EXPECT_EQ(stored("IN"), 1u);
  ASSERT_EQ(js_PurgeStream(connection_.handles().publish_js, "SMALL", nullptr, nullptr), NATS_OK);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(all("SMALL").back().payload, "x");
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
}

TEST_F(WorkerTest, AHandlerThreeTimesLongerThanAckWaitIsCalledOnce) {
  Tally tally;
  auto stage = make_stage([&](std::string_view payload, Context& context, Outbox&) {
    tally.add(payload);
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any().wait_for(lock, context.stop_token(), 1'500ms, [] { return false; });
  });
  stage.ack_wait = 500ms;
  stage.concurrency = 2;
  auto first = start(stage), second = start(stage);
  for (int i = 0; i < 8; ++i) send(std::to_string(i));
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(tally.distinct(), 8u);
  EXPECT_EQ(tally.most(), 1);
}

TEST_F(WorkerTest, GoesOnWhenTheServerWasKilledAndLosesNothing) {
  Tally tally;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox& outbox) {
    tally.add(payload);
    outbox.publish(output(std::string(payload)));
  });
  stage.ack_wait = 1s;
  auto worker = start(stage);
  constexpr int kMessages = 3'000;
  std::atomic<int> accepted = 0;
  std::thread producer([&] {
    for (int i = 0; i < kMessages; ++i) {
      const auto text = std::to_string(i);
      while (true) {
        try {
          connection_.publish("in.a", text, "m" + text);
          break;
        } catch (const Unavailable&) {
          std::this_thread::sleep_for(20ms);
        }
      }
      ++accepted;
    }
  });
  for (const int at : {700, 1'500, 2'300}) {
    EXPECT_TRUE(eventually([&] { return accepted >= at; }, 60s));
    server_.kill(SIGKILL);
    std::this_thread::sleep_for(300ms);  // long enough for everybody to notice
    server_.start();
  }
  producer.join();
  // Not the stream's count: nats-server 2.9 that is killed may keep acked messages of a work queue, which its consumer
  // knows to be acked and nobody gets again.
  const auto settled = [&] {
    nats::ConsumerInfo found;
    return js_GetConsumerInfo(found.out(), connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr) ==
               NATS_OK &&
           found->NumPending == 0 && found->NumAckPending == 0;
  };
  ASSERT_TRUE(eventually(settled, 60s));
  EXPECT_EQ(tally.distinct(), static_cast<std::size_t>(kMessages));
  std::set<std::string> out;
  const auto events = all("OUT");
  for (const auto& event : events) out.insert(event.payload);
  EXPECT_EQ(out.size(), static_cast<std::size_t>(kMessages));
  EXPECT_EQ(events.size(), out.size()) << "an event was stored twice";
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
}

TEST_F(WorkerTest, StoppingFinishesWhatRunsAndHandsBackTheRest) {
  std::atomic<int> running = 0;
  std::atomic<bool> finish = false;
  Tally first_done, second_done;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox&) {
    ++running;
    while (!finish) std::this_thread::sleep_for(5ms);
    first_done.add(payload);
  });
  stage.ack_wait = 60s;  // so that only being handed back brings a message to the second worker
  stage.concurrency = 2;
  auto first = start(stage);
  for (int i = 0; i < 50; ++i) send(std::to_string(i));
  ASSERT_TRUE(eventually([&] { return running == 2; }));
  std::thread stopper([&] { EXPECT_TRUE(first->stop()); });
  EXPECT_TRUE(eventually([&] { return first->readiness().reason == "stopping"; }));
  finish = true;
  stopper.join();
  EXPECT_EQ(first_done.distinct(), 2u);
  stage.handle = [&](std::string_view payload, Context&, Outbox&) { second_done.add(payload); };
  auto second = start(stage);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(second_done.distinct(), 48u);
}

TEST_F(WorkerTest, AHandlerThatOutlastsTheGracePeriodIsToldToStopAndItsMessageHandedBack) {
  std::atomic<int> calls = 0;
  auto stage = make_stage([&](std::string_view, Context& context, Outbox&) {
    ++calls;
    while (true) {
      context.throw_if_stopped();
      std::this_thread::sleep_for(5ms);
    }
  });
  stage.ack_wait = 60s;
  stage.max_deliver = 1;
  auto options = quick();
  options.grace_period = 1s;
  auto first = start(stage, options);
  send("x");
  ASSERT_TRUE(eventually([&] { return calls == 1; }));
  const auto began = Clock::now();
  EXPECT_TRUE(first->stop());
  EXPECT_LT(Clock::now() - began, 1'500ms);
  stage.handle = [](std::string_view, Context&, Outbox&) {};
  auto second = start(stage);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
}

TEST_F(WorkerTest, AHandlerIsToldToStopAtItsDeadline) {
  auto stage = make_stage([&](std::string_view, Context& context, Outbox&) {
    while (true) {
      context.throw_if_stopped();
      std::this_thread::sleep_for(5ms);
    }
  });
  stage.timeout = 300ms;
  stage.max_deliver = 2;
  auto worker = start(stage);
  send("x");
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Message"), "timed out after 300ms");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Deliveries"), "2");
}

TEST_F(WorkerTest, AConsumerThatIsDeletedIsNoticedAndMadeAgain) {
  Tally tally;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox&) { tally.add(payload); });
  auto options = quick();
  options.consumer.expires = 2s;
  options.consumer.heartbeat = 200ms;
  auto worker = start(stage, options);
  send("before");
  ASSERT_TRUE(all_acked());
  const auto created = [&]() -> std::int64_t {
    nats::ConsumerInfo found;
    const natsStatus status =
        js_GetConsumerInfo(found.out(), connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr);
    return status == NATS_OK ? found->Created : 0;
  };
  const std::int64_t before = created();
  ASSERT_NE(before, 0);
  // The answer is not asked: nats-server 2.9 may report that it could not remove the consumer's folder (it still writes
  // there) when the consumer is gone all the same. That it is another one afterwards is what proves it.
  js_DeleteConsumer(connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr);
  ASSERT_TRUE(eventually([&] {
    const std::int64_t after = created();
    return after != 0 && after != before;
  })) << "the consumer was not made again";
  send("after");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(tally.of("after"), 1);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
}

TEST_F(WorkerTest, AConsumerWithOtherSettingsIsAnErrorThatNamesThem) {
  auto stage = make_stage([](std::string_view, Context&, Outbox&) {});
  Worker(connection_, stage, Settings(), metrics_).check();
  stage.ack_wait = 7s;  // may change
  Worker(connection_, stage, Settings(), metrics_).check();
  nats::ConsumerInfo found;
  ASSERT_EQ(js_GetConsumerInfo(found.out(), connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr),
            NATS_OK);
  EXPECT_EQ(found->Config->AckWait, 7'000'000'000);
  EXPECT_EQ(found->Config->MaxDeliver, -1);
  stage.filter_subject = "in.b";
  try {
    Worker(connection_, stage, Settings(), metrics_).check();
    FAIL() << "it accepted another filter";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("filter_subject: it has in.a, the schema says in.b"), std::string::npos)
        << error.what();
  }
}

TEST_F(WorkerTest, ContextGivesStableKeysAndAScratchFolderThatGoesAway) {
  std::mutex mutex;
  std::vector<std::string> keys;
  std::filesystem::path scratch;
  auto worker = start(make_stage([&](std::string_view, Context& context, Outbox&) {
    const std::lock_guard lock(mutex);
    context.set_workflow("late");
    keys.push_back(context.output_key("png"));
    keys.push_back(context.output_key("png"));
    scratch = context.scratch();
    std::ofstream(scratch / "file") << "x";
    EXPECT_THROW(context.objects("NOT_MINE"), ConfigError);
    context.key_value("STATE").put("mine", "1");
    if (context.message().deliveries == 1) throw TransientError("again");
  }));
  send("x", {});
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(keys, (std::vector<std::string>{"late/work/id-0.png", "late/work/id-0-2.png", "late/work/id-0.png",
                                            "late/work/id-0-2.png"}));
  EXPECT_FALSE(std::filesystem::exists(scratch));
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").get("mine")->value, "1");
  EXPECT_TRUE(KeyValue(connection_, "TEST_STATUS").get("late.work.id-0").has_value());
}

// ---------------------------------------------------------------------------------------------------- fan-in

TEST_F(WorkerTest, AGroupIsJoinedOnceByThreeWorkersFromShuffledAndRepeatedItems) {
  std::atomic<int> joins = 0;
  const auto join = [&](const std::vector<std::string>& payloads, Context&, Outbox& outbox) {
    ++joins;
    std::string all;
    for (const auto& payload : payloads) all += payload + ";";
    outbox.publish({.event = "Joined", .subject = "out.joined", .payload = all, .is_result = true});
  };
  const auto stage = make_collecting_stage(join);
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(start(stage));
  constexpr int kGroups = 10, kItems = 12;
  std::vector<std::pair<int, int>> items;
  for (int group = 0; group < kGroups; ++group) {
    for (int index = 1; index <= kItems; ++index) {
      for (int copy = 0; copy < 2; ++copy) items.emplace_back(group, index);
    }
  }
  std::shuffle(items.begin(), items.end(), std::mt19937(7));
  for (const auto& [group, index] : items) {
    const std::string name = "book." + std::to_string(group);
    send(name + " " + std::to_string(index) + " " + std::to_string(kItems), {{"Pipegen-Workflow-Id", name}});
  }
  ASSERT_TRUE(all_acked());
  const auto joined = all("OUT");
  ASSERT_EQ(joined.size(), static_cast<std::size_t>(kGroups));
  EXPECT_EQ(joins, kGroups);
  std::set<std::string> seen;
  for (const auto& event : joined) {
    const std::string name = event.payload.substr(0, event.payload.find(' '));
    EXPECT_TRUE(seen.insert(name).second);
    std::string expected;
    for (int index = 1; index <= kItems; ++index)
      expected += name + " " + std::to_string(index) + " " + std::to_string(kItems) + ";";
    EXPECT_EQ(event.payload, expected);
    EXPECT_EQ(event.headers.at("Pipegen-Workflow-Id"), name);
  }
  KeyValue state(connection_, "TEST_STATE");
  EXPECT_EQ(state.keys("*.item.*").size(), 0u);
  int results = 0;
  for (const auto& entry : KeyValue(connection_, "TEST_STATUS").entries("book=2E0.work.*")) {
    if (entry.value.find(R"("result":{"event":"Joined")") != std::string::npos) ++results;
  }
  EXPECT_EQ(results, 1);
  // A late copy of an item of a group that is done is acked and changes nothing.
  send("book.3 4 12");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(joins, kGroups);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
}

TEST_F(WorkerTest, AJoinThatFailsIsTriedAgainByTheMessageThatBeganIt) {
  std::atomic<int> joins = 0;
  auto worker = start(make_collecting_stage([&](const std::vector<std::string>&, Context&, Outbox& outbox) {
    outbox.publish({.event = "Joined", .subject = "out.joined", .payload = "x", .is_result = true});
    if (++joins < 3) throw TransientError("disk full");
  }));
  send("g 1 2");
  send("g 2 2");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(joins, 3);
  EXPECT_EQ(stored("OUT"), 1u);
}

TEST_F(WorkerTest, AJoinThatIsDeadLetteredCanBeTriedAgainByAReplay) {
  std::atomic<bool> broken = true;
  auto worker = start(make_collecting_stage([&](const std::vector<std::string>& payloads, Context&, Outbox& outbox) {
    if (broken) throw PermanentError("cannot be joined");
    outbox.publish(output(std::to_string(payloads.size())));
  }));
  send("g 1 2");
  send("g 2 2");
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(stored("OUT"), 0u);
  broken = false;
  send(dead[0].payload);
  ASSERT_TRUE(all_acked());
  ASSERT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(all("OUT")[0].payload, "2");
}

TEST_F(WorkerTest, ItemsThatDoNotFitTheirGroupAreDeadLettered) {
  auto worker = start(make_collecting_stage([](const std::vector<std::string>&, Context&, Outbox&) {}));
  send("g 1 3");
  ASSERT_TRUE(all_acked());
  send("g 2 4");
  send("g 5 3");
  send("nonsense");
  ASSERT_TRUE(all_acked());
  std::string reasons;
  for (const auto& dead : all("TEST_DLQ")) reasons += dead.headers.at("Pipegen-Error-Message") + "\n";
  EXPECT_NE(reasons.find("group g has 4 items, an earlier one said 3"), std::string::npos) << reasons;
  EXPECT_NE(reasons.find("index 5 of 3 in group g"), std::string::npos) << reasons;
  EXPECT_EQ(stored("TEST_DLQ"), 3u);
}

TEST_F(WorkerTest, AGroupWithMissingItemsExpiresIntoTheDeadLettersWithTheirNames) {
  std::atomic<int> joins = 0;
  const auto stage =
      make_collecting_stage([&](const std::vector<std::string>&, Context&, Outbox&) { ++joins; }, 1500ms);
  auto first = start(stage), second = start(stage);
  for (int index = 1; index <= 12; ++index) {
    if (index != 3 && index != 7) send("book " + std::to_string(index) + " 12", {{"Pipegen-Workflow-Id", "book"}});
  }
  ASSERT_TRUE(all_acked());
  ASSERT_TRUE(eventually([&] { return stored("TEST_DLQ") == 1; }));
  const auto dead = all("TEST_DLQ").front();
  EXPECT_EQ(dead.headers.at("Pipegen-Error-Message"), "items 3 and 7 of 12 never came within 1500ms (group book)");
  EXPECT_NE(dead.payload.find(R"("missing":[3,7],"count":12,"have":10)"), std::string::npos) << dead.payload;
  KeyValue status(connection_, "TEST_STATUS");
  ASSERT_TRUE(eventually([&] { return status.get("book.work.collect=3Abook").has_value(); }));
  EXPECT_NE(status.get("book.work.collect=3Abook")->value.find("items 3 and 7"), std::string::npos);
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").keys("book.item.*").size(), 0u);
  EXPECT_EQ(joins, 0);
  send("book 3 12");  // too late: it goes where the others went
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("TEST_DLQ"), 2u);
}

// ---------------------------------------------------------------------------------------------------- processes

/// This program again, as a worker; see worker_process().
class Process {
 public:
  Process(const NatsServer& server, const std::string& mode, std::vector<std::string> arguments = {}) {
    const std::string url = "NATS_URL=" + server.url();
    log_ = (folder_.path() / "log").string();
    const std::string kind = "WORKER_MODE=" + mode, config = "WORK_SERVICE_GRACE_PERIOD=5s";
    std::vector<char*> environment;
    for (char** variable = environ; *variable != nullptr; ++variable) environment.push_back(*variable);
    for (const std::string* variable : {&url, &kind, &config})
      environment.push_back(const_cast<char*>(variable->c_str()));
    environment.push_back(nullptr);
    std::vector<char*> argv = {const_cast<char*>("worker_test")};
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(log, STDERR_FILENO);
      ::execve("/proc/self/exe", argv.data(), environment.data());
      ::_exit(127);
    }
  }
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  void signal(int number) const { ::kill(pid_, number); }
  bool ended() {
    if (pid_ > 0 && ::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
    return pid_ <= 0;
  }
  int exit_status() const { return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_); }
  std::string log() const {
    std::ifstream in(log_);
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  TempFolder folder_;
  std::string log_;
  pid_t pid_ = -1;
  int status_ = 0;
};

int worker_process(const std::string& mode, int argc, char** argv) {
  return run_worker(argc, argv, "work", [&](const Settings&) {
    Stage stage = make_stage([mode](std::string_view payload, Context&, Outbox& outbox) {
      if (payload == "poison") std::abort();
      if (payload == "deaf") {
        while (true) std::this_thread::sleep_for(1h);
      }
      std::this_thread::sleep_for(mode == "slow" ? 20ms : 1ms);
      outbox.publish(output(std::string(payload)));
    });
    stage.ack_wait = 500ms;
    stage.timeout = 500ms;
    stage.max_deliver = 3;
    if (mode == "nobucket") stage.status_bucket.clear();
    if (mode == "other") stage.filter_subject = "in.other";
    return stage;
  });
}

class WorkerProcessTest : public WorkerTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(WorkerProcessTest, AMessageThatKillsItsProcessEndsInTheDeadLettersAndNoOtherDoes) {
  for (int i = 0; i < 40; ++i) send(i == 17 ? "poison" : std::to_string(i));
  int crashes = 0;
  auto process = std::make_unique<Process>(server_, GetParam());
  ASSERT_TRUE(eventually(
      [&] {
        if (process->ended()) {
          EXPECT_EQ(process->exit_status(), 128 + SIGABRT) << process->log();
          ++crashes;
          process = std::make_unique<Process>(server_, GetParam());
        }
        return stored("IN") == 0;
      },
      90s))
      << process->log();
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].payload, "poison");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Class"), "Crash");
  EXPECT_GT(crashes, 3);
  std::set<std::string> out;
  for (const auto& event : all("OUT")) out.insert(event.payload);
  EXPECT_EQ(out.size(), 39u);
  KeyValue attempts(connection_, std::string(GetParam()) == "nobucket" ? "PIPEGEN_SUSPECTS" : "TEST_STATUS");
  EXPECT_TRUE(eventually([&] { return attempts.keys("_suspect.>").empty(); }));
}
INSTANTIATE_TEST_SUITE_P(Counting, WorkerProcessTest, ::testing::Values("normal", "nobucket"));

TEST_F(WorkerTest, AHandlerThatIgnoresItsDeadlineEndsTheProcessWithItsMessageDealtWith) {
  send("deaf");
  for (int i = 0; i < 3; ++i) {
    Process process(server_, "normal");
    ASSERT_TRUE(eventually([&] { return process.ended(); })) << process.log();
    EXPECT_EQ(process.exit_status(), 70) << process.log();
  }
  EXPECT_EQ(stored("IN"), 0u);
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_NE(dead[0].headers.at("Pipegen-Error-Message").find("did not react to being told to stop"), std::string::npos);
}

TEST_F(WorkerTest, AWorkerProcessSaysWhatItPromisesAndStopsCleanlyOnSigterm) {
  for (int i = 0; i < 200; ++i) send(std::to_string(i));
  Process process(server_, "slow");
  ASSERT_TRUE(eventually([&] { return process.log().find(R"("message":"ready")") != std::string::npos; }))
      << process.log();
  EXPECT_NE(process.log().find(R"("message":"admin endpoints are served")"), std::string::npos);
  EXPECT_NE(process.log().find(R"("stream":"IN")"), std::string::npos);
  EXPECT_NE(process.log().find(R"("duplicate_window":"120s")"), std::string::npos) << process.log();
  ASSERT_TRUE(eventually([&] { return stored("OUT") > 10; }));
  process.signal(SIGTERM);
  ASSERT_TRUE(eventually([&] { return process.ended(); }));
  EXPECT_EQ(process.exit_status(), 0) << process.log();
  const auto left = stored("IN");
  EXPECT_GT(left, 0u);
  EXPECT_EQ(stored("OUT") + left, 200u) << "something was done and not acked, or acked and not done";
}

TEST_F(WorkerTest, ChecksAndExitsWhenAsked) {
  Process good(server_, "normal", {"--check"});
  ASSERT_TRUE(eventually([&] { return good.ended(); }));
  EXPECT_EQ(good.exit_status(), 0) << good.log();
  Process bad(server_, "other", {"--check"});
  ASSERT_TRUE(eventually([&] { return bad.ended(); }));
  EXPECT_EQ(bad.exit_status(), 78) << bad.log();
  EXPECT_NE(bad.log().find("filter_subject"), std::string::npos) << bad.log();
}

// ---------------------------------------------------------------------------------------------------- figures

/// Not a check of speed: prints what it measured.
TEST_F(WorkerTest, HandlesABacklogOfEmptyCalls) {
  constexpr int kMessages = 200'000;
  std::atomic<int> acked = 0;
  for (int i = 0; i < kMessages; ++i) {
    connection_.publish_async("in.a",
                              R"({"order":"12345","comment":"a message of a hundred octets or so, like many others"})",
                              "", {}, [&](const nats::PublishAck*, std::string_view) { ++acked; });
    while (i - acked > 2'000) std::this_thread::yield();
  }
  ASSERT_TRUE(eventually([&] { return acked == kMessages; }));
  std::atomic<int> handled = 0;
  auto stage = make_stage([&](std::string_view, Context&, Outbox&) { ++handled; });
  stage.ack_wait = 30s;
  const auto began = Clock::now();
  auto worker = start(stage);
  while (handled < kMessages && Clock::now() - began < 60s) std::this_thread::sleep_for(1ms);
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  EXPECT_EQ(handled, kMessages);
  std::printf("[ figure   ] %.0f messages/s through a stage that does nothing\n", kMessages / seconds);
  ASSERT_TRUE(all_acked());
}

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  if (const char* mode = std::getenv("WORKER_MODE")) return pipegen::worker_process(mode, argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
