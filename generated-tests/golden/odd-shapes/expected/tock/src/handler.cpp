// Yours: pipegen wrote this once and will not touch it again.
#include "tock/handler.hpp"

namespace tock {

void handle([[maybe_unused]] const Tick& event, [[maybe_unused]] pipegen::Context& context) {
  throw pipegen::PermanentError("tock/src/handler.cpp does nothing yet: write what the stage does");
}

}  // namespace tock
