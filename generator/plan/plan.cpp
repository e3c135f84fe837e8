#include "plan/plan.hpp"

#include <algorithm>

#include "plan/views.hpp"

namespace pipegen::gen {

std::vector<PlannedFile> plan(const Pipeline& pipeline, const Request& request) {
  std::set<std::string> wanted;
  if (request.what == Request::What::kWorkers) wanted.insert(pipeline.root_stages.begin(), pipeline.root_stages.end());
  if (request.what == Request::What::kAll) {
    for (const auto& [name, stage] : pipeline.stages) wanted.insert(name);
  }
  const bool with_api = request.what != Request::What::kWorkers && pipeline.ingest.has_value();

  std::vector<PlannedFile> files;
  for (const auto& [name, stage] : pipeline.stages) {
    if (wanted.contains(name)) plan_worker(pipeline, stage, files);
  }
  if (with_api) plan_ingest(pipeline, files);

  // The workspace's own files name the services that are made now, and those that were made before.
  std::vector<Service> services = services_of(pipeline);
  std::erase_if(services, [&](const Service& service) {
    const bool made_now = service.is_api ? with_api : wanted.contains(service.name);
    return !made_now && std::ranges::find(request.existing_services, service.name) == request.existing_services.end();
  });
  plan_workspace(pipeline, services, files);
  std::ranges::sort(files, {}, &PlannedFile::path);
  return files;
}

}  // namespace pipegen::gen
