#include <iostream>

#include "cli/commands.hpp"

namespace pipegen::gen {

int run_validate(const ValidateOptions& options) {
  const Loaded loaded = load_schema(options.schema);
  print_diagnostics(loaded, options.diagnostics);
  if (!loaded.pipeline) return 1;
  if (!options.quiet) {
    const auto counted = [](std::size_t number, const char* what) {
      return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
    };
    std::cout << options.schema.string() << " is right: " << counted(loaded.pipeline->stages.size(), "stage") << ", "
              << counted(loaded.pipeline->events.size(), "event") << ", " << counted(loaded.texts.size(), "file");
    if (!loaded.diagnostics.empty()) std::cout << ", " << counted(loaded.diagnostics.size(), "warning");
    std::cout << '\n';
  }
  return 0;
}

}  // namespace pipegen::gen
