// What must not grow: memory, file descriptors and threads, over a million events (PIPEGEN_SOAK=1; otherwise fewer)
// through a stage, through the ingestion API, and into both databases.
#include <gtest/gtest.h>
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "entities/entity_worker.hpp"
#include "http/ingest_server.hpp"
#include "nats/handles.hpp"
#include "pipegen/context.hpp"
#include "pipegen/json.hpp"
#include "support/nats_server.hpp"
#include "support/postgres_server.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using testing::NatsServer;

bool long_run() {
  const char* wanted = std::getenv("PIPEGEN_SOAK");
  return wanted != nullptr && std::string_view(wanted) == "1";
}

/// What this process has of the system.
struct Footprint {
  double memory = 0;  // MiB in RAM
  std::size_t files = 0;
  std::size_t threads = 0;

  static Footprint now() {
    Footprint out;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("VmRSS:")) out.memory = std::stod(line.substr(6)) / 1024;
    }
    const auto entries = [](const char* folder) {
      return static_cast<std::size_t>(
          std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
    };
    out.files = entries("/proc/self/fd");
    out.threads = entries("/proc/self/task");
    return out;
  }
};

/// The footprint while `rounds` times as many events pass; the first fifth warms up.
class Soak {
 public:
  explicit Soak(const char* what) : what_(what) {}

  void note() { notes_.push_back(Footprint::now()); }

  /// The largest after the warm-up may not be more than the largest of the warm-up and a little: what allocators keep
  /// back moves by a few MiB, and a leak of 32 octets an event would be 30 MiB in a million. A short run is hardly warm
  /// when it ends.
  void check(std::size_t events) const {
    ASSERT_GE(notes_.size(), 10u);
    const auto warm = notes_.begin() + static_cast<std::ptrdiff_t>(notes_.size() / 5);
    const auto most = [](auto from, auto to, auto member) {
      auto out = (*from).*member;
      for (; from != to; ++from) out = std::max(out, (*from).*member);
      return out;
    };
    const double before = most(notes_.begin(), warm, &Footprint::memory);
    const double after = most(warm, notes_.end(), &Footprint::memory);
    std::printf("figure: memory over %zu events, %s: %.1f to %.1f MiB\n", events, what_, before, after);
    std::printf("figure: file descriptors, %s: %zu to %zu\n", what_, most(notes_.begin(), warm, &Footprint::files),
                most(warm, notes_.end(), &Footprint::files));
    std::printf("figure: threads, %s: %zu to %zu\n", what_, most(notes_.begin(), warm, &Footprint::threads),
                most(warm, notes_.end(), &Footprint::threads));
    std::fflush(stdout);
    EXPECT_LE(after, before + (long_run() ? 8 : 16));
    EXPECT_LE(most(warm, notes_.end(), &Footprint::files), most(notes_.begin(), warm, &Footprint::files) + 2);
    EXPECT_LE(most(warm, notes_.end(), &Footprint::threads), most(notes_.begin(), warm, &Footprint::threads));
  }

 private:
  const char* what_;
  std::vector<Footprint> notes_;
};

class SoakTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the memory of a sanitizer grows";
#endif
  }

  std::uint64_t messages_in(const std::string& stream) {
    nats::StreamInfo info;
    nats::check(js_GetStreamInfo(info.out(), connection_.handles().consume_js, stream.c_str(), nullptr, nullptr),
                stream);
    return info->State.Msgs;
  }

  /// Publishes, not further ahead of the stream's end than a thousand.
  void send(const std::string& subject, std::size_t from, std::size_t to,
            const std::function<std::string(std::size_t)>& payload) {
    std::atomic<std::size_t> stored = from;
    std::atomic<bool> failed = false;
    for (std::size_t i = from; i < to; ++i) {
      while (i - stored > 1'000) std::this_thread::yield();
      connection_.publish_async(subject, payload(i), subject + std::to_string(i), {},
                                [&](const nats::PublishAck* ack, std::string_view, bool) {
                                  if (ack == nullptr) failed = true;
                                  ++stored;
                                });
    }
    while (stored < to) std::this_thread::yield();
    ASSERT_FALSE(failed);
  }

  void await_empty(const std::string& stream) {
    const auto end = std::chrono::steady_clock::now() + 120s;
    while (messages_in(stream) > 0 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(5ms);
    ASSERT_EQ(messages_in(stream), 0u);
  }

  NatsServer server_;
  nats::Connection connection_{{.url = server_.url()}};
  Metrics metrics_;
};

std::string event(std::size_t i) {
  json::Writer out;
  out.begin_object();
  out.field("workflow_id", "job-" + std::to_string(i));
  out.field("text", std::string(100 + i % 400, 'x'));
  out.end_object();
  return out.take();
}

struct Event {
  std::string workflow_id;
  std::string text;
};

Event read_event(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"workflow_id"}, {"text"}};
  Event out;
  for (json::Object fields(in, kFields); fields.next();) {
    (fields.index() == 0 ? out.workflow_id : out.text) = in.string();
  }
  return out;
}

TEST_F(SoakTest, EventsThroughAStageLeaveNothingBehind) {
  const std::size_t events = long_run() ? 1'000'000 : 150'000, share = events / 20;
  Stage stage;
  stage.pipeline = "soak";
  stage.name = "work";
  stage.section = "work_service";
  stage.topology.streams = {
      {.name = "IN", .subjects = {"in"}, .retention = Retention::kWorkQueue, .storage = Storage::kMemory},
      {.name = "OUT",
       .subjects = {"out"},
       .storage = Storage::kMemory,
       .discard = Discard::kOld,
       .max_messages = 1'000},
      {.name = "SOAK_DLQ", .subjects = {"dlq.soak.>"}}};
  stage.stream = "IN";
  stage.durable = "work-workers";
  stage.filter_subject = "in";
  stage.event = "Event";
  stage.concurrency = 2;
  stage.dead_letter_stream = "SOAK_DLQ";
  stage.dead_letter_subject = "dlq.soak.work";
  stage.backoff = {10ms};
  std::atomic<std::size_t> handled = 0, tried_again = 0;
  stage.handle = [&](std::string_view payload, Context& context, Outbox& outbox) {
    const Event event = json::parse(payload, read_event);
    context.set_workflow(event.workflow_id);
    // Some are handled in another way: logged about, or tried again.
    const MessageInfo& message = context.message();
    if (message.sequence % 10'000 == 5'000 && message.deliveries == 1) throw TransientError("not now");
    if (message.deliveries > 1) ++tried_again;
    if (++handled % 10'000 == 0) context.log().info("still here");
    outbox.publish({.event = "Output", .subject = "out", .payload = std::string(payload)});
  };
  nats::ensure(connection_, stage.topology);
  worker::Worker worker(connection_, stage, Settings(), metrics_);
  worker.start();
  Soak soak("a stage");
  const auto began = std::chrono::steady_clock::now();
  for (std::size_t sent = 0; sent < events; sent += share) {
    send("in", sent, sent + share, event);
    await_empty("IN");
    soak.note();
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("figure: a soak of a stage: %.0f events/s\n", static_cast<double>(events) / took.count());
  soak.check(events);
  EXPECT_EQ(handled, events);
  EXPECT_GE(tried_again, events / 10'000);
  EXPECT_EQ(messages_in("SOAK_DLQ"), 0u);
  EXPECT_TRUE(worker.stop());
}

TEST_F(SoakTest, RequestsThroughTheIngestionApiLeaveNothingBehind) {
  const std::size_t events = long_run() ? 1'000'000 : 100'000, share = events / 20, lines = 500;
  const int clients = 8;
  IngestApi api;
  api.pipeline = "soak";
  api.section = "ingest_api";
  api.port = 0;
  api.entity_stream = "IN";
  api.topology.add_stream({.name = "IN", .subjects = {"in"}, .storage = Storage::kMemory});
  api.add_entity({.name = "Event", .path = "event", .subject = "in", .check = [](std::string_view body) {
                    json::parse(body, read_event);
                  }});
  nats::ensure(connection_, api.topology);
  http::IngestServer server(api, Settings(), metrics_);
  server.start();
  server.attach(connection_);
  Soak soak("the ingestion API");
  std::atomic<std::size_t> accepted = 0;
  const auto began = std::chrono::steady_clock::now();
  for (std::size_t sent = 0; sent < events; sent += share) {
    // New connections each time; a tenth of the events in requests of their own, the rest in batches.
    std::vector<std::unique_ptr<httplib::Client>> connections;
    std::vector<std::jthread> threads;
    for (int i = 0; i < clients; ++i) {
      auto& http = *connections.emplace_back(std::make_unique<httplib::Client>("127.0.0.1", server.port()));
      http.set_keep_alive(true);
      http.set_tcp_nodelay(true);
      http.set_read_timeout(60s);
      threads.emplace_back([&, i, mine = share / clients] {
        const std::size_t alone = mine / 10;
        for (std::size_t n = 0; n < alone; ++n) {
          const auto answer = http.Post("/ingest/event", event(sent + n), "application/json");
          if (answer && answer->status == 202) ++accepted;
        }
        for (std::size_t n = alone; n < mine;) {
          std::string body;
          const std::size_t count = std::min(lines, mine - n);
          for (std::size_t line = 0; line < count; ++line) body += event(sent + n++) + "\n";
          const auto answer = http.Post("/ingest/batch?entity=Event", body, "application/x-ndjson");
          if (answer && answer->status == 202) accepted += count;
        }
        // A request that is refused, and one for nothing.
        if (i == 0) {
          http.Post("/ingest/event", "{", "application/json");
          http.Get("/nothing");
        }
      });
    }
    threads.clear();  // joins them
    soak.note();
    ASSERT_EQ(js_PurgeStream(connection_.handles().consume_js, "IN", nullptr, nullptr), NATS_OK);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::printf("figure: a soak of the ingestion API: %.0f events/s\n", static_cast<double>(events) / took.count());
  soak.check(events);
  EXPECT_EQ(accepted, events);
}

class EntitySoakTest : public SoakTest, public ::testing::WithParamInterface<bool> {};

TEST_P(EntitySoakTest, RowsLeaveNothingBehind) {
  const bool postgresql = GetParam();
  const std::size_t events = long_run() ? 1'000'000 : 100'000, share = events / 20;
  testing::TempFolder folder;
  std::unique_ptr<testing::PostgresServer> postgres;
  if (postgresql) postgres = std::make_unique<testing::PostgresServer>();
  const std::string url = postgresql ? postgres->url() : "sqlite:" + (folder.path() / "soak.db").string();
  const Settings settings = Settings::from("[database]\nurl = \"" + url + "\"", "soak", {});
  EntityWorkerSpec spec;
  spec.pipeline = "soak";
  spec.name = "entities";
  spec.section = "worker";
  spec.topology.add_stream(
      {.name = "IN", .subjects = {"in"}, .retention = Retention::kWorkQueue, .storage = Storage::kMemory});
  spec.topology.add_stream({.name = "SOAK_DLQ", .subjects = {"dlq.>"}});
  spec.stream = "IN";
  spec.dead_letter_stream = "SOAK_DLQ";
  spec.dead_letter_subject = "dlq.soak";
  spec.schema.pipeline = "soak";
  spec.schema.add_table({.name = "events", .columns = {{.name = "workflow_id"}, {.name = "text"}}, .key = {0}});
  spec.add_entity({.name = "Event",
                   .subject = "in",
                   .durable = "events",
                   .add_rows = [](std::string_view payload, sql::Batch& batch) {
                     const Event event = json::parse(payload, read_event);
                     sql::Row row = batch.add_row(0);
                     row.add(event.workflow_id);
                     row.add(event.text);
                   }});
  nats::ensure(connection_, spec.topology);
  const auto database = (postgresql ? sql::open_postgresql : sql::open_sqlite)(settings, spec.schema);
  database->migrate();
  entities::EntityWorker worker(connection_, spec, settings, *database, metrics_);
  worker.start();
  Soak soak(postgresql ? "rows of PostgreSQL" : "rows of SQLite");
  for (std::size_t sent = 0; sent < events; sent += share) {
    send("in", sent, sent + share, [&](std::size_t i) { return event(i % 200'000); });  // new rows, then newer ones
    await_empty("IN");
    soak.note();
  }
  soak.check(events);
  EXPECT_EQ(messages_in("SOAK_DLQ"), 0u);
  EXPECT_TRUE(worker.stop());
}
INSTANTIATE_TEST_SUITE_P(Databases, EntitySoakTest, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "PostgreSQL" : "SQLite"; });

}  // namespace
}  // namespace pipegen
