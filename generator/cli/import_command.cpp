#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "cli/commands.hpp"
#include "import/import.hpp"
#include "schema/names.hpp"
#include "workspace/disk.hpp"
#include "workspace/workspace.hpp"

namespace pipegen::gen {
namespace {

namespace fs = std::filesystem;

int fail(const std::string& why) {
  std::cerr << "pipegen: " << why << '\n';
  return 1;
}

/// "Old Entities" -> "old-entities".
std::string pipeline_name(const std::string& text) {
  std::string out;
  for (const char c : lower_case(text)) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (good) out += c;
    if (!good && !out.empty() && out.back() != '-') out += '-';
  }
  while (out.ends_with('-')) out.pop_back();
  return is_kebab_name(out) ? out : "imported";
}

/// "entities.yaml.4711.new": of a file that nobody has.
fs::path free_name_beside(const fs::path& path) {
  for (int number = ::getpid();; ++number) {
    fs::path free = path;
    free += "." + std::to_string(number) + ".new";
    if (!disk::status(free)) return free;
  }
}

}  // namespace

int run_import(const ImportOptions& options) {
  std::error_code problem;
  const fs::directory_iterator entries(options.entities, problem);
  if (problem == std::errc::no_such_file_or_directory || problem == std::errc::not_a_directory)
    return fail(options.entities.string() + " is no folder");
  if (problem) return fail(options.entities.string() + " cannot be read: " + problem.message());
  if (disk::status(options.output) && !options.force)
    return fail(options.output.string() + " is there already; --force writes over it");
  if (!options.pipeline.empty() && !is_kebab_name(options.pipeline))
    return fail("'" + options.pipeline + "' is no name of a pipeline: small letters, digits and '-'");

  std::map<std::string, std::string> files;
  DiskReader reader;
  for (const auto& entry : entries) {
    const std::string kind = lower_case(entry.path().extension().string());
    if (kind != ".yaml" && kind != ".yml" && kind != ".json") continue;
    std::string why;
    auto text = reader.read(entry.path(), why);
    if (!text) return fail(entry.path().string() + " cannot be read: " + why);
    files.emplace(entry.path().generic_string(), std::move(*text));
  }
  if (files.empty()) return fail(options.entities.string() + " has no file that ends with .yaml, .yml or .json");

  const fs::path folder = fs::absolute(options.entities).lexically_normal();
  const std::string from =
      folder.has_filename() ? folder.filename().string() : folder.parent_path().filename().string();
  Imported imported = import_entities(files, options.pipeline.empty() ? pipeline_name(from) : options.pipeline);
  Loaded said;
  said.diagnostics = std::move(imported.diagnostics);
  said.texts = std::move(imported.texts);
  print_diagnostics(said, options.diagnostics);
  if (!imported.schema) return 1;
  try {
    // All or nothing: a schema that was cut off could still be one.
    if (options.output.has_parent_path()) fs::create_directories(options.output.parent_path());
    const fs::path next = free_name_beside(options.output);
    try {
      disk::write(next, *imported.schema);
      disk::move(next, options.output);
    } catch (...) {
      disk::remove(next);
      throw;
    }
    disk::sync(options.output);
  } catch (const std::exception& error) {
    return fail(error.what());
  }
  std::cout << options.output.string() << ": " << imported.entities
            << (imported.entities == 1 ? " entity" : " entities") << " of " << files.size()
            << (files.size() == 1 ? " file" : " files") << '\n';
  return 0;
}

}  // namespace pipegen::gen
