// Raw audio between two actions: signed 16-bit little-endian mono. Internal to runtime/media.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "pipegen/actions/speak.hpp"

namespace pipegen::actions {

/// Lies in a file of the scratch folder: a page takes a few MiB, and a long text what no memory has.
struct Pcm {
  std::filesystem::path file{};
  std::uint64_t begin = 0;  // octets of the file before its samples
  std::uint64_t size = 0;   // octets of samples
  std::int64_t sample_rate = 0;
};

/// The espeak-ng library, in a child of this process. Throws PermanentError (no such voice), ConfigError (its data is
/// not installed), Cancelled.
Pcm speak_with_espeak(Context& context, const std::string& text, const std::string& voice);

/// The external program of the options.
Pcm speak_with_program(Context& context, const Speak& options, const std::string& text);

}  // namespace pipegen::actions
