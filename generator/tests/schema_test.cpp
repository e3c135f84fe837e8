// The language, tested through its one door: texts in, pipeline and diagnostics out. Diagnostics as a user sees them
// are in generated-tests/diagnostics.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "model/action.hpp"
#include "schema/load.hpp"

namespace pipegen::gen {
namespace {

using Files = std::map<std::string, std::string>;

class MapReader : public FileReader {
 public:
  explicit MapReader(Files files) : files_(std::move(files)) {}
  std::optional<std::string> read(const std::filesystem::path& path, std::string& why) override {
    const auto found = files_.find(path.generic_string());
    if (found != files_.end()) return found->second;
    why = "there is no such file";
    return std::nullopt;
  }

 private:
  Files files_;
};

Loaded load(Files files, const std::string& root = "pipeline.yaml") {
  MapReader reader(std::move(files));
  return load_pipeline(reader, root);
}

Loaded load_text(const std::string& text) { return load({{"pipeline.yaml", text}}); }

std::string said(const Loaded& loaded) { return format_text(loaded.diagnostics, loaded.texts); }

bool has_code(const Loaded& loaded, const std::string& code) {
  return std::ranges::any_of(loaded.diagnostics, [&](const Diagnostic& each) { return each.code == code; });
}

const char kEvents[] = R"(pipegen: v1
types:
  EventHeader:
    fields:
      event_id: {type: uuid, fresh: uuid}
      workflow_id: string
  Place: {enum: [top, very-bottom]}
streams:
  TTS_JOBS: {max_age: 1h, max_bytes: 1GiB}
  AUDIO_PROCESSING: {retention: limits, discard: old}
  FINAL: {retention: limits}
buckets: {TEXT_FILES: {max_age: 7d}, AUDIO_FILES: {}}
events:
  TextProcessedEvent:
    subject: text.processed
    stream: TTS_JOBS
    fields:
      header: EventHeader
      text_key: object<TEXT_FILES>
      page_number: {type: int32, min: 1}
      total_pages: int32
      voice: string?
      place: {type: Place?, default: very-bottom}
      class: list<decimal(15,2)>?
  AudioChunkCreatedEvent:
    subject: "audio.{header.workflow_id}.created"
    stream: AUDIO_PROCESSING
    fields:
      header: EventHeader
      audio_key: object<AUDIO_FILES>
      page_number: int32
      total_pages: int32
      label: string
      note: string?
      retries: {type: int32, default: 3}
      number: int64
  FinalEvent: {subject: final, stream: FINAL, fields: {header: EventHeader, final_key: object<AUDIO_FILES>}}
)";

const char kPipeline[] = R"(pipegen: v1
pipeline: pdf-to-audio
workflow_id: header.workflow_id
json_names: camelCase
import: [stages/tts.yaml, stages/join.yaml]
ingest: {events: [TextProcessedEvent]}
)";

const char kTts[] = R"(pipegen: v1
import: [../pipeline.yaml, ../events.yaml]
stages:
  time:
    doc: Speaks.
    consumes: TextProcessedEvent
    produces: AudioChunkCreatedEvent
    uses: speak
    with: {text: text_key, audio: audio_key, voice: voice, seed: page_number, program: [say, "{text}"]}
    set: {label: "page {page_number} of {{all}}", number: page_number}
    keys: {audio_key: "{header.workflow_id}/{number}.pcm"}
    consumer: tts-workers
    concurrency: 2
    timeout: 90s
    retry: {max_deliver: 7, backoff: [250ms, 5m]}
)";

const char kJoin[] = R"(pipegen: v1
import: ../events.yaml
stages:
  join:
    consumes: AudioChunkCreatedEvent
    produces: FinalEvent
    uses: wav_concat
    with: {wav: audio_key, output: final_key}
    collect: {by: header.workflow_id, index: page_number, count: total_pages, state: JOIN_STATE, expires: 2h}
)";

Files example() {
  return {
      {"pipeline.yaml", kPipeline}, {"events.yaml", kEvents}, {"stages/tts.yaml", kTts}, {"stages/join.yaml", kJoin}};
}

Pipeline clean(const Loaded& loaded) {
  for (const Diagnostic& each : loaded.diagnostics) EXPECT_EQ(each.severity, Severity::kWarning) << each.message;
  EXPECT_TRUE(loaded.pipeline.has_value());
  return loaded.pipeline.value_or(Pipeline{});
}

TEST(Schema, NamesAreBoundOverAllFilesFromWhicheverOneIsGiven) {
  for (const char* root : {"pipeline.yaml", "stages/tts.yaml"}) {
    const Pipeline pipeline = clean(load(example(), root));
    EXPECT_EQ(pipeline.name, "pdf-to-audio");
    EXPECT_EQ(pipeline.cpp_name, "pdf_to_audio");
    EXPECT_EQ(pipeline.constant, "PDF_TO_AUDIO");
    EXPECT_EQ(pipeline.workflow_id, (std::vector<std::string>{"header", "workflow_id"}));
    EXPECT_EQ(pipeline.events.size(), 3u);
    EXPECT_EQ(pipeline.stages.size(), 2u);
    EXPECT_EQ(pipeline.records.size(), 4u);
  }
}

TEST(Schema, StagesOfTheRootFileAreKnown) {
  EXPECT_EQ(clean(load(example())).root_stages, std::vector<std::string>{});
  const Pipeline from_stage = clean(load(example(), "stages/tts.yaml"));
  EXPECT_EQ(from_stage.root_stages, std::vector<std::string>{"time"});
  EXPECT_EQ(from_stage.root_file, "stages/tts.yaml");
  EXPECT_EQ(from_stage.stages.at("time").origin.file, "stages/tts.yaml") << "as seen from the pipeline's file";
  EXPECT_EQ(from_stage.events.at("FinalEvent").origin.file, "events.yaml");
}

TEST(Schema, FieldsKnowTheirNamesTypesAndConstraints) {
  const Pipeline pipeline = clean(load(example()));
  const Record& text = pipeline.records.at("TextProcessedEvent");
  const Field& page = *text.find("page_number");
  EXPECT_EQ(page.json_name, "pageNumber");
  EXPECT_EQ(page.cpp_name, "page_number");
  EXPECT_EQ(page.min, "1");
  const Field& clash = *text.find("class");
  EXPECT_EQ(clash.cpp_name, "class_");
  EXPECT_TRUE(clash.optional);
  ASSERT_EQ(clash.type.kind, TypeKind::kList);
  EXPECT_EQ(clash.type.element.at(0).precision, 15);
  EXPECT_EQ(clash.type.element.at(0).scale, 2);
  EXPECT_EQ(text.find("text_key")->type.name, "TEXT_FILES");
  EXPECT_EQ(text.find("place")->default_value->text, "very-bottom");
  EXPECT_EQ(pipeline.enums.at("Place").cpp_names, (std::vector<std::string>{"kTop", "kVeryBottom"}));
  EXPECT_EQ(pipeline.records.at("EventHeader").find("event_id")->fresh, FreshKind::kUuid);
}

const char kEntities[] = R"yaml(pipegen: v1
pipeline: tpch
types:
  Address: {fields: {city: {type: string?, max_length: 40}}}
  CustomerInfo: {fields: {name: string, address: Address?}}
  OrderStatus: {enum: [open, done]}
  Discount: {fields: {code: string}}
entities:
  Order:
    doc: What a customer wants.
    table: orders
    key: [region, order_key]
    on_conflict: ignore
    fields:
      order_key: {type: string, max_length: 32}
      region: {type: int32, column: Region}
      customer_key: {type: string, references: Customer}
      total_price: decimal(15,2)
      status: {type: OrderStatus, default: open, since: 2, index: true}
      customer: CustomerInfo
      header: {type: CustomerInfo, stored: false}
      line_items: list<LineItem>
      city: {type: string?, from: customer.address.city}
      first_tax: {type: "decimal(5,2)?", from: "line_items[0].tax"}
      source: {type: string, constant: web}
      label: {type: string?, transform: order_label}
  LineItem:
    key: [line_number]
    fields:
      line_number: int32
      tax: decimal(5,2)
      discounts: list<Discount>
      notes: list<Note>?
      price: {type: "decimal(15,2)", parent: total_price}
      channel: {type: string, parent: source}
  Note: {fields: {text: string, words: list<Word>, owner: {type: string, parent: customer_key}}}
  Word: {fields: {text: string}}
  Customer:
    key: [customer_key]
    on_conflict: reject
    fields: {customer_key: string, friend: {type: string?, references: Customer, unique: true}}
  TaxEntry:
    since: 3
    repeated_for: {entity: Order, field: line_items}
    key: [order_ref, line_number]
    fields:
      order_ref: {type: string, parent: order_key}
      line_number: int32
      amount: {type: "decimal(5,2)", from: tax}
ingest: {entities: [Order, Customer]}
stages:
  orders-to-db: {doc: Writes orders., uses: persist, with: {entities: [Order]}}
)yaml";

const Entity& entity(const Pipeline& pipeline, const std::string& name) {
  const auto found = std::ranges::find(pipeline.entities, name, &Entity::name);
  if (found == pipeline.entities.end()) throw std::runtime_error("no entity " + name);
  return *found;
}

std::string spelled_path(const std::vector<PathStep>& path) {
  std::string out;
  for (const PathStep& step : path) {
    out += (out.empty() ? "" : ".") + step.name + (step.optional ? "?" : "");
    if (step.index) out += "[" + std::to_string(*step.index) + "]";
  }
  return out;
}

/// "name = source", in the order of the table; "* " before those of the key, "^ " before those of the parent's.
std::vector<std::string> columns(const Entity& entity) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < entity.columns.size(); ++i) {
    const Column& column = entity.columns[i];
    const ColumnSource& source = column.source;
    std::string line;
    if (std::ranges::find(entity.parent_key, i) != entity.parent_key.end()) line += "^ ";
    if (std::ranges::find(entity.key, i) != entity.key.end()) line += "* ";
    line += column.name + (column.optional ? "? = " : " = ");
    switch (source.kind) {
      case ColumnSource::Kind::kField:
        line += "field " + spelled_path(source.path);
        break;
      case ColumnSource::Kind::kPath:
        line += "path " + spelled_path(source.path);
        break;
      case ColumnSource::Kind::kParent:
        line += "parent " + std::to_string(source.levels) + " " + spelled_path(source.path);
        break;
      case ColumnSource::Kind::kConstant:
        line += "constant " + source.constant.text;
        break;
      case ColumnSource::Kind::kTransform:
        line += "transform " + source.function;
        break;
      case ColumnSource::Kind::kPosition:
        line += "position " + std::to_string(source.levels);
        break;
    }
    out.push_back(line);
  }
  return out;
}

TEST(Entities, BecomeTablesWithTheKeyFirstAndEveryColumnKnowsItsSource) {
  const Pipeline pipeline = clean(load_text(kEntities));
  const Entity& order = entity(pipeline, "Order");
  EXPECT_EQ(order.table, "orders");
  EXPECT_EQ(order.cpp_name, "order");
  EXPECT_EQ(order.record, "Order");
  EXPECT_EQ(order.on_conflict, OnConflict::kIgnore);
  EXPECT_EQ(columns(order),
            (std::vector<std::string>{"* Region = field region", "* order_key = field order_key",
                                      "city? = path customer.address?.city?", "customer = field customer",
                                      "customer_key = field customer_key", "first_tax? = path line_items[0].tax",
                                      "label? = transform order_label", "source = constant web",
                                      "status = field status", "total_price = field total_price"}));
  const Column& status = order.columns[8];
  EXPECT_EQ(status.since, 2);
  EXPECT_TRUE(status.index);
  EXPECT_EQ(status.default_value->text, "open");
  EXPECT_EQ(order.columns[1].max_length, 32);
  EXPECT_EQ(order.columns[2].max_length, 40) << "that of the field it is taken from";
  EXPECT_EQ(order.columns[4].references, "Customer");
}

TEST(Entities, HaveARecordOfWhatIsInTheMessage) {
  const Pipeline pipeline = clean(load_text(kEntities));
  std::vector<std::string> names;
  for (const Field& field : pipeline.records.at("Order").fields) names.push_back(field.name);
  EXPECT_EQ(names, (std::vector<std::string>{"customer", "customer_key", "header", "line_items", "order_key", "region",
                                             "status", "total_price"}));
  EXPECT_FALSE(pipeline.records.contains("TaxEntry"));
  EXPECT_EQ(entity(pipeline, "TaxEntry").record, "LineItem");
}

TEST(Entities, ChildrenHaveTheKeysOfAllTheirParentsFirst) {
  const Pipeline pipeline = clean(load_text(kEntities));
  const Entity& item = entity(pipeline, "LineItem");
  EXPECT_EQ(item.parent, "Order");
  EXPECT_EQ(item.list, "line_items");
  EXPECT_EQ(item.table, "line_item");
  EXPECT_EQ(item.subject, "");
  EXPECT_EQ(columns(item), (std::vector<std::string>{
                               "^ * Region = parent 1 region", "^ * order_key = parent 1 order_key",
                               "* line_number = field line_number", "channel = constant web",
                               "discounts = field discounts", "price = parent 1 total_price", "tax = field tax"}));
  EXPECT_EQ(columns(entity(pipeline, "Note")),
            (std::vector<std::string>{"^ * Region = parent 2 region", "^ * order_key = parent 2 order_key",
                                      "^ * line_number = parent 1 line_number", "* position = position 0",
                                      "owner = parent 2 customer_key", "text = field text"}));
  EXPECT_EQ(columns(entity(pipeline, "Word")),
            (std::vector<std::string>{"^ * Region = parent 3 region", "^ * order_key = parent 3 order_key",
                                      "^ * line_number = parent 2 line_number", "^ * note_position = position 1",
                                      "* position = position 0", "text = field text"}));
}

TEST(Entities, MadeOfTheItemsOfAListMayCallTheParentsKeyAsTheyLike) {
  const Pipeline pipeline = clean(load_text(kEntities));
  const Entity& tax = entity(pipeline, "TaxEntry");
  EXPECT_EQ(tax.parent, "Order");
  EXPECT_EQ(tax.list, "line_items");
  EXPECT_EQ(tax.since, 3);
  EXPECT_EQ(columns(tax),
            (std::vector<std::string>{"^ * Region = parent 1 region", "^ * order_ref = parent 1 order_key",
                                      "* line_number = field line_number", "amount = path tax"}));
  EXPECT_EQ(tax.columns[0].since, 3);
}

TEST(Entities, StandAfterTheirParentsAndThoseTheyReferTo) {
  const Pipeline pipeline = clean(load_text(kEntities));
  std::vector<std::string> names;
  for (const Entity& each : pipeline.entities) names.push_back(each.name);
  EXPECT_EQ(names, (std::vector<std::string>{"Customer", "Order", "LineItem", "Note", "TaxEntry", "Word"}));
}

TEST(Entities, HaveSubjectsConsumersAndOneWorkQueue) {
  const Pipeline pipeline = clean(load_text(kEntities));
  const Entity& order = entity(pipeline, "Order");
  EXPECT_EQ(order.subject, "tpch.ingest.order");
  EXPECT_EQ(order.setting, "order_ingest_subject");
  EXPECT_EQ(order.durable, "order-writers");
  EXPECT_EQ(order.durable_setting, "order_ingest_consumer_name");
  EXPECT_EQ(pipeline.entity_stream, "TPCH_INGEST");
  const Stream& stream = pipeline.streams.at("TPCH_INGEST");
  EXPECT_EQ(stream.name, "TPCH_INGEST");
  EXPECT_EQ(stream.setting, "tpch_ingest_stream_name");
  EXPECT_EQ(stream.retention, Retention::kWorkQueue);
  EXPECT_EQ(stream.discard, Discard::kNew);
  EXPECT_EQ(stream.max_age, std::chrono::hours(24));
  EXPECT_EQ(stream.max_bytes, std::int64_t{1} << 30);
  EXPECT_EQ(stream.duplicate_window, std::chrono::minutes(2));
  EXPECT_EQ(pipeline.ingest->entities, (std::vector<std::string>{"Customer", "Order"}));

  const Pipeline declared =
      clean(load_text(std::string(kEntities) + "streams: {TPCH_INGEST: {max_age: 7d, replicas: 3}}\n"));
  EXPECT_EQ(declared.streams.at("TPCH_INGEST").max_age, std::chrono::hours(24 * 7));
  EXPECT_EQ(declared.streams.at("TPCH_INGEST").max_bytes, std::int64_t{1} << 30);
  EXPECT_EQ(declared.streams.at("TPCH_INGEST").replicas, 3);
  const Pipeline beside = clean(load_text(std::string(kEntities) + "buckets: {FILES: {replicas: 3}}\n"));
  EXPECT_EQ(beside.streams.at("TPCH_INGEST").replicas, 3);
}

TEST(Entities, ArePersistedByTheStageThatSaysSo) {
  const Pipeline pipeline = clean(load_text(kEntities));
  ASSERT_EQ(pipeline.entity_workers.size(), 1u);
  const EntityWorker& worker = pipeline.entity_workers[0];
  EXPECT_EQ(worker.name, "orders-to-db");
  EXPECT_EQ(worker.cpp_name, "orders_to_db");
  EXPECT_EQ(worker.section, "orders_to_db_service");
  EXPECT_EQ(worker.doc, "Writes orders.");
  EXPECT_EQ(worker.entities, std::vector<std::string>{"Order"});
  EXPECT_TRUE(pipeline.stages.empty());
  EXPECT_EQ(pipeline.root_stages, std::vector<std::string>{"orders-to-db"});
}

TEST(Entities, ThatAreNotThereLeaveNothing) {
  const Pipeline pipeline = clean(load(example()));
  EXPECT_TRUE(pipeline.entities.empty());
  EXPECT_EQ(pipeline.entity_stream, "");
  EXPECT_EQ(pipeline.streams.size(), 3u);
}

TEST(Schema, SettingsHaveShortNamesAndFullOnesWhereTwoWouldBeTheSame) {
  Pipeline pipeline = clean(load(example()));
  EXPECT_EQ(pipeline.streams.at("TTS_JOBS").setting, "tts_stream_name");
  EXPECT_EQ(pipeline.events.at("TextProcessedEvent").setting, "text_processed_subject");
  EXPECT_EQ(pipeline.events.at("AudioChunkCreatedEvent").setting, "audio_created_subject");
  EXPECT_EQ(pipeline.buckets.at("TEXT_FILES").setting, "text_object_store_bucket");
  EXPECT_EQ(pipeline.buckets.at("TEXT_FILES").cpp_name, "TextFiles");
  EXPECT_EQ(pipeline.key_values.at("JOIN_STATE").setting, "join_state_key_value_bucket");
  EXPECT_EQ(pipeline.stages.at("time").durable_setting, "tts_consumer_name");

  pipeline = clean(load_text(
      "pipegen: v1\npipeline: p\nstreams: {PDF_JOBS: {}, PDF_QUEUE: {}}\nbuckets: {A_FILES: {}, A_OBJECTS: {}}\n"));
  EXPECT_EQ(pipeline.streams.at("PDF_JOBS").setting, "pdf_jobs_stream_name");
  EXPECT_EQ(pipeline.streams.at("PDF_QUEUE").setting, "pdf_queue_stream_name");
  EXPECT_EQ(pipeline.buckets.at("A_FILES").setting, "a_files_object_store_bucket");
}

TEST(Schema, StageHasWhatItSaysAndDefaultsForTheRest) {
  const Pipeline pipeline = clean(load(example()));
  const Stage& stage = pipeline.stages.at("time");
  EXPECT_EQ(stage.cpp_name, "time_") << "::time is a function of the C library";
  EXPECT_EQ(stage.section, "time_service");
  EXPECT_EQ(stage.durable, "tts-workers");
  EXPECT_EQ(stage.concurrency, 2);
  EXPECT_EQ(stage.timeout, std::chrono::seconds(90));
  EXPECT_EQ(stage.ack_wait, std::chrono::seconds(30));
  EXPECT_EQ(stage.retry.max_deliver, 7);
  EXPECT_EQ(stage.retry.backoff,
            (std::vector<std::chrono::milliseconds>{std::chrono::milliseconds(250), std::chrono::minutes(5)}));
  const Stage& join = pipeline.stages.at("join");
  EXPECT_EQ(join.durable, "join-workers");
  EXPECT_EQ(join.timeout, std::chrono::minutes(5));
  EXPECT_EQ(join.retry.max_deliver, 5);
  ASSERT_TRUE(join.collect);
  EXPECT_EQ(join.collect->by.names, (std::vector<std::string>{"header", "workflow_id"}));
  EXPECT_EQ(join.collect->expires, std::chrono::hours(2));
}

TEST(Schema, EveryFieldOfAProducedEventHasItsSourceInOrder) {
  using Kind = FieldSource::Kind;
  const Pipeline pipeline = clean(load(example()));
  const ProducedEvent& produced = pipeline.stages.at("time").produces.at(0);
  std::vector<std::pair<std::string, Kind>> sources;
  for (const FieldSource& source : produced.sources) sources.emplace_back(source.field, source.kind);
  EXPECT_EQ(sources, (std::vector<std::pair<std::string, Kind>>{{"audio_key", Kind::kKey},
                                                                {"header", Kind::kCopied},
                                                                {"label", Kind::kSet},
                                                                {"note", Kind::kAbsent},
                                                                {"number", Kind::kSet},
                                                                {"page_number", Kind::kCopied},
                                                                {"retries", Kind::kSet},
                                                                {"total_pages", Kind::kCopied}}));
  const FieldSource& key = produced.sources.at(0);
  ASSERT_EQ(key.expression.parts.size(), 4u);
  EXPECT_EQ(key.expression.parts[0].kind, Expression::Part::Kind::kProduced);
  EXPECT_EQ(key.expression.parts[2].path.names, std::vector<std::string>{"number"});
  EXPECT_EQ(key.expression.parts[3].text, ".pcm");
  const FieldSource& label = produced.sources.at(2);
  EXPECT_EQ(label.expression.parts[1].kind, Expression::Part::Kind::kConsumed);
  EXPECT_EQ(label.expression.parts[2].text, " of {all}");
  EXPECT_EQ(produced.sources.at(6).expression.literal.text, "3");

  const ProducedEvent& joined = pipeline.stages.at("join").produces.at(0);
  EXPECT_EQ(joined.sources.at(0).kind, Kind::kKey);
  EXPECT_TRUE(joined.sources.at(0).expression.parts.empty()) << "no template: the default key";
}

TEST(Schema, ArgumentsAreBoundByTheirRole) {
  const Pipeline pipeline = clean(load(example()));
  std::map<std::string, ActionArgument> arguments;
  for (const ActionArgument& argument : pipeline.stages.at("time").arguments) arguments[argument.parameter] = argument;
  EXPECT_EQ(arguments.at("text").value.kind, Expression::Kind::kConsumed);
  EXPECT_EQ(arguments.at("audio").field, "audio_key");
  EXPECT_TRUE(arguments.at("voice").value.path.optional);
  EXPECT_EQ(arguments.at("seed").value.path.type.kind, TypeKind::kInt32);
  EXPECT_EQ(arguments.at("engine").value.literal.text, "espeak-ng") << "the catalogue's default";
  EXPECT_EQ(arguments.at("program").value.literal.items.at(1).text, "{text}");
}

TEST(Schema, OrderOfKeysChangesNothing) {
  Files shuffled = example();
  std::string& events = shuffled["events.yaml"];
  const std::size_t types = events.find("types:"), streams = events.find("streams:");
  const std::string block = events.substr(types, streams - types);
  events.erase(types, streams - types);
  events += block;
  const Pipeline a = clean(load(example()));
  const Pipeline b = clean(load(shuffled));
  EXPECT_EQ(a.events.at("AudioChunkCreatedEvent").setting, b.events.at("AudioChunkCreatedEvent").setting);
  EXPECT_EQ(a.records.size(), b.records.size());
  EXPECT_EQ(a.streams.at("TTS_JOBS").events, b.streams.at("TTS_JOBS").events);
}

TEST(Entities, AreTheSameInAnyOrderOfKeysAndFiles) {
  const auto described = [](const Pipeline& pipeline) {
    std::vector<std::string> out;
    for (const Entity& each : pipeline.entities) {
      out.push_back(each.name + " " + each.table + " " + each.subject + " " + each.list);
      for (const std::string& column : columns(each)) out.push_back(column);
    }
    return out;
  };
  const std::vector<std::string> expected = described(clean(load_text(kEntities)));
  const std::string text = kEntities;
  const std::size_t entities = text.find("entities:\n"), ingest = text.find("ingest:");
  // Each entity by itself, in a file of its own.
  std::vector<std::string> each;
  for (std::size_t at = entities + 10; at < ingest;) {
    std::size_t next = at + 1;
    while (next < ingest && !(text[next - 1] == '\n' && text.compare(next, 2, "  ") == 0 && text[next + 2] != ' '))
      ++next;
    each.push_back(text.substr(at, next - at));
    at = next;
  }
  ASSERT_EQ(each.size(), 6u);
  std::mt19937 random(7);
  for (int round = 0; round < 10; ++round) {
    std::shuffle(each.begin(), each.end(), random);
    Files files;
    std::string imports;
    for (std::size_t i = 0; i < each.size(); ++i) {
      const std::string name = "e" + std::to_string(i) + ".yaml";
      files[name] = "pipegen: v1\nentities:\n" + each[i];
      imports += (i ? ", " : "") + name;
    }
    files["pipeline.yaml"] = text.substr(0, entities) + "import: [" + imports + "]\n" + text.substr(ingest);
    EXPECT_EQ(described(clean(load(files))), expected);
  }
}

TEST(Schema, DuplicateWindowIsNeverLongerThanMaxAge) {
  const Pipeline pipeline = clean(load_text("pipegen: v1\npipeline: p\nstreams: {A: {max_age: 30s}, B: {}}\n"));
  EXPECT_EQ(pipeline.streams.at("A").duplicate_window, std::chrono::seconds(30));
  EXPECT_EQ(pipeline.streams.at("B").duplicate_window, std::chrono::minutes(2));
}

TEST(Schema, DuplicateWindowCoversTheSlowestStageThatPublishesToTheStream) {
  const auto window = [](const std::string& stream, const std::string& stage) {
    return clean(load_text("pipegen: v1\npipeline: p\nstreams: {IN: {}, OUT: {" + stream +
                           "}}\n"
                           "events:\n"
                           "  A: {subject: a, stream: IN, fields: {x: string}}\n"
                           "  B: {subject: b, stream: OUT, fields: {x: string}}\n"
                           "stages:\n"
                           "  quick: {consumes: B, uses: custom, timeout: 1s}\n"
                           "  slow: {consumes: A, produces: B, uses: custom, " +
                           stage + "}\n"));
  };
  const std::string slow = "timeout: 30m, ack_wait: 1m, retry: {backoff: [1s, 4m]}";
  EXPECT_EQ(window("", slow).streams.at("OUT").duplicate_window, std::chrono::minutes(70));
  EXPECT_EQ(window("", slow).streams.at("IN").duplicate_window, std::chrono::minutes(2));
  EXPECT_EQ(window("max_age: 1h", slow).streams.at("OUT").duplicate_window, std::chrono::hours(1));
  EXPECT_EQ(window("duplicate_window: 5m", slow).streams.at("OUT").duplicate_window, std::chrono::minutes(5));
  EXPECT_EQ(window("", "timeout: 1s, ack_wait: 1s, retry: {backoff: [1s]}").streams.at("OUT").duplicate_window,
            std::chrono::minutes(2));
}

TEST(Schema, QuestionMarksMeanTheSameInsideAndOutsideOfBraces) {
  const Pipeline pipeline = clean(load_text(
      "pipegen: v1\npipeline: p\ntypes: {A: {fields: {a: {type: string?, doc: \"Why? Really?\"}, b: int32?}}}\n"));
  const Record& record = pipeline.records.at("A");
  EXPECT_TRUE(record.fields.at(0).optional);
  EXPECT_TRUE(record.fields.at(1).optional);
  EXPECT_EQ(record.fields.at(0).doc, "Why? Really?");
}

TEST(Diagnostics, CaretStandsUnderTheCharactersWhateverIsBeforeThem) {
  const Loaded loaded = load_text("pipegen: v1\npipeline: p\ntypes:\n  Größe: {fields: {\"ä\":\tuuidd}}\n");
  const std::string text = said(loaded);
  EXPECT_NE(text.find("pipeline.yaml:4:25: error: no type is called 'uuidd' [PG0203] (hint: did you mean 'uuid'?)\n"
                      "  Größe: {fields: {\"ä\":\tuuidd}}\n"
                      "                       \t^~~~~\n"),
            std::string::npos)
      << text;
}

TEST(Diagnostics, AreJsonForPrograms) {
  const Loaded loaded = load_text("pipegen: v1\npipeline: p\ntypes: {A: {fields: {a: \"uuidd\"}}}\n");
  EXPECT_EQ(format_json({loaded.diagnostics.at(0)}), R"([
  {
    "code": "PG0203",
    "severity": "error",
    "file": "pipeline.yaml",
    "line": 3,
    "column": 26,
    "length": 5,
    "message": "no type is called 'uuidd'",
    "hint": "did you mean 'uuid'?",
    "notes": []
  }
]
)");
}

TEST(Diagnostics, OneMistakeInANameIsSaidOnce) {
  Files files = example();
  std::string& events = files["events.yaml"];
  events.replace(events.find("text_key: object<TEXT_FILES>"), 28, "text_key: object<TEXT_FILE>");
  const Loaded loaded = load(files);
  ASSERT_EQ(loaded.diagnostics.size(), 1u) << said(loaded);
  EXPECT_EQ(loaded.diagnostics[0].code, "PG0203");
}

TEST(Diagnostics, AMissingFileOfEntitiesIsSaidOnce) {
  const Loaded loaded = load_text(
      "pipegen: v1\npipeline: p\nimport: entities.yaml\n"
      "ingest: {entities: [Order]}\n"
      "entities:\n"
      "  Note: {key: [a], fields: {a: string, order: {type: string, references: Order}, items: list<Item>}}\n"
      "  Entry: {repeated_for: {entity: Order, field: items}, fields: {a: string}}\n"
      "stages: {save: {uses: persist, with: {entities: [Order, Note]}}}\n");
  ASSERT_EQ(loaded.diagnostics.size(), 1u) << said(loaded);
  EXPECT_EQ(loaded.diagnostics[0].code, "PG0101");
}

TEST(Diagnostics, AMissingFileIsSaidOnceAndNotForEveryNameInIt) {
  Files files = example();
  files.erase("events.yaml");
  const Loaded loaded = load(files);
  ASSERT_EQ(loaded.diagnostics.size(), 1u) << said(loaded);
  EXPECT_EQ(loaded.diagnostics[0].code, "PG0101");
}

TEST(BadInput, GetsADiagnosticAndNothingElse) {
  std::string deep = "pipegen: v1\ntypes: ";
  for (int i = 0; i < 50'000; ++i) deep += '[';
  std::string deep_blocks = "pipegen: v1\n";
  for (int i = 0; i < 900; ++i) deep_blocks += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  std::string bomb = "pipegen: v1\na: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 10; ++i) bomb += std::string(i ? ", *" : "*") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  const std::vector<std::pair<std::string, std::string>> inputs{
      {"", "PG0107"},
      {"# a comment\n", "PG0107"},
      {std::string("\0\x01\x02", 3), "PG0102"},
      {std::string("\xFF\xFE"
                   "p\0i\0",
                   6),
       "PG0102"},
      {"\x7F"
       "ELF\x02\x01",
       "PG0102"},
      {std::string(10'000'000, 'a'), "PG0105"},
      {std::string(1'000'000, '-'), "PG0105"},
      {std::string(60'000, '-'), "PG0108"},
      {deep, "PG0105"},
      {deep_blocks, "PG0105"},
      {bomb, "PG0105"},
      {"a: &a [*a]\n", "PG0106"},
      {"a: *nobody\n", "PG0103"},
      {"null\n", "PG0107"},
      {"text\n", "PG0108"},
      {"{", "PG0103"},
      {"a: \"\\q\"\n", "PG0103"},
      {"%YAML 9\n---\na: b\n", "PG0103"},
      {"? ? ? a\n", "PG0106"},
      {"pipegen:\npipeline:\nimport:\ntypes:\nstreams:\nbuckets:\nevents:\nstages:\ningest:\n", "PG0107"},
      {"pipegen: v1\npipeline: []\nworkflow_id: {}\njson_names: []\nimport: {a: b}\ntypes: 1\nstreams: a\nbuckets: "
       "[]\nevents: x\n"
       "stages: []\ningest: 5\n",
       "PG0108"},
  };
  for (const auto& [text, code] : inputs) {
    const Loaded loaded = load_text(text);
    EXPECT_FALSE(loaded.pipeline);
    EXPECT_TRUE(has_code(loaded, code)) << code << " for " << text.substr(0, 60) << "\n" << said(loaded).substr(0, 500);
    EXPECT_FALSE(format_json(loaded.diagnostics).empty());
  }
}

TEST(BadInput, RecordsNestedTooDeeplyAreSaidOfTheFieldThatHoldsOneMore) {
  std::string text = "pipegen: v1\npipeline: p\ntypes:\n  A: {fields: {innocent: string}}\n";
  for (int i = 1000; i < 1102; ++i) {
    text += "  R" + std::to_string(i) + ": {fields: {next: " + (i < 1101 ? "R" + std::to_string(i + 1) : "A") + "}}\n";
  }
  const Loaded loaded = load_text(text);
  ASSERT_EQ(loaded.diagnostics.size(), 1u) << said(loaded).substr(0, 500);
  EXPECT_EQ(loaded.diagnostics[0].code, "PG0105");
  EXPECT_EQ(loaded.diagnostics[0].span.line, 5 + 100) << "R1000 is in line 5, and 101 records are as many as can be";
}

TEST(BadInput, OfManyEntitiesIsReadInNoTime) {
  const auto number = [](int i) { return std::to_string(i); };
  const std::string head = "pipegen: v1\npipeline: p\nentities:\n";
  std::string chain = head, circle = head, wide = head + "  A:\n    key: [a0]\n    fields:\n", keys = head;
  for (int i = 0; i < 5000; ++i) {
    const std::string next = number(i + 1);
    chain += "  A" + number(i) + ": {key: [k" + number(i) + "], fields: {k" + number(i) + ": string, l: list<A" + next +
             ">}}\n";
    circle += "  A" + number(i) + ": {key: [k], fields: {k: string, r: {type: string, references: A" + next + "}}}\n";
  }
  chain += "  A5000: {key: [k], fields: {k: string}}\n";
  circle += "  A5000: {key: [k], fields: {k: {type: string, references: A0}}}\n";
  std::string line = circle;
  line.replace(line.find(", references: A0}"), 16, "");
  for (int i = 0; i < 12'000; ++i) wide += "      a" + number(i) + ": {type: string, from: a0}\n";
  keys += "  A: {key: [";
  for (int i = 0; i < 33; ++i) keys += (i ? ", a" : "a") + number(i);
  keys += "], fields: {";
  for (int i = 0; i < 33; ++i) keys += (i ? ", a" : "a") + number(i) + ": string";
  keys += "}}\n";
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<std::pair<const std::string*, const char*>> inputs{
      {&chain, "PG0105"}, {&circle, "PG0907"}, {&line, ""}, {&wide, "PG0903"}, {&keys, "PG0901"}};
  for (const auto& [text, code] : inputs) {
    const Loaded loaded = load_text(*text);
    if (*code == '\0') {
      EXPECT_EQ(clean(loaded).entities.size(), 5001u);
    } else {
      EXPECT_EQ(loaded.diagnostics.size(), 1u) << said(loaded).substr(0, 500);
      EXPECT_TRUE(has_code(loaded, code)) << said(loaded).substr(0, 500);
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << "seconds under a sanitizer";
}

TEST(BadInput, OfAnyMutationIsSurvived) {
  Files good = example();
  good["pipeline.yaml"].replace(good["pipeline.yaml"].find("import: ["), 9, "import: [entities.yaml, ");
  good["entities.yaml"] = std::string(kEntities).erase(std::string(kEntities).find("ingest:")).erase(12, 15);
  clean(load(good));
  std::mt19937 random(20260101);
  const std::string alphabet = "{}[]:,?*&!|>'\"%@`#- \n\t~<$.0aZ\xC3\xA4\x01";
  for (int round = 0; round < 3000; ++round) {
    Files files = good;
    auto file = files.begin();
    std::advance(file, static_cast<long>(random() % files.size()));
    std::string& text = file->second;
    for (unsigned i = 0; i <= random() % 3; ++i) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text.erase(at, 1 + random() % 20);
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 30));
      }
      if (text.empty()) text = "x";
    }
    const Loaded loaded = load(files);
    const bool errors = std::ranges::any_of(loaded.diagnostics,
                                            [](const Diagnostic& each) { return each.severity == Severity::kError; });
    ASSERT_EQ(loaded.pipeline.has_value(), !errors) << text;
    said(loaded);
    for (const Diagnostic& each : loaded.diagnostics) ASSERT_TRUE(each.span.line == 0 || each.span.column > 0);
  }
}

TEST(DiskReader, SaysWhyAPathCannotBeRead) {
  DiskReader reader;
  std::string why;
  EXPECT_FALSE(reader.read(std::filesystem::temp_directory_path(), why));
  EXPECT_EQ(why, "it is a folder");
  EXPECT_FALSE(reader.read("/nowhere/at/all.yaml", why));
  EXPECT_EQ(why, "there is no such file");
  EXPECT_FALSE(reader.read("/dev/zero", why));
  EXPECT_EQ(why, "it is no file");
}

TEST(Actions, AreSortedAndFoundByName) {
  EXPECT_TRUE(std::ranges::is_sorted(actions(), {}, &Action::name));
  EXPECT_NE(find_action("speak"), nullptr);
  EXPECT_EQ(find_action("custom"), nullptr);
}

}  // namespace
}  // namespace pipegen::gen
