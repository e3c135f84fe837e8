// Built-in actions wav_encode and wav_concat: PCM to WAV, and many WAVs to one (libsndfile; RF64 above 4 GiB).
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "pipegen/context.hpp"

namespace pipegen::actions {

struct WavEncode {
  ObjectRef pcm{};  // as speak stores it
  ObjectRef wav{};
  std::int64_t sample_rate = 22050;  // when the object's metadata does not tell
};
/// Streams; memory stays flat. Throws PermanentError for half a sample at the end.
void wav_encode(Context& context, const WavEncode& options);

struct WavConcat {
  std::vector<ObjectRef> wavs{};  // in order
  ObjectRef output{};
  std::chrono::milliseconds silence{700};  // in place of a part without samples: a page without words is not lost
};
/// Streams; memory stays flat. Every part must be a WAV (also WAVEX, RF64) of PCM or floating-point samples with the
/// rate, channels and sample format of the first, else PermanentError that names it; a part without samples fits to
/// all.
void wav_concat(Context& context, const WavConcat& options);

}  // namespace pipegen::actions
