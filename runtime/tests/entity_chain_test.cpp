// From HTTP to a row in PostgreSQL, the API and the entity worker each a process, while every part of the chain goes
// away under load: what was answered with 202 is a row in the end.
#include <gtest/gtest.h>
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/entities.hpp"
#include "pipegen/ingest.hpp"
#include "pipegen/json.hpp"
#include "support/eventually.hpp"
#include "support/nats_server.hpp"
#include "support/postgres_server.hpp"
#include "support/process.hpp"
#include "support/sql_client.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::eventually;
using testing::NatsServer;
using testing::PostgresServer;
using testing::Process;
using testing::SqlClient;
using testing::TempFolder;
using Clock = std::chrono::steady_clock;

/// How long PostgreSQL is away; PIPEGEN_SOAK=1 makes it longer.
constexpr milliseconds kOutage = 5s, kSoakOutage = 30s;

constexpr const char* kJson = "application/json";

// ------------------------------------------------------------------------------------------------ the two services

struct Thing {
  std::string id;
  std::int64_t amount = 0;
};

Thing read_thing(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"amount"}, {"id"}};
  Thing out;
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      out.amount = in.int64();
    } else {
      out.id = in.string({.min_length = 1, .max_length = 64});
    }
  }
  return out;
}

std::string thing(const std::string& id, std::int64_t amount = 1) {
  return R"({"id":")" + id + R"(","amount":)" + std::to_string(amount) + "}";
}

enum Tables : std::size_t { kThings, kOnce };

sql::Schema schema() {
  sql::Schema out;
  out.pipeline = "chain";
  const std::vector<sql::Column> columns = {{.name = "id"}, {.name = "amount", .kind = sql::Kind::kInt64}};
  out.add_table({.name = "things", .columns = columns, .key = {0}});
  // Takes no second row of a key: a message that is in the stream twice becomes a dead letter.
  out.add_table({.name = "once", .columns = columns, .key = {0}, .on_conflict = sql::OnConflict::kReject});
  return out;
}

template <Tables table>
void add_rows(std::string_view payload, sql::Batch& batch) {
  const Thing thing = json::parse(payload, read_thing);
  sql::Row row = batch.add_row(table);
  row.add(thing.id);
  row.add(thing.amount);
}

Topology topology() {
  Topology out;
  out.add_stream({.name = "CHAIN_INGEST",
                  .subjects = {"chain.ingest.>"},
                  .retention = Retention::kWorkQueue,
                  .max_bytes = std::int64_t{1} << 30});
  out.add_stream({.name = "CHAIN_DLQ", .subjects = {"dlq.chain.>"}});
  out.add_key_value({.schema_name = "KEYS", .name = "CHAIN_KEYS", .max_age = 24h});
  return out;
}

IngestApi make_api() {
  IngestApi api;
  api.pipeline = "chain";
  api.section = "ingest_api";
  api.topology = topology();
  api.entity_stream = "CHAIN_INGEST";
  api.idempotency_bucket = "KEYS";
  api.open_status = sql::find_message_in_postgresql;
  api.openapi = "{}";
  const auto check = [](std::string_view body) { json::parse(body, read_thing); };
  api.add_entity({.name = "Thing", .path = "thing", .subject = "chain.ingest.thing", .check = check});
  api.add_entity({.name = "Once", .path = "once", .subject = "chain.ingest.once", .check = check});
  return api;
}

EntityWorkerSpec make_worker() {
  EntityWorkerSpec spec;
  spec.pipeline = "chain";
  spec.name = "entity-worker";
  spec.section = "entity_worker_service";
  spec.topology = topology();
  spec.stream = "CHAIN_INGEST";
  spec.dead_letter_stream = "CHAIN_DLQ";
  spec.dead_letter_subject = "dlq.chain.entity-worker";
  spec.schema = schema();
  spec.open_database = sql::open_postgresql;
  spec.add_entity(
      {.name = "Thing", .subject = "chain.ingest.thing", .durable = "things", .add_rows = add_rows<kThings>});
  spec.add_entity({.name = "Once", .subject = "chain.ingest.once", .durable = "onces", .add_rows = add_rows<kOnce>});
  return spec;
}

/// A member that is a text.
std::string member(const std::string& body, const std::string& name) {
  const std::string start = "\"" + name + "\":\"";
  const std::size_t at = body.find(start);
  if (at == std::string::npos) return "";
  return body.substr(at + start.size(), body.find('"', at + start.size()) - at - start.size());
}

// ------------------------------------------------------------------------------------------------ the load

/// Clients that post things, each with an id of its own, until they are told to finish.
class Load {
 public:
  enum class Repeat {
    kNever,     // a request that is not answered with 202 is given up
    kUntilDone  // with the same Idempotency-Key, until it is; for kPatience at most
  };

  Load(int port, Repeat repeat) {
    for (int i = 0; i < kClients; ++i) {
      clients_.emplace_back([this, i, port, repeat] { run(i, port, repeat); });
    }
  }

  /// No new things; returns when the clients are done.
  void finish() {
    finishing_ = true;
    for (auto& client : clients_) {
      if (client.joinable()) client.join();
    }
  }
  ~Load() { finish(); }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  std::size_t accepted() const { return accepted_; }
  std::size_t unanswered() const { return unanswered_; }
  std::size_t given_up() const { return given_up_; }

  // After finish().
  /// By table: the id of each thing that was accepted, and of its message.
  const std::map<std::string, std::map<std::string, std::string>>& things() const { return things_; }
  /// Answers that neither the load nor an outage explains.
  const std::map<int, std::string>& odd() const { return odd_; }

 private:
  static constexpr int kClients = 8;
  static constexpr milliseconds kPatience = 30s;

  void run(int client, int port, Repeat repeat) {
    httplib::Client http("127.0.0.1", port);
    http.set_keep_alive(true);
    http.set_tcp_nodelay(true);
    http.set_read_timeout(60s);
    for (int i = 0; !finishing_; ++i) {
      const std::string id = std::to_string(client) + "-" + std::to_string(i);
      const std::string table = i % 2 == 0 ? "things" : "once";
      const auto give_up = Clock::now() + kPatience;
      bool done = post(http, table, id, repeat);
      while (!done && repeat == Repeat::kUntilDone && Clock::now() < give_up) {
        std::this_thread::sleep_for(20ms);
        done = post(http, table, id, repeat);
      }
      if (!done) ++given_up_;
      std::this_thread::sleep_for(2ms);  // the machine has more to do than this
    }
  }

  bool post(httplib::Client& http, const std::string& table, const std::string& id, Repeat repeat) {
    httplib::Headers headers;
    if (repeat == Repeat::kUntilDone) headers.emplace("Idempotency-Key", "\"key-" + id + "\"");
    const auto answer = http.Post(table == "things" ? "/ingest/thing" : "/ingest/once", headers, thing(id), kJson);
    if (!answer) {
      ++unanswered_;
      return false;
    }
    if (answer->status != 202) {
      // The chain is broken somewhere; or whoever began with this key has died.
      const bool expected = answer->status == 503 || (repeat == Repeat::kUntilDone && answer->status == 409);
      const std::lock_guard lock(mutex_);
      if (!expected) odd_[answer->status] = answer->body;
      return false;
    }
    ++accepted_;
    const std::lock_guard lock(mutex_);
    things_[table][id] = member(answer->body, "message_id");
    return true;
  }

  std::atomic<bool> finishing_ = false;
  std::atomic<std::size_t> accepted_ = 0, unanswered_ = 0, given_up_ = 0;
  std::mutex mutex_;
  std::map<std::string, std::map<std::string, std::string>> things_;
  std::map<int, std::string> odd_;
  std::vector<std::thread> clients_;
};

// ------------------------------------------------------------------------------------------------ the chain

class EntityChain : public ::testing::Test {
 protected:
  EntityChain() { nats::ensure(connection_, topology()); }
  ~EntityChain() override {
    if (!HasFailure()) return;
    for (const Process* process : {api_.get(), worker_.get()}) {
      const std::string log = process == nullptr ? "" : process->log();
      std::cout << log.substr(log.size() - std::min<std::size_t>(log.size(), 8'000)) << std::endl;
    }
  }

  std::unique_ptr<Process> start(const std::string& service, std::vector<std::string> more) {
    more.insert(more.end(), {"NATS_URL=" + nats_.url(), "DATABASE_URL=" + postgres_.url()});
    more.push_back("ENTITY_CHAIN_SERVICE=" + service);
    return std::make_unique<Process>(std::vector<std::string>{}, std::move(more));
  }
  /// On a free port the first time, on the same one later.
  void start_api() {
    api_ = start("api", {"INGEST_API_PORT=" + std::to_string(api_port_)});
    api_port_ = api_->logged("api_port");
    ASSERT_NE(api_port_, 0) << api_->log();
    ASSERT_TRUE(eventually([&] { return status_of(api_port_, "/ready") == 200; })) << api_->log();
  }
  void start_worker() {
    worker_ = start("worker", {"ENTITY_WORKER_SERVICE_ACK_WAIT=2s"});
    worker_port_ = worker_->logged("admin_port");
    ASSERT_NE(worker_port_, 0) << worker_->log();
  }

  static httplib::Result get(int port, const std::string& path) {
    httplib::Client http("127.0.0.1", port);
    http.set_read_timeout(20s);
    return http.Get(path);
  }
  /// 0: no answer.
  static int status_of(int port, const std::string& path) {
    const auto answer = get(port, path);
    return answer ? answer->status : 0;
  }
  bool worker_is_ready() const { return status_of(worker_port_, "/ready") == 200; }

  SqlClient sql() const { return SqlClient(postgres_.url()); }
  std::int64_t count(const std::string& from) const { return std::stoll(sql().value("SELECT count(*) FROM " + from)); }

  struct StreamState {
    std::int64_t messages = -1;       // now
    std::int64_t last_sequence = -1;  // as many were ever stored
  };
  /// -1 while there is no answer.
  StreamState stream(const std::string& name) {
    nats::StreamInfo info;
    if (js_GetStreamInfo(info.out(), connection_.handles().consume_js, name.c_str(), nullptr, nullptr) != NATS_OK) {
      return {};
    }
    return {static_cast<std::int64_t>(info->State.Msgs), static_cast<std::int64_t>(info->State.LastSeq)};
  }

  /// Whether the database comes to know the end of every message that ever was in the stream. It is not that the stream
  /// becomes empty, nor that its consumers have nothing pending: a nats-server that is killed may have kept an ack and
  /// not the removal of its message, or the other way round, and such a message it neither delivers nor removes.
  bool all_written() {
    return eventually([&] {
      const std::int64_t stored = stream("CHAIN_INGEST").last_sequence;
      return stored >= 0 && count("message_status WHERE status IN ('completed', 'dead_lettered')") >= stored;
    });
  }

  /// Each thing of the load that was accepted has one row, and its message has the one that says so; no thing and no
  /// message is there twice, and none is a dead letter.
  void expect_a_row_for_each(const Load& load) {
    std::size_t missing = 0, without_status = 0;
    std::set<std::string> completed;
    for (auto& row : sql().rows("SELECT message_id FROM message_status WHERE status = 'completed'")) {
      completed.insert(row[0]);
    }
    std::size_t rows_in_all = 0;
    for (const auto& [table, things] : load.things()) {
      std::multiset<std::string> ids;
      for (auto& row : sql().rows("SELECT id FROM " + table)) ids.insert(row[0]);
      rows_in_all += ids.size();
      for (const auto& [id, message_id] : things) {
        if (ids.count(id) != 1) ++missing;
        if (!completed.contains(message_id)) ++without_status;
      }
    }
    EXPECT_EQ(missing, 0u) << "of " << load.accepted() << " that were answered with 202";
    EXPECT_EQ(without_status, 0u);
    EXPECT_EQ(completed.size(), rows_in_all);
    EXPECT_EQ(count("message_status WHERE status <> 'completed'"), 0);
    EXPECT_EQ(stream("CHAIN_DLQ").messages, 0);
    EXPECT_TRUE(load.odd().empty()) << load.odd().begin()->first << ": " << load.odd().begin()->second;
  }

  NatsServer nats_;
  PostgresServer postgres_;
  nats::Connection connection_{{.url = nats_.url()}};
  int api_port_ = 0, worker_port_ = 0;
  std::unique_ptr<Process> api_, worker_;
};

TEST_F(EntityChain, WhatWasAcceptedIsARowAlsoWhenPostgreSqlAndNatsGoAwayUnderLoad) {
  const char* soak = std::getenv("PIPEGEN_SOAK");
  const milliseconds outage = soak != nullptr && std::string(soak) == "1" ? kSoakOutage : kOutage;
  start_api();
  start_worker();
  ASSERT_TRUE(eventually([&] { return worker_is_ready(); })) << worker_->log();
  Load load(api_port_, Load::Repeat::kNever);
  const auto more_rows = [&](std::int64_t more) {
    const std::int64_t before = count("things");
    return eventually([&] { return count("things") > before + more; });
  };
  const auto more_accepted = [&](std::size_t more) {
    const std::size_t before = load.accepted();
    return eventually([&] { return load.accepted() > before + more; });
  };
  ASSERT_TRUE(more_rows(300));

  // PostgreSQL is away for a while. What comes meanwhile is accepted, and waits.
  postgres_.stop();
  const auto stopped = Clock::now();
  std::string reason;
  ASSERT_TRUE(eventually([&] {
    const auto answer = get(worker_port_, "/ready");
    if (answer && answer->status == 503) reason = member(answer->body, "detail");
    return !reason.empty();
  })) << worker_->log();
  EXPECT_NE(reason.find("PostgreSQL"), std::string::npos) << reason;
  EXPECT_TRUE(more_accepted(300));
  std::this_thread::sleep_until(stopped + outage);
  EXPECT_FALSE(worker_is_ready());
  postgres_.start();
  EXPECT_TRUE(eventually([&] { return worker_is_ready(); })) << worker_->log();
  EXPECT_TRUE(more_rows(300));

  // It is restarted.
  postgres_.stop();
  postgres_.start();
  EXPECT_TRUE(more_rows(300));

  for (int i = 0; i < 2; ++i) {
    nats_.kill(SIGKILL);
    ASSERT_TRUE(eventually([&] { return status_of(api_port_, "/ready") == 503; }));
    ASSERT_TRUE(eventually([&] { return !worker_is_ready(); }));
    nats_.start();
    EXPECT_TRUE(more_accepted(300));
    EXPECT_TRUE(more_rows(300));
  }

  load.finish();
  EXPECT_TRUE(all_written()) << count("message_status") << " of " << stream("CHAIN_INGEST").last_sequence
                             << " are known";
  expect_a_row_for_each(load);
  EXPECT_TRUE(eventually([&] { return worker_is_ready(); }));
  EXPECT_EQ(worker_->end(SIGTERM), 0);
  EXPECT_EQ(api_->end(SIGTERM), 0);
}

TEST_F(EntityChain, ARequestRepeatedWithItsKeyIsOneRowAlsoWhenTheApiIsKilled) {
  start_api();
  start_worker();
  Load load(api_port_, Load::Repeat::kUntilDone);
  for (int i = 0; i < 3; ++i) {
    const std::size_t before = load.accepted();
    ASSERT_TRUE(eventually([&] { return load.accepted() > before + 300; })) << api_->log();
    api_->end(SIGKILL);
    start_api();
  }
  // A request that was in hand at the last kill, too.
  const std::size_t before = load.accepted();
  ASSERT_TRUE(eventually([&] { return load.accepted() > before + 300; })) << api_->log();
  load.finish();
  EXPECT_EQ(load.given_up(), 0u);
  EXPECT_GT(load.unanswered(), 0u) << "no request was in hand when the API was killed";

  EXPECT_TRUE(all_written()) << count("message_status") << " of " << stream("CHAIN_INGEST").last_sequence
                             << " are known";
  EXPECT_TRUE(eventually([&] { return stream("CHAIN_INGEST").messages == 0; }));
  expect_a_row_for_each(load);
  // Not one message more than things.
  const auto things = static_cast<std::int64_t>(load.accepted());
  EXPECT_EQ(count("things") + count("once"), things);
  EXPECT_EQ(count("message_status"), things);
  EXPECT_EQ(stream("CHAIN_INGEST").last_sequence, things);
}

TEST_F(EntityChain, TheStatusOfAMessageIsToldOverHttp) {
  start_api();
  httplib::Client http("127.0.0.1", api_port_);
  const auto post = [&](const std::string& body) {
    const auto answer = http.Post("/ingest/thing", body, kJson);
    return answer && answer->status == 202 ? member(answer->body, "message_id") : "";
  };
  const auto status = [&](const std::string& id) {
    const auto answer = http.Get("/ingest/status/" + id);
    return answer && answer->status == 200 ? member(answer->body, "status") : "";
  };
  const std::string first = post(thing("first"));
  ASSERT_NE(first, "");
  EXPECT_EQ(status(first), "accepted");
  start_worker();
  ASSERT_TRUE(eventually([&] { return status(first) == "completed"; })) << status(first) << worker_->log();

  // In hand, while somebody else has locked its table.
  const std::string lock = "BEGIN; LOCK TABLE things; SELECT pg_sleep(600)";
  std::thread locker([&] { EXPECT_THROW(sql().rows(lock), std::runtime_error); });
  const auto end_lock = [&] {
    sql().rows("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = '" + lock + "'");
    locker.join();
  };
  const bool locked = eventually([&] {
    return count("pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'things'::regclass") > 0;
  });
  const std::string second = post(thing("second"));
  EXPECT_TRUE(locked && eventually([&] { return status(second) == "processing"; })) << status(second);
  end_lock();
  EXPECT_TRUE(eventually([&] { return status(second) == "completed"; })) << status(second);

  // JSON may hold what no text of PostgreSQL does.
  const std::string bad = post(thing("nul\\u0000"));
  ASSERT_NE(bad, "");
  EXPECT_TRUE(eventually([&] { return status(bad) == "dead_lettered"; })) << status(bad);
  const auto answer = http.Get("/ingest/status/" + bad);
  ASSERT_TRUE(answer);
  EXPECT_NE(member(answer->body, "error"), "") << answer->body;
  EXPECT_EQ(member(answer->body, "entity_type"), "Thing");
  EXPECT_EQ(stream("CHAIN_DLQ").messages, 1);
  EXPECT_EQ(status("01890a5d-ac96-774b-bcce-b302099a8057"), "") << "nobody has sent this one";
  EXPECT_EQ(count("things"), 2);
}

}  // namespace

int entity_chain_service(const std::string& service, int argc, char** argv) {
  if (service == "api") return run_ingest_api(argc, argv, "ingest-api", [](const Settings&) { return make_api(); });
  return run_entity_worker(argc, argv, "entity-worker", [](const Settings&) { return make_worker(); });
}

}  // namespace pipegen

int main(int argc, char** argv) {
  if (const char* service = std::getenv("ENTITY_CHAIN_SERVICE")) {
    return pipegen::entity_chain_service(service, argc, argv);
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
