#include "sql/selection.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <stdexcept>
#include <string>

namespace pipegen::sql {
namespace {

std::size_t checked_root(const Schema& schema, std::size_t table) {
  while (schema.tables[table].parent) {
    const std::size_t parent = *schema.tables[table].parent;
    if (parent >= table) throw std::logic_error(schema.tables[table].name + " comes before its parent");
    table = parent;
  }
  return table;
}

const Cell* row_of(const Batch& batch, std::size_t table, std::uint32_t row) {
  return batch.rows(table).cells.data() + row * batch.schema().tables[table].columns.size();
}

/// Numbers that are equal are so in their bits: there is no NaN, and -0 is 0.
std::uint64_t bits_of(const Cell& cell) {
  if (cell.kind == Cell::Kind::kReal) return std::bit_cast<std::uint64_t>(cell.real == 0 ? 0.0 : cell.real);
  return cell.kind == Cell::Kind::kNull ? 0 : static_cast<std::uint64_t>(cell.integer);
}

bool has_octets(const Cell& cell) { return cell.kind == Cell::Kind::kText || cell.kind == Cell::Kind::kBytes; }

std::uint64_t hash_of(const Batch& batch, const Cell* row, std::span<const std::size_t> key) {
  std::uint64_t hash = 0x9e3779b97f4a7c15U;
  for (const std::size_t column : key) {
    const Cell& cell = row[column];
    hash ^= has_octets(cell) ? std::hash<std::string_view>()(batch.text(cell)) : bits_of(cell);
    hash *= 0xff51afd7ed558ccdU;
    hash ^= hash >> 32;
  }
  return hash;
}

bool same_cell(const Batch& batch, const Cell& a, const Cell& b) {
  if (a.kind != b.kind) return false;
  return has_octets(a) ? batch.text(a) == batch.text(b) : bits_of(a) == bits_of(b);
}

/// Any order will do that all writers share.
bool before(const Batch& batch, const Cell* a, const Cell* b, std::span<const std::size_t> key) {
  for (const std::size_t column : key) {
    if (has_octets(a[column])) {
      if (const int order = batch.text(a[column]).compare(batch.text(b[column])); order != 0) return order < 0;
    } else if (bits_of(a[column]) != bits_of(b[column])) {
      return bits_of(a[column]) < bits_of(b[column]);
    }
  }
  return false;
}

}  // namespace

std::vector<Ancestry> ancestries(const Schema& schema) {
  std::vector<Ancestry> result(schema.tables.size());
  for (std::size_t i = 0; i < schema.tables.size(); ++i) {
    const Table& table = schema.tables[i];
    Ancestry& ancestry = result[i];
    ancestry.root = checked_root(schema, i);
    if (!table.parent) {
      if (table.key.empty()) throw std::logic_error(table.name + " has no key");
      ancestry.root_key = table.key;
      continue;
    }
    result[ancestry.root].has_children = true;
    // The parent has the root's key in columns of its own key, and this table has those in `parent_key`.
    const Table& parent = schema.tables[*table.parent];
    for (const std::size_t column : result[*table.parent].root_key) {
      const auto place = std::find(parent.key.begin(), parent.key.end(), column) - parent.key.begin();
      if (static_cast<std::size_t>(place) >= table.parent_key.size()) {
        throw std::logic_error(table.name + " does not hold the key of " + schema.tables[ancestry.root].name);
      }
      ancestry.root_key.push_back(table.parent_key[static_cast<std::size_t>(place)]);
    }
  }
  return result;
}

// ---- keys -----------------------------------------------------------------------------------------------------------

void KeyIndex::reset(std::size_t rows) { slots_.assign(std::bit_ceil(std::max<std::size_t>(rows * 2, 8)), Slot{}); }

std::uint32_t& KeyIndex::insert(const Batch& batch, std::size_t table, std::span<const std::size_t> key,
                                std::uint32_t row) {
  const Cell* cells = row_of(batch, table, row);
  const std::uint64_t hash = hash_of(batch, cells, key);
  for (std::size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    Slot& slot = slots_[i];
    if (slot.row == kFree) {
      slot = {hash, row};
      return slot.row;
    }
    if (slot.hash != hash) continue;
    const Cell* other = row_of(batch, table, slot.row);
    bool same = true;
    for (std::size_t k = 0; k < key.size() && same; ++k) same = same_cell(batch, cells[key[k]], other[key[k]]);
    if (same) return slot.row;
  }
}

std::optional<std::uint32_t> KeyIndex::find(const Batch& batch, std::size_t table, std::span<const std::size_t> key,
                                            std::size_t other, std::span<const std::size_t> other_key,
                                            std::uint32_t other_row) const {
  if (slots_.empty()) return std::nullopt;
  const Cell* wanted = row_of(batch, other, other_row);
  const std::uint64_t hash = hash_of(batch, wanted, other_key);
  for (std::size_t i = hash & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    const Slot& slot = slots_[i];
    if (slot.row == kFree) return std::nullopt;
    if (slot.hash != hash) continue;
    const Cell* cells = row_of(batch, table, slot.row);
    bool same = true;
    for (std::size_t k = 0; k < key.size() && same; ++k) same = same_cell(batch, cells[key[k]], wanted[other_key[k]]);
    if (same) return slot.row;
  }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

Selection::Selection(const Schema& schema, const std::vector<Ancestry>& ancestries, bool sorted)
    : schema_(schema),
      ancestries_(ancestries),
      sorted_(sorted),
      rows_(schema.tables.size()),
      keys_(schema.tables.size()),
      chosen_(schema.tables.size()) {}

std::vector<Session::Rejected> Selection::select(const Batch& batch) {
  std::vector<Session::Rejected> rejected;
  for (std::size_t i = 0; i < schema_.tables.size(); ++i) {
    const Table& table = schema_.tables[i];
    const Batch::Rows& rows = batch.rows(i);
    if (rows.cells.size() != rows.message.size() * table.columns.size()) {
      throw std::logic_error("a row of " + table.name + " has fewer values than the table has columns");
    }
    rows_[i].clear();
    if (table.parent || rows.message.empty()) continue;

    const auto count = static_cast<std::uint32_t>(rows.message.size());
    const auto version = [&](std::uint32_t row) { return batch.version(rows.message[row]); };
    std::vector<bool>& chosen = chosen_[i];
    chosen.assign(count, true);
    keys_[i].reset(count);
    for (std::uint32_t row = 0; row < count; ++row) {
      std::uint32_t& other = keys_[i].insert(batch, i, table.key, row);
      if (other == row) continue;
      // Of equal versions the first stays, as it would if it were in the table already.
      const bool wins =
          table.on_conflict == OnConflict::kUpdate ? version(row) > version(other) : version(row) < version(other);
      const std::uint32_t loser = wins ? other : row;
      if (table.on_conflict == OnConflict::kReject && version(row) != version(other)) {
        rejected.push_back({rows.message[loser], table.name + " has a row with this key from an earlier message"});
      }
      chosen[loser] = false;
      if (wins) other = row;
    }
    for (std::uint32_t row = 0; row < count; ++row) {
      if (chosen[row]) rows_[i].push_back(row);
    }
    if (sorted_) {
      std::sort(rows_[i].begin(), rows_[i].end(), [&](std::uint32_t a, std::uint32_t b) {
        return before(batch, row_of(batch, i, a), row_of(batch, i, b), table.key);
      });
    }
  }
  return rejected;
}

void Selection::lose(std::size_t table, std::uint32_t row) { chosen_[table][row] = false; }

void Selection::select_children(const Batch& batch) {
  for (std::size_t i = 0; i < schema_.tables.size(); ++i) {
    const Ancestry& ancestry = ancestries_[i];
    const std::size_t root = ancestry.root;
    if (root == i) {
      if (ancestry.has_children) std::erase_if(rows_[i], [&](std::uint32_t row) { return !chosen_[i][row]; });
      continue;
    }
    const auto count = static_cast<std::uint32_t>(batch.rows(i).message.size());
    for (std::uint32_t row = 0; row < count; ++row) {
      const auto parent = batch.rows(root).message.empty()
                              ? std::nullopt
                              : keys_[root].find(batch, root, schema_.tables[root].key, i, ancestry.root_key, row);
      if (!parent) throw std::logic_error("a row of " + schema_.tables[i].name + " has no parent in its message");
      if (chosen_[root][*parent] && batch.rows(root).message[*parent] == batch.rows(i).message[row]) {
        rows_[i].push_back(row);
      }
    }
  }
}

bool Selection::any() const {
  return std::any_of(rows_.begin(), rows_.end(), [](const auto& rows) { return !rows.empty(); });
}

}  // namespace pipegen::sql
