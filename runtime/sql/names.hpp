// Tables, columns and values as they stand in statements.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/sql.hpp"

namespace pipegen::sql {

enum class Dialect { kSqlite, kPostgresql };

/// The column that the runtime adds to tables without parent: the version of the message that wrote the row.
inline constexpr std::string_view kVersionColumn = "pipegen_version";

/// `order` becomes `"order"`.
std::string quote(std::string_view identifier);
/// `it's` becomes `'it''s'`.
std::string literal(std::string_view text);
/// `"a", "b"`; each with `prefix` before it.
std::string column_list(const Table& table, std::span<const std::size_t> columns, std::string_view prefix = "");
/// Those of the key, and those of a row: with the version where the table has one.
std::string row_columns(const Table& table);
/// What an INSERT of a row does that meets one of the same key. Empty for a table with parent, whose old rows are
/// deleted first.
std::string conflict_clause(const Table& table);
/// The INSERT of status rows ends in this: attempts are added, the last error and the time of receipt stay. A message
/// that is completed and comes again, because its ack was lost, was no other attempt. One that is dead-lettered and
/// comes again is replayed: its attempts are counted anew.
std::string status_conflict_clause();
/// That of an attempt that begins or failed: see Session::note_attempt.
std::string attempt_conflict_clause();

/// Of the column in CREATE TABLE: name, type and constraints.
std::string column_definition(const Column& column, Dialect dialect);
/// Different for different indexes, the same each time, within PostgreSQL's 63 octets.
std::string index_name(const Table& table, const Index& index);

/// A timestamp as SQLite has it: always 27 characters, so that text sorts like time: 2025-01-15T10:00:00.000000Z.
/// Throws PermanentError outside the years 1 to 9999.
std::string fixed_width(Timestamp time);

}  // namespace pipegen::sql
