// What the actions of this folder share.
#pragma once

#include <string>

#include "core/json_text.hpp"
#include "core/placeholders.hpp"
#include "pipegen/actions/values.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

inline constexpr std::size_t kMaxText = 1u << 20;  // octets of a text that becomes part of an event

inline Placeholders placeholders(const Values& values) {
  Placeholders out;
  for (const auto& [name, value] : values) out.emplace(name, value.text());
  return out;
}

/// Throws PermanentError, naming who wrote it, for what is no UTF-8.
inline std::string checked_text(const std::string& from, std::string_view text) {
  if (!json::is_utf8(text)) throw PermanentError(from + " answered with text that is not UTF-8");
  return std::string(text);
}

}  // namespace pipegen::actions
