// The commands behind the command line, one small file each. All give the exit code: 0 done, 1 the schema or the state
// of the output is at fault.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/generate.hpp"
#include "up/up.hpp"

namespace pipegen::gen {

/// generate-worker, generate-ingest-api, generate-all: a summary on stdout unless `quiet`.
int run_generate(const GenerateOptions& options, bool quiet);

struct ValidateOptions {
  std::filesystem::path schema = "pipeline.yaml";
  DiagnosticsFormat diagnostics = DiagnosticsFormat::kText;
  bool quiet = false;
};
int run_validate(const ValidateOptions& options);

/// The pipeline as a Mermaid diagram on stdout.
struct GraphOptions {
  std::filesystem::path schema = "pipeline.yaml";
  DiagnosticsFormat diagnostics = DiagnosticsFormat::kText;
};
int run_graph(const GraphOptions& options);

/// Entities of the older layout as a schema in our language.
struct ImportOptions {
  std::filesystem::path entities;
  std::filesystem::path output = "entities.yaml";
  std::string pipeline;  // empty: the name of the folder
  bool force = false;    // write over `output`
  DiagnosticsFormat diagnostics = DiagnosticsFormat::kText;
};
int run_import(const ImportOptions& options);

/// What is done with dead letters: `words` are for pipegen-dlq, which is run in place of this program. The stream is
/// that of the schema unless it is named.
struct DlqOptions {
  std::filesystem::path schema = "pipeline.yaml";
  std::string stream{};
  std::vector<std::string> words{};
};
int run_dlq(const DlqOptions& options);

/// What each stage of the pipeline has before it and in hand; without a schema, each durable consumer of the server.
/// pipegen-status is run in place of this program.
struct StatusOptions {
  std::optional<std::filesystem::path> schema{};
  std::string nats_url{};
  bool json = false;
};
int run_status(const StatusOptions& options);

/// Generates everything, builds it and runs it until Ctrl-C.
int run_up_command(const UpOptions& options, std::optional<Database> database);

}  // namespace pipegen::gen
