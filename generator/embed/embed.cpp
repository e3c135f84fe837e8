// Build tool: turns files into one C++ source that holds their bytes.
//   pipegen_embed OUTPUT.cpp TEMPLATES_FOLDER RUNTIME_FOLDER FILE…
// A file below the first folder becomes a template (its name without ".mustache"), one below the second a file of the
// runtime.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>

#include "workspace/sha256.hpp"

namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;  // name to content

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return content;
}

/// `text` as string literals, one a line of it; octal escapes have three digits, so that no later digit can join one.
std::string literals(const std::string& text) {
  static constexpr char kDigits[] = "01234567";
  std::string result = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      result += i + 1 < text.size() ? "\\n\"\n     \"" : "\\n";
    } else if (c == '"' || c == '\\' || c == '?') {
      result += '\\';
      result += c;
    } else if (byte < 0x20 || byte > 0x7E) {
      result += '\\';
      result += kDigits[byte >> 6];
      result += kDigits[(byte >> 3) & 7];
      result += kDigits[byte & 7];
    } else {
      result += c;
    }
  }
  return result + '"';
}

void write_table(std::ostream& out, const char* name, const Files& files) {
  out << "constexpr std::array<File, " << files.size() << "> " << name << "{{\n";
  for (const auto& [path, content] : files) {
    out << "    {std::string_view(" << literals(path) << ", " << path.size() << "),\n     std::string_view("
        << literals(content) << ", " << content.size() << "),\n     \"" << pipegen::gen::sha256(content) << "\"},\n";
  }
  out << "}};\n";
}

bool below(const fs::path& folder, const fs::path& file, std::string& name) {
  name = file.lexically_relative(folder).generic_string();
  return !name.empty() && name != "." && !name.starts_with("../");
}

void run(int argc, char** argv) {
  if (argc < 4) throw std::runtime_error("usage: pipegen_embed OUTPUT.cpp TEMPLATES_FOLDER RUNTIME_FOLDER FILE...");
  constexpr std::string_view kSuffix = ".mustache";
  Files templates;
  Files runtime;
  for (int i = 4; i < argc; ++i) {
    std::string name;
    if (below(argv[2], argv[i], name)) {
      if (!name.ends_with(kSuffix)) throw std::runtime_error(name + ": a template's name has to end in .mustache");
      name.resize(name.size() - kSuffix.size());
      templates[name] = read(argv[i]);
    } else if (below(argv[3], argv[i], name)) {
      runtime[name] = read(argv[i]);
    } else {
      throw std::runtime_error(std::string(argv[i]) + " is in neither folder");
    }
  }

  std::ofstream out(argv[1], std::ios::binary);
  out << "// Made by pipegen_embed from templates/ and runtime/.\n"
         "#include <algorithm>\n#include <array>\n\n#include \"embed/embedded.hpp\"\n\n"
         "namespace pipegen::gen {\nnamespace {\n\nstruct File {\n  std::string_view name, content, sha256;\n};\n\n";
  write_table(out, "kTemplates", templates);
  out << '\n';
  write_table(out, "kRuntime", runtime);
  out << "\n}  // namespace\n\n"
         "std::optional<std::string_view> embedded_template(std::string_view name) {\n"
         "  const auto found = std::lower_bound(kTemplates.begin(), kTemplates.end(), name,\n"
         "                                      [](const File& file, std::string_view n) { return file.name < n; });\n"
         "  if (found == kTemplates.end() || found->name != name) return std::nullopt;\n"
         "  return found->content;\n"
         "}\n\n"
         "const std::map<std::string_view, EmbeddedFile>& embedded_runtime() {\n"
         "  static const auto kFiles = [] {\n"
         "    std::map<std::string_view, EmbeddedFile> files;\n"
         "    for (const File& file : kRuntime) {\n"
         "      files.emplace_hint(files.end(), file.name, EmbeddedFile{file.content, file.sha256});\n"
         "    }\n"
         "    return files;\n"
         "  }();\n"
         "  return kFiles;\n"
         "}\n\n"
         "}  // namespace pipegen::gen\n";
  out.close();
  if (!out) throw std::runtime_error(std::string("cannot write ") + argv[1]);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "pipegen_embed: " << error.what() << '\n';
    return 1;
  }
}
