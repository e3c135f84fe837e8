// SHA-256 of data that comes in pieces, and the text forms that digests are written in.
//
//   pipegen::Sha256 hash;
//   hash.update(chunk);
//   const std::string digest = "SHA-256=" + pipegen::base64url(hash.finish());
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "core/encoding.hpp"
#include "pipegen/types.hpp"

namespace pipegen {

class Sha256 {
 public:
  using Digest = std::array<std::byte, 32>;

  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(BytesView bytes);
  /// Ends the hash; only destruction and assignment are allowed afterwards.
  Digest finish();

  static Digest of(BytesView bytes);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace pipegen
