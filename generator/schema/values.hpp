// Reads maps and single values out of the syntax tree, and says what is wrong with those that are not what they should
// be.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/pipeline.hpp"
#include "schema/codes.hpp"
#include "schema/syntax.hpp"

namespace pipegen::gen {

/// A map whose keys are known (or free, when none are given). Unknown keys are reported at once; keys of `later` are
/// told to be not supported yet.
class MapView {
 public:
  /// `what` for messages: "stream 'TTS_JOBS'"; `where`: what misses a missing key. A value that is left out is an empty
  /// map.
  MapView(Report& report, const Node& node, std::string what, Span where, const std::vector<std::string>& keys,
          const std::vector<std::string>& later = {});

  explicit operator bool() const { return usable_; }
  /// The value, nullptr when the key is not there. A key without a value is reported and counts as not there.
  const Node* find(std::string_view key) const;
  /// Also reports when the key is not there.
  const Node* require(std::string_view key, const std::string& hint = "") const;
  const Span& where() const { return where_; }
  const std::string& what() const { return what_; }

 private:
  Report& report_;
  const Node& node_;
  std::string what_;
  Span where_;
  std::set<std::string> meant_;  // keys that a typo was likely meant to be
  bool usable_ = true;
};

/// What NATS takes for a stream, and a worker can keep.
inline constexpr std::chrono::milliseconds kLeastOfServer{100};

/// Single values; each reports what is wrong and then gives nothing. `what` for messages: "'max_age'".
class Values {
 public:
  explicit Values(Report& report) : report_(report) {}

  std::optional<std::string> text(const Node& node, const std::string& what) const;
  std::optional<bool> boolean(const Node& node, const std::string& what) const;
  std::optional<std::int64_t> integer(const Node& node, const std::string& what, std::int64_t least,
                                      std::int64_t most) const;
  /// "250ms", "30s", "5m", "24h", "7d".
  std::optional<std::chrono::milliseconds> duration(
      const Node& node, const std::string& what, std::chrono::milliseconds least = std::chrono::milliseconds(1)) const;
  /// "1GiB", "512MiB", "10MB", "123".
  std::optional<std::int64_t> size(const Node& node, const std::string& what) const;
  std::optional<std::size_t> choice(const Node& node, const std::string& what,
                                    const std::vector<std::string>& names) const;
  /// A list of single values; one value alone counts as a list of one.
  std::vector<const Node*> list(const Node& node, const std::string& what) const;

 private:
  Report& report_;
};

/// A key of a map; nullptr when it is not there, or the node is no map.
const Node* key_of(const Node& map, std::string_view key);
/// Its value; nullptr also when it has none (which MapView::find reports).
const Node* value_at(const Node& map, std::string_view key);

/// "a map", "a list", "a single value", "nothing".
std::string shape_of(const Node& node);

/// A literal as the schema writes it, without knowing its type: plain true, false and numbers are no text.
Literal literal_of(const Node& node);

bool is_integer(std::string_view text);
bool is_number(std::string_view text);
std::optional<std::int64_t> to_int64(std::string_view text);

/// Compares two numbers by value, whatever the number of their digits: negative, zero or positive.
int compare_numbers(std::string_view a, std::string_view b);

}  // namespace pipegen::gen
