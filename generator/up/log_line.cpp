#include "up/log_line.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace pipegen::gen {

namespace {

// Keeps the order of the keys, in which the runtime wrote them for a reader.
using Json = nlohmann::ordered_json;

std::string printable(std::string_view text) {
  std::string result(text);
  std::ranges::replace_if(
      result, [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; }, ' ');
  return result;
}

bool is_plain(std::string_view text) {
  return !text.empty() &&
         std::ranges::none_of(text, [](unsigned char c) { return c <= 0x20 || c == '"' || c == 0x7f; });
}

std::string value_text(const Json& value) {
  if (value.is_string() && is_plain(value.get_ref<const std::string&>())) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<int> port(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_integer()) return std::nullopt;
  const auto number = found->get<std::int64_t>();
  return number > 0 && number < 65536 ? std::optional(static_cast<int>(number)) : std::nullopt;
}

}  // namespace

LogLine parse_log_line(std::string_view line) {
  LogLine result;
  const Json json = line.starts_with('{') ? Json::parse(line, nullptr, false) : Json();
  const auto member = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (!json.is_object() || !json.contains("message")) {
    result.text = printable(line);
    return result;
  }
  result.level = member("level");
  result.message = member("message");
  result.text = printable(result.message);
  for (const auto& [key, value] : json.items()) {
    // The prefix says which service it is, and the reader's clock when.
    if (key == "time" || key == "level" || key == "service" || key == "message" || key == "trace_id") continue;
    result.text += " " + printable(key) + "=" + value_text(value);
  }
  result.admin_port = port(json, "admin_port");
  result.api_port = port(json, "api_port");
  result.ready = result.message == "ready";
  return result;
}

}  // namespace pipegen::gen
