#include "plan/text.hpp"

#include <algorithm>
#include <cctype>
#include <cstdio>

namespace pipegen::gen {

namespace {

constexpr std::size_t kDocWidth = 100;
constexpr std::size_t kLiteralWidth = 110;  // of C++, with its quotes

/// The length of the control of writing direction (U+202A to U+202E, U+2066 to U+2069) that the text starts with; 0:
/// none.
std::size_t direction_control(std::string_view text) {
  const bool is_one =
      text.size() >= 3 && ((text.substr(0, 2) == "\xe2\x80" && text[2] >= '\xaa' && text[2] <= '\xae') ||
                           (text.substr(0, 2) == "\xe2\x81" && text[2] >= '\xa6' && text[2] <= '\xa9'));
  return is_one ? 3 : 0;
}

/// Octal, always three digits: a hexadecimal escape would swallow digits that follow.
std::string octal(char c) {
  char escape[8];
  std::snprintf(escape, sizeof escape, "\\%03o", static_cast<unsigned>(static_cast<unsigned char>(c)));
  return escape;
}

struct Unit {
  std::int64_t milliseconds;
  const char* cpp;
};
constexpr Unit kUnits[] = {{3'600'000, "std::chrono::hours"},
                           {60'000, "std::chrono::minutes"},
                           {1'000, "std::chrono::seconds"},
                           {1, "std::chrono::milliseconds"}};

const Unit& unit_of(std::chrono::milliseconds duration) {
  for (const Unit& unit : kUnits) {
    if (duration.count() != 0 && duration.count() % unit.milliseconds == 0) return unit;
  }
  return kUnits[3];
}

}  // namespace

std::string listed(const std::vector<std::string>& items) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    out += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
  }
  return out;
}

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
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
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
        if (const std::size_t control = direction_control(text.substr(i)); control > 0) {
          for (const char octet : text.substr(i, control)) out += octal(octet);
          i += control - 1;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          out += octal(c);
        } else if (c == '?' && out.back() == '?') {
          out += "\\?";  // no trigraphs
        } else {
          out.push_back(c);
        }
    }
  }
  return out + '"';
}

std::vector<std::string> cpp_strings(std::string_view text) {
  const auto fits = [&](std::size_t size) {
    return size <= kLiteralWidth && cpp_string(text.substr(0, size)).size() <= kLiteralWidth;
  };
  std::vector<std::string> literals;
  while (!text.empty()) {
    std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    if (!fits(end)) {
      end = std::min(end, kLiteralWidth);
      // Never between the octets of a character.
      while (end > 1 && (!fits(end) || (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80)) --end;
      const std::size_t blank = text.find_last_of(' ', end - 1);
      if (blank != std::string_view::npos && text.find_first_not_of(' ') < blank) end = blank + 1;
    }
    literals.push_back(cpp_string(text.substr(0, end)));
    text.remove_prefix(end);
  }
  return literals;
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

std::string fitted(const std::string& assignment, std::size_t indent) {
  const std::size_t equals = assignment.find(" = ");
  // One more column for what ends it.
  const bool fits = indent + assignment.size() + 1 <= kLineWidth;
  if (fits || equals == std::string::npos || assignment.find('\n') != std::string::npos) return assignment;
  return assignment.substr(0, equals + 2) + "\n" + std::string(indent + 4, ' ') + assignment.substr(equals + 3);
}

std::string aligned(const std::string& head, const std::vector<std::string>& items, const std::string& tail) {
  const auto joined = [&](const std::string& first, const std::string& separator) {
    std::string out = head;
    for (std::size_t i = 0; i < items.size(); ++i) out += (i == 0 ? first : separator) + items[i];
    return out + tail;
  };
  // Two more columns for what ends it.
  const auto fits = [&](std::size_t size) { return size + 2 <= kLineWidth; };
  const std::string one_line = joined("", ", ");
  if (fits(one_line.size())) return one_line;
  const bool below =
      std::ranges::all_of(items, [&](const std::string& item) { return fits(head.size() + item.size()); });
  return below ? joined("", ",\n" + std::string(head.size(), ' ')) : joined("\n    ", ",\n    ");
}

std::vector<std::string> doc_lines(std::string_view doc) {
  std::vector<std::string> lines;
  std::string line;
  const auto flush = [&] {
    // A line comment that ends in a backslash, or in the trigraph for one, would go on in the next line.
    while (line.ends_with('\\') || line.ends_with(' ') || line.ends_with("?\?/")) {
      line.resize(line.size() - (line.ends_with('/') ? 3 : 1));
    }
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
  for (std::size_t i = 0; i < doc.size(); ++i) {
    const char c = doc[i];
    if (const std::size_t control = direction_control(doc.substr(i)); control > 0) {
      i += control - 1;
    } else if (c == '\n') {
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
