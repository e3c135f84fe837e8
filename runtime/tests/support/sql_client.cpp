#include "support/sql_client.hpp"

#include <libpq-fe.h>
#include <sqlite3.h>

#include <memory>
#include <stdexcept>
#include <string_view>

namespace pipegen::testing {
namespace {

constexpr std::string_view kSqlite = "sqlite:";
using Rows = std::vector<std::vector<std::string>>;

Rows sqlite_rows(const std::string& path, const std::string& query) {
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
  const std::unique_ptr<sqlite3, int (*)(sqlite3*)> database(raw, sqlite3_close);
  if (opened != SQLITE_OK) throw std::runtime_error(path + ": " + sqlite3_errmsg(raw));
  sqlite3_busy_timeout(raw, 10'000);
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(raw, query.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
    throw std::runtime_error(query + ": " + sqlite3_errmsg(raw));
  }
  const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> owned(statement, sqlite3_finalize);
  Rows rows;
  int status = 0;
  while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
    auto& row = rows.emplace_back();
    for (int i = 0; i < sqlite3_column_count(statement); ++i) {
      const auto* text = sqlite3_column_text(statement, i);
      row.emplace_back(text == nullptr ? "NULL" : reinterpret_cast<const char*>(text));
    }
  }
  if (status != SQLITE_DONE) throw std::runtime_error(query + ": " + sqlite3_errmsg(raw));
  return rows;
}

Rows postgresql_rows(const std::string& url, const std::string& query) {
  const std::unique_ptr<PGconn, void (*)(PGconn*)> connection(PQconnectdb(url.c_str()), PQfinish);
  const std::unique_ptr<PGresult, void (*)(PGresult*)> result(PQexec(connection.get(), query.c_str()), PQclear);
  const ExecStatusType status = PQresultStatus(result.get());
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
    throw std::runtime_error(query + ": " + PQerrorMessage(connection.get()));
  }
  Rows rows;
  for (int i = 0; i < PQntuples(result.get()); ++i) {
    auto& row = rows.emplace_back();
    for (int j = 0; j < PQnfields(result.get()); ++j) {
      row.emplace_back(PQgetisnull(result.get(), i, j) != 0 ? "NULL" : PQgetvalue(result.get(), i, j));
    }
  }
  return rows;
}

}  // namespace

Rows SqlClient::rows(const std::string& query) const {
  return url_.starts_with(kSqlite) ? sqlite_rows(url_.substr(kSqlite.size()), query) : postgresql_rows(url_, query);
}

std::string SqlClient::value(const std::string& query) const {
  const auto all = rows(query);
  if (all.empty() || all.front().empty()) throw std::runtime_error(query + ": no rows");
  return all.front().front();
}

}  // namespace pipegen::testing
