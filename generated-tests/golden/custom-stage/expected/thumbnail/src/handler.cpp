// Yours: pipegen wrote this once and will not touch it again.
#include "thumbnail/handler.hpp"

namespace thumbnail {

ThumbnailCreated handle([[maybe_unused]] const PictureCreated& event, [[maybe_unused]] pipegen::Context& context) {
  throw pipegen::PermanentError("thumbnail/src/handler.cpp does nothing yet: write what the stage does");
}

}  // namespace thumbnail
