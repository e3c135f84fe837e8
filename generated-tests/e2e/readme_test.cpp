// The README shows what pipegen really prints.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

namespace {

std::string read_file(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The content of the only block of this language.
std::string block(const std::string& language) {
  const std::string text = read_file(PIPEGEN_SOURCE_DIR "/README.md");
  const std::string begin = "```" + language + "\n";
  const std::size_t at = text.find(begin);
  if (at == std::string::npos) return "";
  const std::size_t from = at + begin.size();
  return text.substr(from, text.find("```\n", from) - from);
}

TEST(Readme, TheFirstSchemaIsOne) {
  std::string folder = "/tmp/pipegen-readme-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string schema = folder + "/pipeline.yaml";
  std::ofstream(schema) << block("yaml");
  const int status = std::system(("'" PIPEGEN_PROGRAM "' validate --schema " + schema).c_str());
  std::filesystem::remove_all(folder);
  EXPECT_EQ(status, 0);
}

TEST(Readme, ThePictureIsWhatPipegenGraphPrintsForTheExample) {
  const std::string command =
      "'" PIPEGEN_PROGRAM "' graph --schema '" PIPEGEN_SOURCE_DIR "/examples/pdf-to-audio/pipeline.yaml'";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string printed;
  for (int c; (c = std::fgetc(pipe)) != EOF;) printed.push_back(static_cast<char>(c));
  ASSERT_EQ(::pclose(pipe), 0);
  ASSERT_FALSE(printed.empty());
  EXPECT_EQ(block("mermaid"), printed) << "README.md shows another picture than pipegen graph";
}

}  // namespace
