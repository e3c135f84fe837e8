#include <algorithm>
#include <filesystem>

#include "core/placeholders.hpp"
#include "media/files.hpp"
#include "media/pcm.hpp"
#include "pipegen/error.hpp"
#include "pipegen/process.hpp"

namespace pipegen::actions {

namespace {

std::uint32_t little_endian(const std::byte* bytes, int count) {
  std::uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | std::to_integer<std::uint32_t>(bytes[i]);
  return value;
}

void append_samples(Pcm& pcm, BytesView data) {
  for (std::size_t i = 0; i + 1 < data.size(); i += 2) {
    pcm.samples.push_back(static_cast<std::int16_t>(little_endian(data.data() + i, 2)));
  }
}

/// The samples of a 16-bit mono WAV; raw PCM is taken as it is.
Pcm decode(const Bytes& audio, std::int64_t raw_rate) {
  Pcm pcm;
  pcm.sample_rate = raw_rate;
  const std::string_view text = text_of(audio);
  if (!text.starts_with("RIFF") || text.size() < 12 || text.substr(8, 4) != "WAVE") {
    if (audio.size() % 2 != 0) throw PermanentError("the speech program's output ends in half a sample");
    append_samples(pcm, audio);
    return pcm;
  }
  bool has_format = false;
  for (std::size_t at = 12; at + 8 <= audio.size();) {
    const std::string_view name = text.substr(at, 4);
    const std::size_t left = audio.size() - at - 8;
    // A program that writes to a pipe cannot go back to fill in the length: then the chunk is all that is left.
    const std::size_t size = std::min<std::size_t>(little_endian(audio.data() + at + 4, 4), left);
    const std::byte* body = audio.data() + at + 8;
    if (name == "fmt " && size >= 16) {
      const bool pcm16 = little_endian(body + 2, 2) == 1 && little_endian(body + 14, 2) == 16;
      if (!pcm16) throw PermanentError("the speech program makes WAV that is not 16-bit mono");
      pcm.sample_rate = little_endian(body + 4, 4);
      has_format = true;
    } else if (name == "data") {
      if (!has_format) break;
      append_samples(pcm, BytesView(body, size));
      return pcm;
    }
    at += 8 + size + size % 2;
  }
  throw PermanentError("the speech program's WAV cannot be read");
}

}  // namespace

Pcm speak_with_program(Context& context, const Speak& options, const std::string& text) {
  const std::filesystem::path scratch = context.scratch();
  const std::filesystem::path text_file = scratch / "text.txt";
  const std::filesystem::path output_file = scratch / "speech.wav";
  const Arguments arguments =
      fill_arguments(options.program, {
                                          {"text", text_file.string()},
                                          {"output", output_file.string()},
                                          {"voice", options.voice},
                                          {"seed", optional_text(options.seed)},
                                          {"ngl", optional_text(options.ngl)},
                                          {"top_p", optional_text(options.top_p)},
                                          {"repetition_penalty", optional_text(options.repetition_penalty)},
                                          {"temperature", optional_text(options.temperature)},
                                      });
  const std::string& name = arguments.list.front();
  const bool to_file = arguments.used.contains("output");

  ProgramOptions program;
  program.stop = context.stop_token();
  if (arguments.used.contains("text")) {
    write_file(text_file, bytes_of(text));
  } else {
    program.input = bytes_of(text);
  }
  const ProgramResult result = run_program(arguments.list, program);
  context.throw_if_stopped();
  throw_if_failed(name, result);
  if (to_file && !std::filesystem::exists(output_file)) {
    throw TransientError(name + " ended well but wrote no audio");
  }
  return decode(to_file ? read_file(output_file) : result.output, options.sample_rate);
}

}  // namespace pipegen::actions
