// What a worker takes in hand, and how it answers: acks, naks, in-progress signals.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nats/handles.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "worker/delivery.hpp"
#include "worker/in_hand.hpp"

namespace pipegen::worker {

/// Thread safe. Counts what it does.
class Intake {
 public:
  /// Answers go out on `connection`, a handle that outlives this. `subjects` are what the consumers filter by that
  /// messages come from. `finished` is called whenever messages left the hand.
  Intake(natsConnection* connection, Metrics& metrics, const std::string& stage,
         const std::vector<std::string>& subjects, std::function<void()> finished);

  /// Takes a message of one of the consumers in hand; nothing when it is there already, was done before (then it is
  /// acked), or is none of JetStream's.
  std::shared_ptr<Delivery> take(nats::Message message, std::size_t consumer = 0);
  /// Hands a message back that was never taken.
  void leave(const nats::Message& message);

  void ack(const Delivery& delivery);
  void ack_all(const std::vector<const Delivery*>& deliveries);
  /// It failed, and shall come again after `delay`.
  void nak(const Delivery& delivery, std::chrono::milliseconds delay);
  /// It is not to blame, and shall come again.
  void hand_back(const Delivery& delivery);
  void hand_back_all();
  /// It is dead-lettered.
  void term(const Delivery& delivery);
  /// A message that is no other's is dead-lettered: counts it.
  void count_dead_letter() { dead_letters_.add(); }
  /// Asks the server not to deliver again yet what is in hand.
  void signal_progress();
  /// What the server says a consumer has still to deliver. Messages tell that too, but none come while none are asked
  /// for.
  void set_pending(std::size_t consumer, std::uint64_t count) { sources_[consumer].pending_now = count; }
  /// Sets the gauges. Now and then, rather than at every message.
  void show();

  const InHand& in_hand() const { return in_hand_; }
  InHand& in_hand() { return in_hand_; }

 private:
  /// Of one consumer.
  struct Source {
    Source(Counter& counter, Gauge& gauge) : consumed(counter), pending(gauge) {}
    Counter& consumed;
    Gauge& pending;
    std::atomic<std::uint64_t> pending_now = 0;
  };

  bool finish(const Delivery& delivery, std::string_view answer, bool done);
  void answer(const char* reply, std::string_view body);

  natsConnection* const connection_;
  const std::function<void()> finished_;
  Logger log_;
  InHand in_hand_;
  std::deque<Source> sources_;
  Counter& redelivered_;
  Counter& late_;
  Counter& acked_;
  Counter& naks_;
  Counter& handed_back_;
  Counter& dead_letters_;
  Histogram& lag_;
  Histogram& size_;
  Gauge& in_flight_;
};

}  // namespace pipegen::worker
