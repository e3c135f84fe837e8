// Strings as JSON, for the writer and the log.
#pragma once

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace pipegen::json {

bool is_utf8(std::string_view text);

/// Every octet that belongs to no well-formed sequence becomes U+FFFD.
std::string repaired_utf8(std::string_view text);

/// Appends a quoted, escaped string. `text` must be UTF-8.
void append_string(std::string& out, std::string_view text);

/// Place of the first quote, backslash or control character among 16 octets; 16 when there is none.
inline std::size_t first_special_of_16(const char* from) {
#ifdef __SSE2__
  const __m128i octets = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(octets, _mm_set1_epi8(0x1f)), octets);
  const __m128i quote = _mm_cmpeq_epi8(octets, _mm_set1_epi8('"'));
  const __m128i backslash = _mm_cmpeq_epi8(octets, _mm_set1_epi8('\\'));
  const int special = _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash)));
  return static_cast<std::size_t>(std::countr_zero(static_cast<unsigned>(special) | 0x10000u));
#else
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kHighs = 0x8080808080808080;
  for (std::size_t i = 0; i < 16; i += 8) {
    std::uint64_t octets;
    std::memcpy(&octets, from + i, sizeof octets);
    if constexpr (std::endian::native == std::endian::big) octets = __builtin_bswap64(octets);
    const std::uint64_t quote = octets ^ (kOnes * '"');
    const std::uint64_t backslash = octets ^ (kOnes * '\\');
    // The high bit of each octet that is special. Borrows can set wrong bits above the lowest one, never below it.
    const std::uint64_t special =
        (((quote - kOnes) & ~quote) | ((backslash - kOnes) & ~backslash) | ((octets - kOnes * 0x20) & ~octets)) &
        kHighs;
    if (special != 0) return i + static_cast<std::size_t>(std::countr_zero(special)) / 8;
  }
  return 16;
#endif
}

}  // namespace pipegen::json
