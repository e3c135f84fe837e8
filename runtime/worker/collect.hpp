// Fan-in: keeps the items of a group in a key-value bucket, and joins a group once, when all of it is there.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.hpp"
#include "pipegen/context.hpp"
#include "pipegen/key_value.hpp"
#include "pipegen/stage.hpp"
#include "worker/dead_letter.hpp"
#include "worker/outbox.hpp"

namespace pipegen::worker {

/// Any number of workers share the bucket. Keys, with `group` as key_token():
///
///   <group>.group                {"state":"open","count":12,"first_at":…,"workflow_id":…,"owner":…,"changed_at":…}
///   <group>.item.<index>         the payload of an item
///   <group>.event.<attempt>-<n>  the payload of an event that the join made
///
/// The group moves from open to joining (owned by one message, which is not acked before the join is done), to
/// publishing once the handler has returned and its events are kept in the bucket, then to done. The owner's redelivery
/// goes on where the worker died: it joins nothing that was joined, and publishes the very events that were made then.
/// Or the group moves to failed, when that message is dead-lettered, and keeps its items for a replay of it; or to
/// expired. Every move is a compare-and-set of the group's entry.
class Collector {
 public:
  Collector(nats::Connection& connection, const Stage& stage, const AnyClock& clock = AnyClock::real());

  /// Stores the item; joins the group if this completes it, and returns when the joined events are stored. Throws what
  /// the handler throws, PermanentError for an item that does not fit its group, Unavailable.
  void take(std::string_view payload, Context& context, CallOutbox& outbox);

  /// The message is being dead-lettered: a group that it was joining is marked failed. Throws Unavailable.
  void failed(const Delivery& delivery);

  struct Expired {
    std::string group;
    std::string workflow_id;
    std::string reason;
  };
  struct Round {
    std::vector<Expired> expired;
    std::size_t open = 0;  // groups that wait for items or are being joined, by any worker
  };
  /// Gives up on groups that wait for longer than `expires`, and on complete ones that nobody has worked on for
  /// `expires`, the stage's timeout and its delays (the message that would do it is gone): dead-letters all that came
  /// of them, in as many parts as it takes, and removes their items. Groups that another worker takes care of are left
  /// to it. Forgets groups that ended twice `expires` ago. Throws Unavailable.
  Round expire(DeadLetters& dead_letters);

 private:
  struct Group;
  static Group parse_group(const KeyValue::Entry& entry);
  static std::string to_json(const Group& group);
  std::optional<Group> find(const std::string& token);
  bool is_done(const std::string& token);
  /// In order of index.
  std::vector<KeyValue::Entry> items_of(const std::string& token);
  bool move(const std::string& token, Group& group, std::string state, std::string owner);
  class Recording;
  bool join(const std::string& token, Group& group, Context& context, CallOutbox& outbox);
  void publish(const std::string& token, Group& group, Context& context, CallOutbox& outbox);
  void remove_items(const std::string& token);
  bool forget_if_old(const std::string& token, const Group& group);
  std::optional<Expired> expire(const std::string& token, Group& group, DeadLetters& dead_letters);
  void publish_parts(const std::string& token, const Group& group, const std::vector<KeyValue::Entry>& items,
                     const std::string& missing, const std::string& reason, DeadLetters& dead_letters);

  nats::Connection& connection_;
  const Stage& stage_;
  const Collect& collect_;
  KeyValue state_;
  const AnyClock& clock_;
};

}  // namespace pipegen::worker
