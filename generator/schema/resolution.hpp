// Declarations to model. One function for each part of the language, called in this order by load_pipeline; each reads
// what those before it have put into `pipeline`.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/action.hpp"
#include "model/pipeline.hpp"
#include "schema/declarations.hpp"
#include "schema/values.hpp"

namespace pipegen::gen {

/// A field of an entity: of its message, or made from it.
struct EntityField {
  const Node* key = nullptr;    // in the schema
  const Node* value = nullptr;  // a type, or a map
  Field field;
  bool good = true;  // its type could be read
  ColumnSource::Kind source = ColumnSource::Kind::kField;
  const Node* from = nullptr;  // what the source says: of `from:`, `parent:`, `constant:`, `transform:`

  /// Nothing of it is in the message.
  bool is_derived() const { return source != ColumnSource::Kind::kField; }
};

/// An entity as the schema writes it, its fields read.
struct EntityText {
  const Declaration* declaration = nullptr;
  const Node* repeated_for = nullptr;  // of a derived entity, which has no record of its own
  std::vector<EntityField> fields;     // by name
};

struct Resolution {
  Resolution(const Declarations& all, Report& into) : declared(all), report(into), values(into) {}

  const Declarations& declared;
  Report& report;
  Values values;
  Pipeline pipeline;
  bool camel_case = false;

  /// Fields whose type could not be read: nothing more is said about them. "Record.field".
  std::set<std::string> broken_fields;
  /// Records and events of which parts could not be read: what is missing in them is not reported again.
  std::set<std::string> broken_records;
  std::map<std::pair<std::string, std::string>, Span> field_spans;  // record, field
  std::set<std::pair<Section, std::string>> used;
  std::map<std::string, Span> subject_spans;  // of events
  std::map<std::string, Span> durable_spans;  // of stages
  std::map<std::string, EntityText> entity_texts;
  std::set<std::string> broken_entities;  // with keys that are not known: what is missing may be meant by them
  std::map<std::string, std::pair<std::string, Span>> entity_writers;  // entity -> its `persist` stage, and where

  /// The declaration that a value names, which counts as used then. Unknown names are reported (unless they may stand
  /// in a file that could not be read) and give nullptr.
  const Declaration* find(Section section, const Node& name);
  const Declaration* find(Section section, const std::string& name, const Span& span);

  const Record* record_of(const std::string& event) const;
  const Span& span_of(Section section, const std::string& name) const;
};

/// Names the part of the schema that a message speaks of: "stage 'tts'".
std::string named(std::string_view word, std::string_view name);

// types.cpp
void resolve_header(Resolution& r);
void resolve_types(Resolution& r);
/// Reads `fields:` of a record or event.
void resolve_fields(Resolution& r, const Node& fields, Record& record);
/// One field of it; `more_keys` are those that only entities have. False when its type cannot be read.
bool resolve_field(Resolution& r, const Node& key, const Node& value, const Record& record, Field& field,
                   const std::vector<std::string>& more_keys = {});
/// Checks the names of the fields against each other, and sorts them.
void finish_record(Resolution& r, Record& record);
/// "list<string>": for messages.
std::string spelled(const Type& type, bool optional = false);
/// A written value as one of a type; nothing, and `why`, when it does not fit.
std::optional<Literal> literal_as(const Resolution& r, const Node& node, const Type& type, std::string& why);
/// The constraints of the field ("min", "pattern" …) that a value of its type does not keep.
std::vector<std::string> broken_rules(const Field& field, const Literal& literal);

// topology.cpp
void resolve_streams(Resolution& r);
/// Of streams that do not say theirs: by the stages that publish to them.
void set_duplicate_windows(Resolution& r);
void resolve_buckets(Resolution& r);
void resolve_events(Resolution& r);
/// "orders.{region}.created" as its tokens, placeholders as "*".
std::vector<std::string> subject_pattern(const std::string& subject);
/// Whether one subject can be of both patterns.
bool subjects_overlap(const std::vector<std::string>& a, const std::vector<std::string>& b);

// expressions.cpp
struct TemplatePart {
  bool is_placeholder = false;
  std::string text;
  std::size_t offset = 0;  // of a placeholder's name, in the template
};
/// Splits "{a.b}/{c}.pcm"; braces are doubled to mean themselves. Reports braces that do not fit together.
std::optional<std::vector<TemplatePart>> split_template(Resolution& r, const Node& node);

struct PathResult {
  std::optional<FieldPath> path;
  bool quiet = false;   // cannot be resolved, and that has been reported
  std::string problem;  // otherwise why there is no path
  std::string hint;
  const Field* field = nullptr;  // the last
};
PathResult find_path(const Resolution& r, const Record& record, const std::string& path);
/// Reports a path whose value would show itself where it is used; true when it did.
bool refuse_sensitive(Resolution& r, const FieldPath& path, const Span& span, const std::string& where);
/// A field path written as a value; reports what is wrong.
std::optional<FieldPath> path_value(Resolution& r, const Node& node, const Record& record, const std::string& what);

/// Where "line_items[0].tax" leads from a record.
struct Steps {
  std::vector<PathStep> path;
  Type type;
  bool optional = false;
  const Field* field = nullptr;  // the last
  bool quiet = false;            // cannot be found, and why has been reported
  std::string problem, hint;     // why there is none

  explicit operator bool() const { return field != nullptr && !quiet && problem.empty(); }
};
Steps find_steps(const Resolution& r, const Record& record, const std::string& text);

/// Whether a value of one type can be given where the other is wanted. Optional values are for optional places.
bool fits(const Type& from, const Type& to);

/// A value of `set:` or `with:`: literal, field path of the consumed event, or interpolation.
std::optional<Expression> value_of(Resolution& r, const Node& node, const Type& type, bool optional,
                                   const Record& consumed, const std::string& what);
/// The same for a value of any type that has a text: it may be optional, and a literal is of the type it looks like.
std::optional<Expression> named_value(Resolution& r, const Node& node, const Record& consumed, const std::string& what);
/// A template of `keys:`. `unavailable`: fields of the produced event that it cannot hold, and what they are.
std::optional<Expression> key_template(Resolution& r, const Node& node, const Record& produced, const Record& consumed,
                                       const std::map<std::string, std::string>& unavailable, const std::string& what);

// entities.cpp
/// The records of entities; part of resolve_types.
void read_entities(Resolution& r);
/// Their tables, the subjects of their messages and the stream that holds them.
void resolve_entities(Resolution& r);
/// Puts Pipeline::entities there, without what is about messages; tables.cpp.
void make_tables(Resolution& r);
/// A stage with `uses: persist`.
void resolve_persist(Resolution& r, const std::string& name, const Declaration& declaration);
/// Whether a value names an entity that messages are made of; reports when it does not.
bool names_root_entity(Resolution& r, const Node& item);

// stages.cpp, sources.cpp
void resolve_stages(Resolution& r);
struct StageText {
  const Node* with = nullptr;
  const Node* keys = nullptr;
  const Node* set = nullptr;
  Span where;
};
/// Binds `with:` and finds a source for every field of the produced event of a built-in action, if it produces one.
void resolve_sources(Resolution& r, const Action& action, const StageText& text, Stage& stage);

// ingest.cpp
void resolve_ingest(Resolution& r);

// wiring.cpp
void assign_settings(Resolution& r);
void check_wiring(Resolution& r);

}  // namespace pipegen::gen
