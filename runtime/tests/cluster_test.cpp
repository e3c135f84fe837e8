// A JetStream cluster of three nodes on loopback whose leader is killed: every event that was acked arrives once.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <thread>

#include "support/faults.hpp"
#include "support/nats_cluster.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::eventually;
using testing::NatsCluster;
using testing::print_figure;
using testing::soak;
using testing::Tally;
using worker::Worker;
using worker::WorkerOptions;
using Clock = std::chrono::steady_clock;

/// As the generator makes it from `replicas: 3`.
Topology topology() {
  Topology out;
  out.add_stream({.name = "IN", .subjects = {"in.a"}, .retention = Retention::kWorkQueue, .replicas = 3});
  out.add_stream({.name = "OUT", .subjects = {"out.a"}, .replicas = 3});
  out.add_stream({.name = "TEST_DLQ", .subjects = {"dlq.test.>"}, .replicas = 3});
  out.add_key_value({.schema_name = "TEST_STATUS", .name = "TEST_STATUS", .max_age = 24h, .replicas = 3});
  out.add_object_bucket({.schema_name = "FILES", .name = "FILES", .replicas = 3});
  return out;
}

std::string leader_of(nats::Connection& connection, const std::string& stream) {
  try {
    const auto info = testing::stream_info(connection, stream);
    return info->Cluster != nullptr && info->Cluster->Leader != nullptr ? info->Cluster->Leader : "";
  } catch (const Error&) {
    return "";
  }
}

TEST(Cluster, WhatHasFewerReplicasThanTheSchemaSaysIsGivenThemAndWhatHasMoreKeepsThem) {
  NatsCluster cluster(3);
  nats::Connection connection({.url = cluster.urls()});
  const auto of = [](int replicas) {
    Topology out;
    out.add_stream({.name = "TEST_DLQ", .subjects = {"dlq.test.>"}, .replicas = replicas});
    out.add_key_value({.schema_name = "TEST_STATUS", .name = "TEST_STATUS", .replicas = replicas});
    return out;
  };
  nats::ensure(connection, of(1));
  connection.publish("dlq.test.work", "kept", "1");
  for (const int wanted : {3, 1}) {
    nats::ensure(connection, of(wanted));
    for (const char* stream : {"TEST_DLQ", "KV_TEST_STATUS"}) {
      EXPECT_TRUE(eventually([&] {
        const auto info = testing::stream_info(connection, stream);
        return info->Config->Replicas == 3 && info->Cluster != nullptr && info->Cluster->ReplicasLen == 2;
      })) << stream;
    }
    EXPECT_EQ(testing::stored(connection, "TEST_DLQ"), 1u);
  }
}

TEST(Cluster, TheLeaderIsKilledUnderLoadAndEveryAckedEventArrivesOnce) {
  NatsCluster cluster(3);
  nats::Connection api({.url = cluster.urls(), .name = "api"});
  nats::Connection worker_connection({.url = cluster.urls(), .name = "worker"});
  nats::ensure(api, topology());
  for (const char* stream : {"IN", "OUT", "TEST_DLQ", "KV_TEST_STATUS", "OBJ_FILES"}) {
    const auto info = testing::stream_info(api, stream);
    EXPECT_EQ(info->Config->Replicas, 3) << stream;
    ASSERT_NE(info->Cluster, nullptr) << stream;
    EXPECT_EQ(info->Cluster->ReplicasLen, 2) << stream;
  }
  nats::ensure(worker_connection, topology());  // a second service finds what it wants

  Tally handled;
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
  stage.ack_wait = 5s;
  stage.backoff = {50ms};
  stage.dead_letter_stream = "TEST_DLQ";
  stage.dead_letter_subject = "dlq.test.work";
  stage.status_bucket = "TEST_STATUS";
  stage.handle = [&](std::string_view payload, Context&, Outbox& outbox) {
    handled.add(payload);
    outbox.publish({.event = "Output", .subject = "out.a", .payload = std::string(payload)});
  };
  Metrics metrics;
  WorkerOptions options;
  options.hold_first = 50ms;
  options.hold_most = 500ms;
  Worker worker(worker_connection, stage, Settings(), metrics, options);
  worker.start();

  std::atomic<bool> finishing = false;
  std::atomic<int> acked = 0;
  std::vector<std::thread> producers;
  for (int producer = 0; producer < 4; ++producer) {
    producers.emplace_back([&, producer] {
      for (int i = 0; !finishing; ++i) {
        const std::string payload = std::to_string(producer) + "-" + std::to_string(i);
        for (bool stored = false; !stored;) {
          try {
            api.publish("in.a", payload, payload);
            stored = true;
          } catch (const Unavailable&) {
            std::this_thread::sleep_for(20ms);
          }
        }
        ++acked;
        std::this_thread::sleep_for(1ms);
      }
    });
  }
  double longest_publish = 0, longest_handle = 0;
  const int kills = soak() ? 10 : 1;
  for (int kill = 0; kill < kills; ++kill) {
    const auto before = handled.distinct();
    EXPECT_TRUE(eventually([&] { return handled.distinct() > before + 200; }, 60s)) << worker.readiness().reason;
    std::string leader;
    EXPECT_TRUE(eventually([&] { return !(leader = leader_of(api, kill % 2 == 0 ? "IN" : "OUT")).empty(); }));
    const auto published = acked.load();
    cluster.node(leader).kill(SIGKILL);
    const auto killed = Clock::now();
    const auto done = handled.distinct();
    // What was on its way may still arrive: the service is there when more does than was.
    EXPECT_TRUE(eventually([&] { return acked > published + 20; }, 60s));
    longest_publish = std::max(longest_publish, testing::seconds_since(killed));
    EXPECT_TRUE(eventually([&] { return handled.distinct() > done + 20; }, 60s)) << worker.readiness().reason;
    longest_handle = std::max(longest_handle, testing::seconds_since(killed));
    cluster.node(leader).start();
    EXPECT_TRUE(eventually([&] { return cluster.caught_up(api, "IN") && cluster.caught_up(api, "OUT"); }, 60s));
  }
  finishing = true;
  for (auto& producer : producers) producer.join();
  const auto count = static_cast<std::size_t>(acked.load());
  EXPECT_TRUE(eventually([&] { return handled.distinct() >= count; }, 60s)) << worker.readiness().reason;
  EXPECT_EQ(handled.distinct(), count);
  const auto quiet = [&] {
    try {
      const auto found = testing::consumer_info(api, "IN", "work-workers");
      return found->NumPending == 0 && found->NumAckPending == 0;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(eventually(quiet, 60s));
  const auto out = testing::payloads(api, "OUT");
  EXPECT_EQ(std::set<std::string>(out.begin(), out.end()), handled.all());
  EXPECT_EQ(out.size(), count) << "an event arrived twice";
  EXPECT_EQ(testing::stored(api, "TEST_DLQ"), 0u);
  print_figure("events acked, and arrived once", static_cast<double>(count), "events");
  print_figure("cluster of three, leader killed: longest without accepting events", longest_publish, "s");
  print_figure("cluster of three, leader killed: longest without handling events", longest_handle, "s");
  print_figure("handled twice", static_cast<double>(handled.total() - handled.distinct()), "events");
  EXPECT_TRUE(worker.stop());
}

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
