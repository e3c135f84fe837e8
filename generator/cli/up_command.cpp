#include "cli/commands.hpp"
#include "plan/plan.hpp"

namespace pipegen::gen {

int run_up_command(const UpOptions& options) {
  const Loaded loaded = load_schema(options.schema);
  if (!loaded.pipeline) {
    print_diagnostics(loaded, DiagnosticsFormat::kText);
    return 1;
  }
  std::vector<UpService> services;
  for (const Service& service : services_of(*loaded.pipeline, Database::kSqlite)) {
    services.push_back({.name = service.name, .is_api = service.is_api, .section = service.section});
  }
  const auto generate_all = [&] {
    return generate({.schema = options.schema, .output = options.output, .force = options.force}).has_value();
  };
  return run_up(options, generate_all, services);
}

}  // namespace pipegen::gen
