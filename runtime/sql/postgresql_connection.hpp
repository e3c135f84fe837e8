// libpq in pipeline mode: statements are sent one behind the other, and their results read together.
//
//   connection.send("BEGIN");
//   connection.send_prepared("insert_orders", insert_sql, parameters);
//   connection.send("COMMIT");
//   connection.finish();     // throws the first error, having read to the end
#pragma once

#include <libpq-fe.h>

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/error.hpp"
#include "sql/postgresql_arrays.hpp"

namespace pipegen::sql {

struct PostgresqlOptions {
  std::map<std::string, std::string> parameters{};  // of the connection; holds the password
  std::chrono::milliseconds connect_timeout{};
  std::chrono::milliseconds statement_timeout{};
  std::chrono::milliseconds lock_timeout{};
};
/// [database] url, password, connect_timeout, statement_timeout, lock_timeout. Throws ConfigError.
PostgresqlOptions postgresql_options(const Settings& settings);
/// Place and name, without user and password.
std::string description_of(const PostgresqlOptions& options);

struct ClearResult {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ClearResult>;

/// A row of the same key is there.
class UniqueViolation : public PermanentError {
 public:
  using PermanentError::PermanentError;
};

/// Throws what Session throws. After Unavailable it is of no more use. Not thread safe.
class PostgresqlConnection {
 public:
  explicit PostgresqlConnection(const PostgresqlOptions& options);

  /// Statements without parameters.
  void send(const std::string& statement);
  /// Prepares it when it is sent for the first time.
  void send_prepared(const std::string& name, const std::string& statement, Parameters& parameters);
  /// Results of what was sent, in its order. With an error, the transaction that is open is rolled back.
  std::vector<Result> finish();
  /// Statements without parameters and results, of which there may be several in one text; with pipeline mode off.
  /// `patience`: at most this long.
  void execute(const std::string& statements, std::chrono::milliseconds patience);
  /// Never throws.
  void rollback() noexcept;
  /// Connected, and in no transaction.
  bool usable() const;

 private:
  struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };
  using Time = std::chrono::steady_clock::time_point;

  void connect(const PostgresqlOptions& options);
  void wait(short events, Time end);
  Result next_result(Time end);
  void pipeline(bool on);
  void prepare(const std::string& name, const std::string& statement);
  [[noreturn]] void lost() const;
  [[noreturn]] void lost(const std::string& text) const;
  [[noreturn]] void raise(const PGresult* result) const;

  std::string place_;
  std::unique_ptr<PGconn, Finish> connection_{};
  std::chrono::milliseconds patience_;
  std::set<std::string> prepared_{};
  std::vector<std::string> preparing_{};  // for each that was sent: the name, where it prepares
};

}  // namespace pipegen::sql
