#include <utility>

#include "plan/views.hpp"

namespace pipegen::gen {

using nlohmann::json;

ServiceFiles::ServiceFiles(Plan& plan, const Service& service, json view, json types, std::set<std::string> sources)
    : plan_(plan), folder_(service.name + "/"), namespace_(service.cpp_name), view_(std::move(view)) {
  const std::vector<SourceFile> events = events_sources(types);
  for (const auto& [path, events_view] : events) sources.insert(path);
  view_["sources"] = std::move(sources);
  header("events.hpp", "service/generated/events.hpp", std::move(types));
  for (const auto& [path, events_view] : events) {
    add(path, "service/generated/events.cpp", Owner::kPipegen, events_view);
  }
}

void ServiceFiles::generated(const std::string& path, const std::string& from, json view) {
  add("generated/" + path, from, Owner::kPipegen, std::move(view));
}

void ServiceFiles::header(const std::string& name, const std::string& from, json view) {
  generated(namespace_ + "/" + name, from, std::move(view));
}

void ServiceFiles::scaffold(const std::string& name, const std::string& from, json view) {
  add("src/" + name, from, Owner::kUser, std::move(view));
}

void ServiceFiles::add(const std::string& path, const std::string& from, Owner owner, json view) {
  view.insert(view_.begin(), view_.end());
  plan_.files.push_back({folder_ + path, from, owner, std::move(view)});
}

}  // namespace pipegen::gen
