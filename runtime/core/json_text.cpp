#include "core/json_text.hpp"

#include <simdjson.h>

#include <algorithm>

namespace pipegen::json {
namespace {

/// Length of the well-formed UTF-8 sequence that `text` begins with (Unicode, table 3-7); 0 when it begins with none.
std::size_t sequence_length(std::string_view text) {
  const auto octet = [&](std::size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto continues = [&](std::size_t i) { return (octet(i) & 0xC0u) == 0x80u; };
  const unsigned first = octet(0);
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return continues(1) ? 2 : 0;
  if (first < 0xF0) {
    const bool second = first == 0xE0   ? octet(1) >= 0xA0 && octet(1) <= 0xBF
                        : first == 0xED ? octet(1) >= 0x80 && octet(1) <= 0x9F
                                        : continues(1);
    return second && continues(2) ? 3 : 0;
  }
  if (first > 0xF4) return 0;
  const bool second = first == 0xF0   ? octet(1) >= 0x90 && octet(1) <= 0xBF
                      : first == 0xF4 ? octet(1) >= 0x80 && octet(1) <= 0x8F
                                      : continues(1);
  return second && continues(2) && continues(3) ? 4 : 0;
}

void append_escape(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      break;
    case '\\':
      out += "\\\\";
      break;
    case '\b':
      out += "\\b";
      break;
    case '\f':
      out += "\\f";
      break;
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    default:
      out += "\\u00";
      out += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
      out += "0123456789abcdef"[static_cast<unsigned char>(c) & 15];
  }
}

bool is_special(char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20; }

}  // namespace

bool is_utf8(std::string_view text) {
  // Most strings are short and ASCII, which is seen sooner here than by a call through simdjson's dispatcher.
  const auto is_ascii = [](char c) { return static_cast<signed char>(c) >= 0; };
  if (text.size() <= 32 && std::all_of(text.begin(), text.end(), is_ascii)) return true;
  return simdjson::validate_utf8(text.data(), text.size());
}

std::string repaired_utf8(std::string_view text) {
  std::string repaired;
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) {
      repaired += "\xEF\xBF\xBD";
      text.remove_prefix(1);
    } else {
      repaired += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return repaired;
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t copied = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (text.size() - i >= 16) {
      const std::size_t special = first_special_of_16(text.data() + i);
      i += special;
      if (special == 16) continue;
    } else if (!is_special(text[i])) {
      ++i;
      continue;
    }
    out.append(text, copied, i - copied);
    append_escape(out, text[i]);
    copied = ++i;
  }
  out.append(text, copied, text.size() - copied);
  out += '"';
}

}  // namespace pipegen::json
