// Yours: pipegen wrote this once and will not touch it again.
#include "compare/handler.hpp"

namespace compare {

void handle(
    [[maybe_unused]] const ReadingTaken& event,
    [[maybe_unused]] pipegen::Context& context,
    [[maybe_unused]] pipegen::Emitter<AnythingChanged, std::string_view, std::string_view>& emit_anything_changed,
    [[maybe_unused]] pipegen::Emitter<ReadingCopied>& emit_reading_copied,
    [[maybe_unused]] pipegen::Emitter<RegionChanged, std::string_view>& emit_region_changed) {
  throw pipegen::PermanentError("compare/src/handler.cpp does nothing yet: write what the stage does");
}

}  // namespace compare
