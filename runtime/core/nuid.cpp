#include "core/nuid.hpp"

#include <array>
#include <cstdint>
#include <string_view>

#include "core/random.hpp"

namespace pipegen {

std::string nuid() {
  constexpr std::size_t kLength = 22;
  constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string text;
  std::array<std::uint8_t, 32> octets;
  while (text.size() < kLength) {
    fill_random(std::as_writable_bytes(std::span(octets)));
    for (const std::uint8_t octet : octets) {
      // 248 = 4 * 62: values above would make the first digits likelier than the last.
      if (octet < 248 && text.size() < kLength) text += kDigits[octet % kDigits.size()];
    }
  }
  return text;
}

}  // namespace pipegen
