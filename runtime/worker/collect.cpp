#include "worker/collect.hpp"

#include <algorithm>
#include <charconv>

#include "pipegen/json.hpp"
#include "worker/status.hpp"

namespace pipegen::worker {
namespace {

// States of a group. Persisted: do not change.
constexpr std::string_view kOpen = "open", kJoining = "joining", kDone = "done", kFailed = "failed",
                           kExpiring = "expiring", kExpired = "expired";

/// A worker that began to expire a group and has not ended within this time has died.
constexpr auto kExpiringPatience = std::chrono::minutes(1);

std::int64_t index_of(const KeyValue::Entry& entry) {
  const std::string_view token = std::string_view(entry.key).substr(entry.key.rfind('.') + 1);
  std::int64_t index = 0;
  std::from_chars(token.data(), token.data() + token.size(), index);
  return index;
}

/// "3", "3 and 7", "3, 7 and 9"; long lists end in "and 12 more".
std::string list_text(const std::vector<std::int64_t>& numbers) {
  constexpr std::size_t kNamed = 20;
  std::string text;
  const std::size_t named = std::min(numbers.size(), kNamed);
  for (std::size_t i = 0; i < named; ++i) {
    if (i > 0) text += i + 1 == numbers.size() ? " and " : ", ";
    text += std::to_string(numbers[i]);
  }
  if (numbers.size() > named) text += " and " + std::to_string(numbers.size() - named) + " more";
  return text;
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
  std::string name;
  std::string state{kOpen};
  std::int64_t count = 0;
  Timestamp first_at{};
  std::string workflow_id;
  std::string owner;  // id of the message that joins it
  Timestamp changed_at{};
  std::uint64_t revision = 0;
};

Collector::Collector(nats::Connection& connection, const Stage& stage)
    : stage_(stage), collect_(*stage.collect), state_(connection, bucket_name(stage.topology, collect_.state_bucket)) {}

Collector::Group Collector::parse_group(const KeyValue::Entry& entry) {
  static constexpr json::Field kFields[] = {{"group"},       {"state"}, {"count"},     {"first_at"},
                                            {"workflow_id"}, {"owner"}, {"changed_at"}};
  Group group = json::parse(entry.value, [](json::Reader& in) {
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
  out.end_object();
  return out.take();
}

std::optional<Collector::Group> Collector::find(const std::string& token) {
  const auto entry = state_.get(token + ".group");
  if (!entry) return std::nullopt;
  return parse_group(*entry);
}

bool Collector::move(const std::string& token, Group& group, std::string state, std::string owner) {
  Group moved = group;
  moved.state = std::move(state);
  moved.owner = std::move(owner);
  moved.changed_at = now();
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
    made.first_at = made.changed_at = now();
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
  state_.create(token + ".item." + std::to_string(item.index), payload);  // there already: a duplicate, which is fine
  if (state_.count(token + ".item.*") < static_cast<std::size_t>(item.count)) {
    // The group may have expired between the look at it and the item, which then is in nobody's list.
    if (now() - group->first_at > collect_.expires / 2) {
      group = find(token);
      if (group) is_over();
    }
    return;
  }

  for (;;) {
    group = find(token);
    if (!group || is_over()) return;
    if (group->state == kJoining) {
      if (group->owner != me) return;  // its owner's message is unacked until the join is done
      break;
    }
    if (move(token, *group, std::string(kJoining), me)) break;
  }
  join(token, *group, context, outbox);
}

void Collector::join(const std::string& token, Group& group, Context& context, CallOutbox& outbox) {
  auto items = state_.entries(token + ".item.*");
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return index_of(a) < index_of(b); });
  if (items.size() != static_cast<std::size_t>(group.count)) {
    throw TransientError("group " + group.name + " has " + std::to_string(items.size()) + " of " +
                         std::to_string(group.count) + " items in its bucket");
  }
  std::vector<std::string> payloads;
  payloads.reserve(items.size());
  for (auto& item : items) payloads.push_back(std::move(item.value));
  context.set_workflow(group.workflow_id);
  collect_.handle(payloads, context, outbox);
  // Before the group is done: after that, a redelivery no longer knows what was made.
  publish_done_status(stage_, context.message(), outbox);
  outbox.wait_stored();
  move(token, group, std::string(kDone), group.owner);
  remove_items(token);
}

void Collector::remove_items(const std::string& token) {
  for (const std::string& key : state_.keys(token + ".item.*")) state_.purge(key);
}

void Collector::failed(const Delivery& delivery) {
  try {
    const Collect::Item item = collect_.item(delivery.payload());
    if (item.group.empty()) return;
    const std::string token = KeyValue::key_token(item.group);
    auto group = find(token);
    if (!group || group->state != kJoining || group->owner != delivery.info.id) return;
    move(token, *group, std::string(kFailed), group->owner);
  } catch (const PermanentError&) {  // not an item, so it never belonged to a group
  }
}

std::vector<Collector::Expired> Collector::expire(DeadLetters& dead_letters) {
  std::vector<Expired> expired;
  for (const KeyValue::Entry& entry : state_.entries("*.group")) {
    if (auto one = expire(entry, dead_letters)) expired.push_back(std::move(*one));
  }
  return expired;
}

std::optional<Collector::Expired> Collector::expire(const KeyValue::Entry& entry, DeadLetters& dead_letters) {
  Group group;
  try {
    group = parse_group(entry);
  } catch (const json::Invalid&) {
    return std::nullopt;  // not ours
  }
  const Timestamp present = now();
  const bool late = present - group.first_at > collect_.expires;
  const bool left_behind = group.state == kExpiring && present - group.changed_at > kExpiringPatience;
  if (!(group.state == kOpen && late) && !left_behind) return std::nullopt;

  const std::string token = entry.key.substr(0, entry.key.rfind('.'));
  auto items = state_.entries(token + ".item.*");
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return index_of(a) < index_of(b); });
  // Complete: the message that completed it is in somebody's hand, and joins it.
  if (group.state == kOpen && items.size() >= static_cast<std::size_t>(group.count)) return std::nullopt;
  if (!move(token, group, std::string(kExpiring), group.owner)) return std::nullopt;

  std::vector<std::int64_t> missing;
  auto item = items.begin();
  for (std::int64_t index = 1; index <= group.count; ++index) {
    if (item != items.end() && index_of(*item) == index) {
      ++item;
    } else {
      missing.push_back(index);
    }
  }
  const std::string reason = (missing.size() == 1 ? "item " : "items ") + list_text(missing) + " of " +
                             std::to_string(group.count) + " never came within " + duration_text(collect_.expires) +
                             " (group " + group.name + ")";
  json::Writer out;
  out.begin_object();
  out.field("group", group.name);
  out.field("missing", missing);
  out.field("count", group.count);
  out.field("have", static_cast<std::int64_t>(items.size()));
  // What did come, so that nothing is lost, unless it is more than fits a message.
  std::size_t size = 0;
  for (const auto& have : items) size += have.value.size() * 2 + 64;
  if (size < (512u << 10)) {
    out.key("items");
    out.begin_array();
    for (const auto& have : items) {
      out.begin_object();
      out.field("index", index_of(have));
      out.field("payload", have.value);
      out.end_object();
    }
    out.end_array();
  }
  out.end_object();
  dead_letters.publish(out.text(), "dlq:" + stage_.name + ":" + token + ":" + to_string(group.first_at),
                       group.workflow_id, {"Expired", reason});
  remove_items(token);
  move(token, group, std::string(kExpired), group.owner);
  return Expired{group.name, group.workflow_id, reason};
}

}  // namespace pipegen::worker
