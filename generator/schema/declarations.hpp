// Every file of a schema and everything they declare, by name; nothing is looked into yet.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "schema/load.hpp"
#include "schema/syntax.hpp"

namespace pipegen::gen {

struct SourceFile {
  std::string name;            // as spans show it
  std::filesystem::path path;  // normal
  std::string origin;          // relative to the folder of the file that says `pipeline:`
  Node root;
};

/// One thing that a file declares. Points into Declarations::files.
struct Declaration {
  const Node* key = nullptr;
  const Node* value = nullptr;
  const SourceFile* file = nullptr;
};

enum class Section { kTypes, kEvents, kStreams, kBuckets, kStages, kEntities };

struct Declarations {
  std::vector<std::unique_ptr<SourceFile>> files;  // the root first
  std::map<Section, std::map<std::string, Declaration>> tables;
  Declaration pipeline, workflow_id, json_names, ingest;  // key is nullptr: not given
  /// False when a file or section could not be read: a name that is missing may be in there.
  bool complete = true;

  const std::map<std::string, Declaration>& table(Section section) const { return tables.at(section); }
};

/// "type", "event", …
std::string section_word(Section section);
/// "types", "events", …: as the schema writes it.
std::string section_key(Section section);
/// "a type", "an event", …
std::string a_section(Section section);

/// Reads `root` and its imports. `texts` gets what was read.
Declarations read_declarations(FileReader& files, const std::filesystem::path& root, Report& report,
                               std::map<std::string, std::string>& texts);

}  // namespace pipegen::gen
