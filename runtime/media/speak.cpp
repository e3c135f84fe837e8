#include "pipegen/actions/speak.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>

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

  Pcm pcm{.sample_rate = options.sample_rate};
  std::uint64_t silence = 0;
  if (external) {
    // Without words there is nothing to run it for. How fast its samples follow each other is not known then, so
    // there are none: a silence at another rate could not be joined to the other pages.
    if (has_words(text)) {
      pcm = speak_with_program(context, options, text);
      if (pcm.size == 0) throw TransientError(options.program.front() + " made no sound of a text with words");
    }
  } else {
    pcm = speak_with_espeak(context, text, options.voice.value_or("en"));
    if (pcm.size == 0 || !has_words(text)) {
      pcm.size = 0;
      silence = static_cast<std::uint64_t>(pcm.sample_rate * options.silence.count() / 1000);
    }
  }

  ObjectWriter writer =
      context.objects(options.audio.bucket)
          .create(options.audio.name,
                  {{"sample_rate", std::to_string(pcm.sample_rate)}, {"channels", "1"}, {"encoding", "s16le"}});
  Bytes block(256 * 1024);
  std::ifstream in(pcm.file, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(pcm.begin));
  for (std::uint64_t left = pcm.size; left > 0;) {
    context.throw_if_stopped();
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(left, block.size()));
    if (!in.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(part))) {
      throw TransientError("cannot read " + pcm.file.string() + " to its end");
    }
    writer.write(BytesView(block).first(part));
    left -= part;
  }
  writer.write(Bytes(silence * sizeof(std::int16_t)));
  writer.finish();
}

}  // namespace pipegen::actions
