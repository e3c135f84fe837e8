#include "plan/plan.hpp"

#include <algorithm>
#include <set>

#include "model/snake_case.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

constexpr const char* kEntityWorker = "entity-worker";

std::string kebab_case(const std::string& name) {
  std::string out = snake_case(name);
  std::ranges::replace(out, '_', '-');
  return out;
}

EntityWorker entity_worker(const Pipeline& pipeline, const std::string& name, std::vector<std::string> entities) {
  EntityWorker worker;
  worker.name = name;
  worker.cpp_name = snake_case(name);
  worker.section = worker.cpp_name + "_service";
  worker.entities = std::move(entities);
  worker.origin = pipeline.origin;
  return worker;
}

/// Those that no `persist` stage names.
std::vector<std::string> other_entities(const Pipeline& pipeline) {
  std::set<std::string> names;
  for (const Entity& entity : pipeline.entities) {
    if (entity.parent.empty()) names.insert(entity.name);
  }
  for (const EntityWorker& worker : pipeline.entity_workers) {
    for (const std::string& name : worker.entities) names.erase(name);
  }
  return {names.begin(), names.end()};
}

/// Every worker that some command could make.
std::vector<EntityWorker> possible_entity_workers(const Pipeline& pipeline) {
  std::vector<EntityWorker> workers = entity_workers_of(pipeline);
  for (const Entity& entity : pipeline.entities) {
    if (entity.parent.empty()) {
      workers.push_back(entity_worker(pipeline, kebab_case(entity.name) + "-worker", {entity.name}));
    }
  }
  return workers;
}

/// The entity workers that the request is about, by name.
std::set<std::string> wanted_writers(const Pipeline& pipeline, const Request& request) {
  std::set<std::string> wanted;
  if (request.what == Request::What::kIngestApi) return wanted;
  if (!request.entity.empty()) return {kebab_case(request.entity) + "-worker"};
  const std::set<std::string> root_stages(pipeline.root_stages.begin(), pipeline.root_stages.end());
  for (const EntityWorker& worker : entity_workers_of(pipeline)) {
    const bool all = request.what == Request::What::kAll;
    // A file with stages speaks for these; one without for the pipeline's entities, if it is no other's.
    const bool of_root =
        worker.name == kEntityWorker
            ? root_stages.empty() ||
                  std::ranges::any_of(pipeline.entities,
                                      [&](const Entity& entity) {
                                        return entity.parent.empty() && entity.origin.file == pipeline.root_file;
                                      })
            : root_stages.contains(worker.name);
    if (all || of_root) wanted.insert(worker.name);
  }
  return wanted;
}

}  // namespace

std::vector<EntityWorker> entity_workers_of(const Pipeline& pipeline) {
  std::vector<EntityWorker> workers = pipeline.entity_workers;
  if (auto others = other_entities(pipeline); !others.empty()) {
    workers.push_back(entity_worker(pipeline, kEntityWorker, std::move(others)));
  }
  return workers;
}

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
