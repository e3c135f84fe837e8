#include "pipegen/actions/speak.hpp"

#include <algorithm>
#include <bit>
#include <cctype>

#include "media/pcm.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

namespace {

/// Anything that can be spoken: letters and digits, also outside ASCII.
bool has_words(const std::string& text) {
  return std::ranges::any_of(text, [](unsigned char c) { return c >= 0x80 || std::isalnum(c) != 0; });
}

}  // namespace

void speak(Context& context, const Speak& options) {
  const bool external = options.engine == "program";
  if (!external && options.engine != "espeak-ng") {
    throw ConfigError("engine is \"" + options.engine + "\": choose espeak-ng or program");
  }
  const Bytes object = context.objects(options.text.bucket).get(options.text.name);
  // A NUL would end the text early.
  std::string text(text_of(object));
  std::ranges::replace(text, '\0', ' ');

  Pcm pcm{.samples = {}, .sample_rate = options.sample_rate};
  if (external) {
    // Without words there is nothing to run it for. How fast its samples follow each other is not known then, so
    // there are none: a silence at another rate could not be joined to the other pages.
    if (has_words(text)) {
      pcm = speak_with_program(context, options, text);
      if (pcm.samples.empty()) throw TransientError(options.program.front() + " made no sound of a text with words");
    }
  } else {
    pcm = speak_with_espeak(context, text, options.voice.value_or("en"));
    if (pcm.samples.empty() || !has_words(text)) {
      pcm.samples.assign(static_cast<std::size_t>(pcm.sample_rate * options.silence.count() / 1000), 0);
    }
  }

  static_assert(std::endian::native == std::endian::little, "PCM is written as it lies in memory");
  const auto bytes = std::as_bytes(std::span(pcm.samples));
  context.objects(options.audio.bucket)
      .put(options.audio.name, bytes,
           {{"sample_rate", std::to_string(pcm.sample_rate)}, {"channels", "1"}, {"encoding", "s16le"}});
}

}  // namespace pipegen::actions
