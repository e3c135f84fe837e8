#include "workspace/manifest.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "workspace/workspace.hpp"

namespace pipegen::gen {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;
constexpr std::array<const char*, 3> kOwners{"pipegen", "user",
                                             "shared"};  // by Owner; do not change: they are on disks

Owner owner_of(const std::string& name) {
  for (std::size_t i = 0; i < kOwners.size(); ++i) {
    if (name == kOwners[i]) return static_cast<Owner>(i);
  }
  throw std::invalid_argument("'" + name + "' is no owner");
}

std::string quoted(const std::string& text) { return json(text).dump(); }

/// What stage() calls its files: anything else would be a path out of the staging folder.
std::string staged_name(const json& name) {
  auto text = name.get<std::string>();
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) {
    throw std::invalid_argument("'" + text + "' is no staged file");
  }
  return text;
}

json parse_format(const std::string& text, const std::filesystem::path& path) {
  json document = json::parse(text);
  if (const int format = document.at("pipegen").get<int>(); format != kFormat) {
    throw WorkspaceError(path.string() + " is of another pipegen (format " + std::to_string(format) +
                         "): use the pipegen that wrote it, or a newer one");
  }
  return document;
}

}  // namespace

std::string Manifest::text() const {
  std::string result = "{\n  \"pipegen\": " + std::to_string(kFormat) + ",\n  \"pipeline\": " + quoted(pipeline) +
                       ",\n  \"services\": {";
  const char* separator = "\n";
  for (const auto& [name, entry] : services) {
    result += separator + ("    " + quoted(name)) + ": " + entry.dump();
    separator = ",\n";
  }
  result += "\n  },\n  \"files\": {";
  separator = "\n";
  for (const auto& [path, entry] : files) {
    result += separator;
    result += "    " + quoted(path) + ": {\"owner\": \"" + kOwners[static_cast<std::size_t>(entry.owner)] +
              "\", \"sha256\": \"" + entry.sha256 + "\"" +
              (entry.unwritten_sha256.empty() ? "" : ", \"unwritten_sha256\": \"" + entry.unwritten_sha256 + "\"") +
              "}";
    separator = ",\n";
  }
  return result + "\n  }\n}\n";
}

Manifest Manifest::parse(const std::string& text, const std::filesystem::path& path) {
  Manifest manifest;
  try {
    const json document = parse_format(text, path);
    manifest.pipeline = document.at("pipeline").get<std::string>();
    for (const auto& [name, entry] : document.at("services").items()) manifest.services[name] = entry;
    for (const auto& [name, entry] : document.at("files").items()) {
      manifest.files[name] = {.owner = owner_of(entry.at("owner").get<std::string>()),
                              .sha256 = entry.at("sha256").get<std::string>(),
                              .unwritten_sha256 = entry.value("unwritten_sha256", "")};
    }
  } catch (const WorkspaceError&) {
    throw;
  } catch (const std::exception& error) {
    throw WorkspaceError(
        path.string() + " is damaged (" + error.what() +
        ")\nRestore it from version control, or delete it: files that are as pipegen would write them are then "
        "recognised, others are named.");
  }
  return manifest;
}

std::string Journal::text() const {
  json document{{"pipegen", kFormat}, {"moves", json::array()}, {"removals", json::array()}};
  for (const Move& move : moves) document["moves"].push_back({move.staged, move.path, move.before});
  for (const Removal& removal : removals) document["removals"].push_back({removal.path, removal.before});
  return document.dump(1) + '\n';
}

Journal Journal::parse(const std::string& text, const std::filesystem::path& path) {
  Journal journal;
  try {
    const json document = parse_format(text, path);
    for (const json& move : document.at("moves")) {
      journal.moves.push_back({.staged = staged_name(move.at(0)),
                               .path = move.at(1).get<std::string>(),
                               .before = move.at(2).get<std::string>()});
    }
    for (const json& removal : document.at("removals")) {
      journal.removals.push_back(
          {.path = removal.at(0).get<std::string>(), .before = removal.at(1).get<std::string>()});
    }
  } catch (const WorkspaceError&) {
    throw;
  } catch (const std::exception& error) {
    throw WorkspaceError(path.string() + ", which an interrupted run left, is damaged (" + error.what() +
                         ")\nDelete it and " + (path.parent_path() / "staging").string() + ", then run pipegen again.");
  }
  return journal;
}

}  // namespace pipegen::gen
