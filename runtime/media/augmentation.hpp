// Commentary and summary of a page, asked from an OpenAI-compatible chat endpoint. Internal to runtime/media.
#pragma once

#include <string>

#include "pipegen/actions/ocr.hpp"

namespace pipegen::actions {

/// The text with what the model added, or the text itself when nothing is enabled or there is nothing to say about it.
std::string augment(Context& context, const Ocr& options, std::string text);

}  // namespace pipegen::actions
