#include "cli/commands.hpp"
#include "cli/sibling.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

int run_dlq(const DlqOptions& options) {
  std::string stream = options.stream;
  if (stream.empty()) {
    const Loaded loaded = load_schema(options.schema);
    if (!loaded.pipeline) {
      print_diagnostics(loaded, DiagnosticsFormat::kText);
      return 1;
    }
    stream = dead_letter_stream(*loaded.pipeline);
  }
  std::vector<std::string> words{"--stream", stream};
  words.insert(words.end(), options.words.begin(), options.words.end());
  return become_sibling("pipegen-dlq", std::move(words));
}

}  // namespace pipegen::gen
