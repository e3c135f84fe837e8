#include "pipegen/actions/render_pdf.hpp"

#include <poppler-document.h>
#include <poppler-global.h>
#include <poppler-image.h>
#include <poppler-page-renderer.h>
#include <poppler-page.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <mutex>

#include "media/png.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

namespace {

/// What poppler complained about since the last look. It reports through one callback of the process, from the thread
/// that does the work: hence the thread's own count.
thread_local int complaints = 0;
thread_local std::string first_complaint;

void take_complaint(const std::string& message, void*) {
  if (complaints++ > 0) return;
  // It may quote the document, and ends up in logs and headers.
  first_complaint = message.substr(0, 200);
  std::ranges::replace_if(
      first_complaint, [](char c) { return c < ' ' || c > '~'; }, ' ');
}

void listen_to_poppler() {
  static std::once_flag once;
  std::call_once(once, [] { poppler::set_debug_error_function(take_complaint, nullptr); });
}

int take_complaints() {
  const int count = complaints;
  complaints = 0;
  return count;
}

std::unique_ptr<poppler::document> load(const std::filesystem::path& file) {
  // A PDF may be preceded by other bytes, but not by many (poppler looks at the first kilobyte, too).
  const Bytes head = [&] {
    std::ifstream in(file, std::ios::binary);
    Bytes bytes(1024);
    in.read(reinterpret_cast<char*>(bytes.data()), 1024);
    bytes.resize(static_cast<std::size_t>(in.gcount()));
    return bytes;
  }();
  if (head.empty()) throw PermanentError("the file is empty, not a PDF");
  if (text_of(head).find("%PDF-") == std::string_view::npos) throw PermanentError("the file is not a PDF");
  std::unique_ptr<poppler::document> document(poppler::document::load_from_file(file.string()));
  if (!document) throw PermanentError("the PDF is damaged and cannot be opened");
  if (document->is_locked()) throw PermanentError("the PDF needs a password");
  if (document->pages() < 1) throw PermanentError("the PDF has no pages");
  return document;
}

}  // namespace

void render_pdf(Context& context, const RenderPdf& options, const std::function<void(const Page&)>& emit) {
  if (!(options.dpi >= 1 && options.dpi <= 2400)) {
    throw ConfigError("dpi is " + std::to_string(options.dpi) + ": choose one from 1 to 2400");
  }
  listen_to_poppler();
  take_complaints();
  const std::filesystem::path file = context.scratch() / "document.pdf";
  context.objects(options.pdf.bucket).get_file(options.pdf.name, file);
  const auto document = load(file);
  // A file that is cut off still opens: its later pages then come out blank without a word of their own.
  const bool damaged_document = take_complaints() > 0;

  poppler::page_renderer renderer;
  renderer.set_render_hint(poppler::page_renderer::antialiasing);
  renderer.set_render_hint(poppler::page_renderer::text_antialiasing);
  renderer.set_image_format(poppler::image::format_rgb24);
  const int total = document->pages();
  for (int number = 1; number <= total; ++number) {
    context.throw_if_stopped();
    const std::string where = "page " + std::to_string(number) + " of the PDF";
    const std::unique_ptr<poppler::page> page(document->create_page(number - 1));
    if (!page) throw PermanentError(where + " is damaged");

    const poppler::rectf size = page->page_rect();
    const double width = std::ceil(size.width() * options.dpi / 72);
    const double height = std::ceil(size.height() * options.dpi / 72);
    if (!(width * height <= static_cast<double>(options.max_pixels))) {
      throw PermanentError(where + " is too large: " + std::to_string(static_cast<std::int64_t>(width)) + " x " +
                           std::to_string(static_cast<std::int64_t>(height)) + " pixels at " +
                           std::to_string(static_cast<int>(options.dpi)) + " dpi");
    }
    const poppler::image image = renderer.render_page(page.get(), options.dpi, options.dpi);
    if (!image.is_valid() || image.width() < 1 || image.height() < 1)
      throw PermanentError(where + " cannot be rendered");

    const EncodedPicture picture = encode_png({.pixels = reinterpret_cast<const std::byte*>(image.const_data()),
                                               .width = static_cast<std::size_t>(image.width()),
                                               .height = static_cast<std::size_t>(image.height()),
                                               .stride = static_cast<std::size_t>(image.bytes_per_row())},
                                              options.dpi);
    const bool damaged_page = take_complaints() > 0;
    if (picture.one_colour && (damaged_page || damaged_document)) {
      throw PermanentError(where + " is damaged, nothing of it can be seen: " + first_complaint);
    }
    if (damaged_page) context.log().warning("a page has errors", {{"page", number}, {"poppler", first_complaint}});
    emit({.number = number, .total = total, .blank = picture.one_colour, .png = picture.png});
  }
}

}  // namespace pipegen::actions
