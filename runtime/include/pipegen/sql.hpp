// Tables, and rows on their way into them. Generated code describes its tables and fills batches; runtime/sql knows how
// SQLite and PostgreSQL take them.
//
//   pipegen::sql::Row row = batch.add_row(kOrders);
//   row.add(order.order_key);
//   row.add(order.total_price);   // one add() per column, in the order of the table
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/types.hpp"

namespace pipegen::sql {

/// What a column holds. PostgreSQL: boolean, integer, bigint, double precision, numeric(p,s), text or varchar(n),
/// bytea, uuid, timestamptz, date, json. SQLite (STRICT tables): INTEGER, INTEGER, INTEGER, REAL, TEXT (a decimal never
/// goes through a float), TEXT, BLOB, TEXT, TEXT, TEXT, TEXT.
enum class Kind { kBool, kInt32, kInt64, kFloat64, kDecimal, kText, kBytes, kUuid, kTimestamp, kDate, kJson };

struct Column {
  std::string name{};
  Kind kind = Kind::kText;
  bool nullable = false;
  int precision = 0;                  // kDecimal
  int scale = 0;                      // kDecimal
  std::int64_t max_length = 0;        // kText: code points; 0: any
  int since = 1;                      // the version of the schema that added it
  std::optional<std::string> fill{};  // what rows have that were there before, as it stands in JSON: `"open"`, `0`
};

struct Index {
  std::vector<std::size_t> columns{};
  bool unique = false;
};

/// `columns` hold the key of `table`.
struct ForeignKey {
  std::vector<std::size_t> columns{};
  std::string table{};
  std::vector<std::string> referenced{};
};

/// What a row does that meets one of the same key.
enum class OnConflict {
  kUpdate,  // replaces it, unless that one is of a newer message
  kIgnore,  // the first one stays
  kReject,  // the message goes to the dead letters, unless that one is of this very message
};

/// A table of rows that belong to another table's rows has `parent`: the rows of one parent row are replaced as a set
/// when that row is written. Any other table has, behind its columns, a column `pipegen_version` that the runtime
/// fills.
struct Table {
  std::string name{};
  std::vector<Column> columns{};
  std::vector<std::size_t> key{};
  OnConflict on_conflict = OnConflict::kUpdate;
  std::optional<std::size_t> parent{};     // index of a table before this one
  std::vector<std::size_t> parent_key{};   // columns that hold the parent's key, in the order of its key
  std::vector<ForeignKey> foreign_keys{};  // to tables before this one, or to itself
  std::vector<Index> indexes{};
  int since = 1;
};

/// The tables of a pipeline, those that others refer to first.
struct Schema {
  std::string pipeline{};
  std::vector<Table> tables{};

  void add_table(Table table);
};

/// One value of a row. Numbers are in `number` or `real`; text and octets are in the arena of the batch.
struct Cell {
  enum class Kind : std::uint8_t { kNull, kInteger, kReal, kText, kBytes };
  Kind kind = Kind::kNull;
  std::uint32_t size = 0;
  union {
    std::int64_t integer = 0;  // bool: 0 or 1; timestamp: microseconds since 1970; date: days since 1970
    double real;
    std::size_t offset;
  };
};

class Batch;

/// A row being filled. Valid until the next row of the same batch is begun.
class Row {
 public:
  void add(bool value);
  void add(std::int32_t value);
  void add(std::int64_t value);
  void add(double value);
  void add(std::string_view value);
  void add(const char* value) { add(std::string_view(value)); }
  void add(const std::string& value) { add(std::string_view(value)); }
  void add(BytesView value);
  void add(const Bytes& value) { add(BytesView(value)); }
  void add(const Uuid& value);
  void add(const Decimal& value);
  void add(Timestamp value);
  void add(Date value);
  void add(const Json& value);
  void add_null();
  template <typename T>
  void add(const std::optional<T>& value) {
    if (value) {
      add(*value);
    } else {
      add_null();
    }
  }
  template <typename Bucket>
  void add(const ObjectKey<Bucket>& key) {
    add(std::string_view(key.name));
  }

 private:
  friend class Batch;
  Row(Batch& batch, std::size_t table) : batch_(batch), table_(table) {}
  Cell& next();
  void add_octets(Cell::Kind kind, std::string_view octets);
  std::string column() const;

  Batch& batch_;
  std::size_t table_;
};

/// The rows of some messages, table by table. Not thread safe. Cheap to use again after clear().
class Batch {
 public:
  explicit Batch(const Schema& schema);

  /// The rows that follow are of a message; gives its index, counted from 0. `version` orders the messages of all time:
  /// see Session::write.
  std::size_t begin_message(std::int64_t version);
  /// Takes back the rows of the message that was begun last: its index will be given again.
  void take_back_message();
  Row add_row(std::size_t table);
  void clear();

  struct Rows {
    std::vector<Cell> cells{};             // row by row
    std::vector<std::uint32_t> message{};  // of each row
  };
  const Schema& schema() const { return *schema_; }
  const Rows& rows(std::size_t table) const { return tables_[table]; }
  std::size_t messages() const { return versions_.size(); }
  std::int64_t version(std::size_t message) const { return versions_[message]; }
  /// Of a cell of kind kText or kBytes.
  std::string_view text(const Cell& cell) const { return std::string_view(arena_).substr(cell.offset, cell.size); }

 private:
  friend class Row;
  const Schema* schema_;
  std::vector<Rows> tables_;
  std::vector<std::int64_t> versions_;
  std::string arena_;
};

}  // namespace pipegen::sql
