// The stage `thumbnail`: copy this to services/thumbnail/src/handler.cpp, over the one that pipegen wrote.
#include "thumbnail/handler.hpp"

#include <leptonica/allheaders.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace thumbnail {

namespace {

struct PixDeleter {
  void operator()(Pix* pix) const { pixDestroy(&pix); }
};
using Picture = std::unique_ptr<Pix, PixDeleter>;

Picture shrink(const Picture& picture, std::int32_t width) {
  // A picture that is narrow enough stays as it is.
  const float scale = std::min(1.0f, static_cast<float>(width) / static_cast<float>(pixGetWidth(picture.get())));
  return Picture(pixScale(picture.get(), scale, scale));
}

pipegen::Bytes to_png(const Picture& picture) {
  l_uint8* data = nullptr;
  std::size_t size = 0;
  if (pixWriteMemPng(&data, &size, picture.get(), 0) != 0) throw pipegen::TransientError("cannot write a PNG");
  const std::unique_ptr<l_uint8, decltype(&std::free)> owner(data, &std::free);
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  return {bytes, bytes + size};
}

}  // namespace

ThumbnailCreatedEvent handle(const PictureCreatedEvent& event, pipegen::Context& context) {
  const pipegen::Bytes file = context.get(event.picture_key);  // verified against its digest
  const Picture picture(pixReadMem(reinterpret_cast<const l_uint8*>(file.data()), file.size()));
  // Trying again would not help, so the message goes to the dead-letter stream at once.
  if (!picture) throw pipegen::PermanentError(event.picture_key.name + " is not a picture");

  const Picture thumbnail = shrink(picture, event.width);
  if (!thumbnail) throw pipegen::PermanentError(event.picture_key.name + " cannot be made smaller");
  context.log().info("made a thumbnail", {{"width", pixGetWidth(thumbnail.get())}});
  return {.header = event.header,
          .picture_key = event.picture_key,
          // The same key at every redelivery: a second try writes over the first.
          .thumbnail_key = context.put<ThumbnailFiles>(context.output_key("png"), to_png(thumbnail))};
}

}  // namespace thumbnail
