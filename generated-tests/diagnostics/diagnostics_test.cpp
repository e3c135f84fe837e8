// Golden cases of diagnostics: each folder holds a schema.yaml (and what it imports) and what pipegen says about it.
// UPDATE_GOLDEN=1 writes the expectations anew; the diff is what a reviewer reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "schema/load.hpp"

namespace {

namespace fs = std::filesystem;

const fs::path kRepository = PIPEGEN_SOURCE_DIR;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kRepository / "generated-tests" / "diagnostics")) {
    if (fs::exists(entry.path() / "schema.yaml")) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

/// Shows the reader's files as if their folder were the current one, so that expectations hold no path of a machine.
class FolderReader : public pipegen::gen::FileReader {
 public:
  explicit FolderReader(fs::path folder) : folder_(std::move(folder)) {}
  std::optional<std::string> read(const fs::path& path, std::string& why) override {
    return disk_.read(folder_ / path, why);
  }
  std::string identity(const fs::path& path) override { return disk_.identity(folder_ / path); }

 private:
  fs::path folder_;
  pipegen::gen::DiskReader disk_;
};

std::set<std::string> codes_in(const std::string& text) {
  static const std::regex kCode("PG[0-9]{4}");
  std::set<std::string> out;
  for (std::sregex_iterator each(text.begin(), text.end(), kCode), end; each != end; ++each) out.insert(each->str());
  return out;
}

class Diagnostics : public testing::TestWithParam<std::string> {};

TEST_P(Diagnostics, AreAsExpected) {
  const fs::path folder = kRepository / "generated-tests" / "diagnostics" / GetParam();
  FolderReader files(folder);
  const auto loaded = pipegen::gen::load_pipeline(files, "schema.yaml");
  const std::string actual = pipegen::gen::format_text(loaded.diagnostics, loaded.texts);
  if (std::getenv("UPDATE_GOLDEN") != nullptr) {
    std::ofstream(folder / "expected.txt", std::ios::binary) << actual;
    return;
  }
  EXPECT_EQ(actual, read(folder / "expected.txt"));
  for (const auto& each : loaded.diagnostics) EXPECT_NE(each.hint, "") << each.code << ": " << each.message;
  const bool errors = std::ranges::any_of(
      loaded.diagnostics, [](const auto& each) { return each.severity == pipegen::gen::Severity::kError; });
  EXPECT_EQ(loaded.pipeline.has_value(), !errors);
}

INSTANTIATE_TEST_SUITE_P(Golden, Diagnostics, testing::ValuesIn(cases()), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST(DiagnosticCodes, EveryCodeOfTheSourcesIsDocumentedAndTheOtherWayRound) {
  std::set<std::string> used;
  for (const auto& entry : fs::directory_iterator(kRepository / "generator" / "schema")) {
    if (entry.path().filename() == "diagnostic.hpp" || entry.path().filename() == "load.hpp")
      continue;  // examples in comments
    for (const std::string& code : codes_in(read(entry.path()))) used.insert(code);
  }
  ASSERT_FALSE(used.empty());
  EXPECT_EQ(codes_in(read(kRepository / "schemas" / "DIAGNOSTICS.md")), used);
}

TEST(DiagnosticCodes, EveryCodeIsShownByAGoldenCase) {
  std::set<std::string> shown;
  for (const std::string& name : cases()) {
    for (const std::string& code :
         codes_in(read(kRepository / "generated-tests" / "diagnostics" / name / "expected.txt")))
      shown.insert(code);
  }
  std::set<std::string> missing;
  std::ranges::set_difference(codes_in(read(kRepository / "schemas" / "DIAGNOSTICS.md")), shown,
                              std::inserter(missing, missing.end()));
  std::erase_if(missing, [](const std::string& code) { return code.starts_with("PG08"); });  // see cli_test.cpp
  EXPECT_EQ(missing, std::set<std::string>{});
}

TEST(Examples, LoadWithoutADiagnosticFromAnyOfTheirFilesThatReachesThePipeline) {
  for (const auto& example : fs::directory_iterator(kRepository / "examples")) {
    for (const auto& file : fs::directory_iterator(example.path())) {
      if (file.path().extension() != ".yaml") continue;
      const std::string text = read(file.path());
      if (text.find("\npipeline:") == std::string::npos && text.find("\nimport:") == std::string::npos) continue;
      pipegen::gen::DiskReader files;
      const auto loaded = pipegen::gen::load_pipeline(files, file.path());
      EXPECT_EQ(pipegen::gen::format_text(loaded.diagnostics, loaded.texts), "") << file.path();
    }
  }
}

TEST(Language, ExamplesInTheReferenceAreWhatPipegenReads) {
  class One : public pipegen::gen::FileReader {
   public:
    explicit One(std::string text) : text_(std::move(text)) {}
    std::optional<std::string> read(const fs::path&, std::string&) override { return text_; }

   private:
    std::string text_;
  };
  // The blocks of LANGUAGE.md that are whole schemas.
  const std::string text = read(kRepository / "schemas" / "LANGUAGE.md");
  int examples = 0;
  for (std::size_t at = 0; (at = text.find("```yaml\npipegen: v1", at)) != std::string::npos; ++examples) {
    at += 8;
    One files(text.substr(at, text.find("```\n", at) - at));
    const auto loaded = pipegen::gen::load_pipeline(files, "pipeline.yaml");
    EXPECT_EQ(pipegen::gen::format_text(loaded.diagnostics, loaded.texts), "");
  }
  EXPECT_EQ(examples, 2);
}

}  // namespace
