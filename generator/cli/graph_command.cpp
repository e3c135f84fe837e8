#include <iostream>

#include "cli/commands.hpp"

namespace pipegen::gen {

int run_graph(const GraphOptions& options) {
  const Loaded loaded = load_schema(options.schema);
  print_diagnostics(loaded, options.diagnostics);
  if (!loaded.pipeline) return 1;
  std::cout << graph(*loaded.pipeline);
  return 0;
}

}  // namespace pipegen::gen
