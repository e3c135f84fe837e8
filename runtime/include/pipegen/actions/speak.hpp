// Built-in action speak: text to raw PCM, by the espeak-ng library or by an external program.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pipegen/context.hpp"

namespace pipegen::actions {

struct Speak {
  ObjectRef text{};
  ObjectRef audio{};  // signed 16-bit little-endian mono; its rate in the object's metadata "sample_rate"
  std::string engine = "espeak-ng";  // or "program"
  // The external program: an argument list. "{text}" and "{output}" are replaced by the names of files, "{voice}",
  // "{seed}", "{ngl}", "{top_p}", "{repetition_penalty}" and "{temperature}" by values, "{{" and "}}" by the braces
  // themselves; an argument whose value is absent is left out together with the option before it. Without "{text}" the
  // text goes to standard input, without "{output}" the audio is read from standard output. What it makes may be WAV
  // (16-bit mono, any rate; told by its header) or raw PCM at `sample_rate`.
  std::vector<std::string> program{};
  std::int64_t sample_rate = 22050;
  std::optional<std::string> voice{};  // espeak-ng: "en" when absent
  std::optional<std::int64_t> seed{};
  std::optional<std::int64_t> ngl{};
  std::optional<double> top_p{};
  std::optional<double> repetition_penalty{};
  std::optional<double> temperature{};
  std::chrono::milliseconds silence{700};  // of espeak-ng, for a text without words; a program is not run for one, and
                                           // the audio is empty, because its rate is not known (wav_concat makes a
                                           // silence of it)
};

/// Deterministic with espeak-ng: the same text and voice give the same octets, those of `espeak-ng -v VOICE -w`. Throws
/// PermanentError (no such voice, the program ended with 65, EX_DATAERR), TransientError (it failed in another way),
/// ConfigError (the settings do not say what to run, or there is no such program), Cancelled.
void speak(Context& context, const Speak& options);

}  // namespace pipegen::actions
