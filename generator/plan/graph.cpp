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
  for (const EntityWorker& worker : entity_workers_of(pipeline)) {
    const std::string name = node(worker.name);
    line(name + "[\"<b>" + worker.name + "</b><br/>persist\"]");
    for (const Entity& entity : pipeline.entities) {
      // An entity that is a part of another is written by its worker.
      const Entity* root = &entity;
      while (!root->parent.empty()) root = &*std::ranges::find(pipeline.entities, root->parent, &Entity::name);
      if (std::ranges::find(worker.entities, root->name) == worker.entities.end()) continue;
      const std::string table = "table_" + node(entity.table);
      line(table + "[(\"" + entity.table + "\")]");
      line(name + " --> " + table);
    }
    for (const std::string& entity_name : worker.entities) {
      const Entity& entity = *std::ranges::find(pipeline.entities, entity_name, &Entity::name);
      const bool is_posted = pipeline.ingest && std::ranges::find(pipeline.ingest->entities, entity_name) !=
                                                    pipeline.ingest->entities.end();
      const std::string source = (is_posted ? "POST_" : "in_") + node(entity_name);
      const std::string label = is_posted ? "POST /ingest/" + snake_case(entity_name) : entity_name;
      line(source + "([\"" + label + "\"])");
      line(source + " -- \"" + entity.subject + "\" --> " + name);
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
