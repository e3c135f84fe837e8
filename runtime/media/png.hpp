// PNG files for the pages of a document. Internal to runtime/media.
#pragma once

#include <cstddef>

#include "pipegen/types.hpp"

namespace pipegen::actions {

/// A picture of three octets (red, green, blue) a pixel, its rows `stride` octets apart. Does not own its pixels.
struct Picture {
  const std::byte* pixels = nullptr;
  std::size_t width = 0;
  std::size_t height = 0;
  std::size_t stride = 0;
};

struct EncodedPicture {
  Bytes png;
  bool one_colour = false;  // every pixel is like the first
};

/// The same picture gives the same octets. Grey pictures are stored as such, which is a third of the work for whoever
/// reads them; compression is light, because a page is read once and then forgotten.
EncodedPicture encode_png(const Picture& picture, double dpi);

}  // namespace pipegen::actions
