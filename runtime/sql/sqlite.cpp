// SQLite: a file of this machine, written by one session at a time.
#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <system_error>

#include "pipegen/error.hpp"
#include "pipegen/message_status.hpp"
#include "sql/database.hpp"
#include "sql/migrations.hpp"
#include "sql/names.hpp"
#include "sql/selection.hpp"
#include "sql/status.hpp"

namespace pipegen::sql {
namespace {

struct Options {
  std::filesystem::path path{};
  std::chrono::milliseconds lock_timeout{};
};

Options options_of(const Settings& settings) {
  constexpr std::string_view kScheme = "sqlite:";
  const std::string url = settings.text("database.url", "");
  if (!url.starts_with(kScheme)) {
    throw ConfigError(std::string("[database] url (or DATABASE_URL) ") +
                      (url.empty() ? "is not set" : "is not SQLite's") +
                      ": this service writes to SQLite, and needs \"sqlite:\" and the path of a file, such as "
                      "\"sqlite:data.db\"");
  }
  Options options;
  options.path = url.substr(kScheme.size());
  const bool memory = options.path.empty() || options.path.native().starts_with(':');
  if (memory || options.path.native().find('\0') != std::string::npos) {
    throw ConfigError("[database] url must name a file behind \"sqlite:\"");
  }
  options.lock_timeout = settings.duration("database.lock_timeout", std::chrono::seconds(10));
  return options;
}

// ---- errors ---------------------------------------------------------------------------------------------------------

/// SQLite's texts name tables and columns, never values.
[[noreturn]] void raise(int extended_code, const std::string& text) {
  switch (extended_code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_NOMEM:
    case SQLITE_INTERRUPT:
    case SQLITE_PROTOCOL:
    case SQLITE_NOLFS:
      throw Unavailable(text);
    case SQLITE_ERROR:  // a table or column is not there
    case SQLITE_AUTH:
    case SQLITE_PERM:
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      throw ConfigError(text);
    case SQLITE_CONSTRAINT:
      if (extended_code == SQLITE_CONSTRAINT_FOREIGNKEY) {
        throw TransientError(text + ": a row refers to one that is not there");
      }
      throw PermanentError(text);
    default:
      throw PermanentError(text);
  }
}

// ---- times ----------------------------------------------------------------------------------------------------------

constexpr std::int64_t kMicrosOfDay = 86'400'000'000;
constexpr std::int64_t kFirstDay = -719'162;  // 0001-01-01
constexpr std::int64_t kLastDay = 2'932'896;  // 9999-12-31

char* put_digits(char* at, std::int64_t number, int width) {
  for (int i = width; i-- > 0; number /= 10) at[i] = static_cast<char>('0' + number % 10);
  return at + width;
}

char* put_date(char* at, std::int64_t day, const std::string& column) {
  if (day < kFirstDay || day > kLastDay) throw PermanentError(column + " is not of the years 1 to 9999");
  const Date date{std::chrono::sys_days{std::chrono::days{day}}};
  at = put_digits(at, static_cast<int>(date.year()), 4);
  *at++ = '-';
  at = put_digits(at, static_cast<unsigned>(date.month()), 2);
  *at++ = '-';
  return put_digits(at, static_cast<unsigned>(date.day()), 2);
}

/// As fixed_width() does it, without its strings.
char* put_timestamp(char* at, std::int64_t micros, const std::string& column) {
  const std::int64_t day = micros / kMicrosOfDay - (micros % kMicrosOfDay < 0 ? 1 : 0);
  const std::int64_t of_day = micros - day * kMicrosOfDay;
  at = put_date(at, day, column);
  *at++ = 'T';
  at = put_digits(at, of_day / 3'600'000'000, 2);
  *at++ = ':';
  at = put_digits(at, of_day / 60'000'000 % 60, 2);
  *at++ = ':';
  at = put_digits(at, of_day / 1'000'000 % 60, 2);
  *at++ = '.';
  at = put_digits(at, of_day % 1'000'000, 6);
  *at++ = 'Z';
  return at;
}

char* put_uuid(char* at, std::string_view octets) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (std::size_t i = 0; i < octets.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
    const auto octet = static_cast<unsigned char>(octets[i]);
    *at++ = kDigits[octet >> 4];
    *at++ = kDigits[octet & 15];
  }
  return at;
}

// ---- statements -----------------------------------------------------------------------------------------------------

struct CloseConnection {
  void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
};
struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using StatementHandle = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

class Connection {
 public:
  /// `create`: the file, when it is not there.
  Connection(const Options& options, bool create) : path_(options.path.string()) {
    const auto folder = options.path.parent_path();
    std::error_code ignored;
    if (!folder.empty() && !std::filesystem::is_directory(folder, ignored)) {
      throw ConfigError("[database] url: the folder " + folder.string() + " is not there, or is no folder");
    }
    // Counting every allocation under a mutex costs more than the allocations. (Too late is harmless.)
    static const int once = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    static_cast<void>(once);
    sqlite3* handle = nullptr;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
    const int code = sqlite3_open_v2(path_.c_str(), &handle, flags, nullptr);
    handle_.reset(handle);
    if (handle == nullptr) throw Unavailable("SQLite: out of memory");
    sqlite3_extended_result_codes(handle, 1);
    if (code != SQLITE_OK) fail();
    sqlite3_busy_timeout(handle, static_cast<int>(std::min<std::int64_t>(options.lock_timeout.count(), 3'600'000)));
    use_log(options.lock_timeout);
    // FULL costs nothing with many rows a transaction. The longer the log, the fewer the checkpoints.
    execute(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;"
        "PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16000");
  }

  void execute(const char* statements) {
    if (sqlite3_exec(handle_.get(), statements, nullptr, nullptr, nullptr) != SQLITE_OK) fail();
  }

  StatementHandle prepare(std::string_view sql) {
    sqlite3_stmt* statement = nullptr;
    const int code = sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) fail();
    return StatementHandle(statement);
  }

  /// Gives whether there is a row.
  bool step(sqlite3_stmt* statement) {
    const int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    const int extended = sqlite3_extended_errcode(handle_.get());
    const std::string text = error_text();
    sqlite3_reset(statement);
    raise(extended, text);
  }

  /// Of a statement that gives no row, as often as it is used.
  void run(sqlite3_stmt* statement) {
    step(statement);
    sqlite3_reset(statement);
  }

  int changes() const { return sqlite3_changes(handle_.get()); }

  void rollback() noexcept {
    if (sqlite3_get_autocommit(handle_.get()) == 0) {
      sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
    }
  }

 private:
  /// The first one makes the log, alone with the file: SQLite does not wait for that by itself.
  void use_log(std::chrono::milliseconds patience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (sqlite3_exec(handle_.get(), "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr) != SQLITE_OK) {
      if (sqlite3_errcode(handle_.get()) != SQLITE_BUSY || std::chrono::steady_clock::now() > end) fail();
      sqlite3_sleep(5);
    }
  }

  std::string error_text() const { return "SQLite (" + path_ + "): " + sqlite3_errmsg(handle_.get()); }
  [[noreturn]] void fail() const { raise(sqlite3_extended_errcode(handle_.get()), error_text()); }

  std::string path_;
  std::unique_ptr<sqlite3, CloseConnection> handle_;
};

void bind_text(sqlite3_stmt* statement, int place, std::string_view text) {
  sqlite3_bind_text64(statement, place, text.data() != nullptr ? text.data() : "", text.size(), SQLITE_STATIC,
                      SQLITE_UTF8);
}

std::string text_of_column(sqlite3_stmt* statement, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  if (text == nullptr) return {};
  return {text, static_cast<std::size_t>(sqlite3_column_bytes(statement, column))};
}

// ---- sessions -------------------------------------------------------------------------------------------------------

constexpr std::string_view kInsertStatus =
    "INSERT INTO message_status (message_id, entity_type, status, attempts, error, received_at, updated_at, "
    "traceparent) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

class SqliteSession final : public Session {
 public:
  SqliteSession(const Options& options, const Schema& schema, const std::vector<Ancestry>& ancestries, bool create)
      : options_(options),
        schema_(schema),
        ancestries_(ancestries),
        create_(create),
        selection_(schema, ancestries, false) {}

  std::vector<Rejected> write(const Batch& batch, std::span<const MessageStatus> statuses) override {
    if (&batch.schema() != &schema_) throw std::logic_error("the batch is of another schema than the database");
    std::vector<Rejected> rejected = selection_.select(batch);
    transaction([&] {
      for (std::size_t table = 0; table < schema_.tables.size(); ++table) {
        if (!schema_.tables[table].parent) write_roots(batch, table, rejected);
      }
      if (!rejected.empty()) return false;
      selection_.select_children(batch);
      for (std::size_t table = schema_.tables.size(); table-- > 0;) {
        if (schema_.tables[table].parent) delete_children(batch, table);
      }
      for (std::size_t table = 0; table < schema_.tables.size(); ++table) {
        if (schema_.tables[table].parent) insert_children(batch, table);
      }
      for (const MessageStatus& status : statuses)
        write_status(statement(write_status_, [] { return std::string(kInsertStatus) + status_conflict_clause(); }),
                     status);
      return true;
    });
    std::sort(rejected.begin(), rejected.end(), [](const auto& a, const auto& b) { return a.message < b.message; });
    rejected.erase(std::unique(rejected.begin(), rejected.end(),
                               [](const auto& a, const auto& b) { return a.message == b.message; }),
                   rejected.end());
    return rejected;
  }

  int note_attempt(const MessageStatus& status) override {
    int attempts = 0;
    transaction([&] {
      sqlite3_stmt* note = statement(
          note_attempt_, [] { return std::string(kInsertStatus) + attempt_conflict_clause() + " RETURNING attempts"; });
      bind_status(note, status);
      if (connection_->step(note)) attempts = sqlite3_column_int(note, 0);
      connection_->step(note);
      sqlite3_reset(note);
      return true;
    });
    return attempts;
  }

  void put_status(const MessageStatus& status) override {
    transaction([&] {
      write_status(statement(put_status_, [] { return "REPLACE" + std::string(kInsertStatus.substr(6)); }), status);
      return true;
    });
  }

  std::optional<MessageStatus> find_status(std::string_view message_id) override {
    std::optional<MessageStatus> found;
    guarded([&] {
      sqlite3_stmt* find = statement(find_status_, [] {
        return std::string(
            "SELECT entity_type, status, attempts, error, received_at, updated_at, * FROM message_status WHERE "
            "message_id = ?");
      });
      bind_text(find, 1, message_id);
      if (connection_->step(find)) {
        found.emplace();
        found->message_id = message_id;
        found->entity_type = text_of_column(find, 0);
        found->state = parse_message_state(text_of_column(find, 1)).value_or(MessageState::kFailed);
        found->attempts = sqlite3_column_int(find, 2);
        found->error = text_of_column(find, 3);
        found->received_at = parse_timestamp(text_of_column(find, 4)).value_or(Timestamp());
        found->updated_at = parse_timestamp(text_of_column(find, 5)).value_or(Timestamp());
        // Whoever writes the table may be of an older pipegen, and it may not have the column yet.
        for (int column = 6; column < sqlite3_column_count(find); ++column) {
          if (std::string_view(sqlite3_column_name(find, column)) == "traceparent") {
            found->traceparent = text_of_column(find, column);
          }
        }
      }
      sqlite3_reset(find);
    });
    return found;
  }

  std::size_t remove_statuses(Timestamp before, std::size_t most) override {
    const std::string time = fixed_width(before);
    std::size_t removed = 0;
    transaction([&] {
      const auto remove = connection_->prepare(
          "DELETE FROM message_status WHERE message_id IN (SELECT message_id FROM message_status WHERE updated_at < ? "
          "LIMIT ?)");
      bind_text(remove.get(), 1, time);
      sqlite3_bind_int64(remove.get(), 2, static_cast<std::int64_t>(most));
      connection_->run(remove.get());
      removed = static_cast<std::size_t>(connection_->changes());
      return true;
    });
    return removed;
  }

  bool has_status_table() {
    bool there = false;
    guarded([&] {
      const auto find = connection_->prepare("SELECT 1 FROM sqlite_schema WHERE name = 'message_status'");
      there = connection_->step(find.get());
    });
    return there;
  }

  void check() override {
    transaction([&] {
      connection_->execute("UPDATE pipegen_migrations SET version = version WHERE false");
      return true;
    });
  }

 private:
  struct Statements {
    StatementHandle insert{};
    StatementHandle remove{};
    StatementHandle version{};
  };

  void connect() {
    if (connection_) return;
    connection_ = std::make_unique<Connection>(options_, create_);
    tables_.resize(schema_.tables.size());
  }

  void disconnect() noexcept {
    tables_.clear();
    begin_.reset();
    commit_.reset();
    write_status_.reset();
    note_attempt_.reset();
    put_status_.reset();
    find_status_.reset();
    connection_.reset();
  }

  template <typename Work>
  void guarded(Work work) {
    connect();
    try {
      work();
    } catch (const Unavailable&) {
      disconnect();
      throw;
    } catch (...) {
      connection_->rollback();
      throw;
    }
  }

  /// `work` says whether to commit.
  template <typename Work>
  void transaction(Work work) {
    guarded([&] {
      connection_->run(statement(begin_, [] { return std::string("BEGIN IMMEDIATE"); }));
      if (work()) {
        connection_->run(statement(commit_, [] { return std::string("COMMIT"); }));
      } else {
        connection_->rollback();
      }
    });
  }

  template <typename MakeSql>
  sqlite3_stmt* statement(StatementHandle& handle, MakeSql make_sql) {
    if (!handle) handle = connection_->prepare(make_sql());
    return handle.get();
  }

  sqlite3_stmt* insert_statement(std::size_t table) {
    return statement(tables_[table].insert, [&] {
      const Table& into = schema_.tables[table];
      std::string values = "?";
      for (std::size_t i = into.parent ? 1 : 0; i < into.columns.size(); ++i) values += ", ?";
      return "INSERT INTO " + quote(into.name) + " (" + row_columns(into) + ") VALUES (" + values + ")" +
             conflict_clause(into);
    });
  }

  std::string where(const Table& table, std::span<const std::size_t> columns) {
    std::string text;
    for (const std::size_t column : columns) {
      text += text.empty() ? " WHERE " : " AND ";
      text += quote(table.columns[column].name) + " = ?";
    }
    return text;
  }

  void write_roots(const Batch& batch, std::size_t table, std::vector<Rejected>& rejected) {
    const auto& rows = selection_.rows(table);
    if (rows.empty()) return;
    const Table& into = schema_.tables[table];
    const bool rejects = into.on_conflict == OnConflict::kReject;
    const bool ask = rejects || ancestries_[table].has_children;
    sqlite3_stmt* insert = insert_statement(table);
    const int version_place = static_cast<int>(into.columns.size()) + 1;
    for (const std::uint32_t row : rows) {
      bind_row(insert, batch, table, row);
      const std::int64_t version = batch.version(batch.rows(table).message[row]);
      sqlite3_bind_int64(insert, version_place, version);
      connection_->run(insert);
      if (!ask || connection_->changes() != 0) continue;
      selection_.lose(table, row);
      if (rejects && version_there(batch, table, row) != version) {
        rejected.push_back(
            {batch.rows(table).message[row], into.name + " has a row with this key from an earlier message"});
      }
    }
  }

  std::int64_t version_there(const Batch& batch, std::size_t table, std::uint32_t row) {
    const Table& of = schema_.tables[table];
    sqlite3_stmt* select = statement(tables_[table].version, [&] {
      return "SELECT " + quote(kVersionColumn) + " FROM " + quote(of.name) + where(of, of.key);
    });
    bind_columns(select, batch, table, row, of.key);
    std::int64_t version = 0;
    if (connection_->step(select)) version = sqlite3_column_int64(select, 0);
    sqlite3_reset(select);
    return version;
  }

  void delete_children(const Batch& batch, std::size_t table) {
    const Ancestry& ancestry = ancestries_[table];
    const auto& parents = selection_.rows(ancestry.root);
    if (parents.empty()) return;
    const Table& from = schema_.tables[table];
    sqlite3_stmt* remove = statement(
        tables_[table].remove, [&] { return "DELETE FROM " + quote(from.name) + where(from, ancestry.root_key); });
    for (const std::uint32_t row : parents) {
      bind_columns(remove, batch, ancestry.root, row, schema_.tables[ancestry.root].key);
      connection_->run(remove);
    }
  }

  void insert_children(const Batch& batch, std::size_t table) {
    const auto& rows = selection_.rows(table);
    if (rows.empty()) return;
    sqlite3_stmt* insert = insert_statement(table);
    for (const std::uint32_t row : rows) {
      bind_row(insert, batch, table, row);
      connection_->run(insert);
    }
  }

  void bind_row(sqlite3_stmt* statement, const Batch& batch, std::size_t table, std::uint32_t row) {
    const Table& of = schema_.tables[table];
    const Cell* cells = batch.rows(table).cells.data() + row * of.columns.size();
    scratch_.resize(std::max(scratch_.size(), of.columns.size() * kScratch));
    for (std::size_t i = 0; i < of.columns.size(); ++i) {
      bind(statement, static_cast<int>(i) + 1, batch, of, of.columns[i], cells[i], scratch_.data() + i * kScratch);
    }
  }

  void bind_columns(sqlite3_stmt* statement, const Batch& batch, std::size_t table, std::uint32_t row,
                    std::span<const std::size_t> columns) {
    const Table& of = schema_.tables[table];
    const Cell* cells = batch.rows(table).cells.data() + row * of.columns.size();
    scratch_.resize(std::max(scratch_.size(), columns.size() * kScratch));
    int place = 0;
    for (const std::size_t column : columns) {
      char* scratch = scratch_.data() + static_cast<std::size_t>(place) * kScratch;
      bind(statement, ++place, batch, of, of.columns[column], cells[column], scratch);
    }
  }

  static void expect(bool right, const Table& table, const Column& column) {
    if (!right) throw std::logic_error(table.name + "." + column.name + " was given a value of another type");
  }

  /// Text is bound where it is, in the batch or in `scratch`.
  static void bind(sqlite3_stmt* statement, int place, const Batch& batch, const Table& table, const Column& column,
                   const Cell& cell, char* scratch) {
    if (cell.kind == Cell::Kind::kNull) {
      sqlite3_bind_null(statement, place);
      return;
    }
    const auto bind_scratch = [&](const char* end) {
      bind_text(statement, place, {scratch, static_cast<std::size_t>(end - scratch)});
    };
    switch (column.kind) {
      case Kind::kBool:
      case Kind::kInt32:
      case Kind::kInt64:
        expect(cell.kind == Cell::Kind::kInteger, table, column);
        sqlite3_bind_int64(statement, place, cell.integer);
        return;
      case Kind::kFloat64:
        expect(cell.kind == Cell::Kind::kReal, table, column);
        sqlite3_bind_double(statement, place, cell.real);
        return;
      case Kind::kDecimal:
      case Kind::kText:
      case Kind::kJson:
        expect(cell.kind == Cell::Kind::kText, table, column);
        bind_text(statement, place, batch.text(cell));
        return;
      case Kind::kBytes:
        expect(cell.kind == Cell::Kind::kBytes, table, column);
        // A null pointer would bind NULL.
        sqlite3_bind_blob64(statement, place, cell.size > 0 ? batch.text(cell).data() : "", cell.size, SQLITE_STATIC);
        return;
      case Kind::kUuid:
        expect(cell.kind == Cell::Kind::kBytes && cell.size == 16, table, column);
        bind_scratch(put_uuid(scratch, batch.text(cell)));
        return;
      case Kind::kTimestamp:
        expect(cell.kind == Cell::Kind::kInteger, table, column);
        bind_scratch(put_timestamp(scratch, cell.integer, column.name));
        return;
      case Kind::kDate:
        expect(cell.kind == Cell::Kind::kInteger, table, column);
        bind_scratch(put_date(scratch, cell.integer, column.name));
        return;
    }
  }

  void write_status(sqlite3_stmt* write, const MessageStatus& status) {
    bind_status(write, status);
    connection_->run(write);
  }

  void bind_status(sqlite3_stmt* write, const MessageStatus& status) {
    error_ = storable(status.error);
    bind_text(write, 1, status.message_id);
    bind_text(write, 2, status.entity_type);
    bind_text(write, 3, to_string(status.state));
    sqlite3_bind_int(write, 4, status.attempts);
    if (error_.empty()) {
      sqlite3_bind_null(write, 5);
    } else {
      bind_text(write, 5, error_);
    }
    const auto bind_time = [&](int place, char* scratch, Timestamp time) {
      const char* end = put_timestamp(scratch, time.time_since_epoch().count(), "message_status");
      bind_text(write, place, {scratch, static_cast<std::size_t>(end - scratch)});
    };
    bind_time(6, times_.data(), status.received_at);
    bind_time(7, times_.data() + kScratch, status.updated_at);
    if (status.traceparent.empty()) {
      sqlite3_bind_null(write, 8);
    } else {
      bind_text(write, 8, status.traceparent);
    }
  }

  static constexpr std::size_t kScratch = 40;  // more than a UUID's 36

  const Options& options_;
  const Schema& schema_;
  const std::vector<Ancestry>& ancestries_;
  bool create_;
  Selection selection_;
  std::vector<char> scratch_{};
  std::array<char, 2 * kScratch> times_{};
  std::string error_{};
  std::unique_ptr<Connection> connection_{};  // before what was prepared on it
  std::vector<Statements> tables_{};
  StatementHandle begin_{};
  StatementHandle commit_{};
  StatementHandle write_status_{};
  StatementHandle note_attempt_{};
  StatementHandle put_status_{};
  StatementHandle find_status_{};
};

class SqliteMigration final : public MigrationConnection {
 public:
  explicit SqliteMigration(const Options& options) : connection_(options, true) {
    // Else SQLite takes no column with a foreign key and a default.
    connection_.execute("PRAGMA foreign_keys = OFF");
  }

  void begin() override { connection_.execute("BEGIN IMMEDIATE"); }
  void commit() override { connection_.execute("COMMIT"); }
  void rollback() noexcept override { connection_.rollback(); }
  void execute(const std::string& statements) override { connection_.execute(statements.c_str()); }

  bool has_index(const std::string& name) override {
    const auto find = connection_.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?");
    bind_text(find.get(), 1, name);
    return connection_.step(find.get());
  }

  bool has_column(const std::string& table, const std::string& column) override {
    const auto find = connection_.prepare("SELECT 1 FROM pragma_table_info(?) WHERE name = ?");
    bind_text(find.get(), 1, table);
    bind_text(find.get(), 2, column);
    return connection_.step(find.get());
  }

  std::vector<Applied> applied(const std::string& pipeline) override {
    const auto select =
        connection_.prepare("SELECT version, fingerprint FROM pipegen_migrations WHERE pipeline = ? ORDER BY version");
    bind_text(select.get(), 1, pipeline);
    std::vector<Applied> result;
    while (connection_.step(select.get())) {
      result.push_back({sqlite3_column_int(select.get(), 0), text_of_column(select.get(), 1)});
    }
    return result;
  }

 private:
  Connection connection_;
};

class SqliteDatabase final : public Database {
 public:
  SqliteDatabase(Options options, const Schema& schema)
      : options_(std::move(options)), schema_(schema), ancestries_(ancestries(schema)) {}

  std::unique_ptr<Session> session() override {
    return std::make_unique<SqliteSession>(options_, schema_, ancestries_, true);
  }
  void migrate() override {
    SqliteMigration connection(options_);
    sql::migrate(connection, schema_, Dialect::kSqlite);
  }
  std::string description() const override { return "SQLite, " + options_.path.string(); }
  std::string_view system() const override { return "sqlite"; }
  bool concurrent() const override { return false; }
  const Schema& schema() const override { return schema_; }

 private:
  Options options_;
  const Schema& schema_;
  std::vector<Ancestry> ancestries_;
};

/// The session of a process that reads only. It makes no file.
struct Reader {
  explicit Reader(Options opened) : options(std::move(opened)), session(options, schema, none, false) {}

  std::mutex mutex{};
  const Options options;
  const Schema schema{};
  const std::vector<Ancestry> none{};
  SqliteSession session;
};

}  // namespace

std::unique_ptr<Database> open_sqlite(const Settings& settings, const Schema& schema) {
  return std::make_unique<SqliteDatabase>(options_of(settings), schema);
}

FindMessage find_message_in_sqlite(const Settings& settings) {
  const auto reader = std::make_shared<Reader>(options_of(settings));
  return [reader](std::string_view message_id) -> std::optional<MessageRecord> {
    const std::lock_guard lock(reader->mutex);
    std::error_code ignored;
    // Whoever writes has not begun yet.
    if (!std::filesystem::exists(reader->options.path, ignored) &&
        std::filesystem::is_directory(std::filesystem::absolute(reader->options.path).parent_path(), ignored)) {
      return std::nullopt;
    }
    try {
      return record_of(reader->session.find_status(message_id));
    } catch (const ConfigError&) {
      if (reader->session.has_status_table()) throw;
      return std::nullopt;
    }
  };
}

}  // namespace pipegen::sql
