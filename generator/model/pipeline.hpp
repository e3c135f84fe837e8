// The resolved pipeline: plain values that the rest of the generator reads. Every name is bound, every default filled
// in, everything in it is known to be right; diagnostics were given before. Nothing here points back into the source
// text, except for `Origin`, which generated files name in their first line.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace pipegen::gen {

/// The schema file that declares a thing, as seen from the folder of the one that says `pipeline:`, '/' between parts.
struct Origin {
  std::string file;
};

enum class TypeKind {
  kBool,
  kInt32,
  kInt64,
  kFloat64,
  kDecimal,
  kString,
  kBytes,
  kUuid,
  kTimestamp,
  kDate,
  kJson,
  kList,    // element
  kMap,     // element
  kRecord,  // name: of types or events
  kEnum,    // name
  kObject,  // name: of an object bucket
};

struct Type {
  TypeKind kind = TypeKind::kString;
  int precision = 0;  // kDecimal
  int scale = 0;
  std::string name;           // kRecord, kEnum, kObject
  std::vector<Type> element;  // kList, kMap: exactly one
  bool operator==(const Type&) const = default;
};

/// A literal of the schema: defaults, `set:`, `with:`. Numbers keep their text ("0.1" stays "0.1").
struct Literal {
  enum class Kind { kNull, kBool, kNumber, kText, kList };
  Kind kind = Kind::kNull;
  std::string text;            // kBool: "true" or "false"
  std::vector<Literal> items;  // kList
};

enum class FreshKind { kNone, kUuid, kNow };

struct Field {
  std::string name;       // as the schema writes it: "page_number"
  std::string json_name;  // on the wire: "pageNumber"
  std::string cpp_name;   // "page_number"; "class_" for "class"
  std::string doc;
  Type type;
  bool optional = false;
  std::optional<Literal> default_value;
  std::optional<std::string> min, max;  // the numbers' text
  std::optional<std::int64_t> min_length, max_length;
  std::optional<std::string> pattern;
  FreshKind fresh = FreshKind::kNone;
  bool sensitive = false;
};

struct Record {
  std::string name;  // "EventHeader"
  std::string doc;
  std::vector<Field> fields;  // by name
  Origin origin;

  const Field* find(const std::string& field_name) const {
    for (const Field& field : fields)
      if (field.name == field_name) return &field;
    return nullptr;
  }
};

struct Enum {
  std::string name;
  std::string doc;
  std::vector<std::string> values;     // on the wire
  std::vector<std::string> cpp_names;  // "kTop"
  Origin origin;
};

enum class Retention { kLimits, kInterest, kWorkQueue };
enum class Storage { kFile, kMemory };
enum class Discard { kNew, kOld };

struct Stream {
  std::string name;     // "TTS_JOBS"
  std::string setting;  // key in [nats]: "tts_stream_name"
  Retention retention = Retention::kWorkQueue;
  Storage storage = Storage::kFile;
  Discard discard = Discard::kNew;
  std::chrono::milliseconds max_age{0};
  std::int64_t max_bytes = 0;
  std::int64_t max_messages = 0;
  std::chrono::milliseconds duplicate_window{0};
  int replicas = 1;
  std::vector<std::string> events;  // whose subjects it holds, sorted
  Origin origin;
};

/// An object bucket, or a key-value bucket that a `collect` names as its state.
struct Bucket {
  std::string name;      // "TEXT_FILES"
  std::string setting;   // key in [nats]: "text_object_store_bucket", "wav_aggregator_state_key_value_bucket"
  std::string cpp_name;  // the tag: "TextFiles"
  Storage storage = Storage::kFile;
  std::chrono::milliseconds max_age{0};
  std::int64_t max_bytes = 0;
  int replicas = 1;
  Origin origin;
};

enum class Delivery { kJetStream, kQueue, kBroadcast, kRequestReply };

/// Where a field path leads: "header.workflow_id" is {header, workflow_id}; `optional` if any step is.
struct FieldPath {
  std::vector<std::string> names;  // as the schema writes them
  Type type;                       // of the last
  bool optional = false;
  bool sensitive = false;  // if any step is
};

/// A part of a subject that differs: "{header.tenant}".
struct Placeholder {
  std::string text;               // "header.tenant"
  std::optional<FieldPath> path;  // of the record; nothing: a parameter of publishing
};

/// What a publisher says along with an event: a part of its subject that is no field of it.
struct Parameter {
  std::string name;
  std::string cpp_name;
};

struct Event {
  std::string name;  // "TextProcessedEvent"
  std::string doc;
  std::string record;                     // the name of its record: its own name, or that of `record:`
  std::string subject;                    // "text.processed", may hold {field} or {field.path}
  std::string setting;                    // key in [nats]: "text_processed_subject"
  std::vector<Placeholder> placeholders;  // in order of the subject
  std::vector<Parameter> parameters;      // those of them that are no field of the record, each once
  Delivery delivery = Delivery::kJetStream;
  std::string stream;  // empty unless kJetStream
  Origin origin;
};

/// A value of `set:`, `keys:` or `with:`.
struct Expression {
  struct Part {  // of an interpolation
    enum class Kind { kText, kConsumed, kProduced } kind = Kind::kText;
    std::string text;
    FieldPath path;
  };
  enum class Kind { kLiteral, kConsumed, kInterpolation } kind = Kind::kLiteral;
  Literal literal;
  FieldPath path;           // kConsumed: of the consumed event
  std::vector<Part> parts;  // kInterpolation
};

/// Where one field of a produced event gets its value.
struct FieldSource {
  std::string field;  // of the produced event's record
  enum class Kind {
    kAbsent,  // optional, and nothing gives it
    kCopied,  // the field of the same name and type in the consumed event
    kSet,     // `set:` (expression)
    kKey,     // an object key that the stage writes: `keys:` or the default (expression; empty parts = output_key)
    kAction,  // an output of the action: `output` names it ("page", "pages", "blank")
  } kind = Kind::kAbsent;
  Expression expression;
  std::string output;
};

struct ProducedEvent {
  std::string event;
  enum class Count { kOne, kOptional, kMany } count = Count::kOne;
  std::vector<FieldSource> sources;     // in order of the record's fields; empty for `custom`
  std::vector<FieldSource> parameters;  // the values of the event's parameters, in their order; empty for `custom`
};

/// A parameter of `with:`, resolved against the action's catalogue entry (model/action.hpp).
struct ActionArgument {
  std::string parameter;  // "text", "dpi", "voice"
  Expression value;       // kConsumed or kLiteral (or kInterpolation for text)
  std::string field;      // for output ports: the produced event's object field that the action fills
  std::map<std::string, Expression> values{};  // for a map of values, in place of `value`
};

struct Retry {
  int max_deliver = 5;
  std::vector<std::chrono::milliseconds> backoff;
};

struct CollectSpec {
  FieldPath by, index, count;  // of the consumed event
  std::string state;           // key-value bucket
  std::chrono::milliseconds expires{0};
};

struct Stage {
  std::string name;      // "pdf-to-png"
  std::string cpp_name;  // namespace: "pdf_to_png"
  std::string section;   // settings: "pdf_to_png_service"
  std::string doc;
  std::string consumes;
  std::vector<ProducedEvent> produces;
  std::string action;  // "custom", "speak", …
  std::vector<ActionArgument> arguments;
  std::string durable;          // "tts-workers"
  std::string durable_setting;  // key in [nats]: "tts_consumer_name"
  int concurrency = 1;
  std::chrono::milliseconds timeout{0};
  std::chrono::milliseconds ack_wait{0};
  Retry retry;
  std::set<std::string> build_packages, run_packages;  // of Debian, that its image needs besides pipegen's own
  std::optional<CollectSpec> collect;
  Origin origin;
};

struct UploadSpec {
  std::string name;  // "documents"
  std::string path;  // "/documents"
  std::string bucket;
  std::string produces;  // event
  std::string key;       // its object field
  std::vector<std::string> media_types;
  std::int64_t max_size = 0;
  struct Result {
    std::string event, object, as, media_type;
  };
  std::optional<Result> result;
};

enum class OnConflict { kUpdate, kIgnore, kReject };

/// A step of a path into a message: "line_items[0]".
struct PathStep {
  std::string name;                  // as the schema writes it
  std::optional<std::size_t> index;  // of an item of a list; there may be none
  bool optional = false;
};

/// Where a column gets its value.
struct ColumnSource {
  enum class Kind {
    kField,      // the field of the record that the entity's message (or item) is
    kPath,       // `from:` a path into it
    kParent,     // `parent:` a path into the record of the entity that it is a part of; also a copied key
    kConstant,   // `constant:`
    kTransform,  // `transform:` a function of the user's
    kPosition,   // the place of an item in its list (int32, from 1): for a child without a key of its own, and copies
  } kind = Kind::kField;
  std::vector<PathStep> path;  // kField, kPath, kParent
  // kParent: 1 is the parent, 2 the parent's parent. kPosition: 0 is the place of this item, 1 that of its parent, …
  int levels = 1;
  Literal constant;      // kConstant
  std::string function;  // kTransform: "tax_label"
};

struct Column {
  std::string field;  // of the entity: "order_key"
  std::string name;   // in the table
  std::string doc;
  Type type;
  bool optional = false;                   // NULL is allowed; also when `from:` may lead nowhere
  std::optional<std::int64_t> max_length;  // kString
  std::optional<Literal> default_value;    // what rows get that were there before the column
  bool index = false;
  bool unique = false;
  std::string references;  // entity, whose key is one column
  int since = 1;
  ColumnSource source;
};

/// A record with a table. Rows of an entity with `parent` are made of an item of a list in the parent's message, and
/// are replaced as a set with the parent's row.
struct Entity {
  std::string name;      // "Order"
  std::string cpp_name;  // "order"
  std::string doc;
  std::string record;            // what its message, or an item, is: in Pipeline::records, without derived fields
  std::string table;             // "orders"
  std::vector<Column> columns;   // the key first (the parent's, then its own), then the others by name
  std::vector<std::size_t> key;  // columns
  OnConflict on_conflict = OnConflict::kUpdate;
  std::string parent;                   // entity; empty for one that messages are made of
  std::string list;                     // the field of the parent's record that holds the items
  std::vector<std::size_t> parent_key;  // columns, in the order of the parent's key
  int since = 1;
  std::string subject;          // "tpch.ingest.order"; empty with a parent
  std::string setting;          // key in [nats]: "order_ingest_subject"
  std::string durable;          // "order-writers"
  std::string durable_setting;  // key in [nats]: "order_ingest_consumer_name"
  Origin origin;
};

/// What writes entities to the database: of a `persist` stage, or made for all of them or one.
struct EntityWorker {
  std::string name;      // "entity-worker", "order-worker", the stage's name
  std::string cpp_name;  // "entity_worker"
  std::string section;   // of the settings: "entity_worker_service"
  std::string doc;
  std::vector<std::string> entities;  // those that messages are made of, sorted
  Origin origin;
};

struct Ingest {
  int port = 8080;
  std::vector<std::string> entities;  // sorted
  std::vector<UploadSpec> uploads;    // sorted by name
  std::vector<std::string> events;    // sorted
  Origin origin;
};

/// Every container is sorted by name, fields too, so that the order of keys in the schema changes nothing.
struct Pipeline {
  std::string name;                       // "pdf-to-audio"
  std::string cpp_name;                   // "pdf_to_audio"
  std::string constant;                   // "PDF_TO_AUDIO"
  std::vector<std::string> workflow_id;   // path, {"header", "workflow_id"}; empty when there is none
  std::string root_file;                  // the schema that generation started from, as in `origin`
  Origin origin;                          // of `pipeline:`
  std::map<std::string, Record> records;  // of `types:`, and one for each event with `fields:`
  std::map<std::string, Enum> enums;
  std::map<std::string, Stream> streams;
  std::map<std::string, Bucket> buckets;     // object buckets
  std::map<std::string, Bucket> key_values;  // named by `collect.state`
  std::map<std::string, Event> events;
  std::map<std::string, Stage> stages;
  std::vector<std::string> root_stages;  // names of the stages that the root file itself declares
  std::optional<Ingest> ingest;
  std::vector<Entity> entities;              // those that others refer to, or are parts of, first; then by name
  std::string entity_stream;                 // "TPCH_INGEST"; empty without entities
  std::vector<EntityWorker> entity_workers;  // of the `persist` stages, sorted by name
};

/// What pipegen adds to a pipeline has as many: the pipeline needs it as much as what the schema declares.
inline int most_replicas(const Pipeline& pipeline) {
  int most = 1;
  for (const auto& [name, stream] : pipeline.streams) most = std::max(most, stream.replicas);
  for (const auto& [name, bucket] : pipeline.buckets) most = std::max(most, bucket.replicas);
  return most;
}

}  // namespace pipegen::gen
