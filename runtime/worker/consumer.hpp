// The durable pull consumer of a stage: made or compared, asked for messages, and noticed when it goes silent.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "nats/handles.hpp"
#include "pipegen/log.hpp"
#include "pipegen/stage.hpp"
#include "worker/stall_watch.hpp"

namespace pipegen::worker {

/// Asks for batches with the pull protocol itself (`$JS.API.CONSUMER.MSG.NEXT`) instead of
/// natsSubscription_FetchRequest, which holds back the messages of a batch until it is full or expired. One thread uses
/// it at a time.
class PullConsumer {
 public:
  struct Options {
    std::chrono::milliseconds expires{5'000};    // of one request
    std::chrono::milliseconds heartbeat{1'000};  // at most half of `expires`
    std::size_t max_bytes = 64u << 20;           // of one batch
    std::int64_t max_ack_pending = 20'000;
    std::chrono::milliseconds note_every{10'000};  // how far everything is acked, for a consumer that is deleted
    int quiet_heartbeats = 5;                      // without a message, before the consumer is looked at
  };
  PullConsumer(nats::Connection& connection, const Stage& stage, Options options);

  /// Creates the durable consumer, or compares the one that is there; what may change while it runs (ack_wait, limits)
  /// is updated. One that was deleted is made again behind what is known to be acked, or a stream that keeps its
  /// messages would give all of them once more. Throws ConfigError with the differences, Unavailable.
  void ensure();
  /// ensure(), then subscribes to what requests will bring.
  void bind();
  bool bound() const { return static_cast<bool>(subscription_); }
  /// Whether a request was served since bind(), if only with the news that there is nothing.
  bool heard() const { return heard_; }

  /// Asks for `batch` messages, or as many as the consumer allows in one request. They come through next() one by one
  /// as they are there.
  void request(std::size_t batch);
  /// Messages that were asked for and may still come. Zero: time for a new request.
  std::size_t outstanding() const { return outstanding_; }

  /// The next message; an empty one when none came within `patience`. When the server is silent, or the request could
  /// not be served, outstanding() is zero afterwards; when the consumer is gone, so is bound(), and trouble() says why.
  nats::Message next(std::chrono::milliseconds patience);
  const std::string& trouble() const { return trouble_; }
  /// How many messages the consumer has still to deliver, each time that the server said so; not when a message came
  /// meanwhile, which tells it better.
  std::optional<std::uint64_t> take_pending();
  /// When the stream was made, as ensure() saw it last: nanoseconds since 1970.
  std::int64_t stream_created() const { return stream_created_; }

  /// No more requests; gives what had already come to `leftover`.
  void close(const std::function<void(nats::Message)>& leftover);

 private:
  /// Of one request: what the options say, as far as the consumer that is there allows it.
  struct Limits {
    explicit Limits(const Options& options)
        : expires(options.expires), heartbeat(options.heartbeat), max_bytes(options.max_bytes) {}
    std::size_t batch = std::numeric_limits<std::size_t>::max();
    std::chrono::milliseconds expires;
    std::chrono::milliseconds heartbeat;
    std::size_t max_bytes;
  };

  /// All up to `sequence` is acked. Written when the server's answer comes, by a thread of the library.
  struct Floor {
    std::atomic<std::uint64_t> sequence = 0;
    std::atomic<std::int64_t> pending = -1;  // -1: not known, or taken
    std::atomic<bool> asked = false;
  };

  void remove();
  void note_floor();
  void watch_for_stall(std::chrono::nanoseconds time);
  void take_status(const natsMsg* message);
  void check_silence();
  void lose(std::string why);

  nats::Connection& connection_;
  Stage stage_;
  Options options_;
  Limits limits_;
  nats::Subscription subscription_;
  std::string inbox_;
  std::uint64_t request_number_ = 0;
  std::string request_inbox_;
  std::size_t requested_ = 0;
  std::size_t outstanding_ = 0;
  bool heard_ = false;
  int silences_ = 0;
  bool was_away_ = false;
  std::chrono::steady_clock::time_point last_heard_{};
  std::chrono::steady_clock::time_point last_wanted_{};  // when a request was last made or waited for
  std::string trouble_;
  std::shared_ptr<Floor> floor_ = std::make_shared<Floor>();
  std::chrono::steady_clock::time_point floor_asked_{};
  std::uint64_t received_ = 0;             // messages
  std::uint64_t received_when_asked_ = 0;  // for the floor
  std::int64_t stream_created_ = 0;        // sequences of another stream of this name mean nothing
  Counter* recreated_ = nullptr;
  StallWatch watch_;
  std::string last_reply_;   // of a message: it says how many more there are
  bool make_again_ = false;  // the consumer is to be deleted before it is bound
  Counter* stalls_ = nullptr;
  Logger log_;
};

}  // namespace pipegen::worker
