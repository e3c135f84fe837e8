#include "pipegen/actions/render_pdf.hpp"

#include <poppler-document.h>
#include <poppler-global.h>
#include <poppler-image.h>
#include <poppler-page-renderer.h>
#include <poppler-page.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "media/png.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

namespace {

/// Parts of poppler's complaints that say that it left out something of a page. Others are about flaws that cost
/// nothing, or less than a page refused.
constexpr std::string_view kLosses[] = {
    "No font in ",           // no text is drawn until the next font
    "Couldn't find a font",  // neither in the file nor on this machine
    "Couldn't create a font",
    "XObject '",  // a picture, or a part of the page, that is not there
    " in flate stream",
    "Bad LZW stream",
    "Could not find start of jpeg data",
    "End of file in",  // an inline image, an array, a dictionary
};

struct Complaints {
  std::string first;
  std::string loss;  // the first that says that something is left out
  bool any() const { return !first.empty(); }
};

/// What poppler complained about since the last look. It reports through one callback of the process, from the thread
/// that does the work: hence the thread's own.
thread_local Complaints complaints;

void take_complaint(const std::string& message, void*) {
  const bool is_loss =
      std::ranges::any_of(kLosses, [&](std::string_view part) { return message.find(part) != std::string::npos; });
  if (complaints.any() && (!is_loss || !complaints.loss.empty())) return;
  // It may quote the document, and ends up in logs and headers.
  std::string text = message.substr(0, 200);
  std::ranges::replace_if(
      text, [](char c) { return c < ' ' || c > '~'; }, ' ');
  if (!complaints.any()) complaints.first = text;
  if (is_loss) complaints.loss = std::move(text);
}

void listen_to_poppler() {
  static std::once_flag once;
  std::call_once(once, [] { poppler::set_debug_error_function(take_complaint, nullptr); });
}

Complaints take_complaints() { return std::exchange(complaints, {}); }

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

std::string name_of(std::size_t index) { return "page " + std::to_string(index + 1) + " of the PDF"; }

struct OpenPage {
  std::unique_ptr<poppler::page> page;
  Complaints complaints;
};

/// All pages, none of them over the limits. Before the first is given away: what is made of it would wait in vain for
/// the others.
std::vector<OpenPage> open_pages(const Context& context, const RenderPdf& options, const poppler::document& document) {
  const int total = document.pages();
  if (total > options.max_pages) {
    throw PermanentError("the PDF has " + std::to_string(total) + " pages, more than the " +
                         std::to_string(options.max_pages) + " that are taken");
  }
  std::vector<OpenPage> pages;
  for (int i = 0; i < total; ++i) {
    context.throw_if_stopped();
    std::unique_ptr<poppler::page> page(document.create_page(i));
    const std::string where = name_of(pages.size());
    if (!page) throw PermanentError(where + " is damaged");
    const poppler::rectf size = page->page_rect();
    const double width = std::ceil(size.width() * options.dpi / 72);
    const double height = std::ceil(size.height() * options.dpi / 72);
    if (!(width * height <= static_cast<double>(options.max_pixels))) {
      throw PermanentError(where + " is too large: " + std::to_string(static_cast<std::int64_t>(width)) + " x " +
                           std::to_string(static_cast<std::int64_t>(height)) + " pixels at " +
                           std::to_string(static_cast<int>(options.dpi)) + " dpi");
    }
    pages.push_back({std::move(page), take_complaints()});
  }
  return pages;
}

}  // namespace

void render_pdf(Context& context, const RenderPdf& options, const std::function<void(const Page&)>& emit) {
  if (!(options.dpi >= 1 && options.dpi <= 2400)) {
    throw ConfigError("dpi is " + std::to_string(options.dpi) + ": choose one from 1 to 2400");
  }
  listen_to_poppler();
  take_complaints();
  const std::filesystem::path file = context.scratch() + "/document.pdf";
  context.objects(options.pdf.bucket).get_file(options.pdf.name, file);
  const auto document = load(file);
  // A file that is cut off still opens: its later pages then come out blank without a word of their own.
  const Complaints of_document = take_complaints();
  const std::vector<OpenPage> pages = open_pages(context, options, *document);

  poppler::page_renderer renderer;
  renderer.set_render_hint(poppler::page_renderer::antialiasing);
  renderer.set_render_hint(poppler::page_renderer::text_antialiasing);
  renderer.set_image_format(poppler::image::format_rgb24);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    context.throw_if_stopped();
    const auto number = static_cast<std::int32_t>(i + 1);
    const std::string where = name_of(i);
    complaints = pages[i].complaints;
    const poppler::image image = renderer.render_page(pages[i].page.get(), options.dpi, options.dpi);
    const Complaints of_page = take_complaints();
    if (!image.is_valid() || image.width() < 1 || image.height() < 1)
      throw PermanentError(where + " cannot be rendered");
    // Nobody would miss it in what is made of the page.
    if (!of_page.loss.empty()) {
      throw PermanentError(where + " is damaged, a part of it cannot be seen: " + of_page.loss);
    }

    const EncodedPicture picture = encode_png({.pixels = reinterpret_cast<const std::byte*>(image.const_data()),
                                               .width = static_cast<std::size_t>(image.width()),
                                               .height = static_cast<std::size_t>(image.height()),
                                               .stride = static_cast<std::size_t>(image.bytes_per_row())},
                                              options.dpi);
    if (picture.one_colour && (of_page.any() || of_document.any())) {
      throw PermanentError(where +
                           " is damaged, nothing of it can be seen: " + (of_page.any() ? of_page : of_document).first);
    }
    if (of_page.any()) context.log().warning("a page has errors", {{"page", number}, {"poppler", of_page.first}});
    emit({.number = number,
          .total = static_cast<std::int32_t>(pages.size()),
          .blank = picture.one_colour,
          .png = picture.png});
  }
}

}  // namespace pipegen::actions
