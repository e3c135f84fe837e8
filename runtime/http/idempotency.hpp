// Idempotency-Key: a request that is sent twice is done once.
//
// An entry of a key-value bucket per key, whose JSON other versions read too: do not change it.
//   {"state":"running","at":"…","id":"…"}                            somebody works on it
//   {"state":"running","at":"…","id":"…","digest":"…"}               and may have published it
//   {"state":"done","at":"…","id":"…","digest":"…","response":"…"}   the answer that repetitions get
//   {"state":"free","at":"…","id":"…"}                               it failed; the next one may try
//   {"state":"free","at":"…","id":"…","digest":"…"}                  the same, but it may be published all the same
//
// The id is what the request's message ids are made of. It lives as long as the entry: a key that is used again after
// its entry has expired is a new request.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/clock.hpp"
#include "http/server.hpp"
#include "pipegen/key_value.hpp"

namespace pipegen::http {

/// The key of an Idempotency-Key header: a structured-field string ("…", RFC 8941) or the bare text. Throws Problem
/// 400.
std::string parse_idempotency_key(std::string_view header);

/// Problem 422: the key stands for another payload.
Problem other_payload();

class Idempotency {
 public:
  /// A key of whose request nothing was heard (begin, commit, keep) for longer than `takeover` is taken to be of a
  /// process that died.
  Idempotency(nats::Connection& connection, std::string bucket, std::chrono::milliseconds takeover,
              const AnyClock& clock = AnyClock::real());

  struct Claim {
    /// kUnsure: the server went away before it said whether it has the claim. release() it then, once it is back, or
    /// repetitions are told that somebody works on it.
    enum class State { kMine, kDone, kBusy, kUnsure };
    State state = State::kBusy;
    std::string entry;           // its key in the bucket
    std::string id;              // kMine: a UUID, the same for every try
    std::uint64_t revision = 0;  // kMine
    std::string digest;          // of the payload that is published (kDone) or may be (kMine), else empty
    std::string response;        // kDone
    std::string unconfirmed;     // the value that was sent last, if no answer came
  };

  /// Who does the request of this path and key. Throws Unavailable.
  Claim begin(std::string_view path, std::string_view key);
  /// To be called before something is published: from here on the key stands for this payload. Throws Unavailable;
  /// Problem 422 when the key stands for another payload, 409 when another process took the request over.
  void commit(Claim& claim, std::string_view digest);
  /// Says that the request is worked on still. Throws Unavailable; Problem 409 when another process took it over.
  void keep(Claim& claim);
  /// Keeps the answer. Throws Unavailable; may be called again then.
  void finish(const Claim& claim, std::string_view response);
  /// Lets the next one try; with the same payload only, if `published` may be true. Throws Unavailable.
  void release(const Claim& claim, bool published);

 private:
  std::string text_of(std::string_view state, const Claim& claim, std::string_view digest,
                      std::string_view response = {}) const;
  void begin(Claim& claim, std::string_view path, std::string_view key);
  void keep(Claim& claim, std::string_view digest);
  bool put(Claim& claim, std::string text, std::uint64_t revision);

  KeyValue store_;
  std::chrono::milliseconds takeover_;
  const AnyClock* clock_;
};

}  // namespace pipegen::http
