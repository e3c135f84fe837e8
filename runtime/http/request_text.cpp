#include "http/request_text.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "core/encoding.hpp"
#include "core/json_text.hpp"
#include "core/random.hpp"
#include "http/server.hpp"

namespace pipegen::http {

namespace {

/// Of 24 random octets: a trace id and a span id.
std::string random_hex() {
  std::array<std::byte, 24> random;
  fill_random(random);
  return hex(random);
}

}  // namespace

std::string media_type_of(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return type;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string traceparent_from(const std::optional<std::string>& incoming) {
  const auto is_hex = [](std::string_view text) {
    return text.find_first_not_of("0123456789abcdef") == std::string_view::npos &&
           text.find_first_not_of('0') != std::string_view::npos;
  };
  if (incoming && incoming->size() == 55) {
    const std::string_view text = *incoming;
    const std::string_view flags = text.substr(53, 2);
    if (text.starts_with("00-") && text[35] == '-' && text[52] == '-' && is_hex(text.substr(3, 32)) &&
        is_hex(text.substr(36, 16)) && flags.find_first_not_of("0123456789abcdef") == std::string_view::npos) {
      return "00-" + std::string(text.substr(3, 32)) + "-" + random_hex().substr(32) + "-" + std::string(flags);
    }
  }
  std::string ids = random_hex();
  ids.insert(32, 1, '-');
  return "00-" + ids + "-01";
}

void check_json(std::string_view body) {
  try {
    json::parse(body, [](json::Reader& in) { return in.json(); });
  } catch (const json::Invalid& error) {
    throw Problem(400, error.what());
  }
}

std::string violations_json(const std::vector<json::Violation>& violations, std::size_t most) {
  json::Writer out;
  out.begin_array();
  for (const auto& violation : violations) {
    if (most-- == 0) break;
    out.begin_object();
    out.field("pointer", json::repaired_utf8(violation.pointer));
    out.field("detail", json::repaired_utf8(violation.detail));
    out.end_object();
  }
  out.end_array();
  return out.take();
}

}  // namespace pipegen::http
