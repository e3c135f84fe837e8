// `streams:`, `buckets:` and `events:`.
#include <algorithm>
#include <limits>

#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

constexpr std::chrono::milliseconds kLeastDuplicateWindow = std::chrono::minutes(2);

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

Storage storage(Resolution& r, const MapView& map) {
  const Node* node = map.find("storage");
  const auto choice = node != nullptr ? r.values.choice(*node, "'storage'", {"file", "memory"}) : std::nullopt;
  return choice && *choice == 1 ? Storage::kMemory : Storage::kFile;
}

std::chrono::milliseconds max_age(Resolution& r, const MapView& map) {
  const Node* node = map.find("max_age");
  const auto none = std::chrono::milliseconds(0);
  return node != nullptr ? r.values.duration(*node, "'max_age'", kLeastOfServer).value_or(none) : none;
}

int replicas(Resolution& r, const MapView& map) {
  const Node* node = map.find("replicas");
  return node != nullptr ? static_cast<int>(r.values.integer(*node, "'replicas'", 1, 5).value_or(1)) : 1;
}

std::int64_t max_bytes(Resolution& r, const MapView& map) {
  const Node* node = map.find("max_bytes");
  return node != nullptr ? r.values.size(*node, "'max_bytes'").value_or(0) : 0;
}

struct SubjectPart {
  std::string text;  // a token, or the path between its braces
  bool is_placeholder = false;
};

std::optional<std::vector<SubjectPart>> parse_subject(Resolution& r, const Node& node) {
  const auto text = r.values.text(node, "'subject'");
  if (!text) return std::nullopt;
  const auto fail = [&](std::size_t at, std::size_t length, const std::string& message, const std::string& hint) {
    r.report.error(code::kSubject, part_of(node, at, length), message, hint);
    return std::nullopt;
  };
  if (text->size() > 250) return fail(0, text->size(), "the subject is longer than 250 octets", "");
  std::vector<SubjectPart> parts;
  for (std::size_t start = 0; start <= text->size();) {
    // A dot inside of braces belongs to a path.
    std::size_t end = start;
    for (int depth = 0; end < text->size() && (depth > 0 || (*text)[end] != '.'); ++end) {
      depth += (*text)[end] == '{' ? 1 : (*text)[end] == '}' ? -1 : 0;
    }
    const std::string token = text->substr(start, end - start);
    const std::size_t length = std::max<std::size_t>(token.size(), 1);
    if (token.empty()) return fail(start, 1, "a part of the subject is empty", "write it as text.processed");
    if (token == "*" || token == ">") {
      return fail(start, length, "an event has one subject, wildcards are for those who listen",
                  "write {field} for a part that differs");
    }
    if (token.front() == '{' && token.back() == '}' && token.find('{', 1) == std::string::npos) {
      parts.push_back({token.substr(1, token.size() - 2), true});
      if (!is_field_path(parts.back().text)) {
        return fail(start, length, in_quotes(token) + " holds no field path",
                    "write {tenant_id} or {header.tenant_id}");
      }
    } else if (token.find_first_of("{}") != std::string::npos) {
      return fail(start, length, "a placeholder is a whole part of the subject",
                  "put dots around it: orders.{region}.created");
    } else if (!is_resource_name(token)) {
      return fail(start, length, in_quotes(token) + " cannot be part of a subject",
                  "letters, digits, '_' and '-', with dots between");
    } else {
      parts.push_back({token, false});
    }
    start = end + 1;
  }
  if (parts.front().is_placeholder) {
    return fail(0, parts.front().text.size() + 2,
                "a subject begins with a word: its stream would overlap those of NATS itself and of the dead letters",
                "write one before the placeholder: orders.{region}.created");
  }
  if (parts.front().text == "dlq" || parts.front().text.starts_with("_INBOX")) {
    r.report.error(code::kReserved, node.span,
                   "subjects that begin with " + in_quotes(parts.front().text) + " are taken",
                   parts.front().text == "dlq" ? "dead letters go there" : "NATS sends replies there");
    return std::nullopt;
  }
  return parts;
}

/// Whatever is no field of the record is said by those who publish: publish(outbox, event, region).
void add_parameter(const std::string& name, Event& event) {
  if (std::ranges::find(event.parameters, name, &Parameter::name) != event.parameters.end()) return;
  // Names inside of the function that gets it.
  static const std::set<std::string> kTaken{"event", "fresh", "outbox", "renew"};
  const std::string cpp_name = cpp_field_name(name);
  event.parameters.push_back({name, kTaken.contains(cpp_name) ? cpp_name + "_" : cpp_name});
}

void resolve_placeholders(Resolution& r, const Node& subject, const std::vector<SubjectPart>& parts,
                          const Record& record, Event& event) {
  for (const SubjectPart& part : parts) {
    if (!part.is_placeholder) continue;
    const std::size_t offset = subject.text.find("{" + part.text + "}");
    const Span span = part_of(subject, offset, part.text.size() + 2);
    const PathResult result = find_path(r, record, part.text);
    event.placeholders.push_back({part.text, result.path});
    if (result.quiet) continue;
    if (!result.path) {
      const bool is_name = part.text.find('.') == std::string::npos;
      if (is_name && result.hint.empty()) {
        add_parameter(part.text, event);
        continue;
      }
      std::string hint = result.hint;
      if (hint.empty()) hint = "make it a field of the event";
      if (is_name) hint += " Else call the parameter something less like it.";
      r.report.error(code::kParameter, span,
                     result.problem + ", so nothing gives the subject its " + in_quotes("{" + part.text + "}"), hint);
      continue;
    }
    if (refuse_sensitive(r, *result.path, span, "a subject")) continue;
    const TypeKind kind = result.path->type.kind;
    const bool good = kind == TypeKind::kString || kind == TypeKind::kUuid || kind == TypeKind::kInt32 ||
                      kind == TypeKind::kInt64 || kind == TypeKind::kBool || kind == TypeKind::kEnum ||
                      kind == TypeKind::kDate;
    if (!good) {
      r.report.error(
          code::kPlaceholder, span,
          in_quotes(part.text) + " is of type " + spelled(result.path->type) + ", which cannot be part of a subject",
          "use a string, uuid, whole number, bool, date or enum");
    } else if (result.path->optional) {
      r.report.error(code::kPlaceholder, span, in_quotes(part.text) + " is optional: the subject would have a hole",
                     "make it required");
    } else if (result.field->fresh != FreshKind::kNone) {
      r.report.error(code::kPlaceholder, span,
                     in_quotes(part.text) + " is made anew for every event, so nobody could ask for it",
                     "use a field that others know");
    }
  }
}

Delivery resolve_delivery(Resolution& r, const MapView& map) {
  const Node* node = map.find("delivery");
  if (node == nullptr) return Delivery::kJetStream;
  if (node->is_map() || (node->is_scalar() && node->text == "core")) {
    r.report.error(code::kNotSupported, node->span, "delivery by core NATS is not supported yet",
                   "remove 'delivery' and name a 'stream' that stores the event");
    return Delivery::kBroadcast;  // any of those that need no stream
  }
  r.values.choice(*node, "'delivery'", {"jetstream", "core"});
  return Delivery::kJetStream;
}

void resolve_event(Resolution& r, const std::string& name, const Declaration& declaration) {
  const Node& value = *declaration.value;
  const MapView map(r.report, value, named("event", name), declaration.key->span,
                    {"subject", "stream", "fields", "record", "delivery", "doc"});
  Event event;
  event.name = name;
  event.record = name;
  event.origin = {declaration.file->origin};
  if (const Node* doc = map.find("doc")) event.doc = r.values.text(*doc, "'doc'").value_or("");
  event.delivery = resolve_delivery(r, map);

  const auto has = [&](std::string_view key) { return key_of(value, key) != nullptr; };
  if (has("record") && has("fields")) {
    r.report.error(code::kEventShape, declaration.key->span, named("event", name) + " has both 'fields' and 'record'",
                   "keep one of them");
  } else if (map && !has("record") && !has("fields")) {
    map.require("fields", "write 'fields:', or 'record: Name' to share a record");
    r.broken_records.insert(name);
  } else if (const Node* record = map.find("record")) {
    if (const auto text = r.values.text(*record, "'record'")) {
      event.record = *text;
      const auto known = r.pipeline.records.find(*text);
      if (known == r.pipeline.records.end()) {
        event.record = name;
        r.broken_records.insert(name);
        if (r.pipeline.enums.contains(*text)) {
          r.report.error(code::kEventShape, record->span, in_quotes(*text) + " is an enum, not a record");
        } else {
          r.find(Section::kTypes, *text, record->span);
        }
      } else {
        r.used.emplace(Section::kTypes, *text);
      }
    }
  }
  if (!r.pipeline.records.contains(event.record)) {
    r.broken_records.insert(name);
    r.pipeline.records.emplace(event.record,
                               Record{.name = event.record, .doc = {}, .fields = {}, .origin = event.origin});
  }

  const Node* stream = event.delivery == Delivery::kJetStream
                           ? map.require("stream", "write stream: JOBS, a name under 'streams:'")
                           : map.find("stream");
  if (stream != nullptr) {
    if (r.find(Section::kStreams, *stream) != nullptr) {
      event.stream = stream->text;
      r.pipeline.streams.at(event.stream).events.push_back(name);
    }
  }
  if (const Node* subject = map.require("subject", "write subject: text.processed")) {
    if (const auto parts = parse_subject(r, *subject)) {
      event.subject = subject->text;
      r.subject_spans[name] = subject->span;
      resolve_placeholders(r, *subject, *parts, r.pipeline.records.at(event.record), event);
    }
  }
  r.pipeline.events.emplace(name, std::move(event));
}

}  // namespace

std::vector<std::string> subject_pattern(const std::string& subject) {
  std::string flat;
  int depth = 0;
  for (const char c : subject) {
    if (c == '{' && depth++ == 0) flat += '*';
    if (depth == 0) flat += c;
    if (c == '}') --depth;
  }
  return split(flat, '.');
}

bool subjects_overlap(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && a[i] != "*" && b[i] != "*") return false;
  }
  return true;
}

namespace {

void check_overlaps(Resolution& r) {
  struct Claim {
    const Event* event;
    std::vector<std::string> pattern;
    bool wild;
  };
  std::vector<Claim> wild;
  std::map<std::vector<std::string>, const Event*> exact;
  const auto complain = [&](const Event& later, const Event& earlier) {
    const bool same = later.subject == earlier.subject;
    const std::string streams = later.stream == earlier.stream || later.stream.empty() || earlier.stream.empty()
                                    ? ""
                                    : " (streams " + in_quotes(earlier.stream) + " and " + in_quotes(later.stream) +
                                          " would both store such a message)";
    r.report
        .error(code::kSubjectOverlap, r.subject_spans.at(later.name),
               same ? "two events have the subject " + in_quotes(later.subject) + streams
                    : "the subjects " + in_quotes(later.subject) + " and " + in_quotes(earlier.subject) +
                          " can be the same" + streams,
               "change one of them, so that a subject tells the event")
        .notes.push_back({r.subject_spans.at(earlier.name), "the other one, of " + in_quotes(earlier.name)});
  };
  std::vector<const Event*> events;
  for (const auto& [name, event] : r.pipeline.events) {
    if (!event.subject.empty()) events.push_back(&event);
  }
  for (const Event* event : events) {
    auto pattern = subject_pattern(event->subject);
    if (std::ranges::find(pattern, "*") != pattern.end()) {
      for (const Claim& other : wild) {
        if (subjects_overlap(pattern, other.pattern)) complain(*event, *other.event);
      }
      wild.push_back({event, std::move(pattern), true});
    } else if (const auto [same, is_new] = exact.try_emplace(std::move(pattern), event); !is_new) {
      complain(*event, *same->second);
    }
  }
  for (const Claim& claim : wild) {
    for (const auto& [pattern, event] : exact) {
      if (subjects_overlap(claim.pattern, pattern)) complain(*claim.event, *event);
    }
  }
}

}  // namespace

void resolve_streams(Resolution& r) {
  for (const auto& [name, declaration] : r.declared.table(Section::kStreams)) {
    const MapView map(r.report, *declaration.value, named("stream", name), declaration.key->span,
                      {"retention", "storage", "discard", "max_age", "max_bytes", "max_messages", "duplicate_window",
                       "replicas", "doc"});
    Stream stream;
    stream.name = name;
    stream.origin = {declaration.file->origin};
    if (const Node* node = map.find("retention")) {
      const auto choice = r.values.choice(*node, "'retention'", {"work_queue", "limits", "interest"});
      if (choice)
        stream.retention = *choice == 0   ? Retention::kWorkQueue
                           : *choice == 1 ? Retention::kLimits
                                          : Retention::kInterest;
    }
    stream.storage = storage(r, map);
    if (const Node* node = map.find("discard")) {
      const auto choice = r.values.choice(*node, "'discard'", {"new", "old"});
      stream.discard = choice && *choice == 1 ? Discard::kOld : Discard::kNew;
      if (stream.discard == Discard::kOld && stream.retention == Retention::kWorkQueue) {
        r.report.error(code::kStreamOptions, node->span,
                       "a full work queue that discards old messages loses work nobody has done",
                       "write discard: new, so that publishers wait, or retention: limits");
      }
    }
    stream.max_age = max_age(r, map);
    stream.max_bytes = max_bytes(r, map);
    if (const Node* node = map.find("max_messages")) {
      stream.max_messages = r.values.integer(*node, "'max_messages'", 1, kMost).value_or(0);
    }
    if (const Node* node = map.find("duplicate_window")) {
      const auto window = r.values.duration(*node, "'duplicate_window'", kLeastOfServer);
      stream.duplicate_window = window.value_or(kLeastDuplicateWindow);
      if (window && stream.max_age.count() > 0 && *window > stream.max_age) {
        r.report.error(code::kStreamOptions, node->span, "'duplicate_window' is longer than 'max_age'",
                       "NATS refuses that: shorten it");
      }
    }
    stream.replicas = replicas(r, map);
    if (const Node* doc = map.find("doc")) r.values.text(*doc, "'doc'");
    for (const std::string prefix : {"KV_", "OBJ_"}) {
      if (name.starts_with(prefix)) {
        r.report.error(code::kReserved, declaration.key->span,
                       "streams that begin with " + in_quotes(prefix) + " are those of buckets", "choose another name");
      }
    }
    if (!r.pipeline.constant.empty() && name == r.pipeline.constant + "_DLQ") {
      r.report.error(code::kReserved, declaration.key->span, in_quotes(name) + " is the stream of the dead letters",
                     "choose another name");
    }
    r.pipeline.streams.emplace(name, std::move(stream));
  }
}

/// Every publish that a stage repeats must be told from a new one: a call that dies at its end is called again when
/// ack_wait has passed, or after its longest backoff, and may take its whole timeout again. Twice that, because the
/// second call may end in an outage too.
void set_duplicate_windows(Resolution& r) {
  std::map<std::string, std::chrono::milliseconds> longest;  // by stream
  for (const auto& [name, stage] : r.pipeline.stages) {
    auto time = stage.timeout + stage.ack_wait;
    if (!stage.retry.backoff.empty()) time += *std::ranges::max_element(stage.retry.backoff);
    for (const ProducedEvent& produced : stage.produces) {
      const auto event = r.pipeline.events.find(produced.event);
      if (event == r.pipeline.events.end()) continue;
      auto& most = longest[event->second.stream];
      most = std::max(most, 2 * time);
    }
  }
  for (auto& [name, stream] : r.pipeline.streams) {
    if (stream.duplicate_window.count() == 0) stream.duplicate_window = std::max(kLeastDuplicateWindow, longest[name]);
    if (stream.max_age.count() > 0) stream.duplicate_window = std::min(stream.duplicate_window, stream.max_age);
  }
}

void resolve_buckets(Resolution& r) {
  std::map<std::string, std::string> tags;
  for (const auto& [name, declaration] : r.declared.table(Section::kBuckets)) {
    const MapView map(r.report, *declaration.value, named("bucket", name), declaration.key->span,
                      {"storage", "max_age", "max_bytes", "replicas", "doc"});
    Bucket bucket;
    bucket.name = name;
    bucket.origin = {declaration.file->origin};
    bucket.storage = storage(r, map);
    bucket.max_age = max_age(r, map);
    bucket.max_bytes = max_bytes(r, map);
    bucket.replicas = replicas(r, map);
    if (const Node* doc = map.find("doc")) r.values.text(*doc, "'doc'");
    if (is_resource_name(name)) {
      bucket.cpp_name = cpp_tag_name(name);
      if (is_macro_name(bucket.cpp_name)) {
        r.report.error(code::kReserved, declaration.key->span,
                       in_quotes(name) + " would be called " + in_quotes(bucket.cpp_name) +
                           " in C++, which is a macro of the C library",
                       "choose another name");
      }
      const auto [same, is_new] = tags.try_emplace(lower_case(bucket.cpp_name), name);
      if (!is_new) {
        r.report
            .error(code::kClash, declaration.key->span,
                   "the buckets " + in_quotes(same->second) + " and " + in_quotes(name) + " would both be called " +
                       in_quotes(bucket.cpp_name) + " in C++",
                   "rename one")
            .notes.push_back({r.span_of(Section::kBuckets, same->second), "the other one"});
      }
      for (const Section section : {Section::kTypes, Section::kEvents, Section::kEntities}) {
        for (const auto& [type, other] : r.declared.table(section)) {
          if (lower_case(type) != lower_case(bucket.cpp_name)) continue;
          r.report
              .error(code::kClash, other.key->span,
                     named(section_word(section), type) + " and the tag of bucket " + in_quotes(name) + ", " +
                         in_quotes(bucket.cpp_name) + ", would have the same name in C++",
                     "rename the " + section_word(section))
              .notes.push_back({declaration.key->span, "the bucket"});
        }
      }
    }
    r.pipeline.buckets.emplace(name, std::move(bucket));
  }
}

void resolve_events(Resolution& r) {
  for (const auto& [name, declaration] : r.declared.table(Section::kEvents)) resolve_event(r, name, declaration);
  for (auto& [name, stream] : r.pipeline.streams) std::ranges::sort(stream.events);
  check_overlaps(r);
}

}  // namespace pipegen::gen
