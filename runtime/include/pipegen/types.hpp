// The types of the schema language as C++ types. Plain values: copyable, comparable, without locks.
#pragma once

#include <array>
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pipegen {

/// `bytes` in a schema, and the content of an object. Base64 (RFC 4648, padded) in JSON.
using Bytes = std::vector<std::byte>;
using BytesView = std::span<const std::byte>;

inline BytesView bytes_of(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string_view text_of(BytesView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// `timestamp`: an instant with microseconds. RFC 3339 in JSON, always written in UTC ("2025-01-15T10:00:00Z"; six
/// decimals unless they are all zero). Years 0001 to 9999.
using Timestamp = std::chrono::sys_time<std::chrono::microseconds>;
std::string to_string(Timestamp time);
std::optional<Timestamp> parse_timestamp(std::string_view text);
Timestamp now();

/// `date`: a calendar day. "2025-01-15" in JSON.
using Date = std::chrono::year_month_day;
std::string to_string(Date date);
std::optional<Date> parse_date(std::string_view text);

/// `uuid` (RFC 9562). Lower-case text with hyphens in JSON; read in either case.
struct Uuid {
  std::array<std::uint8_t, 16> octets{};

  auto operator<=>(const Uuid&) const = default;

  std::string to_string() const;
  static std::optional<Uuid> parse(std::string_view text);
  /// A new version 7 UUID: sorts by time of making. Thread safe.
  static Uuid random();
  /// The version 8 UUID made of the first 128 bits of SHA-256(name): the same name gives the same UUID.
  static Uuid derived(std::string_view name);
};

/// `decimal(p,s)`: an exact decimal number, kept as canonical text ("-12.50" for scale 2), never as a float.
class Decimal {
 public:
  Decimal() = default;
  /// Reads "-12.5", "12", "0.50", "1e2"; nothing when it is not a number, or does not fit `precision` digits in all
  /// with `scale` of them after the point without rounding.
  static std::optional<Decimal> parse(std::string_view text, int precision, int scale);
  const std::string& to_string() const { return text_; }
  bool operator==(const Decimal&) const = default;
  /// Compares by value; both must have the same scale.
  std::strong_ordering operator<=>(const Decimal& other) const;

 private:
  std::string text_ = "0";
};

/// `json`: any JSON value, kept as the text that came in (valid JSON, no duplicate keys).
struct Json {
  std::string text = "null";
  bool operator==(const Json&) const = default;
};

/// Where an object lies: bucket as the schema names it (the settings may map it to another), and name in it.
struct ObjectRef {
  std::string bucket;
  std::string name;
};

/// `object<BUCKET>`: the key of an object in a bucket (claim check). `Bucket` is a generated tag with `kName`.
template <typename Bucket>
struct ObjectKey {
  std::string name;

  auto operator<=>(const ObjectKey&) const = default;
  operator ObjectRef() const { return {std::string(Bucket::kName), name}; }  // NOLINT: implicit on purpose
};

/// Joins the parts of an object key or a text of `set:`; what a generated handler calls for "{field}" interpolation.
std::string to_text(std::string_view value);
std::string to_text(bool value);
std::string to_text(std::int32_t value);
std::string to_text(std::int64_t value);
std::string to_text(double value);
std::string to_text(const Uuid& value);
std::string to_text(const Decimal& value);
std::string to_text(Timestamp value);
std::string to_text(Date value);
template <typename Bucket>
std::string to_text(const ObjectKey<Bucket>& value) {
  return value.name;
}
/// An absent optional interpolates as nothing.
template <typename T>
std::string to_text(const std::optional<T>& value) {
  return value ? to_text(*value) : std::string();
}
inline std::string to_text(const char* value) { return value; }
inline std::string to_text(const std::string& value) { return value; }

/// The same for an optional value that stays optional.
template <typename T>
std::optional<std::string> optional_text(const std::optional<T>& value) {
  if (!value) return std::nullopt;
  return to_text(*value);
}

template <typename T, typename... More>
auto reach(const std::vector<T>& from, std::size_t index, More... more);
template <typename T, typename... More>
auto reach(const std::optional<std::vector<T>>& from, std::size_t index, More... more);

/// A member of a member of a record, or an item of a list, as an optional: without a value when an optional on the way
/// has none, or a list no such item.
///
///   reach(event.augmentation, &Augmentation::summary, &Summary::placement)
///   reach(order.line_items, 0, &LineItem::tax)
template <typename T, typename Record, typename Member, typename... More>
auto reach(const T& from, Member Record::*member, More... more) {
  if constexpr (std::is_same_v<T, Record>) {
    if constexpr (sizeof...(more) > 0) {
      return reach(from.*member, more...);
    } else {
      return std::optional(from.*member);  // of an optional: the same
    }
  } else {  // an optional record
    using Result = decltype(reach(*from, member, more...));
    return from ? reach(*from, member, more...) : Result();
  }
}

template <typename T, typename... More>
auto reach(const std::vector<T>& from, std::size_t index, More... more) {
  if constexpr (sizeof...(more) > 0) {
    using Result = decltype(reach(from[index], more...));
    return index < from.size() ? reach(from[index], more...) : Result();
  } else {
    return index < from.size() ? std::optional(from[index]) : std::nullopt;
  }
}

template <typename T, typename... More>
auto reach(const std::optional<std::vector<T>>& from, std::size_t index, More... more) {
  using Result = decltype(reach(*from, index, more...));
  return from ? reach(*from, index, more...) : Result();
}

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::string text;
  (text.append(to_text(parts)), ...);
  return text;
}

}  // namespace pipegen
