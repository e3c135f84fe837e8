// The messages that were fetched and are not acked yet: queued, being handled, or waiting for their events to be
// stored.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "worker/delivery.hpp"

namespace pipegen::worker {

/// Thread safe.
class InHand {
 public:
  using Owner = std::shared_ptr<Delivery>;
  enum class Arrival { kNew, kAlreadyInHand, kAlreadyDone };

  /// A message that is in hand already (its in-progress signals were late) gives its newer reply subject to the older
  /// delivery, so that the ack goes where the server waits for it.
  Arrival add(const Owner& delivery) {
    const std::lock_guard lock(mutex_);
    if (done_[slot(delivery->key)] == delivery->key) return Arrival::kAlreadyDone;
    const auto [at, is_new] = messages_.try_emplace(delivery->key, delivery);
    if (!is_new) {
      at->second->later_reply = delivery->reply();
      return Arrival::kAlreadyInHand;
    }
    bytes_ += delivery->size;
    return Arrival::kNew;
  }

  /// Takes it out; nothing when it was out already. A message that is `done` is remembered for a while: acks are not
  /// confirmed, so one may be lost and the message be delivered again.
  Owner finish(const Delivery& delivery, bool done) {
    const std::lock_guard lock(mutex_);
    roll_window();
    return take_out(delivery.key, done);
  }
  /// The same of several; gives those that were not out already.
  std::vector<Owner> finish_all(const std::vector<const Delivery*>& deliveries, bool done) {
    std::vector<Owner> out;
    out.reserve(deliveries.size());
    const std::lock_guard lock(mutex_);
    roll_window();
    for (const Delivery* delivery : deliveries) {
      if (Owner owner = take_out(delivery->key, done)) out.push_back(std::move(owner));
    }
    return out;
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
    for (const auto& [key, delivery] : messages_) out.emplace_back(delivery->reply());
    return out;
  }

  std::vector<Owner> all() const {
    const std::lock_guard lock(mutex_);
    std::vector<Owner> out;
    out.reserve(messages_.size());
    for (const auto& [key, delivery] : messages_) out.push_back(delivery);
    return out;
  }

 private:
  static constexpr std::size_t kRemembered = 65'536;
  static constexpr auto kWindow = std::chrono::milliseconds(250);

  /// Sequences of a stream follow one another, so that the last `kRemembered` have a place each.
  static std::size_t slot(const DeliveryKey& key) { return key.sequence % kRemembered; }

  Owner take_out(const DeliveryKey& key, bool done) {
    const auto at = messages_.find(key);
    if (at == messages_.end()) return nullptr;
    Owner owner = std::move(at->second);
    bytes_ -= owner->size;
    messages_.erase(at);
    ++handled_now_;
    if (done) done_[slot(key)] = key;
    return owner;
  }

  void roll_window() {
    const auto now = std::chrono::steady_clock::now();
    if (now - window_began_ < kWindow) return;
    handled_before_ = now - window_began_ < 2 * kWindow ? handled_now_ : 0;
    handled_now_ = 0;
    window_began_ = now;
  }

  mutable std::mutex mutex_;
  std::unordered_map<DeliveryKey, Owner, DeliveryKeyHash> messages_;
  std::size_t bytes_ = 0;
  std::vector<DeliveryKey> done_ = std::vector<DeliveryKey>(kRemembered);
  std::chrono::steady_clock::time_point window_began_ = std::chrono::steady_clock::now();
  std::size_t handled_now_ = 0;
  std::size_t handled_before_ = 0;
};

}  // namespace pipegen::worker
