// What holds for both databases is tested with both.
#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <sqlite3.h>

#include <atomic>
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
  failed.error = std::string("it's \"bad\" \xff\0 \xf0\x9f\x98\x80", 17);
  EXPECT_EQ(session->note_attempt(failed), 1);
  EXPECT_EQ(session->note_attempt(failed), 2);

  Batch batch(schema);
  batch.begin_message(1);
  add_order(batch, "a", "note");
  // The same message twice: the later one counts.
  const std::vector statuses = {status_of("m1", MessageState::kProcessing), status_of("m2"), status_of("m1")};
  EXPECT_TRUE(session->write(batch, statuses).empty());
  const auto found = session->find_status("m1");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state, MessageState::kCompleted);
  EXPECT_EQ(found->attempts, 2);
  EXPECT_EQ(found->entity_type, "Order");
  EXPECT_EQ(pipegen::to_string(found->received_at), "2025-01-15T10:00:00.000001Z");
  EXPECT_EQ(pipegen::to_string(found->updated_at), "2025-01-15T10:00:01Z");
  EXPECT_NE(found->error.find("it's \"bad\""), std::string::npos) << "the last error is kept";
  EXPECT_EQ(session->find_status("m2")->attempts, 0);
  EXPECT_EQ(session->find_status("m2")->error, "");

  EXPECT_EQ(session->note_attempt(failed), 3);
  EXPECT_EQ(session->find_status("m1")->state, MessageState::kCompleted) << "what is completed stays so";

  MessageStatus dead = status_of("m3", MessageState::kDeadLettered);
  dead.attempts = 4;
  dead.error = "no";
  session->put_status(dead);
  EXPECT_EQ(session->find_status("m3")->attempts, 4);
  EXPECT_EQ(session->note_attempt(status_of("m3", MessageState::kProcessing)), 5);
  EXPECT_EQ(session->find_status("m3")->state, MessageState::kDeadLettered);
  dead.attempts = 0;
  dead.error = "";
  session->put_status(dead);
  EXPECT_EQ(session->find_status("m3")->attempts, 0);
  EXPECT_EQ(session->find_status("m3")->error, "");
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

INSTANTIATE_TEST_SUITE_P(Sql, BothDatabases, ::testing::Values(Which::kSqlite, Which::kPostgres),
                         [](const auto& which) { return which.param == Which::kSqlite ? "SQLite" : "PostgreSQL"; });

}  // namespace
}  // namespace pipegen::sql
