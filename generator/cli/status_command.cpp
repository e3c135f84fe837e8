#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/sibling.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {
namespace {

/// For pipegen-status: the consumers of the pipeline, and the settings that may call them something else.
std::string consumers_of(const Pipeline& pipeline) {
  nlohmann::json consumers = nlohmann::json::array();
  const auto add = [&](const std::string& stage, const Stream& stream, const std::string& durable,
                       const std::string& durable_setting) {
    consumers.push_back({{"stage", stage},
                         {"stream", stream.name},
                         {"stream_setting", stream.setting},
                         {"durable", durable},
                         {"durable_setting", durable_setting}});
  };
  for (const Stage* stage : stages_in_order(pipeline)) {
    const Stream& stream = pipeline.streams.at(pipeline.events.at(stage->consumes).stream);
    add(stage->name, stream, stage->durable, stage->durable_setting);
  }
  for (const EntityWorker& worker : entity_workers_of(pipeline)) {
    for (const std::string& name : worker.entities) {
      const Entity& entity = *std::ranges::find(pipeline.entities, name, &Entity::name);
      add(worker.name, pipeline.streams.at(pipeline.entity_stream), entity.durable, entity.durable_setting);
    }
  }
  const nlohmann::json view = {{"dead_letter_stream", dead_letter_stream(pipeline)}, {"consumers", consumers}};
  return view.dump();
}

}  // namespace

int run_status(const StatusOptions& options) {
  std::vector<std::string> words;
  if (options.schema) {
    const Loaded loaded = load_schema(*options.schema);
    if (!loaded.pipeline) {
      print_diagnostics(loaded, DiagnosticsFormat::kText);
      return 1;
    }
    words = {"--pipeline", consumers_of(*loaded.pipeline)};
  }
  if (!options.nats_url.empty()) words.insert(words.end(), {"--nats-url", options.nats_url});
  if (options.json) words.emplace_back("--json");
  return become_sibling("pipegen-status", std::move(words));
}

}  // namespace pipegen::gen
