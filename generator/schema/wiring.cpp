// How the stages fit together, what nobody uses, and the names of the settings.
#include <algorithm>
#include <functional>

#include "model/snake_case.hpp"
#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

void check_consumers(Resolution& r) {
  std::map<std::pair<std::string, std::string>, const Stage*> durables;  // stream, durable
  std::map<std::string, const Stage*> queues;                            // event of a work queue
  for (const auto& [name, stage] : r.pipeline.stages) {
    const auto event = r.pipeline.events.find(stage.consumes);
    if (event == r.pipeline.events.end() || event->second.stream.empty()) continue;
    const Stream& stream = r.pipeline.streams.at(event->second.stream);
    const auto [same, is_new] = durables.try_emplace({stream.name, stage.durable}, &stage);
    if (!is_new) {
      r.report
          .error(code::kSameDurable, r.durable_spans.at(name),
                 "the stages " + in_quotes(same->second->name) + " and " + in_quotes(name) + " both use the consumer " +
                     in_quotes(stage.durable) + " of stream " + in_quotes(stream.name),
                 "give one of them another 'consumer'")
          .notes.push_back({r.durable_spans.at(same->second->name), "the other one"});
    }
    const auto entity = std::ranges::find(r.pipeline.entities, stage.durable, &Entity::durable);
    if (entity != r.pipeline.entities.end() && stream.name == r.pipeline.entity_stream) {
      r.report
          .error(code::kSameDurable, r.durable_spans.at(name),
                 "stage " + in_quotes(name) + " and whatever writes " + in_quotes(entity->name) +
                     " both use the consumer " + in_quotes(stage.durable) + " of stream " + in_quotes(stream.name),
                 "give the stage another 'consumer'")
          .notes.push_back({r.span_of(Section::kEntities, entity->name), "the entity"});
    }
    if (stream.retention != Retention::kWorkQueue) continue;
    const auto [first, only] = queues.try_emplace(stage.consumes, &stage);
    if (!only) {
      r.report
          .error(code::kTwoConsumers, r.span_of(Section::kStages, name),
                 "the stages " + in_quotes(first->second->name) + " and " + in_quotes(name) + " both consume " +
                     in_quotes(stage.consumes) + ", and its stream " + in_quotes(stream.name) +
                     " is a work queue, where each message has one consumer",
                 "write retention: interest for the stream, or publish an event for each")
          .notes.push_back({r.span_of(Section::kStages, first->second->name), "the other one"});
    }
  }
}

/// A circle of events would never come to an end.
void check_cycles(Resolution& r) {
  std::map<std::string, std::vector<std::string>> next;  // event -> events, by way of the stages that consume it
  for (const auto& [name, stage] : r.pipeline.stages) {
    if (stage.consumes.empty()) continue;
    for (const ProducedEvent& produced : stage.produces) next[stage.consumes].push_back(produced.event);
  }
  enum class State { kNew, kOpen, kDone };
  std::map<std::string, State> states;
  for (const auto& [start, unused] : next) {
    // Depth first with a path of its own: a schema may chain more stages than a stack has room for.
    std::vector<std::pair<std::string, std::size_t>> path;
    if (states[start] != State::kNew) continue;
    path.emplace_back(start, 0);
    states[start] = State::kOpen;
    while (!path.empty()) {
      auto& [event, position] = path.back();
      const auto& targets = next[event];
      if (position == targets.size()) {
        states[event] = State::kDone;
        path.pop_back();
        continue;
      }
      const std::string target = targets[position++];
      if (states[target] == State::kOpen) {
        std::string circle;
        std::string last;
        bool inside = false;
        for (const auto& [each, unused_position] : path) {
          inside = inside || each == target;
          if (inside) circle += each + " -> ";
          last = each;
        }
        const auto culprit = std::ranges::find_if(r.pipeline.stages, [&](const auto& stage) {
          return stage.second.consumes == last &&
                 std::ranges::any_of(stage.second.produces,
                                     [&](const ProducedEvent& produced) { return produced.event == target; });
        });
        r.report.error(code::kCycle, r.span_of(Section::kStages, culprit->first),
                       "events go round in a circle: " + circle + target, "break it: messages would multiply for ever");
      } else if (states[target] == State::kNew) {
        states[target] = State::kOpen;
        path.emplace_back(target, 0);
      }
    }
  }
}

/// The API makes the ids that clients do not give: UUIDs, which the field has to take.
void check_made_id(Resolution& r, const std::string& event, const std::string& path, const Field& field) {
  std::set<std::string> rules;
  for (const char* id : {"123e4567-e89b-42d3-a456-426614174000", "00000000-0000-4000-8000-000000000000",
                         "ffffffff-ffff-4fff-bfff-ffffffffffff"}) {
    for (std::string& rule : broken_rules(field, {Literal::Kind::kText, id, {}})) rules.insert(std::move(rule));
  }
  for (const std::string& rule : rules) {
    r.report
        .error(code::kWorkflowId, r.span_of(Section::kEvents, event),
               named("event", event) +
                   " cannot have a workflow that the API begins: its ids are UUIDs, which break the " +
                   in_quotes(rule) + " of " + in_quotes(path),
               "let the field be any UUID, such as 123e4567-e89b-42d3-a456-426614174000")
        .notes.push_back({r.declared.workflow_id.value->span, "the pipeline's 'workflow_id'"});
  }
}

void check_workflow_id(Resolution& r) {
  if (r.pipeline.workflow_id.empty()) return;
  std::string path;
  for (const std::string& name : r.pipeline.workflow_id) path += (path.empty() ? "" : ".") + name;
  std::set<std::string> events, accepted;  // accepted: by the API
  for (const auto& [name, stage] : r.pipeline.stages) {
    if (!stage.consumes.empty()) events.insert(stage.consumes);
    for (const ProducedEvent& produced : stage.produces) events.insert(produced.event);
  }
  if (r.pipeline.ingest) {
    accepted.insert(r.pipeline.ingest->events.begin(), r.pipeline.ingest->events.end());
    for (const UploadSpec& upload : r.pipeline.ingest->uploads) {
      if (!upload.produces.empty()) accepted.insert(upload.produces);
      if (upload.result && !upload.result->event.empty()) events.insert(upload.result->event);
    }
    events.insert(accepted.begin(), accepted.end());
  }
  for (const std::string& event : events) {
    const Record* record = r.record_of(event);
    if (record == nullptr || r.broken_records.contains(event)) continue;
    const PathResult result = find_path(r, *record, path);
    if (result.quiet) continue;
    std::string why = result.problem;
    if (result.path) {
      const TypeKind kind = result.path->type.kind;
      if (kind != TypeKind::kString && kind != TypeKind::kUuid) {
        why = in_quotes(path) + " is of type " + spelled(result.path->type) + " there";
      } else if (result.path->optional) {
        why = in_quotes(path) + " is optional there";
      } else {
        refuse_sensitive(r, *result.path, r.declared.workflow_id.value->span, "the workflow of a message");
        if (accepted.contains(event)) check_made_id(r, event, path, *result.field);
        continue;
      }
    }
    r.report
        .error(code::kWorkflowId, r.span_of(Section::kEvents, event),
               named("event", event) + " cannot tell its workflow: " + why,
               result.hint.empty() ? "give it the field " + path + " as a required string or uuid" : result.hint)
        .notes.push_back({r.declared.workflow_id.value->span, "the pipeline's 'workflow_id'"});
  }
}

/// Warnings about what hangs loose; only said about schemas without errors, where they are no consequences of others.
void warn_about_loose_ends(Resolution& r) {
  std::set<std::string> consumed, produced;
  for (const auto& [name, stage] : r.pipeline.stages) {
    consumed.insert(stage.consumes);
    for (const ProducedEvent& each : stage.produces) produced.insert(each.event);
  }
  if (r.pipeline.ingest) {
    for (const UploadSpec& upload : r.pipeline.ingest->uploads) {
      produced.insert(upload.produces);
      if (upload.result) consumed.insert(upload.result->event);
    }
    for (const std::string& event : r.pipeline.ingest->events) produced.insert(event);
  }
  std::set<std::string> records;  // that fields are of
  for (const auto& [name, record] : r.pipeline.records) {
    for (const Field& field : record.fields) {
      const Type* type = &field.type;
      while (!type->element.empty()) type = &type->element.front();
      if (type->kind == TypeKind::kRecord) records.insert(type->name);
    }
  }
  for (const auto& [name, event] : r.pipeline.events) {
    const Span& span = r.span_of(Section::kEvents, name);
    if (!consumed.contains(name) && !produced.contains(name)) {
      if (!records.contains(name))
        r.report.warning(code::kNotConsumed, span, named("event", name) + " is neither produced nor consumed",
                         "remove it, or add a stage");
    } else if (!consumed.contains(name)) {
      const bool queue = r.pipeline.streams.at(event.stream).retention == Retention::kWorkQueue;
      if (queue) {
        r.report.warning(code::kPilesUp, span,
                         named("event", name) + " is consumed by no stage, and stays in the work queue " +
                             in_quotes(event.stream) + " until something does",
                         "add a stage, or put it into a stream with retention: limits");
      } else {
        r.report.warning(code::kNotConsumed, span, named("event", name) + " is consumed by no stage",
                         "fine when another program does");
      }
    } else if (!produced.contains(name)) {
      r.report.warning(code::kNotProduced, span,
                       named("event", name) + " is produced by no stage and accepted by no API",
                       "fine when another program does; else add it to 'ingest'");
    }
  }
  for (const Section section : {Section::kTypes, Section::kStreams, Section::kBuckets}) {
    for (const auto& [name, declaration] : r.declared.table(section)) {
      if (r.used.contains({section, name})) continue;
      r.report.warning(code::kUnused, declaration.key->span,
                       named(section_word(section), name) + " is declared and never used", "remove it");
    }
  }
}

/// One key of [nats]: the names it may get, the nicest first.
struct Named {
  std::vector<std::string> choices;
  std::string suffix;
  Span span;
  std::string what;
  std::string* setting = nullptr;
  std::size_t choice = 0;

  std::string key() const { return choices[choice] + suffix; }
};

std::string subject_words(const std::string& subject, bool with_placeholders) {
  std::string out;
  int depth = 0;
  bool dotted = false;
  for (const char c : subject) {
    if (c == '{') ++depth;
    const bool keep = c != '{' && c != '}' && (depth == 0 || with_placeholders);
    if (c == '}') --depth;
    if (!keep) continue;
    if (c == '.') {
      dotted = true;
    } else {
      if (dotted && !out.empty()) out += '_';
      dotted = false;
      out += c;
    }
  }
  return setting_word(out);
}

}  // namespace

void check_wiring(Resolution& r) {
  check_consumers(r);
  check_cycles(r);
  check_workflow_id(r);
  if (!r.report.has_errors() && r.declared.complete) warn_about_loose_ends(r);
}

void assign_settings(Resolution& r) {
  std::vector<Named> all;
  for (auto& [name, event] : r.pipeline.events) {
    if (event.subject.empty()) continue;
    std::vector<std::string> choices{subject_words(event.subject, false), subject_words(event.subject, true),
                                     snake_case(name)};
    if (choices.front().empty()) choices.erase(choices.begin());
    all.push_back(
        {std::move(choices), "_subject", r.span_of(Section::kEvents, name), named("event", name), &event.setting});
  }
  for (Entity& entity : r.pipeline.entities) {
    if (!entity.parent.empty()) continue;
    const Span& span = r.span_of(Section::kEntities, entity.name);
    const std::string word = snake_case(entity.name) + "_ingest";
    all.push_back({{word}, "_subject", span, named("entity", entity.name), &entity.setting});
    all.push_back({{word}, "_consumer_name", span, named("entity", entity.name), &entity.durable_setting});
  }
  for (auto& [name, stream] : r.pipeline.streams) {
    const auto declared = r.declared.table(Section::kStreams).find(name);
    // That of the entities need not be declared.
    const Declaration& where =
        declared != r.declared.table(Section::kStreams).end() ? declared->second : r.declared.pipeline;
    const Span span = where.key != nullptr ? where.key->span : Span{};
    all.push_back(
        {{setting_word_without(name, {"jobs", "processing", "stream", "events", "queue"}), setting_word(name)},
         "_stream_name",
         span,
         named("stream", name),
         &stream.setting});
  }
  for (auto& [name, bucket] : r.pipeline.buckets) {
    all.push_back({{setting_word_without(name, {"files", "objects", "bucket"}), setting_word(name)},
                   "_object_store_bucket",
                   r.span_of(Section::kBuckets, name),
                   named("bucket", name),
                   &bucket.setting});
  }
  for (auto& [name, stage] : r.pipeline.stages) {
    all.push_back({{setting_word_without(stage.durable, {"workers", "worker"}), setting_word(stage.durable),
                    setting_word(name) + "_stage"},
                   "_consumer_name",
                   r.span_of(Section::kStages, name),
                   named("consumer", stage.durable),
                   &stage.durable_setting});
  }
  for (auto& [name, bucket] : r.pipeline.key_values) {
    Span span;
    for (const auto& [stage_name, stage] : r.pipeline.stages) {
      if (stage.collect && stage.collect->state == name) span = r.span_of(Section::kStages, stage_name);
    }
    all.push_back({{setting_word(name)}, "_key_value_bucket", span, named("bucket", name), &bucket.setting});
  }

  // Whoever would share a key takes the next longer name, until nobody does or nobody can.
  for (bool again = true; again;) {
    again = false;
    std::map<std::string, std::vector<Named*>> by_key;
    for (Named& each : all) by_key[each.key()].push_back(&each);
    for (auto& [key, group] : by_key) {
      if (group.size() < 2) continue;
      for (Named* each : group) {
        if (each->choice + 1 == each->choices.size()) continue;
        ++each->choice;
        again = true;
      }
    }
  }
  std::map<std::string, const Named*> taken;
  for (const Named& each : all) {
    const auto [same, is_new] = taken.try_emplace(each.key(), &each);
    const bool known =
        r.report.has(code::kClash, each.span) || (!is_new && r.report.has(code::kClash, same->second->span));
    if (!is_new && !known) {
      r.report
          .error(code::kSettingClash, each.span,
                 same->second->what + " and " + each.what + " would both have the setting " +
                     in_quotes("nats." + each.key()),
                 "rename one")
          .notes.push_back({same->second->span, "the other one"});
    }
    *each.setting = each.key();
  }
}

}  // namespace pipegen::gen
