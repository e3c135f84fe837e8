// WAV files. Internal to runtime/media.
#pragma once

#include <sndfile.h>

#include <cstdint>
#include <filesystem>
#include <memory>

#include "pipegen/types.hpp"

namespace pipegen::actions {

struct SoundFileCloser {
  void operator()(SNDFILE* file) const { sf_close(file); }
};
using SoundFile = std::unique_ptr<SNDFILE, SoundFileCloser>;

/// What the samples of a file are. Two files with the same can be joined.
struct SoundFormat {
  int sample_rate = 0;
  int channels = 0;
  int encoding = 0;  // SF_FORMAT_PCM_16, …

  bool operator==(const SoundFormat&) const = default;
};

/// A file to be written with sf_write_raw. `expected` is how many octets of samples will come, or a little more: up to
/// 4 GiB it is a plain WAV, with the 44-octet header that everybody reads; beyond that, where the sizes of a WAV
/// overflow, an RF64. Throws TransientError when the file cannot be made.
SoundFile create_wav(const std::filesystem::path& path, const SoundFormat& format, std::uint64_t expected);

/// Throws TransientError.
void append_samples(SNDFILE* file, BytesView samples);

}  // namespace pipegen::actions
