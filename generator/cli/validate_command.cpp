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
    const std::size_t stages = loaded.pipeline->stages.size() + loaded.pipeline->entity_workers.size();
    const std::size_t entities = loaded.pipeline->entities.size();
    std::cout << options.schema.string() << " is right: " << counted(stages, "stage") << ", "
              << counted(loaded.pipeline->events.size(), "event") << ", "
              << (entities == 0 ? "" : std::to_string(entities) + (entities == 1 ? " entity, " : " entities, "))
              << counted(loaded.texts.size(), "file");
    if (!loaded.diagnostics.empty()) std::cout << ", " << counted(loaded.diagnostics.size(), "warning");
    std::cout << '\n';
  }
  return 0;
}

}  // namespace pipegen::gen
