#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cli/commands.hpp"
#include "plan/plan.hpp"

namespace pipegen::gen {
namespace {

/// Whether somebody has said where the database is: in the environment, or in a project.toml that is not as pipegen
/// writes it.
bool knows_its_database(const UpOptions& options, const std::string& default_url) {
  const char* url = std::getenv("DATABASE_URL");
  if (url != nullptr && *url != '\0') return true;
  std::ifstream in(options.output / "project.toml", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return text.find("\n[database]\n") != std::string::npos &&
         text.find("\nurl = \"" + default_url + "\"\n") == std::string::npos;
}

}  // namespace

int run_up_command(const UpOptions& options) {
  const Loaded loaded = load_schema(options.schema);
  if (!loaded.pipeline) {
    print_diagnostics(loaded, DiagnosticsFormat::kText);
    return 1;
  }
  const Pipeline& pipeline = *loaded.pipeline;
  const Database database = workspace_database(options.output, pipeline.name).value_or(Database::kSqlite);
  std::vector<UpService> services;
  for (const Service& service : services_of(pipeline, database)) {
    services.push_back({.name = service.name, .is_api = service.is_api, .section = service.section});
  }
  UpOptions up = options;
  if (database == Database::kSqlite && !pipeline.entities.empty() &&
      !knows_its_database(options, default_database_url(pipeline, database))) {
    up.sqlite_file = pipeline.name + ".db";
  }
  const auto generate_all = [&] {
    return generate({.schema = options.schema, .output = options.output, .database = database, .force = options.force})
        .has_value();
  };
  return run_up(up, generate_all, services);
}

}  // namespace pipegen::gen
