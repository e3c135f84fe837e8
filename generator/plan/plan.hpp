// Pipeline to list of files: what to make, of which template, owned by whom, with which view. Pure: no file system.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/pipeline.hpp"

namespace pipegen::gen {

enum class Owner {
  kPipegen,  // rewritten each time; an edit by hand stops the run
  kUser,     // written once, when it is not there
  kShared,   // pipegen's until somebody edits it, then the user's (project.toml)
};

struct PlannedFile {
  std::string path;           // in the workspace: "tts/generated/main.cpp"
  std::string template_name;  // in templates/: "worker/main.cpp"
  Owner owner = Owner::kPipegen;
  nlohmann::json view;
};

enum class Database { kSqlite, kPostgresql };

/// A folder of the workspace with one program in it.
struct Service {
  std::string name;                     // folder and program: "tts", "ingest-api"
  std::string cpp_name;                 // namespace
  std::string section;                  // of project.toml
  std::vector<std::string> components;  // of the runtime
  bool is_api = false;
};

/// Every service that the pipeline has, sorted by name.
std::vector<Service> services_of(const Pipeline& pipeline, Database database);

/// What writes the pipeline's entities when every service is made: those of the `persist` stages, and one for the
/// others.
std::vector<EntityWorker> entity_workers_of(const Pipeline& pipeline);
/// "order-worker": of the service that writes this entity alone.
std::string entity_worker_name(const Entity& entity);

/// The services of a workspace, by folder name, each with what the files of the workspace itself say about it. Only
/// plan/ looks inside; the manifest keeps it, so that a run whose schema does not reach a service still names it.
using Services = std::map<std::string, nlohmann::json>;

struct Request {
  enum class What { kWorkers, kIngestApi, kAll } what = What::kAll;
  /// With kWorkers: the worker of this entity alone.
  std::string entity{};
  /// Where entities are stored; nothing: where the workspace's services store them already, else in SQLite. Services of
  /// the workspace that store them elsewhere are made anew.
  std::optional<Database> database{};
  /// Those that the workspace has already: they stay in its CMakeLists.txt and docker-compose.yml.
  Services existing_services{};
};

/// What project.toml says first: "sqlite:tpch.db".
std::string default_database_url(const Pipeline& pipeline, Database database);
/// Where the services of a workspace store entities; nothing when none does.
std::optional<Database> database_of(const Services& services);
/// Whether the worker request for this pipeline has anything to make.
bool has_workers(const Pipeline& pipeline, const Request& request);

struct Plan {
  std::vector<PlannedFile> files;  // sorted by path
  Services services;               // that the workspace has afterwards
};

Plan plan(const Pipeline& pipeline, const Request& request);

/// Mermaid text of the pipeline.
std::string graph(const Pipeline& pipeline);

}  // namespace pipegen::gen
