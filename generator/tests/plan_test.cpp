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

TEST(Text, controls_of_writing_direction_are_escaped_in_strings_and_left_out_of_comments) {
  EXPECT_EQ(cpp_string("a\xe2\x80\xae\xe2\x81\xa9z"), R"("a\342\200\256\342\201\251z")");
  EXPECT_EQ(cpp_string("\xe2\x80\x93"), "\"\xe2\x80\x93\"");  // a dash
  EXPECT_EQ(doc_lines("a\xe2\x80\xae b\xe2\x81\xa6"), (std::vector<std::string>{"a b"}));
}

TEST(Text, a_long_text_becomes_several_literals_that_together_are_the_text) {
  EXPECT_EQ(cpp_strings("one\n\ntwo"), (std::vector<std::string>{R"("one\n")", R"("\n")", R"("two")"}));
  EXPECT_TRUE(cpp_strings("").empty());
  // Broken after a blank, else anywhere but inside a character.
  const std::string words = "  " + std::string(90, 'x') + " " + std::string(20, 'y');
  EXPECT_EQ(cpp_strings(words),
            (std::vector<std::string>{"\"  " + std::string(90, 'x') + " \"", "\"" + std::string(20, 'y') + "\""}));
  std::string umlauts = "x";
  for (int i = 0; i < 100; ++i) umlauts += "ü";
  std::string together;
  for (const std::string& literal : cpp_strings(umlauts)) {
    EXPECT_LE(literal.size(), 110U);
    EXPECT_NE(static_cast<unsigned char>(literal[1]) & 0xc0, 0x80) << "starts inside a character";
    together += literal.substr(1, literal.size() - 2);
  }
  EXPECT_EQ(together, umlauts);
}

TEST(Text, durations_are_spelled_in_their_largest_unit) {
  using namespace std::chrono_literals;
  EXPECT_EQ(cpp_duration(24h), "std::chrono::hours(24)");
  EXPECT_EQ(cpp_duration(90s), "std::chrono::seconds(90)");
  EXPECT_EQ(cpp_duration(250ms), "std::chrono::milliseconds(250)");
  EXPECT_EQ(cpp_duration(0ms), "std::chrono::milliseconds(0)");
}

TEST(Text, doc_comments_are_wrapped_and_never_end_in_a_backslash) {
  EXPECT_EQ(doc_lines("one\ntwo \\"), (std::vector<std::string>{"one", "two"}));
  EXPECT_EQ(doc_lines("a?\?/\nb ?\?/ \\ ?\?/"), (std::vector<std::string>{"a", "b"}));
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
