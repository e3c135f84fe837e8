// Which rows of a batch are written: one for each key, and the children of those alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pipegen/sql.hpp"
#include "sql/database.hpp"

namespace pipegen::sql {

/// What follows from the parents of a table.
struct Ancestry {
  std::size_t root = 0;                 // the table itself, or the topmost parent
  std::vector<std::size_t> root_key{};  // columns that hold the root's key, in its order
  bool has_children = false;
};
/// Of each table. Throws std::logic_error when the schema is none: a parent behind its child, a key that lacks the
/// parent's.
std::vector<Ancestry> ancestries(const Schema& schema);

/// Finds rows of one table by their key.
class KeyIndex {
 public:
  void reset(std::size_t rows);
  /// Gives the place of the row that has this key: `row`, when there was none. Another row of the same key may be put
  /// there.
  std::uint32_t& insert(const Batch& batch, std::size_t table, std::span<const std::size_t> key, std::uint32_t row);
  /// By a key that stands in columns of another table.
  std::optional<std::uint32_t> find(const Batch& batch, std::size_t table, std::span<const std::size_t> key,
                                    std::size_t other, std::span<const std::size_t> other_key,
                                    std::uint32_t other_row) const;

 private:
  static constexpr std::uint32_t kFree = ~std::uint32_t{0};
  struct Slot {
    std::uint64_t hash = 0;
    std::uint32_t row = kFree;
  };
  std::vector<Slot> slots_{};
};

/// Used again for each batch. Not thread safe.
class Selection {
 public:
  /// `sorted`: the rows of tables without parent come in the order of their keys, so that two writers lock them in the
  /// same order.
  Selection(const Schema& schema, const std::vector<Ancestry>& ancestries, bool sorted);

  /// Chooses among the rows of tables without parent. Gives those that are rejected because of other rows of the batch.
  std::vector<Session::Rejected> select(const Batch& batch);
  /// The table had a row that stays.
  void lose(std::size_t table, std::uint32_t row);
  /// Chooses the children of what select() chose and nobody lost.
  void select_children(const Batch& batch);

  /// Of a table: indexes of rows of the batch.
  const std::vector<std::uint32_t>& rows(std::size_t table) const { return rows_[table]; }
  bool any() const;

 private:
  const Schema& schema_;
  const std::vector<Ancestry>& ancestries_;
  bool sorted_;
  std::vector<std::vector<std::uint32_t>> rows_;
  std::vector<KeyIndex> keys_;
  std::vector<std::vector<bool>> chosen_;  // of the rows of a root with children
};

}  // namespace pipegen::sql
