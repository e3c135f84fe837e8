// Raw audio between two actions: signed 16-bit little-endian mono. Internal to runtime/media.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipegen/actions/speak.hpp"

namespace pipegen::actions {

struct Pcm {
  std::vector<std::int16_t> samples;
  std::int64_t sample_rate = 0;
};

/// The espeak-ng library, in a child of this process. Throws PermanentError (no such voice), ConfigError (its data is
/// not installed), Cancelled.
Pcm speak_with_espeak(const Context& context, const std::string& text, const std::string& voice);

/// The external program of the options.
Pcm speak_with_program(Context& context, const Speak& options, const std::string& text);

}  // namespace pipegen::actions
