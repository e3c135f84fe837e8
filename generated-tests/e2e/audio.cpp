#include "audio.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace pipegen::testing {

namespace {

std::uint32_t number(std::string_view bytes, std::size_t offset, std::size_t size) {
  if (offset + size > bytes.size()) throw std::runtime_error("the WAV file is too short");
  std::uint32_t result = 0;
  for (std::size_t i = 0; i < size; ++i) {
    result |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[offset + i])) << (8 * i);
  }
  return result;
}

}  // namespace

double Wav::seconds() const {
  return static_cast<double>(samples.size()) / (static_cast<double>(sample_rate) * channels * bits / 8);
}

int Wav::peak() const {
  int result = 0;
  for (std::size_t i = 0; i + 1 < samples.size(); i += 2) {
    std::int16_t sample;
    std::memcpy(&sample, samples.data() + i, sizeof sample);
    result = std::max(result, std::abs(static_cast<int>(sample)));
  }
  return result;
}

Wav parse_wav(std::string_view file) {
  if (file.size() < 12 || file.substr(0, 4) != "RIFF" || file.substr(8, 4) != "WAVE") {
    throw std::runtime_error("not a RIFF/WAVE file");
  }
  if (number(file, 4, 4) + 8 != file.size()) throw std::runtime_error("the RIFF chunk is not as long as the file");
  Wav wav;
  for (std::size_t at = 12; at + 8 <= file.size();) {
    const std::string_view name = file.substr(at, 4);
    const std::size_t size = number(file, at + 4, 4);
    if (at + 8 + size > file.size()) throw std::runtime_error("a chunk is longer than the file");
    if (name == "fmt ") {
      if (number(file, at + 8, 2) != 1) throw std::runtime_error("not PCM");
      wav.channels = static_cast<int>(number(file, at + 10, 2));
      wav.sample_rate = static_cast<int>(number(file, at + 12, 4));
      wav.bits = static_cast<int>(number(file, at + 22, 2));
    } else if (name == "data") {
      wav.samples = file.substr(at + 8, size);
    }
    at += 8 + size + size % 2;
  }
  if (wav.sample_rate == 0) throw std::runtime_error("there is no fmt chunk");
  return wav;
}

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> result(1);
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      result.back().push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    } else if (!result.back().empty()) {
      result.emplace_back();
    }
  }
  if (result.back().empty()) result.pop_back();
  return result;
}

double share_in_order(const std::vector<std::string>& expected, const std::vector<std::string>& found) {
  if (expected.empty()) throw std::runtime_error("there are no words to look for");
  // The longest common subsequence, row by row.
  std::vector<std::size_t> row(found.size() + 1, 0);
  for (const std::string& word : expected) {
    std::size_t diagonal = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const std::size_t above = row[i + 1];
      row[i + 1] = word == found[i] ? diagonal + 1 : std::max(above, row[i]);
      diagonal = above;
    }
  }
  return static_cast<double>(row.back()) / static_cast<double>(expected.size());
}

}  // namespace pipegen::testing
