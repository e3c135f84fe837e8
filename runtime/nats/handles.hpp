// For runtime/nats and runtime/worker only: the nats.c handles behind a Connection.
#pragma once

#include <nats/nats.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipegen/metrics.hpp"
#include "pipegen/nats.hpp"

namespace pipegen::nats {

/// Owns one nats.c object.
template <typename T, void (*kDestroy)(T*)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(T* raw) : raw_(raw) {}
  Owned(Owned&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    if (this != &other) {
      reset();
      raw_ = std::exchange(other.raw_, nullptr);
    }
    return *this;
  }
  ~Owned() { reset(); }

  T* get() const noexcept { return raw_; }
  T* operator->() const noexcept { return raw_; }
  explicit operator bool() const noexcept { return raw_ != nullptr; }
  void reset() {
    if (raw_ != nullptr) kDestroy(std::exchange(raw_, nullptr));
  }
  T* release() noexcept { return std::exchange(raw_, nullptr); }
  /// For functions that give an object through a pointer: js_GetMsg(message.out(), …).
  T** out() {
    reset();
    return &raw_;
  }

 private:
  T* raw_ = nullptr;
};

using Message = Owned<natsMsg, natsMsg_Destroy>;
using Subscription = Owned<natsSubscription, natsSubscription_Destroy>;
using Options = Owned<natsOptions, natsOptions_Destroy>;
using StreamInfo = Owned<jsStreamInfo, jsStreamInfo_Destroy>;
using ConsumerInfo = Owned<jsConsumerInfo, jsConsumerInfo_Destroy>;

inline std::string_view payload_of(const natsMsg* message) {
  return {natsMsg_GetData(message), static_cast<std::size_t>(natsMsg_GetDataLength(message))};
}

/// All headers of a message, in the library's order; a name stands once for each of its values.
std::vector<std::pair<std::string, std::string>> headers_of(natsMsg* message);

/// Throws what the caller should do about `status`: Unavailable for a server that is away or does not answer,
/// ConfigError for refused credentials and permissions, PermanentError for a payload or subject that can never pass.
/// The text is "<what>: <why>", with secrets masked.
[[noreturn]] void throw_status(natsStatus status, std::string_view what);
/// The same, with the code and text of JetStream's answer.
[[noreturn]] void throw_status(natsStatus status, jsErrCode code, std::string_view what);
inline void check(natsStatus status, std::string_view what) {
  if (status != NATS_OK) throw_status(status, what);
}

/// `user:password@` taken out of every URL in the text.
std::string without_secrets(std::string_view text);

/// Throws ConfigError when the files and names that the options give for TLS and credentials cannot be used.
void check_security(const ConnectionOptions& options);

/// Publishes whose answers come back to one inbox; see replies.hpp.
class Replies;

struct Connection::Handles {
  natsConnection* publish = nullptr;  // nats.c's flusher batches what is sent here
  jsCtx* publish_js = nullptr;
  natsConnection* consume = nullptr;  // sends at once: fetches, acks, requests
  jsCtx* consume_js = nullptr;

  /// Waits until both are connected, `patience` at most. Throws Unavailable("<what>: …") otherwise.
  void require_connected(std::string_view what, std::chrono::milliseconds patience = std::chrono::seconds(2));

  /// Throws ConfigError when the server said that this user may not do something.
  void refuse_if_forbidden();

  std::unique_ptr<Replies> publish_replies;
  std::unique_ptr<Replies> consume_replies;

  Metrics* metrics = nullptr;  // of the options
  Counter* objects_in = nullptr;
  Counter* objects_out = nullptr;

  struct Shared;  // what the callbacks of the library see; outlives the connections
  std::shared_ptr<Shared> shared;

  Handles();
  ~Handles();
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
};

}  // namespace pipegen::nats
