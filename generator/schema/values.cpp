#include "schema/values.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>

namespace pipegen::gen {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Splits "512MiB" into its number and its unit.
std::optional<std::pair<std::int64_t, std::string_view>> number_and_unit(std::string_view text) {
  std::size_t digits = 0;
  while (digits < text.size() && is_digit(text[digits])) ++digits;
  const auto number = to_int64(text.substr(0, digits));
  if (digits == 0 || !number) return std::nullopt;
  return std::pair{*number, text.substr(digits)};
}

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

std::optional<std::int64_t> scaled(std::string_view text, std::initializer_list<Unit> units, std::int64_t most) {
  const auto parts = number_and_unit(text);
  if (!parts) return std::nullopt;
  for (const Unit& unit : units) {
    if (unit.name == parts->second) {
      if (parts->first > most / unit.factor) return std::nullopt;
      return parts->first * unit.factor;
    }
  }
  return std::nullopt;
}

/// A number without sign and exponent, as digits around the point.
struct Digits {
  bool negative = false;
  std::string whole, fraction;
};

std::optional<Digits> plain_digits(std::string_view text) {
  Digits out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.remove_prefix(1);
  }
  const std::size_t point = text.find('.');
  out.whole = text.substr(0, point);
  if (point != std::string_view::npos) out.fraction = text.substr(point + 1);
  if (!std::ranges::all_of(out.whole, is_digit) || !std::ranges::all_of(out.fraction, is_digit)) return std::nullopt;
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (out.whole.empty() && out.fraction.empty()) out.negative = false;
  return out;
}

}  // namespace

MapView::MapView(Report& report, const Node& node, std::string what, Span where, const std::vector<std::string>& keys,
                 const std::vector<std::string>& later)
    : report_(report), node_(node), what_(std::move(what)), where_(std::move(where)) {
  if (node.is_null()) return;
  if (!node.is_map()) {
    usable_ = false;
    report.error(code::kShape, node.span, what_ + " is a map, this is " + shape_of(node),
                 keys.empty() ? "" : "write it as 'key: value' with keys such as " + in_quotes(keys.front()));
    return;
  }
  if (keys.empty()) return;
  for (const Node& key : node.keys) {
    if (std::ranges::find(keys, key.text) != keys.end()) continue;
    if (std::ranges::find(later, key.text) != later.end()) {
      report.error(code::kNotSupported, key.span, in_quotes(key.text) + " is not supported yet", "remove it for now");
      continue;
    }
    std::string hint = did_you_mean(key.text, keys);
    if (key.text == "<<") {
      hint = "merge keys are not part of the language";
      meant_.insert(keys.begin(), keys.end());
    } else if (hint.empty()) {
      hint = "known keys: ";
      for (std::size_t i = 0; i < keys.size(); ++i) hint += (i ? ", " : "") + keys[i];
    } else {
      for (const std::string& known : keys) {
        if (hint.find(in_quotes(known)) != std::string::npos) meant_.insert(known);
      }
    }
    report.error(code::kUnknownKey, key.span, what_ + " has no key " + in_quotes(key.text), hint);
  }
}

const Node* MapView::find(std::string_view key) const {
  if (!node_.is_map()) return nullptr;
  for (std::size_t i = 0; i < node_.keys.size(); ++i) {
    if (node_.keys[i].text != key) continue;
    if (!node_.items[i].is_null()) return &node_.items[i];
    report_.error(code::kNoValue, node_.keys[i].span, in_quotes(key) + " has no value",
                  "give it one, or remove the line");
    return nullptr;
  }
  return nullptr;
}

const Node* MapView::require(std::string_view key, const std::string& hint) const {
  if (const Node* found = find(key)) return found;
  const bool without_value =
      node_.is_map() && std::ranges::any_of(node_.keys, [&](const Node& each) { return each.text == key; });
  if (!without_value && !meant_.contains(std::string(key)))
    report_.error(code::kMissingKey, where_, what_ + " needs " + in_quotes(key), hint);
  return nullptr;
}

const Node* key_of(const Node& map, std::string_view key) {
  for (std::size_t i = 0; map.is_map() && i < map.keys.size(); ++i) {
    if (map.keys[i].text == key) return &map.keys[i];
  }
  return nullptr;
}

const Node* value_at(const Node& map, std::string_view key) {
  for (std::size_t i = 0; map.is_map() && i < map.keys.size(); ++i) {
    if (map.keys[i].text == key) return map.items[i].is_null() ? nullptr : &map.items[i];
  }
  return nullptr;
}

std::string shape_of(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return "nothing";
    case Node::Kind::kScalar:
      return "a single value";
    case Node::Kind::kSequence:
      return "a list";
    case Node::Kind::kMap:
      return "a map";
  }
  return "";
}

std::optional<std::string> Values::text(const Node& node, const std::string& what) const {
  if (node.is_scalar()) return node.text;
  if (node.is_null()) {
    report_.error(code::kNoValue, node.span, what + " has no value", "in YAML 'null' and '~' are no text; quote them");
  } else {
    report_.error(code::kShape, node.span, what + " is a single value, this is " + shape_of(node));
  }
  return std::nullopt;
}

std::optional<bool> Values::boolean(const Node& node, const std::string& what) const {
  const auto value = text(node, what);
  if (!value) return std::nullopt;
  if (node.plain && (*value == "true" || *value == "false")) return *value == "true";
  report_.error(code::kValue, node.span, what + " is true or false, not " + in_quotes(*value));
  return std::nullopt;
}

std::optional<std::int64_t> Values::integer(const Node& node, const std::string& what, std::int64_t least,
                                            std::int64_t most) const {
  const auto value = text(node, what);
  if (!value) return std::nullopt;
  const auto number = is_integer(*value) ? to_int64(*value) : std::nullopt;
  if (number && *number >= least && *number <= most) return number;
  const std::string range = most == std::numeric_limits<std::int64_t>::max()
                                ? "of at least " + std::to_string(least)
                                : "from " + std::to_string(least) + " to " + std::to_string(most);
  report_.error(code::kValue, node.span, what + " is a whole number " + range + ", not " + in_quotes(*value));
  return std::nullopt;
}

std::optional<std::chrono::milliseconds> Values::duration(const Node& node, const std::string& what,
                                                          std::chrono::milliseconds least) const {
  const auto value = text(node, what);
  if (!value) return std::nullopt;
  constexpr std::int64_t kTenYears = std::int64_t{3650} * 86'400'000;
  const auto found =
      scaled(*value, {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}, kTenYears);
  if (found && *found >= least.count()) return std::chrono::milliseconds(*found);
  if (found && *found > 0) {
    report_.error(
        code::kValue, node.span,
        what + " is at least " + std::to_string(least.count()) + "ms, not " + in_quotes(*value),
        "NATS and the workers cannot keep a shorter time: write " + std::to_string(least.count()) + "ms, or longer");
    return std::nullopt;
  }
  report_.error(code::kValue, node.span, what + " is a time, not " + in_quotes(*value),
                "a whole number and a unit: 250ms, 30s, 5m, 24h, 7d; at most 3650d");
  return std::nullopt;
}

std::optional<std::int64_t> Values::size(const Node& node, const std::string& what) const {
  const auto value = text(node, what);
  if (!value) return std::nullopt;
  const auto found = scaled(*value,
                            {{"", 1},
                             {"B", 1},
                             {"KB", 1000},
                             {"MB", 1'000'000},
                             {"GB", 1'000'000'000},
                             {"TB", 1'000'000'000'000},
                             {"KiB", std::int64_t{1} << 10},
                             {"MiB", std::int64_t{1} << 20},
                             {"GiB", std::int64_t{1} << 30},
                             {"TiB", std::int64_t{1} << 40}},
                            std::numeric_limits<std::int64_t>::max());
  if (found && *found > 0) return found;
  report_.error(code::kValue, node.span, what + " is a size, not " + in_quotes(*value),
                "a whole number of octets with or without a unit: 1GiB, 512MiB, 10MB, 4096");
  return std::nullopt;
}

std::optional<std::size_t> Values::choice(const Node& node, const std::string& what,
                                          const std::vector<std::string>& names) const {
  const auto value = text(node, what);
  if (!value) return std::nullopt;
  const auto found = std::ranges::find(names, *value);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  report_.error(code::kValue, node.span, what + " is " + one_of(names) + ", not " + in_quotes(*value),
                did_you_mean(*value, names));
  return std::nullopt;
}

std::vector<const Node*> Values::list(const Node& node, const std::string& what) const {
  std::vector<const Node*> out;
  if (node.is_scalar()) return {&node};
  if (!node.is_sequence()) {
    report_.error(code::kShape, node.span, what + " is a list, this is " + shape_of(node));
    return out;
  }
  for (const Node& item : node.items) {
    if (text(item, "an item of " + what)) out.push_back(&item);
  }
  return out;
}

Literal literal_of(const Node& node) {
  Literal out;
  if (node.is_scalar()) {
    out.text = node.text;
    out.kind = !node.plain                                   ? Literal::Kind::kText
               : node.text == "true" || node.text == "false" ? Literal::Kind::kBool
               : is_number(node.text)                        ? Literal::Kind::kNumber
                                                             : Literal::Kind::kText;
  } else if (node.is_sequence()) {
    out.kind = Literal::Kind::kList;
    for (const Node& item : node.items) out.items.push_back(literal_of(item));
  }
  return out;
}

bool is_integer(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  if (text.empty() || !std::ranges::all_of(text, is_digit)) return false;
  return text == "0" || text.front() != '0';  // 010 is eight in C++
}

bool is_number(std::string_view text) {
  const std::size_t exponent = text.find_first_of("eE");
  std::string_view mantissa = text.substr(0, exponent);
  if (exponent != std::string_view::npos) {
    std::string_view power = text.substr(exponent + 1);
    if (power.starts_with('-') || power.starts_with('+')) power.remove_prefix(1);
    if (power.empty() || power.size() > 3 || !std::ranges::all_of(power, is_digit)) return false;
  }
  const std::size_t point = mantissa.find('.');
  if (point != std::string_view::npos) {
    const std::string_view fraction = mantissa.substr(point + 1);
    if (fraction.empty() || !std::ranges::all_of(fraction, is_digit)) return false;
    mantissa = mantissa.substr(0, point);
  }
  return is_integer(mantissa);
}

std::optional<std::int64_t> to_int64(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int compare_numbers(std::string_view a, std::string_view b) {
  const auto left = plain_digits(a);
  const auto right = plain_digits(b);
  if (!left || !right) {
    const double x = std::strtod(std::string(a).c_str(), nullptr);
    const double y = std::strtod(std::string(b).c_str(), nullptr);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  if (left->negative != right->negative) return left->negative ? -1 : 1;
  int order = 0;
  if (left->whole.size() != right->whole.size()) {
    order = left->whole.size() < right->whole.size() ? -1 : 1;
  } else {
    order = left->whole.compare(right->whole);
    if (order == 0) order = left->fraction.compare(right->fraction);
    order = order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  return left->negative ? -order : order;
}

}  // namespace pipegen::gen
