// PostgreSQL: an INSERT for each table and batch, from one array for each column.
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stdexcept>

#include "pipegen/error.hpp"
#include "pipegen/message_status.hpp"
#include "sql/database.hpp"
#include "sql/migrations.hpp"
#include "sql/names.hpp"
#include "sql/postgresql_connection.hpp"
#include "sql/selection.hpp"
#include "sql/status.hpp"

namespace pipegen::sql {
namespace {

constexpr std::string_view kStatusColumns =
    "message_status (message_id, entity_type, status, attempts, error, received_at, updated_at, traceparent)";

/// `unnest($1::text[], $2::bigint[])` over columns of a table, and maybe their versions.
std::string unnest(const Table& table, std::span<const std::size_t> columns, bool versions) {
  std::string list;
  int place = 0;
  const auto add = [&](std::string_view type) {
    list += (list.empty() ? "$" : ", $") + std::to_string(++place) + "::" + std::string(type);
  };
  for (const std::size_t column : columns) add(array_type(table.columns[column].kind));
  if (versions) add("bigint[]");
  return "unnest(" + list + ")";
}

/// `unnest($1::text[]), unnest($2::bigint[])`, which goes through the arrays side by side, and is a sixth faster than
/// the other one in the place of a table.
std::string rows_of(const Table& table, std::span<const std::size_t> columns) {
  std::string list;
  int place = 0;
  const auto add = [&](std::string_view type) {
    list += (list.empty() ? "unnest($" : ", unnest($") + std::to_string(++place) + "::" + std::string(type) + ")";
  };
  for (const std::size_t column : columns) add(array_type(table.columns[column].kind));
  if (!table.parent) add("bigint[]");
  return list;
}

/// `k1, k2` and so on.
std::string key_aliases(std::size_t count) {
  std::string list;
  for (std::size_t i = 1; i <= count; ++i) list += (i > 1 ? ", k" : "k") + std::to_string(i);
  return list;
}

/// `t."a" = u.k1 AND t."b" = u.k2`
std::string matches(const Table& table, std::span<const std::size_t> columns) {
  std::string text;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    text += (i > 0 ? " AND t." : "t.") + quote(table.columns[columns[i]].name) + " = u.k" + std::to_string(i + 1);
  }
  return text;
}

std::int64_t big_endian(const char* octets, int size) {
  std::uint64_t number = 0;
  for (int i = 0; i < size; ++i) number = number << 8 | static_cast<unsigned char>(octets[i]);
  return size == 4 ? static_cast<std::int32_t>(number) : static_cast<std::int64_t>(number);
}

std::int64_t integer_at(const Result& result, int row, int column) {
  return big_endian(PQgetvalue(result.get(), row, column), PQgetlength(result.get(), row, column));
}

std::string text_at(const Result& result, int row, int column) {
  return {PQgetvalue(result.get(), row, column), static_cast<std::size_t>(PQgetlength(result.get(), row, column))};
}

Timestamp time_at(const Result& result, int row, int column) {
  return Timestamp(std::chrono::microseconds(integer_at(result, row, column) + kMicrosTo2000));
}

// ---- sessions -------------------------------------------------------------------------------------------------------

/// The statements of one table, made once.
struct TableStatements {
  std::vector<std::size_t> all{};  // columns
  std::string insert{};            // of rows that are not there
  std::string insert_name{};
  std::string upsert{};  // and of those that may be
  std::string upsert_name{};
  std::string losers{};  // of a table without parent
  std::string losers_name{};
  std::string remove{};  // of one with parent
  std::string remove_name{};
};

std::vector<TableStatements> statements_of(const Schema& schema, const std::vector<Ancestry>& ancestries) {
  std::vector<TableStatements> result;
  for (std::size_t i = 0; i < schema.tables.size(); ++i) {
    const Table& table = schema.tables[i];
    const std::string number = std::to_string(i);
    TableStatements statements;
    for (std::size_t column = 0; column < table.columns.size(); ++column) statements.all.push_back(column);
    statements.insert =
        "INSERT INTO " + quote(table.name) + " (" + row_columns(table) + ") SELECT " + rows_of(table, statements.all);
    statements.insert_name = "insert_" + number;
    statements.upsert = statements.insert + conflict_clause(table);
    statements.upsert_name = "upsert_" + number;
    if (table.parent) {
      const auto& key = ancestries[i].root_key;
      const Table& root = schema.tables[ancestries[i].root];
      statements.remove = "DELETE FROM " + quote(table.name) + " AS t USING " + unnest(root, root.key, false) +
                          " AS u(" + key_aliases(key.size()) + ") WHERE " + matches(table, key);
      statements.remove_name = "remove_" + number;
    } else {
      statements.losers = "SELECT u.place FROM " + unnest(table, table.key, true) + " WITH ORDINALITY AS u(" +
                          key_aliases(table.key.size()) + ", version, place) JOIN " + quote(table.name) + " AS t ON " +
                          matches(table, table.key) + " WHERE t." + quote(kVersionColumn) + " <> u.version";
      statements.losers_name = "losers_" + number;
    }
    result.push_back(std::move(statements));
  }
  return result;
}

class PostgresqlSession final : public Session {
 public:
  PostgresqlSession(const PostgresqlOptions& options, const Schema& schema, const std::vector<Ancestry>& ancestries)
      : options_(options),
        schema_(schema),
        ancestries_(ancestries),
        statements_(statements_of(schema, ancestries)),
        selection_(schema, ancestries, true) {}

  std::vector<Rejected> write(const Batch& batch, std::span<const MessageStatus> statuses) override {
    if (&batch.schema() != &schema_) throw std::logic_error("the batch is of another schema than the database");
    if (batch.messages() == 0 && statuses.empty()) return {};
    if (cautious_ > 0) {
      --cautious_;
    } else if (selection_.select(batch).empty()) {
      try {
        guarded([&] { write_new(batch, statuses); });
        penalty_ = kLeastPenalty;
        return {};
      } catch (const UniqueViolation&) {
        // Rows were there. Where rows are updated this happens all the time: it is tried ever less often.
        cautious_ = penalty_;
        penalty_ = std::min(penalty_ * 4, kMostPenalty);
      }
    }
    std::vector<Rejected> rejected = selection_.select(batch);
    guarded([&] { write_any(batch, statuses, rejected); });
    std::sort(rejected.begin(), rejected.end(), [](const auto& a, const auto& b) { return a.message < b.message; });
    rejected.erase(std::unique(rejected.begin(), rejected.end(),
                               [](const auto& a, const auto& b) { return a.message == b.message; }),
                   rejected.end());
    return rejected;
  }

  int note_attempt(const MessageStatus& status) override {
    static const std::string statement = "INSERT INTO " + std::string(kStatusColumns) +
                                         " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)" + attempt_conflict_clause() +
                                         " RETURNING attempts";
    int attempts = 0;
    guarded([&] {
      add_status(status);
      connection_->send_prepared("note_attempt", statement, parameters_);
      const auto results = connection_->finish();
      attempts = static_cast<int>(integer_at(results.at(0), 0, 0));
    });
    return attempts;
  }

  void put_status(const MessageStatus& status) override {
    static const std::string statement =
        "INSERT INTO " + std::string(kStatusColumns) +
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (message_id) DO UPDATE SET entity_type = "
        "excluded.entity_type, status = excluded.status, attempts = excluded.attempts, error = excluded.error, "
        "received_at = excluded.received_at, updated_at = excluded.updated_at, traceparent = excluded.traceparent";
    guarded([&] {
      add_status(status);
      connection_->send_prepared("put_status", statement, parameters_);
      connection_->finish();
    });
  }

  std::optional<MessageStatus> find_status(std::string_view message_id) override {
    // By way of JSON: whoever writes the table may be of an older pipegen, and it may not have the column yet.
    static const std::string statement =
        "SELECT entity_type, status, attempts, coalesce(error, ''), received_at, updated_at, "
        "coalesce(to_jsonb(m) ->> 'traceparent', '') FROM message_status AS m WHERE message_id = $1";
    std::optional<MessageStatus> found;
    guarded([&] {
      parameters_.clear();
      parameters_.add_text(message_id);
      connection_->send_prepared("find_status", statement, parameters_);
      const auto results = connection_->finish();
      const Result& result = results.at(0);
      if (PQntuples(result.get()) == 0) return;
      found.emplace();
      found->message_id = message_id;
      found->entity_type = text_at(result, 0, 0);
      found->state = parse_message_state(text_at(result, 0, 1)).value_or(MessageState::kFailed);
      found->attempts = static_cast<int>(integer_at(result, 0, 2));
      found->error = text_at(result, 0, 3);
      found->received_at = time_at(result, 0, 4);
      found->updated_at = time_at(result, 0, 5);
      found->traceparent = text_at(result, 0, 6);
    });
    return found;
  }

  std::size_t remove_statuses(Timestamp before, std::size_t most) override {
    static const std::string statement =
        "DELETE FROM message_status WHERE message_id = ANY(ARRAY(SELECT message_id FROM message_status "
        "WHERE updated_at < $1 LIMIT $2::integer FOR UPDATE SKIP LOCKED))";
    std::size_t removed = 0;
    guarded([&] {
      parameters_.clear();
      parameters_.add_timestamp(before);
      parameters_.add_integer(static_cast<std::int32_t>(most));
      connection_->send_prepared("remove_statuses", statement, parameters_);
      removed = std::strtoull(PQcmdTuples(connection_->finish().at(0).get()), nullptr, 10);
    });
    return removed;
  }

  /// False before the first call, and when the last one lost the connection.
  bool connected() const { return connection_ != nullptr; }

  bool has_status_table() {
    bool there = false;
    guarded([&] {
      connection_->send("SELECT 1 WHERE to_regclass('message_status') IS NOT NULL");
      there = PQntuples(connection_->finish().at(0).get()) > 0;
    });
    return there;
  }

  void check() override {
    guarded([&] {
      connection_->send("UPDATE pipegen_migrations SET version = version WHERE false");
      connection_->finish();
    });
  }

 private:
  template <typename Work>
  void guarded(Work work) {
    if (!connection_) connection_ = std::make_unique<PostgresqlConnection>(options_);
    try {
      work();
    } catch (const Unavailable&) {
      connection_.reset();
      throw;
    } catch (...) {
      connection_->rollback();
      if (!connection_->usable()) connection_.reset();
      throw;
    }
  }

  /// All in one round trip. PostgreSQL inserts rows in half the time when it need not be ready for conflicts, and rows
  /// that were not there have no old children.
  void write_new(const Batch& batch, std::span<const MessageStatus> statuses) {
    selection_.select_children(batch);
    connection_->send("BEGIN");
    for (std::size_t table = 0; table < schema_.tables.size(); ++table) insert(batch, table, true);
    write_statuses(statuses, true);
    commit();
  }

  void write_any(const Batch& batch, std::span<const MessageStatus> statuses, std::vector<Rejected>& rejected) {
    connection_->send("BEGIN");
    std::vector<std::size_t> sent;
    bool ask = false;  // whether every row was written
    for (std::size_t table = 0; table < schema_.tables.size(); ++table) {
      if (schema_.tables[table].parent || !insert(batch, table, false)) continue;
      sent.push_back(table);
      ask = ask || asks(table);
    }
    if (ask) {
      const auto results = connection_->finish();
      find_losers(batch, sent, results, rejected);
    }
    if (!rejected.empty()) {
      connection_->send("ROLLBACK");
      connection_->finish();
      return;
    }
    selection_.select_children(batch);
    for (std::size_t table = schema_.tables.size(); table-- > 0;) {
      if (schema_.tables[table].parent) remove_children(batch, table);
    }
    for (std::size_t table = 0; table < schema_.tables.size(); ++table) {
      if (schema_.tables[table].parent) insert(batch, table, true);
    }
    write_statuses(statuses, false);
    commit();
  }

  bool asks(std::size_t table) const {
    return ancestries_[table].has_children || schema_.tables[table].on_conflict == OnConflict::kReject;
  }

  void commit() {
    connection_->send("COMMIT");
    const auto results = connection_->finish();
    if (std::string_view(PQcmdStatus(results.back().get())) != "COMMIT") {
      throw Unavailable("PostgreSQL rolled the transaction back");
    }
  }

  bool insert(const Batch& batch, std::size_t table, bool fresh) {
    const TableStatements& statements = statements_[table];
    const auto& rows = selection_.rows(table);
    if (rows.empty()) return false;
    parameters_.clear();
    for (const std::size_t column : statements.all) parameters_.add_column(batch, table, column, rows);
    if (!schema_.tables[table].parent) parameters_.add_versions(batch, table, rows);
    connection_->send_prepared(fresh ? statements.insert_name : statements.upsert_name,
                               fresh ? statements.insert : statements.upsert, parameters_);
    return true;
  }

  /// Of the rows that were not written those that another version stands in the way of. (The others are from this very
  /// message, delivered again.)
  void find_losers(const Batch& batch, const std::vector<std::size_t>& sent, const std::vector<Result>& inserts,
                   std::vector<Rejected>& rejected) {
    std::vector<std::size_t> looked_at;
    for (std::size_t i = 0; i < sent.size(); ++i) {
      const std::size_t table = sent[i];
      if (!asks(table)) continue;
      const auto written = std::strtoull(PQcmdTuples(inserts.at(i + 1).get()), nullptr, 10);  // behind BEGIN
      const auto& rows = selection_.rows(table);
      if (written >= rows.size()) continue;
      parameters_.clear();
      for (const std::size_t column : schema_.tables[table].key) parameters_.add_column(batch, table, column, rows);
      parameters_.add_versions(batch, table, rows);
      connection_->send_prepared(statements_[table].losers_name, statements_[table].losers, parameters_);
      looked_at.push_back(table);
    }
    if (looked_at.empty()) return;
    const auto results = connection_->finish();
    for (std::size_t i = 0; i < looked_at.size(); ++i) {
      const std::size_t table = looked_at[i];
      const Table& of = schema_.tables[table];
      for (int n = 0; n < PQntuples(results.at(i).get()); ++n) {
        const std::uint32_t row = selection_.rows(table).at(static_cast<std::size_t>(integer_at(results[i], n, 0) - 1));
        selection_.lose(table, row);
        if (of.on_conflict == OnConflict::kReject) {
          rejected.push_back(
              {batch.rows(table).message[row], of.name + " has a row with this key from an earlier message"});
        }
      }
    }
  }

  void remove_children(const Batch& batch, std::size_t table) {
    const std::size_t root = ancestries_[table].root;
    const auto& rows = selection_.rows(root);
    if (rows.empty()) return;
    parameters_.clear();
    for (const std::size_t column : schema_.tables[root].key) parameters_.add_column(batch, root, column, rows);
    connection_->send_prepared(statements_[table].remove_name, statements_[table].remove, parameters_);
  }

  void write_statuses(std::span<const MessageStatus> statuses, bool fresh) {
    static const std::string insert = "INSERT INTO " + std::string(kStatusColumns) +
                                      " SELECT unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), "
                                      "unnest($4::integer[]), unnest($5::text[]), "
                                      "unnest($6::timestamptz[]), unnest($7::timestamptz[]), unnest($8::text[])";
    static const std::string upsert = insert + status_conflict_clause();
    if (statuses.empty()) return;
    // Of several for one message the last: a statement writes no row twice.
    sorted_.clear();
    for (const MessageStatus& status : statuses) sorted_.push_back(&status);
    const auto by_id = [](const auto* a, const auto* b) { return a->message_id < b->message_id; };
    if (!std::is_sorted(sorted_.begin(), sorted_.end(), by_id)) std::stable_sort(sorted_.begin(), sorted_.end(), by_id);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < sorted_.size(); ++i) {
      if (i + 1 < sorted_.size() && sorted_[i]->message_id == sorted_[i + 1]->message_id) continue;
      sorted_[kept++] = sorted_[i];
    }
    sorted_.resize(kept);
    parameters_.clear();
    parameters_.add_statuses(sorted_);
    connection_->send_prepared(fresh ? "insert_statuses" : "upsert_statuses", fresh ? insert : upsert, parameters_);
  }

  void add_status(const MessageStatus& status) {
    parameters_.clear();
    parameters_.add_text(status.message_id);
    parameters_.add_text(status.entity_type);
    parameters_.add_text(to_string(status.state));
    parameters_.add_integer(status.attempts);
    if (status.error.empty()) {
      parameters_.add_null();
    } else {
      parameters_.add_text(storable(status.error));
    }
    parameters_.add_timestamp(status.received_at);
    parameters_.add_timestamp(status.updated_at);
    if (status.traceparent.empty()) {
      parameters_.add_null();
    } else {
      parameters_.add_text(status.traceparent);
    }
  }

  // In calls of write().
  static constexpr int kLeastPenalty = 64;
  static constexpr int kMostPenalty = 16'384;

  const PostgresqlOptions& options_;
  const Schema& schema_;
  const std::vector<Ancestry>& ancestries_;
  int cautious_ = 0;  // how many more expect rows that are there
  int penalty_ = kLeastPenalty;
  std::vector<TableStatements> statements_;
  Selection selection_;
  Parameters parameters_{};
  std::vector<const MessageStatus*> sorted_{};
  std::unique_ptr<PostgresqlConnection> connection_{};
};

// ---- migrations -----------------------------------------------------------------------------------------------------

class PostgresqlMigration final : public MigrationConnection {
 public:
  explicit PostgresqlMigration(const PostgresqlOptions& options) : connection_(options) {
    // A table that is rewritten takes as long as it takes.
    execute("SET statement_timeout = 0; SET lock_timeout = '60s'");
  }

  void begin() override {
    // The number means nothing; every pipegen has the same.
    execute("BEGIN; SELECT pg_advisory_xact_lock(5065472361)");
  }
  void commit() override { execute("COMMIT"); }
  void rollback() noexcept override { connection_.rollback(); }
  void execute(const std::string& statements) override { connection_.execute(statements, std::chrono::hours(24)); }

  bool has_index(const std::string& name) override {
    parameters_.clear();
    parameters_.add_text(quote(name));
    connection_.send_prepared("has_index", "SELECT 1 WHERE to_regclass($1::text) IS NOT NULL", parameters_);
    return PQntuples(connection_.finish().at(0).get()) > 0;
  }

  bool has_column(const std::string& table, const std::string& column) override {
    parameters_.clear();
    parameters_.add_text(quote(table));
    parameters_.add_text(column);
    connection_.send_prepared("has_column",
                              "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1::text) AND attname = $2 AND "
                              "NOT attisdropped",
                              parameters_);
    return PQntuples(connection_.finish().at(0).get()) > 0;
  }

  std::vector<Applied> applied(const std::string& pipeline) override {
    parameters_.clear();
    parameters_.add_text(pipeline);
    connection_.send_prepared(
        "applied", "SELECT version, fingerprint FROM pipegen_migrations WHERE pipeline = $1 ORDER BY version",
        parameters_);
    const auto results = connection_.finish();
    std::vector<Applied> applied;
    for (int row = 0; row < PQntuples(results.at(0).get()); ++row) {
      applied.push_back({static_cast<int>(integer_at(results[0], row, 0)), text_at(results[0], row, 1)});
    }
    return applied;
  }

 private:
  PostgresqlConnection connection_;
  Parameters parameters_{};
};

class PostgresqlDatabase final : public Database {
 public:
  PostgresqlDatabase(PostgresqlOptions options, const Schema& schema)
      : options_(std::move(options)), schema_(schema), ancestries_(ancestries(schema)) {}

  std::unique_ptr<Session> session() override {
    return std::make_unique<PostgresqlSession>(options_, schema_, ancestries_);
  }
  void migrate() override {
    PostgresqlMigration connection(options_);
    sql::migrate(connection, schema_, Dialect::kPostgresql);
  }
  std::string description() const override { return description_of(options_); }
  std::string_view system() const override { return "postgresql"; }
  bool concurrent() const override { return true; }
  const Schema& schema() const override { return schema_; }

 private:
  PostgresqlOptions options_;
  const Schema& schema_;
  std::vector<Ancestry> ancestries_;
};

// ---- status of messages ---------------------------------------------------------------------------------------------

/// Sessions of a process that reads only.
class Readers {
 public:
  explicit Readers(PostgresqlOptions options) : options_(std::move(options)) {}

  /// Whoever asks for a status must not keep those waiting who do not: it waits kPatience for a session, and for
  /// PostgreSQL while that is away not at all.
  std::optional<MessageRecord> find(std::string_view message_id) {
    auto session = take();
    const bool was_connected = session->connected();
    try {
      auto found = look_up(*session, message_id);
      give_back(std::move(session), false);
      return record_of(std::move(found));
    } catch (const Unavailable&) {
      // One that lost its connection may well get another.
      give_back(std::move(session), was_connected ? std::optional<bool>() : true);
      throw;
    } catch (...) {
      give_back(std::move(session), std::nullopt);
      throw;
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kMost = 4;
  static constexpr auto kPatience = std::chrono::seconds(1);
  static constexpr auto kTryEvery = std::chrono::seconds(2);  // to connect, when it failed

  /// Before the first migration of whoever writes there is no such table, and no message.
  static std::optional<MessageStatus> look_up(PostgresqlSession& session, std::string_view message_id) {
    try {
      return session.find_status(message_id);
    } catch (const ConfigError&) {
      if (session.has_status_table()) throw;
      return std::nullopt;
    }
  }

  std::unique_ptr<PostgresqlSession> take() {
    std::unique_lock lock(mutex_);
    const auto begun = Clock::now();
    const auto is_away = [&] { return away_ && Clock::now() < next_try_; };
    const bool got =
        returned_.wait_until(lock, begun + kPatience, [&] { return is_away() || !idle_.empty() || made_ < kMost; });
    if (is_away()) throw Unavailable("PostgreSQL was away a moment ago");
    if (!got) throw Unavailable("every session that reads from PostgreSQL is waiting for it");
    next_try_ = begun + kTryEvery;  // while one tries, the others need not
    if (idle_.empty()) {
      ++made_;
      return std::make_unique<PostgresqlSession>(options_, schema_, none_);
    }
    auto session = std::move(idle_.back());
    idle_.pop_back();
    return session;
  }

  /// `away`: whether PostgreSQL is, if that is known now.
  void give_back(std::unique_ptr<PostgresqlSession> session, std::optional<bool> away) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(session));
    away_ = away.value_or(away_);
    if (away == true) next_try_ = Clock::now() + kTryEvery;
    returned_.notify_all();
  }

  const PostgresqlOptions options_;
  const Schema schema_{};
  const std::vector<Ancestry> none_{};
  std::mutex mutex_{};
  std::condition_variable returned_{};
  std::vector<std::unique_ptr<PostgresqlSession>> idle_{};
  int made_ = 0;
  bool away_ = false;  // at the last try to connect
  Clock::time_point next_try_{};
};

}  // namespace

std::unique_ptr<Database> open_postgresql(const Settings& settings, const Schema& schema) {
  return std::make_unique<PostgresqlDatabase>(postgresql_options(settings), schema);
}

FindMessage find_message_in_postgresql(const Settings& settings) {
  const auto readers = std::make_shared<Readers>(postgresql_options(settings));
  return [readers](std::string_view message_id) { return readers->find(message_id); };
}

}  // namespace pipegen::sql
