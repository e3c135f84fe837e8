#include "plan/plan.hpp"

#include <algorithm>
#include <set>

#include "plan/views.hpp"

namespace pipegen::gen {

std::optional<Database> database_of(const Services& services) {
  for (const auto& [name, facts] : services) {
    if (!facts.contains("database")) continue;
    return facts.at("database") == to_string(Database::kPostgresql) ? Database::kPostgresql : Database::kSqlite;
  }
  return std::nullopt;
}

bool has_workers(const Pipeline& pipeline, const Request& request) {
  const bool has_stages = request.entity.empty() && std::ranges::any_of(pipeline.root_stages, [&](const auto& name) {
                            return pipeline.stages.contains(name);
                          });
  return has_stages || !wanted_writers(pipeline, request).empty();
}

Plan plan(const Pipeline& pipeline, const Request& request) {
  std::set<std::string> wanted;
  if (request.what == Request::What::kWorkers && request.entity.empty()) {
    wanted.insert(pipeline.root_stages.begin(), pipeline.root_stages.end());
  }
  if (request.what == Request::What::kAll) {
    for (const auto& [name, stage] : pipeline.stages) wanted.insert(name);
  }
  bool with_api = request.what != Request::What::kWorkers && pipeline.ingest.has_value();
  std::set<std::string> writers = wanted_writers(pipeline, request);

  const Database database =
      request.database.value_or(database_of(request.existing_services).value_or(Database::kSqlite));
  // One database for a workspace: what stores elsewhere is made anew.
  for (const auto& [name, facts] : request.existing_services) {
    if (!facts.contains("database") || facts.at("database") == to_string(database)) continue;
    writers.insert(name);
    with_api = with_api || (name == kIngestService && pipeline.ingest.has_value());
  }

  Plan plan{.files = {}, .services = request.existing_services};
  for (const auto& [name, stage] : pipeline.stages) {
    if (wanted.contains(name)) plan_worker(pipeline, stage, plan);
  }
  for (const EntityWorker& worker : possible_entity_workers(pipeline)) {
    if (writers.erase(worker.name) > 0) plan_entity_worker(pipeline, worker, database, plan);
  }
  if (with_api) plan_ingest(pipeline, database, plan);
  // The workspace's own files name the services that are made now, and those that were made before.
  plan_workspace(pipeline, plan);
  std::ranges::sort(plan.files, {}, &PlannedFile::path);
  return plan;
}

}  // namespace pipegen::gen
