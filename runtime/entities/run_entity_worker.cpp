#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "entities/entity_worker.hpp"
#include "http/service.hpp"
#include "pipegen/entities.hpp"
#include "sql/database.hpp"
#include "worker/process.hpp"

namespace pipegen {
namespace {

using std::chrono::milliseconds;

void check_settings(const Settings& settings, const std::string& section, const Logger& log) {
  for (const auto& where : settings.unknown(section, {"batch_size", "worker_pool_size", "status_rows", "status_max_age",
                                                      "max_deliver", "ack_wait", "grace_period"})) {
    log.warning("a setting has no meaning; is it misspelt?", {{"setting", where}});
  }
}

class EntityProgram final : public worker::Program {
 public:
  EntityProgram(nats::Connection& connection, const EntityWorkerSpec& spec, const Settings& settings,
                sql::Database& database, Metrics& metrics, entities::EntityWorkerOptions options)
      : connection_(connection),
        topology_(spec.topology),
        dead_letters_(spec.dead_letter_subject),
        entities_(spec.entities.size()),
        database_(database),
        worker_(connection, spec, settings, database, metrics, std::move(options)) {}

  void prepare() override {
    const Logger log;
    nats::ensure(connection_, topology_);
    if (!dead_letters_.empty()) connection_.require_publishable({dead_letters_});
    worker_.check();
    database_.migrate();
    log.info("the tables are there", {{"database", database_.description()}});
    for (std::size_t i = 0; i < entities_; ++i) worker::log_promises(connection_, worker_.stage(i), log);
  }
  void start() override { worker_.start(); }
  bool stop() override { return worker_.stop(); }
  Readiness readiness() const override { return worker_.readiness(); }

 private:
  nats::Connection& connection_;
  const Topology topology_;
  const std::string dead_letters_;
  const std::size_t entities_;
  sql::Database& database_;
  entities::EntityWorker worker_;
};

int run(const Settings& settings, std::string_view service, bool check_only, const EntityWorkerSpec& spec) {
  check_settings(settings, spec.section, Logger());
  entities::EntityWorkerOptions options;
  options.grace_period = settings.duration(spec.section + ".grace_period", options.grace_period);
  options.ack_wait =
      std::max<milliseconds>(settings.duration(spec.section + ".ack_wait", options.ack_wait), std::chrono::seconds(1));
  const std::unique_ptr<sql::Database> database = spec.open_database(settings, spec.schema);
  return worker::run_process(settings, service, spec.pipeline, check_only, options.grace_period,
                             [&](nats::Connection& connection, Metrics& metrics) {
                               return std::make_unique<EntityProgram>(connection, spec, settings, *database, metrics,
                                                                      options);
                             });
}

}  // namespace

void EntityWorkerSpec::add_entity(EntitySpec entity) { entities.push_back(std::move(entity)); }

int run_entity_worker(int argc, char** argv, std::string_view service,
                      const std::function<EntityWorkerSpec(const Settings& settings)>& make_spec) {
  const worker::Arguments arguments = worker::parse_arguments(argc, argv);
  if (arguments.exit_status) return *arguments.exit_status;
  return run_service(service, [&](const Settings& settings) {
    return run(settings, service, arguments.check_only, make_spec(settings));
  });
}

}  // namespace pipegen
