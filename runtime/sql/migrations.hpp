// Brings a database to the newest version of a schema, with the statements of either dialect.
#pragma once

#include <string>
#include <vector>

#include "pipegen/sql.hpp"
#include "sql/names.hpp"

namespace pipegen::sql {

/// What migrate() needs of a connection. Errors are those of Session.
class MigrationConnection {
 public:
  virtual ~MigrationConnection() = default;
  /// Begins a transaction that no other migration runs beside.
  virtual void begin() = 0;
  virtual void commit() = 0;
  /// Never throws.
  virtual void rollback() noexcept = 0;
  /// One or more statements without result.
  virtual void execute(const std::string& statements) = 0;
  virtual bool has_index(const std::string& name) = 0;
  virtual bool has_column(const std::string& table, const std::string& column) = 0;

  struct Applied {
    int version = 0;
    std::string fingerprint{};
  };
  /// From version 1 on.
  virtual std::vector<Applied> applied(const std::string& pipeline) = 0;
};

/// See Database::migrate.
void migrate(MigrationConnection& connection, const Schema& schema, Dialect dialect);

/// What a version of the schema brings, a line for each table and column. It stands in databases: the form never
/// changes.
std::string fingerprint(const Schema& schema, int version);
/// The statements of one version.
std::string migration(const Schema& schema, int version, Dialect dialect);

}  // namespace pipegen::sql
