#include "plan/plan.hpp"

#include <algorithm>
#include <set>

#include "plan/views.hpp"

namespace pipegen::gen {

Plan plan(const Pipeline& pipeline, const Request& request) {
  std::set<std::string> wanted;
  if (request.what == Request::What::kWorkers) wanted.insert(pipeline.root_stages.begin(), pipeline.root_stages.end());
  if (request.what == Request::What::kAll) {
    for (const auto& [name, stage] : pipeline.stages) wanted.insert(name);
  }
  const bool with_api = request.what != Request::What::kWorkers && pipeline.ingest.has_value();

  Plan plan{.files = {}, .services = request.existing_services};
  for (const auto& [name, stage] : pipeline.stages) {
    if (wanted.contains(name)) plan_worker(pipeline, stage, plan);
  }
  if (with_api) plan_ingest(pipeline, plan);
  // The workspace's own files name the services that are made now, and those that were made before.
  plan_workspace(pipeline, plan);
  std::ranges::sort(plan.files, {}, &PlannedFile::path);
  return plan;
}

}  // namespace pipegen::gen
