#include "sql/migrations.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "pipegen/error.hpp"
#include "sql/selection.hpp"

namespace pipegen::sql {
namespace {

int since(const Table& table, const Column& column) { return std::max(table.since, column.since); }

int newest(const Schema& schema) {
  int version = 1;
  for (const Table& table : schema.tables) {
    version = std::max(version, table.since);
    for (const Column& column : table.columns) version = std::max(version, column.since);
  }
  return version;
}

/// The version in which all of its columns are there.
int since(const Table& table, const ForeignKey& key) {
  int version = table.since;
  for (const std::size_t column : key.columns) version = std::max(version, since(table, table.columns.at(column)));
  return version;
}

std::string described(const Column& column) {
  constexpr std::string_view kNames[] = {"bool",  "int32", "int64",     "float64", "decimal", "string",
                                         "bytes", "uuid",  "timestamp", "date",    "json"};
  std::string text(kNames[static_cast<std::size_t>(column.kind)]);
  if (column.kind == Kind::kDecimal) {
    text += "(" + std::to_string(column.precision) + "," + std::to_string(column.scale) + ")";
  }
  if (column.kind == Kind::kText && column.max_length > 0) text += "(" + std::to_string(column.max_length) + ")";
  return column.nullable ? text + "?" : text;
}

std::string foreign_key(const Table& table, const ForeignKey& key) {
  std::string referenced;
  for (const std::string& name : key.referenced) referenced += (referenced.empty() ? "" : ", ") + quote(name);
  // Checked at the commit: the children of a row are replaced by a DELETE and an INSERT.
  return "FOREIGN KEY (" + column_list(table, key.columns) + ") REFERENCES " + quote(key.table) + " (" + referenced +
         ") DEFERRABLE INITIALLY DEFERRED";
}

void create_table(std::string& sql, const Table& table, int version, Dialect dialect) {
  const bool sqlite = dialect == Dialect::kSqlite;
  sql += "CREATE TABLE " + quote(table.name) + " (";
  for (const Column& column : table.columns) {
    if (since(table, column) == version) sql += column_definition(column, dialect) + ", ";
  }
  if (!table.parent) sql += quote(kVersionColumn) + (sqlite ? " INTEGER" : " bigint") + " NOT NULL, ";
  if (!table.key.empty()) sql += "PRIMARY KEY (" + column_list(table, table.key) + "), ";
  if (sqlite) {
    for (const ForeignKey& key : table.foreign_keys) {
      if (since(table, key) == version) sql += foreign_key(table, key) + ", ";
    }
  }
  sql.resize(sql.size() - 2);
  sql += sqlite ? ") STRICT;\n" : ");\n";
}

void add_column(std::string& sql, const Table& table, std::size_t place, Dialect dialect) {
  const Column& column = table.columns[place];
  sql += "ALTER TABLE " + quote(table.name) + " ADD COLUMN " + column_definition(column, dialect);
  if (dialect == Dialect::kSqlite) {
    // SQLite adds no constraint to a table that is there, but one to a column that it adds.
    for (const ForeignKey& key : table.foreign_keys) {
      if (key.columns.size() == 1 && key.columns[0] == place) {
        sql +=
            " REFERENCES " + quote(key.table) + " (" + quote(key.referenced.at(0)) + ") DEFERRABLE INITIALLY DEFERRED";
      }
    }
  }
  sql += ";\n";
}

std::string message_status_table(Dialect dialect) {
  const bool sqlite = dialect == Dialect::kSqlite;
  const std::string time = sqlite ? "TEXT" : "timestamptz";
  return "CREATE TABLE IF NOT EXISTS message_status (message_id " + std::string(sqlite ? "TEXT" : "text") +
         " NOT NULL PRIMARY KEY, entity_type " + (sqlite ? "TEXT" : "text") + " NOT NULL, status " +
         (sqlite ? "TEXT" : "text") +
         " NOT NULL CHECK (status IN ('accepted', 'processing', 'completed', 'failed', 'dead_lettered')), attempts " +
         (sqlite ? "INTEGER" : "integer") + " NOT NULL, error " + (sqlite ? "TEXT" : "text") + ", received_at " + time +
         " NOT NULL, updated_at " + time + " NOT NULL, traceparent " + (sqlite ? "TEXT" : "text") + ")" +
         (sqlite ? " STRICT, WITHOUT ROWID" : "") + ";\n";
}

/// What tables of an older pipegen lack. Looked for first: to alter a table takes a lock that waits for everybody.
void complete_message_status(MigrationConnection& connection, Dialect dialect) {
  const bool sqlite = dialect == Dialect::kSqlite;
  if (!connection.has_column("message_status", "traceparent")) {
    connection.execute(std::string("ALTER TABLE message_status ADD COLUMN traceparent ") + (sqlite ? "TEXT" : "text"));
  }
  // For those who remove old rows. Rows are written in the order of their times, nearly: then BRIN is enough, which
  // costs their writers nothing.
  if (!connection.has_index("message_status_updated_at")) {
    connection.execute(std::string("CREATE INDEX IF NOT EXISTS message_status_updated_at ON message_status ") +
                       (sqlite ? "(updated_at)" : "USING brin (updated_at)"));
  }
}

std::string migrations_table(Dialect dialect) {
  const bool sqlite = dialect == Dialect::kSqlite;
  return sqlite ? "CREATE TABLE IF NOT EXISTS pipegen_migrations (pipeline TEXT NOT NULL, version INTEGER NOT NULL, "
                  "fingerprint TEXT NOT NULL, applied_at TEXT NOT NULL, PRIMARY KEY (pipeline, version)) STRICT;\n"
                : "CREATE TABLE IF NOT EXISTS pipegen_migrations (pipeline text NOT NULL, version integer NOT NULL, "
                  "fingerprint text NOT NULL, applied_at timestamptz NOT NULL, PRIMARY KEY (pipeline, version));\n";
}

/// The lines of a fingerprint: "column orders.comment" and what it is.
std::map<std::string, std::string> items_of(std::string_view fingerprint) {
  std::map<std::string, std::string> items;
  while (!fingerprint.empty()) {
    const auto end = std::min(fingerprint.find('\n'), fingerprint.size());
    const std::string_view line = fingerprint.substr(0, end);
    const auto colon = std::min(line.find(": "), line.size());
    items.emplace(line.substr(0, colon), line.substr(std::min(colon + 2, line.size())));
    fingerprint.remove_prefix(std::min(end + 1, fingerprint.size()));
  }
  return items;
}

[[noreturn]] void refuse(const Schema& schema, int version, const std::string& what) {
  throw ConfigError("the database has version " + std::to_string(version) + " of the schema of the pipeline " +
                    schema.pipeline + ", and it is not what this service says: " + what + ". Give new fields `since: " +
                    std::to_string(newest(schema) + 1) + "`, and leave those that are there as they are");
}

void compare(const Schema& schema, const MigrationConnection::Applied& applied) {
  const std::string expected = fingerprint(schema, applied.version);
  if (expected == applied.fingerprint) return;
  const auto there = items_of(applied.fingerprint);
  const auto wanted = items_of(expected);
  for (const auto& [item, what] : wanted) {
    const auto found = there.find(item);
    if (found == there.end()) refuse(schema, applied.version, item + " is not there");
    if (found->second != what) {
      refuse(schema, applied.version, item + " is " + found->second + " there and " + what + " here");
    }
  }
  for (const auto& [item, what] : there) {
    if (wanted.count(item) == 0) refuse(schema, applied.version, item + " is there and not here");
  }
  refuse(schema, applied.version, "it was written by another version of pipegen");
}

/// One transaction. Gives whether there is more to do.
bool migrate_once(MigrationConnection& connection, const Schema& schema, Dialect dialect) {
  connection.begin();
  connection.execute(migrations_table(dialect));
  const auto applied = connection.applied(schema.pipeline);
  const int last = applied.empty() ? 0 : applied.back().version;
  if (last > newest(schema)) {
    throw ConfigError("the database has version " + std::to_string(last) + " of the schema of the pipeline " +
                      schema.pipeline + ", and this service knows it up to version " + std::to_string(newest(schema)) +
                      ": run a newer one");
  }
  for (const auto& each : applied) compare(schema, each);

  if (last == newest(schema)) {
    for (const Table& table : schema.tables) {
      for (const Index& index : table.indexes) {
        const std::string name = index_name(table, index);
        if (connection.has_index(name)) continue;
        connection.execute((index.unique ? "CREATE UNIQUE INDEX IF NOT EXISTS " : "CREATE INDEX IF NOT EXISTS ") +
                           quote(name) + " ON " + quote(table.name) + " (" + column_list(table, index.columns) + ")");
      }
    }
    complete_message_status(connection, dialect);
    connection.commit();
    return false;
  }
  const int version = last + 1;
  const std::string time = dialect == Dialect::kSqlite ? "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')" : "now()";
  connection.execute(migration(schema, version, dialect) + "INSERT INTO pipegen_migrations VALUES (" +
                     literal(schema.pipeline) + ", " + std::to_string(version) + ", " +
                     literal(fingerprint(schema, version)) + ", " + time + ");\n");
  connection.commit();
  return true;
}

}  // namespace

std::string fingerprint(const Schema& schema, int version) {
  std::set<std::string> lines;  // the order of tables and columns is no part of it
  for (const Table& table : schema.tables) {
    if (table.since == version) {
      std::string key;
      for (const std::size_t column : table.key) key += (key.empty() ? "" : ", ") + table.columns.at(column).name;
      lines.insert("table " + table.name + ": key (" + key + ")" +
                   (table.parent ? " of " + schema.tables.at(*table.parent).name : "") + "\n");
    }
    for (const Column& column : table.columns) {
      if (since(table, column) == version) {
        lines.insert("column " + table.name + "." + column.name + ": " + described(column) + "\n");
      }
    }
  }
  std::string text;
  for (const std::string& line : lines) text += line;
  return text;
}

std::string migration(const Schema& schema, int version, Dialect dialect) {
  std::string sql = version == 1 ? message_status_table(dialect) : "";
  for (const Table& table : schema.tables) {
    if (table.since == version) {
      create_table(sql, table, version, dialect);
      continue;
    }
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      if (since(table, table.columns[i]) == version) add_column(sql, table, i, dialect);
    }
  }
  if (dialect == Dialect::kPostgresql) {
    for (const Table& table : schema.tables) {
      for (const ForeignKey& key : table.foreign_keys) {
        if (since(table, key) == version) {
          sql += "ALTER TABLE " + quote(table.name) + " ADD " + foreign_key(table, key) + ";\n";
        }
      }
    }
  }
  return sql;
}

void migrate(MigrationConnection& connection, const Schema& schema, Dialect dialect) {
  try {
    while (migrate_once(connection, schema, dialect)) {
    }
  } catch (const PermanentError& error) {
    // Of rows that are there: a unique index, a foreign key.
    connection.rollback();
    throw ConfigError(error.what());
  } catch (const TransientError& error) {
    connection.rollback();
    throw ConfigError(error.what());
  } catch (...) {
    connection.rollback();
    throw;
  }
}

}  // namespace pipegen::sql
