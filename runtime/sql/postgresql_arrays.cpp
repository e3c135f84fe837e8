#include "sql/postgresql_arrays.hpp"

#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "pipegen/error.hpp"
#include "sql/status.hpp"

namespace pipegen::sql {
namespace {

// Of pg_type; they never change.
enum Oid : std::uint32_t {
  kBoolOid = 16,
  kByteaOid = 17,
  kInt8Oid = 20,
  kInt4Oid = 23,
  kTextOid = 25,
  kJsonOid = 114,
  kFloat8Oid = 701,
  kDateOid = 1082,
  kTimestamptzOid = 1184,
  kNumericOid = 1700,
  kUuidOid = 2950,
};

Oid oid_of(Kind kind) {
  switch (kind) {
    case Kind::kBool:
      return kBoolOid;
    case Kind::kInt32:
      return kInt4Oid;
    case Kind::kInt64:
      return kInt8Oid;
    case Kind::kFloat64:
      return kFloat8Oid;
    case Kind::kDecimal:
      return kNumericOid;
    case Kind::kText:
      return kTextOid;
    case Kind::kBytes:
      return kByteaOid;
    case Kind::kUuid:
      return kUuidOid;
    case Kind::kTimestamp:
      return kTimestamptzOid;
    case Kind::kDate:
      return kDateOid;
    case Kind::kJson:
      return kJsonOid;
  }
  return kTextOid;
}

Cell::Kind cell_of(Kind kind) {
  switch (kind) {
    case Kind::kFloat64:
      return Cell::Kind::kReal;
    case Kind::kDecimal:
    case Kind::kText:
    case Kind::kJson:
      return Cell::Kind::kText;
    case Kind::kBytes:
    case Kind::kUuid:
      return Cell::Kind::kBytes;
    default:
      return Cell::Kind::kInteger;
  }
}

constexpr std::size_t kHead = 20;    // of an array of one dimension
constexpr std::size_t kNumber = 12;  // the most that a number takes, with its length

char* put_octets(char* at, std::string_view octets) {
  at = put_big_endian(at, static_cast<std::uint32_t>(octets.size()));
  if (!octets.empty()) std::memcpy(at, octets.data(), octets.size());
  return at + octets.size();
}

char* put_int64(char* at, std::int64_t number) {
  at = put_big_endian(at, std::uint32_t{8});
  return put_big_endian(at, static_cast<std::uint64_t>(number));
}

char* put_null(char* at) { return put_big_endian(at, ~std::uint32_t{0}); }

/// Any of the kinds that cells hold as integers.
char* put_integer(char* at, const Table& table, const Column& column, std::int64_t number) {
  switch (column.kind) {
    case Kind::kBool:
      at = put_big_endian(at, std::uint32_t{1});
      *at = static_cast<char>(number != 0);
      return at + 1;
    case Kind::kInt32:
    case Kind::kDate: {
      const std::int64_t shifted = column.kind == Kind::kDate ? number - kDaysTo2000 : number;
      if (shifted < std::numeric_limits<std::int32_t>::min() || shifted > std::numeric_limits<std::int32_t>::max()) {
        throw PermanentError(table.name + "." + column.name + " does not fit its column");
      }
      at = put_big_endian(at, std::uint32_t{4});
      return put_big_endian(at, static_cast<std::uint32_t>(shifted));
    }
    case Kind::kTimestamp:
      return put_int64(at, number - kMicrosTo2000);
    default:
      return put_int64(at, number);
  }
}

}  // namespace

std::string_view array_type(Kind kind) {
  switch (kind) {
    case Kind::kBool:
      return "boolean[]";
    case Kind::kInt32:
      return "integer[]";
    case Kind::kInt64:
      return "bigint[]";
    case Kind::kFloat64:
      return "double precision[]";
    case Kind::kDecimal:
      return "numeric[]";
    case Kind::kText:
      return "text[]";
    case Kind::kBytes:
      return "bytea[]";
    case Kind::kUuid:
      return "uuid[]";
    case Kind::kTimestamp:
      return "timestamptz[]";
    case Kind::kDate:
      return "date[]";
    case Kind::kJson:
      return "json[]";
  }
  return "text[]";
}

char* put_numeric(char* at, std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const auto point = std::min(text.find('.'), text.size());
  const std::string_view integer = text.substr(0, point);
  const std::string_view fraction = text.substr(std::min(point + 1, text.size()));

  // Digits to the base of 10,000, the point between two of them.
  char* const head = at;
  at += 8;
  int digits = 0;
  int weight = -1;  // of the first digit; -1: the first behind the point
  int trailing_zeros = 0;
  const auto put = [&](int digit) {
    if (digits == 0 && digit == 0) return false;
    at = put_big_endian(at, static_cast<std::uint16_t>(digit));
    ++digits;
    trailing_zeros = digit == 0 ? trailing_zeros + 1 : 0;
    return true;
  };
  const std::size_t groups = (integer.size() + 3) / 4;
  std::size_t next = 0;
  for (std::size_t group = 0; group < groups; ++group) {
    int digit = 0;
    for (const std::size_t end = integer.size() - (groups - 1 - group) * 4; next < end; ++next) {
      digit = digit * 10 + (integer[next] - '0');
    }
    if (put(digit) && digits == 1) weight = static_cast<int>(groups - 1 - group);
  }
  for (std::size_t i = 0; i < fraction.size(); i += 4) {
    int digit = 0;
    for (std::size_t k = i; k < i + 4; ++k) digit = digit * 10 + (k < fraction.size() ? fraction[k] - '0' : 0);
    if (put(digit) && digits == 1) weight = -1 - static_cast<int>(i / 4);
  }
  at -= trailing_zeros * 2;
  digits -= trailing_zeros;
  char* field = put_big_endian(head, static_cast<std::uint16_t>(digits));
  field = put_big_endian(field, static_cast<std::uint16_t>(digits == 0 ? 0 : weight));
  field = put_big_endian(field, static_cast<std::uint16_t>(negative && digits > 0 ? 0x4000 : 0));
  put_big_endian(field, static_cast<std::uint16_t>(fraction.size()));
  return at;
}

void Parameters::clear() {
  used_ = 0;
  offsets_.clear();
  lengths_.clear();
}

/// Room for the next parameter, of which end() says where it ends.
char* Parameters::begin(std::size_t most) {
  if (octets_.size() < used_ + most) octets_.resize(std::max(used_ + most, octets_.size() * 2));
  offsets_.push_back(static_cast<std::int64_t>(used_));
  return octets_.data() + used_;
}

void Parameters::end(const char* at) {
  const auto length = static_cast<std::size_t>(at - (octets_.data() + used_));
  // PostgreSQL takes no value of a gigabyte.
  if (length > std::size_t{1} << 30) throw PermanentError("a batch has more than 1 GiB in one column");
  lengths_.push_back(static_cast<int>(length));
  used_ += length;
}

char* Parameters::put_head(char* at, std::size_t items, std::uint32_t element) {
  at = put_big_endian(at, std::uint32_t{1});  // dimensions
  at = put_big_endian(at, std::uint32_t{1});  // there may be NULLs
  at = put_big_endian(at, element);
  at = put_big_endian(at, static_cast<std::uint32_t>(items));
  return put_big_endian(at, std::uint32_t{1});  // the first index
}

void Parameters::add_column(const Batch& batch, std::size_t table, std::size_t column,
                            std::span<const std::uint32_t> rows) {
  const Table& of = batch.schema().tables[table];
  const Column& type = of.columns[column];
  const std::size_t width = of.columns.size();
  const Cell* cells = batch.rows(table).cells.data() + column;
  const Cell::Kind expected = cell_of(type.kind);
  const bool has_octets = expected == Cell::Kind::kText || expected == Cell::Kind::kBytes;

  std::size_t most = kHead + rows.size() * kNumber;
  for (const std::uint32_t row : rows) {
    const Cell& cell = cells[row * width];
    if (cell.kind != expected && cell.kind != Cell::Kind::kNull) {
      throw std::logic_error(of.name + "." + type.name + " was given a value of another type");
    }
    if (has_octets && cell.kind != Cell::Kind::kNull) most += cell.size + 16;
  }
  char* at = put_head(begin(most), rows.size(), oid_of(type.kind));
  for (const std::uint32_t row : rows) {
    const Cell& cell = cells[row * width];
    if (cell.kind == Cell::Kind::kNull) {
      at = put_null(at);
    } else if (type.kind == Kind::kDecimal) {
      char* const end = put_numeric(at + 4, batch.text(cell));
      put_big_endian(at, static_cast<std::uint32_t>(end - at - 4));
      at = end;
    } else if (has_octets) {
      at = put_octets(at, batch.text(cell));
    } else if (type.kind == Kind::kFloat64) {
      at = put_int64(at, std::bit_cast<std::int64_t>(cell.real));
    } else {
      at = put_integer(at, of, type, cell.integer);
    }
  }
  end(at);
}

void Parameters::add_versions(const Batch& batch, std::size_t table, std::span<const std::uint32_t> rows) {
  char* at = put_head(begin(kHead + rows.size() * kNumber), rows.size(), kInt8Oid);
  for (const std::uint32_t row : rows) at = put_int64(at, batch.version(batch.rows(table).message[row]));
  end(at);
}

void Parameters::add_text(std::string_view text) {
  char* const at = begin(text.size());
  if (!text.empty()) std::memcpy(at, text.data(), text.size());
  end(at + text.size());
}

void Parameters::add_integer(std::int32_t number) { end(put_big_endian(begin(4), static_cast<std::uint32_t>(number))); }

void Parameters::add_timestamp(Timestamp time) {
  end(put_big_endian(begin(8), static_cast<std::uint64_t>(time.time_since_epoch().count() - kMicrosTo2000)));
}

void Parameters::add_null() {
  offsets_.push_back(-1);
  lengths_.push_back(0);
}

template <typename Text>
void Parameters::add_texts(std::size_t count, Text text, bool empty_is_null) {
  std::size_t most = kHead;
  for (std::size_t i = 0; i < count; ++i) most += 4 + std::string_view(text(i)).size();
  char* at = put_head(begin(most), count, kTextOid);
  for (std::size_t i = 0; i < count; ++i) {
    const auto& value = text(i);
    at = empty_is_null && value.empty() ? put_null(at) : put_octets(at, value);
  }
  end(at);
}

void Parameters::add_statuses(std::span<const MessageStatus* const> statuses) {
  const std::size_t count = statuses.size();
  std::vector<std::string> errors(count);
  for (std::size_t i = 0; i < count; ++i) errors[i] = storable(statuses[i]->error);
  add_texts(
      count, [&](std::size_t i) -> const std::string& { return statuses[i]->message_id; }, false);
  add_texts(
      count, [&](std::size_t i) -> const std::string& { return statuses[i]->entity_type; }, false);
  add_texts(
      count, [&](std::size_t i) { return to_string(statuses[i]->state); }, false);
  char* at = put_head(begin(kHead + count * kNumber), count, kInt4Oid);
  for (const MessageStatus* status : statuses) {
    at = put_big_endian(at, std::uint32_t{4});
    at = put_big_endian(at, static_cast<std::uint32_t>(status->attempts));
  }
  end(at);
  add_texts(
      count, [&](std::size_t i) -> const std::string& { return errors[i]; }, true);
  for (const auto time : {&MessageStatus::received_at, &MessageStatus::updated_at}) {
    at = put_head(begin(kHead + count * kNumber), count, kTimestamptzOid);
    for (const MessageStatus* status : statuses) {
      at = put_int64(at, (status->*time).time_since_epoch().count() - kMicrosTo2000);
    }
    end(at);
  }
  add_texts(
      count, [&](std::size_t i) -> const std::string& { return statuses[i]->traceparent; }, true);
}

const char* const* Parameters::values() {
  values_.clear();
  for (const std::int64_t offset : offsets_) values_.push_back(offset < 0 ? nullptr : octets_.data() + offset);
  return values_.data();
}

const int* Parameters::formats() {
  formats_.assign(offsets_.size(), 1);
  return formats_.data();
}

}  // namespace pipegen::sql
