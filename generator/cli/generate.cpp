#include "cli/generate.hpp"

#include <algorithm>
#include <iostream>
#include <set>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "embed/embedded.hpp"
#include "render/render.hpp"
#include "schema/codes.hpp"
#include "schema/report.hpp"

namespace pipegen::gen {
namespace {

constexpr std::string_view kRuntimeFolder = "pipegen-runtime/";

/// "tts" of "tts/generated/main.cpp"; empty for a file of the workspace itself.
std::string_view service_of(std::string_view path) {
  const std::size_t slash = path.find('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

/// The worker of one entity is called after it, as a stage may be that does something else.
template <typename MakeError>
std::optional<Diagnostic> taken_name(const Pipeline& pipeline, const Entity& entity, const MakeError& error) {
  const std::string name = entity_worker_name(entity);
  const auto writer = std::ranges::find(pipeline.entity_workers, name, &EntityWorker::name);
  const bool is_same = writer != pipeline.entity_workers.end() && writer->entities == std::vector{entity.name};
  const bool is_taken = pipeline.stages.contains(name) || writer != pipeline.entity_workers.end();
  if (!is_taken || is_same) return std::nullopt;
  return error("the worker of entity " + in_quotes(entity.name) + " would be called " + in_quotes(name) +
                   ", as a stage is that does something else",
               "rename the stage, or make it the stage that writes the entity: uses: persist");
}

/// What this pipeline has nothing for.
std::optional<Diagnostic> nothing_to_generate(const Pipeline& pipeline, const Request& request,
                                              const std::filesystem::path& schema) {
  const auto error = [&](std::string message, std::string hint) {
    return Diagnostic{.code = std::string(code::kNothingToGenerate),
                      .severity = Severity::kError,
                      .span = {.file = schema.generic_string()},
                      .message = std::move(message),
                      .hint = std::move(hint),
                      .notes = {}};
  };
  if (!request.entity.empty()) {
    std::vector<std::string> names;
    for (const Entity& entity : pipeline.entities) {
      if (entity.parent.empty()) names.push_back(entity.name);
      if (entity.name != request.entity) continue;
      if (entity.parent.empty()) return taken_name(pipeline, entity, error);
      return error("entity " + in_quotes(entity.name) +
                       " has no worker of its own: its rows are written with those of " + in_quotes(entity.parent),
                   "give --entity " + entity.parent);
    }
    const std::string meant = did_you_mean(request.entity, names);
    return error("there is no entity " + in_quotes(request.entity),
                 !meant.empty() ? meant : "give --entity a name of `entities:`, or --schema the file that has them");
  }
  if (request.what == Request::What::kWorkers && !has_workers(pipeline, request)) {
    return error("this file declares no stage and no entity, so there is no worker to generate",
                 "give --schema the file that has the `stages:` or `entities:`, or use generate-all, which follows "
                 "`import:`");
  }
  if (request.what == Request::What::kIngestApi && !pipeline.ingest) {
    return error("there is no `ingest:` section, so there is no API to generate",
                 "add one, or give --schema the file that has it");
  }
  return std::nullopt;
}

Request requested(const GenerateOptions& options) {
  return {.what = options.what, .entity = options.entity, .database = options.database};
}

WriteReport write_workspace(const Pipeline& pipeline, const GenerateOptions& options) {
  const Lock lock(options.output);
  Request request = requested(options);
  const bool all = options.what == Request::What::kAll;
  if (!all || !options.force) request.existing_services = existing_services(options.output, pipeline.name);
  if (!request.database) request.database = workspace_database(options.output, pipeline.name);
  if (all) request.existing_services.clear();
  const Output output = make_output(pipeline, request);

  std::set<std::string_view> services;
  for (const auto& [path, file] : output.files) services.insert(service_of(path));
  services.insert("");  // the files of the workspace itself
  return write(lock, output, {.force = options.force, .covers = [&](const std::string& path) {
                                return all || services.contains(service_of(path));
                              }});
}

}  // namespace

std::optional<Database> workspace_database(const std::filesystem::path& output, const std::string& pipeline) {
  try {
    return database_of(existing_services(output, pipeline));
  } catch (const WorkspaceError&) {
    return std::nullopt;  // another pipeline's, which whoever writes to it hears about
  }
}

Output make_output(const Pipeline& pipeline, const Request& request) {
  Plan planned = plan(pipeline, request);
  Output output{.pipeline = pipeline.name, .services = std::move(planned.services), .files = {}};
  const auto add = [&](std::string path, OutputFile file) {
    const auto [at, is_new] = output.files.try_emplace(std::move(path), std::move(file));
    if (!is_new) throw std::logic_error("the plan has two files at " + at->first);
  };
  for (const PlannedFile& file : planned.files) {
    add(file.path, {.content = render(embedded_template, file.template_name, file.view), .owner = file.owner});
  }
  for (const auto& [path, file] : embedded_runtime()) {
    add(std::string(kRuntimeFolder) + std::string(path),
        {.content = std::string(file.content), .owner = Owner::kPipegen, .sha256 = std::string(file.sha256)});
  }
  return output;
}

Loaded load_schema(const std::filesystem::path& schema) {
  DiskReader disk;
  Loaded loaded = load_pipeline(disk, schema);
  for (Diagnostic& diagnostic : loaded.diagnostics) {
    if (diagnostic.code == code::kUnreadable && diagnostic.span.line == 0 && diagnostic.hint.empty()) {
      diagnostic.hint =
          "--schema FILE names the schema to start from; without it, pipeline.yaml of the current folder is read";
    }
  }
  return loaded;
}

void print_diagnostics(const Loaded& loaded, DiagnosticsFormat format) {
  if (format == DiagnosticsFormat::kJson) {
    std::cerr << format_json(loaded.diagnostics) << '\n';
  } else {
    std::cerr << format_text(loaded.diagnostics, loaded.texts);
  }
}

std::optional<WriteReport> generate(const GenerateOptions& options) {
  Loaded loaded = load_schema(options.schema);
  std::optional<WriteReport> report;
  std::string failure;
  if (loaded.pipeline) {
    if (auto nothing = nothing_to_generate(*loaded.pipeline, requested(options), options.schema)) {
      loaded.diagnostics.push_back(std::move(*nothing));
    } else {
      try {
        report = write_workspace(*loaded.pipeline, options);
      } catch (const WorkspaceError& error) {
        failure = error.what();
      }
    }
  }
  if (!failure.empty() && options.diagnostics == DiagnosticsFormat::kJson) {
    Diagnostic& diagnostic = loaded.diagnostics.emplace_back();
    diagnostic.code = code::kWorkspace;
    diagnostic.span.file = options.output.generic_string();
    diagnostic.message = std::exchange(failure, "");
  }
  print_diagnostics(loaded, options.diagnostics);
  if (!failure.empty()) std::cerr << "pipegen: " << failure << '\n';
  return report;
}

}  // namespace pipegen::gen
