// A pipeline whose nats-server is killed, full, or away: what was accepted is handled, by the same processes.
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/mount.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
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
using testing::NatsServer;
using testing::print_figure;
using testing::soak;
using testing::Tally;
using worker::Worker;
using worker::WorkerOptions;
using Clock = std::chrono::steady_clock;

constexpr const char* kJson = "application/json";

/// POST /events/Input -> in.a -> "first" -> mid.a -> "second" -> out.a; and POST /ingest/thing -> things.thing
Topology topology(milliseconds window = 2min) {
  Topology out;
  out.add_stream({.name = "IN", .subjects = {"in.a"}, .retention = Retention::kWorkQueue, .duplicate_window = window});
  out.add_stream(
      {.name = "MID", .subjects = {"mid.a"}, .retention = Retention::kWorkQueue, .duplicate_window = window});
  out.add_stream({.name = "OUT", .subjects = {"out.a"}});
  out.add_stream({.name = "THINGS", .subjects = {"things.thing"}});
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
  stage.timeout = 5s;
  stage.backoff = {50ms};
  stage.dead_letter_stream = "TEST_DLQ";
  stage.dead_letter_subject = "dlq.test." + name;
  stage.handle = std::move(handle);
  return stage;
}

IngestApi make_api(const Topology& topology) {
  IngestApi api;
  api.pipeline = "test";
  api.section = "ingest_api";
  api.port = 0;
  api.topology = topology;
  api.entity_stream = "THINGS";
  api.idempotency_bucket = "KEYS";
  api.openapi = "{}";
  api.events.push_back({"Input", [](std::string_view body, Outbox& outbox) {
                          outbox.publish({.event = "Input", .subject = "in.a", .payload = std::string(body)});
                          return std::string("job");
                        }});
  api.add_entity({.name = "Thing", .path = "thing", .subject = "things.thing", .check = [](std::string_view body) {
                    json::parse(body, [](json::Reader& in) { return in.string(); });
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

/// Clients of the API that send texts, each until it is answered with 202.
class Clients {
 public:
  /// `size`: of a text, in octets; at least that of a number.
  explicit Clients(int port, std::size_t size = 0, std::string path = "/events/Input")
      : size_(size), path_(std::move(path)) {
    for (int i = 0; i < 4; ++i) threads_.emplace_back([this, i, port] { run(i, port); });
  }
  ~Clients() { finish(false); }
  /// No new texts; what was not answered with 202 is tried on, or given up.
  void finish(bool with_all = true) {
    finishing_ = true;
    giving_up_ = !with_all;
    for (auto& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  std::size_t accepted() const { return accepted_; }
  std::size_t refused() const { return refused_; }
  std::size_t without_retry_after() const { return without_retry_after_; }
  /// What was answered with 202. After finish().
  const std::set<std::string>& sent() const { return sent_; }
  /// An answer that no fault explains.
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
      const std::string number = std::to_string(client * 1'000'000 + i);
      const std::string payload =
          "\"" + number + std::string(size_ > number.size() ? size_ - number.size() : 0, 'x') + "\"";
      bool done = false;
      while (!(done = post(http, number, payload)) && !giving_up_) std::this_thread::sleep_for(20ms);
      if (!done) return;
      ++accepted_;
      const std::lock_guard lock(mutex_);
      sent_.insert(payload);
    }
  }
  bool post(httplib::Client& http, const std::string& number, const std::string& payload) {
    const auto answer = http.Post(path_, {{"Idempotency-Key", "\"" + number + "\""}}, payload, kJson);
    if (answer && answer->status == 202) return true;
    if (!answer || answer->status == 409) return false;  // 409: the try before this one is being given back
    ++refused_;
    if (!answer->has_header("Retry-After")) ++without_retry_after_;
    if (answer->status != 503) {
      const std::lock_guard lock(mutex_);
      odd_ = std::to_string(answer->status) + " " + answer->body;
    }
    return false;
  }

  const std::size_t size_;
  const std::string path_;
  std::atomic<bool> finishing_ = false, giving_up_ = false;
  std::atomic<std::size_t> accepted_ = 0, refused_ = 0, without_retry_after_ = 0;
  mutable std::mutex mutex_;
  std::set<std::string> sent_;
  std::string odd_;
  std::vector<std::thread> threads_;
};

/// The API and two stages, each with a connection of its own, as three processes would have.
class Chain {
 public:
  explicit Chain(const std::string& url, const Topology& wanted = topology())
      : first_connection_({.url = url, .name = "first", .metrics = &metrics}),
        second_connection_({.url = url, .name = "second", .metrics = &metrics}),
        api_connection_({.url = url, .name = "api"}),
        api_(make_api(wanted), settings_, metrics) {
    nats::ensure(api_connection_, wanted);
    first_ = std::make_unique<Worker>(
        first_connection_,
        make_stage("first", "IN", "in.a",
                   [this](std::string_view payload, Context&, Outbox& outbox) {
                     first.add(payload);
                     outbox.publish({.event = "Middle", .subject = "mid.a", .payload = std::string(payload)});
                   }),
        settings_, metrics, quick());
    second_ = std::make_unique<Worker>(
        second_connection_,
        make_stage("second", "MID", "mid.a",
                   [this](std::string_view payload, Context&, Outbox& outbox) {
                     second.add(payload);
                     outbox.publish({.event = "Output", .subject = "out.a", .payload = std::string(payload)});
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

/// A work queue of one stage, and its store as it was at some moment.
class Store : public ::testing::Test {
 protected:
  Store() { nats::ensure(connection_, topology()); }

  std::unique_ptr<Worker> start() {
    auto options = quick();
    options.consumer.expires = 1s;
    options.consumer.heartbeat = 100ms;
    auto worker = std::make_unique<Worker>(
        connection_,
        make_stage("first", "IN", "in.a", [this](std::string_view payload, Context&, Outbox&) { tally_.add(payload); }),
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
  print_figure("acked messages that came back are gone from the work queue", testing::seconds_since(back), "s");
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
  print_figure("messages behind a sequence that began again are delivered", testing::seconds_since(back), "s");
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
  const auto all_above = [&](std::size_t accepted, std::size_t first, std::size_t second, milliseconds patience) {
    return eventually(
        [&] {
          return clients.accepted() > accepted && chain.first.distinct() > first && chain.second.distinct() > second;
        },
        patience);
  };
  for (int kill = 1; kill <= kills; ++kill) {
    ASSERT_TRUE(all_above(clients.accepted() + 100, chain.first.distinct() + 100, chain.second.distinct() + 100, 30s))
        << "kill " << kill << ": " << chain.why_not();
    milliseconds away = 20ms * kill;
    if (kill == kills / 2) away = soak() ? milliseconds(1min) : 1s;
    if (kill == kills) away = soak() ? milliseconds(5min) : 3s;  // 5 min: more than sixty tries to connect
    server.kill(SIGKILL);
    std::this_thread::sleep_for(away);
    const auto accepted = clients.accepted(), first = chain.first.distinct(), second = chain.second.distinct();
    server.start();
    const auto back = Clock::now();
    ASSERT_TRUE(all_above(accepted, first, second, 10s))
        << "kill " << kill << ": accepted " << clients.accepted() - accepted << ", first "
        << chain.first.distinct() - first << ", second " << chain.second.distinct() - second << "; " << chain.why_not();
    slowest = std::max(slowest, testing::seconds_since(back));
    if (kill == kills) {
      print_figure("every part goes on after nats-server was away for " + std::to_string(away.count() / 1000) + " s",
                   testing::seconds_since(back), "s");
    }
  }
  clients.finish();
  EXPECT_EQ(clients.odd(), "");
  nats::Connection connection({.url = server.url()});
  EXPECT_TRUE(eventually([&] { return chain.second.distinct() >= clients.sent().size(); }, 60s))
      << chain.why_not() << "\n"
      << testing::state_of(connection, "IN", "first-workers") << testing::state_of(connection, "MID", "second-workers");
  EXPECT_TRUE(chain.first.all() == clients.sent()) << chain.first.distinct() << " of " << clients.sent().size();
  EXPECT_TRUE(chain.second.all() == clients.sent()) << chain.second.distinct() << " of " << clients.sent().size();
  // Messages whose acks the server forgot go the same way as those that it remembers: nothing is left of them.
  const auto empty = [&](const std::string& stream, const std::string& durable) {
    try {
      const auto found = testing::consumer_info(connection, stream, durable);
      return found->NumPending == 0 && found->NumAckPending == 0 && testing::stored(connection, stream) == 0;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(eventually([&] { return empty("IN", "first-workers") && empty("MID", "second-workers"); }, 60s))
      << testing::state_of(connection, "IN", "first-workers") << testing::state_of(connection, "MID", "second-workers");
  const auto out = testing::payloads(connection, "OUT");
  EXPECT_TRUE(std::set<std::string>(out.begin(), out.end()) == clients.sent());
  EXPECT_EQ(out.size(), clients.sent().size()) << "an event was stored twice";
  EXPECT_EQ(testing::stored(connection, "TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return chain.ready(); })) << chain.why_not();
  print_figure("slowest of " + std::to_string(kills) + " kills of nats-server: every part goes on after", slowest, "s");
  print_figure("messages accepted, and handled", static_cast<double>(clients.sent().size()), "messages");
  print_figure("of them handled twice",
               static_cast<double>(chain.first.total() - chain.first.distinct() + chain.second.total() -
                                   chain.second.distinct()),
               "messages");
}

// ---------------------------------------------------------------------------------------------------- no room

/// A file system that holds as much as it is told. Only for the administrator.
class SmallDisk {
 public:
  explicit SmallDisk(int mebibytes) { mounted_ = mount(mebibytes, 0); }
  ~SmallDisk() {
    if (mounted_) ::umount2(path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const std::string& why_not() const { return why_not_; }
  std::string path() const { return folder_.path().string(); }
  void resize(int mebibytes) { ASSERT_TRUE(mount(mebibytes, MS_REMOUNT)) << why_not_; }

 private:
  bool mount(int mebibytes, unsigned long flags) {
    const std::string size = "size=" + std::to_string(mebibytes) + "m";
    if (::mount("tmpfs", path().c_str(), "tmpfs", flags, size.c_str()) == 0) return true;
    why_not_ = std::strerror(errno);
    return false;
  }

  testing::TempFolder folder_;
  bool mounted_ = false;
  std::string why_not_;
};

TEST(BrokerFaults, AFullDiskIsToldHonestlyAndNothingAcceptedIsMissingWhenThereIsRoom) {
  SmallDisk disk(32);
  if (!disk.mounted()) {
    GTEST_SKIP() << "a small disk cannot be made here: mounting a tmpfs is for the administrator (" << disk.why_not()
                 << ")";
  }
  NatsServer server({"-sd", disk.path()});
  Chain chain(server.url());
  Clients clients(chain.port(), 2'000), things(chain.port(), 2'000, "/ingest/thing");
  // Honest: refused with 503 and Retry-After. The stages hold what they have.
  ASSERT_TRUE(eventually([&] { return clients.refused() > 20 && things.refused() > 20; }, 60s))
      << clients.accepted() << " were accepted";
  EXPECT_TRUE(eventually([&] { return !chain.ready(); }));
  const auto before = clients.accepted();
  disk.resize(400);
  // nats-server turns JetStream off when its disk is full, until it is started again.
  server.kill(SIGTERM);
  server.start();
  const auto back = Clock::now();
  ASSERT_TRUE(eventually([&] { return clients.accepted() > before + 100; }, 20s)) << clients.odd();
  print_figure("accepted again after a full disk has room", testing::seconds_since(back), "s");
  clients.finish();
  things.finish();
  EXPECT_EQ(clients.odd() + things.odd(), "");
  EXPECT_EQ(clients.without_retry_after() + things.without_retry_after(), 0u);
  nats::Connection connection({.url = server.url()});
  EXPECT_TRUE(eventually([&] { return chain.second.distinct() >= clients.sent().size(); }, 60s)) << chain.why_not();
  EXPECT_EQ(chain.second.all(), clients.sent());
  const auto out = testing::payloads(connection, "OUT");
  EXPECT_EQ(std::set<std::string>(out.begin(), out.end()), clients.sent());
  const auto rows = testing::payloads(connection, "THINGS");
  EXPECT_EQ(std::set<std::string>(rows.begin(), rows.end()), things.sent());
  EXPECT_EQ(testing::stored(connection, "TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return chain.ready(); })) << chain.why_not();
}

TEST(BrokerFaults, FullStreamsAreToldHonestlyAndNothingAcceptedIsMissingWhenThereIsRoom) {
  NatsServer server;
  nats::Connection connection({.url = server.url()});
  auto limited = topology();
  for (auto& stream : limited.streams) {
    if (stream.name != "TEST_DLQ") stream.max_messages = 300;
  }
  nats::ensure(connection, limited);
  Chain chain(server.url(), limited);
  Clients clients(chain.port()), things(chain.port(), 0, "/ingest/thing");
  // OUT is full first; then the second stage holds, MID fills up, and so on to the client.
  ASSERT_TRUE(eventually([&] { return clients.refused() > 20 && things.refused() > 20; }, 60s)) << clients.accepted();
  EXPECT_TRUE(eventually([&] { return !chain.ready(); }));
  EXPECT_EQ(testing::stored(connection, "OUT"), 300u);
  // Somebody takes what is there, three times.
  std::set<std::string> taken;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(eventually([&] { return testing::stored(connection, "OUT") == 300; })) << chain.why_not();
    for (auto& payload : testing::take_payloads(connection, "OUT")) {
      EXPECT_TRUE(taken.insert(payload).second) << payload << " came twice";
    }
  }
  clients.finish(false);
  things.finish(false);
  EXPECT_TRUE(eventually(
      [&] {
        for (auto& payload : testing::take_payloads(connection, "OUT")) taken.insert(payload);
        return taken.size() >= clients.sent().size();
      },
      60s))
      << chain.why_not();
  EXPECT_EQ(taken, clients.sent());
  const auto rows = testing::payloads(connection, "THINGS");
  for (const auto& payload : things.sent()) {
    EXPECT_NE(std::find(rows.begin(), rows.end(), payload), rows.end()) << payload << " is missing";
  }
  EXPECT_EQ(clients.odd() + things.odd(), "");
  EXPECT_EQ(clients.without_retry_after() + things.without_retry_after(), 0u);
  EXPECT_EQ(testing::stored(connection, "TEST_DLQ"), 0u);
  EXPECT_TRUE(eventually([&] { return chain.ready(); })) << chain.why_not();
}

// ---------------------------------------------------------------------------------------------------- processes

constexpr int kPages = 20;

/// What this program is when FAULT_MODE says so.
int worker_process(const std::string& mode, int argc, char** argv) {
  return run_worker(argc, argv, "work", [mode](const Settings&) {
    Stage stage = make_stage("first", "IN", "in.a", [mode](std::string_view payload, Context&, Outbox& outbox) {
      if (mode.starts_with("fan-out")) {
        for (int page = 1; page <= kPages; ++page) {
          outbox.publish({.event = "Page",
                          .subject = "mid.a",
                          .payload = std::string(payload) + " " + std::to_string(page) + " " + std::to_string(kPages)});
        }
        // Its outputs are stored, its input is not acked: here it is killed.
        while (mode == "fan-out-killed") std::this_thread::sleep_for(1h);
        return;
      }
      std::this_thread::sleep_for(5ms);
      outbox.publish({.event = "Middle", .subject = "mid.a", .payload = std::string(payload)});
    });
    stage.topology = topology(milliseconds(std::atoi(std::getenv("FAULT_WINDOW_MS"))));
    stage.ack_wait = 500ms;
    stage.timeout = 1h;
    return stage;
  });
}

class FanOut : public ::testing::TestWithParam<bool> {};

// A page is stored twice then, because the stream has forgotten the first by the time of the second. The aggregator may
// have joined the pages before the others come, or find both.
TEST_P(FanOut, KilledBeforeItsAckAndRedeliveredAfterTheDuplicateWindowGivesEachPageOnce) {
  const bool joined_before = GetParam();
  const milliseconds window = soak() ? milliseconds(2min) : 1s;
  const std::string window_setting = "FAULT_WINDOW_MS=" + std::to_string(window.count());
  NatsServer server;
  nats::Connection connection({.url = server.url()});
  nats::ensure(connection, topology(window));
  Tally joined;
  Stage aggregator = make_stage("second", "MID", "mid.a", {});
  aggregator.collect = Collect{.state_bucket = "STATE",
                               .expires = 1h,
                               .item =
                                   [](std::string_view payload) {
                                     Collect::Item item;
                                     std::istringstream in{std::string(payload)};
                                     in >> item.group >> item.index >> item.count;
                                     return item;
                                   },
                               .handle =
                                   [&](const std::vector<std::string>& payloads, Context&, Outbox& outbox) {
                                     std::string all;
                                     for (const auto& payload : payloads) all += payload + ";";
                                     joined.add(all);
                                     outbox.publish({.event = "Joined", .subject = "out.a", .payload = all});
                                   }};
  Metrics metrics;
  Worker worker(connection, aggregator, Settings(), metrics, quick());
  if (joined_before) worker.start();
  connection.publish("in.a", "book", "book");
  const auto last_page = [&] { return testing::stream_info(connection, "MID")->State.LastSeq; };
  {
    testing::Process killed({}, {"NATS_URL=" + server.url(), "FAULT_MODE=fan-out-killed", window_setting});
    ASSERT_TRUE(eventually([&] { return last_page() == kPages; })) << killed.log();
    ASSERT_TRUE(eventually([&] { return joined.total() == (joined_before ? 1u : 0u); }));
  }
  EXPECT_EQ(testing::stored(connection, "IN"), 1u);
  std::this_thread::sleep_for(window + 1s);  // what is tested is that it passes
  testing::Process again({}, {"NATS_URL=" + server.url(), "FAULT_MODE=fan-out", window_setting});
  ASSERT_TRUE(eventually([&] { return testing::stored(connection, "IN") == 0; })) << again.log();
  EXPECT_EQ(last_page(), 2u * kPages) << "the stream still knew the pages, so this tests nothing";
  if (!joined_before) worker.start();
  ASSERT_TRUE(eventually([&] { return joined.total() == 1 && testing::stored(connection, "MID") == 0; }));
  std::string expected;
  for (int page = 1; page <= kPages; ++page) {
    expected += "book " + std::to_string(page) + " " + std::to_string(kPages) + ";";
  }
  EXPECT_EQ(testing::payloads(connection, "OUT"), std::vector<std::string>{expected});
  EXPECT_EQ(joined.of(expected), 1);
  EXPECT_EQ(testing::stored(connection, "TEST_DLQ"), 0u);
}
INSTANTIATE_TEST_SUITE_P(Aggregator, FanOut, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "JoinedBefore" : "FindsBoth"; });

TEST(BrokerFaults, SigtermUnderLoadEndsWithinTheGracePeriodAndNothingAckedIsDeliveredAgain) {
  NatsServer server;
  nats::Connection connection({.url = server.url()});
  nats::ensure(connection, topology());
  const int messages = soak() ? 20'000 : 3'000;
  std::thread producer([&] {
    for (int i = 0; i < messages; ++i) connection.publish("in.a", std::to_string(i), "id-" + std::to_string(i));
  });
  // By the server's own counts: what was delivered and not acked when a process had ended is delivered once more.
  std::uint64_t handed_back = 0;
  double slowest = 0;
  int stops = 0;
  const auto acked = [&] {
    const auto info = testing::stream_info(connection, "IN");
    return info->State.LastSeq - info->State.Msgs;
  };
  for (; stops < (soak() ? 20 : 4); ++stops) {
    testing::Process process(
        {}, {"NATS_URL=" + server.url(), "FAULT_MODE=slow", "FAULT_WINDOW_MS=120000", "FIRST_SERVICE_GRACE_PERIOD=5s"});
    const auto before = acked();
    ASSERT_TRUE(eventually([&] { return acked() > before + 100; })) << process.log();
    process.signal(SIGTERM);
    const auto told = Clock::now();
    ASSERT_TRUE(process.ends_within(6s)) << process.log();
    slowest = std::max(slowest, testing::seconds_since(told));
    EXPECT_EQ(process.exit_status(), 0) << process.log();
    const auto info = testing::consumer_info(connection, "IN", "first-workers");
    handed_back += static_cast<std::uint64_t>(info->NumAckPending);
  }
  producer.join();
  testing::Process last({}, {"NATS_URL=" + server.url(), "FAULT_MODE=slow", "FAULT_WINDOW_MS=120000"});
  ASSERT_TRUE(eventually([&] { return testing::stored(connection, "IN") == 0; }, 120s)) << last.log();
  const auto info = testing::consumer_info(connection, "IN", "first-workers");
  EXPECT_EQ(info->Delivered.Consumer, static_cast<std::uint64_t>(messages) + handed_back)
      << "something that was acked was delivered again";
  EXPECT_EQ(testing::stored(connection, "MID"), static_cast<std::uint64_t>(messages));
  print_figure("slowest exit on SIGTERM under load, of " + std::to_string(stops), slowest, "s");
  print_figure("handed back at those", static_cast<double>(handed_back), "messages");
}

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  if (const char* mode = std::getenv("FAULT_MODE")) return pipegen::worker_process(mode, argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
