// Idempotency-Key: a request that is sent twice is done once.
//
// An entry of a key-value bucket per key, whose JSON other versions read too: do not change it.
//   {"state":"running","at":"…"}                                     somebody works on it
//   {"state":"done","at":"…","digest":"…","response":"…"}            the answer that repetitions get
//   {"state":"free","at":"…"}                                        it failed; the next one may try
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "pipegen/key_value.hpp"

namespace pipegen::http {

/// The key of an Idempotency-Key header: a structured-field string ("…", RFC 8941) or the bare text. Throws Problem
/// 400.
std::string parse_idempotency_key(std::string_view header);

class Idempotency {
 public:
  /// A key whose request has been running for longer than `takeover` is taken to be of a process that died.
  Idempotency(nats::Connection& connection, std::string bucket, std::chrono::milliseconds takeover);

  struct Claim {
    enum class State { kMine, kDone, kBusy };
    State state = State::kBusy;
    std::string entry;           // its key in the bucket
    std::uint64_t revision = 0;  // kMine
    bool taken_over = false;     // kMine: somebody else started on it and did not end
    std::string digest;          // kDone
    std::string response;        // kDone
  };

  /// Who does the request of this path and key. Throws Unavailable.
  Claim begin(std::string_view path, std::string_view key);
  /// Keeps the answer. Throws Unavailable; may be called again then.
  void finish(const Claim& claim, std::string_view digest, std::string_view response);
  /// Lets the next one try. Throws Unavailable.
  void release(const Claim& claim);

 private:
  KeyValue store_;
  std::chrono::milliseconds takeover_;
};

}  // namespace pipegen::http
