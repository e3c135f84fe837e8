// Golden output: a case is a folder with a schema and the files that it makes. UPDATE_GOLDEN=1 writes them anew; the
// diff is the review.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "embed/embedded.hpp"
#include "plan/plan.hpp"
#include "render/render.hpp"
#include "schema/load.hpp"
#include "schema/syntax.hpp"

namespace {

namespace fs = std::filesystem;
using namespace pipegen::gen;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

using Files = std::map<std::string, std::string>;

Files generate(const fs::path& schema) {
  DiskReader disk;
  const Loaded loaded = load_pipeline(disk, schema);
  EXPECT_TRUE(loaded.pipeline) << format_text(loaded.diagnostics, loaded.texts);
  Files files;
  if (!loaded.pipeline) return files;
  for (const PlannedFile& file : plan(*loaded.pipeline, {.what = Request::What::kAll, .existing_services = {}}).files) {
    files[file.path] = render(embedded_template, file.template_name, file.view);
  }
  return files;
}

Files stored(const fs::path& folder) {
  Files files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).generic_string()] = read_file(entry.path());
  }
  return files;
}

/// {name of the case, schema, folder of the expected files}.
struct Case {
  std::string name;
  fs::path schema;
  fs::path expected;
};

std::vector<Case> cases() {
  const fs::path root = PIPEGEN_SOURCE_DIR;
  std::vector<Case> out;
  for (const auto& entry : fs::directory_iterator(root / "generated-tests" / "golden")) {
    const fs::path& folder = entry.path();
    if (!fs::exists(folder / "schema.yaml")) continue;  // the example below
    out.push_back({folder.filename(), folder / "schema.yaml", folder / "expected"});
  }
  std::ranges::sort(out, {}, &Case::name);
  out.push_back({"pdf-to-audio", root / "examples/pdf-to-audio/pipeline.yaml",
                 root / "generated-tests/golden/pdf-to-audio/expected"});
  return out;
}

TEST(Golden, generated_files_are_byte_for_byte_the_stored_ones) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(test.name);
    const Files made = generate(test.schema);
    if (std::getenv("UPDATE_GOLDEN") != nullptr) {
      fs::remove_all(test.expected);
      for (const auto& [path, content] : made) {
        fs::create_directories((test.expected / path).parent_path());
        std::ofstream(test.expected / path, std::ios::binary) << content;
      }
    }
    const Files expected = stored(test.expected);
    for (const auto& [path, content] : expected) {
      ASSERT_TRUE(made.contains(path)) << path << " is no longer generated";
      EXPECT_EQ(made.at(path), content) << path;
    }
    for (const auto& [path, content] : made) EXPECT_TRUE(expected.contains(path)) << path << " is new";
  }
}

/// Of UTF-8.
std::size_t columns(const std::string& line) {
  return static_cast<std::size_t>(
      std::ranges::count_if(line, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

TEST(Golden, no_line_of_generated_code_is_longer_than_120_columns) {
  for (const Case& test : cases()) {
    for (const auto& [path, content] : generate(test.schema)) {
      if (!path.ends_with(".cpp") && !path.ends_with(".hpp")) continue;
      std::istringstream in(content);
      for (std::string line; std::getline(in, line);) {
        EXPECT_LE(columns(line), 120U) << test.name << "/" << path << ": " << line;
      }
    }
  }
}

/// The same schema with the keys of every map in the opposite order.
std::string reversed_keys(const Node& node, const std::string& indent) {
  const auto scalar = [](const Node& value) { return value.plain ? value.text : nlohmann::json(value.text).dump(); };
  std::string out;
  if (node.is_map()) {
    for (std::size_t i = node.keys.size(); i-- > 0;) {
      const Node& value = node.items[i];
      out += indent + scalar(node.keys[i]) + ":";
      if (value.is_scalar()) out += " " + scalar(value);
      if (value.is_map() && value.keys.empty()) out += " {}";
      if (value.is_sequence() && value.items.empty()) out += " []";
      out += "\n" + reversed_keys(value, indent + "  ");
    }
  } else if (node.is_sequence()) {
    for (const Node& item : node.items) out += indent + "- " + scalar(item) + "\n";
  }
  return out;
}

TEST(Golden, the_order_of_keys_changes_nothing) {
  for (const Case& test : cases()) {
    SCOPED_TRACE(test.name);
    const fs::path folder = fs::temp_directory_path() / ("pipegen-golden-" + std::to_string(getpid()));
    fs::create_directories(folder);
    for (const auto& entry : fs::directory_iterator(test.schema.parent_path())) {
      if (entry.path().extension() != ".yaml") continue;
      Report report;
      Node schema;
      ASSERT_TRUE(parse_syntax(read_file(entry.path()), entry.path().filename(), report, schema));
      std::ofstream(folder / entry.path().filename()) << reversed_keys(schema, "");
    }
    EXPECT_EQ(generate(folder / test.schema.filename()), generate(test.schema));
    fs::remove_all(folder);
  }
}

TEST(Golden, starting_from_another_file_of_the_schema_changes_nothing) {
  const fs::path root = PIPEGEN_SOURCE_DIR;
  EXPECT_EQ(generate(root / "examples/pdf-to-audio/tts.yaml"), generate(root / "examples/pdf-to-audio/pipeline.yaml"));
}

TEST(Golden, the_picture_in_the_readme_is_what_pipegen_graph_prints) {
  const fs::path root = PIPEGEN_SOURCE_DIR;
  DiskReader disk;
  const Loaded loaded = load_pipeline(disk, root / "examples/pdf-to-audio/pipeline.yaml");
  ASSERT_TRUE(loaded.pipeline);
  EXPECT_NE(read_file(root / "README.md").find("```mermaid\n" + graph(*loaded.pipeline) + "```"), std::string::npos);
}

}  // namespace
