// The README shows what pipegen really prints.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <set>
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

TEST(Promises, NameOnlyTestsThatExist) {
  std::set<std::string> tests;
  const std::regex definition(R"(TEST(?:_F|_P)?\(([A-Za-z0-9_]+), *([A-Za-z0-9_]+)\))");
  for (const char* folder : {"runtime/tests", "generated-tests"}) {
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(PIPEGEN_SOURCE_DIR "/" + std::string(folder))) {
      if (entry.path().extension() != ".cpp" || entry.path().string().find("/node_modules/") != std::string::npos)
        continue;
      const std::string text = read_file(entry.path().string());
      for (std::sregex_iterator at(text.begin(), text.end(), definition), end; at != end; ++at) {
        tests.insert((*at)[1].str() + "." + (*at)[2].str());
      }
    }
  }
  const std::string promises = read_file(PIPEGEN_SOURCE_DIR "/runtime/PROMISES.md");
  const std::regex name("`([A-Za-z0-9_]+\\.[A-Za-z0-9_]+)`");
  std::size_t named = 0;
  for (std::sregex_iterator at(promises.begin(), promises.end(), name), end; at != end; ++at, ++named) {
    EXPECT_TRUE(tests.contains((*at)[1].str()))
        << (*at)[1].str() << " is named in runtime/PROMISES.md and nowhere else";
  }
  EXPECT_GT(named, 50u);
}

}  // namespace
