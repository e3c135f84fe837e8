// What a handler is given besides its event.
//
//   pipegen::Bytes png = context.get(event.png_key);
//   auto key = context.put<ThumbnailFiles>(context.output_key("png"), shrink(png));
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "pipegen/error.hpp"
#include "pipegen/key_value.hpp"
#include "pipegen/log.hpp"
#include "pipegen/object_store.hpp"
#include "pipegen/settings.hpp"
#include "pipegen/trace.hpp"
#include "pipegen/types.hpp"

namespace pipegen {

/// The message in hand.
struct MessageInfo {
  /// Pipegen-Message-Id (of one that is published again), else Nats-Msg-Id, else
  /// "<stream>:<sequence>:<nanoseconds since the epoch when it was stored>".
  std::string id;
  std::string subject;
  std::string stream;
  std::uint64_t sequence = 0;
  std::uint64_t deliveries = 1;  // 1 at the first delivery
  std::string workflow_id;       // empty when the pipeline has none
  /// Of a message in hand: where it came from, without a span if it did not say. Of a handler's call: that call's span.
  TraceContext trace;
};

/// One call of a handler. Valid during the call only; use it from the thread of the call (the stores that it gives
/// may be used from any).
class Context {
 public:
  virtual ~Context() = default;

  virtual const MessageInfo& message() const = 0;
  virtual const Settings& settings() const = 0;
  virtual const Logger& log() const = 0;

  /// When the call's `timeout` is over. At that moment, and when the grace period of a shutdown is over, the stop token
  /// is triggered; a handler that loops or waits should then throw Cancelled (throw_if_stopped does).
  virtual std::chrono::steady_clock::time_point deadline() const = 0;
  virtual std::stop_token stop_token() const = 0;
  void throw_if_stopped() const {
    if (stop_token().stop_requested()) throw Cancelled("the handler was told to stop");
  }

  /// Tells the runtime which workflow the message belongs to; generated code calls this once the event is parsed.
  virtual void set_workflow(std::string_view workflow_id) = 0;

  /// A key that is the same at every redelivery and differs between messages:
  /// "<workflow>/<stage>/<message>[-n].<extension>", n counting the calls.
  virtual std::string output_key(std::string_view extension) = 0;

  /// The bucket that the schema names so. Throws ConfigError for one that the stage does not use.
  virtual ObjectStore& objects(std::string_view bucket) = 0;
  virtual KeyValue& key_value(std::string_view bucket) = 0;

  /// The path of a scratch folder of this call, removed after it.
  virtual std::string scratch() = 0;

  /// These block and throw like ObjectStore's.
  template <typename Bucket>
  Bytes get(const ObjectKey<Bucket>& key) {
    return objects(Bucket::kName).get(key.name);
  }
  template <typename Bucket>
  ObjectReader open(const ObjectKey<Bucket>& key) {
    return objects(Bucket::kName).open(key.name);
  }
  template <typename Bucket>
  ObjectKey<Bucket> put(std::string name, BytesView data, std::map<std::string, std::string> metadata = {}) {
    objects(Bucket::kName).put(name, data, std::move(metadata));
    return {std::move(name)};
  }
  template <typename Bucket>
  ObjectWriter create(const ObjectKey<Bucket>& key) {
    return objects(Bucket::kName).create(key.name);
  }
};

}  // namespace pipegen
