#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>

#include "cli/commands.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

/// The program beside this one does it: this one needs no NATS client, and starts in milliseconds because of that.
int run_dlq(const DlqOptions& options) {
  std::string stream = options.stream;
  if (stream.empty()) {
    const Loaded loaded = load_schema(options.schema);
    print_diagnostics(loaded, DiagnosticsFormat::kText);
    if (!loaded.pipeline) return 1;
    stream = dead_letter_stream(*loaded.pipeline);
  }
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "pipegen-dlq";
  std::vector<std::string> words{program.string(), "--stream", stream};
  words.insert(words.end(), options.words.begin(), options.words.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(program.c_str(), arguments.data());
  std::cerr << "pipegen: cannot run " << program.string() << ": " << std::strerror(errno)
            << "; it is built and installed together with pipegen\n";
  return 1;
}

}  // namespace pipegen::gen
