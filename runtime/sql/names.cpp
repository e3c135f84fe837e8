#include "sql/names.hpp"

#include <algorithm>

#include "core/encoding.hpp"
#include "core/sha256.hpp"
#include "pipegen/json.hpp"

namespace pipegen::sql {
namespace {

std::string doubled(std::string_view text, char mark) {
  std::string out(1, mark);
  for (const char c : text) {
    out += c;
    if (c == mark) out += c;
  }
  return out += mark;
}

std::string type_of(const Column& column, Dialect dialect) {
  const bool sqlite = dialect == Dialect::kSqlite;
  switch (column.kind) {
    case Kind::kBool:
      return sqlite ? "INTEGER" : "boolean";
    case Kind::kInt32:
      return sqlite ? "INTEGER" : "integer";
    case Kind::kInt64:
      return sqlite ? "INTEGER" : "bigint";
    case Kind::kFloat64:
      return sqlite ? "REAL" : "double precision";
    case Kind::kDecimal:
      if (sqlite) return "TEXT";
      return "numeric(" + std::to_string(column.precision) + "," + std::to_string(column.scale) + ")";
    case Kind::kText:
      // PostgreSQL takes no varchar longer than this.
      if (sqlite) return "TEXT";
      if (column.max_length <= 0 || column.max_length > 10'485'760) return "text";
      return "varchar(" + std::to_string(column.max_length) + ")";
    case Kind::kBytes:
      return sqlite ? "BLOB" : "bytea";
    case Kind::kUuid:
      return sqlite ? "TEXT" : "uuid";
    case Kind::kTimestamp:
      return sqlite ? "TEXT" : "timestamptz";
    case Kind::kDate:
      return sqlite ? "TEXT" : "date";
    case Kind::kJson:
      return sqlite ? "TEXT" : "json";
  }
  return {};
}

/// The value of `fill` as a literal.
std::string fill_of(const Column& column, Dialect dialect) {
  const std::string& text = *column.fill;
  const bool sqlite = dialect == Dialect::kSqlite;
  const auto read = [&](auto read_value) { return json::parse(text, read_value); };
  switch (column.kind) {
    case Kind::kBool: {
      const bool value = read([](json::Reader& in) { return in.boolean(); });
      return sqlite ? (value ? "1" : "0") : (value ? "true" : "false");
    }
    case Kind::kInt32:
    case Kind::kInt64:
      return to_text(read([](json::Reader& in) { return in.int64(); }));
    case Kind::kFloat64:
      return to_text(read([](json::Reader& in) { return in.float64(); }));
    case Kind::kDecimal:
      return literal(read([&](json::Reader& in) {
                       return in.decimal({.precision = column.precision, .scale = column.scale});
                     }).to_string());
    case Kind::kText:
      return literal(read([](json::Reader& in) { return in.string(); }));
    case Kind::kBytes: {
      const std::string digits = hex(read([](json::Reader& in) { return in.bytes(); }));
      return sqlite ? "X'" + digits + "'" : "'\\x" + digits + "'";
    }
    case Kind::kUuid:
      return literal(read([](json::Reader& in) { return in.uuid(); }).to_string());
    case Kind::kTimestamp:
      return literal(fixed_width(read([](json::Reader& in) { return in.timestamp(); })));
    case Kind::kDate:
      return literal(to_string(read([](json::Reader& in) { return in.date(); })));
    case Kind::kJson:
      return literal(read([](json::Reader& in) { return in.json(); }).text);
  }
  return {};
}

}  // namespace

std::string quote(std::string_view identifier) { return doubled(identifier, '"'); }
std::string literal(std::string_view text) { return doubled(text, '\''); }

std::string column_list(const Table& table, std::span<const std::size_t> columns, std::string_view prefix) {
  std::string list;
  for (const std::size_t column : columns) {
    if (!list.empty()) list += ", ";
    list.append(prefix).append(quote(table.columns.at(column).name));
  }
  return list;
}

std::string row_columns(const Table& table) {
  std::string list;
  for (const Column& column : table.columns) {
    if (!list.empty()) list += ", ";
    list += quote(column.name);
  }
  if (!table.parent) list += ", " + quote(kVersionColumn);
  return list;
}

std::string conflict_clause(const Table& table) {
  if (table.parent) return {};
  std::string clause = " ON CONFLICT (" + column_list(table, table.key) + ") DO ";
  if (table.on_conflict != OnConflict::kUpdate) return clause + "NOTHING";
  clause += "UPDATE SET ";
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (std::find(table.key.begin(), table.key.end(), i) != table.key.end()) continue;
    const std::string name = quote(table.columns[i].name);
    clause += name + " = excluded." + name + ", ";
  }
  const std::string version = quote(kVersionColumn);
  return clause + version + " = excluded." + version + " WHERE " + quote(table.name) + "." + version + " < excluded." +
         version;
}

std::string status_conflict_clause() {
  return " ON CONFLICT (message_id) DO UPDATE SET entity_type = excluded.entity_type, status = excluded.status, "
         "attempts = CASE WHEN message_status.status = 'completed' THEN message_status.attempts "
         "WHEN message_status.status = 'dead_lettered' AND excluded.attempts > 0 THEN excluded.attempts "
         "ELSE message_status.attempts + excluded.attempts END, "
         "error = coalesce(excluded.error, message_status.error), "
         "updated_at = excluded.updated_at, traceparent = "
         "coalesce(excluded.traceparent, message_status.traceparent)";
}

std::string attempt_conflict_clause() {
  return " ON CONFLICT (message_id) DO UPDATE SET attempts = CASE message_status.status "
         "WHEN 'completed' THEN message_status.attempts + CASE excluded.status WHEN 'processing' THEN 0 ELSE 1 END "
         "WHEN 'dead_lettered' THEN excluded.attempts ELSE message_status.attempts + excluded.attempts END, "
         "status = CASE message_status.status WHEN 'completed' THEN 'completed' ELSE excluded.status END, "
         "error = excluded.error, updated_at = excluded.updated_at, "
         "traceparent = coalesce(excluded.traceparent, message_status.traceparent)";
}

std::string column_definition(const Column& column, Dialect dialect) {
  std::string definition = quote(column.name) + " " + type_of(column, dialect);
  if (!column.nullable) definition += " NOT NULL";
  // It stays: a service of an older version, still running, does not name the column.
  if (column.fill) definition += " DEFAULT " + fill_of(column, dialect);
  if (dialect == Dialect::kSqlite && column.kind == Kind::kText && column.max_length > 0) {
    definition += " CHECK (length(" + quote(column.name) + ") <= " + std::to_string(column.max_length) + ")";
  }
  return definition;
}

std::string index_name(const Table& table, const Index& index) {
  std::string all = table.name;
  std::string shown = table.name;
  for (const std::size_t column : index.columns) {
    const std::string& name = table.columns.at(column).name;
    (all += '\0') += name;
    (shown += '_') += name;
  }
  all += index.unique ? "\0unique" : "";
  // Names of indexes are global, and a_b(c) is not a(b_c): told apart by a hash.
  const std::string hash = hex(Sha256::of(bytes_of(all))).substr(0, 8);
  std::size_t length = std::min<std::size_t>(shown.size(), 63 - 13);
  while (length < shown.size() && length > 0 && (static_cast<unsigned char>(shown[length]) & 0xc0) == 0x80) --length;
  return shown.substr(0, length) + (index.unique ? "_key_" : "_idx_") + hash;
}

std::string fixed_width(Timestamp time) {
  std::string text = to_string(time);  // with six decimals or none
  if (text.size() == 20) text.insert(19, ".000000");
  return text;
}

}  // namespace pipegen::sql
