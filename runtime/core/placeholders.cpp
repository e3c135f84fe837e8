#include "core/placeholders.hpp"

#include "pipegen/error.hpp"

namespace pipegen {

namespace {

/// Calls one of the two for each part of the text, in order.
void split(std::string_view text, std::string_view what, const std::function<void(std::string_view)>& literal,
           const std::function<void(std::string_view)>& placeholder) {
  const auto fail = [&](const std::string& why) {
    throw ConfigError("\"" + std::string(text) + "\" in the setting " + std::string(what) + why);
  };
  while (!text.empty()) {
    const std::size_t brace = text.find_first_of("{}");
    literal(text.substr(0, brace));
    if (brace == std::string_view::npos) return;
    text.remove_prefix(brace);
    if (text.size() > 1 && text[1] == text[0]) {
      literal(text.substr(0, 1));
      text.remove_prefix(2);
      continue;
    }
    const std::size_t close = text.find('}');
    if (close == 0) fail(" has a '}' that closes nothing: write '}}' to mean the character");
    if (close == std::string_view::npos) fail(" has a '{' that is never closed: write '{{' to mean the character");
    placeholder(text.substr(1, close - 1));
    text.remove_prefix(close + 1);
  }
}

}  // namespace

std::optional<std::string> fill(std::string_view text, const Placeholders& values, std::string_view what,
                                const std::function<std::string(std::string_view)>& encode) {
  std::string out;
  bool absent = false;
  split(
      text, what, [&](std::string_view part) { out += part; },
      [&](std::string_view name) {
        const auto value = values.find(name);
        if (value == values.end()) {
          throw ConfigError("nothing gives {" + std::string(name) + "} in the setting " + std::string(what) +
                            " its value: write '{{' to mean the character");
        }
        absent = absent || !value->second;
        if (!absent) out += encode ? encode(*value->second) : *value->second;
      });
  if (absent) return std::nullopt;
  return out;
}

Arguments fill_arguments(const std::vector<std::string>& program, const Placeholders& values) {
  if (program.empty()) throw ConfigError("the setting program is empty: it is the argument list of what to run");
  Arguments out;
  bool after_option = false;  // the last argument is an option that may belong to this one
  for (const std::string& argument : program) {
    std::set<std::string, std::less<>> names;
    split(
        argument, "program", [](std::string_view) {}, [&](std::string_view name) { names.emplace(name); });
    if (out.list.empty() && !names.empty()) {
      throw ConfigError("the setting program begins with a placeholder: its first item is what to run");
    }
    auto filled = fill(argument, values, "program");
    const bool is_option = argument.starts_with('-');
    const bool may_own_next = filled && is_option && names.empty() && !out.list.empty();
    if (filled) {
      out.list.push_back(std::move(*filled));
      out.used.merge(names);
    } else if (!is_option && after_option) {
      out.list.pop_back();
    }
    after_option = may_own_next;
  }
  return out;
}

}  // namespace pipegen
