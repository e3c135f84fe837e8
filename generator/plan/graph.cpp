#include <algorithm>
#include <cctype>
#include <set>

#include "model/snake_case.hpp"
#include "plan/plan.hpp"

namespace pipegen::gen {

namespace {

/// Mermaid takes letters, digits and '_' as an identifier, unless it is a word of its own.
std::string node(const std::string& name) {
  static const std::set<std::string> kWords{"call",      "class", "classDef",  "click", "default",
                                            "direction", "end",   "flowchart", "graph", "href",
                                            "linkStyle", "style", "subgraph"};
  if (kWords.contains(name)) return "STAGE_" + name;  // no name of a stage has capitals
  std::string out;
  for (const char c : name) out.push_back(std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_');
  return out;
}

const Entity& entity_of(const Pipeline& pipeline, const std::string& name) {
  return *std::ranges::find(pipeline.entities, name, &Entity::name);
}

}  // namespace

std::string graph(const Pipeline& pipeline) {
  std::string out = "flowchart LR\n";
  const auto line = [&](const std::string& text) { out += "  " + text + "\n"; };
  std::map<std::string, std::vector<std::string>> producers;  // event -> nodes
  std::map<std::string, bool> consumed;

  if (pipeline.ingest) {
    for (const UploadSpec& upload : pipeline.ingest->uploads) {
      const std::string name = "POST_" + node(upload.name);
      line(name + "([\"POST " + upload.path + "\"])");
      producers[upload.produces].push_back(name);
    }
    for (const std::string& event : pipeline.ingest->events) {
      const std::string name = "POST_" + node(event);
      line(name + "([\"POST /events/" + event + "\"])");
      producers[event].push_back(name);
    }
  }
  for (const auto& [name, stage] : pipeline.stages) {
    const std::string action = stage.action == "custom" ? "handler in C++" : stage.action;
    const std::string extra = stage.collect ? "<br/>collects by " + stage.collect->by.names.back() : "";
    line(node(name) + "[\"<b>" + name + "</b><br/>" + action + extra + "\"]");
    for (const ProducedEvent& produced : stage.produces) producers[produced.event].push_back(node(name));
  }
  for (const auto& [name, stage] : pipeline.stages) {
    const std::string& subject = pipeline.events.at(stage.consumes).subject;
    consumed[stage.consumes] = true;
    for (const std::string& producer : producers[stage.consumes]) {
      line(producer + " -- \"" + subject + "\" --> " + node(name));
    }
  }
  // Entities: posted to the stream, taken from it by their worker, rows of tables in the end.
  const std::string stream = "stream_" + node(pipeline.entity_stream);
  if (!pipeline.entities.empty()) line(stream + "[[\"" + pipeline.entity_stream + "\"]]");
  if (pipeline.ingest) {
    for (const std::string& name : pipeline.ingest->entities) {
      const std::string post = "POST_" + node(name);
      line(post + "([\"POST /ingest/" + snake_case(name) + "\"])");
      line(post + " -- \"" + entity_of(pipeline, name).subject + "\" --> " + stream);
    }
  }
  for (const EntityWorker& worker : entity_workers_of(pipeline)) {
    line(node(worker.name) + "[\"<b>" + worker.name + "</b><br/>persist\"]");
    line(stream + " --> " + node(worker.name));
    for (const Entity& entity : pipeline.entities) {
      // An entity that is a part of another is written by its worker.
      const Entity* root = &entity;
      while (!root->parent.empty()) root = &entity_of(pipeline, root->parent);
      if (std::ranges::find(worker.entities, root->name) == worker.entities.end()) continue;
      line("table_" + node(entity.table) + "[(\"" + entity.table + "\")]");
      line(node(worker.name) + " --> table_" + node(entity.table));
    }
  }
  // Events that leave the pipeline.
  for (const auto& [event, from] : producers) {
    if (consumed[event] || from.empty()) continue;
    const std::string target = "out_" + node(event);
    std::string label = event;
    if (pipeline.ingest) {
      for (const UploadSpec& upload : pipeline.ingest->uploads) {
        if (upload.result && upload.result->event == event) {
          label = "GET " + upload.path + "/{workflow_id}/" + upload.result->as;
        }
      }
    }
    line(target + "([\"" + label + "\"])");
    for (const std::string& producer : from) {
      line(producer + " -- \"" + pipeline.events.at(event).subject + "\" --> " + target);
    }
  }
  return out;
}

}  // namespace pipegen::gen
