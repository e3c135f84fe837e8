// The views of the planned files, each made by one function. Internal to plan/.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "model/pipeline.hpp"
#include "plan/plan.hpp"

namespace pipegen::gen {

/// "sqlite": as the component of the runtime and the option of the commands are called.
std::string to_string(Database database);

inline constexpr const char* kIngestService = "ingest-api";
inline constexpr const char* kIngestSection = "ingest_api";

Service service_of(const Stage& stage);
Service service_of(const EntityWorker& worker, Database database);
Service ingest_service(const Pipeline& pipeline, Database database);

/// Every worker of entities that some command could make.
std::vector<EntityWorker> possible_entity_workers(const Pipeline& pipeline);
/// The names of those that the request is about.
std::set<std::string> wanted_writers(const Pipeline& pipeline, const Request& request);

/// "PDF_TO_AUDIO_STATUS"; empty when the pipeline has no workflows that somebody could ask about.
std::string status_bucket(const Pipeline& pipeline);
std::string dead_letter_stream(const Pipeline& pipeline);

/// Enums, buckets, records and publish functions of a service.
///   events: names of the events it reads or writes; published: those that it publishes;
///   read: names of records that it reads besides: what entities are made of.
nlohmann::json types_view(const Pipeline& pipeline, const std::set<std::string>& events,
                          const std::set<std::string>& published, const std::set<std::string>& read = {});

/// A source file of a service: path in the service's folder, and view.
using SourceFile = std::pair<std::string, nlohmann::json>;
/// What `types`, a types_view, needs of source files: events.cpp, then events_2.cpp and so on, because each has to
/// compile in under a second.
std::vector<SourceFile> events_sources(const nlohmann::json& types);

/// Adds the files of one service to a plan; all of them see the service's own view besides theirs.
class ServiceFiles {
 public:
  /// Adds events.hpp and what `types`, a types_view, needs of source files. `view` is the service's, `sources` its
  /// other generated source files; the view gets all of them.
  ServiceFiles(Plan& plan, const Service& service, nlohmann::json view, nlohmann::json types,
               std::set<std::string> sources);

  /// generated/PATH, from the template `from`.
  void generated(const std::string& path, const std::string& from, nlohmann::json view = nlohmann::json::object());
  /// generated/NAMESPACE/NAME: one that is included.
  void header(const std::string& name, const std::string& from, nlohmann::json view = nlohmann::json::object());
  /// src/NAME: scaffolded once, then the user's.
  void scaffold(const std::string& name, const std::string& from, nlohmann::json view = nlohmann::json::object());

  const nlohmann::json& view() const { return view_; }

 private:
  void add(const std::string& path, const std::string& from, Owner owner, nlohmann::json view);

  Plan& plan_;
  const std::string folder_;
  const std::string namespace_;
  nlohmann::json view_;
};

/// Streams and buckets that a service needs, by name.
struct Needs {
  std::set<std::string> streams, buckets, key_values;
};
/// The same as {streams, object_buckets, key_values} of the service's topology.
nlohmann::json topology_view(const Pipeline& pipeline, const Needs& needs, bool idempotency);

/// Each after those that produce what it consumes, as a job passes them; else by name.
std::vector<const Stage*> stages_in_order(const Pipeline& pipeline);

// Each adds its files, and to the plan's services what the files of the workspace have to say about it.
void plan_worker(const Pipeline& pipeline, const Stage& stage, Plan& plan);
void plan_entity_worker(const Pipeline& pipeline, const EntityWorker& worker, Database database, Plan& plan);
void plan_ingest(const Pipeline& pipeline, Database database, Plan& plan);
/// What every kind of service has: CMakeLists.txt, Dockerfile, README.md, its entry in the workspace.
void plan_service(const Pipeline& pipeline, const Service& service, const Needs& needs, const nlohmann::json& base,
                  Plan& plan);
/// The files of the workspace itself, for the plan's services.
void plan_workspace(const Pipeline& pipeline, Plan& plan);

/// A field that a client may give along with an upload, named by its path on the wire: "header.userId".
struct ClientField {
  std::string name;
  const Field* field;
  bool is_text;  // sent as it is; anything else is sent as JSON
};

/// OpenAPI 3.1 of the ingestion API.
///   fields: of each upload, by its name.
std::string openapi(const Pipeline& pipeline, const std::map<std::string, std::vector<ClientField>>& fields);

/// What the API fills in when a client leaves it out, whatever the route: the workflow id, and the records on the way
/// to it that have no other field which somebody has to give. As JSON pointers: "/header", "/header/workflow_id".
std::vector<std::string> made_by_api(const Pipeline& pipeline, const Event& event);

/// The files that declare what a view shows, for the first line of a generated file: "events.yaml and tts.yaml".
std::string origins(const std::set<std::string>& files);

}  // namespace pipegen::gen
