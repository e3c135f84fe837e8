#include "pipegen/worker.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/json.hpp"
#include "support/eventually.hpp"
#include "support/nats_server.hpp"
#include "support/process.hpp"
#include "support/soak.hpp"
#include "worker/collect.hpp"
#include "worker/consumer.hpp"
#include "worker/context.hpp"
#include "worker/stall_watch.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::eventually;
using testing::NatsServer;
using testing::TempFolder;
using worker::Worker;
using worker::WorkerOptions;
using Clock = std::chrono::steady_clock;

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
  out.object_buckets = {{.schema_name = "TEST_FILES", .name = "TEST_FILES"}};
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

  void set_max_message_size(const std::string& stream, std::int32_t octets) {
    const auto found = info(stream);
    jsStreamConfig config = *found->Config;
    config.MaxMsgSize = octets;
    ASSERT_EQ(js_UpdateStream(nullptr, connection_.handles().publish_js, &config, nullptr, nullptr), NATS_OK);
  }

  /// The value of a metric of the stage; NaN when there is none. `labels` are those after the stage.
  double metric(const std::string& name, const std::string& labels = "") {
    const std::string text = metrics_.render(), line = "\n" + name + "{stage=\"work\"" + labels + "} ";
    const auto at = text.find(line);
    return at == std::string::npos ? std::nan("") : std::strtod(text.c_str() + at + line.size(), nullptr);
  }

  /// The durable consumer, made by somebody else.
  void make_consumer(const std::function<void(jsConsumerConfig&)>& set) {
    jsConsumerConfig config;
    jsConsumerConfig_Init(&config);
    config.Durable = "work-workers";
    config.AckPolicy = js_AckExplicit;
    config.FilterSubject = "in.a";
    set(config);
    ASSERT_EQ(js_AddConsumer(nullptr, connection_.handles().publish_js, "IN", &config, nullptr, nullptr), NATS_OK);
  }

  bool all_acked() {
    return eventually([this] { return stored("IN") == 0; });
  }

  /// Delivers the next message and hands it back, as often as that: what crashed and stopped workers leave behind.
  void deliver_in_vain(const Stage& stage, int times) {
    worker::PullConsumer consumer(connection_, stage, {});
    consumer.bind();
    for (int i = 0; i < times; ++i) {
      nats::Message message;
      consumer.request(1);
      ASSERT_TRUE(eventually([&] {
        message = consumer.next(100ms);
        return static_cast<bool>(message);
      }));
      natsConnection_Publish(connection_.handles().consume, natsMsg_GetReply(message.get()), "-NAK", 4);
    }
    consumer.close([](nats::Message) {});
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

TEST_F(WorkerTest, AWorkflowIdOfAnyLengthHoldsNobodyUp) {
  auto worker = start(make_stage([](std::string_view, Context&, Outbox&) {}));
  const std::string workflow(5'000, 'w');
  send("long", {{"Pipegen-Workflow-Id", workflow}});
  for (int i = 0; i < 10; ++i) send(std::to_string(i));
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  KeyValue status(connection_, "TEST_STATUS");
  EXPECT_EQ(status.keys(KeyValue::key_token(workflow) + ".work.*").size(), 1u);
  EXPECT_EQ(status.keys("job.work.*").size(), 10u);
  EXPECT_TRUE(connection_.connected());
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

TEST_F(WorkerTest, AMessageThatIsPublishedAgainIsTheSameMessage) {
  // Its Nats-Msg-Id is another one, or the stream would not take it; what it makes is the same.
  auto worker = start(make_stage(
      [](std::string_view payload, Context&, Outbox& outbox) { outbox.publish(output(std::string(payload))); }));
  connection_.publish("in.a", "x", "first");
  ASSERT_TRUE(all_acked());
  connection_.publish("in.a", "x", "replay", {{"Pipegen-Message-Id", "first"}});
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("OUT"), 1u);
}

TEST_F(WorkerTest, EachStageThatRefusesAMessageHasADeadLetterOfIt) {
  std::vector<std::unique_ptr<Worker>> workers;
  for (const std::string name : {"first", "second"}) {
    Stage stage = make_stage([](std::string_view, Context&, Outbox&) { throw PermanentError("malformed"); });
    stage.name = name;
    stage.stream = "OUT";  // keeps what it has: each of the two gets it
    stage.durable = name + "-workers";
    stage.filter_subject = "out.shared";
    stage.dead_letter_subject = "dlq.test." + name;
    workers.push_back(start(std::move(stage)));
  }
  connection_.publish("out.shared", "x", "", {{"Pipegen-Message-Id", "one"}});
  EXPECT_TRUE(eventually([&] { return stored("TEST_DLQ") == 2; }, 10s)) << stored("TEST_DLQ");
  std::set<std::string> stages;
  for (const Stored& letter : all("TEST_DLQ")) {
    stages.insert(letter.headers.at("Pipegen-Error-Stage"));
    EXPECT_EQ(letter.headers.at("Pipegen-Message-Id"), "one");
  }
  EXPECT_EQ(stages, (std::set<std::string>{"first", "second"}));
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
  EXPECT_TRUE(headers.at("Nats-Msg-Id").starts_with("dlq:work:IN:2:")) << headers.at("Nats-Msg-Id");
  EXPECT_EQ(headers.at("Pipegen-Original-Nats-Msg-Id"), "id-1");
  EXPECT_EQ(headers.at("Pipegen-Message-Id"), "id-1");
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

TEST_F(WorkerTest, AMessageWithAsManyHeadersAsTheServerTakesCanStillBeDeadLettered) {
  auto worker = start(make_stage([](std::string_view, Context&, Outbox&) { throw PermanentError("no"); }));
  send("x", {{"X-Mine", std::string(65'400, 'x')}});
  connection_.publish("in.a", "y", std::string(65'400, 'y'));
  ASSERT_TRUE(all_acked());
  auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 2u);
  if (dead[0].payload != "x") std::swap(dead[0], dead[1]);
  EXPECT_EQ(dead[1].payload, "y");
  EXPECT_EQ(dead[0].payload, "x");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Message-Id"), "id-0");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Message"), "no");
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
  EXPECT_EQ(metric("pipegen_naks_total"), 2);
  EXPECT_EQ(metric("pipegen_hand_backs_total"), 0);
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
  EXPECT_GE(metric("pipegen_held", R"(,what="message")"), 1);
  EXPECT_LT(worker->in_hand(), 20u) << "it went on fetching";
  away = false;
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(done.distinct(), 100u);
  EXPECT_EQ(done.most(), 1);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
  EXPECT_EQ(metric("pipegen_held", R"(,what="message")"), 0);
  EXPECT_TRUE(eventually([&] { return metric("pipegen_pending", R"(,subject="in.a")") == 0; }));
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
  EXPECT_GE(metric("pipegen_publish_retries_total"), 1);
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
  std::vector<std::unique_ptr<Worker>> replicas;
  for (int i = 0; i < 4; ++i) replicas.push_back(start(stage));
  for (int i = 0; i < 16; ++i) send(std::to_string(i));
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(tally.distinct(), 16u);
  EXPECT_EQ(tally.most(), 1);
  nats::ConsumerInfo found;
  ASSERT_EQ(js_GetConsumerInfo(found.out(), connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr),
            NATS_OK);
  EXPECT_EQ(found->Delivered.Consumer, 16u) << "the server gave a message again";
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
    EXPECT_TRUE(eventually([&] { return !connection_.connected() && !worker->readiness().ready; }));
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
  EXPECT_EQ(metric("pipegen_hand_backs_total"), 1);
  EXPECT_EQ(metric("pipegen_naks_total"), 0);
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

// Asked for by StallWatch, answered as nats-server 2.11 does; all else is the server's own.
TEST(StallWatchTest, LeavesAConsumerAloneThatSomebodyPaused) {
  NatsServer server({}, R"(mappings = { "$JS.API.CONSUMER.INFO.IN.work-workers": "answered.here" })");
  nats::Connection connection({.url = server.url()});
  nats::ensure(connection, topology());
  connection.publish("in.a", "x", "1");
  nats::Subscription questions;
  auto* const nats = connection.handles().consume;
  ASSERT_EQ(natsConnection_SubscribeSync(questions.out(), nats, "answered.here"), NATS_OK);
  const auto remedy_of = [&](const std::string& state) {
    const std::string answer = R"({"type":"io.nats.jetstream.api.v1.consumer_info_response","stream_name":"IN",)"
                               R"("name":"work-workers","created":"2025-01-01T00:00:00.000000001Z","config":{)"
                               R"("durable_name":"work-workers","ack_policy":"explicit","max_ack_pending":1000,)"
                               R"("pause_until":"2025-01-01T01:00:00Z"},"delivered":{"consumer_seq":0,"stream_seq":0},)"
                               R"("ack_floor":{"consumer_seq":0,"stream_seq":0},"num_ack_pending":0,)"
                               R"("num_redelivered":0,"num_waiting":1,"num_pending":1,)" +
                               state + R"("ts":"2025-01-01T00:00:01Z"})";
    worker::StallWatch watch(connection, make_stage({}), 20ms);
    worker::StallWatch::Verdict verdict;
    const auto end = Clock::now() + 20s;
    int asked = 0;
    while (asked < 8 && verdict.remedy == worker::StallWatch::Remedy::kNone && Clock::now() < end) {
      verdict = watch.nothing_came(10ms, true);
      nats::Message question;
      if (natsSubscription_NextMsg(question.out(), questions.get(), 10) != NATS_OK) continue;
      ++asked;
      EXPECT_EQ(natsConnection_PublishString(nats, natsMsg_GetReply(question.get()), answer.c_str()), NATS_OK);
    }
    EXPECT_GE(asked, 2);
    return verdict.remedy;
  };
  EXPECT_EQ(remedy_of(""), worker::StallWatch::Remedy::kAskAgain);
  EXPECT_EQ(remedy_of(R"("paused":false,)"), worker::StallWatch::Remedy::kAskAgain);
  EXPECT_EQ(remedy_of(R"("paused":true,"pause_remaining":3599999999999,)"), worker::StallWatch::Remedy::kNone);
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

TEST_F(WorkerTest, AConsumerThatIsDeletedFromAStreamThatKeepsItsMessagesGoesOnWhereItWas) {
  Metrics metrics;
  nats::Connection connection({.url = server_.url(), .metrics = &metrics});
  Tally tally;
  auto stage = make_stage([&](std::string_view payload, Context&, Outbox&) { tally.add(payload); });
  stage.stream = "OUT";
  stage.filter_subject = "out.a";
  auto options = quick();
  options.consumer.note_every = 20ms;
  Worker worker(connection, stage, Settings(), metrics, options);
  worker.start();
  const auto publish = [&](const std::string& payload) { connection_.publish("out.a", payload, "out-" + payload); };
  for (int i = 0; i < 100; ++i) publish(std::to_string(i));
  const auto floor = [&] {
    nats::ConsumerInfo found;
    js_GetConsumerInfo(found.out(), connection_.handles().publish_js, "OUT", "work-workers", nullptr, nullptr);
    return found ? found->AckFloor.Stream : 0;
  };
  ASSERT_TRUE(eventually([&] { return floor() == 100; }));
  // The second question is asked when the first is answered, the third when the second is.
  nats::Subscription questions;
  ASSERT_EQ(natsConnection_SubscribeSync(questions.out(), connection_.handles().publish,
                                         "$JS.API.CONSUMER.INFO.OUT.work-workers"),
            NATS_OK);
  for (int i = 0; i < 3; ++i) {
    nats::Message question;
    ASSERT_EQ(natsSubscription_NextMsg(question.out(), questions.get(), 20'000), NATS_OK);
  }
  // Its answer is not asked, as above: the count of consumers that were made again proves it.
  js_DeleteConsumer(connection_.handles().publish_js, "OUT", "work-workers", nullptr, nullptr);
  publish("100");
  ASSERT_TRUE(eventually([&] { return tally.of("100") == 1 && floor() == 101; }));
  EXPECT_EQ(tally.most(), 1);
  const auto has = [&](std::string_view line) { return metrics.render().find(line) != std::string::npos; };
  EXPECT_TRUE(has("consumed_messages_total{stage=\"work\",subject=\"out.a\"} 101\n")) << metrics.render();
  EXPECT_TRUE(has("pipegen_consumer_recreations_total{stage=\"work\"} 1\n")) << metrics.render();

  // In a new stream of the same name the numbers begin again.
  ASSERT_EQ(js_DeleteStream(connection_.handles().publish_js, "OUT", nullptr, nullptr), NATS_OK);
  nats::ensure(connection_, topology());
  publish("new");
  EXPECT_TRUE(eventually([&] { return tally.of("new") == 1; }));
  EXPECT_TRUE(worker.stop());
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

TEST_F(WorkerTest, AConsumerThatWouldNotGiveEveryMessageWholeIsRefused) {
  const auto refused = [&](const std::function<void(jsConsumerConfig&)>& set) {
    make_consumer(set);
    std::string text;
    try {
      Worker(connection_, make_stage([](std::string_view, Context&, Outbox&) {}), Settings(), metrics_).check();
    } catch (const ConfigError& error) {
      text = error.what();
    }
    js_DeleteConsumer(connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr);
    return text;
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_NE(refused([](auto& config) { config.HeadersOnly = true; }).find("headers_only: it has true"),
            std::string::npos);
  EXPECT_NE(
      refused([](auto& config) { config.ReplayPolicy = js_ReplayOriginal; }).find("replay_policy: it has original"),
      std::string::npos);
  EXPECT_NE(refused([](auto& config) { config.InactiveThreshold = 60'000'000'000; }).find("inactive_threshold"),
            std::string::npos);
}

TEST_F(WorkerTest, AConsumerThatAllowsOnlySmallRequestsIsAskedInSmallRequests) {
  make_consumer([](auto& config) {
    config.MaxRequestBatch = 2;
    config.MaxRequestExpires = 1'000'000'000;
    config.MaxRequestMaxBytes = 2'000;
  });
  Tally tally;
  auto worker = start(make_stage([&](std::string_view payload, Context&, Outbox&) { tally.add(payload); }));
  for (int i = 0; i < 50; ++i) send(std::to_string(i) + std::string(500, 'x'));
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(tally.distinct(), 50u);
  EXPECT_EQ(tally.most(), 1);
  EXPECT_TRUE(worker->readiness().ready);
}

TEST_F(WorkerTest, AConsumerThatServesNoRequestIsNotAskedOverAndOver) {
  make_consumer([](auto& config) { config.MaxRequestMaxBytes = 1'000; });
  nats::Subscription requests;
  ASSERT_EQ(natsConnection_SubscribeSync(requests.out(), connection_.handles().publish,
                                         "$JS.API.CONSUMER.MSG.NEXT.IN.work-workers"),
            NATS_OK);
  send(std::string(2'000, 'x'));
  auto worker = start(make_stage([](std::string_view, Context&, Outbox&) {}));
  std::vector<Clock::time_point> asked;
  for (int i = 0; i < 6; ++i) {
    nats::Message request;
    ASSERT_EQ(natsSubscription_NextMsg(request.out(), requests.get(), 20'000), NATS_OK);
    asked.push_back(Clock::now());
  }
  EXPECT_GE(asked[5] - asked[1],
            80ms + 160ms + 160ms);  // 100, 200, 200 and 200 ms, less a fifth, less one for the first
  EXPECT_TRUE(eventually([&] { return worker->readiness().reason.find("MaxBytes") != std::string::npos; }));
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

TEST_F(WorkerTest, AnEventThatCanNeverBeStoredDeadLettersItsMessageAndHoldsNobody) {
  set_max_message_size("OUT", 300);
  auto worker = start(make_stage([](std::string_view payload, Context&, Outbox& outbox) {
    outbox.publish(output(payload == "bad" ? std::string(400, 'x') : std::string(payload)));
  }));
  send("bad");
  for (int i = 0; i < 10; ++i) send(std::to_string(i));
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("OUT"), 10u);
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].payload, "bad");
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Class"), "PermanentError");
  EXPECT_NE(dead[0].headers.at("Pipegen-Error-Message").find("out.a"), std::string::npos);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
  EXPECT_TRUE(worker->stop());
  EXPECT_EQ(worker->in_hand(), 0u);
}

TEST_F(WorkerTest, AReasonOfMegabytesIsCutToFitItsStatus) {
  auto worker =
      start(make_stage([](std::string_view, Context&, Outbox&) { throw PermanentError(std::string(2u << 20, 'x')); }));
  send("x");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("TEST_DLQ"), 1u);
  const auto entry = KeyValue(connection_, "TEST_STATUS").get("job.work.id-0");
  ASSERT_TRUE(entry.has_value());
  EXPECT_LT(entry->value.size(), 4'096u);
}

TEST_F(WorkerTest, AResultThatIsTooLargeForAStatusEntryIsNamedWithoutItsPayload) {
  auto worker = start(make_stage([](std::string_view, Context&, Outbox& outbox) {
    Outgoing event = output(std::string(700'000, '"'));
    event.is_result = true;
    outbox.publish(std::move(event));
  }));
  send("x");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  const auto entry = KeyValue(connection_, "TEST_STATUS").get("job.work.id-0");
  ASSERT_TRUE(entry.has_value());
  EXPECT_NE(entry->value.find(R"("result":{"event":"Output","payload":""})"), std::string::npos) << entry->value;
}

TEST_F(WorkerTest, AStatusThatCanNeverBeStoredKeepsNoMessage) {
  set_max_message_size("KV_TEST_STATUS", 10);
  auto worker = start(make_stage([](std::string_view payload, Context&, Outbox& outbox) {
    if (payload == "bad") throw PermanentError("no");
    outbox.publish(output("x"));
  }));
  send("good");
  send("bad");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(stored("TEST_DLQ"), 1u);
  EXPECT_TRUE(eventually([&] { return worker->readiness().ready; }));
}

TEST_F(WorkerTest, WhatWaitsToBeStoredIsBoundedInOctets) {
  auto full = topology();
  full.streams = {{.name = "SMALL", .subjects = {"small.>"}, .max_messages = 1}};
  full.key_values.clear();
  nats::ensure(connection_, full);
  connection_.publish("small.a", "in the way", "");
  worker::Publisher publisher(connection_, metrics_.counter("repeated", ""));
  const auto publishes = std::make_shared<worker::Publishes>();
  std::atomic<std::size_t> published = 0;
  std::atomic<bool> cancelled = false;
  std::stop_source stop;
  std::thread producer([&] {
    try {
      for (; published < 80; ++published) {
        publisher.publish({.subject = "small.a",
                           .payload = std::string(1'000'000, 'x'),
                           .message_id = std::to_string(published),
                           .headers = {},
                           .owner = publishes},
                          stop.get_token());
      }
    } catch (const Cancelled&) {
      cancelled = true;
    }
  });
  EXPECT_TRUE(eventually([&] { return published >= 67; }));  // 64 MiB of them
  stop.request_stop();
  producer.join();
  EXPECT_TRUE(cancelled) << published;
  EXPECT_EQ(published, 67u);
  publishes->abandon();
  publisher.close();
}

TEST_F(WorkerTest, AStopCallbackMayWaitForItsHandler) {
  Worker* worker = nullptr;
  bool left = false;
  std::unique_ptr<std::stop_callback<std::function<void()>>> callback;
  std::atomic<bool> running = false;
  auto stage = make_stage([&](std::string_view, Context& context, Outbox&) {
    const auto token = context.stop_token();
    callback = std::make_unique<std::stop_callback<std::function<void()>>>(
        token, [&] { left = eventually([&] { return worker->in_hand() == 0; }, 3s); });
    running = true;
    while (!token.stop_requested()) std::this_thread::sleep_for(5ms);
  });
  auto options = quick();
  options.grace_period = 1s;
  auto owned = start(stage, options);
  worker = owned.get();
  send("x");
  ASSERT_TRUE(eventually([&] { return running.load(); }));
  EXPECT_TRUE(owned->stop());
  EXPECT_TRUE(left) << "the handler could not leave its call";
}

TEST_F(WorkerTest, MessagesOfAStreamThatWasMadeAgainHaveOtherIds) {
  std::mutex mutex;
  std::set<std::string> keys;
  const auto stage = make_stage([&](std::string_view, Context& context, Outbox& outbox) {
    {
      const std::lock_guard lock(mutex);
      keys.insert(context.output_key("pdf"));
    }
    outbox.publish(output("x"));
    throw PermanentError("no");
  });
  for (int i = 0; i < 2; ++i) {
    auto worker = start(stage);
    connection_.publish("in.a", "x", "");
    ASSERT_TRUE(all_acked());
    worker.reset();
    ASSERT_EQ(js_DeleteStream(connection_.handles().publish_js, "IN", nullptr, nullptr), NATS_OK);
    nats::ensure(connection_, topology());
  }
  EXPECT_EQ(keys.size(), 2u) << "an object would be written over";
  EXPECT_EQ(stored("OUT"), 2u) << "an event was taken for a duplicate";
  EXPECT_EQ(stored("TEST_DLQ"), 2u) << "a dead letter was taken for a duplicate";
}

TEST_F(WorkerTest, AMessageThatComesAgainWhileItIsInHandIsCountedAndNotHandledTwice) {
  std::atomic<int> calls = 0;
  std::atomic<bool> finish = false;
  auto stage = make_stage([&](std::string_view, Context&, Outbox&) {
    ++calls;
    while (!finish) std::this_thread::sleep_for(5ms);
  });
  stage.ack_wait = 60s;
  auto worker = start(stage);
  send("x");
  ASSERT_TRUE(eventually([&] { return calls == 1; }));
  // As a nak that somebody else sends: first delivery, first of the stream, first of the consumer.
  natsConnection_PublishString(connection_.handles().publish, "$JS.ACK.IN.work-workers.1.1.1.0.0", "-NAK");
  EXPECT_TRUE(eventually([&] { return metric("pipegen_late_redeliveries_total") == 1; }));
  finish = true;
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(calls, 1);
}

TEST_F(WorkerTest, SaysHowManyMessagesWait) {
  std::atomic<bool> finish = false;
  const auto stage = make_stage([&](std::string_view, Context&, Outbox&) {
    while (!finish) std::this_thread::sleep_for(5ms);
  });
  for (int i = 0; i < 50; ++i) send(std::to_string(i));
  auto worker = start(stage);
  EXPECT_TRUE(eventually([&] { return metric("pipegen_pending", R"(,subject="in.a")") == 46; }));
  EXPECT_TRUE(eventually([&] { return metric("pipegen_in_flight") == 4; }));
  finish = true;
  ASSERT_TRUE(all_acked());
  EXPECT_TRUE(eventually([&] { return metric("pipegen_pending", R"(,subject="in.a")") == 0; }));
}

TEST_F(WorkerTest, AnOutageIsNoCrashOfTheMessageThatRunsAlone) {
  std::atomic<int> calls = 0;
  auto stage = make_stage([&](std::string_view, Context&, Outbox&) {
    if (++calls < 5) throw Unavailable("the database is away");
  });
  stage.ack_wait = 60s;
  send("x");
  deliver_in_vain(stage, stage.max_deliver);
  auto worker = start(stage);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return KeyValue(connection_, "TEST_STATUS").keys("_suspect.>").empty(); }));
}

TEST_F(WorkerTest, DeliveriesThatTheHandlerNeverSawCountNeitherAgainstTheMessageNorForItsDelay) {
  std::atomic<int> calls = 0;
  auto stage = make_stage([&](std::string_view, Context&, Outbox&) {
    if (++calls == 1) throw TransientError("flaky");
  });
  stage.max_deliver = 2;
  stage.backoff = {50ms, 1h};  // so that a second step would be one too many
  stage.ack_wait = 60s;
  send("x");
  deliver_in_vain(stage, 4);
  auto worker = start(stage);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
}

TEST_F(WorkerTest, FailuresAreCountedFromOneWorkerToTheNext) {
  std::atomic<int> calls = 0;
  auto stage = make_stage([&](std::string_view, Context&, Outbox&) {
    ++calls;
    throw TransientError("flaky");
  });
  stage.status_bucket.clear();
  stage.max_deliver = 3;
  stage.backoff = {0ms, 1h};
  stage.ack_wait = 60s;
  auto worker = start(stage);
  send("x");
  ASSERT_TRUE(eventually([&] { return calls == 2; }));
  worker.reset();
  // The second failure's delay is longer than any test: a nak that somebody else sends ends it.
  natsConnection_PublishString(connection_.handles().publish, "$JS.ACK.IN.work-workers.2.1.2.0.0", "-NAK");
  worker = start(stage);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(calls, 3);
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_EQ(dead[0].headers.at("Pipegen-Error-Message"), "flaky");
  EXPECT_EQ(info("KV_PIPEGEN_SUSPECTS")->Config->MaxAge, std::chrono::nanoseconds(7 * 24h).count());
}

// ---------------------------------------------------------------------------------------------------- fan-in

/// The machine's clock, put forward. `asked` hears of every look at the time of day: collecting writes it into what it
/// is about to store.
class AheadClock : public AnyClock {
 public:
  explicit AheadClock(std::chrono::hours ahead, std::function<void()> asked = {})
      : ahead_(ahead), asked_(std::move(asked)) {}
  TimePoint now() const override { return real().now(); }
  Timestamp wall_time() const override {
    if (asked_) asked_();
    return real().wall_time() + ahead_;
  }

 protected:
  void wait(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, TimePoint end) const override {
    changed.wait_until(lock, end);
  }

 private:
  const std::chrono::hours ahead_;
  const std::function<void()> asked_;
};

/// A message in hand, always the same one, without a worker around it.
struct CollectCall {
  struct InterruptedOutbox : worker::CallOutbox {
    using CallOutbox::CallOutbox;
    void publish(Outgoing event) override {
      if (const auto interruption = std::exchange(before_publish, {})) interruption();
      CallOutbox::publish(std::move(event));
    }
    std::function<void()> before_publish;  // the first event
  };
  CollectCall(nats::Connection& connection, const Stage& stage, Metrics& metrics)
      : stores(connection, stage.topology),
        publisher(connection, metrics.counter("repeated", "")),
        sent(metrics, stage.name),
        context(message(), stage, settings, log, stores, Clock::now() + 1min, {}),
        outbox(publisher, sent, settings, stage, context.message(), {}) {}
  ~CollectCall() { publisher.close(); }
  static MessageInfo message() {
    MessageInfo info;
    info.id = "message";
    info.workflow_id = "job";
    return info;
  }

  Settings settings;
  Logger log;
  worker::Stores stores;
  worker::Publisher publisher;
  worker::SentCounters sent;
  worker::CallContext context;
  InterruptedOutbox outbox;
};

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
  std::atomic<std::size_t> left_behind = 0;
  auto worker = start(make_collecting_stage([&](const std::vector<std::string>&, Context& context, Outbox& outbox) {
    left_behind += context.key_value("STATE").keys("g.event.*").size();
    outbox.publish({.event = "Joined", .subject = "out.joined", .payload = "x", .is_result = true});
    if (++joins < 3) throw TransientError("disk full");
  }));
  send("g 1 2");
  send("g 2 2");
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(joins, 3);
  EXPECT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(left_behind, 0u) << "events of attempts that failed fill the bucket";
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
  EXPECT_TRUE(eventually([&] { return metric("pipegen_groups_open") == 1; }));
  ASSERT_TRUE(eventually([&] { return stored("TEST_DLQ") == 1; }));
  const auto dead = all("TEST_DLQ").front();
  EXPECT_EQ(dead.headers.at("Pipegen-Error-Message"), "items 3 and 7 of 12 never came within 1500ms (group book)");
  EXPECT_NE(dead.payload.find(R"("missing":"3 and 7","count":12,"have":10)"), std::string::npos) << dead.payload;
  KeyValue status(connection_, "TEST_STATUS");
  ASSERT_TRUE(eventually([&] { return status.get("book.work.collect=3Abook").has_value(); }));
  EXPECT_NE(status.get("book.work.collect=3Abook")->value.find("items 3 and 7"), std::string::npos);
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").keys("book.item.*").size(), 0u);
  EXPECT_EQ(joins, 0);
  EXPECT_EQ(metric("pipegen_groups_expired_total"), 1);
  EXPECT_TRUE(eventually([&] { return metric("pipegen_groups_open") == 0; }));
  send("book 3 12");  // too late: it goes where the others went
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(stored("TEST_DLQ"), 2u);
}

TEST_F(WorkerTest, AnExpiredGroupKeepsAllItsItemsHoweverManyTheyAre) {
  const auto stage = make_collecting_stage([](const std::vector<std::string>&, Context&, Outbox&) {}, 2s);
  auto worker = start(stage);
  const std::string ballast(300'000, 'x');
  for (int index = 1; index <= 7; ++index) send("book " + std::to_string(index) + " 9 " + ballast);
  send("book 8 9 " + std::string(900'000, '"'));
  ASSERT_TRUE(all_acked());
  ASSERT_TRUE(
      eventually([&] { return KeyValue(connection_, "TEST_STATUS").get("job.work.collect=3Abook").has_value(); }));
  std::string dead;
  for (const auto& one : all("TEST_DLQ")) {
    EXPECT_FALSE(one.headers.contains("Pipegen-Error-Cut"));
    EXPECT_EQ(one.headers.at("Pipegen-Error-Message"), "item 9 of 9 never came within 2s (group book)");
    dead += one.payload;
  }
  for (int index = 1; index <= 8; ++index) {
    const std::string item =
        "book " + std::to_string(index) + " 9 " + (index < 8 ? ballast : std::string(900'000, '"'));
    EXPECT_NE(dead.find(item), std::string::npos) << "item " << index << " is lost";
  }
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").keys("book.item.*").size(), 0u);
}

TEST_F(WorkerTest, AnExpiredGroupNamesWhatIsMissingHoweverMuchThatIs) {
  auto worker = start(make_collecting_stage([](const std::vector<std::string>&, Context&, Outbox&) {}, 3s));
  send("huge 5 2147483647");
  for (int index = 2; index <= 50; index += 2) send("holes " + std::to_string(index) + " 300000");
  ASSERT_TRUE(all_acked());
  ASSERT_TRUE(eventually([&] { return stored("TEST_DLQ") == 2; }));
  for (const auto& dead : all("TEST_DLQ")) {
    EXPECT_FALSE(dead.headers.contains("Pipegen-Error-Cut"));
    const std::string missing = dead.payload.starts_with(R"({"group":"huge")")
                                    ? "1-4 and 6-2147483647"
                                    : "1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39 and "
                                      "299955 more";
    EXPECT_NE(dead.payload.find(R"("missing":")" + missing + '"'), std::string::npos) << dead.payload;
    EXPECT_TRUE(dead.headers.at("Pipegen-Error-Message").starts_with("items " + missing + " of "))
        << dead.headers.at("Pipegen-Error-Message");
  }
  KeyValue state(connection_, "TEST_STATE");
  EXPECT_TRUE(eventually([&] { return state.keys("*.item.*").empty(); }));
}

TEST_F(WorkerTest, AnItemThatIsAckedWhileItsGroupExpiresIsInADeadLetter) {
  const auto stage = make_collecting_stage([](const std::vector<std::string>&, Context&, Outbox&) {});
  auto worker = start(stage);
  send("book 1 3");
  ASSERT_TRUE(all_acked());
  int asked = 0;
  // First to see that the group is late, then for the time at which it expires.
  const AheadClock clock(2h, [&] {
    if (++asked != 2) return;
    send("book 2 3");
    EXPECT_TRUE(all_acked());
  });
  worker::DeadLetters dead_letters(connection_, stage);
  const auto round = worker::Collector(connection_, stage, clock).expire(dead_letters);
  EXPECT_GE(asked, 2);
  ASSERT_EQ(round.expired.size(), 1u);
  std::string dead;
  for (const auto& one : all("TEST_DLQ")) dead += one.payload;
  EXPECT_NE(dead.find("book 1 3"), std::string::npos) << dead;
  EXPECT_NE(dead.find("book 2 3"), std::string::npos) << dead;
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").keys("book.item.*").size(), 0u);
}

Stage make_stage_of_two_events() {
  return make_collecting_stage([](const std::vector<std::string>&, Context&, Outbox& outbox) {
    outbox.publish(output("first"));
    outbox.publish(output("second"));
  });
}

TEST_F(WorkerTest, AGroupIsDoneAlsoWhenAnotherWorkerTookItsMessageMeanwhile) {
  const Stage stage = make_stage_of_two_events();
  worker::Collector collector(connection_, stage);
  CollectCall slow(connection_, stage, metrics_), other(connection_, stage, metrics_);
  other.outbox.before_publish = [] { throw Cancelled("stopped"); };
  slow.outbox.before_publish = [&] { EXPECT_THROW(collector.take("g 1 1", other.context, other.outbox), Cancelled); };
  collector.take("g 1 1", slow.context, slow.outbox);
  EXPECT_EQ(stored("OUT"), 2u);
  KeyValue state(connection_, "TEST_STATE");
  EXPECT_NE(state.get("g.group")->value.find(R"("state":"done")"), std::string::npos) << state.get("g.group")->value;
  EXPECT_EQ(state.keys("g.>").size(), 1u);
}

TEST_F(WorkerTest, AGroupThatAnotherWorkerEndedMeanwhileIsNoFailureOfItsMessage) {
  const Stage stage = make_stage_of_two_events();
  worker::Collector collector(connection_, stage);
  CollectCall slow(connection_, stage, metrics_), other(connection_, stage, metrics_);
  slow.outbox.before_publish = [&] { collector.take("g 1 1", other.context, other.outbox); };
  EXPECT_NO_THROW(collector.take("g 1 1", slow.context, slow.outbox));
  EXPECT_TRUE(slow.outbox.has_status()) << "it would write that it made less than it did";
  slow.outbox.wait_stored();
  EXPECT_EQ(stored("OUT"), 2u);
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").keys("g.>").size(), 1u);
}

TEST_F(WorkerTest, AGroupThatEndedIsForgottenAndOneThatFailedIsKeptForAReplay) {
  std::atomic<bool> broken = true;
  const auto stage = make_collecting_stage([&](const std::vector<std::string>& payloads, Context&, Outbox& outbox) {
    if (broken && payloads[0].starts_with("bad")) throw PermanentError("cannot be joined");
    outbox.publish(output(std::to_string(payloads.size())));
  });
  auto worker = start(stage);
  send("good 1 1");
  send("bad 1 2");
  send("bad 2 2");
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  KeyValue state(connection_, "TEST_STATE");
  state.put("good.item.1", "left behind");

  worker::DeadLetters dead_letters(connection_, stage);
  const auto expire = [&](std::chrono::hours ahead) {
    const AheadClock clock(ahead);
    return worker::Collector(connection_, stage, clock).expire(dead_letters).expired.size();
  };
  EXPECT_EQ(expire(1h), 0u);
  EXPECT_TRUE(state.get("good.group"));
  EXPECT_EQ(expire(29 * 24h), 0u);
  EXPECT_EQ(state.keys("good.>").size(), 0u);
  EXPECT_EQ(state.keys("bad.>").size(), 3u);

  broken = false;
  send(dead[0].payload);
  ASSERT_TRUE(all_acked());
  EXPECT_EQ(all("OUT").back().payload, "2");
  EXPECT_EQ(stored("TEST_DLQ"), 1u);
}

TEST_F(WorkerTest, AReplayedItemWhoseGroupTheServerForgotExpiresIntoTheDeadLetters) {
  const auto stage = make_collecting_stage(
      [](const std::vector<std::string>&, Context&, Outbox&) { throw PermanentError("cannot be joined"); });
  auto worker = start(stage);
  send("book 1 2");
  send("book 2 2");
  ASSERT_TRUE(all_acked());
  KeyValue state(connection_, "TEST_STATE");
  for (const auto& key : state.keys("book.item.*")) state.purge(key);  // as its max_age does
  send("book 2 2");
  ASSERT_TRUE(all_acked());
  worker::DeadLetters dead_letters(connection_, stage);
  const AheadClock clock(2h);
  EXPECT_EQ(worker::Collector(connection_, stage, clock).expire(dead_letters).expired.size(), 1u);
  const auto dead = all("TEST_DLQ").back();
  EXPECT_EQ(dead.headers.at("Pipegen-Error-Message"), "item 1 of 2 never came within 1h (group book)");
  EXPECT_NE(dead.payload.find("book 2 2"), std::string::npos) << dead.payload;
}

TEST_F(WorkerTest, ACompleteGroupWhoseMessageIsGoneExpiresToo) {
  std::atomic<int> joins = 0;
  auto stage = make_collecting_stage(
      [&](const std::vector<std::string>&, Context&, Outbox&) {
        ++joins;
        throw TransientError("not now");
      },
      500ms);
  stage.timeout = 500ms;
  stage.max_deliver = 1'000;
  auto worker = start(stage);
  send("book 1 2");
  send("book 2 2");
  ASSERT_TRUE(eventually([&] { return joins > 0; }));
  ASSERT_EQ(js_PurgeStream(connection_.handles().publish_js, "IN", nullptr, nullptr), NATS_OK);
  ASSERT_TRUE(eventually([&] { return stored("TEST_DLQ") == 1; })) << "it ended without a word";
  const auto dead = all("TEST_DLQ").front();
  EXPECT_EQ(dead.headers.at("Pipegen-Error-Message"),
            "all 2 items came, but the message that was to join them is gone (group book)");
  EXPECT_NE(dead.payload.find("book 2 2"), std::string::npos);
}

TEST_F(WorkerTest, AJoinedEventThatCanNeverBeStoredDeadLettersTheMessageThatJoined) {
  set_max_message_size("OUT", 300);
  std::atomic<bool> large = true;
  auto worker = start(make_collecting_stage([&](const std::vector<std::string>&, Context&, Outbox& outbox) {
    outbox.publish(output(large ? std::string(400, 'x') : "small"));
  }));
  send("g 1 1");
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  large = false;
  send(dead[0].payload);
  ASSERT_TRUE(all_acked());
  ASSERT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(all("OUT")[0].payload, "small");
  EXPECT_EQ(KeyValue(connection_, "TEST_STATE").keys("g.event.*").size(), 0u);
}

// ---------------------------------------------------------------------------------------------------- processes

/// This program again, as a worker; see worker_process().
class Process : public testing::Process {
 public:
  Process(const NatsServer& server, const std::string& mode, std::vector<std::string> arguments = {},
          std::vector<std::string> settings = {})
      : testing::Process(std::move(arguments), with(server, mode, std::move(settings))) {}

 private:
  static std::vector<std::string> with(const NatsServer& server, const std::string& mode,
                                       std::vector<std::string> settings) {
    settings.insert(settings.end(), {"NATS_URL=" + server.url(), "WORKER_MODE=" + mode, "WORK_SERVICE_GRACE_PERIOD=5s",
                                     "WORK_SERVICE_DEADLINE_GRACE=2s"});
    return settings;
  }
};

int worker_process(const std::string& mode, int argc, char** argv) {
  return run_worker(argc, argv, "work", [&](const Settings&) {
    if (mode == "collect") {
      Stage stage = make_collecting_stage(
          [](const std::vector<std::string>& payloads, Context&, Outbox& outbox) {
            std::string indexes;
            for (const std::string& payload : payloads) {
              const std::size_t at = payload.find(' ') + 1;
              indexes += payload.substr(at, payload.find(' ', at) - at) + ";";
            }
            outbox.publish({.event = "Joined", .subject = "out.joined", .payload = indexes, .is_result = true});
          },
          8s);
      stage.ack_wait = 500ms;
      return stage;
    }
    if (mode == "join") {
      Stage stage = make_collecting_stage([](const std::vector<std::string>&, Context&, Outbox& outbox) {
        outbox.publish(output("joined by " + std::to_string(::getpid())));
        outbox.publish({.event = "Output", .subject = "small.a", .payload = "joined by " + std::to_string(::getpid())});
      });
      stage.ack_wait = 500ms;
      return stage;
    }
    Stage stage = make_stage([mode](std::string_view payload, Context&, Outbox& outbox) {
      if (payload == "poison") std::abort();
      if (payload == "deaf" || mode == "endless") {
        while (true) std::this_thread::sleep_for(1h);
      }
      std::this_thread::sleep_for(mode == "slow" ? 20ms : 1ms);
      outbox.publish(output(std::string(payload)));
    });
    stage.ack_wait = 500ms;
    stage.timeout = 500ms;
    stage.max_deliver = 3;
    if (mode == "nobucket") stage.status_bucket.clear();
    if (mode == "endless") stage.timeout = 1h;
    if (mode == "patient") stage.ack_wait = 60s;
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

TEST_F(WorkerTest, RestartsAreNoCrashesOfTheMessageThatRunsAlone) {
  send("x");
  deliver_in_vain(make_stage({}), 3);
  KeyValue status(connection_, "TEST_STATUS");
  for (int i = 0; i < 2; ++i) {
    Process process(server_, "endless", {}, {"WORK_SERVICE_GRACE_PERIOD=1s"});
    ASSERT_TRUE(eventually([&] { return !status.keys("_suspect.>").empty(); })) << process.log();
    process.signal(SIGTERM);
    ASSERT_TRUE(eventually([&] { return process.ended(); })) << process.log();
    EXPECT_EQ(process.exit_status(), 0) << process.log();
    EXPECT_TRUE(status.keys("_suspect.>").empty()) << "it is left behind as if the process had died";
  }
  Process process(server_, "normal");
  ASSERT_TRUE(all_acked()) << process.log();
  EXPECT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
}

TEST_F(WorkerTest, CrashesOfAMessageSayNothingAboutOneOfAStreamThatWasMadeAgain) {
  send("poison");
  deliver_in_vain(make_stage({}), 3);
  for (int i = 0; i < 2; ++i) {
    Process process(server_, "normal");
    ASSERT_TRUE(eventually([&] { return process.ended(); })) << process.log();
    EXPECT_EQ(process.exit_status(), 128 + SIGABRT) << process.log();
  }
  ASSERT_EQ(js_DeleteStream(connection_.handles().publish_js, "IN", nullptr, nullptr), NATS_OK);
  nats::ensure(connection_, topology());
  send("x");
  deliver_in_vain(make_stage({}), 3);
  Process process(server_, "normal");
  ASSERT_TRUE(all_acked()) << process.log();
  EXPECT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(stored("TEST_DLQ"), 0u);
}

TEST_F(WorkerTest, AHandlerThatIgnoresItsDeadlineEndsTheProcessWithItsMessageDealtWith) {
  send("deaf");
  deliver_in_vain(make_stage({}), 3);  // run alone: that it was given up is no crash
  for (int i = 0; i < 3; ++i) {
    Process process(server_, "normal");
    ASSERT_TRUE(eventually([&] { return process.ended(); })) << process.log();
    EXPECT_EQ(process.exit_status(), 70) << process.log();
  }
  ASSERT_TRUE(all_acked());
  const auto dead = all("TEST_DLQ");
  ASSERT_EQ(dead.size(), 1u);
  EXPECT_NE(dead[0].headers.at("Pipegen-Error-Message").find("did not react to being told to stop"), std::string::npos);
}

TEST_F(WorkerTest, WhatAProcessHandsBackAtItsEndDoesNotComeBackToIt) {
  for (int i = 0; i < 4; ++i) send("deaf");
  for (std::uint64_t run = 1; run <= 2; ++run) {
    Process process(server_, "patient");
    ASSERT_TRUE(eventually([&] { return process.ended(); })) << process.log();
    EXPECT_EQ(process.exit_status(), 70) << process.log();
    nats::ConsumerInfo found;
    ASSERT_EQ(js_GetConsumerInfo(found.out(), connection_.handles().publish_js, "IN", "work-workers", nullptr, nullptr),
              NATS_OK);
    EXPECT_EQ(found->Delivered.Consumer, run * 4) << process.log();
  }
}

TEST_F(WorkerTest, AGroupIsJoinedOnceAlsoWhenTheProcessDiesBeforeItsEventsAreStored) {
  auto full = topology();
  full.streams = {{.name = "SMALL", .subjects = {"small.>"}, .max_messages = 1}};
  full.key_values.clear();
  nats::ensure(connection_, full);
  connection_.publish("small.a", "in the way", "");
  send("g 1 2");
  send("g 2 2");
  {
    Process process(server_, "join");
    ASSERT_TRUE(eventually([&] { return stored("OUT") == 1; })) << process.log();
    process.signal(SIGKILL);
    ASSERT_TRUE(eventually([&] { return process.ended(); }));
  }
  ASSERT_EQ(js_PurgeStream(connection_.handles().publish_js, "SMALL", nullptr, nullptr), NATS_OK);
  Process process(server_, "join");
  ASSERT_TRUE(all_acked()) << process.log();
  ASSERT_EQ(stored("OUT"), 1u);
  EXPECT_EQ(all("SMALL").back().payload, all("OUT").front().payload) << "it was joined again";
  KeyValue state(connection_, "TEST_STATE");
  EXPECT_TRUE(eventually([&] { return state.keys("g.event.*").empty(); }));
  EXPECT_NE(state.get("g.group")->value.find(R"("state":"done")"), std::string::npos);
}

TEST_F(WorkerTest, WhatIsPendingIsShownAlsoWhileNothingIsFetched) {
  WorkerOptions options = quick();
  options.consumer.note_every = 50ms;
  options.consumer.expires = 200ms;
  options.consumer.heartbeat = 100ms;
  nats::Connection connection({.url = server_.url(), .metrics = &metrics_});
  Worker worker(connection, make_stage([](std::string_view, Context&, Outbox&) { throw Unavailable("no printer"); }),
                Settings(), metrics_, options);
  EXPECT_EQ(metric("pipegen_held", R"(,what="message")"), 0) << "known before anything is held";
  worker.start();
  send("first");
  ASSERT_TRUE(eventually([&] { return metric("pipegen_held", R"(,what="message")") >= 1; }));
  // One by one: none of those that the last request still brings has others behind it.
  EXPECT_TRUE(eventually([&] {
    send("more");
    return metric("pipegen_pending", R"(,subject="in.a")") >= 3;
  })) << metrics_.render();
  EXPECT_TRUE(worker.stop());
}

TEST_F(WorkerTest, AGroupEndsInOneResultOrInReasonsWhileItsFourWorkersAreKilled) {
  constexpr int kItems = 20;
  std::mt19937 random(std::random_device{}());
  struct Item {
    std::string group;
    int index, count;
  };
  std::vector<Item> items;
  for (int i = 0; i < 4; ++i) {
    const std::string number = std::to_string(i);
    for (int copy = 0; copy < 2; ++copy) {
      for (int index = 1; index <= kItems; ++index) {
        items.push_back({"whole-" + number, index, kItems});
        if (index != 7) items.push_back({"short-" + number, index, kItems});
        items.push_back({"torn-" + number, index, index == 5 ? kItems + 1 : kItems});
      }
    }
  }
  std::shuffle(items.begin(), items.end(), random);

  std::vector<std::unique_ptr<Process>> processes;
  for (int i = 0; i < 4; ++i) processes.push_back(std::make_unique<Process>(server_, "collect"));
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& [group, index, count] = items[i];
    send(group + " " + std::to_string(index) + " " + std::to_string(count), {{"Pipegen-Workflow-Id", group}});
    if (i % 60 != 59) continue;
    auto& victim = processes[random() % processes.size()];
    victim->signal(SIGKILL);
    ASSERT_TRUE(eventually([&] { return victim->ended(); }));
    victim = std::make_unique<Process>(server_, "collect");
  }
  const auto dead_with = [this](const std::string& group, const std::string& reason) {
    int found = 0;
    for (const auto& dead : all("TEST_DLQ")) {
      const auto workflow = dead.headers.find("Pipegen-Workflow-Id");
      if (workflow == dead.headers.end() || workflow->second != group) continue;
      if (dead.headers.at("Pipegen-Error-Message").find(reason) != std::string::npos) ++found;
    }
    return found;
  };
  ASSERT_TRUE(all_acked());
  for (int i = 0; i < 4; ++i) {
    const std::string number = std::to_string(i), late = " never came within 8s (group ";
    EXPECT_TRUE(eventually([&] { return dead_with("short-" + number, "item 7 of 20" + late + "short-") == 1; }));
    EXPECT_TRUE(eventually([&] { return dead_with("torn-" + number, late + "torn-") == 1; }));
    EXPECT_EQ(dead_with("short-" + number, ""), 1);
    EXPECT_GE(dead_with("torn-" + number, " items, an earlier one said "), 1);
    EXPECT_EQ(dead_with("whole-" + number, ""), 0);
  }
  std::map<std::string, int> joined;
  for (const auto& event : all("OUT")) {
    EXPECT_EQ(++joined[event.headers.at("Pipegen-Workflow-Id")], 1);
    EXPECT_TRUE(event.headers.at("Pipegen-Workflow-Id").starts_with("whole-"));
    std::string expected;
    for (int index = 1; index <= kItems; ++index) expected += std::to_string(index) + ";";
    EXPECT_EQ(event.payload, expected);
  }
  EXPECT_EQ(joined.size(), 4U);
  EXPECT_TRUE(eventually([&] { return KeyValue(connection_, "TEST_STATE").keys("*.item.*").empty(); }));
}

TEST_F(WorkerTest, AWorkerProcessSaysWhatItPromisesAndStopsCleanlyOnSigterm) {
  for (int i = 0; i < 200; ++i) send(std::to_string(i));
  Process process(server_, "slow");
  ASSERT_TRUE(eventually([&] { return process.log().find(R"("message":"ready")") != std::string::npos; }))
      << process.log();
  EXPECT_NE(process.log().find(R"("message":"admin endpoints are served")"), std::string::npos);
  /// The line that says this about the stream.
  const auto line_of = [&](const std::string& message, const std::string& stream) {
    std::istringstream lines(process.log());
    for (std::string line; std::getline(lines, line);) {
      const bool is_it = line.find("\"message\":\"" + message + "\"") != std::string::npos;
      if (is_it && line.find("\"stream\":\"" + stream + "\"") != std::string::npos) return line;
    }
    return "(none) " + process.log();
  };
  const std::string consuming = line_of("consuming", "IN"), publishing = line_of("publishing", "OUT");
  for (const char* promise :
       {R"("replicas":1)", R"("storage":"file")", R"("discard":"new")", R"("retention":"work_queue")",
        R"("duplicate_window":"120s")", R"("ack_wait":"0.5s")", R"("max_deliver":3)", R"("consumer":"work-workers")",
        "sync_interval: always", "one replica: a lost disk loses messages"}) {
    EXPECT_NE(consuming.find(promise), std::string::npos) << promise << " is not in " << consuming;
  }
  EXPECT_NE(publishing.find(R"("retention":"limits")"), std::string::npos) << publishing;
  EXPECT_NE(publishing.find("one replica"), std::string::npos) << publishing;
  EXPECT_EQ(process.log().find(R"("stream":"TEST_DLQ")"), std::string::npos);
  ASSERT_TRUE(eventually([&] { return stored("OUT") > 10; }));
  process.signal(SIGTERM);
  ASSERT_TRUE(eventually([&] { return process.ended(); }));
  EXPECT_EQ(process.exit_status(), 0) << process.log();
  const auto left = stored("IN");
  EXPECT_GT(left, 0u);
  EXPECT_EQ(stored("OUT") + left, 200u) << "something was done and not acked, or acked and not done";
}

TEST_F(WorkerTest, AServerThatHangsDoesNotOutlastTheGracePeriod) {
  for (int i = 0; i < 200; ++i) send(std::to_string(i));
  Process process(server_, "slow", {}, {"WORK_SERVICE_GRACE_PERIOD=1s"});
  ASSERT_TRUE(eventually([&] { return stored("OUT") > 10; })) << process.log();
  server_.kill(SIGSTOP);
  process.signal(SIGTERM);
  // A second after the period it ends, whatever hangs; the rest is for a busy machine.
  EXPECT_TRUE(process.ends_within(5s)) << process.log();
  EXPECT_EQ(process.exit_status(), 0) << process.log();
  server_.kill(SIGCONT);
}

TEST(WorkerProcess, ExitsSoThatANewOneCanConnectWhenItsConnectionIsClosedForGood) {
  NatsServer server({}, "authorization { user: alice, password: rabbit-hole }");
  Process process(server, "normal", {}, {"NATS_USER=alice", "NATS_PASSWORD=rabbit-hole"});
  ASSERT_TRUE(eventually([&] { return process.log().find(R"("message":"ready")") != std::string::npos; }))
      << process.log();
  server.kill();
  server.set_config("authorization { user: alice, password: looking-glass }");
  server.start();
  ASSERT_TRUE(eventually([&] { return process.ended(); })) << process.log();
  EXPECT_EQ(process.exit_status(), 70) << process.log();
}

TEST_F(WorkerTest, AWorkerProcessPurgesObjectsThatNobodyFinished) {
  connection_.publish("$O.TEST_FILES.C.of-the-dead", "chunk", "");
  Process process(server_, "normal", {}, {"NATS_GARBAGE_EVERY=50ms", "NATS_GARBAGE_AGE=1ms"});
  EXPECT_TRUE(eventually([&] { return stored("OBJ_TEST_FILES") == 0; })) << process.log();
}

TEST(WorkerProcess, SaysOnceThatItWaitsForJetStream) {
  // One node of a cluster whose others are not there yet: it has no leader.
  NatsServer server({"--name", "n0", "--cluster_name", "c1", "--cluster", "nats://127.0.0.1:-1", "--routes",
                     "nats://127.0.0.1:1,nats://127.0.0.1:2"});
  Process process(server, "normal");
  const auto count = [&](std::string_view text) {
    const std::string log = process.log();
    int count = 0;
    for (auto at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++count;
    return count;
  };
  ASSERT_TRUE(eventually([&] { return count("waiting for JetStream") >= 1; })) << process.log();
  EXPECT_FALSE(eventually([&] { return count("waiting for JetStream") > 1 || process.ended(); }, 2s)) << process.log();
  process.signal(SIGTERM);
  ASSERT_TRUE(eventually([&] { return process.ended(); }));
  EXPECT_EQ(process.exit_status(), 0) << process.log();
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
                              "", {}, [&](const nats::PublishAck*, std::string_view, bool) { ++acked; });
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
  testing::print_figure("a stage that does nothing", std::lround(kMessages / seconds), "messages/s");
  ASSERT_TRUE(all_acked());
}

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  if (const char* mode = std::getenv("WORKER_MODE")) return pipegen::worker_process(mode, argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
