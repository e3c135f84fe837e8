// Built-in action ocr: text of an image (tesseract), and optionally commentary or a summary from a chat endpoint.
#pragma once

#include <optional>
#include <string>

#include "pipegen/context.hpp"

namespace pipegen::actions {

struct Ocr {
  ObjectRef image{};
  ObjectRef text{};  // where the text goes (UTF-8)
  std::string language = "eng";
  std::optional<bool> blank{};  // true: known to be blank, not looked at

  // Augmentation, by any OpenAI-compatible POST <chat_url>/chat/completions. Nothing is asked unless one is enabled.
  std::optional<bool> commentary{};
  std::optional<std::string> commentary_instructions{};
  std::optional<bool> summary{};
  std::optional<std::string> summary_placement{};  // "top" or "bottom" (default)
  std::optional<std::string> summary_instructions{};
  std::string chat_url{};  // "http://127.0.0.1:11434/v1"
  std::string chat_model{};
  std::optional<std::string> chat_api_key{};  // secret
};

/// Reads the image, stores the text: empty for a blank page. One engine per thread, OpenMP held to one thread. Throws
/// PermanentError (not an image; the chat endpoint refuses the request; it is needed and there is no chat_url),
/// TransientError (it answered badly), Unavailable (it is away or overloaded), ConfigError (no such language),
/// Cancelled.
void ocr(Context& context, const Ocr& options);

}  // namespace pipegen::actions
