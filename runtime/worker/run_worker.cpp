#include <memory>
#include <optional>
#include <utility>

#include "http/service.hpp"
#include "nats/garbage.hpp"
#include "pipegen/worker.hpp"
#include "worker/process.hpp"
#include "worker/status.hpp"
#include "worker/worker.hpp"

namespace pipegen {
namespace {

std::vector<std::string> published_by(const Stage& stage) {
  std::vector<std::string> subjects = stage.publishes;
  if (!stage.dead_letter_subject.empty()) subjects.push_back(stage.dead_letter_subject);
  if (!stage.status_bucket.empty()) {
    subjects.push_back("$KV." + worker::bucket_name(stage.topology, stage.status_bucket) + "." +
                       worker::status_key("_pipegen_may_it_publish", stage, "_"));
  }
  return subjects;
}

class StageProgram final : public worker::Program {
 public:
  StageProgram(nats::Connection& connection, Stage stage, const Settings& settings, Metrics& metrics,
               worker::WorkerOptions options)
      : connection_(connection),
        stage_(std::move(stage)),
        settings_(settings),
        metrics_(metrics),
        worker_(connection, stage_, settings, metrics, std::move(options)) {}

  void prepare() override {
    nats::ensure(connection_, stage_.topology);
    connection_.require_publishable(published_by(stage_));
    worker_.check();
    worker::log_promises(connection_, stage_, Logger());
  }
  void start() override {
    worker_.start();
    garbage_.emplace(connection_, stage_.topology, metrics_, nats::GarbageCollector::options_from(settings_));
  }
  bool stop() override {
    garbage_->request_stop();
    return worker_.stop();
  }
  Readiness readiness() const override { return worker_.readiness(); }

 private:
  nats::Connection& connection_;
  const Stage stage_;
  const Settings& settings_;
  Metrics& metrics_;
  worker::Worker worker_;
  std::optional<nats::GarbageCollector> garbage_;
};

int run(const Settings& settings, std::string_view service, bool check_only, Stage stage) {
  worker::WorkerOptions options;
  options.grace_period = settings.duration(stage.section + ".grace_period", options.grace_period);
  options.deadline_grace = settings.duration(stage.section + ".deadline_grace", options.deadline_grace);
  return worker::run_process(settings, service, stage.pipeline, check_only, options.grace_period,
                             [&](nats::Connection& connection, Metrics& metrics) {
                               return std::make_unique<StageProgram>(connection, stage, settings, metrics, options);
                             });
}

}  // namespace

int run_worker(int argc, char** argv, std::string_view service,
               const std::function<Stage(const Settings& settings)>& make_stage) {
  const worker::Arguments arguments = worker::parse_arguments(argc, argv);
  if (arguments.exit_status) return *arguments.exit_status;
  return run_service(service, [&](const Settings& settings) {
    return run(settings, service, arguments.check_only, make_stage(settings));
  });
}

}  // namespace pipegen
