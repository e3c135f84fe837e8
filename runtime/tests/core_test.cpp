// What runtime/core promises: types, JSON, settings, log, metrics, child processes.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "core/encoding.hpp"
#include "core/nuid.hpp"
#include "core/sha256.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/process.hpp"
#include "pipegen/settings.hpp"
#include "pipegen/stage.hpp"

namespace example {

// What the generator makes of a schema, in small.
enum class Placement { kTop, kBottom };
inline constexpr std::string_view kPlacements[] = {"top", "bottom"};

struct PdfFiles {
  static constexpr std::string_view kName = "PDF_FILES";
};

struct Item {
  std::string name;
  std::optional<std::int32_t> count{};
  bool operator==(const Item&) const = default;
};

struct Event {
  pipegen::Uuid id;
  pipegen::Timestamp at;
  pipegen::Date day;
  pipegen::Decimal price;
  Placement placement = Placement::kTop;
  pipegen::ObjectKey<PdfFiles> pdf;
  pipegen::Bytes blob;
  pipegen::Json extra;
  std::vector<Item> items;
  std::map<std::string, Item> by_name;
  std::vector<std::string> tags;
  std::vector<bool> flags;
  std::map<std::string, std::vector<double>> numbers;
  std::optional<Item> maybe;
  std::optional<Placement> maybe_placement;
  std::optional<std::vector<Item>> maybe_items;
  bool operator==(const Event&) const = default;
};

void write(pipegen::json::Writer& out, const Event& event);
void write(pipegen::json::Writer& out, const Item& item);
void write(pipegen::json::Writer& out, Placement placement);

Placement read_placement(pipegen::json::Reader& in) { return static_cast<Placement>(in.one_of(kPlacements)); }

Item read_item(pipegen::json::Reader& in) {
  static constexpr pipegen::json::Field kFields[] = {{"name"}, {"count", pipegen::json::kOptional}};
  Item out;
  for (pipegen::json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.name = in.string({.min_length = 1, .max_length = 5});
        break;
      case 1:
        out.count = in.int32({.min = 1, .max = 100});
        break;
    }
  }
  return out;
}

Event read_event(pipegen::json::Reader& in) {
  using pipegen::json::kOptional;
  static constexpr pipegen::json::Field kFields[] = {{"id"},
                                                     {"at"},
                                                     {"day"},
                                                     {"price"},
                                                     {"placement"},
                                                     {"pdf"},
                                                     {"blob"},
                                                     {"extra"},
                                                     {"items"},
                                                     {"byName"},
                                                     {"tags"},
                                                     {"flags"},
                                                     {"numbers"},
                                                     {"maybe", kOptional},
                                                     {"maybePlacement", kOptional},
                                                     {"maybeItems", kOptional}};
  Event out;
  for (pipegen::json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.id = in.uuid();
        break;
      case 1:
        out.at = in.timestamp();
        break;
      case 2:
        out.day = in.date();
        break;
      case 3:
        out.price = in.decimal({.precision = 10, .scale = 2});
        break;
      case 4:
        out.placement = read_placement(in);
        break;
      case 5:
        out.pdf = in.object_key<PdfFiles>();
        break;
      case 6:
        out.blob = in.bytes();
        break;
      case 7:
        out.extra = in.json();
        break;
      case 8:
        out.items = in.list<Item>(read_item);
        break;
      case 9:
        out.by_name = in.map<Item>(read_item);
        break;
      case 10:
        out.tags = in.list<std::string>([](pipegen::json::Reader& item) { return item.string(); });
        break;
      case 11:
        out.flags = in.list<bool>([](pipegen::json::Reader& item) { return item.boolean(); });
        break;
      case 12:
        out.numbers = in.map<std::vector<double>>([](pipegen::json::Reader& entry) {
          return entry.list<double>([](pipegen::json::Reader& item) { return item.float64(); });
        });
        break;
      case 13:
        out.maybe = read_item(in);
        break;
      case 14:
        out.maybe_placement = read_placement(in);
        break;
      case 15:
        out.maybe_items = in.list<Item>(read_item);
        break;
    }
  }
  return out;
}

void write(pipegen::json::Writer& out, const Event& event) {
  out.begin_object();
  out.field("id", event.id);
  out.field("at", event.at);
  out.field("day", event.day);
  out.field("price", event.price);
  out.field("placement", event.placement);
  out.field("pdf", event.pdf);
  out.field("blob", event.blob);
  out.field("extra", event.extra);
  out.field("items", event.items);
  out.field("byName", event.by_name);
  out.field("tags", event.tags);
  out.field("flags", event.flags);
  out.field("numbers", event.numbers);
  out.field("maybe", event.maybe);
  out.field("maybePlacement", event.maybe_placement);
  out.field("maybeItems", event.maybe_items);
  out.end_object();
}

void write(pipegen::json::Writer& out, const Item& item) {
  out.begin_object();
  out.field("name", item.name);
  out.field("count", item.count);
  out.end_object();
}

void write(pipegen::json::Writer& out, Placement placement) {
  out.value(kPlacements[static_cast<std::size_t>(placement)]);
}

}  // namespace example

namespace pipegen {
namespace {

using json::Field;
using json::Invalid;
using json::Object;
using json::Reader;
using namespace std::chrono_literals;
using namespace std::string_literals;

Timestamp micros(std::int64_t count) { return Timestamp(std::chrono::microseconds(count)); }

std::string repeat(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

/// "" when the document is good, else "pointer|detail" of every violation, one per line.
template <typename Read>
std::string violations_of(std::string_view text, Read read) {
  try {
    json::parse(text, read);
    return "";
  } catch (const Invalid& invalid) {
    std::string all;
    for (const auto& violation : invalid.violations()) all += violation.pointer + "|" + violation.detail + "\n";
    return all;
  }
}

/// The same for a document that its reader completes.
template <typename Read>
std::string violations_of_new(std::string_view text, Read read, std::initializer_list<std::string_view> made) {
  try {
    json::parse_new(text, read, made);
    return "";
  } catch (const Invalid& invalid) {
    std::string all;
    for (const auto& violation : invalid.violations()) all += violation.pointer + "|" + violation.detail + "\n";
    return all;
  }
}

Json read_json(Reader& in) { return in.json(); }

/// Nobody reads anything of the object.
int read_nothing(Reader& in) {
  for (Object fields(in, {}); fields.next();) {
  }
  return 0;
}

class TempFolder {
 public:
  TempFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "pipegen-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = path;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return path_ / name;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// ---- types ----------------------------------------------------------------------------------------------------------

TEST(Types, ATimestampIsReadInEveryFormOfRfc3339) {
  const std::pair<std::string_view, std::int64_t> good[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"1970-01-01t00:00:00z", 0},
      {"1970-01-01T00:00:00.5Z", 500'000},
      {"1970-01-01T00:00:00.123456789Z", 123'456},
      {"1969-12-31T23:59:59.999999Z", -1},
      {"1970-01-01T01:30:00+01:30", 0},
      {"1969-12-31T23:00:00-01:00", 0},
      {"1970-01-01T00:00:00-00:00", 0},
      {"2024-02-29T12:00:00Z", 1'709'208'000'000'000},
      {"0001-01-01T00:00:00Z", -62'135'596'800'000'000},
      {"9999-12-31T23:59:59.999999Z", 253'402'300'799'999'999},
  };
  for (const auto& [text, expected] : good) {
    const auto time = parse_timestamp(text);
    ASSERT_TRUE(time) << text;
    EXPECT_EQ(*time, micros(expected)) << text;
  }
}

TEST(Types, WhatIsNoTimestampIsRefused) {
  for (const std::string_view text : {"",
                                      "2025",
                                      "2025-01-15",
                                      "2025-01-15T10:00Z",
                                      "2025-01-15 10:00:00Z",
                                      "2025-01-15T10:00:00",
                                      "2025-13-01T00:00:00Z",
                                      "2025-02-29T00:00:00Z",
                                      "2025-01-15T24:00:00Z",
                                      "2025-01-15T10:60:00Z",
                                      "2016-12-31T23:59:60Z",
                                      "2025-01-15T10:00:00.Z",
                                      "2025-01-15T10:00:00.1234567890Z",
                                      "2025-01-15T10:00:00+24:00",
                                      "2025-01-15T10:00:00+01:60",
                                      "2025-01-15T10:00:00+0100",
                                      "2025-01-15T10:00:00ZZ",
                                      "0000-01-01T00:00:00Z",
                                      "0001-01-01T00:00:00+00:01",
                                      "9999-12-31T23:59:59-00:01",
                                      "-025-01-15T10:00:00Z",
                                      "2025-1-15T10:00:00Z",
                                      " 2025-01-15T10:00:00Z"}) {
    EXPECT_FALSE(parse_timestamp(text)) << text;
  }
}

TEST(Types, ATimestampIsWrittenInUtcWithSixDecimalsOrNone) {
  EXPECT_EQ(to_string(micros(0)), "1970-01-01T00:00:00Z");
  EXPECT_EQ(to_string(micros(-1)), "1969-12-31T23:59:59.999999Z");
  EXPECT_EQ(to_string(micros(1'709'208'000'000'500)), "2024-02-29T12:00:00.000500Z");
  EXPECT_EQ(to_string(*parse_timestamp("0001-01-01T00:00:00Z")), "0001-01-01T00:00:00Z");
  EXPECT_THROW(to_string(Timestamp::max()), PermanentError);
  EXPECT_EQ(parse_timestamp(to_string(now())).has_value(), true);
}

TEST(Types, ADateIsARealDay) {
  EXPECT_EQ(to_string(*parse_date("2024-02-29")), "2024-02-29");
  for (const std::string_view text :
       {"", "2023-02-29", "2024-02-30", "2024-00-10", "2024-1-10", "2024-01-10 ", "0000-01-01"}) {
    EXPECT_FALSE(parse_date(text)) << text;
  }
  EXPECT_THROW(to_string(Date()), PermanentError);
}

TEST(Types, AUuidIsReadInEitherCaseAndWrittenInLowerCase) {
  const auto uuid = Uuid::parse("0190A5F2-7b3c-7DEF-8123-456789abcdef");
  ASSERT_TRUE(uuid);
  EXPECT_EQ(uuid->to_string(), "0190a5f2-7b3c-7def-8123-456789abcdef");
  for (const std::string_view text : {"", "0190a5f27b3c7def8123456789abcdef", "{0190a5f2-7b3c-7def-8123-456789abcde}",
                                      "0190a5f2-7b3c-7def-8123-456789abcdeg", "0190a5f2-7b3c-7def-81234-56789abcdef",
                                      "0190a5f2-7b3c-7def-8123-456789abcdef0"}) {
    EXPECT_FALSE(Uuid::parse(text)) << text;
  }
}

TEST(Types, RandomUuidsAreVersion7AndSortByTimeAlsoAcrossThreads) {
  std::vector<std::vector<Uuid>> made(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : made) {
      threads.emplace_back([&mine] {
        for (int i = 0; i < 5000; ++i) mine.push_back(Uuid::random());
      });
    }
  }
  std::set<Uuid> all;
  for (const auto& mine : made) {
    EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
    all.insert(mine.begin(), mine.end());
  }
  EXPECT_EQ(all.size(), 20000u);
  const std::string text = made[0][0].to_string();
  EXPECT_EQ(text[14], '7');
  EXPECT_NE(std::string("89ab").find(text[19]), std::string::npos);
  const auto millis = std::stoull(text.substr(0, 8) + text.substr(9, 4), nullptr, 16);
  EXPECT_LT(std::abs(static_cast<double>(millis) - static_cast<double>(now().time_since_epoch().count()) / 1000),
            60'000);
}

TEST(Types, ADerivedUuidIsVersion8AndAlwaysTheSame) {
  // SHA-256("abc") begins with ba7816bf8f01cfea414140de5dae2223.
  EXPECT_EQ(Uuid::derived("abc").to_string(), "ba7816bf-8f01-8fea-8141-40de5dae2223");
  EXPECT_NE(Uuid::derived("abc"), Uuid::derived("abd"));
}

/// As generated: a record with a fresh field, held in every way.
struct Mark {
  Uuid id{};
  std::optional<std::vector<Mark>> inner{};
};
void renew(Mark& value, const Fresh& fresh) {
  value.id = fresh.uuid("id");
  renew(value.inner, fresh.in("inner"));
}

TEST(Fresh, EveryUuidOfAnEventIsAnotherAndTheSameAtARedelivery) {
  const auto ids = [](const std::string& message) {
    const Fresh fresh(message);
    std::optional<Mark> absent, mark = Mark{.id = {}, .inner = std::vector<Mark>(2)};
    std::map<std::string, std::vector<Mark>> marks{{"a", std::vector<Mark>(1)}, {"a.0", std::vector<Mark>(2)}};
    renew(absent, fresh.in("absent"));
    renew(mark, fresh.in("mark"));
    renew(marks, fresh.in("marks"));
    EXPECT_FALSE(absent);
    const auto& inner = *mark->inner;
    return std::vector<Uuid>{fresh.uuid("id"), fresh.uuid("other_id"), mark->id,           inner[0].id,
                             inner[1].id,      marks["a"][0].id,       marks["a.0"][0].id, marks["a.0"][1].id};
  };
  const auto first = ids("message"), again = ids("message"), other = ids("another");
  EXPECT_EQ(first, again);
  std::set<std::string> all;
  for (const auto& each : {first, other})
    for (const Uuid& id : each) all.insert(id.to_string());
  EXPECT_EQ(all.size(), 2 * first.size());
  EXPECT_FALSE(all.contains(Uuid{}.to_string()));
}

TEST(Types, ADecimalIsKeptByItsDigits) {
  struct Case {
    std::string_view text;
    int precision, scale;
    std::string_view expected;  // empty: refused
  };
  for (const Case& c : {Case{"-12.5", 10, 2, "-12.50"},
                        {"12", 10, 2, "12.00"},
                        {"0.50", 10, 2, "0.50"},
                        {"0.500", 10, 2, "0.50"},
                        {"1e2", 10, 2, "100.00"},
                        {"1E+2", 10, 0, "100"},
                        {"125e-2", 10, 2, "1.25"},
                        {"125e-4", 10, 4, "0.0125"},
                        {"-0", 10, 2, "0.00"},
                        {"-0.0e5", 10, 2, "0.00"},
                        {"0e999999999999999999999", 10, 2, "0.00"},
                        {"99999999.99", 10, 2, "99999999.99"},
                        {"100000000", 10, 2, ""},
                        {"0.001", 10, 2, ""},
                        {"1e8", 10, 2, ""},
                        {"1e-3", 10, 2, ""},
                        {"1e999999999999999999999", 10, 2, ""},
                        {"1e-999999999999999999999", 10, 2, ""},
                        {"", 10, 2, ""},
                        {"-", 10, 2, ""},
                        {"+1", 10, 2, ""},
                        {".5", 10, 2, ""},
                        {"5.", 10, 2, ""},
                        {"01", 10, 2, ""},
                        {"1e", 10, 2, ""},
                        {"1 ", 10, 2, ""},
                        {"0x1", 10, 2, ""},
                        {"NaN", 10, 2, ""},
                        {"1,5", 10, 2, ""},
                        {"12345678901234567890123456789012345678", 38, 0, "12345678901234567890123456789012345678"},
                        {"0.10e1", 3, 0, "1"},
                        {"0.99", 2, 2, "0.99"},
                        {"1", 2, 2, ""}}) {
    const auto decimal = Decimal::parse(c.text, c.precision, c.scale);
    EXPECT_EQ(decimal ? decimal->to_string() : "", c.expected) << c.text;
  }
}

TEST(Types, DecimalsCompareByValue) {
  const auto decimal = [](std::string_view text) { return Decimal::parse(text, 20, 2).value(); };
  const std::vector<std::string_view> ascending = {"-100", "-99.5", "-9", "-0.01", "0",  "0.01",
                                                   "0.1",  "9",     "10", "10.01", "100"};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    for (std::size_t k = 0; k < ascending.size(); ++k) {
      EXPECT_EQ(decimal(ascending[i]) <=> decimal(ascending[k]), i <=> k) << ascending[i] << " " << ascending[k];
    }
  }
}

TEST(Reach, GivesAMemberBehindOptionalRecordsOrNothing) {
  struct Leaf {
    int number = 7;
    std::optional<std::string> text{};
  };
  struct Branch {
    std::optional<Leaf> maybe{};
    Leaf sure{};
  };
  std::optional<Branch> tree;
  EXPECT_EQ(reach(tree, &Branch::sure, &Leaf::number), std::nullopt);
  tree.emplace();
  EXPECT_EQ(reach(tree, &Branch::sure, &Leaf::number), 7);
  EXPECT_EQ(reach(tree, &Branch::maybe, &Leaf::number), std::nullopt);
  tree->maybe = Leaf{.number = 8, .text = "eight"};
  EXPECT_EQ(reach(tree, &Branch::maybe, &Leaf::number), 8);
  EXPECT_EQ(reach(tree, &Branch::maybe, &Leaf::text), "eight");
  EXPECT_EQ(reach(tree, &Branch::sure, &Leaf::text), std::nullopt);
}

TEST(Reach, GivesAnItemOfAListOrNothing) {
  struct Item {
    int number = 7;
    std::optional<std::vector<std::string>> words{};
  };
  struct List {
    std::vector<Item> items{};
    std::optional<std::vector<bool>> flags{};
  };
  List list;
  EXPECT_EQ(reach(list.items, 0, &Item::number), std::nullopt);
  EXPECT_EQ(reach(list.flags, 0), std::nullopt);
  list.items = {Item{}, Item{.number = 8, .words = {{"a", "b"}}}};
  list.flags = {true};
  EXPECT_EQ(reach(list.items, 0, &Item::number), 7);
  EXPECT_EQ(reach(list.items, 1, &Item::words, 1), "b");
  EXPECT_EQ(reach(list.items, 1, &Item::words, 2), std::nullopt);
  EXPECT_EQ(reach(list.items, 0, &Item::words, 0), std::nullopt);
  EXPECT_EQ(reach(list.items, 2, &Item::number), std::nullopt);
  EXPECT_EQ(reach(list.flags, 0), true);
  EXPECT_EQ(reach(std::optional(list), &List::items, 1, &Item::number), 8);
}

int read_fresh(Reader& in) {
  static constexpr Field kFields[] = {{"id", json::kFresh}, {"workflow"}, {"inner", json::kOptional}};
  for (Object fields(in, kFields); fields.next();) {
    if (fields.index() == 2) {
      read_fresh(in);
    } else {
      in.string();
    }
  }
  return 0;
}

TEST(JsonReader, OnlyADocumentThatIsCompletedMayLackWhatIsMadeAndOnlyThere) {
  EXPECT_EQ(violations_of("{}", read_fresh), "/id|is required\n/workflow|is required\n");
  EXPECT_EQ(violations_of(R"({"id": null, "workflow": "w"})", read_fresh), "/id|must be a string, not null\n");
  EXPECT_EQ(violations_of_new("{}", read_fresh, {"/workflow"}), "");
  EXPECT_EQ(violations_of_new(R"({"id": null, "workflow": null})", read_fresh, {"/workflow"}), "");
  EXPECT_EQ(violations_of_new("{}", read_fresh, {}), "/workflow|is required\n");
  EXPECT_EQ(violations_of_new(R"({"inner": {}})", read_fresh, {"/workflow"}), "/inner/workflow|is required\n");
  EXPECT_EQ(violations_of_new(R"({"workflow": "w", "inner": {}})", read_fresh, {"/inner/workflow"}), "");
  // Nothing of it is left for the next document of the thread.
  EXPECT_EQ(violations_of("{}", read_fresh), "/id|is required\n/workflow|is required\n");
}

TEST(Json, AValueIsJsonOfAColumnAndNothingStaysNothing) {
  EXPECT_EQ(json::as_json(std::vector<int>{1, 2}), Json{"[1,2]"});
  EXPECT_EQ(json::as_json(std::optional<std::vector<int>>{}), std::nullopt);
  EXPECT_EQ(json::as_json(std::optional(std::vector<int>{})), Json{"[]"});
}

TEST(Types, TextsAreJoined) {
  const std::optional<std::string> absent;
  EXPECT_EQ(concat("a/", std::string("b"), '/' == '/', std::int32_t{7}, std::int64_t{-8}, 0.5, absent,
                   ObjectKey<example::PdfFiles>{"k"}, *parse_date("2025-01-15")),
            "a/btrue7-80.5k2025-01-15");
}

TEST(Types, ShaAndBase64AreThoseOfTheStandards) {
  Sha256 hash;
  hash.update(bytes_of("a"));
  hash.update(bytes_of("bc"));
  EXPECT_EQ(hex(hash.finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::pair<std::string_view, std::string_view> pairs[] = {
      {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}};
  for (const auto& [plain, coded] : pairs) {
    EXPECT_EQ(base64(bytes_of(plain)), coded);
    EXPECT_EQ(text_of(decode_base64(coded).value()), plain);
  }
  EXPECT_EQ(base64url(bytes_of("\xff\xef")), "_-8=");
  EXPECT_EQ(base64url(bytes_of("\xff\xef"), false), "_-8");
  for (const std::string_view text :
       {"Z", "Zg", "Zg=", "Zh==", "Zg==Zg==", "Zm9v\n", "Zm 9v", "_-8=", "====", "Z==="}) {
    EXPECT_FALSE(decode_base64(text)) << text;
  }
}

TEST(Types, NuidsAre22CharactersAndNeverTheSame) {
  std::set<std::string> all;
  for (int i = 0; i < 10000; ++i) all.insert(nuid());
  EXPECT_EQ(all.size(), 10000u);
  for (const std::string& text : all) {
    ASSERT_EQ(text.size(), 22u);
    ASSERT_EQ(text.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
              std::string::npos);
  }
}

// ---- reading JSON ---------------------------------------------------------------------------------------------------

const std::vector<std::string>& good_documents() {
  static const std::vector<std::string> all = {"null",
                                               "true",
                                               "false",
                                               "0",
                                               "-0",
                                               "-0.0",
                                               "1e400",
                                               "-1E+2",
                                               "0.1e-1",
                                               "123456789012345678901234567890",
                                               "\"\"",
                                               " [ ] ",
                                               "[]",
                                               "{}",
                                               "\t\r\n {\"a\" : [ 1 , 2 ] } \n",
                                               R"("\u0000\"\\\/\b\f\n\r\t")",
                                               R"("\uD83D\uDE00")",
                                               R"("\uFFFF")",
                                               "\"\x7f\"",
                                               "\"\xF4\x8F\xBF\xBF\"",
                                               "\"\xEF\xBF\xBE\"",
                                               R"({"a":1,"A":1,"":2," ":3})",
                                               R"({"a":{"a":{"a":1}}})",
                                               "[1,[2,[3,[]]],{}]",
                                               "\"a long string of more than one word, with 'quotes' and / in it\"",
                                               repeat("[", 64) + repeat("]", 64),
                                               "[" + repeat("0,", 5000) + "0]"};
  return all;
}

const std::vector<std::string>& bad_documents() {
  static const std::vector<std::string> all = [] {
    std::vector<std::string> texts = {"",
                                      " ",
                                      "\n",
                                      "\xEF\xBB\xBF{}",
                                      "\xEF\xBB\xBF",
                                      "nul",
                                      "nulll",
                                      "True",
                                      "tru",
                                      "truth",
                                      "NaN",
                                      "Infinity",
                                      "-Infinity",
                                      "-",
                                      "+1",
                                      "01",
                                      "-01",
                                      "00",
                                      "1.",
                                      ".1",
                                      "1.e1",
                                      "1e",
                                      "1e+",
                                      "1e-",
                                      "0e",
                                      "0x10",
                                      "1_000",
                                      "1 2",
                                      "--1",
                                      "1-",
                                      "1+1",
                                      "-a",
                                      "'a'",
                                      "\"",
                                      "\"a",
                                      "\"\\",
                                      "\"\\\"",
                                      R"("\x")",
                                      R"("\u")",
                                      R"("\u12")",
                                      R"("\u123g")",
                                      R"("\uD800")",
                                      R"("\uDC00")",
                                      R"("\uD800\n")",
                                      R"("\uD800\u0041")",
                                      R"("\uD800x")",
                                      R"("\uDE00\uD83D")",
                                      R"("\ud83d\ud83d")",
                                      R"("\U0041")",
                                      "\"\t\"",
                                      "\"\n\"",
                                      "\"a\x1f\"",
                                      "[",
                                      "]",
                                      "[1",
                                      "[1,",
                                      "[1,]",
                                      "[,1]",
                                      "[,]",
                                      "[1 2]",
                                      "[1,,2]",
                                      "[1:2]",
                                      "[]]",
                                      "[}",
                                      "{",
                                      "}",
                                      "{]",
                                      "{\"a\"",
                                      "{\"a\":",
                                      "{\"a\":1",
                                      "{\"a\":1,",
                                      "{\"a\":1,}",
                                      "{,}",
                                      "{a:1}",
                                      "{1:1}",
                                      "{\"a\" 1}",
                                      "{\"a\"::1}",
                                      "{\"a\":}",
                                      "{\"a\":1 \"b\":2}",
                                      "{\"a\":1,,\"b\":2}",
                                      "{null:1}",
                                      "{'a':1}",
                                      "{\"a\":1}}",
                                      "{}x",
                                      "{} {}",
                                      "[1]//",
                                      "/**/1",
                                      "#1",
                                      "\xC3\xA9",
                                      "\"\xff\"",
                                      "\"\xC0\xAF\"",
                                      "\"\xED\xA0\x80\"",
                                      "\"\xF4\x90\x80\x80\"",
                                      "\"\xE2\x82\"",
                                      "\"\x80\"",
                                      "\xA0\x31",
                                      "\v1",
                                      "1\f",
                                      "\xEF\xBB\xBF",
                                      R"({"a":1,"a":1})",
                                      R"({"a":1,"b":2,"a":null})",
                                      R"({"a":1,"\u0061":2})",
                                      R"([{"x":{"y":1,"y":1}}])",
                                      R"({"":1,"":2})",
                                      "[\"a\",\n4\n,1,",
                                      "[1.5.5]",
                                      "{\"a\":\"b\"}#",
                                      "[\"\\a\"]",
                                      "[\"\\\"]",
                                      "[tru]",
                                      "[nul]",
                                      "[1e]",
                                      "{\"a\":01}"};
    texts.push_back("\0"s);
    texts.push_back("1\0"s);
    texts.push_back("[1]\0"s);
    texts.push_back("\"a\0b\""s);
    texts.push_back("[\0]"s);
    texts.push_back("{\"a\"\0:1}"s);
    texts.push_back(repeat("[", 65) + repeat("]", 65));
    texts.push_back(repeat("[", 10'000));
    texts.push_back(repeat("[", 10'000) + repeat("]", 10'000));
    texts.push_back(repeat("{\"a\":", 10'000) + "1" + repeat("}", 10'000));
    std::string keys = "{";
    for (int i = 0; i < 100; ++i) keys += "\"k" + std::to_string(i) + "\":0,";
    texts.push_back(keys + "\"k50\":0}");
    return texts;
  }();
  return all;
}

TEST(JsonReader, GoodJsonIsTakenAndKeptExactly) {
  for (const std::string& text : good_documents()) {
    Json read;
    ASSERT_NO_THROW(read = json::parse(text, read_json)) << text;
    const auto begin = text.find_first_not_of(" \t\r\n");
    EXPECT_EQ(read.text, text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin));
  }
}

TEST(JsonReader, BadJsonIsRefusedAsAJsonValue) {
  for (const std::string& text : bad_documents())
    EXPECT_THROW(json::parse(text, read_json), Invalid) << text.substr(0, 80);
}

TEST(JsonReader, BadJsonIsRefusedInAFieldThatNobodyReads) {
  for (const std::string& text : good_documents()) {
    if (text.starts_with("[[[[")) continue;  // one level too deep in an object
    EXPECT_EQ(violations_of("{\"unknown\":" + text + "}", read_nothing), "") << text;
  }
  for (const std::string& text : bad_documents()) {
    EXPECT_THROW(json::parse("{\"unknown\":" + text + "}", read_nothing), Invalid) << text.substr(0, 80);
    EXPECT_THROW(json::parse("[{\"unknown\":" + text + "}]", [](Reader& in) { return in.list<int>(read_nothing); }),
                 Invalid)
        << text.substr(0, 80);
  }
}

TEST(JsonReader, BadJsonIsRefusedWhenNobodyReadsAnything) {
  for (const std::string& text : bad_documents()) {
    EXPECT_THROW(json::parse(text, [](Reader&) { return 0; }), Invalid) << text.substr(0, 80);
  }
}

TEST(JsonReader, EveryProperBeginningOfADocumentIsRefused) {
  const std::string text = R"({"a":[1.5e3,"x\u00e9\ud83d\ude00",true,null,{"b":-0}],"c":"é"})";
  ASSERT_EQ(violations_of(text, read_json), "");
  for (std::size_t size = 0; size < text.size(); ++size) {
    EXPECT_THROW(json::parse(std::string_view(text).substr(0, size), read_json), Invalid) << size;
  }
}

TEST(JsonReader, DepthIsWhatTheCallerAllows) {
  const auto depth = [](std::size_t levels, int allowed) {
    const std::string text = repeat("[", levels) + repeat("]", levels);
    Reader in(text, allowed);
    in.json();
    in.finish();
  };
  EXPECT_NO_THROW(depth(3, 3));
  EXPECT_THROW(depth(4, 3), Invalid);
  EXPECT_NO_THROW(depth(100'000, 100'000));  // nor does it cost stack
}

TEST(JsonReader, StringsAreUnescaped) {
  const auto read = [](std::string_view text) { return json::parse(text, [](Reader& in) { return in.string(); }); };
  EXPECT_EQ(read(R"("plain")"), "plain");
  EXPECT_EQ(read(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(read(R"("a\u0000b")"), "a\0b"s);
  EXPECT_EQ(read(R"("\u0041\u00e9\u20AC\ud83d\uDE00!")"), "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80!");
  for (std::size_t size = 0; size < 70; ++size) {  // whatever the scan takes at a time
    const std::string text(size, 'x');
    EXPECT_EQ(read("\"" + text + "\\n" + text + "\""), text + "\n" + text);
  }
}

TEST(JsonReader, ValuesOfEveryTypeGoOutAndIn) {
  example::Event event{.id = Uuid::random(),
                       .at = micros(1'709'208'000'000'500),
                       .day = *parse_date("2024-02-29"),
                       .price = *Decimal::parse("-12.5", 10, 2),
                       .placement = example::Placement::kBottom,
                       .pdf = {"a/b.pdf"},
                       .blob = {std::byte{0}, std::byte{255}},
                       .extra = {R"({"any": [1e400]})"},
                       .items = {{"one"}, {"two", 2}},
                       .by_name = {{"k\"ey", {"x"}}, {"é/~", {"y", 7}}},
                       .tags = {"", "line\nbreak", "nul\0!"s},
                       .flags = {true, false},
                       .numbers = {{"pi", {3.141592653589793, 1e-300, -0.0, 1e22, 0.1}}, {"none", {}}},
                       .maybe = {},
                       .maybe_placement = example::Placement::kTop,
                       .maybe_items = {{{"z"}}}};
  const std::string text = json::to_json(event);
  EXPECT_TRUE(json::parse(text, example::read_event) == event) << text;
  EXPECT_EQ(text.find("\"maybe\""), std::string::npos);
  EXPECT_NE(text.find(R"("price":"-12.50")"), std::string::npos);
  EXPECT_NE(
      text.find(
          R"("placement":"bottom","pdf":"a/b.pdf","blob":"AP8=","extra":{"any": [1e400]},"items":[{"name":"one"},{"name":"two","count":2}])"),
      std::string::npos)
      << text;
}

TEST(JsonReader, FieldsMayComeInAnyOrderWithUnknownOnesBetween) {
  const auto item = json::parse(R"({"x":[{}],"count":3,"y":null,"n\u0061me":"a"})", example::read_item);
  EXPECT_EQ(item, (example::Item{"a", 3}));
  EXPECT_EQ(json::parse(R"({"count":null,"name":"a"})", example::read_item), (example::Item{"a", std::nullopt}));
}

TEST(JsonReader, EveryViolationIsReportedWithItsPointer) {
  const auto read = [](Reader& in) {
    return in.map<std::vector<example::Item>>(
        [](Reader& entry) { return entry.list<example::Item>(example::read_item, {.min_length = 1}); });
  };
  EXPECT_EQ(
      violations_of(R"({"a/b~c":[{"name":"toolong","count":0},{"count":1.0},{"name":5,"count":"x"},7],"b":[],"c":{},
                              "d":[{"name":"é€😀xx","count":101},{"name":"","name":"x","u":1,"u":2}]})",
                    read),
      "/a~1b~0c/0/name|must have at most 5 characters\n"
      "/a~1b~0c/0/count|must be at least 1\n"
      "/a~1b~0c/1/count|must be a whole number, without a point or an exponent\n"
      "/a~1b~0c/1/name|is required\n"
      "/a~1b~0c/2/name|must be a string, not a number\n"
      "/a~1b~0c/2/count|must be a whole number, not a string\n"
      "/a~1b~0c/3|must be an object, not a number\n"
      "/b|must have at least 1 items\n"
      "/c|must be an array, not an object\n"
      "/d/0/count|must be at most 100\n"
      "/d/1/name|must have at least 1 characters\n"
      "/d/1/name|is given more than once\n"
      "/d/1/u|is given more than once\n");
  EXPECT_EQ(violations_of("5", example::read_item), "|must be an object, not a number\n");
  EXPECT_EQ(violations_of(R"({"name":null})", example::read_item), "/name|must be a string, not null\n");
}

TEST(JsonReader, AnErrorNamesPlacesButNeverValues) {
  try {
    json::parse(R"({"name":"top secret","count":"hidden","x\r\ny":{"a":"classified","a":1}})", example::read_item);
    FAIL();
  } catch (const Invalid& invalid) {
    const std::string what = invalid.what();
    for (const std::string_view value : {"secret", "hidden", "classified", "\r", "\n"})
      EXPECT_EQ(what.find(value), std::string::npos) << what;
    EXPECT_NE(what.find("/name must have at most 5 characters; /count must be a whole number"), std::string::npos)
        << what;
  }
  try {
    json::parse(R"({"name":"secret" "count":1})", example::read_item);
    FAIL();
  } catch (const Invalid& invalid) {
    EXPECT_STREQ(invalid.what(), "the message is not valid: the document is not JSON: expected ',' or '}' at byte 17");
  }
}

TEST(JsonReader, ViolationsAreBounded) {
  const auto read = [](Reader& in) { return in.list<std::string>([](Reader& item) { return item.string(); }); };
  try {
    json::parse("[" + repeat("1,", 1000) + "1]", read);
    FAIL();
  } catch (const Invalid& invalid) {
    EXPECT_EQ(invalid.violations().size(), 50u);
    EXPECT_LT(std::string(invalid.what()).size(), 1100u);
  }
  const std::string key(100'000, 'k');
  EXPECT_LT(violations_of("{\"" + key + "\":{\"" + key + "\":1,\"" + key + "\":1}}", read_json).size(), 1000u);
}

TEST(JsonReader, IntegersAreWholeAndInRange) {
  const auto small = [](Reader& in) { return in.int32(); };
  const auto large = [](Reader& in) { return in.int64(); };
  EXPECT_EQ(json::parse("-2147483648", small), std::numeric_limits<std::int32_t>::min());
  EXPECT_EQ(json::parse("2147483647", small), std::numeric_limits<std::int32_t>::max());
  EXPECT_EQ(json::parse("-9223372036854775808", large), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(json::parse("9223372036854775807", large), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(json::parse("-0", large), 0);
  for (const std::string_view text : {"2147483648", "-2147483649", "1.0", "1e3", "1E0", "99999999999999999999999",
                                      "true", "\"1\"", "null", "[1]", "{}"}) {
    EXPECT_NE(violations_of(text, small), "") << text;
  }
  EXPECT_EQ(violations_of("9223372036854775808", large), "|must be at most 9223372036854775807\n");
  EXPECT_EQ(violations_of("-9223372036854775809", large), "|must be at least -9223372036854775808\n");
}

TEST(JsonReader, DoublesAreFiniteAndInRange) {
  const auto read = [](Reader& in) { return in.float64(); };
  EXPECT_EQ(json::parse("1", read), 1.0);
  EXPECT_EQ(json::parse("1.7976931348623157e308", read), 1.7976931348623157e308);
  EXPECT_EQ(json::parse("5e-324", read), 5e-324);
  EXPECT_EQ(json::parse("1e-400", read), 0.0);
  EXPECT_EQ(json::parse("0.0000001e-400", read), 0.0);
  EXPECT_EQ(json::parse("123456789012345678901234567890", read), 123456789012345678901234567890.0);
  for (const std::string_view text : {"1e309", "-1e400", "100e400", "0.001e400", "\"1\"", "null"})
    EXPECT_NE(violations_of(text, read), "") << text;
  EXPECT_NE(violations_of("0.5", [](Reader& in) { return in.float64({.min = 1}); }), "");
  EXPECT_NE(violations_of("2.5", [](Reader& in) { return in.float64({.max = 2}); }), "");
}

TEST(JsonReader, DecimalsComeAsStringsOrNumbersAndHaveLimits) {
  const auto read = [](Reader& in) { return in.decimal({.precision = 6, .scale = 2, .min = "-1e1", .max = "99.995"}); };
  for (const std::string_view text : {"12.5", "\"12.50\"", "1.25e1", "1250e-2"})
    EXPECT_EQ(json::parse(text, read).to_string(), "12.50") << text;
  EXPECT_EQ(json::parse("-10", read).to_string(), "-10.00");
  EXPECT_EQ(violations_of("-10.01", read), "|must be at least -1e1\n");
  EXPECT_EQ(violations_of("100", read), "|must be at most 99.995\n");
  for (const std::string_view text : {"1.005", "99999", "\"abc\"", "\"\"", "\" 1\"", "true", "null", "[]"})
    EXPECT_NE(violations_of(text, read), "") << text;
}

TEST(JsonReader, OtherTypesAreChecked) {
  EXPECT_NE(violations_of(R"("x")", [](Reader& in) { return in.uuid(); }), "");
  EXPECT_NE(violations_of("1", [](Reader& in) { return in.uuid(); }), "");
  EXPECT_NE(violations_of(R"("2025-01-15")", [](Reader& in) { return in.timestamp(); }), "");
  EXPECT_NE(violations_of(R"("2025-02-30")", [](Reader& in) { return in.date(); }), "");
  EXPECT_NE(violations_of(R"("Zg")", [](Reader& in) { return in.bytes(); }), "");
  EXPECT_NE(violations_of(R"("Zg==")", [](Reader& in) { return in.bytes({.min_length = 2}); }), "");
  EXPECT_NE(violations_of("1", [](Reader& in) { return in.boolean(); }), "");
  EXPECT_THROW(json::parse("tru", [](Reader& in) { return in.boolean(); }), Invalid);
  EXPECT_EQ(violations_of(R"("left")", example::read_placement), "|must be one of top, bottom\n");
  EXPECT_NE(violations_of(R"("")", [](Reader& in) { return in.object_key<example::PdfFiles>().name; }), "");
  EXPECT_EQ(violations_of("1",
                          [](Reader& in) {
                            const auto value = in.int32();
                            if (value == 1) in.violation("must not be what it is");
                            return value;
                          }),
            "|must not be what it is\n");
}

TEST(JsonReader, LengthsCountCodePoints) {
  const auto read = [](Reader& in) { return in.string({.min_length = 3, .max_length = 3}); };
  EXPECT_EQ(violations_of("\"é€😀\"", read), "");
  EXPECT_EQ(violations_of(R"("\u00e9\u20ac\ud83d\ude00")", read), "");
  EXPECT_NE(violations_of("\"é€\"", read), "");
  EXPECT_NE(violations_of("\"ab\"", read), "");
  EXPECT_NE(violations_of("\"é€😀x\"", read), "");
}

TEST(JsonReader, AnObjectMayHaveMoreThan64Fields) {
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) names.push_back("f" + std::to_string(i));
  std::vector<Field> fields;
  for (const std::string& name : names) fields.push_back({name});
  const auto read = [&](Reader& in) {
    std::int64_t sum = 0;
    for (Object object(in, fields); object.next();) sum += in.int64() * static_cast<std::int64_t>(object.index());
    return sum;
  };
  std::string text = "{";
  for (int i = 99; i >= 0; --i) text += "\"f" + std::to_string(i) + "\":1" + (i > 0 ? "," : "}");
  EXPECT_EQ(json::parse(text, read), 4950);
  EXPECT_EQ(violations_of("{\"f70\":1," + text.substr(1), read), "/f70|is given more than once\n");
  text.replace(text.find("\"f66\":1,"), 8, "");
  EXPECT_EQ(violations_of(text, read), "/f66|is required\n");
}

TEST(JsonReader, ReadersMayBeNestedAndAnErrorLeavesNothingBehind) {
  const auto outer = json::parse(R"(["[1,2]","[3]"])", [](Reader& in) {
    return in.list<std::size_t>([](Reader& item) {
      const std::string text = item.string();
      EXPECT_THROW(json::parse("[1", read_json), Invalid);
      return json::parse(
                 text,
                 [](Reader& inner) { return inner.list<std::int32_t>([](Reader& number) { return number.int32(); }); })
          .size();
    });
  });
  EXPECT_EQ(outer, (std::vector<std::size_t>{2, 1}));
}

TEST(JsonReader, AValueThatTheCallerForgetsIsCheckedAndSkipped) {
  static constexpr Field kFields[] = {{"a"}, {"b"}};
  const auto read = [](Reader& in) {
    std::int32_t b = 0;
    for (Object fields(in, kFields); fields.next();) {
      if (fields.index() == 1) b = in.int32();
    }
    return b;
  };
  EXPECT_EQ(json::parse(R"({"a":{"x":[1,2]},"b":2})", read), 2);
  EXPECT_THROW(json::parse(R"({"a":{"x":[1,]},"b":2})", read), Invalid);
  EXPECT_THROW(json::parse("[1]", [](Reader& in) { return in.json(), in.json(); }), std::logic_error);
}

TEST(JsonReader, ManyKeysDoNotTakeForEver) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(violations_of(text + "\"last\":0}", read_json), "");
  EXPECT_EQ(violations_of(text + "\"k7\":0}", read_nothing), "/k7|is given more than once\n");
  EXPECT_LT(std::chrono::steady_clock::now() - start, 20s);
}

TEST(JsonPattern, AWholeValueMustMatch) {
  const json::Pattern pattern("[A-Z]{2}-[0-9]+|x");
  EXPECT_TRUE(pattern.matches("AB-123"));
  EXPECT_TRUE(pattern.matches("x"));
  for (const std::string_view text : {"", "AB-123 ", " AB-123", "AB-", "xx", "AB-1\nx", "x\n"})
    EXPECT_FALSE(pattern.matches(text)) << text;
  EXPECT_FALSE(pattern.matches("x\0"s));
  EXPECT_FALSE(pattern.matches("x\0y"s));
  EXPECT_TRUE(json::Pattern("").matches(""));
  EXPECT_TRUE(json::Pattern("a*").matches(std::string(100'000, 'a')));
  EXPECT_TRUE(json::Pattern("^a$").matches("a"));
  EXPECT_TRUE(json::Pattern("..").matches("é€"));
  EXPECT_FALSE(json::Pattern("....").matches("é€"));
  for (const std::string_view expression : {"(", "[a", "a)(b", "a{2,1}", "(a)\\1"})
    EXPECT_THROW(json::Pattern{expression}, ConfigError) << expression;
  EXPECT_EQ(violations_of(R"("ab")", [&](Reader& in) { return in.string({.pattern = &pattern}); }),
            "|must match the pattern [A-Z]{2}-[0-9]+|x\n");
}

TEST(JsonPattern, ThreadsShareIt) {
  const json::Pattern pattern("([a-z]+,)*[a-z]+");
  std::atomic<int> matched = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i)
          matched += pattern.matches("abc,def," + std::string(static_cast<std::size_t>(i) + 1, 'x'));
      });
    }
  }
  EXPECT_EQ(matched, 2000);
}

// ---- writing JSON ---------------------------------------------------------------------------------------------------

TEST(JsonWriter, CommasAndBracketsAreRightHoweverTheyNest) {
  json::Writer out;
  out.begin_array();
  out.begin_array();
  out.end_array();
  out.begin_object();
  out.key("a");
  out.begin_array();
  out.value(std::int32_t{1});
  out.begin_object();
  out.end_object();
  out.null();
  out.end_array();
  out.key("b");
  out.value(true);
  out.end_object();
  out.value("x");
  out.end_array();
  EXPECT_EQ(out.text(), R"([[],{"a":[1,{},null],"b":true},"x"])");
  EXPECT_EQ(json::to_json(std::vector<std::optional<std::int32_t>>{1, std::nullopt, 3}), "[1,null,3]");
  EXPECT_EQ(json::to_json(std::vector<Bytes>{{}, {std::byte{1}}}), R"(["","AQ=="])");
  EXPECT_EQ(json::to_json(std::map<std::string, std::vector<std::string>>{{"a", {"b"}}}), R"({"a":["b"]})");
}

TEST(JsonWriter, WhateverIsWrittenIsReadBack) {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  all += "é€😀";
  for (std::size_t shift = 0; shift < 20; ++shift) {
    const std::string text = std::string(shift, '"') + all + std::string(shift, 'x');
    EXPECT_EQ(json::parse(json::to_json(text), [](Reader& in) { return in.string(); }), text);
  }
  EXPECT_EQ(json::to_json("\"\\\b\f\n\r\t\x01\x1f/\x7f"s), R"("\"\\\b\f\n\r\t\u0001\u001f/)"
                                                           "\x7f\"");
  for (const double number : {0.1, 1.0, 1e300, 5e-324, 123456789.125, -1.0 / 3}) {
    EXPECT_EQ(json::parse(json::to_json(number), [](Reader& in) { return in.float64(); }), number);
  }
  EXPECT_EQ(json::to_json(0.1), "0.1");
}

TEST(JsonWriter, WhatHasNoJsonIsRefused) {
  json::Writer out;
  out.begin_object();
  try {
    out.field("comment", "\xff"s);
    FAIL();
  } catch (const PermanentError& error) {
    EXPECT_STREQ(error.what(), "cannot write JSON: the text of field \"comment\" is not valid UTF-8");
  }
  EXPECT_THROW(json::to_json(std::string(100, 'x') + "\xff"), PermanentError);
  EXPECT_THROW(json::to_json(std::map<std::string, std::string>{{"\xff", ""}}), PermanentError);
  EXPECT_THROW(json::to_json(std::nan("")), PermanentError);
  EXPECT_THROW(json::to_json(INFINITY), PermanentError);
  EXPECT_THROW(json::to_json(Json{"{"}), PermanentError);
  EXPECT_THROW(json::to_json(Json{"1,2"}), PermanentError);
  EXPECT_THROW(json::to_json(Date()), PermanentError);
}

// ---- settings -------------------------------------------------------------------------------------------------------

constexpr std::string_view kToml = R"([nats]
url = "nats://file"
subjects = ["a", "b"]
mixed = ["a", 1]
[worker]
pool_size = 3
ratio = 0.5
on = true
wait = "250ms"
pause = 30
max = "1.5MiB"
[worker.deep-er]
x = "y"
)";

std::string config_error(const std::function<void()>& call) {
  try {
    call();
    return "no error";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(Settings, TheEnvironmentComesBeforeTheFileAndTheFileBeforeTheDefault) {
  const auto settings = Settings::from(
      kToml, "p.toml", {{"NATS_URL", "nats://env"}, {"WORKER_POOL_SIZE", ""}, {"WORKER_DEEP_ER_Z", "7"}});
  EXPECT_EQ(settings.text("nats.url", "d"), "nats://env");
  EXPECT_EQ(settings.integer("worker.pool_size", 9), 3);
  EXPECT_EQ(settings.integer("worker.missing", 9), 9);
  EXPECT_EQ(settings.text("worker.deep-er.x", "d"), "y");
  EXPECT_EQ(settings.integer("worker.deep-er.z", 0), 7);
  EXPECT_EQ(settings.find("worker.pool_size"), "3");
  EXPECT_EQ(settings.find("nothing"), std::nullopt);
  EXPECT_EQ(Settings().text("nats.url", "d"), "d");
}

TEST(Settings, ValuesHaveUnitsAndTypes) {
  const auto settings = Settings::from(kToml, "p.toml",
                                       {{"A_LIST", R"(["x","y\n"])"},
                                        {"A_D1", "24h"},
                                        {"A_D2", "7d"},
                                        {"A_D3", "5m"},
                                        {"A_D4", "1.5s"},
                                        {"A_S1", "1GB"},
                                        {"A_S2", "512MiB"},
                                        {"A_S3", "10"}});
  EXPECT_EQ(settings.number("worker.ratio", 0), 0.5);
  EXPECT_EQ(settings.number("worker.pool_size", 0), 3);
  EXPECT_TRUE(settings.flag("worker.on", false));
  EXPECT_EQ(settings.duration("worker.wait", 0ms), 250ms);
  EXPECT_EQ(settings.duration("worker.pause", 0ms), 30s);
  EXPECT_EQ(settings.duration("a.d1", 0ms), 24h);
  EXPECT_EQ(settings.duration("a.d2", 0ms), 7 * 24h);
  EXPECT_EQ(settings.duration("a.d3", 0ms), 5min);
  EXPECT_EQ(settings.duration("a.d4", 0ms), 1500ms);
  EXPECT_EQ(settings.size("worker.max", 0), 3 << 19);
  EXPECT_EQ(settings.size("a.s1", 0), 1'000'000'000);
  EXPECT_EQ(settings.size("a.s2", 0), 512 << 20);
  EXPECT_EQ(settings.size("a.s3", 0), 10);
  EXPECT_EQ(settings.list("nats.subjects", {}), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(settings.list("a.list", {}), (std::vector<std::string>{"x", "y\n"}));
  EXPECT_EQ(settings.list("a.none", {"d"}), (std::vector<std::string>{"d"}));
}

TEST(Settings, AWrongValueIsNamedWithItsPlaceButNotShown) {
  const auto settings = Settings::from(kToml, "p.toml", {{"A_B", "hunter2"}});
  EXPECT_EQ(config_error([&] { settings.integer("nats.url", 0); }), "p.toml:2:7: nats.url must be a whole number");
  EXPECT_EQ(config_error([&] { settings.integer("worker.ratio", 0); }),
            "p.toml:7:9: worker.ratio must be a whole number");
  EXPECT_EQ(config_error([&] { settings.integer("a.b", 0); }), "A_B must be a whole number");
  EXPECT_EQ(config_error([&] { settings.flag("a.b", false); }), "A_B must be true or false");
  EXPECT_NE(config_error([&] { settings.number("a.b", 0); }), "no error");
  EXPECT_NE(config_error([&] { settings.duration("a.b", 0ms); }), "no error");
  EXPECT_NE(config_error([&] { settings.size("a.b", 0); }), "no error");
  EXPECT_NE(config_error([&] { settings.list("a.b", {}); }), "no error");
  EXPECT_NE(config_error([&] { settings.list("nats.mixed", {}); }), "no error");
  EXPECT_NE(config_error([&] { settings.list("nats.url", {}); }), "no error");
  EXPECT_NE(config_error([&] { settings.text("nats.subjects", ""); }), "no error");
  for (const char* text : {"-1s", "1x", "s", "1.2.3s", "99999999999999999d", "1 0", "nan", "1e3"}) {
    EXPECT_THROW(Settings::from("", "", {{"A_D", text}}).duration("a.d", 0ms), ConfigError) << text;
  }
}

TEST(Settings, AFileThatIsNotTomlIsRefusedWithLineAndColumn) {
  const std::string error = config_error([] { Settings::from("[a]\nb = = 1\n", "p.toml", {}); });
  EXPECT_TRUE(error.starts_with("p.toml:2:")) << error;
}

TEST(Settings, SecretsComeFromAValueAReferenceOrAFile) {
  const TempFolder folder;
  folder.write("pw", "hunter2\n");
  folder.write("crlf", "hunter3\n\r\n");
  const auto settings = Settings::from(
      "[a]\nplain = \"p\"\nref = \"${TOKEN}\"\nlost = \"${NOT_SET}\"\nfiled_file = \"pw\"\ncrlf_file = "
      "\"crlf\"\ngone_file = \"gone\"\n",
      (folder.path() / "project.toml").string(), {{"TOKEN", "t"}, {"A_ENV_FILE", (folder.path() / "pw").string()}});
  EXPECT_EQ(settings.secret("a.plain"), "p");
  EXPECT_EQ(settings.secret("a.ref"), "t");
  EXPECT_EQ(settings.secret("a.filed"), "hunter2");
  EXPECT_EQ(settings.secret("a.crlf"), "hunter3\n");
  EXPECT_EQ(settings.secret("a.env"), "hunter2");
  EXPECT_EQ(settings.secret("a.none"), std::nullopt);
  EXPECT_NE(config_error([&] { settings.secret("a.lost"); }).find("NOT_SET, which is not set"), std::string::npos);
  EXPECT_NE(config_error([&] { settings.secret("a.gone"); }).find("a.gone_file: cannot read the file"),
            std::string::npos);
}

TEST(Settings, AnIntegerOutOfItsRangeIsRefused) {
  const auto settings = Settings::from("[a]\nb = 5\nc = 4294982289\n", "p.toml", {{"A_D", "-1"}});
  EXPECT_EQ(settings.integer("a.b", 9, 5, 5), 5);
  EXPECT_EQ(settings.integer("a.none", 9, 1, 5), 9);
  EXPECT_EQ(config_error([&] { settings.integer("a.b", 9, 6, 8); }),
            "p.toml:2:5: a.b must be a whole number from 6 to 8");
  EXPECT_EQ(config_error([&] { settings.integer("a.c", 9, 0, 65'535); }),
            "p.toml:3:5: a.c must be a whole number from 0 to 65535");
  EXPECT_EQ(config_error([&] { settings.integer("a.d", 9, 0, 1); }), "A_D must be a whole number from 0 to 1");
}

TEST(Settings, AnEnvironmentVariableWinsOverTheFileForSecretsToo) {
  const std::filesystem::path folder = std::filesystem::temp_directory_path();
  const std::filesystem::path path = folder / ("pipegen-secret-" + std::to_string(::getpid()));
  std::ofstream(path) << "from the variable's file\n";
  const auto settings = Settings::from("[a]\nb = \"from project.toml\"\n", "p.toml", {{"A_B_FILE", path.string()}});
  EXPECT_EQ(settings.secret("a.b"), "from the variable's file");
  const auto both = Settings::from("", "p.toml", {{"A_B_FILE", path.string()}, {"A_B", "from the variable"}});
  EXPECT_EQ(both.secret("a.b"), "from the variable");
  std::filesystem::remove(path);
}

TEST(Settings, NamesWhatASectionShouldNotHave) {
  const auto settings = Settings::from("[a]\nb = 1\nbb = 2\n[ab]\nc = 1\n[a.d]\ne = 1\n", "p.toml", {});
  EXPECT_EQ(settings.unknown("a", {"b", "d.e"}), (std::vector<std::string>{"p.toml:3:6: a.bb"}));
  EXPECT_TRUE(settings.unknown("none", {}).empty());
}

TEST(Settings, TheFileIsFoundInAParentFolderOrByItsName) {
  const TempFolder folder;
  folder.write("project.toml", "[x]\ny = \"parent\"\n");
  const auto other = folder.write("other.toml", "[x]\ny = \"named\"\n");
  const auto before = std::filesystem::current_path();
  std::filesystem::create_directories(folder.path() / "a" / "b");
  std::filesystem::current_path(folder.path() / "a" / "b");
  EXPECT_EQ(Settings::load().text("x.y", ""), "parent");
  ::setenv("PIPEGEN_CONFIG", other.c_str(), 1);
  EXPECT_EQ(Settings::load().text("x.y", ""), "named");
  ::setenv("X_Y", "variable", 1);
  EXPECT_EQ(Settings::load().text("x.y", ""), "variable");
  ::unsetenv("X_Y");
  ::setenv("PIPEGEN_CONFIG", "/nowhere/project.toml", 1);
  EXPECT_EQ(config_error([] { Settings::load(); }), "PIPEGEN_CONFIG: cannot read the file /nowhere/project.toml");
  ::setenv("PIPEGEN_CONFIG", folder.path().c_str(), 1);
  const std::string folder_named = config_error([] { Settings::load(); });
  EXPECT_TRUE(folder_named.starts_with("PIPEGEN_CONFIG: cannot read the file ")) << folder_named;
  ::unsetenv("PIPEGEN_CONFIG");
  std::filesystem::current_path(before);
}

// ---- log ------------------------------------------------------------------------------------------------------------

TEST(Log, ALineIsJsonWithItsFieldsInOrder) {
  Logger().error("before configure");  // nowhere
  ::testing::internal::CaptureStderr();
  Logger::configure("t\"ts", LogLevel::kInfo);
  const Logger log = Logger().with({{"workflow_id", "w"}}).with({{"bad", "\xff\n"}});
  log.debug("not shown");
  log.info("page \"1\"\n",
           {{"page", 3}, {"ok", true}, {"ratio", 0.5}, {"nan", std::nan("")}, {"size", std::size_t{4711}}});
  log.warning("careful \xC3");
  log.error("bad");
  const std::string text = ::testing::internal::GetCapturedStderr();
  Logger::configure("test", LogLevel::kError);
  std::istringstream lines(text);
  std::vector<std::string> all;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(violations_of(line, read_json), "") << line;
    const auto level = line.find("\"level\"");
    ASSERT_TRUE(line.starts_with("{\"time\":\"") && level != std::string::npos) << line;
    EXPECT_TRUE(parse_timestamp(std::string_view(line).substr(9, level - 11))) << line;
    all.push_back("{" + line.substr(level));
  }
  ASSERT_EQ(all.size(), 3u) << text;
  EXPECT_EQ(
      all[0],
      R"({"level":"info","service":"t\"ts","message":"page \"1\"\n","workflow_id":"w","bad":"�\n","page":3,"ok":true,"ratio":0.5,"nan":"NaN","size":4711})");
  EXPECT_EQ(all[1], R"({"level":"warning","service":"t\"ts","message":"careful �","workflow_id":"w","bad":"�\n"})");
  EXPECT_EQ(all[2], R"({"level":"error","service":"t\"ts","message":"bad","workflow_id":"w","bad":"�\n"})");
}

TEST(Log, LinesOfSeveralThreadsAreWhole) {
  ::testing::internal::CaptureStderr();
  Logger::configure("test", LogLevel::kInfo);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([] {
        for (int i = 0; i < 200; ++i) Logger().info(std::string(500, 'x'));
      });
    }
  }
  std::istringstream lines(::testing::internal::GetCapturedStderr());
  Logger::configure("test", LogLevel::kError);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) ASSERT_EQ(violations_of(line, read_json), "") << line;
  EXPECT_EQ(count, 800);
}

// ---- metrics --------------------------------------------------------------------------------------------------------

TEST(Metrics, AreRenderedAsPrometheusText) {
  Metrics metrics;
  Counter& counter = metrics.counter("messages_total", "Messages.", {{"stage", "t\"ts"}});
  counter.add();
  counter.add(2);
  EXPECT_EQ(&counter, &metrics.counter("messages_total", "Messages.", {{"stage", "t\"ts"}}));
  metrics.counter("messages_total", "Messages.", {{"stage", "ocr"}}).add();
  metrics.gauge("in_flight", "Now.").set(5);
  metrics.gauge("in_flight", "Now.").add(-2);
  metrics.seconds("duration_seconds", "Time.", {{"stage", "tts"}}).observe(0.03);
  metrics.bytes("size_bytes", "Size.").observe(5000);
  const std::string text = metrics.render();
  for (const std::string_view line :
       {"# HELP messages_total Messages.", "# TYPE messages_total counter", R"(messages_total{stage="t\"ts"} 3)",
        R"(messages_total{stage="ocr"} 1)", "in_flight 3", R"(duration_seconds_bucket{stage="tts",le="0.025"} 0)",
        R"(duration_seconds_bucket{stage="tts",le="0.05"} 1)", R"(duration_seconds_bucket{stage="tts",le="600"} 1)",
        R"(duration_seconds_count{stage="tts"} 1)", R"(size_bytes_bucket{le="4096"} 0)",
        R"(size_bytes_bucket{le="16384"} 1)"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
  EXPECT_THROW(metrics.counter("not a name", ""), std::exception);
}

// ---- programs -------------------------------------------------------------------------------------------------------

TEST(Process, ArgumentsGoAsTheyAreAndTheExitStatusComesBack) {
  const auto result =
      run_program({"/bin/sh", "-c", "printf '%s|' \"$0\" \"$@\"; echo oops >&2; exit 3", "a b", "$HOME", "*", ""});
  EXPECT_EQ(text_of(result.output), "a b|$HOME|*||");
  EXPECT_EQ(result.errors, "oops\n");
  EXPECT_EQ(result.exit_status, 3);
  EXPECT_EQ(run_program({"sh", "-c", "kill -9 $$"}).exit_status, 128 + 9);
}

TEST(Process, MuchInputAndMuchOutputAtOnceDoNotBlock) {
  const std::string text = repeat("0123456789abcdef", 1 << 18);  // 4 MiB
  const auto result = run_program({"cat"}, {.input = bytes_of(text)});
  EXPECT_EQ(result.exit_status, 0);
  EXPECT_TRUE(text_of(result.output) == text);
}

TEST(Process, AProgramMayLeaveItsInputUnread) {
  const std::string text(8 << 20, 'x');
  EXPECT_EQ(text_of(run_program({"head", "-c", "3"}, {.input = bytes_of(text)}).output), "xxx");
  EXPECT_EQ(run_program({"true"}, {.input = bytes_of(text)}).exit_status, 0);
  // Also one that closes it and lives on.
  EXPECT_EQ(text_of(run_program({"sh", "-c", "exec <&-; echo on"}, {.input = bytes_of(text)}).output), "on\n");
  sigset_t pending;
  ::sigpending(&pending);
  EXPECT_FALSE(::sigismember(&pending, SIGPIPE));
}

TEST(Process, StandardErrorIsKeptInItsLast4KiB) {
  const auto result = run_program({"sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done"});
  EXPECT_EQ(result.errors.size(), 4096u);
  EXPECT_TRUE(result.errors.ends_with("line 1999\n"));
}

TEST(Process, WhatCannotRunIsAPermanentError) {
  const auto message = [](const std::vector<std::string>& arguments,
                          const ProgramOptions& options = {}) -> std::string {
    try {
      run_program(arguments, options);
      return "no error";
    } catch (const PermanentError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(message({"true"}, {.directory = "/no/such/folder"}),
            "the program true cannot run in /no/such/folder: no such folder");
  EXPECT_EQ(message({"sh", "-c", "yes; true"}, {.max_output = 1 << 20}),
            "the program sh wrote more than 1048576 bytes of output");
  EXPECT_NE(message({}), "no error");
  EXPECT_NE(message({"echo", "a\0b"s}), "no error");
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a zombie is left";
  EXPECT_EQ(errno, ECHILD);
}

TEST(Process, AProgramThatIsNotInstalledIsTheFaultOfTheSettings) {
  const auto message = [](const std::string& program) -> std::string {
    try {
      run_program({program});
      return "no error";
    } catch (const ConfigError& error) {
      return error.what();
    }
  };
  const TempFolder folder;
  const std::filesystem::path script = folder.path() / "script";
  std::ofstream(script) << "#!/no/such/interpreter\n";
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  EXPECT_EQ(message("no-such-program-at-all"),
            "cannot start the program no-such-program-at-all: No such file or directory; install it or change the "
            "setting that names it");
  for (const std::string& program : {std::string("/no/such/folder/program"), script.string()}) {
    EXPECT_TRUE(message(program).starts_with("cannot start the program " + program + ": No such file")) << program;
  }
  EXPECT_TRUE(message("/dev/null").starts_with("cannot start the program /dev/null: Permission denied"));
}

TEST(Process, ItRunsInItsFolderWithoutTheCallersDescriptors) {
  const TempFolder folder;
  std::ofstream open(folder.path() / "open");
  const int inheritable = ::dup(1);
  const auto result = run_program({"sh", "-c", "pwd -P; ls /proc/self/fd"}, {.directory = folder.path()});
  ::close(inheritable);
  // 3 is the folder that ls reads.
  EXPECT_EQ(text_of(result.output), std::filesystem::canonical(folder.path()).string() + "\n0\n1\n2\n3\n");
}

/// Runs a script that prints a line when it is set up, and stops it then. Gives how long it took to stop.
std::chrono::milliseconds stop_script(const std::string& script, const std::filesystem::path& ready) {
  std::stop_source stop;
  std::chrono::steady_clock::time_point told;
  std::jthread stopper([&] {
    while (!std::filesystem::exists(ready)) std::this_thread::yield();
    told = std::chrono::steady_clock::now();
    stop.request_stop();
  });
  EXPECT_THROW(run_program({"sh", "-c", script, ready.string()}, {.stop = stop.get_token()}), Cancelled);
  const auto end = std::chrono::steady_clock::now();
  stopper.join();
  return std::chrono::duration_cast<std::chrono::milliseconds>(end - told);
}

bool exists(pid_t pid) { return ::kill(pid, 0) == 0; }

TEST(Process, StoppingEndsItAndItsChildren) {
  const TempFolder folder;
  const auto ready = folder.path() / "ready";
  const auto pids = folder.path() / "pids";
  const auto took = stop_script("sleep 1000 & echo $! > '" + pids.string() + "'; : > \"$0\"; wait", ready);
  EXPECT_LT(took, 1500ms);
  pid_t child = 0;
  std::ifstream(pids) >> child;
  ASSERT_GT(child, 0);
  // Nobody waits for the orphan but init: wait until it is gone or a zombie.
  const auto give_up = std::chrono::steady_clock::now() + 10s;
  const auto runs = [child] {
    std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
    std::string pid, name, state;
    stat >> pid >> name >> state;
    return exists(child) && state != "Z" && state != "X";
  };
  while (runs() && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  EXPECT_FALSE(runs());
}

TEST(Process, WhatDoesNotListenIsKilledAfterTwoSeconds) {
  const TempFolder folder;
  const auto took = stop_script("trap '' TERM; : > \"$0\"; while :; do sleep 0.1; done", folder.path() / "ready");
  EXPECT_GE(took, 1900ms);
  EXPECT_LT(took, 6000ms);
}

TEST(Process, AFloodOfOutputDoesNotHideTheStop) {
  const TempFolder folder;
  EXPECT_LT(stop_script(": > \"$0\"; exec yes >&2", folder.path() / "ready"), 1900ms);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(run_program({"no-such-program"}, {.stop = stop.get_token()}), Cancelled);
}

TEST(Process, WhatItLeavesRunningDoesNotHoldTheCaller) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(text_of(run_program({"sh", "-c", "sleep 1000 & echo done"}).output), "done\n");
  EXPECT_EQ(text_of(run_program({"sh", "-c", "setsid sleep 5 & echo done"}).output), "done\n");
  EXPECT_LT(std::chrono::steady_clock::now() - start, 4s);
}

TEST(Process, ManyThreadsRunPrograms) {
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&good, t] {
        for (int i = 0; i < 10; ++i) {
          const std::string text = std::to_string(t * 100 + i);
          good += text_of(run_program({"cat"}, {.input = bytes_of(text)}).output) == text;
        }
      });
    }
  }
  EXPECT_EQ(good, 80);
}

// ---- subjects -------------------------------------------------------------------------------------------------------

TEST(Subject, PlaceholdersAreFilledWithTokens) {
  EXPECT_EQ(fill_subject("orders.{region}.{kind}.x", {{"kind", "new"}, {"region", "eu-1"}}), "orders.eu-1.new.x");
  EXPECT_EQ(fill_subject("orders.created", {}), "orders.created");
  for (const std::string& value : {""s, "a.b"s, "a b"s, "*"s, ">"s, "a\n"s, "a\0"s, "a\t"s}) {
    EXPECT_THROW(fill_subject("orders.{region}", {{"region", value}}), PermanentError) << value;
  }
  EXPECT_THROW(fill_subject("orders.{region}", {{"kind", "x"}}), PermanentError);
  EXPECT_THROW(fill_subject("orders.{region", {{"region", "x"}}), PermanentError);
}

}  // namespace
}  // namespace pipegen
