// What `nsc` makes for a nats-server in operator mode: keys, JSON web tokens, a credentials file.
#pragma once

#include <string>
#include <string_view>

namespace pipegen::testing {

/// An Ed25519 key pair in the text form of NATS ("nkeys"): base32 with a prefix and a checksum.
class NatsKey {
 public:
  /// 'O' operator, 'A' account, 'U' user.
  explicit NatsKey(char kind);
  const std::string& public_key() const { return public_key_; }  // "UCNGL4…"
  const std::string& seed() const { return seed_; }              // "SUAM…": the secret
  /// A token about `subject`, signed with this key. `nats` is the JSON object of the claims of that name.
  std::string token(const NatsKey& subject, std::string_view name, std::string_view nats) const;

 private:
  std::string private_key_;  // 32 octets
  std::string public_key_;
  std::string seed_;
};

/// An operator, a system account, and one account with JetStream.
class NatsOperator {
 public:
  /// The part of the server's configuration that trusts them.
  std::string config() const;
  /// The text of a credentials file for a new user of the account.
  std::string credentials() const;

 private:
  NatsKey operator_{'O'};
  NatsKey system_{'A'};
  NatsKey account_{'A'};
};

}  // namespace pipegen::testing
