// What a test wants to know about WAV files and texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pipegen::testing {

struct Wav {
  int channels = 0;
  int sample_rate = 0;
  int bits = 0;
  std::string samples;

  double seconds() const;
  /// The largest distance from silence.
  int peak() const;
};

/// Throws std::runtime_error when `file` is not a complete RIFF/WAVE file of PCM.
Wav parse_wav(std::string_view file);

/// Lower case, without punctuation.
std::vector<std::string> words(std::string_view text);

/// How many of `expected` are found in `found` in the same order, as a share of them all.
double share_in_order(const std::vector<std::string>& expected, const std::vector<std::string>& found);

}  // namespace pipegen::testing
