#include "sql/postgresql_connection.hpp"

#include <poll.h>

#include <cerrno>
#include <initializer_list>

#include "pipegen/error.hpp"

namespace pipegen::sql {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct FreeOptions {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

enum class Blame { kServer, kSettings, kOrder, kRow };

/// Of the five characters of an SQLSTATE.
Blame blame_of(std::string_view state) {
  const auto any_of = [](std::string_view text, std::initializer_list<std::string_view> all) {
    for (const std::string_view each : all) {
      if (text == each) return true;
    }
    return false;
  };
  if (state == "23503") return Blame::kOrder;
  // Locks and read-only servers; prepared statements that are gone, or of a table that was changed.
  if (any_of(state, {"55P03", "25006", "26000", "0A000"})) return Blame::kServer;
  const std::string_view first = state.substr(0, 2);
  // Connection, resources, operator intervention, system, internal; 40: rolled back to undo a deadlock.
  if (any_of(first, {"08", "53", "57", "58", "40", "XX", "25"})) return Blame::kServer;
  if (any_of(first, {"28", "42", "3D", "3F"})) return Blame::kSettings;
  return Blame::kRow;
}

[[noreturn]] void throw_for(std::string_view state, const std::string& text) {
  switch (blame_of(state)) {
    case Blame::kServer:
      throw Unavailable(text);
    case Blame::kSettings:
      throw ConfigError(text);
    case Blame::kOrder:
      throw TransientError(text);
    case Blame::kRow:
      break;
  }
  if (state == "23505") throw UniqueViolation(text);
  throw PermanentError(text);
}

std::string_view field(const PGresult* result, int code) {
  const char* text = PQresultErrorField(result, code);
  return text != nullptr ? text : "";
}

/// What libpq says of a connection: "FATAL:  28P01: password authentication failed": the code, and the text behind it
/// without its second line.
struct ConnectError {
  std::string state{};
  std::string text{};
};
ConnectError connect_error(std::string_view message) {
  while (message.ends_with('\n')) message.remove_suffix(1);
  for (std::size_t at = 0; at + 9 < message.size(); ++at) {
    if (message.substr(at, 3) != ":  " || message.substr(at + 8, 2) != ": ") continue;
    const std::string_view state = message.substr(at + 3, 5);
    if (state.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != std::string_view::npos) continue;
    const std::string_view text = message.substr(at + 10);
    return {std::string(state), std::string(text.substr(0, text.find('\n')))};
  }
  // A line for each address that was tried, and advice in lines that begin with a tab.
  ConnectError error;
  while (!message.empty()) {
    const std::string_view line = message.substr(0, message.find('\n'));
    if (!line.starts_with('\t')) error.text.append(error.text.empty() ? "" : "; ").append(line);
    message.remove_prefix(std::min(line.size() + 1, message.size()));
  }
  return error;
}

}  // namespace

// ---- options --------------------------------------------------------------------------------------------------------

PostgresqlOptions postgresql_options(const Settings& settings) {
  const std::string url = settings.text("database.url", "");
  const std::string what = "[database] url (or DATABASE_URL)";
  const std::string wanted =
      ": this service writes to PostgreSQL, and needs \"postgresql://user@host:5432/name\" or \"host=... dbname=...\"";
  if (url.empty()) throw ConfigError(what + " is not set" + wanted);
  // What libpq says of it may hold the password.
  const std::unique_ptr<PQconninfoOption, FreeOptions> parsed(PQconninfoParse(url.c_str(), nullptr));
  if (!parsed) throw ConfigError(what + " is no address of a PostgreSQL database" + wanted);

  PostgresqlOptions options;
  for (const PQconninfoOption* option = parsed.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) options.parameters[option->keyword] = option->val;
  }
  if (const auto password = settings.secret("database.password")) options.parameters["password"] = *password;
  auto& parameters = options.parameters;
  // A server that vanished is noticed in about ten seconds.
  parameters.emplace("keepalives_idle", "5");
  parameters.emplace("keepalives_interval", "2");
  parameters.emplace("keepalives_count", "3");
  parameters.emplace("tcp_user_timeout", "10000");
  parameters.emplace("application_name", "pipegen");
  parameters["client_encoding"] = "UTF8";
  options.connect_timeout = settings.duration("database.connect_timeout", std::chrono::seconds(5));
  options.statement_timeout = settings.duration("database.statement_timeout", std::chrono::seconds(30));
  options.lock_timeout = settings.duration("database.lock_timeout", std::chrono::seconds(10));
  return options;
}

std::string description_of(const PostgresqlOptions& options) {
  const auto value = [&](const char* name) {
    const auto found = options.parameters.find(name);
    return found == options.parameters.end() ? std::string() : found->second;
  };
  std::string text = "PostgreSQL";
  const std::string host = value("host").empty() ? value("hostaddr") : value("host");
  if (!host.empty()) text += ", " + host;
  if (!host.empty() && !value("port").empty()) text += ":" + value("port");
  if (!value("dbname").empty()) text += ", database " + value("dbname");
  return text;
}

// ---- connecting -----------------------------------------------------------------------------------------------------

PostgresqlConnection::PostgresqlConnection(const PostgresqlOptions& options)
    : place_(description_of(options)),
      // The server ends a statement itself; this is for one that does not answer at all.
      patience_(options.statement_timeout * 6 / 5 + std::chrono::seconds(1)) {
  connect(options);
}

void PostgresqlConnection::connect(const PostgresqlOptions& options) {
  std::vector<const char*> names;
  std::vector<const char*> values;
  for (const auto& [name, value] : options.parameters) {
    names.push_back(name.c_str());
    values.push_back(value.c_str());
  }
  names.push_back(nullptr);
  values.push_back(nullptr);
  const auto end = Clock::now() + options.connect_timeout;
  connection_.reset(PQconnectStartParams(names.data(), values.data(), 0));
  if (!connection_) throw Unavailable(place_ + ": out of memory");
  PQsetNoticeProcessor(
      connection_.get(), [](void*, const char*) {}, nullptr);
  // Else there is no telling a wrong password from a server that is starting.
  PQsetErrorVerbosity(connection_.get(), PQERRORS_VERBOSE);
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (PQstatus(connection_.get()) != CONNECTION_BAD && state != PGRES_POLLING_OK) {
    try {
      wait(state == PGRES_POLLING_READING ? POLLIN : POLLOUT, end);
    } catch (const Unavailable&) {
      throw Unavailable(place_ + ": the server did not take the connection in time");
    }
    state = PQconnectPoll(connection_.get());
    if (state == PGRES_POLLING_FAILED) break;
  }
  if (PQstatus(connection_.get()) != CONNECTION_OK) {
    const ConnectError error = connect_error(PQerrorMessage(connection_.get()));
    const std::string text = place_ + ": " + error.text;
    const bool no_password = PQconnectionNeedsPassword(connection_.get()) != 0;
    if (no_password) throw ConfigError(text + ": set [database] password, or DATABASE_PASSWORD");
    if (error.state.empty()) throw Unavailable(text);
    throw_for(error.state, text);
  }
  const char* encoding = PQparameterStatus(connection_.get(), "server_encoding");
  if (encoding != nullptr && std::string_view(encoding) != "UTF8") {
    throw ConfigError(place_ + ": the database's encoding is " + encoding +
                      ", which does not hold every text: create it with ENCODING 'UTF8'");
  }
  PQsetnonblocking(connection_.get(), 1);
  // Row by row through an index is what the statements here want, also in the plans that were made while a table was
  // empty; and those plans are good for any parameters.
  execute(
      "SET statement_timeout = " + std::to_string(options.statement_timeout.count()) +
          "; SET lock_timeout = " + std::to_string(options.lock_timeout.count()) +
          "; SET standard_conforming_strings = on; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"
          "; SET enable_hashjoin = off; SET enable_mergejoin = off",
      patience_);
}

// ---- waiting --------------------------------------------------------------------------------------------------------

void PostgresqlConnection::wait(short events, Time end) {
  pollfd socket{.fd = PQsocket(connection_.get()), .events = events, .revents = 0};
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - Clock::now()).count();
    if (left <= 0) lost("the server does not answer");
    const int ready = ::poll(&socket, 1, static_cast<int>(std::min<std::int64_t>(left + 1, 3'600'000)));
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) lost("poll failed");
  }
}

Result PostgresqlConnection::next_result(Time end) {
  PGconn* connection = connection_.get();
  for (;;) {
    const int unsent = PQflush(connection);
    if (unsent < 0) break;  // what the server said last may still be read
    if (unsent == 0 && PQisBusy(connection) == 0) break;
    if (PQisBusy(connection) == 0) break;
    wait(static_cast<short>(unsent > 0 ? POLLIN | POLLOUT : POLLIN), end);
    if (PQconsumeInput(connection) == 0) break;
  }
  return Result(PQgetResult(connection));
}

void PostgresqlConnection::lost() const { lost(connect_error(PQerrorMessage(connection_.get())).text); }

void PostgresqlConnection::lost(const std::string& text) const {
  throw Unavailable(place_ + ": " + (text.empty() ? "the connection was lost" : text));
}

/// Without the server's DETAIL and CONTEXT, which show the values of rows.
void PostgresqlConnection::raise(const PGresult* result) const {
  const std::string_view state = field(result, PG_DIAG_SQLSTATE);
  if (state.empty() || PQstatus(connection_.get()) == CONNECTION_BAD)
    lost(connect_error(PQresultErrorMessage(result)).text);
  std::string_view message = field(result, PG_DIAG_MESSAGE_PRIMARY);
  // "invalid input syntax for type date: "2020-…""
  if (state.starts_with("22")) message = message.substr(0, message.find(": "));
  std::string text = place_ + ": " + std::string(message);
  const auto table = field(result, PG_DIAG_TABLE_NAME);
  const auto column = field(result, PG_DIAG_COLUMN_NAME);
  const auto constraint = field(result, PG_DIAG_CONSTRAINT_NAME);
  if (!table.empty()) text += ", table " + std::string(table);
  if (!column.empty()) text += ", column " + std::string(column);
  if (!constraint.empty() && message.find(constraint) == std::string_view::npos) {
    text += ", constraint " + std::string(constraint);
  }
  throw_for(state, text + " (SQLSTATE " + std::string(state) + ")");
}

// ---- statements -----------------------------------------------------------------------------------------------------

void PostgresqlConnection::pipeline(bool on) {
  if ((PQpipelineStatus(connection_.get()) != PQ_PIPELINE_OFF) == on) return;
  if ((on ? PQenterPipelineMode(connection_.get()) : PQexitPipelineMode(connection_.get())) == 0) lost();
}

void PostgresqlConnection::send(const std::string& statement) {
  pipeline(true);
  if (PQsendQueryParams(connection_.get(), statement.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 1) == 0) lost();
  preparing_.emplace_back();
}

void PostgresqlConnection::prepare(const std::string& name, const std::string& statement) {
  if (PQsendPrepare(connection_.get(), name.c_str(), statement.c_str(), 0, nullptr) == 0) lost();
  preparing_.push_back(name);
}

void PostgresqlConnection::send_prepared(const std::string& name, const std::string& statement,
                                         Parameters& parameters) {
  pipeline(true);
  if (prepared_.count(name) == 0) prepare(name, statement);
  if (PQsendQueryPrepared(connection_.get(), name.c_str(), parameters.count(), parameters.values(),
                          parameters.lengths(), parameters.formats(), 1) == 0) {
    lost();
  }
  preparing_.emplace_back();
}

std::vector<Result> PostgresqlConnection::finish() {
  pipeline(true);
  if (PQpipelineSync(connection_.get()) == 0) lost();
  const auto end = Clock::now() + patience_;
  std::vector<Result> results;
  Result failed;
  for (const std::string& preparing : preparing_) {
    Result result = next_result(end);
    if (!result) lost();
    switch (PQresultStatus(result.get())) {
      case PGRES_COMMAND_OK:
      case PGRES_TUPLES_OK:
        if (!preparing.empty()) prepared_.insert(preparing);
        break;
      case PGRES_PIPELINE_ABORTED:
        break;
      default:
        if (PQstatus(connection_.get()) == CONNECTION_BAD) raise(result.get());
        if (!failed) failed = std::move(result);
    }
    if (preparing.empty()) results.push_back(std::move(result));
    if (next_result(end)) lost("the server sent more results than expected");
  }
  preparing_.clear();
  const Result sync = next_result(end);
  if (!sync || PQresultStatus(sync.get()) != PGRES_PIPELINE_SYNC) {
    if (sync) raise(sync.get());
    lost();
  }
  if (failed) {
    rollback();
    raise(failed.get());
  }
  return results;
}

void PostgresqlConnection::execute(const std::string& statements, milliseconds patience) {
  pipeline(false);
  if (PQsendQuery(connection_.get(), statements.c_str()) == 0) lost();
  const auto end = Clock::now() + patience;
  Result failed;
  while (Result result = next_result(end)) {
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && !failed) failed = std::move(result);
    if (PQstatus(connection_.get()) == CONNECTION_BAD) break;
  }
  if (failed) raise(failed.get());
  if (PQstatus(connection_.get()) == CONNECTION_BAD) lost();
}

void PostgresqlConnection::rollback() noexcept {
  if (PQtransactionStatus(connection_.get()) == PQTRANS_IDLE) return;
  try {
    execute("ROLLBACK", patience_);
  } catch (const std::exception&) {
    // Then usable() says so, and the server does it when the connection ends.
  }
}

bool PostgresqlConnection::usable() const {
  return PQstatus(connection_.get()) == CONNECTION_OK && PQtransactionStatus(connection_.get()) == PQTRANS_IDLE;
}

}  // namespace pipegen::sql
