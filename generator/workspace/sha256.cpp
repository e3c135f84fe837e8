#include "workspace/sha256.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <stdexcept>

namespace pipegen::gen {

std::string sha256(std::string_view content) {
  // Without its configuration file libcrypto is ready in a fraction of the time.
  static const EVP_MD* const kDigest = [] {
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
    return EVP_MD_fetch(nullptr, "SHA256", nullptr);
  }();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (kDigest == nullptr || EVP_Digest(content.data(), content.size(), digest.data(), &size, kDigest, nullptr) != 1) {
    throw std::runtime_error("OpenSSL cannot compute SHA-256");
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string result;
  result.reserve(2 * size);
  for (unsigned i = 0; i < size; ++i) {
    result += kDigits[digest[i] >> 4];
    result += kDigits[digest[i] & 0xF];
  }
  return result;
}

}  // namespace pipegen::gen
