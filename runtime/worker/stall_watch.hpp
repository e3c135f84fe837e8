// Notices a consumer that is asked for messages, is alive by its heartbeats, and gives none although it has some.
//
// What makes it necessary, as nats-server 2.9.10 does it (each seen after a kill -9 of the server under load):
// - The stream's messages survive, sequences never go back; but a removal from a work queue is written down late, so
//   messages whose acks the server had are there again.
// - The state of a consumer is written down late too. It comes back from what was on disk: with fewer deliveries (what
//   was acked since is delivered again), with an ack floor of zero, or as if it were new.
// - Both meet in messages that the consumer knows to be acked and the stream has again: nobody gets them, and they take
//   room until max_age. As long as they are the first of the stream, the consumer keeps what it waits for acks of, also
//   when those messages are gone ("ack pending" that never ends, counted against max_ack_pending). After ack_wait it
//   wants to deliver them again, does not find them, and for each of them looks for no other message until the next
//   request comes: thousands of messages wait, and one comes now and then.
// - Newer servers were reported to lose the last sequences of an empty work queue: then a consumer waits for numbers
// that
//   come only after as many messages that nobody gets.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "nats/handles.hpp"
#include "pipegen/json.hpp"
#include "pipegen/stage.hpp"

namespace pipegen::worker {

/// One thread uses it at a time; it never blocks.
class StallWatch {
 public:
  /// What to do about it, from the harmless to what gives messages twice.
  enum class Remedy { kNone, kAskAgain, kBindAgain, kMakeAgain };
  struct Verdict {
    Remedy remedy = Remedy::kNone;
    std::string why{};
    /// The sequences of the stream began again: what was known about them is worth nothing.
    bool began_again = false;
  };

  /// Looks when nothing came for `patience`, and again after as long; a stall has to be the same twice.
  StallWatch(nats::Connection& connection, const Stage& stage, std::chrono::milliseconds patience);

  /// Nothing was asked for until now.
  void reset();
  void message_came();
  /// To be called while a request is open and nothing came for `time`. `has_more`: the message before said that others
  /// wait.
  Verdict nothing_came(std::chrono::nanoseconds time, bool has_more);

 private:
  using Clock = std::chrono::steady_clock;

  struct Report {
    // of the consumer
    std::string created{};
    std::uint64_t delivered = 0;    // the last sequence of the stream that it gave to somebody
    std::uint64_t deliveries = 0;   // in all
    std::uint64_t pending = 0;      // not delivered yet
    std::uint64_t ack_pending = 0;  // delivered and not acked
    std::int64_t max_ack_pending = 0;
    std::uint64_t waiting = 0;  // requests
    bool paused = false;        // by somebody, until a time (nats-server 2.11)
    // of the stream
    std::uint64_t messages = 0;  // that it is for
    std::uint64_t last = 0;
    bool work_queue = false;
    std::uint64_t found = 0;  // a message that is to be delivered or should not be there; 0: none
  };
  /// Shared with the answers, which come from a thread of the library and may come after the end of this object.
  struct Asked {
    std::mutex mutex;
    bool open = false;
    std::optional<Report> report{};
  };
  static Report read_consumer(json::Reader& in);
  static void read_stream(json::Reader& in, Report& report);

  static bool is_left_behind(const Report& report);
  void ask();
  Verdict judge(const Report& report);

  nats::Connection& connection_;
  const std::string stream_;
  const std::string durable_;
  const std::string subject_;
  const std::chrono::milliseconds patience_;
  const std::chrono::milliseconds longest_in_hand_;  // of a message, by anybody
  Clock::time_point quiet_since_ = Clock::now();
  // One message at a time with long waits between is no better than none.
  Clock::time_point window_began_ = Clock::now();
  std::chrono::nanoseconds waited_in_window_{0};
  bool trickles_ = false;
  Clock::time_point next_look_{};
  std::shared_ptr<Asked> asked_ = std::make_shared<Asked>();
  std::optional<Report> before_;
  Clock::time_point same_since_{};
  int stalls_ = 0;  // in a row
};

}  // namespace pipegen::worker
