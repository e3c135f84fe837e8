#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/placeholders.hpp"
#include "media/pcm.hpp"
#include "pipegen/error.hpp"
#include "pipegen/process.hpp"

namespace pipegen::actions {

namespace {

void write_file(const std::filesystem::path& path, BytesView bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw TransientError("cannot write " + path.string() + ": is the disk full?");
}

std::uint32_t little_endian(const char* bytes, int count) {
  std::uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// Up to that many octets from there.
std::string read_at(std::ifstream& in, std::uint64_t at, std::size_t size) {
  std::string octets(size, '\0');
  in.clear();
  in.seekg(static_cast<std::streamoff>(at));
  in.read(octets.data(), static_cast<std::streamsize>(size));
  octets.resize(static_cast<std::size_t>(in.gcount()));
  return octets;
}

/// Where the samples of a 16-bit mono WAV are; raw PCM is taken as it is.
Pcm find_samples(const std::filesystem::path& file, std::int64_t raw_rate) {
  std::error_code error;
  const std::uint64_t end = std::filesystem::file_size(file, error);
  std::ifstream in(file, std::ios::binary);
  // A file of our own scratch folder that cannot be read is not the message's fault.
  if (error || !in) throw TransientError("cannot read " + file.string());
  const std::string begin = read_at(in, 0, 12);
  if (begin.size() < 12 || !begin.starts_with("RIFF") || begin.substr(8) != "WAVE") {
    if (end % 2 != 0) throw PermanentError("the speech program's output ends in half a sample");
    return {.file = file, .size = end, .sample_rate = raw_rate};
  }
  std::int64_t rate = 0;
  for (std::uint64_t at = 12; at + 8 <= end;) {
    const std::string chunk = read_at(in, at, 8 + 16);
    if (chunk.size() < 8) break;
    // A program that writes to a pipe cannot go back to fill in the length: then the chunk is all that is left.
    const std::uint64_t size = std::min<std::uint64_t>(little_endian(chunk.data() + 4, 4), end - at - 8);
    if (chunk.starts_with("fmt ") && size >= 16 && chunk.size() == 8 + 16) {
      const char* format = chunk.data() + 8;
      const bool pcm16 = little_endian(format + 2, 2) == 1 && little_endian(format + 14, 2) == 16;
      if (!pcm16) throw PermanentError("the speech program makes WAV that is not 16-bit mono");
      rate = little_endian(format + 4, 4);
    } else if (chunk.starts_with("data")) {
      if (rate == 0) break;
      return {.file = file, .begin = at + 8, .size = size - size % 2, .sample_rate = rate};
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
  if (!to_file) program.output_file = output_file;
  const ProgramResult result = run_program(arguments.list, program);
  context.throw_if_stopped();
  throw_if_failed(name, result);
  if (!std::filesystem::exists(output_file)) throw TransientError(name + " ended well but wrote no audio");
  return find_samples(output_file, options.sample_rate);
}

}  // namespace pipegen::actions
