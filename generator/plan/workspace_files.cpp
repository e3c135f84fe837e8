#include <algorithm>
#include <sstream>

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
      {"ocr", {"libleptonica-dev", "libtesseract-dev"}, {"libtesseract5"}},
      {"speech", {"libespeak-ng-dev"}, {"espeak-ng-data", "libespeak-ng1"}},
      {"audio", {"libsndfile1-dev"}, {"libsndfile1"}},
      {"sql", {}, {}},
      {"sqlite", {"libsqlite3-dev"}, {"libsqlite3-0"}},
      {"postgresql", {"libpq-dev"}, {"libpq5"}},
      {"entities", {}, {}},
      {"exec", {}, {}},
      {"http_call", {}, {}},
  };
  return kPackages;
}

/// Tesseract's data, by language: "deu+chi_sim" -> "tesseract-ocr-deu", "tesseract-ocr-chi-sim".
std::set<std::string> language_packages(const Stage& stage) {
  std::set<std::string> names;
  const auto argument = std::ranges::find(stage.arguments, "language", &ActionArgument::parameter);
  if (stage.action != "ocr" || argument == stage.arguments.end()) return names;
  std::istringstream languages(argument->value.literal.text);
  for (std::string language; std::getline(languages, language, '+');) {
    std::ranges::replace(language, '_', '-');
    // Scripts ("script/Latin") are in packages of other names.
    const bool plain = std::ranges::all_of(
        language, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
    if (plain && !language.empty()) names.insert("tesseract-ocr-" + language);
  }
  return names;
}

json package_list(const std::vector<std::string>& components, bool run, std::set<std::string> names) {
  for (const Packages& entry : packages()) {
    if (std::ranges::find(components, entry.component) == components.end()) continue;
    for (const std::string_view name : run ? entry.run : entry.build) names.emplace(name);
  }
  return names;
}

/// Where a worker's container serves /metrics; the API does along with the rest.
constexpr int kAdminPort = 9090;

json setting(const std::string& key, const std::string& value) { return {{"key", key}, {"value", value}}; }

/// What a service calls things, by the keys of [nats].
json nats_settings(const Pipeline& pipeline, const Needs& needs) {
  json names = json::object();
  for (const std::string& name : needs.streams) {
    const Stream& stream = pipeline.streams.at(name);
    names[stream.setting] = name;
    for (const std::string& event : stream.events) {
      names[pipeline.events.at(event).setting] = pipeline.events.at(event).subject;
    }
    if (name != pipeline.entity_stream) continue;
    for (const Entity& entity : pipeline.entities) {
      if (entity.parent.empty()) names[entity.setting] = entity.subject;
    }
  }
  for (const std::string& name : needs.buckets) names[pipeline.buckets.at(name).setting] = name;
  for (const std::string& name : needs.key_values) names[pipeline.key_values.at(name).setting] = name;
  return names;
}

json entity_worker_settings(Database database) {
  json lines = json::array({setting("batch_size", "500")});
  // SQLite has one writer at a time, and so has the worker.
  if (database == Database::kPostgresql) lines.push_back(setting("worker_pool_size", "2"));
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

/// The environment variables that a stage takes its secrets from.
json stage_secrets(const Stage& stage) {
  json names = json::array();
  const Action* action = find_action(stage.action);
  if (action == nullptr) return names;
  for (const ActionParameter& parameter : action->parameters) {
    if (parameter.role != ActionParameter::Role::kSecret) continue;
    names.push_back(upper_case(stage.section + "_" + std::string(parameter.name)));
  }
  return names;
}

/// PostgreSQL keeps names of users that begin with pg_ to itself.
std::string database_user(const Pipeline& pipeline) {
  return pipeline.cpp_name.starts_with("pg_") ? "pipegen" : pipeline.cpp_name;
}

}  // namespace

Service service_of(const Stage& stage) {
  Service service{stage.name, stage.cpp_name, stage.section, {"core", "http", "nats", "worker"}, false};
  const Action* action = find_action(stage.action);
  if (action != nullptr && !action->component.empty()) service.components.emplace_back(action->component);
  std::ranges::sort(service.components);
  return service;
}

Service service_of(const EntityWorker& worker, Database database) {
  Service service{worker.name, worker.cpp_name, worker.section, {"core", "entities", "http", "nats", "sql", "worker"}};
  service.components.push_back(to_string(database));
  std::ranges::sort(service.components);
  return service;
}

Service ingest_service(const Pipeline& pipeline, Database database) {
  Service service{kIngestService, "ingest_api", kIngestSection, {"core", "http", "nats"}, true};
  // It asks the database what became of a message.
  if (pipeline.ingest && !pipeline.ingest->entities.empty()) {
    service.components.insert(service.components.end(), {"sql", to_string(database)});
  }
  return service;
}

std::vector<Service> services_of(const Pipeline& pipeline, Database database) {
  std::vector<Service> services;
  for (const auto& [name, stage] : pipeline.stages) services.push_back(service_of(stage));
  for (const EntityWorker& worker : entity_workers_of(pipeline)) services.push_back(service_of(worker, database));
  if (pipeline.ingest) services.push_back(ingest_service(pipeline, database));
  std::ranges::sort(services, {}, &Service::name);
  return services;
}

std::string status_bucket(const Pipeline& pipeline) {
  return pipeline.workflow_id.empty() || !pipeline.ingest ? "" : pipeline.constant + "_STATUS";
}

std::string dead_letter_stream(const Pipeline& pipeline) { return pipeline.constant + "_DLQ"; }

std::string to_string(Database database) { return database == Database::kSqlite ? "sqlite" : "postgresql"; }

std::string default_database_url(const Pipeline& pipeline, Database database) {
  return database == Database::kSqlite
             ? "sqlite:" + pipeline.name + ".db"
             : "postgresql://" + database_user(pipeline) + "@127.0.0.1:5432/" + pipeline.cpp_name;
}

void plan_service(const Pipeline& pipeline, const Service& service, const Needs& needs, const json& base, Plan& plan) {
  json view = base;
  const auto links = [&](const char* component) {
    return std::ranges::find(service.components, component) != service.components.end();
  };
  const auto stage = pipeline.stages.find(service.name);
  const bool is_stage = !service.is_api && stage != pipeline.stages.end();
  view["has_user_sources"] = base.at("is_custom").get<bool>() || base.at("has_transforms").get<bool>();
  view["has_sqlite"] = links("sqlite");
  view["has_database"] = links("sqlite") || links("postgresql");
  std::set<std::string> build, run;
  if (is_stage) {
    build = stage->second.build_packages;
    run = stage->second.run_packages;
    run.merge(language_packages(stage->second));
  }
  view["build_packages"] = package_list(service.components, false, std::move(build));
  view["run_packages"] = package_list(service.components, true, std::move(run));
  view["section"] = service.section;
  view["environment"] = upper_case(service.section);
  view["port"] = pipeline.ingest && service.is_api ? pipeline.ingest->port : kAdminPort;
  for (const auto& [file, name] :
       {std::pair{"CMakeLists.txt", "service/CMakeLists.txt"}, std::pair{"Dockerfile", "service/Dockerfile"},
        std::pair{"README.md", "service/README.md"}}) {
    plan.files.push_back({service.name + "/" + file, name, Owner::kPipegen, view});
  }

  json entry = {{"components", service.components},
                {"section", service.section},
                {"nats_settings", nats_settings(pipeline, needs)}};
  if (links("sqlite")) entry["database"] = to_string(Database::kSqlite);
  if (links("postgresql")) entry["database"] = to_string(Database::kPostgresql);
  if (service.is_api) {
    entry["port"] = pipeline.ingest->port;
  } else if (is_stage) {
    entry["nats_settings"][stage->second.durable_setting] = stage->second.durable;
    entry["settings"] = stage_settings(stage->second);
    entry["secrets"] = stage_secrets(stage->second);
  } else {
    entry["settings"] = entity_worker_settings(links("sqlite") ? Database::kSqlite : Database::kPostgresql);
    entry["secrets"] = json::array();
  }
  plan.services[service.name] = std::move(entry);
}

void plan_workspace(const Pipeline& pipeline, Plan& plan) {
  json service_views = json::array();
  json sections = json::array();
  json worker_secrets = json::array();
  std::map<std::string, std::string> nats_settings;
  int api_port = 0;
  std::string jobs;
  for (const auto& [name, entry] : plan.services) {
    std::string components;
    for (const json& component : entry.at("components")) {
      components += (components.empty() ? "" : " ") + component.get<std::string>();
    }
    const auto section = entry.at("section").get<std::string>();
    const bool is_api = entry.contains("port");
    const json own_secrets = is_api ? json::array({upper_case(section + "_tokens")}) : entry.at("secrets");
    if (!is_api) worker_secrets.insert(worker_secrets.end(), own_secrets.begin(), own_secrets.end());
    service_views.push_back({{"name", name},
                             {"environment", upper_case(section)},
                             {"components", components},
                             {"secrets", own_secrets},
                             {"metrics_port", is_api ? entry.at("port").get<int>() : kAdminPort},
                             {"has_sqlite", entry.value("database", "") == to_string(Database::kSqlite)},
                             {"has_postgresql", entry.value("database", "") == to_string(Database::kPostgresql)},
                             {"is_api", is_api}});
    jobs += (jobs.empty() ? "" : "|") + name;
    if (is_api) {
      api_port = entry.at("port").get<int>();
    } else {
      sections.push_back({{"name", section}, {"settings", entry.at("settings")}});
    }
    for (const auto& [key, value] : entry.at("nats_settings").items()) {
      nats_settings[key] = toml_string(value.get<std::string>());
    }
  }
  json nats_lines = json::array();
  for (const auto& [key, value] : nats_settings) nats_lines.push_back(setting(key, value));
  const std::optional<Database> database = database_of(plan.services);
  const json view = {{"pipeline", pipeline.name},
                     {"project", pipeline.cpp_name},
                     {"database_user", database_user(pipeline)},
                     {"schema", pipeline.origin.file},
                     {"services", service_views},
                     {"worker_secrets", worker_secrets},
                     {"nats_settings", nats_lines},
                     {"sections", sections},
                     {"jobs", jobs},
                     {"uid", pipeline.name.substr(0, 30)},
                     // For what Prometheus and Grafana fill in themselves.
                     {"open", "{{"},
                     {"close", "}}"},
                     {"has_api", api_port > 0},
                     {"port", api_port},
                     {"has_database", database.has_value()},
                     {"has_sqlite", database == Database::kSqlite},
                     {"has_postgresql", database == Database::kPostgresql},
                     {"database_url", database ? toml_string(default_database_url(pipeline, *database)) : ""}};
  const auto add = [&](const std::string& path, Owner owner) {
    // Templates of dot files are named without the dot, so that no tool takes them for its own.
    const std::string name = path.starts_with('.') ? path.substr(1) : path;
    plan.files.push_back({path, "workspace/" + name, owner, view});
  };
  add("CMakeLists.txt", Owner::kPipegen);
  add("project.toml", Owner::kShared);
  add("docker-compose.yml", Owner::kPipegen);
  add("nats-server.conf", Owner::kShared);
  add(".env.example", Owner::kPipegen);
  add("monitoring/alerts.yml", Owner::kShared);
  add("monitoring/grafana-dashboard.json", Owner::kShared);
  add("monitoring/prometheus.yml", Owner::kShared);
  add(".dockerignore", Owner::kPipegen);
  add(".gitignore", Owner::kShared);
  add(".clang-format", Owner::kShared);
}

}  // namespace pipegen::gen
