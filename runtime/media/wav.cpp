#include "pipegen/actions/wav.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

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

/// 0 for what is no plain samples.
std::size_t octets_of_sample(int encoding) {
  switch (encoding) {
    case SF_FORMAT_PCM_U8:
      return 1;
    case SF_FORMAT_PCM_16:
      return 2;
    case SF_FORMAT_PCM_24:
      return 3;
    case SF_FORMAT_PCM_32:
    case SF_FORMAT_FLOAT:
      return 4;
    case SF_FORMAT_DOUBLE:
      return 8;
    default:
      return 0;
  }
}

/// How many octets of samples are `duration` long.
std::uint64_t octets_of(std::chrono::milliseconds duration, const SoundFormat& format) {
  const std::int64_t frames = std::max<std::int64_t>(0, duration.count()) * format.sample_rate / 1000;
  return static_cast<std::uint64_t>(frames) * static_cast<std::uint64_t>(format.channels) *
         octets_of_sample(format.encoding);
}

void append_silence(SNDFILE* file, std::uint64_t octets, const SoundFormat& format) {
  // The middle of unsigned samples is silent.
  const auto octet = static_cast<std::byte>(format.encoding == SF_FORMAT_PCM_U8 ? 0x80 : 0);
  const std::size_t frame = octets_of_sample(format.encoding) * static_cast<std::size_t>(format.channels);
  const Bytes block(frame * 4096, octet);
  for (std::uint64_t left = octets; left > 0;) {
    const std::size_t size = std::min<std::uint64_t>(left, block.size());
    append_samples(file, BytesView(block).first(size));
    left -= size;
  }
}

/// One part of what is joined, open for reading its samples as they lie in the file.
struct Part {
  SoundFile file;
  SoundFormat format;
  sf_count_t frames = 0;
};

/// libsndfile opens many kinds of sound. The samples of these are one after the other in the order of octets that a WAV
/// has, and can be copied as they are.
bool is_wav_of_plain_samples(SNDFILE* file, int format) {
  const int type = format & SF_FORMAT_TYPEMASK;
  const bool is_wav = type == SF_FORMAT_WAV || type == SF_FORMAT_WAVEX || type == SF_FORMAT_RF64;
  return is_wav && octets_of_sample(format & SF_FORMAT_SUBMASK) > 0 &&
         sf_command(file, SFC_RAW_DATA_NEEDS_ENDSWAP, nullptr, 0) == SF_FALSE;
}

Part open_part(const std::filesystem::path& path, const std::string& name) {
  SF_INFO info{};
  SoundFile file(sf_open(path.c_str(), SFM_READ, &info));
  if (!file) throw PermanentError(name + " is not a WAV file: " + sf_strerror(nullptr));
  const SoundFormat format{info.samplerate, info.channels, info.format & SF_FORMAT_SUBMASK};
  if (!is_wav_of_plain_samples(file.get(), info.format)) {
    throw PermanentError(
        name + " is not a WAV file of plain samples (PCM or floating point, little-endian): " + describe(format));
  }
  return {std::move(file), format, info.frames};
}

/// Whole frames only: what a file that was cut off has of one more would shift everything after it.
void copy_samples(const Context& context, const Part& part, const std::string& name, SNDFILE* out) {
  const std::size_t frame = octets_of_sample(part.format.encoding) * static_cast<std::size_t>(part.format.channels);
  std::vector<std::byte> block(frame * 4096);
  for (std::uint64_t left = static_cast<std::uint64_t>(part.frames) * frame; left > 0;) {
    context.throw_if_stopped();
    const std::size_t size = std::min<std::uint64_t>(left, block.size());
    if (sf_read_raw(part.file.get(), block.data(), static_cast<sf_count_t>(size)) != static_cast<sf_count_t>(size)) {
      throw TransientError("cannot read all samples of " + name + ": " + sf_strerror(part.file.get()));
    }
    append_samples(out, BytesView(block).first(size));
    left -= size;
  }
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
  const std::filesystem::path path = context.scratch() + "/speech.wav";
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
  std::vector<std::uint64_t> sizes;
  for (const ObjectRef& wav : options.wavs) {
    context.throw_if_stopped();
    const auto info = context.objects(wav.bucket).info(wav.name);
    if (!info) throw PermanentError("there is no object " + wav.name + " in the bucket " + wav.bucket);
    sizes.push_back(info->size);
  }

  const std::filesystem::path joined = context.scratch() + "/joined.wav";
  const std::filesystem::path path = context.scratch() + "/part.wav";
  SoundFile out;
  SoundFormat format;               // of what is written
  std::string format_from;          // the part that it comes from
  std::uint64_t silence = 0;        // octets
  std::size_t silences_before = 0;  // until the format is known
  for (const ObjectRef& wav : options.wavs) {
    context.throw_if_stopped();
    context.objects(wav.bucket).get_file(wav.name, path);
    const Part part = open_part(path, wav.name);
    if (!out) {
      // What has no samples goes with everything; its format counts only when nothing else is there.
      if (part.frames == 0 && &wav != &options.wavs.back()) {
        ++silences_before;
        continue;
      }
      format = part.format;
      format_from = wav.name;
      silence = octets_of(options.silence, format);
      std::uint64_t expected = 0;
      for (const std::uint64_t size : sizes) expected += std::max(size, silence);
      out = create_wav(joined, format, expected);
      for (; silences_before > 0; --silences_before) append_silence(out.get(), silence, format);
    }
    if (part.frames == 0) {
      append_silence(out.get(), silence, format);
      continue;
    }
    if (part.format != format) {
      throw PermanentError(wav.name + " (" + describe(part.format) + ") cannot be joined to " + format_from + " (" +
                           describe(format) + ")");
    }
    copy_samples(context, part, wav.name, out.get());
  }
  out.reset();  // completes the header
  context.objects(options.output.bucket).put_file(options.output.name, joined, {{"media_type", "audio/wav"}});
}

}  // namespace pipegen::actions
