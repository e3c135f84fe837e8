// Entities of the older layout, through the one function that reads them.
#include "import/import.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "schema/load.hpp"

namespace pipegen::gen {
namespace {

using Files = std::map<std::string, std::string>;

std::string said(const Imported& imported) { return format_text(imported.diagnostics, imported.texts); }

/// What pipegen says about a schema.
Loaded validate(const std::string& schema) {
  class One : public FileReader {
   public:
    explicit One(std::string text) : text_(std::move(text)) {}
    std::optional<std::string> read(const std::filesystem::path&, std::string&) override { return text_; }

   private:
    std::string text_;
  } files(schema);
  return load_pipeline(files, "entities.yaml");
}

const char kOrder[] = R"yaml(entity:
  name: Order
  description: "What a customer wants: \"goods\""
  fields:
    - {name: order_key, type: String, nullable: false, max_length: 32}
    - {name: customerKey, type: Long, nullable: false, references: Customer}
    - {name: total_price, type: Decimal, precision: 15, scale: 2, nullable: false, min: 0}
    - {name: order_date, type: Date, nullable: false, index: true}
    - {name: placed_at, type: DateTime}
    - {name: comment, type: String, nullable: true}
    - {name: status, type: Enum, values: [open, done], nullable: false, default: open}
    - {name: source, type: String, default: "yes"}
    - {name: customer, type: CustomerInfo, nullable: false}
    - {name: line_items, type: "List<LineItem>", nullable: false}
    - {name: tags, type: Array, items: String}
    - {name: raw, type: Json}
    - {name: id, type: UUID, unique: true}
    - {name: weight, type: Double}
    - {name: gift, type: Boolean, nullable: false}
  persistence:
    table: orders
    primary_key: [order_key]
    on_conflict: upsert
    indexes: [{name: by_comment, columns: [comment]}, placed_at]
)yaml";

const char kLineItem[] = R"yaml(entity:
  name: line_item
  fields:
    - {name: line_number, type: Integer, nullable: false}
    - {name: tax, type: "Decimal(5,2)"}
  persistence: {table: line_items, primary_key: line_number}
)yaml";

const char kCustomer[] = R"yaml({"entity": {"name": "Customer", "fields": [
  {"name": "id", "type": "Long", "primary_key": true}, {"name": "name", "type": "VARCHAR(80)", "nullable": false}],
  "persistence": {"table": "customers"}}}
)yaml";

const char kInfo[] = "name: CustomerInfo\nfields: {name: {type: String, nullable: false}, city: Text}\n";

Files all() {
  return {{"customer.json", kCustomer}, {"info.yaml", kInfo}, {"line_item.yaml", kLineItem}, {"order.yaml", kOrder}};
}

TEST(Import, WritesWhatTheOldLayoutSays) {
  const Imported imported = import_entities(all(), "shop");
  EXPECT_EQ(said(imported), "");
  EXPECT_EQ(imported.entities, 3u);
  EXPECT_EQ(imported.schema.value_or(""), R"yaml(pipegen: v1
pipeline: shop

types:
  OrderStatus: {enum: [open, done]}
  CustomerInfo:
    fields:
      name: string
      city: string?

entities:
  Customer:
    table: customers
    key: [id]
    fields:
      id: int64
      name: {type: string, max_length: 80}
  LineItem:
    table: line_items
    key: [line_number]
    fields:
      line_number: int32
      tax: decimal(5,2)?
  Order:
    doc: "What a customer wants: \"goods\""
    table: orders
    key: [order_key]
    on_conflict: update
    fields:
      order_key: {type: string, max_length: 32}
      customer_key: {type: int64, json: customerKey, column: customerKey, references: Customer}
      total_price: {type: "decimal(15,2)", min: 0}
      order_date: {type: date, index: true}
      placed_at: {type: timestamp?, index: true}
      comment: {type: string?, index: true}
      status: {type: OrderStatus, default: open}
      source: {type: string, default: "yes"}
      customer: CustomerInfo
      line_items: list<LineItem>
      tags: list<string>?
      raw: json?
      id: {type: uuid?, unique: true}
      weight: float64?
      gift: bool

ingest:
  entities: [Customer, Order]
)yaml");
}

TEST(Import, GivesASchemaThatPipegenTakesWithoutAWord) {
  const Imported imported = import_entities(all(), "shop");
  ASSERT_TRUE(imported.schema) << said(imported);
  const Loaded loaded = validate(*imported.schema);
  EXPECT_EQ(format_text(loaded.diagnostics, loaded.texts), "");
  ASSERT_TRUE(loaded.pipeline);
  EXPECT_EQ(loaded.pipeline->entities.size(), 3u);
}

TEST(Import, TakesTheKeyOfTheParentForWhatTheRowsOfAListHoldOfIt) {
  const Imported imported = import_entities({{"a.yaml", R"yaml(entities:
  - name: Order
    fields: [{name: order_key, type: String, nullable: false}, {name: lines, type: "List<Line>"},
             {name: notes, type: "List<Note>"}]
    persistence: {table: orders, primary_key: [order_key]}
  - name: Line
    fields:
      - {name: orderKey, type: String, nullable: false, max_length: 32, references: Order}
      - {name: line_number, type: Integer, nullable: false}
    persistence: {table: lines, primary_key: [orderKey, line_number]}
  - name: Note
    fields: [{name: order_ref, type: String}, {name: text, type: String}]
    persistence: {primary_key: order_ref, foreign_keys: [{columns: order_ref, references: orders}]}
)yaml"}},
                                            "p");
  EXPECT_EQ(said(imported), "");
  EXPECT_EQ(imported.schema.value_or(""), R"yaml(pipegen: v1
pipeline: p

entities:
  Line:
    table: lines
    key: [order_key, line_number]
    fields:
      order_key: {type: string, column: orderKey, parent: order_key}
      line_number: int32
  Note:
    fields:
      order_ref: {type: string, parent: order_key}
      text: string?
  Order:
    table: orders
    key: [order_key]
    fields:
      order_key: string
      lines: list<Line>?
      notes: list<Note>?

ingest:
  entities: [Order]
)yaml");
}

TEST(Import, RefusesTypesThatItDoesNotKnowAndSaysWhichThereAre) {
  const Imported imported = import_entities({{"a.yaml", R"yaml(entity:
  name: A
  fields:
    - {name: id, type: Strng, nullable: false}
    - {name: other, type: List<Quux>}
    - {name: size, type: Decimal(5,2)}
  persistence: {primary_key: id}
)yaml"}},
                                            "p");
  EXPECT_FALSE(imported.schema);
  const std::string text = said(imported);
  EXPECT_NE(text.find("a.yaml:4:24: error: no type is called 'Strng' [PG0203] (hint: did you mean 'String'?)"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("no type is called 'Quux'"), std::string::npos) << text;
  EXPECT_NE(text.find("put the type in quotes"), std::string::npos) << text;
}

TEST(Import, WarnsAboutWhatItLeavesOut) {
  const Imported imported = import_entities({{"a.yaml", R"yaml(entity:
  name: A
  retention: 7d
  fields:
    - {name: id, type: String, nullable: false, widget: textbox}
    - {name: price, type: Decimal, default: CURRENT_PRICE}
  persistence:
    primary_key: id
    engine: innodb
    indexes: [{columns: [id, price]}]
    foreign_keys: [{columns: [price], references: Elsewhere}]
)yaml"}},
                                            "p");
  ASSERT_TRUE(imported.schema) << said(imported);
  const std::string text = said(imported);
  for (const char* what : {"'retention'", "'widget'", "'engine'", "decimal(38,10)", "the default does not fit 'price'",
                           "an index over several columns", "leads to 'Elsewhere'"}) {
    EXPECT_NE(text.find(what), std::string::npos) << what << "\n" << text;
  }
  EXPECT_EQ(text.find("error"), std::string::npos) << text;
  EXPECT_TRUE(validate(*imported.schema).pipeline);
}

TEST(Import, ReadsWhatJsonWritesAsTwoEscapes) {
  const auto imported = [](const std::string& doc) {
    return import_entities({{"a.JSON", R"({"name": "A", "doc": ")" + doc +
                                           R"(", "fields": [{"name": "a", "type": "String"}], "key": "a"})"}},
                           "p");
  };
  const Imported emoji = imported(R"(so \\ud83d\\ude00 \ud83d\ude00 it is)");
  ASSERT_TRUE(emoji.schema) << said(emoji);
  EXPECT_NE(emoji.schema->find("\"so \\\\ud83d\\\\ude00 \xF0\x9F\x98\x80 it is\""), std::string::npos) << *emoji.schema;
  for (const char* half : {R"(\ud83d)", R"(\ude00)", R"(\ud83d\ud83d)", R"(\ud83d\u00)"}) {
    EXPECT_NE(said(imported(half)).find("PG0103"), std::string::npos) << half;
  }
}

TEST(Import, RefusesWhatWouldBeNoSchema) {
  const auto error = [](const std::string& text) {
    const Imported imported = import_entities({{"a.yaml", text}}, "p");
    EXPECT_FALSE(imported.schema);
    return said(imported);
  };
  EXPECT_NE(error("entity: {name: A, fields: [{name: a, type: String}], persistence: {table: a}}\n")
                .find("'A' has no primary key"),
            std::string::npos);
  EXPECT_NE(error("entity: {name: A, fields: [{name: a, type: Double}], persistence: {primary_key: a}}\n")
                .find("cannot be part of a key"),
            std::string::npos);
  EXPECT_NE(error("entity: {name: A, fields: [{name: a, type: String}], persistence: {primary_key: b}}\n")
                .find("'A' has no field 'b'"),
            std::string::npos);
  EXPECT_NE(error("[]\n").find("is a map"), std::string::npos);
  EXPECT_NE(error("entity: {fields: []}\n").find("no 'name'"), std::string::npos);
  EXPECT_NE(error("entity: [\n").find("PG0103"), std::string::npos);
  EXPECT_NE(error("entities: []\n").find("no entity to import"), std::string::npos);
}

TEST(Import, OfAnyMutationIsSurvivedAndNeverGivesASchemaThatPipegenRefuses) {
  std::mt19937 random(20260102);
  const std::string alphabet = "{}[]:,?*&!|>'\"%@`#- \n<$(.0aZ\xC3\xA4\x01";
  const Files good = all();
  for (int round = 0; round < 2000; ++round) {
    Files files = good;
    auto file = files.begin();
    std::advance(file, static_cast<long>(random() % files.size()));
    std::string& text = file->second;
    for (unsigned i = 0; i <= random() % 3; ++i) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text.erase(at, 1 + random() % 10);
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 30));
      }
      if (text.empty()) text = "x";
    }
    const Imported imported = import_entities(files, "shop");
    const bool errors = std::ranges::any_of(imported.diagnostics,
                                            [](const Diagnostic& each) { return each.severity == Severity::kError; });
    ASSERT_EQ(imported.schema.has_value(), !errors) << text << said(imported);
    if (imported.schema) {
      ASSERT_TRUE(validate(*imported.schema).pipeline) << *imported.schema;
    }
  }
}

}  // namespace
}  // namespace pipegen::gen
