#include <iostream>

#include "cli/commands.hpp"
#include "up/build.hpp"

namespace pipegen::gen {
namespace {

/// For a shell: 'my services' when it needs quotes.
std::string shell_word(const std::string& word) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+=:,@";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

void print_summary(const WriteReport& report, const std::filesystem::path& output) {
  std::string counts;
  const auto count = [&](std::size_t number, const char* what) {
    if (number > 0) counts += (counts.empty() ? "" : ", ") + std::to_string(number) + " " + what;
  };
  count(report.created.size(), "created");
  count(report.updated.size(), "updated");
  count(report.removed.size(), "removed");
  count(report.unchanged.size(), "unchanged");
  count(report.kept.size(), "of yours kept");
  std::cout << output.string() << ": " << (counts.empty() ? "no files" : counts) << '\n';
  for (const auto& [path, lines] : report.outdated) {
    if (lines.empty()) continue;
    std::cout << (output / path).string() << " is yours, so it was kept. By the schema it would have:\n";
    for (const std::string& line : lines) std::cout << "  " << line << '\n';
  }
  if (!report.orphaned.empty()) {
    std::cout << "No longer generated, but edited or yours, so still there (delete what you do not need):\n";
    for (const std::string& path : report.orphaned) std::cout << "  " << (output / path).string() << '\n';
  }
  const std::string source = shell_word(output.string());
  const std::string build = shell_word((output / "build").string());
  const char* all = builds_some_only(output) ? " -DPIPEGEN_SERVICES=ALL" : "";
  std::cout << "Next: cmake -S " << source << " -B " << build << all << " && cmake --build " << build << '\n';
}

}  // namespace

int run_generate(const GenerateOptions& options, bool quiet) {
  const auto report = generate(options);
  if (!report) return 1;
  if (!quiet) print_summary(*report, options.output);
  return 0;
}

}  // namespace pipegen::gen
