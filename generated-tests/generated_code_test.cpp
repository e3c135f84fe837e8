// What the generated code of golden/odd-shapes does: its API's models, parsers and routes, compiled in as they are
// stored.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ingest_api/api.hpp"
#include "ingest_api/events.hpp"

namespace {

using namespace ingest_api;

template <typename T>
T through_json(const T& value, T (*read)(pipegen::json::Reader&)) {
  return pipegen::json::parse(pipegen::json::to_json(value), read);
}

/// Keeps what is published.
class Kept : public pipegen::Outbox {
 public:
  const pipegen::Settings& settings() const override { return settings_; }
  pipegen::Fresh fresh() override { return pipegen::Fresh("id"); }
  void publish(pipegen::Outgoing event) override { events.push_back(std::move(event)); }

  std::vector<pipegen::Outgoing> events;

 private:
  pipegen::Settings settings_;
};

pipegen::IngestApi made_api() { return api(pipegen::Settings()); }

const pipegen::EventRoute& route(const pipegen::IngestApi& api, std::string_view event) {
  return *std::ranges::find(api.events, event, &pipegen::EventRoute::event);
}

TEST(GeneratedCode, records_that_hold_one_another_go_through_json) {
  const Chapter inner{.title = "inner"};
  const Chapter outer{.by_name = {{{"one", Section{.chapters = {{{{"two", inner}}}}}}}},
                      .sections = {{.note = {.about = {{"it", inner}}, .text = "see"}}},
                      .title = "outer"};
  const Book book = through_json(Book{.first = outer}, read_book);
  EXPECT_EQ(book.first.sections.at(0).note.about.at("it").title, "inner");
  EXPECT_EQ(book.first.by_name->at("one").chapters->at(0).at("two").title, "inner");
  EXPECT_FALSE(book.appendix);
}

TEST(GeneratedCode, an_event_without_fields_is_an_empty_object_and_takes_fields_of_later_versions) {
  EXPECT_EQ(pipegen::json::to_json(Tick{}), "{}");
  EXPECT_NO_THROW(pipegen::json::parse(R"({"later": [1, {}]})", read_tick));
  EXPECT_THROW(pipegen::json::parse("[]", read_tick), pipegen::json::Invalid);
}

TEST(GeneratedCode, defaults_of_optional_fields_are_values_also_when_they_are_empty) {
  const BookScanned event = pipegen::json::parse(R"({"scan_key": "a"})", read_book_scanned);
  EXPECT_EQ(event.numbers, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(event.words, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(event.none, std::vector<std::int32_t>{});
  EXPECT_EQ(event.copy_key->name, "a copy");
  EXPECT_FALSE(event.problem);
}

TEST(GeneratedCode, an_object_key_comes_with_the_upload_and_has_to_be_posted) {
  const pipegen::IngestApi api = made_api();
  Kept outbox;
  try {
    route(api, "BookScanned").publish(R"({"accepted": "fully"})", outbox);
    FAIL() << "accepted without its object";
  } catch (const pipegen::json::Invalid& error) {
    ASSERT_EQ(error.violations().size(), 1U);
    EXPECT_EQ(error.violations()[0].pointer, "/scan_key");
  }
  EXPECT_TRUE(outbox.events.empty());
  route(api, "BookScanned").publish(R"({"scan_key": "posted"})", outbox);
  api.uploads.at(0).check(R"({"accepted": "fully"})", "");
  api.uploads.at(0).publish(R"({"accepted": "fully"})", "", "uploaded", outbox);
  ASSERT_EQ(outbox.events.size(), 2U);
  EXPECT_EQ(pipegen::json::parse(outbox.events[0].payload, read_book_scanned).scan_key.name, "posted");
  EXPECT_EQ(pipegen::json::parse(outbox.events[1].payload, read_book_scanned).scan_key.name, "uploaded");
}

TEST(GeneratedCode, the_description_is_json_whatever_the_docs_say_and_keeps_its_own_schemas_apart) {
  const auto document = nlohmann::json::parse(openapi());
  const auto& schemas = document.at("components").at("schemas");
  EXPECT_TRUE(schemas.at("Problem").at("properties").contains("text"));
  EXPECT_TRUE(schemas.at("pipegen.Problem").at("properties").contains("detail"));
  EXPECT_EQ(schemas.at("Accepted").at("enum"), (nlohmann::json{"fully", "partly"}));
  EXPECT_TRUE(schemas.at("pipegen.Accepted").at("properties").contains("message_id"));
  EXPECT_EQ(document.at("paths").at("/events/BookScanned").at("post").at("summary"),
            "A book, )openapi\" and all. Ends in ?\?/");
  EXPECT_EQ(schemas.at("BookScanned").at("properties").at("words").at("description"),
            "Turned \xe2\x80\xae"
            "about\xe2\x80\xac, and \xe2\x81\xa6set apart\xe2\x81\xa9.");
  // Nobody can ask for a workflow where there are none.
  EXPECT_FALSE(document.at("paths").contains("/books/{workflow_id}"));
}

}  // namespace
