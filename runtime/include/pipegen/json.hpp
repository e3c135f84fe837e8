// Reading and writing JSON on the hot path: a strict streaming reader (simdjson checks its UTF-8; no header here shows
// it) and an appending writer. Generated parsers are built from these two and look like this:
//
//   EventHeader read_event_header(pipegen::json::Reader& in) {
//     static constexpr pipegen::json::Field kFields[] = {{"eventId"}, {"timestamp"}, {"userId", kOptional}};
//     EventHeader out;
//     for (pipegen::json::Object fields(in, kFields); fields.next();) {
//       switch (fields.index()) {
//         case 0: out.event_id = in.uuid(); break;
//         case 1: out.timestamp = in.timestamp(); break;
//         case 2: out.user_id = in.string({.max_length = 64}); break;
//       }
//     }
//     return out;
//   }
//
// Every message is checked as a whole: JSON grammar (RFC 8259) and UTF-8 in every part, also in fields nobody
// reads, no duplicate keys anywhere, types, constraints, required fields. Violations are collected, each with the
// JSON pointer (RFC 6901) of its field, and thrown together by finish().
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/error.hpp"
#include "pipegen/types.hpp"

namespace pipegen::json {

/// One thing that is wrong with a message: where (JSON pointer; "" is the whole) and what.
struct Violation {
  std::string pointer;
  std::string detail;
};

/// The message is not what the schema says. Permanent: the same bytes will never be right. what() names the first
/// violations with their pointers, never the value of a field.
class Invalid : public PermanentError {
 public:
  explicit Invalid(std::vector<Violation> violations);
  const std::vector<Violation>& violations() const noexcept { return violations_; }

 private:
  std::vector<Violation> violations_;
};

enum class Presence : std::uint8_t {
  kRequired,
  kOptional,
  kFresh,  // required, but for a document that is read by parse_new()
};
inline constexpr Presence kOptional = Presence::kOptional;
inline constexpr Presence kFresh = Presence::kFresh;

/// A field that an object may have, by its name on the wire.
struct Field {
  std::string_view name;
  Presence presence = Presence::kRequired;
};

struct IntLimits {
  std::int64_t min = std::numeric_limits<std::int64_t>::min();
  std::int64_t max = std::numeric_limits<std::int64_t>::max();
};

struct FloatLimits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

/// Text of either bound may be empty: no bound.
struct DecimalLimits {
  int precision = 38;
  int scale = 0;
  std::string_view min{};
  std::string_view max{};
};

/// A POSIX extended regular expression that a whole value must match. Compiled once; thread safe; any length of
/// value, also with NUL in it. Throws ConfigError when the expression is not one.
class Pattern {
 public:
  explicit Pattern(std::string_view expression);
  ~Pattern();
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  bool matches(std::string_view text) const;
  std::string_view expression() const noexcept { return expression_; }

 private:
  struct Compiled;
  std::string expression_;
  std::unique_ptr<Compiled> compiled_;
};

/// Lengths count Unicode code points for strings, octets for bytes, items for lists and maps.
struct TextLimits {
  std::size_t min_length = 0;
  std::size_t max_length = std::numeric_limits<std::size_t>::max();
  const Pattern* pattern = nullptr;
};

struct ItemLimits {
  std::size_t min_length = 0;
  std::size_t max_length = std::numeric_limits<std::size_t>::max();
};

/// Reads one document, front to back. Not thread safe; one reader serves one document. A read that finds a value of
/// the wrong type, or one that breaks a limit, records the violation, skips the value and returns a default: the
/// document is only good once finish() returned. Grammar errors throw Invalid at once.
class Reader {
 public:
  /// `text` need not outlive the call: it is copied into a padded buffer (reused by the thread). Nesting deeper than
  /// `max_depth` is refused.
  explicit Reader(std::string_view text, int max_depth = 64);
  /// Of a document that its reader completes before it is published: it may lack its fresh fields, and the fields that
  /// `made` names by their JSON pointers. `made` has to outlive the reader.
  Reader(std::string_view text, std::span<const std::string_view> made);
  ~Reader();
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  bool boolean();
  std::int32_t int32(IntLimits limits = {});
  std::int64_t int64(IntLimits limits = {});
  double float64(FloatLimits limits = {});
  /// A JSON string, or a JSON number read from its digits: never through a float.
  Decimal decimal(DecimalLimits limits);
  std::string string(TextLimits limits = {});
  Bytes bytes(ItemLimits limits = {});
  Uuid uuid();
  Timestamp timestamp();
  Date date();
  Json json();
  /// Index into `names` of the string that the value is.
  std::size_t one_of(std::span<const std::string_view> names);

  template <typename Bucket>
  ObjectKey<Bucket> object_key() {
    return {string({.min_length = 1, .max_length = 1024})};
  }

  /// A JSON array; `read_item(Reader&)` reads one item.
  template <typename T, typename ReadItem>
  std::vector<T> list(ReadItem read_item, ItemLimits limits = {}) {
    std::vector<T> items;
    if (enter_array()) {
      while (next_item()) items.push_back(read_item(*this));
      leave(items.size(), limits);
    }
    return items;
  }

  /// A JSON object whose keys are data.
  template <typename T, typename ReadItem>
  std::map<std::string, T> map(ReadItem read_item, ItemLimits limits = {}) {
    std::map<std::string, T> items;
    if (enter_map()) {
      for (std::string key; next_entry(key);) items.insert_or_assign(key, read_item(*this));
      leave(items.size(), limits);
    }
    return items;
  }

  /// Records that the value at the current place is wrong, for checks that the calls above do not make.
  void violation(std::string detail);

  /// Checks that nothing follows the document; throws Invalid with every violation found.
  void finish();

 private:
  friend class Object;
  struct Impl;

  bool enter_array();
  bool next_item();
  bool enter_map();
  bool next_entry(std::string& key);
  void leave(std::size_t size, ItemLimits limits);

  std::unique_ptr<Impl> impl_;
};

/// Walks the fields of a JSON object. next() moves the reader to the value of the next known field; unknown fields are
/// checked and skipped, a null for an optional field counts as absent, a duplicate or missing field is a violation.
class Object {
 public:
  Object(Reader& in, std::span<const Field> fields);
  bool next();
  /// Index into the fields of the one whose value the reader stands on.
  std::size_t index() const noexcept { return index_; }

 private:
  Reader& in_;
  std::span<const Field> fields_;
  std::vector<bool> many_seen_;  // used beyond 64 fields only
  std::uint64_t seen_ = 0;
  std::size_t index_ = 0;
  bool entered_ = false;
};

/// Reads a whole document with a generated function: `parse(text, read_event_header)`. Throws Invalid.
template <typename Read>
auto parse(std::string_view text, Read read) {
  Reader in(text);
  auto value = read(in);
  in.finish();
  return value;
}

/// The same for a document that the caller completes and publishes: it may lack its fresh fields, and the fields that
/// `made` names by their JSON pointers. `parse_new(text, read_order, {"/header", "/header/workflow_id"})`.
template <typename Read>
auto parse_new(std::string_view text, Read read, std::initializer_list<std::string_view> made) {
  Reader in(text, {made.begin(), made.size()});
  auto value = read(in);
  in.finish();
  return value;
}

/// Appends JSON to a string. Absent optionals are left out. Doubles are written with the shortest digits that read back
/// the same; NaN and infinities throw PermanentError.
class Writer {
 public:
  void begin_object();
  void end_object();
  void begin_array();
  void end_array();
  void key(std::string_view name);

  void value(bool value);
  void value(std::int32_t value);
  void value(std::int64_t value);
  void value(double value);
  void value(std::string_view value);
  void value(const char* text) { value(std::string_view(text)); }
  void value(BytesView value);
  void value(const Bytes& bytes) { value(BytesView(bytes)); }
  void value(const Uuid& value);
  void value(const Decimal& value);  // a JSON string, so that no reader rounds it
  void value(Timestamp value);
  void value(Date value);
  void value(const Json& value);
  void null();

  template <typename T>
  void field(std::string_view name, const T& value);
  template <typename T>
  void field(std::string_view name, const std::optional<T>& value) {
    if (value) field(name, *value);
  }

  const std::string& text() const noexcept { return text_; }
  std::string take() { return std::move(text_); }

 private:
  void separate();
  std::string text_;
  bool fresh_ = true;
};

// write() is what generated types overload: `void write(Writer&, const EventHeader&)`, found by its argument.
template <typename T>
requires requires(Writer& out, const T& value) { out.value(value); }
void write(Writer& out, const T& value) { out.value(value); }
template <typename Bucket>
void write(Writer& out, const ObjectKey<Bucket>& key) {
  out.value(std::string_view(key.name));
}
template <typename T>
void write(Writer& out, const std::vector<T>& items) {
  out.begin_array();
  for (const T& item : items) write(out, item);
  out.end_array();
}
inline void write(Writer& out, const Bytes& bytes) { out.value(bytes); }
/// Null when absent: for items. An absent field is left out by Writer::field.
template <typename T>
void write(Writer& out, const std::optional<T>& value) {
  if (value) {
    write(out, *value);
  } else {
    out.null();
  }
}
template <typename T>
void write(Writer& out, const std::map<std::string, T>& items) {
  out.begin_object();
  for (const auto& [name, item] : items) out.field(name, item);
  out.end_object();
}

template <typename T>
void Writer::field(std::string_view name, const T& value) {
  key(name);
  write(*this, value);
}

template <typename T>
std::string to_json(const T& value) {
  Writer out;
  write(out, value);
  return out.take();
}

/// The same as a value of `json`: what a column holds that has no type of its own.
template <typename T>
Json as_json(const T& value) {
  return {to_json(value)};
}
template <typename T>
std::optional<Json> as_json(const std::optional<T>& value) {
  if (!value) return std::nullopt;
  return as_json(*value);
}

}  // namespace pipegen::json
