#include "render/render.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <map>

namespace pipegen::gen {
namespace {

using nlohmann::json;
using Templates = std::map<std::string, std::string, std::less<>>;

std::string render_all(const Templates& templates, std::string_view name, const json& view) {
  return render(
      [&](std::string_view wanted) -> std::optional<std::string_view> {
        const auto found = templates.find(wanted);
        if (found == templates.end()) return std::nullopt;
        return found->second;
      },
      name, view);
}

std::string error_of(const Templates& templates, const json& view) {
  try {
    render_all(templates, "t", view);
  } catch (const TemplateError& error) {
    return error.what();
  }
  return "no error";
}

struct Case {
  std::string name;  // a sentence, in snake_case
  std::string text;
  json view;
  std::string expected;
  Templates partials = {};
};

class Specification : public testing::TestWithParam<Case> {};

TEST_P(Specification, renders_as_expected) {
  Templates templates = GetParam().partials;
  templates["t"] = GetParam().text;
  EXPECT_EQ(render_all(templates, "t", GetParam().view), GetParam().expected);
}

const json kAbc = {{"a", {{"one", 1}}}, {"b", {{"two", 2}}}, {"c", {{"three", 3}, {"d", {{"four", 4}, {"five", 5}}}}}};

const Case kCases[] = {
    // Values
    {"text_without_tags_stays", "Hello { } world\n", json::object(), "Hello { } world\n"},
    {"values_are_not_escaped", "{{a}} {{{a}}} {{&a}}", {{"a", "<&\">"}}, "<&\"> <&\"> <&\">"},
    {"triple_and_ampersand_tags_may_be_padded", "|{{{ a }}}|{{& a }}|", {{"a", "x"}}, "|x|x|"},
    {"numbers_keep_their_digits",
     "{{i}} {{n}} {{u}} {{d}}",
     {{"i", 85}, {"n", -9223372036854775807}, {"u", 18446744073709551615U}, {"d", 1.21}},
     "85 -9223372036854775807 18446744073709551615 1.21"},
    {"bools_are_written_as_in_cpp", "{{t}} {{f}}", {{"t", true}, {"f", false}}, "true false"},
    {"dotted_names_reach_into_objects", "{{a.b.c.name}}", {{"a", {{"b", {{"c", {{"name", "Phil"}}}}}}}}, "Phil"},
    {"the_first_part_of_a_dotted_name_is_looked_for_in_parents",
     "{{#a}}{{b.c}}{{/a}}",
     {{"a", {{"x", 1}}}, {"b", {{"c", "ok"}}}},
     "ok"},
    {"whitespace_around_values_stays", "| {{a}} |\n  {{a}}\n", {{"a", "-"}}, "| - |\n  -\n"},
    {"tags_may_be_padded", "|{{ a }}|", {{"a", "-"}}, "|-|"},
    {"the_dot_is_the_current_item", "{{#l}}({{.}}){{/l}}", {{"l", {"a", 2, 1.5}}}, "(a)(2)(1.5)"},
    {"the_dot_goes_through_nested_lists", "{{#l}}({{#.}}{{.}}{{/.}}){{/l}}", {{"l", {{1, 2}, {"a", "b"}}}}, "(12)(ab)"},
    {"a_value_with_braces_is_not_rendered_again", "{{a}}", {{"a", "{{b}}"}}, "{{b}}"},

    // Comments
    {"inline_comments_vanish", "12 {{! no }} 34", json::object(), "12  34"},
    {"comments_may_span_lines", "12{{!\n  a\n  b\n}}34\n", json::object(), "1234\n"},
    {"a_comment_line_vanishes", "a\n{{! x }}\nb\n", json::object(), "a\nb\n"},
    {"an_indented_comment_line_vanishes", "a\n  {{! x }}  \nb\n", json::object(), "a\nb\n"},
    {"a_comment_line_with_crlf_vanishes", "|\r\n{{! x }}\r\n|", json::object(), "|\r\n|"},
    {"a_comment_line_at_the_end_vanishes", "!\n  {{! x }}", json::object(), "!\n"},
    {"a_comment_line_at_the_start_vanishes", "  {{! x }}\n!", json::object(), "!"},
    {"a_comment_of_many_lines_vanishes_whole", "a\n  {{!\n x\n  }}\nb\n", json::object(), "a\nb\n"},
    {"a_comment_behind_text_leaves_the_line", "  12 {{! 34 }}\n", json::object(), "  12 \n"},

    // Sections
    {"a_true_section_renders", "\"{{#b}}yes{{/b}}\"", {{"b", true}}, "\"yes\""},
    {"a_false_section_does_not", "\"{{#b}}yes{{/b}}\"", {{"b", false}}, "\"\""},
    {"a_null_section_does_not", "\"{{#b}}yes{{/b}}\"", {{"b", nullptr}}, "\"\""},
    {"an_object_becomes_the_context", "{{#c}}{{name}}{{/c}}", {{"c", {{"name", "Joe"}}}}, "Joe"},
    {"parents_stay_visible",
     "{{#s}}{{a}} {{b}} {{#c}}{{d}}{{/c}}{{/s}}",
     {{"a", "foo"}, {"b", "wrong"}, {"s", {{"b", "bar"}}}, {"c", {{"d", "baz"}}}},
     "foo bar baz"},
    {"deep_contexts_see_all_of_their_parents",
     "{{#a}}{{one}}{{#b}}{{one}}{{two}}{{#c}}{{one}}{{two}}{{three}}{{#d}}{{four}}{{one}}{{five}}{{/d}}{{/c}}{{/b}}{{/"
     "a}}",
     kAbc, "112123415"},
    {"a_list_renders_each_item", "{{#l}}{{i}}{{/l}}", {{"l", {{{"i", 1}}, {{"i", 2}}, {{"i", 3}}}}}, "123"},
    {"an_empty_list_renders_nothing", "{{#l}}x{{/l}}", {{"l", json::array()}}, ""},
    {"a_string_section_renders_unless_empty",
     "{{#s}}({{.}}){{/s}}{{#e}}x{{/e}}{{^e}}none{{/e}}",
     {{"s", "v"}, {"e", ""}},
     "(v)none"},
    {"sections_repeat_and_nest",
     "{{#b}}A{{#b}}B{{/b}}{{#n}}C{{/n}}D{{/b}}{{#b}}E{{/b}}",
     {{"b", true}, {"n", false}},
     "ABDE"},
    {"dotted_sections_work", "{{#a.b}}in{{/a.b}}{{^a.c}}out{{/a.c}}", {{"a", {{"b", true}, {"c", false}}}}, "inout"},
    {"spaces_around_an_inline_section_stay", " | {{#b}}\t|\t{{/b}} | \n", {{"b", true}}, " | \t|\t | \n"},
    {"spaces_inside_an_inline_section_stay", " | {{#b}} {{! x }}\n {{/b}} | \n", {{"b", true}}, " |  \n  | \n"},
    {"two_tags_on_a_line_are_not_standalone", " {{#b}}YES{{/b}}\n {{#b}}GOOD{{/b}}\n", {{"b", true}}, " YES\n GOOD\n"},
    {"section_lines_vanish", "|\nThis\n{{#b}}\n|\n{{/b}}\nA Line\n", {{"b", true}}, "|\nThis\n|\nA Line\n"},
    {"indented_section_lines_vanish", "|\n  {{#b}}\n|\n  {{/b}}\n|\n", {{"b", true}}, "|\n|\n|\n"},
    {"lines_of_a_section_that_is_not_rendered_vanish", "a\n{{#b}}\nx\n{{/b}}\nc\n", {{"b", false}}, "a\nc\n"},
    {"an_empty_list_leaves_no_blank_line",
     "a\n{{#l}}\nx\n{{/l}}\n{{^l}}\ny\n{{/l}}\nc\n",
     {{"l", json::array()}},
     "a\ny\nc\n"},
    {"section_lines_with_crlf_vanish", "|\r\n{{#b}}\r\n{{/b}}\r\n|", {{"b", true}}, "|\r\n|"},
    {"a_section_line_at_the_start_vanishes", "  {{#b}}\n#{{/b}}\n/", {{"b", true}}, "#\n/"},
    {"a_section_line_at_the_end_vanishes", "#{{#b}}\n/\n  {{/b}}", {{"b", true}}, "#\n/\n"},
    {"blank_lines_of_the_author_stay", "a\n\n{{#b}}\n\nx\n{{/b}}\n\nc\n", {{"b", true}}, "a\n\n\nx\n\nc\n"},
    {"section_tags_may_be_padded", "|{{# b }}={{/ b }}|", {{"b", true}}, "|=|"},

    // Inverted sections
    {"inverted_sections_render_for_false", "{{^b}}x{{/b}}", {{"b", false}}, "x"},
    {"inverted_sections_render_for_null", "{{^b}}x{{/b}}", {{"b", nullptr}}, "x"},
    {"inverted_sections_render_for_an_empty_list", "{{^b}}x{{/b}}", {{"b", json::array()}}, "x"},
    {"inverted_sections_do_not_render_for_an_object", "{{^b}}x{{/b}}", {{"b", {{"n", 1}}}}, ""},
    {"inverted_sections_do_not_render_for_a_list", "{{^b}}x{{/b}}", {{"b", {1}}}, ""},
    {"inverted_lines_vanish", "|\n  {{^b}}\n|\n  {{/b}}\n|\n", {{"b", false}}, "|\n|\n|\n"},

    // Partials
    {"a_partial_is_expanded", "\"{{>p}}\"", json::object(), "\"text\"", {{"p", "text"}}},
    {"a_partial_sees_the_context",
     "{{#a}}{{>p}}{{/a}}",
     {{"a", {{"x", "in"}}}, {"y", "out"}},
     "*in out*",
     {{"p", "*{{x}} {{y}}*"}}},
    {"a_partial_may_recurse",
     "{{>node}}",
     {{"content", "X"}, {"nodes", {{{"content", "Y"}, {"nodes", json::array()}}}}},
     "X<Y<>>",
     {{"node", "{{content}}<{{#nodes}}{{>node}}{{/nodes}}>"}}},
    {"an_inline_partial_keeps_the_spaces_around_it", "| {{>p}} |", json::object(), "| \t|\t |", {{"p", "\t|\t"}}},
    {"an_inline_partial_is_not_indented", "  {{a}}  {{> p}}\n", {{"a", "|"}}, "  |  >\n>\n", {{"p", ">\n>"}}},
    {"a_partial_line_with_crlf_vanishes", "|\r\n{{>p}}\r\n|", json::object(), "|\r\n>|", {{"p", ">"}}},
    {"a_partial_line_at_the_start_is_indented", "  {{>p}}\n>", json::object(), "  >\n  >>", {{"p", ">\n>"}}},
    {"a_partial_line_at_the_end_is_indented", ">\n  {{>p}}", json::object(), ">\n  >\n  >", {{"p", ">\n>"}}},
    {"each_line_of_a_partial_is_indented_but_no_line_of_a_value",
     "\\\n {{>p}}\n/\n",
     {{"content", "<\n->"}},
     "\\\n |\n <\n->\n |\n/\n",
     {{"p", "|\n{{content}}\n|\n"}}},
    {"blank_lines_of_an_indented_partial_stay_blank",
     "  {{>p}}\n",
     json::object(),
     "  a\n\n  b\n",
     {{"p", "a\n\nb\n"}}},
    {"section_lines_in_an_indented_partial_vanish",
     "{\n  {{>p}}\n}\n",
     {{"l", {1, 2}}},
     "{\n  a\n  1\n  2\n}\n",
     {{"p", "a\n{{#l}}\n{{.}}\n{{/l}}\n"}}},
    {"indentations_of_nested_partials_add_up",
     "0\n  {{>p}}\n",
     json::object(),
     "0\n  1\n    2\n    2\n  1\n",
     {{"p", "1\n  {{>folder/q.cpp}}\n1\n"}, {"folder/q.cpp", "2\n2\n"}}},
    {"partial_tags_may_be_padded", "|{{> p }}|", json::object(), "|[]|", {{"p", "[]"}}},
};

INSTANTIATE_TEST_SUITE_P(Mustache, Specification, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST(Errors, an_unknown_name_is_named_with_its_place) {
  EXPECT_EQ(error_of({{"t", "a\nb\n  ü {{nme}}\n"}}, {{"name", 1}}), "t.mustache:3:5: the view has no 'nme'");
}

TEST(Errors, unknown_names_are_errors_in_sections_too) {
  EXPECT_EQ(error_of({{"t", "{{#x}}{{/x}}"}}, json::object()), "t.mustache:1:1: the view has no 'x'");
  EXPECT_EQ(error_of({{"t", "\n {{^x}}{{/x}}"}}, json::object()), "t.mustache:2:2: the view has no 'x'");
}

TEST(Errors, a_missing_part_of_a_dotted_name_is_not_looked_for_in_parents) {
  EXPECT_EQ(error_of({{"t", "{{#a}}{{b.c}}{{/a}}"}}, {{"a", {{"b", json::object()}}}, {"b", {{"c", 1}}}}),
            "t.mustache:1:7: the view has no 'c' in 'b.c'");
}

TEST(Errors, unbalanced_sections_are_named_with_both_places) {
  EXPECT_EQ(error_of({{"t", "a\n {{#x}}\n"}}, json::object()), "t.mustache:2:2: section 'x' is not closed");
  EXPECT_EQ(error_of({{"t", "{{/x}}"}}, json::object()), "t.mustache:1:1: no section is open that {{/x}} could close");
  EXPECT_EQ(error_of({{"t", "{{#x}}\n{{/y}}"}}, json::object()),
            "t.mustache:2:1: {{/y}} stands where section 'x' of 1:1 has to be closed first");
}

TEST(Errors, a_tag_has_to_be_closed_and_to_hold_a_name) {
  EXPECT_EQ(error_of({{"t", "x {{a"}}, json::object()), "t.mustache:1:3: the tag is not closed: }} is missing");
  EXPECT_NE(error_of({{"t", "int a[2][2] = {{1, 2}, {3, 4}};"}}, json::object()).find("'1, 2}, {3, 4' is not a name"),
            0U);
  EXPECT_NE(error_of({{"t", "{{}}"}}, json::object()).find("1:1: '' is not a name"), std::string::npos);
  EXPECT_NE(error_of({{"t", "{{a..b}}"}}, json::object()).find("'a..b' is not a name"), std::string::npos);
}

TEST(Errors, only_scalars_are_values_and_numbers_are_no_sections) {
  EXPECT_EQ(error_of({{"t", "{{a}}"}}, {{"a", json::array()}}),
            "t.mustache:1:1: 'a' is array: only a scalar can be written out");
  EXPECT_EQ(error_of({{"t", "{{a}}"}}, {{"a", nullptr}}),
            "t.mustache:1:1: 'a' is null: only a scalar can be written out");
  EXPECT_EQ(error_of({{"t", "{{#a}}{{/a}}"}}, {{"a", 0}}),
            "t.mustache:1:1: 'a' is a number: a section needs a bool, a list, an object or a string");
}

TEST(Errors, what_is_not_supported_says_so) {
  EXPECT_EQ(error_of({{"t", "{{=<% %>=}}"}}, json::object()), "t.mustache:1:1: other delimiters are not supported");
  EXPECT_EQ(error_of({{"t", "{{<p}}{{/p}}"}}, json::object()), "t.mustache:1:1: tags with '<' are not supported");
}

TEST(Errors, a_mistake_in_an_indented_partial_has_the_place_in_the_partial) {
  EXPECT_EQ(error_of({{"t", "x\n    {{>p}}\n"}, {"p", "one\n\n  {{oops}}\n"}}, json::object()),
            "p.mustache:3:3: the view has no 'oops'");
}

TEST(Errors, missing_templates_and_endless_recursion_are_errors) {
  EXPECT_EQ(error_of({}, json::object()), "t.mustache: there is no such template");
  EXPECT_EQ(error_of({{"t", " {{>p/q}}"}}, json::object()), "t.mustache:1:2: there is no partial 'p/q'");
  EXPECT_NE(error_of({{"t", "{{>t}}"}}, json::object()).find("partials nest too deep at 't'"), std::string::npos);
}

TEST(Speed, a_hundred_files_of_a_hundred_lines_take_milliseconds) {
  std::string text;
  for (int i = 0; i < 20; ++i)
    text += "int {{name}} = {{value}};\n{{#fields}}\n  {{>field}}\n{{/fields}}\n// a line of text\n";
  const Templates templates{{"t", text}, {"field", "{{type}} {{name}};\n"}};
  json fields = json::array();
  for (int i = 0; i < 4; ++i) fields.push_back({{"type", "std::string"}, {"name", "field_" + std::to_string(i)}});
  const json view{{"name", "x"}, {"value", 7}, {"fields", fields}};
  const auto start = std::chrono::steady_clock::now();
  std::size_t bytes = 0;
  for (int i = 0; i < 100; ++i) bytes += render_all(templates, "t", view).size();
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(bytes, 100U * 20U * (11 + 18 + 4 * 23));
  RecordProperty("milliseconds", std::to_string(took.count()));
  RecordProperty("milliseconds", static_cast<int>(took.count()));
}

}  // namespace
}  // namespace pipegen::gen
