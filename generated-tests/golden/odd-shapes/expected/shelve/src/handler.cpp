// Yours: pipegen wrote this once and will not touch it again.
#include "shelve/handler.hpp"

namespace shelve {

void handle([[maybe_unused]] const SoundsJoined& event, [[maybe_unused]] pipegen::Context& context) {
  throw pipegen::PermanentError("shelve/src/handler.cpp does nothing yet: write what the stage does");
}

}  // namespace shelve
