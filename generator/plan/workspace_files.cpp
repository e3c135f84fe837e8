#include <algorithm>

#include "model/action.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

/// Debian packages that a component of the runtime needs: to build with, and to run with.
struct Packages {
  std::string_view component;
  std::vector<std::string_view> build;
  std::vector<std::string_view> run;
};

const std::vector<Packages>& packages() {
  static const std::vector<Packages> kPackages{
      {"core",
       {"libsimdjson-dev", "libspdlog-dev", "libssl-dev", "libtomlplusplus-dev", "nlohmann-json3-dev",
        "prometheus-cpp-dev"},
       {"libprometheus-cpp-core1.0", "libsimdjson14", "libspdlog1.10", "libssl3", "libtomlplusplus3"}},
      {"nats", {"libnats-dev"}, {"libnats3.4"}},
      {"http", {"libcpp-httplib-dev"}, {"libcpp-httplib0.11"}},
      {"worker", {}, {}},
      {"pdf", {"libpoppler-cpp-dev"}, {"libpoppler-cpp0v5"}},
      {"ocr", {"libleptonica-dev", "libtesseract-dev"}, {"libtesseract5", "tesseract-ocr-eng"}},
      {"speech", {"libespeak-ng-dev"}, {"espeak-ng-data", "libespeak-ng1"}},
      {"audio", {"libsndfile1-dev"}, {"libsndfile1"}},
  };
  return kPackages;
}

json package_list(const std::vector<std::string>& components, bool run) {
  std::set<std::string> names;
  for (const Packages& entry : packages()) {
    if (std::ranges::find(components, entry.component) == components.end()) continue;
    for (const std::string_view name : run ? entry.run : entry.build) names.emplace(name);
  }
  return names;
}

json setting(const std::string& key, const std::string& value) { return {{"key", key}, {"value", value}}; }

json nats_settings(const Pipeline& pipeline) {
  json lines = json::array();
  for (const auto& [name, stream] : pipeline.streams) lines.push_back(setting(stream.setting, toml_string(name)));
  for (const auto& [name, stage] : pipeline.stages) {
    lines.push_back(setting(stage.durable_setting, toml_string(stage.durable)));
  }
  for (const auto& [name, event] : pipeline.events) lines.push_back(setting(event.setting, toml_string(event.subject)));
  for (const auto& [name, bucket] : pipeline.buckets) lines.push_back(setting(bucket.setting, toml_string(name)));
  for (const auto& [name, bucket] : pipeline.key_values) lines.push_back(setting(bucket.setting, toml_string(name)));
  return lines;
}

json stage_settings(const Stage& stage) {
  json lines = json::array();
  lines.push_back(setting("worker_pool_size", std::to_string(stage.concurrency)));
  const Action* action = find_action(stage.action);
  if (action == nullptr) return lines;
  for (const ActionParameter& parameter : action->parameters) {
    if (parameter.role != ActionParameter::Role::kSetting) continue;
    const auto argument = std::ranges::find(stage.arguments, parameter.name, &ActionArgument::parameter);
    const bool given = argument != stage.arguments.end();
    std::string value;
    if (parameter.is_list) {
      if (given) {
        for (const Literal& item : argument->value.literal.items) {
          value += (value.empty() ? "" : ", ") + toml_string(item.text);
        }
      }
      value = "[" + value + "]";
    } else {
      const std::string text = given ? argument->value.literal.text : std::string(parameter.fallback);
      value = parameter.type == TypeKind::kString ? toml_string(text) : text;
    }
    lines.push_back(setting(std::string(parameter.name), value));
  }
  return lines;
}

}  // namespace

Service service_of(const Stage& stage) {
  Service service{stage.name, stage.cpp_name, stage.section, {"core", "http", "nats", "worker"}, false};
  const Action* action = find_action(stage.action);
  if (action != nullptr && !action->component.empty()) service.components.emplace_back(action->component);
  std::ranges::sort(service.components);
  return service;
}

Service ingest_service() { return {kIngestService, "ingest_api", kIngestSection, {"core", "http", "nats"}, true}; }

std::vector<Service> services_of(const Pipeline& pipeline) {
  std::vector<Service> services;
  for (const auto& [name, stage] : pipeline.stages) services.push_back(service_of(stage));
  if (pipeline.ingest) services.push_back(ingest_service());
  std::ranges::sort(services, {}, &Service::name);
  return services;
}

std::string status_bucket(const Pipeline& pipeline) {
  return pipeline.workflow_id.empty() || !pipeline.ingest ? "" : pipeline.constant + "_STATUS";
}

std::string dead_letter_stream(const Pipeline& pipeline) { return pipeline.constant + "_DLQ"; }

void plan_service(const Pipeline& pipeline, const Service& service, const json& base, std::vector<PlannedFile>& files) {
  json view = base;
  view["build_packages"] = package_list(service.components, false);
  view["run_packages"] = package_list(service.components, true);
  view["section"] = service.section;
  view["environment"] = upper_case(service.section);
  view["port"] = pipeline.ingest && service.is_api ? pipeline.ingest->port : 9090;
  for (const auto& [file, name] :
       {std::pair{"CMakeLists.txt", "service/CMakeLists.txt"}, std::pair{"Dockerfile", "service/Dockerfile"},
        std::pair{"README.md", "service/README.md"}}) {
    files.push_back({service.name + "/" + file, name, Owner::kPipegen, view});
  }
}

void plan_workspace(const Pipeline& pipeline, const std::vector<Service>& services, std::vector<PlannedFile>& files) {
  json service_views = json::array();
  for (const Service& service : services) {
    std::string components;
    for (const std::string& component : service.components) components += (components.empty() ? "" : " ") + component;
    service_views.push_back({{"name", service.name},
                             {"variable", service.cpp_name},
                             {"section", service.section},
                             {"environment", upper_case(service.section)},
                             {"components", components},
                             {"is_api", service.is_api}});
  }
  json sections = json::array();
  for (const auto& [name, stage] : pipeline.stages) {
    sections.push_back({{"name", stage.section}, {"settings", stage_settings(stage)}});
  }
  json view = {{"pipeline", pipeline.name},
               {"project", pipeline.cpp_name},
               {"schema", pipeline.root_file},
               {"services", service_views},
               {"nats_settings", nats_settings(pipeline)},
               {"sections", sections},
               {"has_api", pipeline.ingest.has_value()},
               {"port", pipeline.ingest ? pipeline.ingest->port : 0}};
  const auto add = [&](const std::string& path, Owner owner) {
    // Templates of dot files are named without the dot, so that no tool takes them for its own.
    const std::string name = path.starts_with('.') ? path.substr(1) : path;
    files.push_back({path, "workspace/" + name, owner, view});
  };
  add("CMakeLists.txt", Owner::kPipegen);
  add("project.toml", Owner::kShared);
  add("docker-compose.yml", Owner::kPipegen);
  add("nats-server.conf", Owner::kShared);
  add(".env.example", Owner::kPipegen);
  add(".dockerignore", Owner::kPipegen);
  add(".gitignore", Owner::kShared);
  add(".clang-format", Owner::kShared);
}

}  // namespace pipegen::gen
