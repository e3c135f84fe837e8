#include "pipegen/actions/wav.hpp"

#include <charconv>
#include <span>
#include <string>

#include "media/wav_file.hpp"
#include "pipegen/error.hpp"

namespace pipegen::actions {

namespace {

constexpr std::size_t kBlock = 256 * 1024;

int sample_rate_of(const ObjectInfo& info, std::int64_t fallback) {
  std::int64_t rate = fallback;
  if (const auto found = info.metadata.find("sample_rate"); found != info.metadata.end()) {
    rate = 0;
    std::from_chars(found->second.data(), found->second.data() + found->second.size(), rate);
  }
  if (rate < 1000 || rate > 768'000) {
    throw PermanentError(info.name + " cannot have a sample rate of " + std::to_string(rate) + " Hz");
  }
  return static_cast<int>(rate);
}

std::string describe(const SoundFormat& format) {
  SF_FORMAT_INFO encoding{.format = format.encoding, .name = nullptr, .extension = nullptr};
  sf_command(nullptr, SFC_GET_FORMAT_INFO, &encoding, sizeof encoding);
  return std::to_string(format.sample_rate) + " Hz, " + std::to_string(format.channels) +
         (format.channels == 1 ? " channel, " : " channels, ") + (encoding.name != nullptr ? encoding.name : "unknown");
}

}  // namespace

SoundFile create_wav(const std::filesystem::path& path, const SoundFormat& format, std::uint64_t expected) {
  // The sizes in the header count some octets besides the samples.
  const bool large = expected > (1ull << 32) - 64 * 1024;
  SF_INFO info{};
  info.samplerate = format.sample_rate;
  info.channels = format.channels;
  info.format = (large ? SF_FORMAT_RF64 : SF_FORMAT_WAV) | format.encoding;
  SoundFile file(sf_open(path.c_str(), SFM_WRITE, &info));
  if (!file) throw TransientError("cannot write " + path.string() + ": " + sf_strerror(nullptr));
  return file;
}

void append_samples(SNDFILE* file, BytesView samples) {
  const auto wanted = static_cast<sf_count_t>(samples.size());
  if (sf_write_raw(file, samples.data(), wanted) != wanted) {
    throw TransientError(std::string("cannot write a WAV file (is the disk full?): ") + sf_strerror(file));
  }
}

void wav_encode(Context& context, const WavEncode& options) {
  ObjectReader pcm = context.objects(options.pcm.bucket).open(options.pcm.name);
  const std::uint64_t size = pcm.info().size;
  if (size % 2 != 0) throw PermanentError(options.pcm.name + " ends in half a sample");
  const SoundFormat format{sample_rate_of(pcm.info(), options.sample_rate), 1, SF_FORMAT_PCM_16};
  const std::filesystem::path path = context.scratch() / "speech.wav";
  SoundFile wav = create_wav(path, format, size);
  std::vector<std::byte> block(kBlock);
  std::size_t held = 0;  // half a sample may be left over from the last read
  for (std::size_t got; (got = pcm.read(std::span(block).subspan(held))) > 0;) {
    context.throw_if_stopped();
    const std::size_t have = held + got;
    held = have % 2;
    append_samples(wav.get(), BytesView(block).first(have - held));
    if (held != 0) block[0] = block[have - 1];
  }
  wav.reset();  // completes the header
  context.objects(options.wav.bucket).put_file(options.wav.name, path, {{"media_type", "audio/wav"}});
}

void wav_concat(Context& context, const WavConcat& options) {
  if (options.wavs.empty()) throw PermanentError("there is no WAV to join");
  std::uint64_t expected = 0;
  for (const ObjectRef& wav : options.wavs) {
    context.throw_if_stopped();
    const auto info = context.objects(wav.bucket).info(wav.name);
    if (!info) throw PermanentError("there is no object " + wav.name + " in the bucket " + wav.bucket);
    expected += info->size;
  }

  const std::filesystem::path joined = context.scratch() / "joined.wav";
  const std::filesystem::path path = context.scratch() / "part.wav";
  SoundFile out;
  SoundFormat format;       // of what is written
  std::string format_from;  // the part that it comes from
  std::vector<std::byte> block;
  for (const ObjectRef& wav : options.wavs) {
    context.throw_if_stopped();
    context.objects(wav.bucket).get_file(wav.name, path);
    SF_INFO info{};
    const SoundFile part(sf_open(path.c_str(), SFM_READ, &info));
    if (!part) throw PermanentError(wav.name + " is not a WAV file: " + sf_strerror(nullptr));
    const SoundFormat part_format{info.samplerate, info.channels, info.format & SF_FORMAT_SUBMASK};
    if (!out) {
      // What has no samples goes with everything; it counts only when nothing else is there.
      if (info.frames == 0 && &wav != &options.wavs.back()) continue;
      format = part_format;
      format_from = wav.name;
      out = create_wav(joined, format, expected);
    }
    if (info.frames == 0) continue;
    if (part_format != format) {
      throw PermanentError(wav.name + " (" + describe(part_format) + ") cannot be joined to " + format_from + " (" +
                           describe(format) + ")");
    }
    // Whole frames at a time, copied as they are.
    block.resize(12 * 4096 * static_cast<std::size_t>(info.channels));
    for (sf_count_t got; (got = sf_read_raw(part.get(), block.data(), static_cast<sf_count_t>(block.size()))) > 0;) {
      context.throw_if_stopped();
      append_samples(out.get(), BytesView(block).first(static_cast<std::size_t>(got)));
    }
  }
  out.reset();  // completes the header
  context.objects(options.output.bucket).put_file(options.output.name, joined, {{"media_type", "audio/wav"}});
}

}  // namespace pipegen::actions
