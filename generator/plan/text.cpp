#include "plan/text.hpp"

#include <cctype>
#include <cstdio>

namespace pipegen::gen {

namespace {

constexpr std::size_t kDocWidth = 100;

struct Unit {
  std::int64_t milliseconds;
  const char* cpp;
  const char* suffix;
};
constexpr Unit kUnits[] = {{3'600'000, "std::chrono::hours", "h"},
                           {60'000, "std::chrono::minutes", "m"},
                           {1'000, "std::chrono::seconds", "s"},
                           {1, "std::chrono::milliseconds", "ms"}};

const Unit& unit_of(std::chrono::milliseconds duration) {
  for (const Unit& unit : kUnits) {
    if (duration.count() != 0 && duration.count() % unit.milliseconds == 0) return unit;
  }
  return kUnits[3];
}

}  // namespace

std::string upper_case(std::string_view name) {
  std::string out;
  for (const char c : name) {
    out.push_back(std::isalnum(static_cast<unsigned char>(c)) != 0
                      ? static_cast<char>(std::toupper(static_cast<unsigned char>(c)))
                      : '_');
  }
  return out;
}

std::string cpp_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          // Octal, always three digits: a hexadecimal escape would swallow digits that follow.
          char escape[8];
          std::snprintf(escape, sizeof escape, "\\%03o", static_cast<unsigned>(static_cast<unsigned char>(c)));
          out += escape;
        } else if (c == '?' && out.back() == '?') {
          out += "\\?";  // no trigraphs
        } else {
          out.push_back(c);
        }
    }
  }
  return out + '"';
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escape;
    } else {
      out.push_back(c);
    }
  }
  return out + '"';
}

std::string cpp_duration(std::chrono::milliseconds duration) {
  const Unit& unit = unit_of(duration);
  return std::string(unit.cpp) + "(" + std::to_string(duration.count() / unit.milliseconds) + ")";
}

std::string short_duration(std::chrono::milliseconds duration) {
  const Unit& unit = unit_of(duration);
  return std::to_string(duration.count() / unit.milliseconds) + unit.suffix;
}

std::vector<std::string> doc_lines(std::string_view doc) {
  std::vector<std::string> lines;
  std::string line;
  const auto flush = [&] {
    // A line comment that ends in a backslash would go on in the next line.
    while (!line.empty() && (line.back() == '\\' || line.back() == ' ')) line.pop_back();
    lines.push_back(line);
    line.clear();
  };
  std::string word;
  const auto add_word = [&] {
    if (word.empty()) return;
    if (!line.empty() && line.size() + 1 + word.size() > kDocWidth) flush();
    if (!line.empty()) line.push_back(' ');
    line += word;
    word.clear();
  };
  for (const char c : doc) {
    if (c == '\n') {
      add_word();
      flush();
    } else if (c == ' ' || static_cast<unsigned char>(c) < 0x20) {
      add_word();
    } else {
      word.push_back(c);
    }
  }
  add_word();
  if (!line.empty()) flush();
  while (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}

}  // namespace pipegen::gen
