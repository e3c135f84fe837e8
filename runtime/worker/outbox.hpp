// Events on their way out: published at once, counted until they are stored, repeated when they fail.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/clock.hpp"
#include "core/trace.hpp"
#include "nats/sent.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/stage.hpp"
#include "worker/delivery.hpp"

namespace pipegen::worker {

class Publisher;

/// What one call published and what is not stored yet. Shared by the call and the publishes on their way.
class Publishes {
 public:
  /// Calls `over` once nothing is on its way any more, at once or from another thread: with nothing when everything is
  /// stored, else with why an event can never be.
  using Over = std::function<void(const std::string& refusal)>;
  void seal(Over over);
  /// Nobody waits for these any more: failed ones are not repeated.
  void abandon();
  /// Blocks until everything is stored. Throws PermanentError when an event can never be, Unavailable when a publish
  /// failed, Cancelled when told to stop.
  void wait(std::stop_token stop);

 private:
  friend class Publisher;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t open_ = 0;
  bool abandoned_ = false;
  std::string failure_;
  std::string refusal_;
  Over over_;
};

/// One publish, kept until it is stored.
struct PendingPublish {
  std::string subject;
  std::string payload;
  std::string message_id;  // empty for entries of key-value buckets
  nats::Headers headers;
  std::shared_ptr<Publishes> owner;
  trace::Span span{};    // from the first try to its end
  std::size_t size = 0;  // octets, headers included
  int tries = 0;
  AnyClock::TimePoint due{};  // of the next try, when it waits for one
};

/// Publishes for all calls of a worker. Thread safe.
class Publisher {
 public:
  /// `repeated` counts the publishes that had to be sent again.
  Publisher(nats::Connection& connection, Counter& repeated, const AnyClock& clock = AnyClock::real())
      : connection_(connection), repeated_(repeated), clock_(clock) {}
  /// Waits until the library calls back no more; every publish is answered or times out (10 s).
  void close();

  /// Waits while too much is on its way: throws Unavailable when that lasts, Cancelled when told to stop,
  /// PermanentError for an event that is too large for the server.
  void publish(PendingPublish publish, std::stop_token stop);
  /// Sends again what failed and is due. Called now and then by one thread.
  void repeat_failed();
  /// Why events cannot be stored now; empty when they can.
  std::string trouble() const;
  std::size_t open() const;

 private:
  static constexpr std::size_t kMostOpen = 4096;
  static constexpr std::size_t kMostOpenBytes = 64u << 20;
  bool has_room(std::size_t size) const;
  void send(const std::shared_ptr<PendingPublish>& publish);
  void settled(const std::shared_ptr<PendingPublish>& publish, const nats::PublishAck* ack, std::string_view error,
               bool permanent);

  nats::Connection& connection_;
  Counter& repeated_;
  const AnyClock& clock_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::size_t open_ = 0;
  std::size_t open_bytes_ = 0;
  std::size_t in_library_ = 0;  // callbacks that may still come
  std::vector<std::shared_ptr<PendingPublish>> waiting_;
  std::unordered_set<const PendingPublish*> failing_;
  std::string failure_;
};

using nats::SentCounters;

/// The outbox of one call.
class CallOutbox : public Outbox {
 public:
  struct Result {
    std::string event;
    std::string payload;
  };
  CallOutbox(Publisher& publisher, SentCounters& sent, const Settings& settings, const Stage& stage,
             const MessageInfo& message, std::stop_token stop);

  const Settings& settings() const override { return settings_; }
  Fresh fresh() override { return fresh_at(published_); }
  /// For the event that will be published after `position` others.
  Fresh fresh_at(std::size_t position) const { return Fresh(id_at(position)); }
  void publish(Outgoing event) override;

  const std::shared_ptr<Publishes>& publishes() const { return publishes_; }
  /// Blocks until everything published so far is stored; see Publishes::wait.
  void wait_stored() { publishes_->wait(stop_); }
  /// Publishes without a place in the order of events: an entry of a key-value bucket.
  void publish_entry(std::string subject, std::string value);
  /// The message's status entry is written: this call must not write another.
  void set_has_status() { has_status_ = true; }
  bool has_status() const { return has_status_; }
  const std::map<std::string, std::int64_t>& produced() const { return produced_; }
  const std::optional<Result>& result() const { return result_; }

 private:
  std::string id_at(std::size_t position) const;

  Publisher& publisher_;
  SentCounters& sent_;
  const Settings& settings_;
  const Stage& stage_;
  const MessageInfo& message_;
  std::stop_token stop_;
  std::shared_ptr<Publishes> publishes_ = std::make_shared<Publishes>();
  std::size_t published_ = 0;
  std::map<std::string, std::int64_t> produced_;
  std::optional<Result> result_;
  bool has_status_ = false;
};

}  // namespace pipegen::worker
