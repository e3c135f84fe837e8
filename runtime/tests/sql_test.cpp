// What holds for both databases is tested with both.
#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <thread>

#include "pipegen/error.hpp"
#include "pipegen/message_status.hpp"
#include "sql/database.hpp"
#include "sql/migrations.hpp"
#include "support/postgres_server.hpp"

namespace pipegen::sql {
namespace {

using namespace std::chrono_literals;
using testing::PostgresServer;
using testing::TempFolder;
using Clock = std::chrono::steady_clock;
using Lines = std::vector<std::string>;

/// A database as a person at its shell sees it.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::unique_ptr<Database> open(const Schema& schema) = 0;
  virtual FindMessage find_message() = 0;
  /// The rows that the statement gives, with '|' between their values.
  virtual Lines query(const std::string& sql) = 0;
};

Settings settings_for(const std::string& url, const std::string& more = "") {
  return Settings::from("[database]\nurl = '" + url + "'\n" + more, "project.toml", {});
}

class Sqlite final : public Backend {
 public:
  explicit Sqlite(std::string more = "lock_timeout = '10s'\n") : more_(std::move(more)) {}

  std::string file() const { return (folder_.path() / "test.db").string(); }
  Settings settings() const { return settings_for("sqlite:" + file(), more_); }
  std::unique_ptr<Database> open(const Schema& schema) override { return open_sqlite(settings(), schema); }
  FindMessage find_message() override { return find_message_in_sqlite(settings()); }

  Lines query(const std::string& sql) override {
    sqlite3* connection = nullptr;
    sqlite3_open(file().c_str(), &connection);
    Lines lines;
    char* error = nullptr;
    const auto add = [](void* to, int columns, char** values, char**) {
      std::string line;
      for (int i = 0; i < columns; ++i) {
        line += i > 0 ? "|" : "";
        line += values[i] != nullptr ? values[i] : "NULL";
      }
      static_cast<Lines*>(to)->push_back(line);
      return 0;
    };
    if (sqlite3_exec(connection, sql.c_str(), add, &lines, &error) != SQLITE_OK) ADD_FAILURE() << sql << ": " << error;
    sqlite3_free(error);
    sqlite3_close(connection);
    return lines;
  }

 private:
  TempFolder folder_;
  std::string more_;
};

/// A connection of the test's own.
class Shell {
 public:
  explicit Shell(const std::string& url) : connection_(PQconnectdb(url.c_str())) {
    if (PQstatus(connection_) != CONNECTION_OK) ADD_FAILURE() << PQerrorMessage(connection_);
    PQsetNoticeProcessor(
        connection_, [](void*, const char*) {}, nullptr);
  }
  ~Shell() { PQfinish(connection_); }
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  Lines query(const std::string& sql) {
    PGresult* result = PQexec(connection_, sql.c_str());
    const auto status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) ADD_FAILURE() << sql << PQerrorMessage(connection_);
    Lines lines;
    for (int row = 0; row < PQntuples(result); ++row) {
      std::string line;
      for (int i = 0; i < PQnfields(result); ++i) {
        line += i > 0 ? "|" : "";
        line += PQgetisnull(result, row, i) != 0 ? "NULL" : PQgetvalue(result, row, i);
      }
      lines.push_back(line);
    }
    PQclear(result);
    return lines;
  }

 private:
  PGconn* connection_;
};

/// One server for all tests, a database for each.
PostgresServer& shared_server() {
  static PostgresServer server;
  return server;
}

class Postgres final : public Backend {
 public:
  explicit Postgres(PostgresServer& server = shared_server(), std::string more = "")
      : server_(server), more_(std::move(more)) {
    static std::atomic<int> count = 0;
    name_ = "test" + std::to_string(++count);
    Shell(server_.url()).query("CREATE DATABASE " + name_);
  }

  std::string url() const { return server_.url(name_); }
  Settings settings() const { return settings_for(url(), more_); }
  std::unique_ptr<Database> open(const Schema& schema) override { return open_postgresql(settings(), schema); }
  FindMessage find_message() override { return find_message_in_postgresql(settings()); }
  Lines query(const std::string& sql) override { return Shell(url()).query(sql); }

 private:
  PostgresServer& server_;
  std::string more_;
  std::string name_;
};

enum class Which { kSqlite, kPostgres };

class BothDatabases : public ::testing::TestWithParam<Which> {
 protected:
  BothDatabases() {
    if (sqlite()) {
      backend_ = std::make_unique<Sqlite>();
    } else {
      backend_ = std::make_unique<Postgres>();
    }
  }

  static bool sqlite() { return GetParam() == Which::kSqlite; }

  std::unique_ptr<Database> ready(const Schema& schema) {
    auto database = backend_->open(schema);
    database->migrate();
    return database;
  }
  Lines query(const std::string& sql) { return backend_->query(sql); }

  std::unique_ptr<Backend> backend_;
};

/// orders(id, note) with lines(id, number, text) of them, and parts(id, number, part, amount) of those.
Schema order_schema(OnConflict on_conflict = OnConflict::kUpdate) {
  Schema schema{.pipeline = "shop"};
  schema.add_table({.name = "orders",
                    .columns = {{.name = "id", .max_length = 20}, {.name = "note", .nullable = true}},
                    .key = {0},
                    .on_conflict = on_conflict});
  schema.add_table(
      {.name = "lines",
       .columns = {{.name = "order_id", .max_length = 20}, {.name = "number", .kind = Kind::kInt32}, {.name = "text"}},
       .key = {0, 1},
       .parent = 0,
       .parent_key = {0},
       .foreign_keys = {{.columns = {0}, .table = "orders", .referenced = {"id"}}}});
  schema.add_table(
      {.name = "parts",
       .columns = {{.name = "order_id", .max_length = 20}, {.name = "line", .kind = Kind::kInt32}, {.name = "part"}},
       .key = {0, 1, 2},
       .parent = 1,
       .parent_key = {0, 1}});
  return schema;
}

void add_order(Batch& batch, std::string_view id, std::string_view note) {
  Row row = batch.add_row(0);
  row.add(id);
  row.add(note);
}

void add_line(Batch& batch, std::string_view id, int number, std::string_view text, const Lines& parts = {}) {
  Row row = batch.add_row(1);
  row.add(id);
  row.add(number);
  row.add(text);
  for (const std::string& part : parts) {
    Row part_row = batch.add_row(2);
    part_row.add(id);
    part_row.add(number);
    part_row.add(part);
  }
}

void put_order(Session& session, const Schema& schema, std::int64_t version, std::string_view id, std::string_view note,
               const Lines& lines = {}) {
  Batch batch(schema);
  batch.begin_message(version);
  add_order(batch, id, note);
  int number = 0;
  for (const std::string& line : lines) add_line(batch, id, ++number, line);
  EXPECT_TRUE(session.write(batch, {}).empty());
}

MessageStatus status_of(std::string id, MessageState state = MessageState::kCompleted) {
  MessageStatus status;
  status.message_id = std::move(id);
  status.entity_type = "Order";
  status.state = state;
  status.received_at = *parse_timestamp("2025-01-15T10:00:00.000001Z");
  status.updated_at = *parse_timestamp("2025-01-15T10:00:01Z");
  return status;
}

template <typename Expected>
std::string thrown_by(const std::function<void()>& call) {
  try {
    call();
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another error was thrown: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST_P(BothDatabases, AnOlderMessageAndARepeatedOneChangeNothing) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  put_order(*session, schema, 5, "a", "five", {"x", "y"});
  put_order(*session, schema, 4, "a", "four", {"z"});
  put_order(*session, schema, 5, "a", "five", {"x", "y"});
  EXPECT_EQ(query("SELECT id, note, pipegen_version FROM orders"), Lines{"a|five|5"});
  EXPECT_EQ(query("SELECT number, text FROM lines ORDER BY number"), (Lines{"1|x", "2|y"}));
  put_order(*session, schema, 6, "a", "six", {"only"});
  EXPECT_EQ(query("SELECT id, note, pipegen_version FROM orders"), Lines{"a|six|6"});
  EXPECT_EQ(query("SELECT number, text FROM lines ORDER BY number"), (Lines{"1|only"}));
}

TEST_P(BothDatabases, TheFirstRowStaysWhereConflictsAreIgnored) {
  const Schema schema = order_schema(OnConflict::kIgnore);
  const auto database = ready(schema);
  const auto session = database->session();
  put_order(*session, schema, 5, "a", "five", {"x"});
  put_order(*session, schema, 6, "a", "six", {"y", "z"});
  put_order(*session, schema, 4, "a", "four", {"y", "z"});
  EXPECT_EQ(query("SELECT id, note, pipegen_version FROM orders"), Lines{"a|five|5"});
  EXPECT_EQ(query("SELECT text FROM lines"), Lines{"x"});

  Batch batch(schema);
  for (const std::int64_t version : {9, 7, 8}) {
    batch.begin_message(version);
    add_order(batch, "b", std::to_string(version));
    add_line(batch, "b", 1, std::to_string(version));
  }
  session->write(batch, {});
  EXPECT_EQ(query("SELECT note FROM orders WHERE id = 'b'"), Lines{"7"});
  EXPECT_EQ(query("SELECT text FROM lines WHERE order_id = 'b'"), Lines{"7"});
}

TEST_P(BothDatabases, ARejectedMessageIsNamedAndNothingOfTheBatchIsWritten) {
  const Schema schema = order_schema(OnConflict::kReject);
  const auto database = ready(schema);
  const auto session = database->session();
  put_order(*session, schema, 5, "a", "five", {"x"});
  put_order(*session, schema, 5, "a", "five", {"x"});  // the same message again

  Batch batch(schema);
  for (const auto& [version, id] :
       {std::pair(6, "new"), std::pair(7, "a"), std::pair(9, "twice"), std::pair(8, "twice"), std::pair(10, "a")}) {
    batch.begin_message(version);
    add_order(batch, id, "more");
    add_line(batch, id, 1, "more");
  }
  const auto rejected = session->write(batch, std::vector{status_of("m")});
  std::vector<std::size_t> messages;
  for (const auto& each : rejected) {
    messages.push_back(each.message);
    EXPECT_NE(each.reason.find("orders"), std::string::npos);
  }
  EXPECT_EQ(messages, (std::vector<std::size_t>{1, 2, 4}));
  EXPECT_EQ(query("SELECT id, note FROM orders"), Lines{"a|five"});
  EXPECT_EQ(query("SELECT count(*) FROM message_status"), Lines{"0"});

  Batch others(schema);
  for (const auto& [version, id] : {std::pair(6, "new"), std::pair(8, "twice")}) {
    others.begin_message(version);
    add_order(others, id, "more");
    add_line(others, id, 1, "more");
  }
  EXPECT_TRUE(session->write(others, std::vector{status_of("m")}).empty());
  EXPECT_EQ(query("SELECT id, note FROM orders ORDER BY id"), (Lines{"a|five", "new|more", "twice|more"}));
  EXPECT_EQ(query("SELECT count(*) FROM lines"), Lines{"3"});
}

TEST_P(BothDatabases, OfSeveralRowsOfABatchWithOneKeyTheNewestIsWrittenWithItsChildren) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  Batch batch(schema);
  for (const std::int64_t version : {2, 9, 3, 9}) {
    batch.begin_message(version);
    add_order(batch, "a", std::to_string(version));
    for (std::int64_t i = 0; i < version; ++i)
      add_line(batch, "a", static_cast<int>(i), "of " + std::to_string(version));
    add_order(batch, "b" + std::to_string(version), "alone");
  }
  EXPECT_TRUE(session->write(batch, {}).empty());
  EXPECT_EQ(query("SELECT note, pipegen_version FROM orders WHERE id = 'a'"), Lines{"9|9"});
  EXPECT_EQ(query("SELECT count(*), min(text) FROM lines"), Lines{"9|of 9"});
  EXPECT_EQ(query("SELECT id FROM orders WHERE id <> 'a' ORDER BY id"), (Lines{"b2", "b3", "b9"}));
}

TEST_P(BothDatabases, ChildrenAreReplacedAsASetAlsoTheirOwnChildren) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  Batch batch(schema);
  batch.begin_message(1);
  add_order(batch, "a", "");
  add_line(batch, "a", 1, "one", {"p", "q"});
  add_line(batch, "a", 2, "two", {"r"});
  add_order(batch, "b", "");
  add_line(batch, "b", 1, "other", {"s"});
  session->write(batch, {});
  EXPECT_EQ(query("SELECT order_id, line, part FROM parts ORDER BY part"), (Lines{"a|1|p", "a|1|q", "a|2|r", "b|1|s"}));

  batch.clear();
  batch.begin_message(2);
  add_order(batch, "a", "");
  add_line(batch, "a", 1, "again", {"q", "t"});
  batch.begin_message(3);
  add_order(batch, "c", "");
  session->write(batch, {});
  EXPECT_EQ(query("SELECT order_id, line, part FROM parts ORDER BY part"), (Lines{"a|1|q", "b|1|s", "a|1|t"}));
  EXPECT_EQ(query("SELECT order_id, number, text FROM lines ORDER BY order_id"), (Lines{"a|1|again", "b|1|other"}));

  // Older: neither the row nor its children.
  batch.clear();
  batch.begin_message(1);
  add_order(batch, "a", "old");
  add_line(batch, "a", 7, "old", {"old"});
  batch.begin_message(4);
  add_order(batch, "b", "new");
  session->write(batch, {});
  EXPECT_EQ(query("SELECT order_id, line, part FROM parts ORDER BY part"), (Lines{"a|1|q", "a|1|t"}));
}

TEST_P(BothDatabases, StatusRowsAreWrittenWithTheRowsAndKeepTheirAttempts) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  EXPECT_FALSE(session->find_status("m1").has_value());

  MessageStatus failed = status_of("m1", MessageState::kFailed);
  failed.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  failed.attempts = 1;
  failed.error = std::string("it's \"bad\" \xff\0 \xf0\x9f\x98\x80", 17);
  EXPECT_EQ(session->note_attempt(failed), 1);
  EXPECT_EQ(session->note_attempt(failed), 2);

  Batch batch(schema);
  batch.begin_message(1);
  add_order(batch, "a", "note");
  // The same message twice: the later one counts.
  std::vector statuses = {status_of("m1", MessageState::kProcessing), status_of("m2"), status_of("m1")};
  statuses.back().attempts = 1;
  EXPECT_TRUE(session->write(batch, statuses).empty());
  const auto found = session->find_status("m1");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state, MessageState::kCompleted);
  EXPECT_EQ(found->attempts, 3) << "those that failed, and this one";
  EXPECT_EQ(found->entity_type, "Order");
  EXPECT_EQ(pipegen::to_string(found->received_at), "2025-01-15T10:00:00.000001Z");
  EXPECT_EQ(pipegen::to_string(found->updated_at), "2025-01-15T10:00:01Z");
  EXPECT_NE(found->error.find("it's \"bad\""), std::string::npos) << "the last error is kept";
  EXPECT_EQ(found->traceparent, failed.traceparent) << "it stays when the message comes without one";
  EXPECT_EQ(query("SELECT count(*) FROM message_status WHERE traceparent IS NULL"), Lines{"1"});
  EXPECT_EQ(session->find_status("m2")->attempts, 0);
  EXPECT_EQ(session->find_status("m2")->error, "");

  EXPECT_TRUE(session->write(batch, std::span(statuses).last(1)).empty());
  EXPECT_EQ(session->find_status("m1")->attempts, 3) << "it was completed, and came again";
  MessageStatus begun = status_of("m1", MessageState::kProcessing);
  begun.attempts = 1;
  EXPECT_EQ(session->note_attempt(begun), 3);
  EXPECT_EQ(session->note_attempt(failed), 4);
  EXPECT_EQ(session->find_status("m1")->state, MessageState::kCompleted) << "what is completed stays so";

  MessageStatus dead = status_of("m3", MessageState::kDeadLettered);
  dead.attempts = 4;
  dead.error = "no";
  session->put_status(dead);
  EXPECT_EQ(session->find_status("m3")->attempts, 4);
  dead.attempts = 0;
  EXPECT_TRUE(session->write(Batch(schema), std::vector{dead}).empty());
  EXPECT_EQ(session->find_status("m3")->attempts, 4) << "it was counted before, and nobody heard of the commit";
  begun.message_id = failed.message_id = "m3";
  EXPECT_EQ(session->note_attempt(begun), 1) << "it is replayed";
  EXPECT_EQ(session->find_status("m3")->state, MessageState::kProcessing);
  failed.attempts = 0;
  EXPECT_EQ(session->note_attempt(failed), 1) << "the same attempt";
  EXPECT_EQ(session->find_status("m3")->state, MessageState::kFailed);
  EXPECT_EQ(session->note_attempt(begun), 2);
  dead.attempts = 1;
  EXPECT_TRUE(session->write(Batch(schema), std::vector{dead}).empty());
  EXPECT_EQ(session->find_status("m3")->attempts, 3);
  MessageStatus replayed = status_of("m3");
  replayed.attempts = 1;
  EXPECT_TRUE(session->write(Batch(schema), std::vector{replayed}).empty());
  EXPECT_EQ(session->find_status("m3")->attempts, 1);
  dead.attempts = 0;
  dead.error = "";
  session->put_status(dead);
  EXPECT_EQ(session->find_status("m3")->attempts, 0);
  EXPECT_EQ(session->find_status("m3")->error, "");
}

TEST_P(BothDatabases, OldStatusRowsAreRemovedAFewAtATimeAlsoBySeveral) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  const Timestamp border = Timestamp(std::chrono::sys_days(std::chrono::year(2025) / 3 / 1)) + 500ms;
  std::vector<MessageStatus> statuses;
  for (int i = 0; i < 1'000; ++i) {
    statuses.push_back(status_of("m" + std::to_string(i)));
    // Half of them before, one of the others at the very time.
    statuses.back().updated_at = border + std::chrono::microseconds(i - 500);
  }
  EXPECT_TRUE(session->write(Batch(schema), statuses).empty());
  EXPECT_EQ(session->remove_statuses(border - 1h, 10), 0u);
  EXPECT_EQ(session->remove_statuses(border, 10), 10u);
  std::atomic<std::size_t> removed = 0;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto own = database->session();
      for (int n = 0; n < 20; ++n) removed += own->remove_statuses(border, 50);
    });
  }
  threads.clear();
  EXPECT_EQ(removed, 490u);
  EXPECT_EQ(query("SELECT count(*) FROM message_status"), Lines{"500"});
  EXPECT_TRUE(session->find_status("m500")) << "it was written at that time, not before";
}

TEST_P(BothDatabases, ABadRowRollsTheWholeBatchBack) {
  Schema schema = order_schema();
  schema.tables[0].columns[0].max_length = 3;
  schema.add_table({.name = "refunds",
                    .columns = {{.name = "id"}, {.name = "order_id"}, {.name = "code", .nullable = true}},
                    .key = {0},
                    .foreign_keys = {{.columns = {1}, .table = "orders", .referenced = {"id"}}},
                    .indexes = {{.columns = {2}, .unique = true}}});
  const auto database = ready(schema);
  const auto session = database->session();
  Batch batch(schema);
  const auto refund = [&](const char* id, const char* order, std::optional<std::string> code) {
    Row row = batch.add_row(3);
    row.add(id);
    row.add(order);
    row.add(code);
  };
  const auto nothing_written = [&] {
    EXPECT_EQ(query("SELECT count(*) FROM orders"), Lines{"0"});
    EXPECT_EQ(query("SELECT count(*) FROM message_status"), Lines{"0"});
  };

  batch.begin_message(1);
  add_order(batch, "a", "good");
  batch.begin_message(2);
  add_order(batch, "wide", "SECRET");
  const std::string too_wide = thrown_by<PermanentError>([&] { session->write(batch, std::vector{status_of("m")}); });
  EXPECT_EQ(too_wide.find("SECRET"), std::string::npos) << too_wide;
  nothing_written();

  // Code points, not octets.
  batch.clear();
  batch.begin_message(1);
  add_order(batch, "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80", "good");
  refund("r0", "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80", "c0");
  session->write(batch, {});
  query("DELETE FROM refunds; DELETE FROM orders");

  batch.clear();
  batch.begin_message(1);
  add_order(batch, "a", "good");
  refund("r1", "SECRET", std::nullopt);
  const std::string missing = thrown_by<TransientError>([&] { session->write(batch, std::vector{status_of("m")}); });
  EXPECT_EQ(missing.find("SECRET"), std::string::npos) << missing;
  nothing_written();

  batch.clear();
  batch.begin_message(1);
  add_order(batch, "a", "good");
  refund("r1", "a", "SECRET");
  refund("r2", "a", "SECRET");
  const std::string twice = thrown_by<PermanentError>([&] { session->write(batch, std::vector{status_of("m")}); });
  EXPECT_EQ(twice.find("SECRET"), std::string::npos) << twice;
  nothing_written();

  batch.clear();
  batch.begin_message(1);
  add_order(batch, "a", "good");
  add_line(batch, "a", 1, "x");
  add_line(batch, "a", 1, "y");
  thrown_by<PermanentError>([&] { session->write(batch, std::vector{status_of("m")}); });
  nothing_written();

  // And the session goes on.
  batch.clear();
  batch.begin_message(1);
  refund("r1", "a", "c");  // in any order: foreign keys are looked at when all is written
  add_order(batch, "a", "good");
  session->write(batch, std::vector{status_of("m")});
  EXPECT_EQ(query("SELECT order_id FROM refunds"), Lines{"a"});

  query(sqlite() ? "DROP TABLE parts" : "DROP TABLE parts CASCADE");
  batch.clear();
  batch.begin_message(2);
  add_order(batch, "b", "x");
  add_line(batch, "b", 1, "x", {"p"});
  EXPECT_NE(thrown_by<ConfigError>([&] { session->write(batch, {}); }).find("parts"), std::string::npos);
}

/// A value of every kind, as SQL shows it in either database; `fill` adds it to a row.
Schema every_kind() {
  Schema schema{.pipeline = "types"};
  schema.add_table(
      {.name = "odd \"name\"; DROP TABLE x; --",
       .columns = {{.name = "id", .kind = Kind::kInt64},
                   {.name = "select", .kind = Kind::kBool, .nullable = true},
                   {.name = "i32", .kind = Kind::kInt32, .nullable = true},
                   {.name = "i64", .kind = Kind::kInt64, .nullable = true},
                   {.name = "f64", .kind = Kind::kFloat64, .nullable = true},
                   {.name = "dec", .kind = Kind::kDecimal, .nullable = true, .precision = 38, .scale = 9},
                   {.name = "big", .kind = Kind::kDecimal, .nullable = true, .precision = 38, .scale = 0},
                   {.name = "small", .kind = Kind::kDecimal, .nullable = true, .precision = 38, .scale = 38},
                   {.name = "Ünï \"quoted\"", .nullable = true},
                   {.name = "oct", .kind = Kind::kBytes, .nullable = true},
                   {.name = "uid", .kind = Kind::kUuid, .nullable = true},
                   {.name = "ts", .kind = Kind::kTimestamp, .nullable = true},
                   {.name = "day", .kind = Kind::kDate, .nullable = true},
                   {.name = "js", .kind = Kind::kJson, .nullable = true}},
       .key = {0}});
  return schema;
}

TEST_P(BothDatabases, EveryKindOfValueComesBackExactlyAsItWasSent) {
  const Schema schema = every_kind();
  const auto database = ready(schema);
  const auto session = database->session();
  const std::string table = "\"odd \"\"name\"\"; DROP TABLE x; --\"";
  std::int64_t id = 0;
  Batch batch(schema);
  std::vector<std::function<void()>> checks;

  // Adds a row with one value in the column, and NULL in the others.
  const auto check = [&](std::size_t column, const auto& value, const std::string& expected) {
    batch.begin_message(1);
    Row row = batch.add_row(0);
    row.add(++id);
    for (std::size_t i = 1; i < schema.tables[0].columns.size(); ++i) {
      if (i == column) {
        row.add(value);
      } else {
        row.add_null();
      }
    }
    std::string name = schema.tables[0].columns[column].name;
    std::string quoted = "\"";
    for (const char c : name) quoted += c == '"' ? "\"\"" : std::string(1, c);
    quoted += "\"";
    std::string shown = quoted;
    if (column == 1) shown = sqlite() ? quoted : "CASE WHEN " + quoted + " THEN 1 ELSE 0 END";
    if (column == 9) shown = sqlite() ? "lower(hex(" + quoted + "))" : "encode(" + quoted + ", 'hex')";
    if (column == 11 && !sqlite()) {
      shown = "to_char(" + quoted + " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    }
    const std::string sql =
        "SELECT " + shown + " FROM " + table + " WHERE id = " + std::to_string(id) + " AND " + quoted + " IS NOT NULL";
    checks.push_back([=, this] { EXPECT_EQ(query(sql), Lines{expected}) << name; });
  };

  check(1, true, "1");
  check(1, false, "0");
  check(2, std::numeric_limits<std::int32_t>::min(), "-2147483648");
  check(2, std::numeric_limits<std::int32_t>::max(), "2147483647");
  check(2, 0, "0");
  check(3, std::numeric_limits<std::int64_t>::min(), "-9223372036854775808");
  check(3, std::numeric_limits<std::int64_t>::max(), "9223372036854775807");
  check(4, 0.5, "0.5");
  check(4, -1.25e10, sqlite() ? "-12500000000.0" : "-12500000000");
  for (const std::string text :
       {"0.000000000", "0.000000001", "-0.000000001", "1.000000000", "-12.500000000", "9999.000000000",
        "10000.000000000", "12345.678901234", "100000000.000010000", "99999999999999999999999999999.999999999",
        "-99999999999999999999999999999.999999999", "10000000000000000000000000000.000000000"}) {
    check(5, Decimal::parse(text, 38, 9).value(), text);
  }
  check(6, Decimal::parse("99999999999999999999999999999999999999", 38, 0).value(),
        "99999999999999999999999999999999999999");
  check(6, Decimal::parse("-10000000000000000000000000000000000000", 38, 0).value(),
        "-10000000000000000000000000000000000000");
  check(6, Decimal::parse("0", 38, 0).value(), "0");
  check(7, Decimal::parse("0.99999999999999999999999999999999999999", 38, 38).value(),
        "0.99999999999999999999999999999999999999");
  check(7, Decimal::parse("-0.00000000000000000000000000000000000001", 38, 38).value(),
        "-0.00000000000000000000000000000000000001");
  for (const std::string text :
       {"", " ", "'", "\"", "\\", "{}", "{a,b}", "NULL", "null", "'); DROP TABLE orders; --", "$1", "?", "%s",
        "a\nb\tc", "\xf0\x9f\x98\x80\xe2\x80\xae", "e\xcc\x81", "\x7f\x01", "trailing ", "\\x00"}) {
    check(8, text, text);
  }
  const std::string large(1 << 20, 'x');
  check(8, large, large);
  check(9, Bytes{}, "");
  check(9, Bytes{std::byte{0}, std::byte{0xff}, std::byte{'\''}, std::byte{0}}, "00ff2700");
  check(10, Uuid::parse("00000000-0000-0000-0000-000000000000").value(), "00000000-0000-0000-0000-000000000000");
  check(10, Uuid::parse("0193a2b4-C5D6-7e8f-9a0b-ffffffffffff").value(), "0193a2b4-c5d6-7e8f-9a0b-ffffffffffff");
  for (const std::string text :
       {"0001-01-01T00:00:00.000000Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000000Z",
        "2000-02-29T12:34:56.000001Z", "9999-12-31T23:59:59.999999Z"}) {
    check(11, parse_timestamp(text).value(), text);
  }
  for (const std::string text : {"0001-01-01", "1969-12-31", "1970-01-01", "2000-02-29", "9999-12-31"}) {
    check(12, parse_date(text).value(), text);
  }
  for (const std::string text :
       {"null", "{\"b\": 1, \"a\" : [1.10, \"\\u0000\\ud83d\\ude00\"] }", "1e400", "\"x'y\""}) {
    check(13, Json{text}, text);
  }
  EXPECT_TRUE(session->write(batch, {}).empty());
  for (const auto& each : checks) each();

  // Doubles by their bits.
  batch.clear();
  const std::vector<double> doubles = {std::numeric_limits<double>::max(), std::numeric_limits<double>::denorm_min(),
                                       std::numeric_limits<double>::lowest(), 0.1, 1.0 / 3};
  for (const double value : doubles) {
    batch.begin_message(1);
    Row row = batch.add_row(0);
    row.add(++id);
    for (std::size_t i = 1; i < schema.tables[0].columns.size(); ++i) {
      if (i == 4) {
        row.add(value);
      } else {
        row.add_null();
      }
    }
    char digits[64];
    std::snprintf(digits, sizeof digits, "%.17g", value);
    const std::string sql = "SELECT count(*) FROM " + table + " WHERE id = " + std::to_string(id) +
                            " AND f64 = " + digits + (sqlite() ? "" : "::float8");
    checks.push_back([=, this] { EXPECT_EQ(query(sql), Lines{"1"}) << sql; });
  }
  EXPECT_TRUE(session->write(batch, {}).empty());
  for (const auto& each : checks) each();
  EXPECT_EQ(query("SELECT count(*) FROM " + table), Lines{std::to_string(id)});
}

TEST_P(BothDatabases, KeysOfEveryKindAreTheSameKeyInTheBatchAndInTheTable) {
  Schema schema{.pipeline = "keys"};
  schema.add_table({.name = "t",
                    .columns = {{.name = "dec", .kind = Kind::kDecimal, .precision = 10, .scale = 2},
                                {.name = "uid", .kind = Kind::kUuid},
                                {.name = "ts", .kind = Kind::kTimestamp},
                                {.name = "day", .kind = Kind::kDate},
                                {.name = "f", .kind = Kind::kFloat64},
                                {.name = "oct", .kind = Kind::kBytes},
                                {.name = "value", .kind = Kind::kInt64}},
                    .key = {0, 1, 2, 3, 4, 5}});
  schema.add_table({.name = "c",
                    .columns = {{.name = "dec", .kind = Kind::kDecimal, .precision = 10, .scale = 2},
                                {.name = "uid", .kind = Kind::kUuid},
                                {.name = "ts", .kind = Kind::kTimestamp},
                                {.name = "day", .kind = Kind::kDate},
                                {.name = "f", .kind = Kind::kFloat64},
                                {.name = "oct", .kind = Kind::kBytes},
                                {.name = "n", .kind = Kind::kInt64}},
                    .key = {0, 1, 2, 3, 4, 5, 6},
                    .parent = 0,
                    .parent_key = {0, 1, 2, 3, 4, 5}});
  const auto database = ready(schema);
  const auto session = database->session();
  const Uuid uuid = Uuid::random();
  const Timestamp time = *parse_timestamp("1969-01-01T00:00:00.000001Z");
  for (std::int64_t round = 0; round < 3; ++round) {
    Batch batch(schema);
    for (std::int64_t i = 0; i < 3; ++i) {
      batch.begin_message(round * 3 + i);
      for (const std::size_t table : {0U, 1U}) {
        Row row = batch.add_row(table);
        row.add(Decimal::parse("-1.50", 10, 2).value());
        row.add(uuid);
        row.add(time);
        row.add(*parse_date("1960-01-01"));
        row.add(i == 0 ? 0.0 : -0.0);
        row.add(Bytes{std::byte{0}});
        row.add(round * 3 + i);
      }
    }
    EXPECT_TRUE(session->write(batch, {}).empty());
    EXPECT_EQ(query("SELECT value FROM t"), Lines{std::to_string(round * 3 + 2)});
    EXPECT_EQ(query("SELECT n FROM c"), Lines{std::to_string(round * 3 + 2)});
  }
}

TEST_P(BothDatabases, AConnectionWritesManyBatchesOfManyMessages) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  Batch batch(schema);
  std::vector<MessageStatus> statuses;
  for (int round = 0; round < 20; ++round) {
    batch.clear();
    statuses.clear();
    for (int i = 0; i < 300; ++i) {
      const std::string id = "o" + std::to_string((round * 150 + i) * 7919 % 3150);
      batch.begin_message(round * 300 + i);
      add_order(batch, id, std::string(200, 'n'));
      add_line(batch, id, 1, "first");
      add_line(batch, id, 2, "second");
      statuses.push_back(status_of("m" + std::to_string(round * 300 + i)));
    }
    EXPECT_TRUE(session->write(batch, statuses).empty());
  }
  EXPECT_EQ(query("SELECT count(*) FROM orders"), Lines{"3150"});
  EXPECT_EQ(query("SELECT count(*) FROM lines"), Lines{"6300"});
  EXPECT_EQ(query("SELECT count(*), min(status), max(attempts) FROM message_status"), Lines{"6000|completed|0"});
}

TEST_P(BothDatabases, SessionsThatWriteTheSameRowsAtTheSameTimeLeaveTheNewest) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      const auto session = database->session();
      Batch batch(schema);
      for (int round = 0; round < 25; ++round) {
        batch.clear();
        for (int i = 0; i < 40; ++i) {
          // Every writer has every key, in an order of its own.
          const int key = (i * (2 * thread + 3) + round) % 40;
          const int version = round * 4 + thread;
          batch.begin_message(version);
          add_order(batch, "k" + std::to_string(key), std::to_string(version));
          add_line(batch, "k" + std::to_string(key), version % 3, std::to_string(version));
        }
        EXPECT_TRUE(session->write(batch, {}).empty());
      }
    });
  }
  threads.clear();
  EXPECT_EQ(query("SELECT count(*), min(note), max(note), min(pipegen_version) FROM orders"), Lines{"40|99|99|99"});
  EXPECT_EQ(query("SELECT count(*), min(text), max(text) FROM lines"), Lines{"40|99|99"});
}

// ---- migrations -----------------------------------------------------------------------------------------------------

TEST_P(BothDatabases, ANewVersionAddsItsTablesAndColumnsAndFillsThem) {
  Schema schema = order_schema();
  {
    const auto database = ready(schema);
    database->migrate();  // again: nothing
    put_order(*database->session(), schema, 1, "a", "old", {"x"});
  }
  schema.tables[0].columns.push_back({.name = "state", .since = 2, .fill = "\"it's \\\"open\\\"\""});
  schema.tables[0].columns.push_back({.name = "on", .kind = Kind::kBool, .since = 3, .fill = "true"});
  schema.tables[0].columns.push_back(
      {.name = "price", .kind = Kind::kDecimal, .precision = 9, .scale = 2, .since = 3, .fill = "1.5"});
  schema.tables[0].columns.push_back(
      {.name = "at", .kind = Kind::kTimestamp, .since = 3, .fill = "\"2025-01-15T10:00:00+01:00\""});
  schema.tables[0].columns.push_back({.name = "count", .kind = Kind::kInt32, .since = 3, .fill = "7"});
  schema.tables[0].columns.push_back({.name = "octets", .kind = Kind::kBytes, .since = 3, .fill = "\"AP8=\""});
  schema.tables[0].columns.push_back({.name = "js", .kind = Kind::kJson, .since = 3, .fill = "{\"a\":[]}"});
  schema.tables[0].columns.push_back({.name = "maybe", .kind = Kind::kDate, .nullable = true, .since = 3});
  schema.tables[0].columns.push_back({.name = "customer", .nullable = true, .since = 3});
  schema.tables[0].foreign_keys.push_back({.columns = {10}, .table = "customers", .referenced = {"id"}});
  schema.tables[0].indexes.push_back({.columns = {2, 1}});
  schema.add_table({.name = "customers", .columns = {{.name = "id"}}, .key = {0}, .since = 3});
  const auto database = ready(schema);
  EXPECT_EQ(query("SELECT version FROM pipegen_migrations WHERE pipeline = 'shop' ORDER BY version"),
            (Lines{"1", "2", "3"}));
  EXPECT_EQ(query("SELECT id, note, state, price, count, js, maybe, customer FROM orders"),
            Lines{"a|old|it's \"open\"|1.50|7|{\"a\":[]}|NULL|NULL"});
  EXPECT_EQ(query(sqlite() ? "SELECT \"on\", at, hex(octets) FROM orders"
                           : "SELECT \"on\"::int, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), "
                             "upper(encode(octets, 'hex')) FROM orders"),
            Lines{"1|2025-01-15T09:00:00.000000Z|00FF"});

  const auto session = database->session();
  const auto write_order = [&](const char* customer, bool with_customer) {
    Batch batch(schema);
    batch.begin_message(2);
    Row row = batch.add_row(0);
    for (const char* text : {"b", "new", "shut"}) row.add(text);
    row.add(false);
    row.add(Decimal::parse("2", 9, 2));
    row.add(now());
    row.add(1);
    row.add(Bytes{});
    row.add(Json{"1"});
    row.add_null();
    row.add(customer);
    if (with_customer) batch.add_row(3).add("c");
    session->write(batch, {});
  };
  thrown_by<TransientError>([&] { write_order("c", false); });
  write_order("c", true);
  EXPECT_EQ(query("SELECT state FROM orders WHERE customer = 'c'"), Lines{"shut"});

  // An old service that is still running does not know the columns.
  const Schema old = order_schema();
  const auto running = backend_->open(old);
  put_order(*running->session(), old, 9, "z", "by the old one");
  EXPECT_EQ(query("SELECT note, state FROM orders WHERE id = 'z'"), Lines{"by the old one|it's \"open\""});
  const std::string refused = thrown_by<ConfigError>([&] { running->migrate(); });
  EXPECT_NE(refused.find("version 3"), std::string::npos) << refused;
}

TEST_P(BothDatabases, AChangedSchemaOfTheSameVersionIsRefusedAndSaysWhatDiffers) {
  ready(order_schema());
  const auto refused = [&](const std::function<void(Schema&)>& change) {
    Schema schema = order_schema();
    change(schema);
    const auto database = backend_->open(schema);
    return thrown_by<ConfigError>([&] { database->migrate(); });
  };
  const std::string added = refused([](Schema& schema) { schema.tables[0].columns.push_back({.name = "new"}); });
  EXPECT_NE(added.find("orders.new is not there"), std::string::npos) << added;
  EXPECT_NE(added.find("since: 2"), std::string::npos) << added;
  const std::string gone = refused([](Schema& schema) { schema.tables[0].columns.pop_back(); });
  EXPECT_NE(gone.find("orders.note is there and not here"), std::string::npos) << gone;
  const std::string changed = refused([](Schema& schema) { schema.tables[0].columns[1].kind = Kind::kInt32; });
  EXPECT_NE(changed.find("orders.note is string? there and int32? here"), std::string::npos) << changed;
  const std::string key = refused([](Schema& schema) { schema.tables[2].key = {0, 2, 1}; });
  EXPECT_NE(key.find("table parts"), std::string::npos) << key;
  EXPECT_EQ(query("SELECT count(*) FROM pipegen_migrations"), Lines{"1"});

  // The order of columns and tables is no change.
  Schema shuffled = order_schema();
  std::swap(shuffled.tables[2].columns[1], shuffled.tables[2].columns[2]);
  shuffled.tables[2].key = {0, 2, 1};
  shuffled.tables[2].parent_key = {0, 2};
  backend_->open(shuffled)->migrate();
}

TEST_P(BothDatabases, SeveralMayMigrateAtTheSameTime) {
  Schema schema = order_schema();
  schema.tables[0].columns.push_back({.name = "more", .nullable = true, .since = 2});
  schema.tables[0].indexes.push_back({.columns = {1}, .unique = true});
  std::atomic<int> failures = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        try {
          backend_->open(schema)->migrate();
        } catch (const std::exception& error) {
          ++failures;
          ADD_FAILURE() << error.what();
        }
      });
    }
  }
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(query("SELECT version FROM pipegen_migrations ORDER BY version"), (Lines{"1", "2"}));
}

TEST_P(BothDatabases, AMigrationThatFailsLeavesNothing) {
  query("CREATE TABLE lines (mine integer)");
  const Schema schema = order_schema();
  const std::string text = thrown_by<ConfigError>([&] { backend_->open(schema)->migrate(); });
  EXPECT_NE(text.find("lines"), std::string::npos) << text;
  EXPECT_EQ(query(sqlite() ? "SELECT name FROM sqlite_schema WHERE name IN ('orders', 'message_status')"
                           : "SELECT relname FROM pg_class WHERE relname IN ('orders', 'message_status')"),
            Lines{});
  query("DROP TABLE lines");
  backend_->open(schema)->migrate();
}

TEST_P(BothDatabases, AStatusTableOfAnOlderPipegenGetsTheColumnOfTheTraceAndTheIndexOfTimes) {
  const Schema schema = order_schema();
  const auto database = ready(schema);
  database->session()->put_status(status_of("old"));
  query("ALTER TABLE message_status DROP COLUMN traceparent");
  query("DROP INDEX message_status_updated_at");

  // An API that is newer than the worker reads all the same, and goes on when the column comes.
  const FindMessage find = backend_->find_message();
  ASSERT_TRUE(find("old"));
  EXPECT_EQ(find("old")->state, "completed");
  EXPECT_EQ(find("old")->traceparent, "");

  database->migrate();
  database->migrate();
  EXPECT_EQ(
      query(sqlite() ? "SELECT count(*) FROM sqlite_schema WHERE name = 'message_status_updated_at'"
                     : "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%message_status USING brin (updated_at)'"),
      Lines{"1"});
  const auto session = database->session();
  MessageStatus status = status_of("new");
  status.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_TRUE(session->write(Batch(schema), std::vector{status}).empty());
  EXPECT_EQ(find("new")->traceparent, status.traceparent);
  EXPECT_EQ(find("old")->traceparent, "");
  EXPECT_EQ(query("SELECT message_id, traceparent FROM message_status ORDER BY message_id"),
            (Lines{"new|" + status.traceparent, "old|NULL"}));
}

TEST_P(BothDatabases, IndexesAreMadeWhenTheyAreMissingAndHaveNamesOfTheirOwn) {
  Schema schema = order_schema();
  ready(schema);
  const std::string wide(60, 'w');
  schema.add_table({.name = "a_b", .columns = {{.name = "c"}}, .key = {0}, .indexes = {{.columns = {0}}}, .since = 2});
  schema.add_table({.name = "a",
                    .columns = {{.name = "b_c"}, {.name = wide}, {.name = wide + "x"}},
                    .key = {0},
                    .indexes = {{.columns = {0}}, {.columns = {1}}, {.columns = {2}}, {.columns = {2}, .unique = true}},
                    .since = 2});
  schema.tables[0].indexes.push_back({.columns = {1}});
  const auto database = ready(schema);
  const std::string count = sqlite() ? "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL "
                                       "AND tbl_name <> 'message_status'"
                                     : "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND indexname ~ "
                                       "'_(idx|key)_[0-9a-f]{8}$' AND length(indexname) <= 63";
  EXPECT_EQ(query(count), Lines{"6"});
  database->migrate();
  EXPECT_EQ(query(count), Lines{"6"});
}

// ---- status of messages for the ingestion API -----------------------------------------------------------------------

TEST_P(BothDatabases, TheIngestionApiFindsAMessageFromAnyThread) {
  const FindMessage find = backend_->find_message();
  EXPECT_FALSE(find("m1").has_value()) << "there is no table yet";
  const Schema schema = order_schema();
  const auto database = ready(schema);
  const auto session = database->session();
  EXPECT_FALSE(find("m1").has_value());
  MessageStatus status = status_of("m1", MessageState::kFailed);
  status.error = "why";
  status.attempts = 1;
  session->note_attempt(status);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 50; ++n) {
        const auto record = find("m1");
        ASSERT_TRUE(record.has_value());
        EXPECT_EQ(record->state, "failed");
        EXPECT_EQ(record->entity_type, "Order");
        EXPECT_EQ(record->attempts, 1);
        EXPECT_EQ(record->error, "why");
        EXPECT_EQ(record->received_at, status.received_at);
        EXPECT_FALSE(find("nobody").has_value());
      }
    });
  }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

TEST(Rows, TextWithNulIsRefusedWithItsColumn) {
  const Schema schema = order_schema();
  Batch batch(schema);
  batch.begin_message(1);
  Row row = batch.add_row(0);
  row.add("a");
  const std::string text = thrown_by<PermanentError>([&] { row.add(std::string_view("x\0y", 3)); });
  EXPECT_NE(text.find("orders.note holds a NUL"), std::string::npos) << text;
}

TEST(Rows, NullAndNumbersThatNoDatabaseTakesAreRefused) {
  const Schema schema = every_kind();
  Batch batch(schema);
  batch.begin_message(1);
  Row row = batch.add_row(0);
  thrown_by<PermanentError>([&] { row.add_null(); });
  row.add(std::int64_t{1});
  thrown_by<PermanentError>([&] { row.add(std::numeric_limits<double>::quiet_NaN()); });
  thrown_by<PermanentError>([&] { row.add(std::numeric_limits<double>::infinity()); });
}

TEST(Rows, ARowHasAsManyValuesAsItsTable) {
  const Schema schema = order_schema();
  Batch batch(schema);
  EXPECT_THROW(batch.add_row(0), std::logic_error) << "no message was begun";
  batch.begin_message(1);
  Row row = batch.add_row(0);
  row.add("a");
  EXPECT_THROW(batch.add_row(0), std::logic_error);
  row.add("b");
  EXPECT_THROW(row.add("c"), std::logic_error);
}

TEST(Rows, AMessageIsTakenBackWithAllOfItsRowsAlsoTheHalfOnes) {
  const Schema schema = order_schema();
  Batch batch(schema);
  EXPECT_EQ(batch.begin_message(7), 0U);
  add_order(batch, "a", "kept");
  add_line(batch, "a", 1, "kept", {"p"});
  EXPECT_EQ(batch.begin_message(8), 1U);
  add_order(batch, "b", "gone");
  add_line(batch, "b", 1, "gone", {"q"});
  batch.add_row(0).add("half");
  batch.take_back_message();
  EXPECT_EQ(batch.messages(), 1U);
  EXPECT_EQ(batch.begin_message(9), 1U);
  add_order(batch, "c", "new");
  EXPECT_EQ(batch.rows(0).message, (std::vector<std::uint32_t>{0, 1}));
  EXPECT_EQ(batch.rows(1).message.size(), 1U);
  EXPECT_EQ(batch.rows(2).message.size(), 1U);
  ASSERT_EQ(batch.rows(0).cells.size(), 4U);
  EXPECT_EQ(batch.text(batch.rows(0).cells[1]), "kept");
  EXPECT_EQ(batch.text(batch.rows(0).cells[2]), "c");
  EXPECT_EQ(batch.text(batch.rows(2).cells[2]), "p");
  EXPECT_EQ(batch.version(1), 9);
}

// ---- SQLite ---------------------------------------------------------------------------------------------------------

TEST(SqliteOutage, AFileThatAnotherProcessHoldsIsUnavailableUntilItLetsGo) {
  Sqlite backend("lock_timeout = '50ms'\n");
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  put_order(*session, schema, 1, "a", "one");
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(backend.file().c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  thrown_by<Unavailable>([&] { put_order(*session, schema, 2, "a", "two"); });
  thrown_by<Unavailable>([&] { session->check(); });
  thrown_by<Unavailable>([&] { session->note_attempt(status_of("m")); });
  thrown_by<Unavailable>([&] { database->migrate(); });
  sqlite3_exec(other, "ROLLBACK", nullptr, nullptr, nullptr);
  sqlite3_close(other);
  session->check();
  put_order(*session, schema, 2, "a", "two");
  EXPECT_EQ(backend.query("SELECT note FROM orders"), Lines{"two"});
}

TEST(SqliteOutage, AFullDiskIsUnavailableAndNothingIsHalfWritten) {
  Sqlite backend;
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  put_order(*session, schema, 1, "a", "one");
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit tight{.rlim_cur = 300'000, .rlim_max = before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &tight);
  Batch batch(schema);
  for (int i = 0; i < 100; ++i) {
    batch.begin_message(2);
    add_order(batch, "n" + std::to_string(i), std::string(20'000, 'x'));
  }
  thrown_by<Unavailable>([&] { session->write(batch, {}); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(backend.query("SELECT count(*) FROM orders"), Lines{"1"});
  session->write(batch, {});
  EXPECT_EQ(backend.query("SELECT count(*) FROM orders"), Lines{"101"});
}

TEST(SqliteOutage, AReadOnlyFileIsUnavailable) {
  Sqlite backend;
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  namespace fs = std::filesystem;
  const auto mode = fs::perms::owner_read | fs::perms::group_read | fs::perms::others_read;
  const fs::path folder = fs::path(backend.file()).parent_path();
  fs::permissions(folder, mode | fs::perms::owner_exec | fs::perms::others_exec);
  for (const char* ending : {"", "-wal", "-shm"}) {
    if (fs::exists(backend.file() + ending)) fs::permissions(backend.file() + ending, mode);
  }
  const bool root = ::geteuid() == 0;
  if (root) {
    ASSERT_EQ(::seteuid(65534), 0);  // root may write anything
  }
  const auto session = database->session();
  const std::string text = thrown_by<Unavailable>([&] { put_order(*session, schema, 1, "a", "one"); });
  thrown_by<Unavailable>([&] { session->check(); });
  if (root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  fs::permissions(folder, fs::perms::owner_all);
  fs::permissions(backend.file(), fs::perms::owner_all);
  put_order(*session, schema, 1, "a", "one");
  EXPECT_EQ(backend.query("SELECT note FROM orders"), Lines{"one"});
}

TEST(SqliteSettings, AreRefusedWithWhatIsWrong) {
  TempFolder folder;
  const Schema schema = order_schema();
  const auto text = [&](const std::string& url) {
    return thrown_by<ConfigError>([&] { open_sqlite(settings_for(url), schema)->migrate(); });
  };
  EXPECT_NE(text("").find("DATABASE_URL"), std::string::npos);
  EXPECT_NE(text("postgresql://me:hunter2@host/db").find("SQLite"), std::string::npos);
  EXPECT_EQ(text("postgresql://me:hunter2@host/db").find("hunter2"), std::string::npos);
  EXPECT_NE(text("sqlite:").find("file"), std::string::npos);
  EXPECT_NE(text("sqlite::memory:").find("file"), std::string::npos);
  const std::string missing = (folder.path() / "not-there").string();
  EXPECT_NE(text("sqlite:" + missing + "/x.db").find(missing), std::string::npos);
  std::ofstream(folder.path() / "text.db") << std::string(5000, 'x');
  EXPECT_NE(text("sqlite:" + (folder.path() / "text.db").string()).find("not a database"), std::string::npos);
}

// ---- PostgreSQL -----------------------------------------------------------------------------------------------------

TEST(PostgresOutage, AServerThatStopsIsUnavailableAndTheSessionGoesOnWhenItIsBack) {
  PostgresServer server;
  Postgres backend(server);
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  const FindMessage find = backend.find_message();
  put_order(*session, schema, 1, "a", "one");
  EXPECT_FALSE(find("m").has_value());
  server.stop();
  thrown_by<Unavailable>([&] { put_order(*session, schema, 2, "a", "two"); });
  thrown_by<Unavailable>([&] { put_order(*session, schema, 2, "a", "two"); });
  thrown_by<Unavailable>([&] { session->check(); });
  thrown_by<Unavailable>([&] { session->note_attempt(status_of("m")); });
  thrown_by<Unavailable>([&] { find("m"); });
  thrown_by<Unavailable>([&] { database->migrate(); });
  server.start();
  session->check();
  put_order(*session, schema, 2, "a", "two");
  EXPECT_FALSE(find("m").has_value());
  EXPECT_EQ(backend.query("SELECT note FROM orders"), Lines{"two"});
}

TEST(PostgresOutage, AServerThatHangsIsUnavailable) {
  PostgresServer server;
  Postgres backend(server, "statement_timeout = '300ms'\nconnect_timeout = '300ms'\n");
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  put_order(*session, schema, 1, "a", "one");
  server.signal_all(SIGSTOP);
  const auto start = Clock::now();
  thrown_by<Unavailable>([&] { put_order(*session, schema, 2, "a", "two"); });
  thrown_by<Unavailable>([&] { put_order(*session, schema, 2, "a", "two"); });
  EXPECT_LT(Clock::now() - start, 10s);
  server.signal_all(SIGCONT);
  put_order(*session, schema, 3, "a", "three");
  EXPECT_EQ(backend.query("SELECT note FROM orders"), Lines{"three"});
}

TEST(PostgresOutage, ThoseWhoAskForAStatusWaitForAServerThatHangsTogetherAndNotInTurn) {
  PostgresServer server;
  Postgres backend(server, "connect_timeout = '2s'\n");
  backend.open(order_schema())->migrate();
  const FindMessage find = backend.find_message();
  server.signal_all(SIGSTOP);
  const auto start = Clock::now();
  std::vector<std::jthread> threads;
  for (int i = 0; i < 24; ++i) {
    threads.emplace_back([&] { thrown_by<Unavailable>([&] { find("m"); }); });
  }
  threads.clear();
  EXPECT_LT(Clock::now() - start, 6s) << "24 in turn, four at a time, take 12 s";
  const auto at_once = Clock::now();
  thrown_by<Unavailable>([&] { find("m"); });
  EXPECT_LT(Clock::now() - at_once, 500ms);
  server.signal_all(SIGCONT);
  std::optional<bool> found;
  for (const auto end = Clock::now() + 20s; !found && Clock::now() < end; std::this_thread::sleep_for(10ms)) {
    try {
      found = find("m").has_value();
    } catch (const Unavailable&) {
    }
  }
  EXPECT_EQ(found, false) << "it goes on when the server does";
}

TEST(PostgresOutage, AConnectionThatTheServerEndsIsMadeAnew) {
  Postgres backend;
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  put_order(*session, schema, 1, "a", "one");
  backend.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
      "pg_backend_pid()");
  thrown_by<Unavailable>([&] { put_order(*session, schema, 2, "a", "two"); });
  put_order(*session, schema, 2, "a", "two");
  EXPECT_EQ(backend.query("SELECT note FROM orders"), Lines{"two"});
}

TEST(PostgresOutage, AReadOnlyDatabaseIsUnavailable) {
  Postgres backend;
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const std::string name = backend.query("SELECT current_database()").at(0);
  backend.query("ALTER DATABASE " + name + " SET default_transaction_read_only = on");
  const auto session = database->session();
  thrown_by<Unavailable>([&] { session->check(); });
  thrown_by<Unavailable>([&] { put_order(*session, schema, 1, "a", "one"); });
  thrown_by<Unavailable>([&] { database->migrate(); });
  Shell(shared_server().url()).query("ALTER DATABASE " + name + " RESET default_transaction_read_only");
  session->check();
  put_order(*session, schema, 1, "a", "one");
}

TEST(PostgresOutage, ALockThatIsNotGivenInTimeIsUnavailable) {
  Postgres backend(shared_server(), "lock_timeout = '100ms'\n");
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  Shell shell(backend.url());
  shell.query("BEGIN; LOCK TABLE orders");
  thrown_by<Unavailable>([&] { put_order(*session, schema, 1, "a", "one"); });
  shell.query("ROLLBACK");
  put_order(*session, schema, 1, "a", "one");
}

TEST(PostgresOutage, TheVictimOfADeadlockIsUnavailable) {
  Postgres backend;
  const Schema schema = order_schema();
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  for (const char* id : {"a", "b"}) put_order(*session, schema, 1, id, "one");
  Shell shell(backend.url());
  shell.query("SET deadlock_timeout = '1h'");  // so that it is the other one that looks
  shell.query("BEGIN; UPDATE orders SET note = 'shell' WHERE id = 'b'");
  std::jthread writer([&] {
    Batch batch(schema);
    batch.begin_message(2);
    add_order(batch, "b", "two");
    add_order(batch, "a", "two");
    thrown_by<Unavailable>([&] { session->write(batch, {}); });
  });
  const auto end = Clock::now() + 10s;
  while (backend.query("SELECT 1 FROM pg_locks WHERE NOT granted").empty() && Clock::now() < end) {
    std::this_thread::sleep_for(5ms);
  }
  shell.query("UPDATE orders SET note = 'shell' WHERE id = 'a'; COMMIT");
  writer.join();
  put_order(*session, schema, 2, "a", "two");
  EXPECT_EQ(backend.query("SELECT id, note FROM orders ORDER BY id"), (Lines{"a|two", "b|shell"}));
}

TEST(PostgresSession, AValueThatTheDatabaseDoesNotTakeIsPermanentAndTheSessionGoesOn) {
  Postgres backend;
  Schema schema = order_schema();
  schema.tables[1].columns[1].kind = Kind::kInt32;
  const auto database = backend.open(schema);
  database->migrate();
  const auto session = database->session();
  Batch batch(schema);
  batch.begin_message(1);
  add_order(batch, "a", "no UTF-8: \xff SECRET");
  const std::string text = thrown_by<PermanentError>([&] { session->write(batch, {}); });
  EXPECT_EQ(text.find("SECRET"), std::string::npos) << text;

  batch.clear();
  batch.begin_message(1);
  add_order(batch, "a", "good");
  Row line = batch.add_row(1);
  line.add("a");
  line.add(std::int64_t{1} << 40);
  line.add("x");
  EXPECT_NE(thrown_by<PermanentError>([&] { session->write(batch, {}); }).find("lines.number"), std::string::npos);

  batch.clear();
  batch.begin_message(1);
  Row wrong = batch.add_row(0);
  wrong.add("a");
  wrong.add(7);
  EXPECT_THROW(session->write(batch, {}), std::logic_error);

  put_order(*session, schema, 1, "a", "good", {"x"});
  EXPECT_EQ(backend.query("SELECT note FROM orders"), Lines{"good"});
  EXPECT_EQ(backend.query("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"), Lines{"0"});
}

TEST(PostgresSettings, AreRefusedWithWhatIsWrongAndWithoutThePassword) {
  PostgresServer& server = shared_server();
  Postgres backend;
  const Schema schema = order_schema();
  backend.open(schema)->migrate();
  const auto text = [&](const std::string& url, const std::string& more = "") {
    const auto call = [&] { open_postgresql(settings_for(url, more), schema)->session()->check(); };
    const std::string what = thrown_by<ConfigError>(call);
    EXPECT_EQ(what.find("hunter2"), std::string::npos) << what;
    return what;
  };
  EXPECT_NE(text("").find("DATABASE_URL"), std::string::npos);
  text("sqlite:hunter2.db");
  text("postgresql://me:hunter2@[::1/db");
  text("host=x password=\"hunter2 y=z");
  EXPECT_NE(text(server.url("nowhere")).find("nowhere"), std::string::npos);

  const std::string name = backend.query("SELECT current_database()").at(0);
  const auto rules = server.socket_folder() / "data" / "pg_hba.conf";
  std::string trust;
  std::getline(std::ifstream(rules), trust, '\0');
  std::ofstream(rules) << "local all guarded scram-sha-256\n" << trust;
  backend.query("CREATE ROLE guarded LOGIN PASSWORD 'right horse'");
  backend.query("SELECT pg_reload_conf()");
  const std::string url = "host=" + server.socket_folder().string() + " user=guarded dbname=" + name;
  EXPECT_NE(text(url, "password = \"hunter2\"\n").find("password authentication failed"), std::string::npos);
  EXPECT_NE(text(url).find("DATABASE_PASSWORD"), std::string::npos);
  EXPECT_NE(text(url, "password = \"right horse\"\n").find("permission denied"), std::string::npos);
  backend.query("ALTER ROLE guarded CONNECTION LIMIT 0");
  thrown_by<Unavailable>(
      [&] { open_postgresql(settings_for(url, "password = \"right horse\"\n"), schema)->session()->check(); });

  Shell(server.url()).query("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
  EXPECT_NE(text(server.url("latin")).find("UTF8"), std::string::npos);
  thrown_by<Unavailable>([&] { open_postgresql(settings_for("host=/nowhere dbname=x"), schema)->session()->check(); });

  const auto database = open_postgresql(settings_for("postgresql://me:hunter2@db.example:5433/shop"), schema);
  EXPECT_EQ(database->description(), "PostgreSQL, db.example:5433, database shop");
}

INSTANTIATE_TEST_SUITE_P(Sql, BothDatabases, ::testing::Values(Which::kSqlite, Which::kPostgres),
                         [](const auto& which) { return which.param == Which::kSqlite ? "SQLite" : "PostgreSQL"; });

}  // namespace
}  // namespace pipegen::sql
