// The entity worker against a real nats-server, a real SQLite and a real PostgreSQL, with processes that die.
#include "entities/entity_worker.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/json.hpp"
#include "programs/dead_letter_box.hpp"
#include "sql/database.hpp"
#include "support/eventually.hpp"
#include "support/nats_server.hpp"
#include "support/postgres_server.hpp"
#include "support/process.hpp"
#include "support/sql_client.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using entities::EntityWorker;
using entities::EntityWorkerOptions;
using std::chrono::milliseconds;
using testing::eventually;
using testing::NatsServer;
using testing::PostgresServer;
using testing::SqlClient;
using testing::TempFolder;
using Clock = std::chrono::steady_clock;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kShare = 5;  // of the messages and of the kills: everything takes longer
#else
constexpr int kShare = 1;
#endif

// ------------------------------------------------------------------------------------------------ what is written

/// {"id":"a","amount":3,"group":"g","parts":["x"]}
struct Thing {
  std::string id;
  std::int64_t amount = 0;
  std::optional<std::string> group;
  std::vector<std::string> parts;
};

Thing read_thing(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"amount"}, {"group", json::kOptional}, {"id"}, {"parts", json::kOptional}};
  Thing out;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.amount = in.int64();
        break;
      case 1:
        out.group = in.string();
        break;
      case 2:
        out.id = in.string({.min_length = 1, .max_length = 64});
        break;
      case 3:
        out.parts = in.list<std::string>([](json::Reader& item) { return item.string(); });
        break;
    }
  }
  return out;
}

enum Tables : std::size_t { kGroups, kThings, kParts, kOnce };

sql::Schema schema() {
  using sql::Kind;
  sql::Schema out;
  out.pipeline = "shop";
  out.add_table({.name = "groups", .columns = {{.name = "name"}}, .key = {0}});
  out.add_table(
      {.name = "things",
       .columns = {{.name = "id"}, {.name = "amount", .kind = Kind::kInt64}, {.name = "group", .nullable = true}},
       .key = {0},
       .foreign_keys = {{.columns = {2}, .table = "groups", .referenced = {"name"}}}});
  out.add_table({.name = "parts",
                 .columns = {{.name = "id"}, {.name = "name"}},
                 .key = {0, 1},
                 .parent = kThings,
                 .parent_key = {0}});
  out.add_table({.name = "once",
                 .columns = {{.name = "id"}, {.name = "amount", .kind = Kind::kInt64}},
                 .key = {0},
                 .on_conflict = sql::OnConflict::kReject});
  return out;
}

void add_thing(std::string_view payload, sql::Batch& batch) {
  const Thing thing = json::parse(payload, read_thing);
  // What a transform of somebody's may do.
  if (thing.id == "crash") std::abort();
  if (thing.id == "throw") throw std::runtime_error("no transform for this one");
  sql::Row row = batch.add_row(kThings);
  row.add(thing.id);
  row.add(thing.amount);
  row.add(thing.group);
  for (const std::string& part : thing.parts) {
    sql::Row part_row = batch.add_row(kParts);
    part_row.add(thing.id);
    part_row.add(part);
  }
}

void add_group(std::string_view payload, sql::Batch& batch) {
  batch.add_row(kGroups).add(json::parse(payload, [](json::Reader& in) { return in.string(); }));
}

void add_once(std::string_view payload, sql::Batch& batch) {
  const Thing thing = json::parse(payload, read_thing);
  sql::Row row = batch.add_row(kOnce);
  row.add(thing.id);
  row.add(thing.amount);
}

Topology topology() {
  Topology out;
  out.add_stream({.name = "SHOP_INGEST", .subjects = {"shop.ingest.>"}, .retention = Retention::kWorkQueue});
  out.add_stream({.name = "SHOP_DLQ", .subjects = {"dlq.shop.>"}});
  return out;
}

EntityWorkerSpec make_spec(bool postgresql) {
  EntityWorkerSpec spec;
  spec.pipeline = "shop";
  spec.name = "entity-worker";
  spec.section = "entity_worker_service";
  spec.topology = topology();
  spec.stream = "SHOP_INGEST";
  spec.dead_letter_stream = "SHOP_DLQ";
  spec.dead_letter_subject = "dlq.shop.entity-worker";
  spec.schema = schema();
  spec.open_database = postgresql ? sql::open_postgresql : sql::open_sqlite;
  spec.add_entity({.name = "Group", .subject = "shop.ingest.group", .durable = "group-writers", .add_rows = add_group});
  spec.add_entity({.name = "Once", .subject = "shop.ingest.once", .durable = "once-writers", .add_rows = add_once});
  spec.add_entity({.name = "Thing", .subject = "shop.ingest.thing", .durable = "thing-writers", .add_rows = add_thing});
  return spec;
}

std::string thing(const std::string& id, std::int64_t amount = 1, const std::string& more = "") {
  return "{\"id\":\"" + id + "\",\"amount\":" + std::to_string(amount) + more + "}";
}

EntityWorkerOptions quick() {
  EntityWorkerOptions options;
  options.ack_wait = 5s;
  options.hold_first = 50ms;
  options.hold_most = 200ms;
  options.backoff = {50ms};
  options.check_every = 200ms;
  options.consumer.expires = 1s;
  options.consumer.heartbeat = 300ms;
  return options;
}

// ------------------------------------------------------------------------------------------------ the servers

class EntityWorkers : public ::testing::TestWithParam<bool> {
 protected:
  EntityWorkers() {
    if (GetParam()) postgres_ = std::make_unique<PostgresServer>();
    url_ = postgres_ ? postgres_->url() : "sqlite:" + (folder_.path() / "shop.db").string();
    settings_ = settings();
    nats::ensure(connection_, topology());
    database_ = make_spec(GetParam()).open_database(settings_, schema_);
    database_->migrate();
  }

  Settings settings(const std::string& more = "") const {
    return Settings::from("[database]\nurl = \"" + url_ + "\"\n[entity_worker_service]\n" + more, "project.toml", {});
  }

  std::unique_ptr<EntityWorker> worker(EntityWorkerOptions options = quick(), const std::string& more = "") {
    auto made = std::make_unique<EntityWorker>(connection_, make_spec(GetParam()), settings(more), *database_, metrics_,
                                               std::move(options));
    made->start();
    return made;
  }

  nats::PublishAck publish(const std::string& entity, const std::string& payload, const std::string& id,
                           const nats::Headers& headers = {}) {
    return connection_.publish("shop.ingest." + entity, payload, id, headers);
  }

  /// Publishes many without waiting for each.
  void publish_all(const std::vector<std::string>& payloads, const std::string& prefix = "m") {
    std::atomic<std::size_t> stored = 0, failed = 0;
    for (std::size_t i = 0; i < payloads.size(); ++i) {
      while (i - stored - failed > 5'000) std::this_thread::yield();
      connection_.publish_async(
          "shop.ingest.thing", payloads[i], prefix + std::to_string(i), {},
          [&](const nats::PublishAck* ack, std::string_view, bool) { ack != nullptr ? ++stored : ++failed; });
    }
    ASSERT_TRUE(eventually([&] { return stored + failed == payloads.size(); }));
    ASSERT_EQ(failed, 0u);
  }

  std::int64_t left(const std::string& stream = "SHOP_INGEST") {
    nats::StreamInfo info;
    jsErrCode code{};
    nats::check(js_GetStreamInfo(info.out(), connection_.handles().consume_js, stream.c_str(), nullptr, &code),
                "stream");
    return static_cast<std::int64_t>(info->State.Msgs);
  }

  /// Takes a message of a durable consumer that has workers no more, and hands it back, so often.
  void deliver(const std::string& durable, int times) {
    nats::Subscription subscription;
    jsSubOptions bind;
    jsSubOptions_Init(&bind);
    bind.Stream = "SHOP_INGEST";
    nats::check(js_PullSubscribe(subscription.out(), connection_.handles().consume_js, "shop.ingest.thing",
                                 durable.c_str(), nullptr, &bind, nullptr),
                "subscribe");
    for (int i = 0; i < times; ++i) {
      natsMsgList list{};
      nats::check(natsSubscription_Fetch(&list, subscription.get(), 1, 5'000, nullptr), "fetch");
      nats::check(natsMsg_Nak(list.Msgs[0], nullptr), "nak");
      natsMsgList_Destroy(&list);
    }
  }

  SqlClient sql() const { return SqlClient(url_); }
  std::int64_t count(const std::string& table) const {
    return std::stoll(sql().value("SELECT count(*) FROM \"" + table + "\""));
  }

  TempFolder folder_;
  NatsServer server_;
  std::unique_ptr<PostgresServer> postgres_;
  std::string url_;
  Settings settings_;
  nats::Connection connection_{{.url = server_.url()}};
  Metrics metrics_;
  const sql::Schema schema_ = schema();
  std::unique_ptr<sql::Database> database_;
};

std::string database_name(const ::testing::TestParamInfo<bool>& info) { return info.param ? "PostgreSQL" : "SQLite"; }
INSTANTIATE_TEST_SUITE_P(Databases, EntityWorkers, ::testing::Bool(), database_name);

// ------------------------------------------------------------------------------------------------ tests

TEST_P(EntityWorkers, WritesRowsWithTheirStatusAndEmptiesTheStream) {
  publish_all([] {
    std::vector<std::string> payloads;
    for (int i = 0; i < 3'000; ++i) payloads.push_back(thing("t" + std::to_string(i), i, ",\"parts\":[\"a\",\"b\"]"));
    return payloads;
  }());
  const auto running = worker();
  ASSERT_TRUE(eventually([&] { return left() == 0; })) << running->readiness().reason;
  EXPECT_EQ(count("things"), 3'000);
  EXPECT_EQ(count("parts"), 6'000);
  EXPECT_EQ(sql().value("SELECT count(*) FROM message_status WHERE status = 'completed' AND entity_type = 'Thing'"),
            "3000");
  EXPECT_EQ(sql().value("SELECT amount FROM things WHERE id = 't2999'"), "2999");
  EXPECT_TRUE(running->readiness().ready);
  EXPECT_TRUE(running->stop());
}

TEST_P(EntityWorkers, OnlyWhatIsBadIsDeadLettered) {
  const std::string deep = std::string(10'000, '[') + std::string(10'000, ']');
  const std::vector<std::string> bad = {"{\"id\":\"x",
                                        "{\"id\":\"\xFF\",\"amount\":1}",
                                        thing("nul\\u0000"),
                                        thing("deep", 1, ",\"more\":" + deep),
                                        "{\"id\":\"n\",\"amount\":99999999999999999999}",
                                        "{\"id\":\"n\",\"amount\":\"1\"}",
                                        "{\"id\":\"n\",\"amount\":1,\"amount\":2}",
                                        "",
                                        thing("twins", 1, ",\"parts\":[\"a\",\"a\"]")};
  std::vector<std::string> payloads;
  for (int i = 0; i < 100'000 / kShare; ++i) {
    payloads.push_back(i % 10 == 3 ? bad[(i / 10) % bad.size()] : thing(std::to_string(i)));
  }
  publish_all(payloads);
  const auto running = worker();
  ASSERT_TRUE(eventually([&] { return left() == 0; }, 120s));
  const auto with_status = [&](const std::string& status) {
    return std::stoll(sql().value("SELECT count(*) FROM message_status WHERE status = " + status));
  };
  EXPECT_EQ(count("things"), 90'000 / kShare);
  EXPECT_EQ(left("SHOP_DLQ"), 10'000 / kShare);
  EXPECT_EQ(with_status("'completed'"), 90'000 / kShare);
  EXPECT_EQ(with_status("'dead_lettered' AND error <> ''"), 10'000 / kShare);
  DeadLetterBox box(connection_, "SHOP_DLQ");
  std::set<std::string> classes;
  box.each({}, [&](const DeadLetter& letter) { return classes.insert(letter.header("Pipegen-Error-Class")), true; });
  EXPECT_TRUE(classes.contains("Invalid"));
  EXPECT_EQ(classes.size(), 3u - (postgres_ ? 0 : 1)) << "a class for what is no JSON, one for NUL, one for twins";
}

/// Whoever publishes chooses the ids. Those that no database takes have their hash in the table.
TEST_P(EntityWorkers, AMessageOfAnyIdIsWrittenOrDeadLetteredAndStopsNobody) {
  std::string noise(4'000, ' ');  // PostgreSQL would compress less
  std::mt19937 random(7);
  for (char& c : noise) c = static_cast<char>('!' + random() % 90);
  const auto running = worker(quick(), "max_deliver = 2\n");
  const std::vector<std::string> ids = {"\xff\xfe", noise,
                                        "Gr\xc3\xbc\xc3\x9f"
                                        "e"};
  for (const std::string& id : ids) {
    const auto send = [&](const std::string& payload, const std::string& more) {
      publish("thing", payload, "", {{"Pipegen-Message-Id", more + id}});
    };
    send(thing("good" + std::to_string(id.size())), "a");
    send("{", "b");
    send(thing("orphan", 1, ",\"group\":\"never\""), "c");
  }
  ASSERT_TRUE(eventually([&] { return left() == 0; })) << running->readiness().reason;
  EXPECT_EQ(count("things"), 3);
  EXPECT_EQ(left("SHOP_DLQ"), 6);
  const auto rows = [&](const std::string& where) {
    return sql().value("SELECT count(*) FROM message_status WHERE " + where);
  };
  EXPECT_EQ(rows("status = 'completed'"), "3");
  EXPECT_EQ(rows("status = 'dead_lettered'"), "6");
  EXPECT_EQ(rows("message_id LIKE 'sha256:%'"), "6");
  EXPECT_EQ(rows("message_id LIKE '_Gr\xc3\xbc\xc3\x9f"
                 "e'"),
            "3");
}

TEST_P(EntityWorkers, AStatusThatTheTableDoesNotTakeHoldsNoDeadLetterUp) {
  const char* no_row = GetParam() ? "ALTER TABLE message_status ADD CHECK (message_id <> 'bad')"
                                  : "CREATE TRIGGER no_row BEFORE INSERT ON message_status WHEN NEW.message_id = 'bad' "
                                    "BEGIN SELECT RAISE(ABORT, 'no'); END";
  sql().rows(no_row);
  const auto running = worker();
  publish("thing", "{", "bad");
  publish("thing", thing("good"), "good");
  ASSERT_TRUE(eventually([&] { return left() == 0; })) << running->readiness().reason;
  EXPECT_EQ(left("SHOP_DLQ"), 1);
  EXPECT_EQ(count("things"), 1);
}

TEST_P(EntityWorkers, AnOlderMessageNeverOverwritesANewerRow) {
  const auto running = worker();
  const auto first = publish("thing", thing("a", 1), "one");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  publish("thing", thing("a", 2, ",\"parts\":[\"new\"]"), "two");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  // The first one again, as a replay of it would be.
  const std::string version = sql().value("SELECT pipegen_version FROM things WHERE id = 'a'");
  publish("thing", thing("a", 1, ",\"parts\":[\"old\"]"), "again",
          {{"Pipegen-Message-Id", "one"}, {"Pipegen-Version", std::to_string(std::stoll(version) - 1)}});
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(sql().value("SELECT amount FROM things WHERE id = 'a'"), "2");
  EXPECT_EQ(sql().value("SELECT name FROM parts WHERE id = 'a'"), "new");
  EXPECT_EQ(sql().value("SELECT count(*) FROM message_status"), "2");
  EXPECT_EQ(left("SHOP_DLQ"), 0);
}

TEST_P(EntityWorkers, ASecondRowOfAKeyIsRejectedButNotTheSameMessageAgain) {
  const auto running = worker();
  publish("once", thing("a", 1), "one");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  const std::string version = sql().value("SELECT pipegen_version FROM once");
  publish("once", thing("a", 1), "one again", {{"Pipegen-Message-Id", "one"}, {"Pipegen-Version", version}});
  publish("once", thing("b", 5), "three");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(left("SHOP_DLQ"), 0);
  publish("once", thing("a", 2), "two");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(left("SHOP_DLQ"), 1);
  EXPECT_EQ(sql().value("SELECT amount FROM once WHERE id = 'a'"), "1");
  EXPECT_EQ(sql().value("SELECT status FROM message_status WHERE message_id = 'two'"), "dead_lettered");
}

TEST_P(EntityWorkers, AReferenceToARowThatComesLaterIsTriedAgain) {
  EntityWorkerOptions options = quick();
  options.backoff = {200ms};
  const auto running = worker(options, "max_deliver = 50\n");
  publish("thing", thing("child", 1, ",\"group\":\"late\""), "child");
  ASSERT_TRUE(eventually([&] {
    return sql().value("SELECT count(*) FROM message_status WHERE message_id = 'child' AND status = 'failed'") == "1";
  }));
  publish("group", "\"late\"", "parent");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(count("things"), 1);
  EXPECT_EQ(left("SHOP_DLQ"), 0);
  EXPECT_EQ(sql().value("SELECT status FROM message_status WHERE message_id = 'child'"), "completed");
}

TEST_P(EntityWorkers, WithoutStatusRowsWhatFailedAndSucceededIsNotSaidToHaveFailed) {
  EntityWorkerOptions options = quick();
  options.backoff = {200ms};
  const auto running = worker(options, "max_deliver = 50\nstatus_rows = false\n");
  publish("thing", thing("child", 1, ",\"group\":\"late\""), "child");
  publish("thing", "{", "bad");
  const auto status = [&](const std::string& id) {
    return sql().value("SELECT coalesce(max(status), '') FROM message_status WHERE message_id = '" + id + "'");
  };
  ASSERT_TRUE(eventually([&] { return status("child") == "failed" && status("bad") == "dead_lettered"; }));
  publish("group", "\"late\"", "parent");
  publish("thing", thing("mended"), "again", {{"Pipegen-Message-Id", "bad"}, {"Pipegen-Version", "1"}});
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(status("child"), "completed");
  EXPECT_EQ(status("bad"), "completed");
  EXPECT_EQ(count("things"), 2);
  EXPECT_EQ(count("message_status"), 2) << "one that succeeds at once has no row";
}

TEST_P(EntityWorkers, StatusRowsThatAreTooOldAreRemovedUnlessTheyAreKept) {
  const auto put = [&](const std::string& id, Timestamp time) {
    sql::MessageStatus status;
    status.message_id = id;
    status.state = sql::MessageState::kCompleted;
    status.received_at = status.updated_at = time;
    database_->session()->put_status(status);
  };
  const auto ids = [&] {
    std::string all;
    for (const auto& row : sql().rows("SELECT message_id FROM message_status ORDER BY 1")) all += row.at(0) + " ";
    return all;
  };
  put("a", now() - 31 * 24h);
  put("b", now() - 29 * 24h);
  put("c", now() - 1h);
  // The first time is over when it has stopped, whenever that is.
  EXPECT_TRUE(worker(quick(), "status_max_age = \"0\"\n")->stop());
  EXPECT_EQ(ids(), "a b c ");
  EXPECT_TRUE(worker()->stop());
  EXPECT_EQ(ids(), "b c ");
  EXPECT_TRUE(worker(quick(), "status_max_age = \"7d\"\n")->stop());
  EXPECT_EQ(ids(), "c ");
}

TEST_P(EntityWorkers, OldStatusRowsThatCannotBeRemovedStopNobody) {
  if (GetParam()) {
    sql().rows("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'");
    sql().rows("CREATE TRIGGER no BEFORE DELETE ON message_status EXECUTE FUNCTION no()");
  } else {
    sql().rows("CREATE TRIGGER no BEFORE DELETE ON message_status BEGIN SELECT RAISE(ABORT, 'no'); END");
  }
  sql().rows(
      "INSERT INTO message_status VALUES ('old', 'Thing', 'completed', 1, NULL, '2020-01-01T00:00:00.000000Z', "
      "'2020-01-01T00:00:00.000000Z', NULL)");
  const auto running = worker();
  publish("thing", thing("a"), "a");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(count("things"), 1);
  EXPECT_TRUE(running->readiness().ready);
  EXPECT_TRUE(running->stop());
  EXPECT_EQ(count("message_status"), 2);
}

TEST_P(EntityWorkers, WhatFailsTooOftenIsDeadLettered) {
  const auto running = worker(quick(), "max_deliver = 3\n");
  publish("thing", thing("orphan", 1, ",\"group\":\"never\""), "orphan");
  publish("thing", thing("throw"), "throws");
  publish("thing", thing("good"), "good");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(count("things"), 1);
  EXPECT_EQ(left("SHOP_DLQ"), 2);
  EXPECT_EQ(sql().value("SELECT attempts FROM message_status WHERE message_id = 'orphan'"), "3");
  EXPECT_EQ(sql().value("SELECT attempts FROM message_status WHERE message_id = 'good'"), "1");
  EXPECT_EQ(sql().value("SELECT status FROM message_status WHERE message_id = 'throws'"), "dead_lettered");
}

TEST_P(EntityWorkers, ADeadLetterIsReplayedTwiceAndIsThereOnce) {
  auto running = worker(quick(), "max_deliver = 1\n");
  publish("thing", thing("a", 7, ",\"group\":\"late\",\"parts\":[\"p\"]"), "first");
  ASSERT_TRUE(eventually([&] { return left("SHOP_DLQ") == 1 && left() == 0; }));
  publish("group", "\"late\"", "parent");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  DeadLetterBox box(connection_, "SHOP_DLQ");
  std::optional<DeadLetter> letter;
  box.each({.stage = "entity-worker"}, [&](const DeadLetter& each) {
    letter = each;
    return true;
  });
  ASSERT_TRUE(letter);
  box.replay(*letter);
  box.replay(*letter);  // within the duplicate window: the stream has it once
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(sql().value("SELECT amount FROM things WHERE id = 'a'"), "7");
  // And long after: handled again, with the same result.
  publish("thing", letter->payload, "much later",
          {{"Pipegen-Message-Id", "first"}, {"Pipegen-Version", letter->header("Pipegen-Version")}});
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(count("things"), 1);
  EXPECT_EQ(count("parts"), 1);
  EXPECT_EQ(sql().value("SELECT count(*) FROM message_status WHERE message_id = 'first' AND status = 'completed'"),
            "1");
  EXPECT_TRUE(box.drop(letter->sequence));
  EXPECT_FALSE(box.drop(letter->sequence));
  EXPECT_FALSE(box.find(letter->sequence));
}

TEST_P(EntityWorkers, AReplayedDeadLetterIsTriedAsOftenAsAnyMessage) {
  const std::string more = "max_deliver = 3\n";
  auto running = worker(quick(), more);
  publish("thing", thing("a", 7, ",\"group\":\"late\""), "order");
  ASSERT_TRUE(eventually([&] { return left("SHOP_DLQ") == 1 && left() == 0; }));
  running.reset();
  EntityWorkerOptions options = quick();
  options.backoff = {1s};
  running = worker(options, more);
  DeadLetterBox box(connection_, "SHOP_DLQ");
  box.each({}, [&](const DeadLetter& letter) {
    box.replay(letter);
    return true;
  });
  ASSERT_TRUE(eventually([&] { return sql().value("SELECT status FROM message_status") == "failed"; }));
  publish("group", "\"late\"", "parent");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(count("things"), 1);
  EXPECT_EQ(left("SHOP_DLQ"), 1);
  EXPECT_EQ(sql().value("SELECT status || ' ' || attempts FROM message_status WHERE message_id = 'order'"),
            "completed 2");
}

TEST_P(EntityWorkers, LargeMessagesDoNotFillTheMemory) {
  EntityWorkerOptions options = quick();
  options.most_bytes_in_hand = 2u << 20;
  options.most_bytes_in_batch = 1u << 20;
  options.consumer.max_bytes = 1u << 20;
  std::vector<std::string> payloads;
  const std::string large(200'000, 'x');
  for (int i = 0; i < 100; ++i) payloads.push_back(thing(std::to_string(i), i, ",\"more\":\"" + large + "\""));
  publish_all(payloads);
  double most = 0;  // in hand, of 100
  const auto running = worker(options);
  ASSERT_TRUE(eventually([&] {
    const std::string text = metrics_.render();
    const std::string line = "\npipegen_in_flight{stage=\"entity-worker\"} ";
    if (const auto at = text.find(line); at != std::string::npos)
      most = std::max(most, std::stod(text.substr(at + line.size())));
    return left() == 0;
  }));
  EXPECT_EQ(count("things"), 100);
  EXPECT_LE(most, 20);  // 2 MiB, and the request of 1 MiB that was on its way
}

TEST_P(EntityWorkers, NatsMayGoAndComeBack) {
  const auto running = worker();
  publish("thing", thing("before"), "before");
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  server_.kill();
  ASSERT_TRUE(eventually([&] { return !running->readiness().ready; }));
  server_.start();
  ASSERT_TRUE(eventually([&] { return running->readiness().ready; }));
  publish("thing", thing("after"), "after");
  ASSERT_TRUE(eventually([&] { return count("things") == 2; }));
  EXPECT_EQ(left("SHOP_DLQ"), 0);
}

/// Where there is a server that can go away.
class EntityWorkersOnAServer : public EntityWorkers {};
INSTANTIATE_TEST_SUITE_P(Databases, EntityWorkersOnAServer, ::testing::Values(true), database_name);

TEST_P(EntityWorkersOnAServer, HoldsWhileTheDatabaseIsAway) {
  const auto running = worker();
  std::vector<std::string> payloads;
  for (int i = 0; i < 20'000; ++i) payloads.push_back(thing(std::to_string(i)));
  std::thread publisher([&] { publish_all(payloads); });
  ASSERT_TRUE(eventually([&] { return count("things") > 500; }));
  postgres_->stop();
  publisher.join();
  ASSERT_TRUE(eventually([&] { return !running->readiness().ready; }));
  EXPECT_NE(running->readiness().reason, "");
  postgres_->start();
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(count("things"), 20'000);
  EXPECT_EQ(left("SHOP_DLQ"), 0);
  EXPECT_EQ(sql().value("SELECT count(*) FROM message_status WHERE attempts < 1 OR error IS NOT NULL"), "0");
  ASSERT_TRUE(eventually([&] { return running->readiness().ready; }));
}

TEST_P(EntityWorkersOnAServer, SaysThatTheDatabaseIsAwayAlsoWhenThereIsNothingToWrite) {
  const auto running = worker();
  ASSERT_TRUE(eventually([&] { return running->readiness().ready; }));
  postgres_->stop();
  ASSERT_TRUE(eventually([&] { return !running->readiness().ready; }));
  postgres_->start();
  ASSERT_TRUE(eventually([&] { return running->readiness().ready; }));
}

// ------------------------------------------------------------------------------------------------ processes

/// This program once more, as an entity worker.
class Process : public testing::Process {
 public:
  Process(const NatsServer& server, const std::string& database, bool postgresql)
      : testing::Process({}, {"NATS_URL=" + server.url(), "DATABASE_URL=" + database,
                              std::string("ENTITY_WORKER_MODE=") + (postgresql ? "postgresql" : "sqlite"),
                              "ENTITY_WORKER_SERVICE_MAX_DELIVER=3", "ENTITY_WORKER_SERVICE_ACK_WAIT=1s"}) {}
};

TEST_P(EntityWorkers, KilledAtAnyPointEveryMessageIsARowOnce) {
  constexpr int kMessages = 100'000 / kShare, kKills = 50 / kShare;
  std::vector<std::string> payloads;
  for (int i = 0; i < kMessages; ++i) payloads.push_back(thing(std::to_string(i), i, ",\"parts\":[\"p\"]"));
  std::thread publisher([&] { publish_all(payloads); });
  std::mt19937 random(1);
  for (int i = 0; i < kKills; ++i) {
    const std::int64_t before = count("things");
    Process process(server_, url_, GetParam());
    // While there is something to write: at some point of a fetch, a transaction, between commit and ack.
    eventually([&] { return count("things") > before; }, 10s);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
    process.end(SIGKILL);
  }
  publisher.join();
  Process process(server_, url_, GetParam());
  ASSERT_TRUE(eventually([&] { return left() == 0; }, 180s)) << left() << " are left";
  EXPECT_EQ(count("things"), kMessages);
  EXPECT_EQ(count("parts"), kMessages);
  EXPECT_EQ(sql().value("SELECT sum(amount) FROM things"),
            std::to_string(std::int64_t{kMessages} * (kMessages - 1) / 2));
  EXPECT_EQ(sql().value("SELECT count(*) FROM message_status WHERE status = 'completed'"), std::to_string(kMessages));
  EXPECT_EQ(left("SHOP_DLQ"), 0);
  EXPECT_EQ(process.end(SIGTERM), 0);
}

/// What is written and comes again, as its acks were lost with the process, is not what ends the process.
TEST_P(EntityWorkers, WhatIsARowIsBlamedForNoEndOfTheProcess) {
  const std::string more = "max_deliver = 3\n";
  auto running = worker(quick(), more);
  for (int i = 0; i < 4; ++i) {
    publish("thing", thing("a"), "copy" + std::to_string(i), {{"Pipegen-Message-Id", "m"}});
    ASSERT_TRUE(eventually([&] { return left() == 0; }));
  }
  running.reset();
  publish("thing", thing("a"), "again", {{"Pipegen-Message-Id", "m"}});
  deliver("thing-writers", 9);
  running = worker(quick(), more);
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(left("SHOP_DLQ"), 0);
  EXPECT_EQ(sql().value("SELECT status || ' ' || attempts FROM message_status WHERE message_id = 'm'"), "completed 1");
}

TEST_P(EntityWorkers, ATryOfWhatIsWrittenAloneIsOneTry) {
  const std::string more = "max_deliver = 3\n";
  worker(quick(), more).reset();
  publish("thing", thing("orphan", 1, ",\"group\":\"never\""), "orphan");
  deliver("thing-writers", 9);
  const auto running = worker(quick(), more);
  ASSERT_TRUE(eventually([&] { return left() == 0; }));
  EXPECT_EQ(left("SHOP_DLQ"), 1);
  EXPECT_EQ(sql().value("SELECT status || ' ' || attempts FROM message_status"), "dead_lettered 3");
}

TEST_P(EntityWorkers, AMessageThatEndsTheProcessIsDeadLetteredAlone) {
  std::vector<std::string> payloads;
  for (int i = 0; i < 2'000; ++i) payloads.push_back(thing(i == 700 ? "crash" : std::to_string(i)));
  publish_all(payloads);
  // What runs services starts one again that dies.
  std::unique_ptr<Process> process;
  ASSERT_TRUE(eventually(
      [&] {
        if (!process || process->ended()) process = std::make_unique<Process>(server_, url_, GetParam());
        return left("SHOP_DLQ") >= 1 && left() == 0;
      },
      120s))
      << left() << " are left";
  EXPECT_EQ(left("SHOP_DLQ"), 1);
  EXPECT_EQ(count("things"), 1'999);
  EXPECT_EQ(sql().value("SELECT message_id FROM message_status WHERE status <> 'completed'"), "m700");
  EXPECT_EQ(process->end(SIGTERM), 0);
}

TEST_P(EntityWorkers, StopsCleanlyUnderLoad) {
  std::vector<std::string> payloads;
  for (int i = 0; i < 30'000; ++i) payloads.push_back(thing(std::to_string(i)));
  publish_all(payloads);
  Process process(server_, url_, GetParam());
  ASSERT_TRUE(eventually([&] { return count("things") > 1'000; }));
  const auto began = Clock::now();
  EXPECT_EQ(process.end(SIGTERM), 0);
  EXPECT_LT(Clock::now() - began, 10s);
  const std::string said = process.log();
  for (const char* promise : {R"("message":"consuming")", R"("discard":"new")", R"("replicas":1)", R"("ack_wait":"1s")",
                              R"("duplicate_window":")", "one replica: a lost disk loses messages"}) {
    EXPECT_NE(said.find(promise), std::string::npos) << promise << " is not in " << said;
  }
  // What is a row is acked, what is not is handed back: nothing waits for ack_wait.
  EXPECT_EQ(count("things") + left(), 30'000);
  Process next(server_, url_, GetParam());
  ASSERT_TRUE(eventually([&] { return left() == 0; }, 20s));
  EXPECT_EQ(count("things"), 30'000);
}

}  // namespace

int entity_worker_process(const std::string& mode, int argc, char** argv) {
  return run_entity_worker(argc, argv, "entity-worker",
                           [&](const Settings&) { return make_spec(mode == "postgresql"); });
}

}  // namespace pipegen

int main(int argc, char** argv) {
  if (const char* mode = std::getenv("ENTITY_WORKER_MODE")) return pipegen::entity_worker_process(mode, argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
