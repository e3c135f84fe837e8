#include "plan/plan.hpp"

#include <gtest/gtest.h>

#include "plan/text.hpp"

namespace {

using namespace pipegen::gen;

TEST(Text, names_become_snake_case_with_abbreviations_kept_together) {
  EXPECT_EQ(snake_case("TextProcessedEvent"), "text_processed_event");
  EXPECT_EQ(snake_case("PDFCreatedEvent"), "pdf_created_event");
  EXPECT_EQ(snake_case("pdf-to-png"), "pdf_to_png");
  EXPECT_EQ(snake_case("Order2Item"), "order2_item");
}

TEST(Text, a_cpp_string_survives_quotes_controls_and_trigraphs) {
  EXPECT_EQ(cpp_string("a\"b\\c\n"), R"("a\"b\\c\n")");
  EXPECT_EQ(cpp_string(std::string_view("\0"
                                        "1",
                                        2)),
            R"("\0001")");
  EXPECT_EQ(cpp_string("what?"
                       "?!"),
            R"("what?\?!")");
  EXPECT_EQ(cpp_string("Ünï"), "\"Ünï\"");
}

TEST(Text, durations_are_spelled_in_their_largest_unit) {
  using namespace std::chrono_literals;
  EXPECT_EQ(cpp_duration(24h), "std::chrono::hours(24)");
  EXPECT_EQ(cpp_duration(90s), "std::chrono::seconds(90)");
  EXPECT_EQ(cpp_duration(250ms), "std::chrono::milliseconds(250)");
  EXPECT_EQ(cpp_duration(0ms), "std::chrono::milliseconds(0)");
  EXPECT_EQ(short_duration(5min), "5m");
}

TEST(Text, doc_comments_are_wrapped_and_never_end_in_a_backslash) {
  EXPECT_EQ(doc_lines("one\ntwo \\"), (std::vector<std::string>{"one", "two"}));
  for (const std::string& line : doc_lines(std::string(30, 'x') + " " + std::string(90, 'y') + " z")) {
    EXPECT_LE(line.size(), 100U);
  }
  EXPECT_TRUE(doc_lines("").empty());
}

TEST(Graph, no_stage_is_called_like_a_word_of_mermaid) {
  Pipeline pipeline;
  Event event;
  event.name = "Ping";
  event.subject = "ping";
  pipeline.events["Ping"] = event;
  for (const char* name : {"end", "style", "the-end"}) {
    Stage stage;
    stage.name = name;
    stage.consumes = "Ping";
    stage.action = "custom";
    pipeline.stages[name] = stage;
  }
  const std::string text = graph(pipeline);
  EXPECT_NE(text.find("\n  STAGE_end[\"<b>end</b>"), std::string::npos) << text;
  EXPECT_NE(text.find("\n  STAGE_style[\"<b>style</b>"), std::string::npos) << text;
  EXPECT_NE(text.find("\n  the_end[\"<b>the-end</b>"), std::string::npos) << text;
}

}  // namespace
