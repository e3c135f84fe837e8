// `stages:`, without the sources of the produced fields (sources.cpp).
#include <algorithm>
#include <limits>

#include "model/snake_case.hpp"
#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

using Count = ProducedEvent::Count;

struct ProducedText {
  std::string name;
  Span span;
  Count count = Count::kOne;
};

/// "X", "X?", "list<X>".
std::optional<ProducedText> produced_text(Resolution& r, const Node& node) {
  const auto text = r.values.text(node, "'produces'");
  if (!text) return std::nullopt;
  ProducedText out{*text, node.span, Count::kOne};
  std::size_t offset = 0;
  if (text->starts_with("list<") && text->ends_with('>')) {
    out.name = text->substr(5, text->size() - 6);
    out.count = Count::kMany;
    offset = 5;
  } else if (text->ends_with('?')) {
    out.name.pop_back();
    out.count = Count::kOptional;
  }
  if (!is_type_name(out.name)) {
    r.report.error(code::kProduces, node.span, in_quotes(*text) + " names no event",
                   "write X for one event, X? for one or none, list<X> for any number, [X, Y] for several kinds");
    return std::nullopt;
  }
  out.span = part_of(node, offset, out.name.size());
  return out;
}

/// False when something in it could not be understood.
bool resolve_produces(Resolution& r, const Node& node, Stage& stage, std::vector<Span>& spans) {
  std::vector<const Node*> nodes;
  if (node.is_sequence()) {
    for (const Node& item : node.items) nodes.push_back(&item);
  } else {
    nodes.push_back(&node);
  }
  bool good = true;
  for (const Node* each : nodes) {
    auto text = produced_text(r, *each);
    if (!text || r.find(Section::kEvents, text->name, text->span) == nullptr) {
      good = false;
      continue;
    }
    if (node.is_sequence() && nodes.size() > 1) text->count = Count::kMany;
    const bool twice =
        std::ranges::any_of(stage.produces, [&](const ProducedEvent& other) { return other.event == text->name; });
    if (twice) {
      r.report.error(code::kProduces, text->span, in_quotes(text->name) + " is there twice",
                     "for any number of them write list<" + text->name + ">");
      continue;
    }
    stage.produces.push_back({text->name, text->count, {}, {}});
    spans.push_back(text->span);
  }
  std::ranges::sort(stage.produces, {}, &ProducedEvent::event);
  return good;
}

void resolve_retry(Resolution& r, const Node& node, const Span& where, Stage& stage) {
  const MapView map(r.report, node, "'retry'", where, {"max_deliver", "backoff"});
  if (const Node* most = map.find("max_deliver")) {
    stage.retry.max_deliver = static_cast<int>(r.values.integer(*most, "'max_deliver'", 1, 1000).value_or(5));
  }
  if (const Node* backoff = map.find("backoff")) {
    std::vector<std::chrono::milliseconds> waits;
    for (const Node* item : r.values.list(*backoff, "'backoff'")) {
      if (const auto wait = r.values.duration(*item, "'backoff'")) waits.push_back(*wait);
    }
    if (backoff->is_sequence() && backoff->items.empty()) {
      r.report.error(code::kValue, backoff->span, "'backoff' is empty",
                     "write how long to wait before each try: [1s, 10s, 1m]");
    }
    if (!waits.empty()) stage.retry.backoff = std::move(waits);
  }
}

/// Debian packages: what its names may be written of keeps them words of a Dockerfile.
std::set<std::string> package_names(Resolution& r, const MapView& map, const char* key) {
  std::set<std::string> names;
  const Node* node = map.find(key);
  if (node == nullptr) return names;
  for (const Node* item : r.values.list(*node, in_quotes(key))) {
    if (is_package_name(item->text)) {
      names.insert(item->text);
    } else {
      r.report.error(code::kBadName, item->span, in_quotes(item->text) + " is no name of a Debian package",
                     "lower case letters, digits, '+', '-' and '.': libleptonica-dev");
    }
  }
  return names;
}

std::optional<FieldPath> collect_path(Resolution& r, const MapView& map, const char* key, const Record& consumed,
                                      bool number) {
  const Node* node = map.require(key, number ? "name a whole number of the consumed event"
                                             : "name what a group has in common: header.workflow_id");
  if (node == nullptr) return std::nullopt;
  auto path = path_value(r, *node, consumed, in_quotes(key));
  if (!path) return std::nullopt;
  const TypeKind kind = path->type.kind;
  const bool is_number = kind == TypeKind::kInt32 || kind == TypeKind::kInt64;
  const bool good = number ? is_number : is_number || kind == TypeKind::kString || kind == TypeKind::kUuid;
  if (!good) {
    r.report.error(code::kCollect, node->span,
                   in_quotes(key) + " is " + (number ? "a whole number" : "a string, uuid or whole number") + ", " +
                       in_quotes(node->text) + " is of type " + spelled(path->type));
    return std::nullopt;
  }
  if (path->optional) {
    r.report.error(code::kCollect, node->span,
                   in_quotes(node->text) + " is optional, and " + in_quotes(key) + " is always needed",
                   "make it required");
    return std::nullopt;
  }
  if (refuse_sensitive(r, *path, node->span, "what a group has in common")) return std::nullopt;
  return path;
}

void resolve_collect(Resolution& r, const Node& node, const Span& where, const Record* consumed, Stage& stage,
                     std::map<std::string, std::pair<std::string, Span>>& states) {
  const MapView map(r.report, node, "'collect'", where, {"by", "index", "count", "state", "expires"});
  if (!map) return;
  CollectSpec spec;
  spec.expires = std::chrono::hours(24);
  if (const Node* expires = map.find("expires"))
    spec.expires = r.values.duration(*expires, "'expires'", kLeastOfServer).value_or(spec.expires);
  if (consumed != nullptr) {
    spec.by = collect_path(r, map, "by", *consumed, false).value_or(FieldPath{});
    spec.index = collect_path(r, map, "index", *consumed, true).value_or(FieldPath{});
    spec.count = collect_path(r, map, "count", *consumed, true).value_or(FieldPath{});
  }
  if (const Node* state = map.require("state", "name a key-value bucket, which is made for it: WAV_STATE")) {
    const auto name = r.values.text(*state, "'state'");
    if (name && !is_resource_name(*name)) {
      r.report.error(code::kBadName, state->span, in_quotes(*name) + " is no name of a bucket",
                     "letters, digits, '_' and '-': WAV_STATE");
    } else if (name) {
      spec.state = *name;
      const auto [same, is_new] = states.try_emplace(*name, stage.name, state->span);
      if (!is_new) {
        r.report
            .error(code::kCollect, state->span, "two stages keep their state in " + in_quotes(*name),
                   "give each its own bucket")
            .notes.push_back({same->second.second, "the other one, of stage " + in_quotes(same->second.first)});
      }
      const std::string& constant = r.pipeline.constant;
      if (!constant.empty() && (*name == constant + "_STATUS" || *name == constant + "_IDEMPOTENCY")) {
        r.report.error(code::kReserved, state->span, in_quotes(*name) + " is a bucket of the runtime",
                       "choose another name");
      }
      Bucket bucket;
      bucket.name = *name;
      bucket.cpp_name = cpp_tag_name(*name);
      // Longer than a group may wait, so that the worker can say what was missing before the server forgets it.
      bucket.max_age = 2 * spec.expires;
      bucket.origin = stage.origin;
      if (!stage.consumes.empty()) {
        // As safe as the stream whose messages it stands for.
        const auto event = r.pipeline.events.find(stage.consumes);
        const auto stream =
            event == r.pipeline.events.end() ? r.pipeline.streams.end() : r.pipeline.streams.find(event->second.stream);
        if (stream != r.pipeline.streams.end()) bucket.replicas = stream->second.replicas;
      }
      r.pipeline.key_values.emplace(*name, std::move(bucket));
    }
  }
  stage.collect = std::move(spec);
}

/// Whether the action can produce what the stage says; sets the count of actions that make many.
bool check_produces(Resolution& r, const Action& action, const Node* node, const Span& where, Stage& stage) {
  const std::string name(action.name);
  if (node == nullptr) {
    const bool must_tell = std::ranges::any_of(action.parameters, [](const ActionParameter& parameter) {
      return parameter.role == ActionParameter::Role::kOutput && parameter.required;
    });
    if (!must_tell) return true;
    r.report.error(
        code::kProduces, where,
        "stage " + in_quotes(stage.name) + " produces nothing, but " + in_quotes(name) + " writes something to tell of",
        "add produces: with the event that names what was written");
    return false;
  }
  if (stage.produces.size() != 1) {
    r.report.error(code::kProduces, node->span, in_quotes(name) + " produces one kind of event",
                   "use custom to produce several");
    return false;
  }
  ProducedEvent& produced = stage.produces.front();
  if (action.makes_many) {
    if (produced.count == Count::kOptional) {
      r.report.error(code::kProduces, node->span, in_quotes(name) + " produces any number of events",
                     "write produces: " + produced.event);
      return false;
    }
    produced.count = Count::kMany;
  } else if (produced.count != Count::kOne) {
    r.report.error(code::kProduces, node->span, in_quotes(name) + " always produces one event",
                   "write produces: " + produced.event);
    return false;
  }
  return true;
}

void check_custom(Resolution& r, const MapView& map) {
  for (const char* key : {"with", "set", "keys"}) {
    if (const Node* node = map.find(key)) {
      r.report.error(code::kNotForCustom, node->span,
                     in_quotes(key) + " is for built-in actions; a custom stage does this in its handler", "remove it");
    }
  }
}

void resolve_stage(Resolution& r, const std::string& name, const Declaration& declaration,
                   std::map<std::string, std::pair<std::string, Span>>& states) {
  const MapView map(r.report, *declaration.value, named("stage", name), declaration.key->span,
                    {"doc", "consumes", "produces", "uses", "with", "keys", "set", "consumer", "concurrency", "timeout",
                     "ack_wait", "retry", "collect", "packages"});
  if (!map) return;
  Stage stage;
  stage.name = name;
  stage.cpp_name = cpp_namespace_name(name);
  stage.section = setting_word(name) + "_service";
  stage.origin = {declaration.file->origin};
  stage.timeout = std::chrono::minutes(5);
  stage.ack_wait = std::chrono::seconds(30);
  stage.retry.backoff = {std::chrono::seconds(1), std::chrono::seconds(10), std::chrono::minutes(1)};
  if (const Node* doc = map.find("doc")) stage.doc = r.values.text(*doc, "'doc'").value_or("");

  if (const Node* consumes = map.require("consumes", "write consumes: with the event that starts it")) {
    if (r.find(Section::kEvents, *consumes) != nullptr) stage.consumes = consumes->text;
  }
  const Node* produces = map.find("produces");
  std::vector<Span> produced_spans;
  const bool produces_understood = produces == nullptr || resolve_produces(r, *produces, stage, produced_spans);
  const Record* consumed = stage.consumes.empty() ? nullptr : r.record_of(stage.consumes);

  const Action* action = nullptr;
  if (const Node* uses =
          map.require("uses", "name a built-in action, or write uses: custom for a handler of your own")) {
    if (const auto text = r.values.text(*uses, "'uses'")) {
      stage.action = *text;
      action = find_action(*text);
      if (action == nullptr && *text != "custom") {
        std::vector<std::string> names{"custom", "persist"};
        for (const Action& each : actions()) names.emplace_back(each.name);
        std::string hint = did_you_mean(*text, names);
        if (hint.empty()) hint = "there are " + one_of(names);
        r.report.error(code::kUnknownAction, uses->span, "no action is called " + in_quotes(*text), hint);
      }
    }
  }

  if (const Node* consumer = map.find("consumer")) {
    const auto text = r.values.text(*consumer, "'consumer'");
    if (text && !is_resource_name(*text)) {
      r.report.error(code::kBadName, consumer->span, in_quotes(*text) + " is no name of a durable consumer",
                     "letters, digits, '_' and '-': tts-workers");
    } else if (text) {
      stage.durable = *text;
      r.durable_spans[name] = consumer->span;
    }
  }
  if (stage.durable.empty()) {
    stage.durable = name + "-workers";
    r.durable_spans.emplace(name, declaration.key->span);
  }
  if (const Node* node = map.find("concurrency"))
    stage.concurrency = static_cast<int>(r.values.integer(*node, "'concurrency'", 1, 1024).value_or(1));
  if (const Node* node = map.find("timeout"))
    stage.timeout = r.values.duration(*node, "'timeout'").value_or(stage.timeout);
  if (const Node* node = map.find("ack_wait"))
    stage.ack_wait = r.values.duration(*node, "'ack_wait'", kLeastOfServer).value_or(stage.ack_wait);
  if (const Node* node = map.find("retry")) resolve_retry(r, *node, node->span, stage);

  if (const Node* node = map.find("packages")) {
    const MapView packages(r.report, *node, "'packages'", node->span, {"build", "run"});
    stage.build_packages = package_names(r, packages, "build");
    stage.run_packages = package_names(r, packages, "run");
  }

  const Node* collect = map.find("collect");
  if (collect != nullptr) {
    if (action != nullptr && !action->collects) {
      r.report.error(code::kCollect, collect->span, in_quotes(stage.action) + " takes one event at a time",
                     "remove 'collect'");
    } else {
      resolve_collect(r, *collect, collect->span, consumed, stage, states);
    }
  } else if (action != nullptr && action->collects) {
    r.report.error(code::kCollect, declaration.key->span,
                   in_quotes(stage.action) + " needs 'collect' to know what belongs together",
                   "write collect: {by: header.workflow_id, index: page_number, count: total_pages, state: WAV_STATE}");
  }

  const StageText text{map.find("with"), map.find("keys"), map.find("set"), declaration.key->span};
  if (stage.action == "custom") {
    check_custom(r, map);
  } else if (action != nullptr && produces_understood &&
             check_produces(r, *action, produces, declaration.key->span, stage) && consumed != nullptr) {
    resolve_sources(r, *action, text, stage);
  }

  r.pipeline.stages.emplace(name, std::move(stage));
}

bool uses_persist(const Node& stage) {
  for (std::size_t i = 0; stage.is_map() && i < stage.keys.size(); ++i) {
    if (stage.keys[i].text == "uses") return stage.items[i].is_scalar() && stage.items[i].text == "persist";
  }
  return false;
}

/// Names of services that come with entities: the workers of all of them or of one, the database.
bool is_entity_service(const Resolution& r, const std::string& name, bool persists) {
  if (r.entity_texts.empty()) return false;
  if (setting_word(name) == "entity_worker" || name == "postgres") return true;
  return !persists && std::ranges::any_of(r.entity_texts, [&](const auto& entity) {
    return setting_word(name) == snake_case(entity.first) + "_worker";
  });
}

void check_stage_name(Resolution& r, const std::string& name, const Declaration& declaration) {
  std::string reserved = reserved_stage_name(name);
  if (reserved.empty() && is_entity_service(r, name, uses_persist(*declaration.value)))
    reserved = "the workspace has something else of that name, for the entities";
  if (!reserved.empty()) {
    r.report.error(code::kReserved, declaration.key->span,
                   "a stage cannot be called " + in_quotes(name) + ": " + reserved, "choose another name");
  }
  if (declaration.value->is_null() || declaration.value->is_map()) {
    if (declaration.file == r.declared.files.front().get()) r.pipeline.root_stages.push_back(name);
  }
}

}  // namespace

void resolve_stages(Resolution& r) {
  std::map<std::string, std::pair<std::string, Span>> states;
  std::map<std::string, std::string> cpp_names;
  for (const auto& [name, declaration] : r.declared.table(Section::kStages)) {
    if (uses_persist(*declaration.value)) {
      resolve_persist(r, name, declaration);
    } else {
      resolve_stage(r, name, declaration, states);
    }
    check_stage_name(r, name, declaration);
    const auto [same, is_new] = cpp_names.try_emplace(setting_word(name), name);
    if (!is_new) {
      r.report
          .error(
              code::kClash, declaration.key->span,
              "the stages " + in_quotes(same->second) + " and " + in_quotes(name) + " would have the same name in C++",
              "rename one")
          .notes.push_back({r.span_of(Section::kStages, same->second), "the other one"});
    }
  }
  std::ranges::sort(r.pipeline.root_stages);
}

}  // namespace pipegen::gen
