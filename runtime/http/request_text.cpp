#include "http/request_text.hpp"

#include <algorithm>
#include <cctype>

#include "core/json_text.hpp"
#include "http/server.hpp"

namespace pipegen::http {

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
