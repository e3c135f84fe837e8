#include "worker/collect.hpp"

#include <algorithm>
#include <charconv>

#include "core/nuid.hpp"
#include "pipegen/json.hpp"
#include "worker/status.hpp"

namespace pipegen::worker {
namespace {

// States of a group. Persisted: do not change.
constexpr std::string_view kOpen = "open", kJoining = "joining", kPublishing = "publishing", kDone = "done",
                           kFailed = "failed", kExpiring = "expiring", kExpired = "expired";

/// A worker that began to expire a group and has not ended within this time has died.
constexpr auto kExpiringPatience = std::chrono::minutes(1);
/// In one round, which takes about a millisecond each: the end of the process waits for it.
constexpr std::size_t kMostForgotten = 1'000;

std::int64_t index_of(const KeyValue::Entry& entry) {
  const std::string_view token = std::string_view(entry.key).substr(entry.key.rfind('.') + 1);
  std::int64_t index = 0;
  std::from_chars(token.data(), token.data() + token.size(), index);
  return index;
}

/// Which of the items 1 to `count` are not there. As ranges, and few of them: only a message says how large its group
/// is.
struct Missing {
  std::int64_t count = 0;
  std::string text;  // "3", "1-4 and 7", "3, 7 and 9"; long lists end in "and 12 more"
};

/// `items` are in order of index.
Missing missing_of(const std::vector<KeyValue::Entry>& items, std::int64_t count) {
  constexpr std::size_t kNamed = 20;
  struct Range {
    std::int64_t first, last;
    std::int64_t size() const { return last - first + 1; }
  };
  std::vector<Range> ranges;
  std::int64_t last = 0;
  for (const auto& item : items) {
    const std::int64_t index = index_of(item);
    if (index - last > 1) ranges.push_back({last + 1, index - 1});
    last = std::max(last, index);
  }
  if (last < count) ranges.push_back({last + 1, count});

  Missing missing;
  std::int64_t unnamed = 0;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const Range& range = ranges[i];
    missing.count += range.size();
    if (i >= kNamed) {
      unnamed += range.size();
      continue;
    }
    if (i > 0) missing.text += i + 1 == ranges.size() ? " and " : ", ";
    missing.text += std::to_string(range.first);
    if (range.size() > 1) missing.text += "-" + std::to_string(range.last);
  }
  if (unnamed > 0) missing.text += " and " + std::to_string(unnamed) + " more";
  return missing;
}

std::string duration_text(std::chrono::milliseconds time) {
  const auto ms = time.count();
  if (ms % 86'400'000 == 0) return std::to_string(ms / 86'400'000) + "d";
  if (ms % 3'600'000 == 0) return std::to_string(ms / 3'600'000) + "h";
  if (ms % 60'000 == 0) return std::to_string(ms / 60'000) + "m";
  if (ms % 1'000 == 0) return std::to_string(ms / 1'000) + "s";
  return std::to_string(ms) + "ms";
}

}  // namespace

struct Collector::Group {
  struct Event {
    std::string event;
    std::string subject;
    bool is_result = false;
  };
  std::string name;
  std::string state{kOpen};
  std::int64_t count = 0;
  Timestamp first_at{};
  std::string workflow_id;
  std::string owner;  // id of the message that joins it
  Timestamp changed_at{};
  std::string attempt;        // of joining it, the one whose events are published
  std::vector<Event> events;  // while they are published
  std::uint64_t revision = 0;

  bool is_begun() const { return state == kJoining || state == kPublishing; }
  static std::string event_key(const std::string& token, const std::string& attempt, std::size_t position) {
    return token + ".event." + attempt + "-" + std::to_string(position);
  }
};

/// Keeps the events of a join in the bucket. Two workers may have the group's message in hand at a time, so each
/// attempt has keys of its own.
class Collector::Recording : public Outbox {
 public:
  Recording(KeyValue& state, std::string token, const CallOutbox& outbox)
      : state_(state), token_(std::move(token)), outbox_(outbox) {}
  const Settings& settings() const override { return outbox_.settings(); }
  Fresh fresh() override { return outbox_.fresh_at(events_.size()); }
  void publish(Outgoing event) override {
    state_.put(Group::event_key(token_, attempt_, events_.size()), event.payload);
    events_.push_back({std::string(event.event), std::move(event.subject), event.is_result});
  }
  /// Nobody will publish them: an attempt that fails again and again must not fill the bucket.
  void discard() {
    try {
      for (std::size_t i = 0; i < events_.size(); ++i) state_.purge(Group::event_key(token_, attempt_, i));
    } catch (const Error&) {  // the end of the group removes what is left
    }
  }
  const std::string& attempt() const { return attempt_; }
  const std::vector<Group::Event>& events() const { return events_; }

 private:
  KeyValue& state_;
  const std::string token_;
  const CallOutbox& outbox_;
  const std::string attempt_ = nuid();
  std::vector<Group::Event> events_;
};

Collector::Collector(nats::Connection& connection, const Stage& stage, const AnyClock& clock)
    : connection_(connection),
      stage_(stage),
      collect_(*stage.collect),
      state_(connection, bucket_name(stage.topology, collect_.state_bucket)),
      clock_(clock) {}

Collector::Group Collector::parse_group(const KeyValue::Entry& entry) {
  static constexpr json::Field kFields[] = {{"group"},
                                            {"state"},
                                            {"count"},
                                            {"first_at"},
                                            {"workflow_id"},
                                            {"owner"},
                                            {"changed_at"},
                                            {"attempt", json::kOptional},
                                            {"events", json::kOptional}};
  static constexpr json::Field kEventFields[] = {{"event"}, {"subject"}, {"is_result"}};
  const auto read_event = [](json::Reader& in) {
    Group::Event out;
    for (json::Object fields(in, kEventFields); fields.next();) {
      switch (fields.index()) {
        case 0:
          out.event = in.string();
          break;
        case 1:
          out.subject = in.string();
          break;
        case 2:
          out.is_result = in.boolean();
          break;
      }
    }
    return out;
  };
  Group group = json::parse(entry.value, [&](json::Reader& in) {
    Group out;
    for (json::Object fields(in, kFields); fields.next();) {
      switch (fields.index()) {
        case 0:
          out.name = in.string();
          break;
        case 1:
          out.state = in.string();
          break;
        case 2:
          out.count = in.int64();
          break;
        case 3:
          out.first_at = in.timestamp();
          break;
        case 4:
          out.workflow_id = in.string();
          break;
        case 5:
          out.owner = in.string();
          break;
        case 6:
          out.changed_at = in.timestamp();
          break;
        case 7:
          out.attempt = in.string();
          break;
        case 8:
          out.events = in.list<Group::Event>(read_event);
          break;
      }
    }
    return out;
  });
  group.revision = entry.revision;
  return group;
}

std::string Collector::to_json(const Group& group) {
  json::Writer out;
  out.begin_object();
  out.field("group", group.name);
  out.field("state", group.state);
  out.field("count", group.count);
  out.field("first_at", group.first_at);
  out.field("workflow_id", group.workflow_id);
  out.field("owner", group.owner);
  out.field("changed_at", group.changed_at);
  if (group.state == kPublishing) {
    out.field("attempt", group.attempt);
    out.key("events");
    out.begin_array();
    for (const auto& event : group.events) {
      out.begin_object();
      out.field("event", event.event);
      out.field("subject", event.subject);
      out.field("is_result", event.is_result);
      out.end_object();
    }
    out.end_array();
  }
  out.end_object();
  return out.take();
}

std::optional<Collector::Group> Collector::find(const std::string& token) {
  const auto entry = state_.get(token + ".group");
  if (!entry) return std::nullopt;
  return parse_group(*entry);
}

/// Two workers may have the group's message in hand at a time: the slower one finds things gone.
bool Collector::is_done(const std::string& token) {
  const auto group = find(token);
  return group && group->state == kDone;
}

std::vector<KeyValue::Entry> Collector::items_of(const std::string& token) {
  auto items = state_.entries(token + ".item.*");
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return index_of(a) < index_of(b); });
  return items;
}

bool Collector::move(const std::string& token, Group& group, std::string state, std::string owner) {
  Group moved = group;
  moved.state = std::move(state);
  moved.owner = std::move(owner);
  moved.changed_at = clock_.wall_time();
  const auto revision = state_.update(token + ".group", to_json(moved), group.revision);
  if (!revision) return false;
  moved.revision = *revision;
  group = std::move(moved);
  return true;
}

void Collector::take(std::string_view payload, Context& context, CallOutbox& outbox) {
  const Collect::Item item = collect_.item(payload);
  if (item.group.empty()) throw PermanentError("the item names no group");
  if (item.count < 1 || item.index < 1 || item.index > item.count) {
    throw PermanentError("index " + std::to_string(item.index) + " of " + std::to_string(item.count) + " in group " +
                         item.group + ": the index must be between 1 and the count");
  }
  const std::string token = KeyValue::key_token(item.group);
  const std::string& me = context.message().id;

  std::optional<Group> group = find(token);
  while (!group) {
    Group made;
    made.name = item.group;
    made.count = item.count;
    made.first_at = made.changed_at = clock_.wall_time();
    made.workflow_id = context.message().workflow_id.empty() ? item.group : context.message().workflow_id;
    if (const auto revision = state_.create(token + ".group", to_json(made))) {
      made.revision = *revision;
      group = std::move(made);
    } else {
      group = find(token);
    }
  }
  if (group->count != item.count) {
    throw PermanentError("item " + std::to_string(item.index) + " says that group " + item.group + " has " +
                         std::to_string(item.count) + " items, an earlier one said " + std::to_string(group->count));
  }
  const auto is_over = [&] {
    if (group->state == kDone) {
      if (group->owner == me) {  // the worker died between joining and acking: the message's status says what was made
        outbox.set_has_status();
        remove_items(token);
      }
      return true;
    }
    if (group->state == kExpired || group->state == kExpiring) {
      throw PermanentError("group " + item.group + " expired at " + to_string(group->changed_at) + "; item " +
                           std::to_string(item.index) + " of " + std::to_string(item.count) + " came too late");
    }
    return false;
  };
  if (is_over()) return;
  const std::string key = token + ".item." + std::to_string(item.index);
  state_.create(key, payload);  // there already: a duplicate, which is fine
  if (state_.count(token + ".item.*") < static_cast<std::size_t>(item.count)) {
    // The group may have ended between the look at it and the item, which then is in nobody's list.
    group = find(token);
    if (group && is_over()) state_.purge(key);
    // The bucket no longer has what it was to be joined from: it expires, with this item.
    if (group && group->state == kFailed) move(token, *group, std::string(kOpen), "");
    return;
  }

  for (;;) {
    group = find(token);
    if (!group || is_over()) return;
    if (group->is_begun() && group->owner != me) return;  // its owner's message is unacked until the join is done
    // Also when it is ours already: the time of the move tells the others that somebody works on it.
    if (!move(token, *group, std::string(group->state == kPublishing ? kPublishing : kJoining), me)) continue;
    if (group->state == kPublishing || join(token, *group, context, outbox)) break;
  }
  publish(token, *group, context, outbox);
}

/// False when another worker that has the same message in hand was faster.
bool Collector::join(const std::string& token, Group& group, Context& context, CallOutbox& outbox) {
  auto items = items_of(token);
  if (items.size() != static_cast<std::size_t>(group.count)) {
    if (is_done(token)) return false;
    throw TransientError("group " + group.name + " has " + std::to_string(items.size()) + " of " +
                         std::to_string(group.count) + " items in its bucket");
  }
  std::vector<std::string> payloads;
  payloads.reserve(items.size());
  for (auto& item : items) payloads.push_back(std::move(item.value));
  context.set_workflow(group.workflow_id);
  Recording recording(state_, token, outbox);
  try {
    collect_.handle(payloads, context, recording);
  } catch (...) {
    recording.discard();
    throw;
  }
  for (;;) {
    group.attempt = recording.attempt();
    group.events = recording.events();
    if (move(token, group, std::string(kPublishing), group.owner)) return true;
    auto current = find(token);
    if (!current || current->state != kJoining || current->owner != group.owner) {
      if (!current || current->attempt != recording.attempt()) recording.discard();
      return false;
    }
    group = *std::move(current);  // only its time was changed
  }
}

void Collector::publish(const std::string& token, Group& group, Context& context, CallOutbox& outbox) {
  context.set_workflow(group.workflow_id);
  for (std::size_t i = 0; i < group.events.size(); ++i) {
    const Group::Event& event = group.events[i];
    auto payload = state_.get(Group::event_key(token, group.attempt, i));
    if (!payload) {
      if (is_done(token)) return outbox.set_has_status();
      throw TransientError("event " + std::to_string(i + 1) + " of " + std::to_string(group.events.size()) +
                           " that group " + group.name + " was joined to is no longer in its bucket");
    }
    outbox.publish({.event = event.event,
                    .subject = event.subject,
                    .payload = std::move(payload->value),
                    .is_result = event.is_result});
  }
  // Before the group is done: after that, a redelivery no longer knows what was made.
  publish_done_status(stage_, context.message(), outbox);
  outbox.wait_stored();
  while (!move(token, group, std::string(kDone), group.owner)) {
    auto current = find(token);
    // Otherwise it has ended, and whoever saw to that takes care of what it leaves.
    if (!current || current->state != kPublishing || current->attempt != group.attempt) return;
    group = *std::move(current);  // only its time was changed
  }
  remove_items(token);
}

void Collector::remove_items(const std::string& token) {
  for (const char* kind : {".item.*", ".event.*"}) {
    for (const std::string& key : state_.keys(token + kind)) state_.purge(key);
  }
}

void Collector::failed(const Delivery& delivery) {
  try {
    const Collect::Item item = collect_.item(delivery.payload());
    if (item.group.empty()) return;
    const std::string token = KeyValue::key_token(item.group);
    auto group = find(token);
    if (!group || !group->is_begun() || group->owner != delivery.id()) return;
    move(token, *group, std::string(kFailed), group->owner);
  } catch (const PermanentError&) {  // not an item, so it never belonged to a group
  }
}

Collector::Round Collector::expire(DeadLetters& dead_letters) {
  Round round;
  std::size_t forgotten = 0;
  for (const KeyValue::Entry& entry : state_.entries("*.group")) {
    Group group;
    try {
      group = parse_group(entry);
    } catch (const json::Invalid&) {
      continue;  // not ours
    }
    const std::string token = entry.key.substr(0, entry.key.rfind('.'));
    if (auto one = expire(token, group, dead_letters)) {
      round.expired.push_back(std::move(*one));
    } else if (group.state == kOpen || group.is_begun()) {
      ++round.open;
    } else if (forgotten < kMostForgotten && forget_if_old(token, group)) {
      ++forgotten;
    }
  }
  return round;
}

/// Of a group that has ended only the word about it is kept, for items that come late; that too is looked at in every
/// round.
bool Collector::forget_if_old(const std::string& token, const Group& group) {
  if (group.state != kDone && group.state != kExpired) return false;
  if (clock_.wall_time() - group.changed_at <= 2 * collect_.expires) return false;
  // Listed before the group is gone and purged after it: a new group of this name keeps its own.
  auto left = state_.entries(token + ".item.*");
  for (auto& event : state_.entries(token + ".event.*")) left.push_back(std::move(event));
  if (!state_.purge(token + ".group", group.revision)) return false;
  for (const KeyValue::Entry& entry : left) state_.purge(entry.key, entry.revision);
  return true;
}

std::optional<Collector::Expired> Collector::expire(const std::string& token, Group& group, DeadLetters& dead_letters) {
  const Timestamp present = clock_.wall_time();
  const bool late = group.state == kOpen && present - group.first_at > collect_.expires;
  const bool left_behind = group.state == kExpiring && present - group.changed_at > kExpiringPatience;
  // Whoever works on it says so at every try, and between two of them lies a delay.
  auto patience = collect_.expires + stage_.timeout;
  if (!stage_.backoff.empty()) patience += 2 * *std::max_element(stage_.backoff.begin(), stage_.backoff.end());
  const bool forgotten = (group.state == kOpen || group.is_begun()) && present - group.changed_at > patience;
  if (!late && !left_behind && !forgotten) return std::nullopt;

  // Complete: the message that completed it is in somebody's hand, and joins it.
  const bool complete = state_.count(token + ".item.*") >= static_cast<std::size_t>(group.count);
  if (group.state == kOpen && complete && !forgotten) return std::nullopt;
  if (!move(token, group, std::string(kExpiring), group.owner)) return std::nullopt;

  // Only now: whoever stored an item before it may not have seen that, and has acked it.
  const auto items = items_of(token);
  const Missing missing = missing_of(items, group.count);
  std::string reason;
  if (missing.count > 0) {
    reason = (missing.count == 1 ? "item " : "items ") + missing.text + " of " + std::to_string(group.count) +
             " never came within " + duration_text(collect_.expires);
  } else if (complete) {
    reason = "all " + std::to_string(group.count) + " items came, but the message that was to join them is gone";
  } else {
    reason = "all " + std::to_string(group.count) + " items came, but not within " + duration_text(collect_.expires);
  }
  reason += " (group " + group.name + ")";
  publish_parts(token, group, items, missing.text, reason, dead_letters);
  remove_items(token);
  move(token, group, std::string(kExpired), group.owner);
  return Expired{group.name, group.workflow_id, reason};
}

/// What did come, so that nothing is lost: in as many dead letters as it takes.
void Collector::publish_parts(const std::string& token, const Group& group, const std::vector<KeyValue::Entry>& items,
                              const std::string& missing, const std::string& reason, DeadLetters& dead_letters) {
  const auto room = static_cast<std::size_t>(std::max<std::int64_t>(connection_.max_payload(), 0));
  const std::size_t most = room > 0 ? std::min<std::size_t>(512u << 10, room / 2) : 512u << 10;
  const std::size_t frame = group.name.size() * 6 + missing.size() + 256;  // in JSON, without the items
  std::vector<std::vector<const KeyValue::Entry*>> parts(1);
  std::size_t size = frame;
  for (const auto& item : items) {
    const std::size_t more = item.value.size() * 2 + 64;
    if (size + more > most && !parts.back().empty()) {
      parts.emplace_back();
      size = frame;
    }
    parts.back().push_back(&item);
    size += more;
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto& part = parts[i];
    json::Writer out;
    out.begin_object();
    out.field("group", group.name);
    out.field("missing", missing);
    out.field("count", group.count);
    out.field("have", static_cast<std::int64_t>(items.size()));
    if (parts.size() > 1) {
      out.field("part", static_cast<std::int64_t>(i + 1));
      out.field("parts", static_cast<std::int64_t>(parts.size()));
    }
    out.key("items");
    out.begin_array();
    for (const KeyValue::Entry* item : part) {
      out.begin_object();
      out.field("index", index_of(*item));
      out.field("payload", item->value);
      out.end_object();
    }
    out.end_array();
    out.end_object();
    std::string id = "dlq:" + stage_.name + ":" + token + ":" + to_string(group.first_at);
    if (parts.size() > 1) id += ":part-" + std::to_string(i + 1);
    // One item may be as large as a message: as text in JSON it would not fit, as it is it does.
    const bool bare = part.size() == 1 && room > 0 && out.text().size() + 4'096 > room;
    dead_letters.publish(bare ? std::string_view(part[0]->value) : std::string_view(out.text()), id, group.workflow_id,
                         {"Expired", reason});
  }
}

}  // namespace pipegen::worker
