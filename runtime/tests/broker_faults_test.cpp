// A pipeline whose nats-server is killed, full, or away: what was accepted is handled, by the same processes.
#include <gtest/gtest.h>
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "http/ingest_server.hpp"
#include "pipegen/json.hpp"
#include "pipegen/worker.hpp"
#include "support/faults.hpp"
#include "support/nats_server.hpp"
#include "worker/consumer.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::eventually;
using testing::figure;
using testing::NatsServer;
using testing::soak;
using testing::Tally;
using worker::Worker;
using worker::WorkerOptions;
using Clock = std::chrono::steady_clock;

constexpr const char* kJson = "application/json";

/// POST /events/Input -> in.a -> "first" -> mid.a -> "second" -> out.a
Topology topology() {
  Topology out;
  out.add_stream({.name = "IN", .subjects = {"in.a"}, .retention = Retention::kWorkQueue});
  out.add_stream({.name = "MID", .subjects = {"mid.a"}, .retention = Retention::kWorkQueue});
  out.add_stream({.name = "OUT", .subjects = {"out.a"}});
  out.add_stream({.name = "TEST_DLQ", .subjects = {"dlq.test.>"}});
  out.add_key_value({.schema_name = "STATE", .name = "TEST_STATE"});
  out.add_key_value({.schema_name = "KEYS", .name = "TEST_KEYS", .max_age = 1h});
  return out;
}

Stage make_stage(const std::string& name, const std::string& stream, const std::string& subject,
                 std::function<void(std::string_view, Context&, Outbox&)> handle) {
  Stage stage;
  stage.pipeline = "test";
  stage.name = name;
  stage.section = name + "_service";
  stage.topology = topology();
  stage.stream = stream;
  stage.durable = name + "-workers";
  stage.filter_subject = subject;
  stage.event = "Input";
  stage.concurrency = 4;
  stage.ack_wait = 2s;
  stage.timeout = 20s;
  stage.backoff = {50ms};
  stage.dead_letter_stream = "TEST_DLQ";
  stage.dead_letter_subject = "dlq.test." + name;
  stage.handle = std::move(handle);
  return stage;
}

IngestApi make_api() {
  IngestApi api;
  api.pipeline = "test";
  api.section = "ingest_api";
  api.port = 0;
  api.topology = topology();
  api.idempotency_bucket = "KEYS";
  api.openapi = "{}";
  api.events.push_back({"Input", [](std::string_view body, Outbox& outbox) {
                          outbox.publish({.event = "Input", .subject = "in.a", .payload = std::string(body)});
                          return std::string("job");
                        }});
  return api;
}

WorkerOptions quick() {
  WorkerOptions options;
  options.hold_first = 50ms;
  options.hold_most = 500ms;
  options.grace_period = 5s;
  return options;
}

/// Clients of the API that send numbers, each until it is answered with 202.
class Clients {
 public:
  explicit Clients(int port) {
    for (int i = 0; i < 4; ++i) threads_.emplace_back([this, i, port] { run(i, port); });
  }
  ~Clients() { finish(); }
  void finish() {
    finishing_ = true;
    for (auto& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  std::size_t accepted() const { return accepted_; }
  /// After finish().
  const std::set<std::string>& sent() const { return sent_; }
  std::string odd() const {
    const std::lock_guard lock(mutex_);
    return odd_;
  }

 private:
  void run(int client, int port) {
    httplib::Client http("127.0.0.1", port);
    http.set_keep_alive(true);
    http.set_tcp_nodelay(true);
    http.set_read_timeout(30s);
    for (int i = 0; !finishing_; ++i) {
      const std::string payload = std::to_string(client * 1'000'000 + i);
      while (!post(http, payload)) std::this_thread::sleep_for(20ms);
      ++accepted_;
      const std::lock_guard lock(mutex_);
      sent_.insert(payload);
    }
  }
  bool post(httplib::Client& http, const std::string& payload) {
    const auto answer = http.Post("/events/Input", {{"Idempotency-Key", "\"" + payload + "\""}}, payload, kJson);
    if (answer && answer->status == 202) return true;
    if (std::getenv("DEBUG_CLIENTS")) std::printf("%s %d %s\n", payload.c_str(), answer ? answer->status : -1, answer ? answer->body.c_str() : ""), fflush(stdout);
    if (answer && answer->status != 503 && answer->status != 409) {
      const std::lock_guard lock(mutex_);
      odd_ = std::to_string(answer->status) + " " + answer->body;
    }
    return false;
  }

  std::atomic<bool> finishing_ = false;
  std::atomic<std::size_t> accepted_ = 0;
  mutable std::mutex mutex_;
  std::set<std::string> sent_;
  std::string odd_;
  std::vector<std::thread> threads_;
};

/// The API and two stages, each with a connection of its own, as three processes would have.
class Chain {
 public:
  explicit Chain(const std::string& url)
      : first_connection_({.url = url, .name = "first", .metrics = &metrics}),
        second_connection_({.url = url, .name = "second", .metrics = &metrics}),
        api_connection_({.url = url, .name = "api"}),
        api_(make_api(), settings_, metrics) {
    nats::ensure(api_connection_, topology());
    first_ = std::make_unique<Worker>(first_connection_,
                                      make_stage("first", "IN", "in.a",
                                                 [this](std::string_view payload, Context&, Outbox& outbox) {
                                                   first.add(payload);
                                                   outbox.publish({.event = "Middle",
                                                                   .subject = "mid.a",
                                                                   .payload = std::string(payload)});
                                                 }),
                                      settings_, metrics, quick());
    second_ = std::make_unique<Worker>(second_connection_,
                                       make_stage("second", "MID", "mid.a",
                                                  [this](std::string_view payload, Context&, Outbox& outbox) {
                                                    second.add(payload);
                                                    outbox.publish({.event = "Output",
                                                                    .subject = "out.a",
                                                                    .payload = std::string(payload)});
                                                  }),
                                       settings_, metrics, quick());
    first_->start();
    second_->start();
    api_.start();
    api_.attach(api_connection_);
  }

  int port() const { return api_.port(); }
  bool ready() const { return first_->readiness().ready && second_->readiness().ready; }
  std::string why_not() const { return first_->readiness().reason + " / " + second_->readiness().reason; }

  Tally first, second;
  Metrics metrics;

 private:
  Settings settings_;
  nats::Connection first_connection_, second_connection_, api_connection_;
  http::IngestServer api_;
  std::unique_ptr<Worker> first_, second_;
};

std::string describe(nats::Connection& connection, const std::string& stream, const std::string& durable) {
  const auto s = testing::stream_info(connection, stream);
  const auto c = testing::consumer_info(connection, stream, durable);
  return stream + " msgs " + std::to_string(s->State.Msgs) + " first " + std::to_string(s->State.FirstSeq) + " last " +
         std::to_string(s->State.LastSeq) + "; " + durable + " delivered " + std::to_string(c->Delivered.Stream) + "/" +
         std::to_string(c->Delivered.Consumer) + " floor " + std::to_string(c->AckFloor.Stream) + "/" +
         std::to_string(c->AckFloor.Consumer) + " pending " + std::to_string(c->NumPending) + " ack pending " +
         std::to_string(c->NumAckPending) + " waiting " + std::to_string(c->NumWaiting) + " redelivered " +
         std::to_string(c->NumRedelivered);
}

bool settled(nats::Connection& connection, const std::string& stream, const std::string& durable) {
  try {
    const auto found = testing::consumer_info(connection, stream, durable);
    return found->NumPending == 0 && found->NumAckPending == 0;
  } catch (const Error&) {
    return false;
  }
}

/// A work queue of one stage, and its store as it was at some moment.
class Store : public ::testing::Test {
 protected:
  Store() { nats::ensure(connection_, topology()); }

  std::unique_ptr<Worker> start() {
    auto options = quick();
    options.consumer.expires = 1s;
    options.consumer.heartbeat = 100ms;
    auto worker = std::make_unique<Worker>(connection_, make_stage("first", "IN", "in.a",
                                                                   [this](std::string_view payload, Context&, Outbox&) {
                                                                     tally_.add(payload);
                                                                   }),
                                           Settings(), metrics_, options);
    worker->start();
    return worker;
  }
  void send(const std::string& payload) { connection_.publish("in.a", payload, "id-" + payload); }
  bool emptied() {
    return eventually([&] {
      try {
        return testing::stored(connection_, "IN") == 0 && settled("first-workers");
      } catch (const Error&) {
        return false;
      }
    });
  }
  bool settled(const std::string& durable) {
    const auto found = testing::consumer_info(connection_, "IN", durable);
    return found->NumPending == 0 && found->NumAckPending == 0;
  }
  /// Of the messages, without the state of the consumer.
  std::filesystem::path messages() const { return server_.data() / "jetstream" / "$G" / "streams" / "IN" / "msgs"; }
  void keep_store() {
    server_.kill(SIGTERM);
    std::filesystem::copy(messages(), folder_.path() / "msgs", std::filesystem::copy_options::recursive);
    server_.start();
    ASSERT_TRUE(eventually([&] { return connection_.connected(); }));
  }
  void bring_store_back() {
    server_.kill(SIGTERM);
    std::filesystem::remove_all(messages());
    std::filesystem::copy(folder_.path() / "msgs", messages(), std::filesystem::copy_options::recursive);
    server_.start();
    ASSERT_TRUE(eventually([&] { return connection_.connected(); }));
  }
  double metric(const std::string& name) {
    const std::string text = metrics_.render(), line = "\n" + name + "{stage=\"first\"} ";
    const auto at = text.find(line);
    return at == std::string::npos ? -1 : std::strtod(text.c_str() + at + line.size(), nullptr);
  }

  testing::TempFolder folder_;
  NatsServer server_;
  Metrics metrics_;
  nats::Connection connection_{{.url = server_.url(), .metrics = &metrics_}};
  Tally tally_;
};

// A nats-server that is killed may have removed messages of a work queue and not have written that down.
TEST_F(Store, AckedMessagesThatAWorkQueueHasAgainLeaveItAndAreNotHandledTwice) {
  for (int i = 0; i < 50; ++i) send(std::to_string(i));
  keep_store();
  auto worker = start();
  ASSERT_TRUE(emptied());
  EXPECT_EQ(tally_.total(), 50u);
  bring_store_back();
  ASSERT_EQ(testing::stored(connection_, "IN"), 50u);
  ASSERT_TRUE(settled("first-workers")) << "the consumer should have them as acked";
  const auto back = Clock::now();
  ASSERT_TRUE(emptied()) << "they take room for ever";
  figure("acked messages that came back are gone from the work queue", testing::seconds_since(back), "s");
  EXPECT_EQ(tally_.total(), 50u);
  EXPECT_EQ(metric("pipegen_consumer_stalls_total"), 1);
  EXPECT_EQ(metric("pipegen_consumer_recreations_total"), 1);
  send("after");
  ASSERT_TRUE(eventually([&] { return tally_.of("after") == 1; }));
}

TEST_F(Store, MessagesOfAStreamWhoseSequencesBeganAgainAreDelivered) {
  keep_store();  // with nothing in it
  auto worker = start();
  for (int i = 0; i < 50; ++i) send("before-" + std::to_string(i));
  ASSERT_TRUE(emptied());
  bring_store_back();
  ASSERT_EQ(testing::stream_info(connection_, "IN")->State.LastSeq, 0u);
  for (int i = 0; i < 10; ++i) send("after-" + std::to_string(i));
  const auto back = Clock::now();
  ASSERT_TRUE(eventually([&] { return tally_.distinct() == 60; })) << "the consumer waits for sequence 51";
  figure("messages behind a sequence that began again are delivered", testing::seconds_since(back), "s");
  ASSERT_TRUE(emptied());
  EXPECT_EQ(tally_.total(), 60u);
  EXPECT_EQ(metric("pipegen_consumer_stalls_total"), 1);
}

TEST(BrokerFaults, NatsServerIsKilledUnderLoadAgainAndAgainAndTheSameServicesGoOn) {
  NatsServer server;
  Chain chain(server.url());
  Clients clients(chain.port());
  const int kills = soak() ? 20 : 5;
  double slowest = 0;
  const auto others = [&](std::size_t accepted, std::size_t first, std::size_t second, milliseconds patience) {
    return eventually([&] {
      return clients.accepted() > accepted && chain.first.distinct() > first && chain.second.distinct() > second;
    }, patience);
  };
  for (int kill = 0; kill < kills; ++kill) {
    ASSERT_TRUE(others(clients.accepted() + 100, chain.first.distinct() + 100, chain.second.distinct() + 100, 30s))
        << "kill " << kill << ": " << chain.why_not();
    server.kill(SIGKILL);
    const bool last = kill + 1 == kills;
    std::this_thread::sleep_for(last ? (soak() ? milliseconds(5min) : 3s) : milliseconds(20 * kill));
    const auto accepted = clients.accepted(), first = chain.first.distinct(), second = chain.second.distinct();
    server.start();
    const auto back = Clock::now();
    const bool on = others(accepted, first, second, 10s);
    if (!on) {
      clients.finish();
      nats::Connection look({.url = server.url()});
      for (int i = 0; i < 6; ++i) {
        std::printf("%s\n%s\n", describe(look, "IN", "first-workers").c_str(),
                    describe(look, "MID", "second-workers").c_str());
        std::printf("%zu %zu %zu\n", clients.accepted(), chain.first.distinct(), chain.second.distinct());
        std::fflush(stdout);
        std::this_thread::sleep_for(3s);
      }
    }
    ASSERT_TRUE(on)
        << "kill " << kill << ": accepted " << clients.accepted() - accepted << ", first "
        << chain.first.distinct() - first << ", second " << chain.second.distinct() - second << "; "
        << chain.why_not();
    const double seconds = testing::seconds_since(back);
    slowest = std::max(slowest, seconds);
    figure(last ? "every part goes on after the long absence" : "every part goes on after kill -9 of nats-server", seconds, "s");
  }
  clients.finish();
  EXPECT_EQ(clients.odd(), "");
  nats::Connection connection({.url = server.url()});
  const bool all = eventually([&] { return chain.second.distinct() >= clients.sent().size(); }, 60s);
  std::printf("%s\n%s\n", describe(connection, "IN", "first-workers").c_str(), describe(connection, "MID", "second-workers").c_str());
  ASSERT_TRUE(all);
  EXPECT_EQ(chain.first.all(), clients.sent());
  EXPECT_EQ(chain.second.all(), clients.sent());
  const auto drained = eventually([&] { return settled(connection, "IN", "first-workers") && settled(connection, "MID", "second-workers"); }, 30s);
  std::printf("%s\n%s\n", describe(connection, "IN", "first-workers").c_str(), describe(connection, "MID", "second-workers").c_str());
  EXPECT_TRUE(drained);
  const auto out = testing::payloads(connection, "OUT");
  EXPECT_EQ(std::set<std::string>(out.begin(), out.end()), clients.sent());
  EXPECT_EQ(out.size(), clients.sent().size()) << "an event was stored twice";
  EXPECT_EQ(testing::stored(connection, "TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return chain.ready(); })) << chain.why_not();
  figure("slowest to go on after kill -9 of nats-server", slowest, "s");
  figure("messages accepted meanwhile", static_cast<double>(clients.sent().size()), "");
  figure("handled twice by the first stage", static_cast<double>(chain.first.total() - chain.first.distinct()), "");
  figure("handled twice by the second stage", static_cast<double>(chain.second.total() - chain.second.distinct()), "");
}

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
