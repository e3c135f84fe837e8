// Yours: pipegen wrote this once and will not touch it again.
#include "note/handler.hpp"

namespace note {

void handle([[maybe_unused]] const Happening01& event, [[maybe_unused]] pipegen::Context& context) {
  throw pipegen::PermanentError("note/src/handler.cpp does nothing yet: write what the stage does");
}

}  // namespace note
