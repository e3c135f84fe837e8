// `entities:`: the records of their messages, where those are published, and the stages that write them. What becomes
// of them in a database is in tables.cpp.
#include <algorithm>

#include "model/snake_case.hpp"
#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

using SourceKind = ColumnSource::Kind;

struct SourceKey {
  const char* key;
  SourceKind kind;
};

constexpr SourceKey kSourceKeys[] = {{"from", SourceKind::kPath},
                                     {"parent", SourceKind::kParent},
                                     {"constant", SourceKind::kConstant},
                                     {"transform", SourceKind::kTransform}};

/// A stream of that name in the schema has the limits that it says, and those of ours for the rest.
void add_stream(Resolution& r) {
  const std::string& name = r.pipeline.entity_stream;
  const auto [found, is_new] = r.pipeline.streams.try_emplace(name);
  Stream& stream = found->second;
  const Node* declared = nullptr;
  if (is_new) {
    stream.name = name;
    stream.origin = r.pipeline.origin;
  } else {
    declared = r.declared.table(Section::kStreams).at(name).value;
    r.used.emplace(Section::kStreams, name);
    if (stream.retention != Retention::kWorkQueue) {
      r.report.error(code::kStreamOptions, value_at(*declared, "retention")->span,
                     in_quotes(name) + " holds the messages of entities, each until it is written: a work queue",
                     "remove 'retention'");
    }
  }
  const auto says = [&](const char* key) { return declared != nullptr && key_of(*declared, key) != nullptr; };
  if (!says("replicas")) stream.replicas = most_replicas(r.pipeline);
  if (!says("max_age")) stream.max_age = std::chrono::hours(24);
  if (!says("max_bytes")) stream.max_bytes = std::int64_t{1} << 30;
}

void add_messages(Resolution& r) {
  Pipeline& pipeline = r.pipeline;
  if (r.entity_texts.empty()) return;
  pipeline.entity_stream = pipeline.constant + "_INGEST";
  add_stream(r);
  std::map<std::vector<std::string>, std::string> exact;  // subject -> event
  std::vector<std::pair<std::vector<std::string>, std::string>> wild;
  for (const auto& [name, event] : pipeline.events) {
    if (event.subject.empty()) continue;
    auto pattern = subject_pattern(event.subject);
    const bool is_wild = std::ranges::find(pattern, "*") != pattern.end();
    if (is_wild) {
      wild.emplace_back(std::move(pattern), name);
    } else {
      exact.emplace(std::move(pattern), name);
    }
  }
  for (Entity& entity : pipeline.entities) {
    if (!entity.parent.empty()) continue;
    const std::string word = snake_case(entity.name);
    entity.subject = pipeline.name + ".ingest." + word;
    entity.durable = word + "-writers";
    std::ranges::replace(entity.durable, '_', '-');
    const auto pattern = subject_pattern(entity.subject);
    const auto complain = [&](const std::string& event) {
      r.report
          .error(code::kSubjectOverlap, r.subject_spans.at(event),
                 "the subject " + in_quotes(pipeline.events.at(event).subject) + " can be that of " +
                     named("entity", entity.name) + ", " + in_quotes(entity.subject),
                 "change the subject of the event")
          .notes.push_back({r.span_of(Section::kEntities, entity.name), "the entity"});
    };
    if (const auto same = exact.find(pattern); same != exact.end()) complain(same->second);
    for (const auto& [other, event] : wild) {
      if (subjects_overlap(other, pattern)) complain(event);
    }
  }
}

/// Keys that are for fields of a message, not for what is made from it.
void refuse_message_keys(Resolution& r, const Node& value, const std::string& whole) {
  for (const char* key : {"min", "max", "min_length", "pattern", "json", "fresh", "sensitive", "stored"}) {
    if (const Node* node = key_of(value, key)) {
      r.report.error(code::kDerived, node->span,
                     in_quotes(key) + " is for fields of the message, and " + in_quotes(whole) + " is made from it",
                     "put it on the field that the value comes from");
    }
  }
}

void read_field(Resolution& r, const Node& key, const Node& value, const Record& record, EntityText& text,
                std::vector<Field>& message) {
  EntityField field;
  field.key = &key;
  field.value = &value;
  const std::string whole = record.name + "." + key.text;
  const Node* first = nullptr;
  for (const SourceKey& source : kSourceKeys) {
    const Node* node = key_of(value, source.key);
    if (node == nullptr) continue;
    if (first != nullptr) {
      r.report
          .error(code::kTwoSources, node->span,
                 in_quotes(whole) + " is given by " + in_quotes(first->text) + " and by " + in_quotes(node->text),
                 "remove one of them")
          .notes.push_back({first->span, "the other one"});
      continue;
    }
    first = node;
    field.source = source.kind;
    field.from = value_at(value, source.key);
    if (field.from == nullptr) {
      r.report.error(code::kNoValue, node->span, in_quotes(source.key) + " has no value",
                     "give it one, or remove the line");
    }
  }
  const bool is_message = !field.is_derived() && text.repeated_for == nullptr;
  r.field_spans[{record.name, key.text}] = key.span;
  field.good = resolve_field(r, key, value, record, field.field,
                             {"references", "from", "parent", "constant", "transform", "stored"});
  if (is_message) {
    if (const Node* fresh = key_of(value, "fresh")) {
      r.report.error(code::kFresh, fresh->span, "whoever sends an entity gives all its values: nothing is made anew",
                     "remove 'fresh'");
    }
    if (!field.good) r.broken_fields.insert(whole);
    message.push_back(field.field);
  } else {
    refuse_message_keys(r, value, whole);
  }
  text.fields.push_back(std::move(field));
}

}  // namespace

void read_entities(Resolution& r) {
  static const std::vector<std::string> kKeys{"doc", "table", "key", "on_conflict", "since", "repeated_for", "fields"};
  // All of them first: what a name means does not depend on the order.
  for (const auto& [name, declaration] : r.declared.table(Section::kEntities)) {
    EntityText& text = r.entity_texts[name];
    text.declaration = &declaration;
    text.repeated_for =
        key_of(*declaration.value, "repeated_for") != nullptr ? value_at(*declaration.value, "repeated_for") : nullptr;
  }
  for (auto& [name, text] : r.entity_texts) {
    const Declaration& declaration = *text.declaration;
    const std::size_t errors = r.report.errors();
    const MapView map(r.report, *declaration.value, named("entity", name), declaration.key->span, kKeys);
    if (r.report.errors() != errors) r.broken_entities.insert(name);
    Record record{.name = name, .doc = {}, .fields = {}, .origin = {declaration.file->origin}};
    for (const std::string& key : kKeys) {
      if (key != "fields") map.find(key);  // reports what has no value
    }
    if (const Node* doc = map ? map.find("doc") : nullptr) record.doc = r.values.text(*doc, "'doc'").value_or("");
    const Node* fields = map ? map.require("fields", "write 'fields:' with the fields of its message") : nullptr;
    if (fields != nullptr && !fields->is_map()) {
      r.report.error(code::kShape, fields->span, "'fields' is a map from names to types, this is " + shape_of(*fields));
      fields = nullptr;
    }
    if (fields == nullptr) {
      r.broken_records.insert(name);
    } else {
      for (std::size_t i = 0; i < fields->keys.size(); ++i)
        read_field(r, fields->keys[i], fields->items[i], record, text, record.fields);
    }
    std::ranges::sort(text.fields, {}, [](const EntityField& each) { return each.field.name; });
    finish_record(r, record);
    if (text.repeated_for == nullptr) r.pipeline.records.try_emplace(name, std::move(record));
  }
}

void resolve_entities(Resolution& r) {
  make_tables(r);
  add_messages(r);
}

void resolve_persist(Resolution& r, const std::string& name, const Declaration& declaration) {
  const Node& value = *declaration.value;
  for (const char* key :
       {"consumes", "produces", "keys", "set", "consumer", "concurrency", "timeout", "ack_wait", "retry", "collect"}) {
    if (const Node* node = key_of(value, key)) {
      r.report.error(code::kPersist, node->span,
                     "a stage that uses 'persist' writes the messages of entities, and has no " + in_quotes(key),
                     "remove it");
    }
  }
  const MapView map(r.report, value, named("stage", name), declaration.key->span,
                    {"doc", "uses", "with", "consumes", "produces", "keys", "set", "consumer", "concurrency", "timeout",
                     "ack_wait", "retry", "collect"});
  EntityWorker worker;
  worker.name = name;
  worker.cpp_name = cpp_namespace_name(name);
  worker.section = setting_word(name) + "_service";
  worker.origin = {declaration.file->origin};
  if (const Node* doc = map.find("doc")) worker.doc = r.values.text(*doc, "'doc'").value_or("");
  if (const Node* with = map.require("with", "write with: {entities: [Order]}")) {
    const MapView parameters(r.report, *with, "'with' of 'persist'", declaration.key->span, {"entities"});
    const Node* entities =
        parameters ? parameters.require("entities", "name the entities that it writes: [Order]") : nullptr;
    for (const Node* item : entities != nullptr ? r.values.list(*entities, "'entities'") : std::vector<const Node*>{}) {
      if (!names_root_entity(r, *item)) continue;
      const auto [other, is_new] = r.entity_writers.try_emplace(item->text, name, item->span);
      if (is_new) {
        worker.entities.push_back(item->text);
      } else if (other->second.first == name) {
        r.report.error(code::kDuplicate, item->span, in_quotes(item->text) + " is there twice", "remove one");
      } else {
        r.report
            .error(code::kTwoWriters, item->span,
                   in_quotes(item->text) + " is written by the stages " + in_quotes(other->second.first) + " and " +
                       in_quotes(name),
                   "remove it from one of them: to write faster, raise worker_pool_size or run more of one")
            .notes.push_back({other->second.second, "the other one"});
      }
    }
    if (entities != nullptr && entities->is_sequence() && entities->items.empty()) {
      r.report.error(code::kPersist, entities->span, named("stage", name) + " writes nothing",
                     "name the entities that it writes: [Order]");
    }
  }
  std::ranges::sort(worker.entities);
  // `generate-worker --entity Order` makes a service of that name.
  for (const auto& [entity, text] : r.entity_texts) {
    const bool same = setting_word(name) == snake_case(entity) + "_worker";
    if (!same || (worker.entities.size() == 1 && worker.entities.front() == entity)) continue;
    r.report.error(code::kReserved, declaration.key->span,
                   in_quotes(name) + " is the worker that writes " + in_quotes(entity) + " alone",
                   "choose another name");
  }
  r.pipeline.entity_workers.push_back(std::move(worker));
}

bool names_root_entity(Resolution& r, const Node& item) {
  if (r.find(Section::kEntities, item) == nullptr) return false;
  const auto found = std::ranges::find(r.pipeline.entities, item.text, &Entity::name);
  if (found == r.pipeline.entities.end()) return false;  // something in it was reported
  if (found->parent.empty()) return true;
  r.report
      .error(code::kEntityUse, item.span,
             in_quotes(item.text) + " is a part of " + in_quotes(found->parent) + " and comes with its messages",
             "name " + in_quotes(found->parent) + " in its place")
      .notes.push_back({r.span_of(Section::kEntities, item.text), "the entity"});
  return false;
}

}  // namespace pipegen::gen
