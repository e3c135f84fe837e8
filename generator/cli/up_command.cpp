#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cli/commands.hpp"
#include "plan/plan.hpp"

namespace pipegen::gen {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

/// Whether somebody has said where the database is: in the environment, or in a project.toml that is not as pipegen
/// writes it.
bool knows_its_database(const UpOptions& options, const std::string& default_url) {
  if (is_set("DATABASE_URL") || is_set("DATABASE_PASSWORD")) return true;
  std::ifstream in(options.output / "project.toml", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return text.find("\n[database]\n") != std::string::npos &&
         text.find("\nurl = \"" + default_url + "\"\n") == std::string::npos;
}

/// The workspace's own, unless that is a server of which nobody has said where it is: SQLite needs none.
Database database_for(const UpOptions& options, std::optional<Database> chosen, const Pipeline& pipeline) {
  if (chosen) return *chosen;
  const Database database = workspace_database(options.output, pipeline.name).value_or(Database::kSqlite);
  if (database == Database::kSqlite || knows_its_database(options, default_database_url(pipeline, database))) {
    return database;
  }
  std::fprintf(stderr,
               "DATABASE_URL is not set, so %s, which was made for PostgreSQL, now stores in SQLite.\n"
               "To run it with PostgreSQL, set DATABASE_URL and give --database postgresql.\n",
               options.output.c_str());
  return Database::kSqlite;
}

}  // namespace

int run_up_command(const UpOptions& options, std::optional<Database> chosen) {
  const Loaded loaded = load_schema(options.schema);
  if (!loaded.pipeline) {
    print_diagnostics(loaded, DiagnosticsFormat::kText);
    return 1;
  }
  const Pipeline& pipeline = *loaded.pipeline;
  const Database database = database_for(options, chosen, pipeline);
  std::vector<UpService> services;
  for (const Service& service : services_of(pipeline, database)) {
    services.push_back({.name = service.name,
                        .is_api = service.is_api,
                        .section = service.section,
                        .port = pipeline.ingest ? pipeline.ingest->port : 0});
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
