// Columns of rows as the binary arrays that PostgreSQL's unnest() takes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/sql.hpp"
#include "sql/database.hpp"

namespace pipegen::sql {

/// Of a statement, used again for each. Every one is in the binary format.
class Parameters {
 public:
  void clear();
  /// The values of one column of some rows. Throws PermanentError for a number that the column's type does not hold.
  void add_column(const Batch& batch, std::size_t table, std::size_t column, std::span<const std::uint32_t> rows);
  /// The versions of the messages of some rows.
  void add_versions(const Batch& batch, std::size_t table, std::span<const std::uint32_t> rows);
  void add_text(std::string_view text);
  void add_integer(std::int32_t number);
  void add_timestamp(Timestamp time);
  void add_null();
  /// One array for each column of message_status.
  void add_statuses(std::span<const MessageStatus* const> statuses);

  // As libpq takes them. Valid until the next change.
  int count() const { return static_cast<int>(offsets_.size()); }
  const char* const* values();
  const int* lengths() const { return lengths_.data(); }
  const int* formats();

 private:
  char* begin(std::size_t most);
  void end(const char* at);
  static char* put_head(char* at, std::size_t items, std::uint32_t element);
  template <typename Text>
  void add_texts(std::size_t count, Text text, bool empty_is_null);

  std::string octets_;
  std::size_t used_ = 0;
  std::vector<std::int64_t> offsets_{};  // -1: NULL
  std::vector<int> lengths_{};
  std::vector<const char*> values_{};
  std::vector<int> formats_{};
};

/// The type of the parameter that add_column() makes, as a cast: "text[]".
std::string_view array_type(Kind kind);

/// "-12.50" as PostgreSQL sends a numeric. Gives the end; needs at most `text.size() + 16` octets.
char* put_numeric(char* at, std::string_view text);

/// Between our times and PostgreSQL's, which begin in 2000.
inline constexpr std::int64_t kMicrosTo2000 = 946'684'800'000'000;
inline constexpr std::int64_t kDaysTo2000 = 10'957;

template <typename Number>
char* put_big_endian(char* at, Number number) {
  for (std::size_t i = sizeof number; i-- > 0; number = static_cast<Number>(number >> 4 >> 4)) {
    at[i] = static_cast<char>(number & 0xff);
  }
  return at + sizeof number;
}

}  // namespace pipegen::sql
