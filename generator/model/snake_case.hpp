// The one spelling that both the settings and the generated code have for the names of a schema.
#pragma once

#include <string>
#include <string_view>

namespace pipegen::gen {

/// "TextProcessedEvent" -> "text_processed_event", "PDFCreatedEvent" -> "pdf_created_event", "pdf-to-png" ->
/// "pdf_to_png".
inline std::string snake_case(std::string_view name) {
  const auto is_upper = [&](std::size_t i) { return i < name.size() && name[i] >= 'A' && name[i] <= 'Z'; };
  const auto is_lower = [&](std::size_t i) { return i < name.size() && name[i] >= 'a' && name[i] <= 'z'; };
  std::string out;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const bool starts_word =
        i > 0 && is_upper(i) && name[i - 1] != '_' && name[i - 1] != '-' && (!is_upper(i - 1) || is_lower(i + 1));
    if (starts_word) out += '_';
    out += name[i] == '-' ? '_' : is_upper(i) ? static_cast<char>(name[i] - 'A' + 'a') : name[i];
  }
  return out;
}

}  // namespace pipegen::gen
