#include <algorithm>

#include "pipegen/error.hpp"
#include "pipegen/stage.hpp"

namespace pipegen {
namespace {

bool is_token(std::string_view text) {
  return !text.empty() && std::none_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || c == '.' || c == '*' || c == '>' || c == 0x7f;
  });
}

}  // namespace

std::string fill_subject(std::string_view subject,
                         std::initializer_list<std::pair<std::string_view, std::string>> values) {
  std::string filled;
  for (std::string_view rest = subject; !rest.empty();) {
    const auto open = rest.find('{');
    filled += rest.substr(0, open);
    if (open == std::string_view::npos) break;
    const auto close = rest.find('}', open);
    if (close == std::string_view::npos) {
      throw PermanentError("the subject \"" + std::string(subject) + "\" has a '{' without its '}'");
    }
    const std::string_view name = rest.substr(open + 1, close - open - 1);
    const auto value = std::find_if(values.begin(), values.end(), [&](const auto& pair) { return pair.first == name; });
    if (value == values.end()) {
      throw PermanentError("the subject \"" + std::string(subject) + "\" has no value for {" + std::string(name) + "}");
    }
    if (!is_token(value->second)) {
      throw PermanentError("the value of " + std::string(name) + " cannot stand in the subject \"" +
                           std::string(subject) + "\": it must be one token (not empty, no dot, blank, '*' or '>')");
    }
    filled += value->second;
    rest.remove_prefix(close + 1);
  }
  return filled;
}

std::string subject_filter(std::string_view subject) {
  std::string filter;
  for (std::string_view rest = subject; !rest.empty();) {
    const auto open = rest.find('{');
    filter += rest.substr(0, open);
    if (open == std::string_view::npos) break;
    filter += '*';
    const auto close = rest.find('}', open);
    rest.remove_prefix(close == std::string_view::npos ? rest.size() : close + 1);
  }
  return filter;
}

}  // namespace pipegen
