#include "pipegen/settings.hpp"

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>

#include "pipegen/error.hpp"
#include "pipegen/json.hpp"

namespace pipegen {
namespace {

using std::chrono::milliseconds;

/// A value and who set it, "project.toml:3:1: nats.url" or "NATS_URL".
struct Value {
  std::string text;                                 // of a single value
  std::optional<std::vector<std::string>> items{};  // of an array of strings
  bool single = true;
  std::string where{};
  bool from_file = false;
};

std::string environment_name(std::string_view name) {
  std::string variable;
  for (const char c : name) {
    const bool lower = c >= 'a' && c <= 'z';
    const bool kept = (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    variable += lower ? static_cast<char>(c - 'a' + 'A') : kept ? c : '_';
  }
  return variable;
}

std::string read_file(const std::filesystem::path& path, const std::string& asked_by) {
  std::error_code ignored;
  std::ifstream file;
  if (!std::filesystem::is_directory(path, ignored)) file.open(path, std::ios::binary);
  std::ostringstream text;
  if (file.is_open() && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad()) throw ConfigError(asked_by + ": cannot read the file " + path.string());
  return text.str();
}

std::string scalar_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* integer = node.as_integer()) return std::to_string(integer->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* number = node.as_floating_point()) {
    char digits[32];
    return {digits, std::to_chars(std::begin(digits), std::end(digits), number->get()).ptr};
  }
  std::ostringstream text;  // dates and times
  if (const auto* date = node.as_date()) text << date->get();
  if (const auto* time = node.as_time()) text << time->get();
  if (const auto* date_time = node.as_date_time()) text << date_time->get();
  return text.str();
}

/// The items of an array, if each is a string.
std::optional<std::vector<std::string>> strings_of(const toml::array& array) {
  std::vector<std::string> items;
  for (const toml::node& node : array) {
    const auto* text = node.as_string();
    if (text == nullptr) return std::nullopt;
    items.push_back(text->get());
  }
  return items;
}

void flatten(const toml::table& table, const std::string& prefix, const std::string& source,
             std::map<std::string, Value, std::less<>>& values) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    if (const auto* inner = node.as_table()) {
      flatten(*inner, name + ".", source, values);
      continue;
    }
    Value value;
    const auto& begin = node.source().begin;
    value.where = source + ":" + std::to_string(begin.line) + ":" + std::to_string(begin.column) + ": " + name;
    value.from_file = true;
    if (const auto* array = node.as_array()) {
      value.single = false;
      value.items = strings_of(*array);
    } else {
      value.text = scalar_text(node);
    }
    values.insert_or_assign(name, std::move(value));
  }
}

// The text of a value never appears in an error: it may be a secret that stands in the wrong place.
[[noreturn]] void refuse(const Value& value, std::string_view expected) {
  throw ConfigError(value.where + " must be " + std::string(expected));
}

template <typename Number>
std::optional<Number> number_of(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

struct Unit {
  std::string_view name;
  std::int64_t factor;
};

/// "30s" as a multiple of the smallest unit. Not negative.
std::optional<std::int64_t> quantity(std::string_view text, std::span<const Unit> units) {
  const auto digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string_view name = text.substr(digits);
  while (name.starts_with(' ')) name.remove_prefix(1);
  const auto unit = std::find_if(units.begin(), units.end(), [&](const Unit& known) { return known.name == name; });
  if (unit == units.end()) return std::nullopt;
  const std::string_view number = text.substr(0, digits);
  if (const auto whole = number_of<std::int64_t>(number)) {
    std::int64_t result;
    if (__builtin_mul_overflow(*whole, unit->factor, &result)) return std::nullopt;
    return result;
  }
  const auto fraction = number_of<double>(number);
  if (!fraction) return std::nullopt;
  const double result = *fraction * static_cast<double>(unit->factor);
  if (!(result < 9e18)) return std::nullopt;
  return std::llround(result);
}

constexpr Unit kDurations[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}};
constexpr Unit kSizes[] = {{"", 1},
                           {"B", 1},
                           {"KB", 1000},
                           {"kB", 1000},
                           {"MB", 1'000'000},
                           {"GB", 1'000'000'000},
                           {"TB", 1'000'000'000'000},
                           {"KiB", std::int64_t{1} << 10},
                           {"MiB", std::int64_t{1} << 20},
                           {"GiB", std::int64_t{1} << 30},
                           {"TiB", std::int64_t{1} << 40}};

}  // namespace

struct Settings::Data {
  std::map<std::string, Value, std::less<>> values{};
  std::map<std::string, std::string> environment{};
  std::filesystem::path folder{};  // of the file

  std::optional<Value> find(std::string_view name) const {
    const std::string variable = environment_name(name);
    if (const auto set = environment.find(variable); set != environment.end() && !set->second.empty()) {
      return Value{.text = set->second, .where = variable};
    }
    const auto set = values.find(name);
    return set == values.end() ? std::nullopt : std::optional(set->second);
  }

  std::optional<Value> find_single(std::string_view name) const {
    auto value = find(name);
    if (value && !value->single) refuse(*value, "a single value, not an array");
    return value;
  }
};

Settings::Settings() : data_(std::make_shared<const Data>()) {}

Settings Settings::load() {
  namespace fs = std::filesystem;
  std::map<std::string, std::string> environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (const auto equals = text.find('='); equals != std::string_view::npos) {
      environment.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  if (const auto named = environment.find("PIPEGEN_CONFIG"); named != environment.end() && !named->second.empty()) {
    const std::string path = named->second;
    const std::string toml = read_file(path, "PIPEGEN_CONFIG");
    return from(toml, path, std::move(environment));
  }
  std::error_code ignored;
  const fs::path here = fs::current_path(ignored);
  for (fs::path folder = here;; folder = folder.parent_path()) {
    const fs::path path = folder / "project.toml";
    if (!folder.empty() && fs::is_regular_file(path, ignored)) {
      const std::string toml = read_file(path, "project.toml");
      return from(toml, folder == here ? "project.toml" : path.string(), std::move(environment));
    }
    if (!folder.has_relative_path()) return from("", "", std::move(environment));
  }
}

Settings Settings::from(std::string_view toml, std::string source, std::map<std::string, std::string> environment) {
  auto data = std::make_shared<Data>();
  data->environment = std::move(environment);
  data->folder = std::filesystem::path(source).parent_path();
  try {
    flatten(toml::parse(toml), "", source, data->values);
  } catch (const toml::parse_error& error) {
    const auto& at = error.source().begin;
    throw ConfigError(source + ":" + std::to_string(at.line) + ":" + std::to_string(at.column) + ": " +
                      std::string(error.description()));
  }
  Settings settings;
  settings.data_ = std::move(data);
  return settings;
}

std::optional<std::string> Settings::find(std::string_view name) const {
  auto value = data_->find_single(name);
  if (!value) return std::nullopt;
  return std::move(value->text);
}

std::string Settings::text(std::string_view name, std::string_view fallback) const {
  return find(name).value_or(std::string(fallback));
}

std::int64_t Settings::integer(std::string_view name, std::int64_t fallback) const {
  const auto value = data_->find_single(name);
  if (!value) return fallback;
  const auto number = number_of<std::int64_t>(value->text);
  if (!number) refuse(*value, "a whole number");
  return *number;
}

std::int64_t Settings::integer(std::string_view name, std::int64_t fallback, std::int64_t min, std::int64_t max) const {
  const auto value = data_->find_single(name);
  if (!value) return fallback;
  const auto number = number_of<std::int64_t>(value->text);
  if (!number || *number < min || *number > max) {
    refuse(*value, "a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return *number;
}

double Settings::number(std::string_view name, double fallback) const {
  const auto value = data_->find_single(name);
  if (!value) return fallback;
  const auto number = number_of<double>(value->text);
  if (!number || !std::isfinite(*number)) refuse(*value, "a number");
  return *number;
}

bool Settings::flag(std::string_view name, bool fallback) const {
  const auto value = data_->find_single(name);
  if (!value) return fallback;
  if (value->text == "true" || value->text == "1") return true;
  if (value->text == "false" || value->text == "0") return false;
  refuse(*value, "true or false");
}

milliseconds Settings::duration(std::string_view name, milliseconds fallback) const {
  const auto value = data_->find_single(name);
  if (!value) return fallback;
  const auto millis = quantity(value->text, kDurations);
  if (!millis) refuse(*value, "a duration such as \"250ms\", \"30s\", \"5m\", \"24h\" or \"7d\"");
  return milliseconds(*millis);
}

std::int64_t Settings::size(std::string_view name, std::int64_t fallback) const {
  const auto value = data_->find_single(name);
  if (!value) return fallback;
  const auto octets = quantity(value->text, kSizes);
  if (!octets) refuse(*value, "a size such as \"512MiB\" or \"1GB\"");
  return *octets;
}

std::vector<std::string> Settings::list(std::string_view name, std::vector<std::string> fallback) const {
  auto value = data_->find(name);
  if (!value) return fallback;
  if (value->items) return *std::move(value->items);
  if (value->from_file) refuse(*value, "an array of strings");
  try {
    return json::parse(value->text, [](json::Reader& in) {
      return in.list<std::string>([](json::Reader& item) { return item.string(); });
    });
  } catch (const json::Invalid&) {
    refuse(*value, "a JSON array of strings, such as [\"a\",\"b\"]");
  }
}

std::optional<std::string> Settings::secret(std::string_view name) const {
  const auto file = data_->find_single(std::string(name) + "_file");
  auto value = data_->find_single(name);
  if (value && value->from_file && file && !file->from_file) value.reset();
  if (value) {
    const std::string_view text = value->text;
    if (!text.starts_with("${") || !text.ends_with('}')) return std::move(value->text);
    const std::string variable(text.substr(2, text.size() - 3));
    const auto set = data_->environment.find(variable);
    if (set == data_->environment.end()) {
      throw ConfigError(value->where + " refers to the environment variable " + variable + ", which is not set");
    }
    return set->second;
  }
  if (!file) return std::nullopt;
  const std::filesystem::path path = file->from_file ? data_->folder / file->text : std::filesystem::path(file->text);
  std::string text = read_file(path, file->where);
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

std::vector<std::string> Settings::unknown(std::string_view section,
                                           std::initializer_list<std::string_view> known) const {
  const std::string prefix = std::string(section) + ".";
  std::vector<std::string> names;
  for (auto at = data_->values.lower_bound(prefix); at != data_->values.end() && at->first.starts_with(prefix); ++at) {
    const std::string_view name = std::string_view(at->first).substr(prefix.size());
    if (std::find(known.begin(), known.end(), name) == known.end()) names.push_back(at->second.where);
  }
  return names;
}

}  // namespace pipegen
