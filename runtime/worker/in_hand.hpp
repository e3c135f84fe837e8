// The messages that were fetched and are not acked yet: queued, being handled, or waiting for their events to be
// stored.
#pragma once

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "worker/delivery.hpp"

namespace pipegen::worker {

/// Thread safe.
class InHand {
 public:
  enum class Arrival { kNew, kAlreadyInHand, kAlreadyDone };

  /// A message that is in hand already (its in-progress signals were late) gives its newer reply subject to the older
  /// delivery, so that the ack goes where the server waits for it.
  Arrival add(const std::shared_ptr<Delivery>& delivery) {
    const std::lock_guard lock(mutex_);
    if (done_.contains(delivery->key)) return Arrival::kAlreadyDone;
    const auto [at, is_new] = messages_.try_emplace(delivery->key, delivery);
    if (!is_new) {
      at->second->reply = delivery->reply;
      return Arrival::kAlreadyInHand;
    }
    bytes_ += delivery->size;
    return Arrival::kNew;
  }

  /// Takes it out and gives the reply subject; nothing when it was out already. A message that is `done` is remembered
  /// for a while: acks are not confirmed, so one may be lost and the message be delivered again.
  std::optional<std::string> finish(const Delivery& delivery, bool done) {
    const std::lock_guard lock(mutex_);
    const auto at = messages_.find(delivery.key);
    if (at == messages_.end()) return std::nullopt;
    std::string reply = std::move(at->second->reply);
    bytes_ -= delivery.size;
    messages_.erase(at);
    roll_window();
    ++handled_now_;
    if (done) {
      done_.insert(delivery.key);
      done_in_order_.push_back(delivery.key);
      if (done_in_order_.size() > kRemembered) {
        done_.erase(done_in_order_.front());
        done_in_order_.pop_front();
      }
    }
    return reply;
  }

  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return messages_.size();
  }

  /// Of all payloads.
  std::size_t bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }

  /// How many more to fetch: in hand are at most `base` and as many as were handled in the last quarter of a second
  /// (which keeps fast handlers busy and prefetches next to nothing for slow ones), `most` messages or `most_bytes` in
  /// all.
  std::size_t room(std::size_t base, std::size_t most, std::size_t most_bytes) {
    const std::lock_guard lock(mutex_);
    roll_window();
    const std::size_t limit = std::max(base, std::min(base + std::max(handled_now_, handled_before_), most));
    return messages_.size() < limit && bytes_ < most_bytes ? limit - messages_.size() : 0;
  }

  std::vector<std::string> replies() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> out;
    out.reserve(messages_.size());
    for (const auto& [key, delivery] : messages_) out.push_back(delivery->reply);
    return out;
  }

  std::vector<std::shared_ptr<Delivery>> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Delivery>> out;
    for (const auto& [key, delivery] : messages_) out.push_back(delivery);
    return out;
  }

 private:
  static constexpr std::size_t kRemembered = 50'000;
  static constexpr auto kWindow = std::chrono::milliseconds(250);

  void roll_window() {
    const auto now = std::chrono::steady_clock::now();
    if (now - window_began_ < kWindow) return;
    handled_before_ = now - window_began_ < 2 * kWindow ? handled_now_ : 0;
    handled_now_ = 0;
    window_began_ = now;
  }

  mutable std::mutex mutex_;
  std::unordered_map<DeliveryKey, std::shared_ptr<Delivery>, DeliveryKeyHash> messages_;
  std::size_t bytes_ = 0;
  std::unordered_set<DeliveryKey, DeliveryKeyHash> done_;
  std::deque<DeliveryKey> done_in_order_;
  std::chrono::steady_clock::time_point window_began_ = std::chrono::steady_clock::now();
  std::size_t handled_now_ = 0;
  std::size_t handled_before_ = 0;
};

}  // namespace pipegen::worker
