#include "core/sha256.hpp"

#include <openssl/evp.h>

#include <stdexcept>

namespace pipegen {
namespace {

void check(bool good) {
  if (!good) throw std::runtime_error("OpenSSL cannot compute SHA-256");
}

const EVP_MD* algorithm() {
  // Fetched once: EVP_sha256() looks the algorithm up again at every use. Never freed, for hashes made by destructors.
  static const EVP_MD* const fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  check(fetched != nullptr);
  return fetched;
}

}  // namespace

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  check(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, algorithm(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(BytesView bytes) { check(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1); }

Sha256::Digest Sha256::finish() {
  Digest digest;
  check(EVP_DigestFinal_ex(context_->evp, reinterpret_cast<unsigned char*>(digest.data()), nullptr) == 1);
  return digest;
}

Sha256::Digest Sha256::of(BytesView bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

}  // namespace pipegen
