// Built-in action render_pdf: every page of a PDF as a PNG (poppler-cpp).
#pragma once

#include <cstdint>
#include <functional>

#include "pipegen/context.hpp"

namespace pipegen::actions {

struct RenderPdf {
  ObjectRef pdf{};
  double dpi = 200;
  std::int64_t max_pixels = 100'000'000;  // of one page
  std::int64_t max_pages = 5'000;
};

struct Page {
  std::int32_t number = 0;  // from 1
  std::int32_t total = 0;
  bool blank = false;  // nothing but one colour on it
  BytesView png{};
};

/// Calls `page` for each page, in order, as it is rendered. Throws PermanentError, in words for the one who sent the
/// file, for what is no PDF, needs a password, has no pages, more than max_pages or one over max_pixels (all that
/// before the first call), for a page that is damaged so that a part of it cannot be seen; ConfigError for a dpi that
/// is none; Cancelled.
void render_pdf(Context& context, const RenderPdf& options, const std::function<void(const Page&)>& page);

}  // namespace pipegen::actions
