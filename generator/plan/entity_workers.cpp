// Which services write entities.
#include <algorithm>

#include "model/snake_case.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

constexpr const char* kEntityWorker = "entity-worker";

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

}  // namespace

std::string entity_worker_name(const Entity& entity) {
  std::string name = snake_case(entity.name) + "_worker";
  std::ranges::replace(name, '_', '-');
  return name;
}

std::vector<EntityWorker> entity_workers_of(const Pipeline& pipeline) {
  std::vector<EntityWorker> workers = pipeline.entity_workers;
  if (auto others = other_entities(pipeline); !others.empty()) {
    workers.push_back(entity_worker(pipeline, kEntityWorker, std::move(others)));
  }
  return workers;
}

std::vector<EntityWorker> possible_entity_workers(const Pipeline& pipeline) {
  std::vector<EntityWorker> workers = entity_workers_of(pipeline);
  for (const Entity& entity : pipeline.entities) {
    if (entity.parent.empty()) {
      workers.push_back(entity_worker(pipeline, entity_worker_name(entity), {entity.name}));
    }
  }
  return workers;
}

std::set<std::string> wanted_writers(const Pipeline& pipeline, const Request& request) {
  std::set<std::string> wanted;
  if (request.what == Request::What::kIngestApi) return wanted;
  if (!request.entity.empty()) {
    const auto entity = std::ranges::find(pipeline.entities, request.entity, &Entity::name);
    if (entity != pipeline.entities.end()) wanted.insert(entity_worker_name(*entity));
    return wanted;
  }
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

}  // namespace pipegen::gen
