// Bearer tokens (RFC 6750).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/sha256.hpp"
#include "http/server.hpp"
#include "pipegen/settings.hpp"

namespace pipegen::http {

/// The tokens that let a client in. Keeps their digests only. Thread safe.
class BearerTokens {
 public:
  /// From "<section>.tokens" or "<section>.tokens_file": several with commas or white space between them, each at least
  /// 16 characters. None set: everybody is let in. Throws ConfigError.
  BearerTokens(const Settings& settings, std::string_view section);

  bool needed() const { return !digests_.empty(); }
  /// Throws Problem 401 unless the request has one of them. Takes the same time whichever token is wrong, and where.
  void check(const Request& request) const;

 private:
  std::vector<Sha256::Digest> digests_;
};

}  // namespace pipegen::http
