// Schema to workspace: load, plan, render, write in one call.
//
//   const auto report = generate({.schema = "pipeline.yaml", .output = "services"});
//   if (!report) return 1;  // why is on stderr already
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.hpp"
#include "schema/load.hpp"
#include "workspace/workspace.hpp"

namespace pipegen::gen {

enum class DiagnosticsFormat { kText, kJson };

struct GenerateOptions {
  std::filesystem::path schema = "pipeline.yaml";
  std::filesystem::path output = "services";
  Request::What what = Request::What::kAll;
  std::string entity{};                // with kWorkers: the worker of this entity alone
  std::optional<Database> database{};  // nothing: what the workspace has already, else SQLite
  bool force = false;
  DiagnosticsFormat diagnostics = DiagnosticsFormat::kText;
};

/// Where the pipeline's entities are stored, if a workspace of its own says so already.
std::optional<Database> workspace_database(const std::filesystem::path& output, const std::string& pipeline);

/// Generates and writes. Everything that is to be said about the schema and the state of the output is on stderr
/// afterwards; nothing is returned when one of them is at fault. Does not write to stdout.
std::optional<WriteReport> generate(const GenerateOptions& options);

/// A workspace in memory: what the plan says, rendered, and the runtime.
Output make_output(const Pipeline& pipeline, const Request& request);

/// load_pipeline() from the disk, with advice when the file itself is not there.
Loaded load_schema(const std::filesystem::path& schema);

/// To stderr. As JSON always an array, so that a reader can always parse it.
void print_diagnostics(const Loaded& loaded, DiagnosticsFormat format);

}  // namespace pipegen::gen
