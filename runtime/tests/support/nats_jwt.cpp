#include "support/nats_jwt.hpp"

#include <openssl/evp.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>

namespace pipegen::testing {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Signing = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

void require(bool good) {
  if (!good) throw std::runtime_error("OpenSSL does not do Ed25519");
}

/// RFC 4648 without padding: `bits` of each character, in the order of `alphabet`.
std::string encode(std::string_view octets, unsigned bits, std::string_view alphabet) {
  std::string text;
  unsigned buffer = 0, have = 0;
  for (const char octet : octets) {
    buffer = buffer << 8 | static_cast<unsigned char>(octet);
    for (have += 8; have >= bits;) {
      have -= bits;
      text += alphabet[buffer >> have & ((1U << bits) - 1)];
    }
    buffer &= (1U << have) - 1;
  }
  if (have > 0) text += alphabet[buffer << (bits - have)];
  return text;
}
std::string base32(std::string_view octets) { return encode(octets, 5, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"); }
std::string base64url(std::string_view octets) {
  return encode(octets, 6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
}

/// With the CRC-16 (XMODEM) of it at the end.
std::string nkey(const std::string& octets) {
  std::uint16_t sum = 0;
  for (const char octet : octets) {
    sum = static_cast<std::uint16_t>(sum ^ static_cast<unsigned char>(octet) << 8);
    for (int bit = 0; bit < 8; ++bit) sum = static_cast<std::uint16_t>(sum << 1 ^ ((sum & 0x8000) != 0 ? 0x1021 : 0));
  }
  return base32(octets + static_cast<char>(sum & 0xff) + static_cast<char>(sum >> 8));
}

const unsigned char* octets_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

NatsKey::NatsKey(char kind) : private_key_(32, '\0') {
  EVP_PKEY* made = nullptr;
  const std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> context(
      EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, nullptr), EVP_PKEY_CTX_free);
  require(EVP_PKEY_keygen_init(context.get()) == 1 && EVP_PKEY_keygen(context.get(), &made) == 1);
  const Key key(made, EVP_PKEY_free);
  std::string open(32, '\0');
  std::size_t size = 32;
  require(EVP_PKEY_get_raw_private_key(made, reinterpret_cast<unsigned char*>(private_key_.data()), &size) == 1);
  require(EVP_PKEY_get_raw_public_key(made, reinterpret_cast<unsigned char*>(open.data()), &size) == 1);
  // The prefix is the kind's place in the alphabet of base32, in the upper five bits of the first octet, so that the
  // text begins with that letter; a seed's second letter is the kind.
  const unsigned prefix = static_cast<unsigned>(kind - 'A') << 3;
  const unsigned secret = static_cast<unsigned>('S' - 'A') << 3;
  public_key_ = nkey(static_cast<char>(prefix) + open);
  seed_ =
      nkey(std::string{static_cast<char>(secret | prefix >> 5), static_cast<char>((prefix & 31) << 3)} + private_key_);
}

std::string NatsKey::token(const NatsKey& subject, std::string_view name, std::string_view nats) const {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::string claims =
      R"({"jti":"1","iat":)" + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  claims.append(R"(,"iss":")").append(public_key_).append(R"(","name":")").append(name);
  claims.append(R"(","sub":")").append(subject.public_key_).append(R"(","nats":)").append(nats).append("}");
  const std::string text = base64url(R"({"typ":"JWT","alg":"ed25519-nkey"})") + "." + base64url(claims);
  const Key key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, octets_of(private_key_), private_key_.size()),
                EVP_PKEY_free);
  const Signing signing(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string signature(64, '\0');
  std::size_t size = signature.size();
  require(EVP_DigestSignInit(signing.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
          EVP_DigestSign(signing.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, octets_of(text),
                         text.size()) == 1);
  return text + "." + base64url(signature);
}

std::string NatsOperator::config() const {
  static constexpr std::string_view kOpen =
      R"("subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1)";
  static constexpr std::string_view kJetStream = R"(,"mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1)";
  const auto account = [](std::string_view limits) {
    return R"({"limits":{)" + std::string(limits) +
           R"(},"default_permissions":{"pub":{},"sub":{}},"type":"account","version":2})";
  };
  return "operator: " + operator_.token(operator_, "operator", R"({"type":"operator","version":2})") +
         "\nsystem_account: " + system_.public_key() + "\nresolver: MEMORY\nresolver_preload: {\n  " +
         system_.public_key() + ": " + operator_.token(system_, "system", account(kOpen)) + "\n  " +
         account_.public_key() + ": " +
         operator_.token(account_, "pipelines", account(std::string(kOpen) + std::string(kJetStream))) + "\n}\n";
}

std::string NatsOperator::credentials() const {
  const NatsKey user('U');
  return "-----BEGIN NATS USER JWT-----\n" +
         account_.token(user, "tts",
                        R"({"pub":{},"sub":{},"subs":-1,"data":-1,"payload":-1,"type":"user","version":2})") +
         "\n------END NATS USER JWT------\n\n"
         "-----BEGIN USER NKEY SEED-----\n" +
         user.seed() + "\n------END USER NKEY SEED------\n";
}

}  // namespace pipegen::testing
