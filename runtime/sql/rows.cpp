#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "pipegen/error.hpp"
#include "pipegen/sql.hpp"

namespace pipegen::sql {

void Schema::add_table(Table table) { tables.push_back(std::move(table)); }

// ---- rows -----------------------------------------------------------------------------------------------------------

Cell& Row::next() {
  Batch::Rows& rows = batch_.tables_[table_];
  const Table& table = batch_.schema_->tables[table_];
  if (rows.cells.size() == rows.message.size() * table.columns.size()) {
    throw std::logic_error("a row of " + table.name + " has more values than the table has columns");
  }
  return rows.cells.emplace_back();
}

std::string Row::column() const {
  const Batch::Rows& rows = batch_.tables_[table_];
  const Table& table = batch_.schema_->tables[table_];
  const std::size_t place = rows.cells.size() - (rows.message.size() - 1) * table.columns.size();
  return place < table.columns.size() ? table.name + "." + table.columns[place].name : table.name;
}

void Row::add_octets(Cell::Kind kind, std::string_view octets) {
  if (octets.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw PermanentError(column() + " is larger than 4 GiB, which databases do not store");
  }
  Cell& cell = next();
  cell.kind = kind;
  cell.size = static_cast<std::uint32_t>(octets.size());
  cell.offset = batch_.arena_.size();
  batch_.arena_.append(octets);
}

void Row::add(bool value) { add(static_cast<std::int64_t>(value)); }
void Row::add(std::int32_t value) { add(static_cast<std::int64_t>(value)); }

void Row::add(std::int64_t value) {
  Cell& cell = next();
  cell.kind = Cell::Kind::kInteger;
  cell.integer = value;
}

void Row::add(double value) {
  // SQLite would make NULL of a NaN.
  if (!std::isfinite(value)) throw PermanentError(column() + " is not a finite number");
  Cell& cell = next();
  cell.kind = Cell::Kind::kReal;
  cell.real = value;
}

void Row::add(std::string_view value) {
  if (!value.empty() && std::memchr(value.data(), 0, value.size()) != nullptr) {
    throw PermanentError(column() + " holds a NUL character, which databases do not store");
  }
  add_octets(Cell::Kind::kText, value);
}

void Row::add(BytesView value) { add_octets(Cell::Kind::kBytes, text_of(value)); }
void Row::add(const Uuid& value) { add_octets(Cell::Kind::kBytes, text_of(std::as_bytes(std::span(value.octets)))); }
void Row::add(const Decimal& value) { add_octets(Cell::Kind::kText, value.to_string()); }
void Row::add(Timestamp value) { add(static_cast<std::int64_t>(value.time_since_epoch().count())); }
void Row::add(Date value) { add(static_cast<std::int64_t>(std::chrono::sys_days(value).time_since_epoch().count())); }
void Row::add(const Json& value) { add(std::string_view(value.text)); }

void Row::add_null() {
  const Batch::Rows& rows = batch_.tables_[table_];
  const Table& table = batch_.schema_->tables[table_];
  const std::size_t place = rows.cells.size() - (rows.message.size() - 1) * table.columns.size();
  // Not left to the database: SQLite takes NULL in a key as "make one up".
  if (place < table.columns.size() && !table.columns[place].nullable) throw PermanentError(column() + " is null");
  next().kind = Cell::Kind::kNull;
}

// ---- batches --------------------------------------------------------------------------------------------------------

Batch::Batch(const Schema& schema) : schema_(&schema), tables_(schema.tables.size()) {}

std::size_t Batch::begin_message(std::int64_t version) {
  versions_.push_back(version);
  return versions_.size() - 1;
}

void Batch::take_back_message() {
  if (versions_.empty()) throw std::logic_error("no message was begun that could be taken back");
  versions_.pop_back();
  std::size_t arena = arena_.size();
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    Rows& rows = tables_[i];
    while (!rows.message.empty() && rows.message.back() == versions_.size()) rows.message.pop_back();
    const std::size_t kept = rows.message.size() * schema_->tables[i].columns.size();
    for (std::size_t cell = kept; cell < rows.cells.size(); ++cell) {
      const Cell::Kind kind = rows.cells[cell].kind;
      if (kind != Cell::Kind::kText && kind != Cell::Kind::kBytes) continue;
      arena = std::min(arena, rows.cells[cell].offset);
    }
    rows.cells.resize(kept);
  }
  arena_.resize(arena);
}

Row Batch::add_row(std::size_t table) {
  Rows& rows = tables_.at(table);
  if (versions_.empty()) throw std::logic_error("a row belongs to a message: begin_message comes first");
  if (rows.cells.size() != rows.message.size() * schema_->tables[table].columns.size()) {
    throw std::logic_error("a row of " + schema_->tables[table].name + " has fewer values than the table has columns");
  }
  rows.message.push_back(static_cast<std::uint32_t>(versions_.size() - 1));
  return Row(*this, table);
}

void Batch::clear() {
  for (Rows& rows : tables_) {
    rows.cells.clear();
    rows.message.clear();
  }
  versions_.clear();
  arena_.clear();
}

}  // namespace pipegen::sql
