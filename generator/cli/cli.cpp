// The only file that includes CLI11, which costs seconds to compile.
#include "cli/cli.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands.hpp"
#include "schema/report.hpp"

namespace pipegen::gen {
namespace {

/// What several commands share; CLI11 wants strings.
struct Flags {
  std::string schema = "pipeline.yaml";
  std::string output = "services";
  std::string diagnostics = "text";
  bool force = false;
  bool quiet = false;
  bool json = false;
  std::string data, nats_url, stream;
  std::string entity, database;
  std::optional<int> api_port;
  int nats_port = 0;
  std::string entities, imported = "entities.yaml", pipeline;

  std::optional<Database> chosen_database() const {
    if (database.empty()) return std::nullopt;
    return database == "postgresql" ? Database::kPostgresql : Database::kSqlite;
  }

  DiagnosticsFormat format() const {
    return diagnostics == "json" ? DiagnosticsFormat::kJson : DiagnosticsFormat::kText;
  }
};

/// The commands, as CLI11 sees them, and what to call for the one that was given.
class Commands {
 public:
  Commands() {
    app_.require_subcommand(1);
    app_.set_version_flag("--version", "pipegen " PIPEGEN_VERSION);
    app_.get_formatter()->column_width(34);
    app_.footer("pipegen COMMAND --help tells more about one.");

    add_generate("generate-worker",
                 "Write the worker services of the stages and entities that the schema file declares",
                 "pipegen generate-worker --schema tts.yaml", Request::What::kWorkers);
    add_generate("generate-ingest-api", "Write the HTTP API service in front of the pipeline",
                 "pipegen generate-ingest-api --schema pipeline.yaml", Request::What::kIngestApi);
    add_generate("generate-all", "Write every service of the pipeline, and remove those that it no longer has",
                 "pipegen generate-all --schema pipeline.yaml --output services", Request::What::kAll);
    add_validate();
    add_graph();
    add_up();
    add_import();
    add_dlq();
    add_status();
  }

  CLI::App& app() { return app_; }

  int run() const { return run_(); }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const CLI::App* command : app_.get_subcommands([](const CLI::App*) { return true; })) {
      result.push_back(command->get_name());
    }
    return result;
  }

 private:
  CLI::App* add(const std::string& name, const std::string& what, const std::string& example,
                std::function<int()> run) {
    CLI::App* command = app_.add_subcommand(name, what);
    command->footer("Example:\n  " + example);
    command->add_option("--schema", flags_.schema, "Schema file to start from; it may import others")
        ->capture_default_str();
    command->callback([this, run = std::move(run)] { run_ = run; });
    return command;
  }

  void add_output(CLI::App* command) {
    command->add_option("--output", flags_.output, "Folder of the workspace")->capture_default_str();
    command->add_flag("--force", flags_.force, "Replace generated files that were edited by hand");
  }

  void add_database(CLI::App* command) {
    command
        ->add_option("--database", flags_.database,
                     "Where entities are stored: sqlite or postgresql (else where they are already, or sqlite)")
        ->check(CLI::IsMember({"sqlite", "postgresql"}));
  }

  void add_diagnostics(CLI::App* command) {
    command->add_option("--diagnostics", flags_.diagnostics, "How errors and warnings are printed on stderr")
        ->check(CLI::IsMember({"text", "json"}))
        ->capture_default_str();
  }

  void add_generate(const std::string& name, const std::string& what, const std::string& example,
                    Request::What request) {
    CLI::App* command = add(name, what, example, [this, request] {
      return run_generate({.schema = flags_.schema,
                           .output = flags_.output,
                           .what = request,
                           .entity = flags_.entity,
                           .database = flags_.chosen_database(),
                           .force = flags_.force,
                           .diagnostics = flags_.format()},
                          flags_.quiet);
    });
    add_output(command);
    add_database(command);
    if (request == Request::What::kWorkers) {
      command->add_option("--entity", flags_.entity, "Write the worker of this entity alone");
    }
    add_diagnostics(command);
    command->add_flag("--quiet", flags_.quiet, "No summary; errors and warnings only");
  }

  void add_validate() {
    CLI::App* command =
        add("validate", "Check the schema and write nothing",
            "pipegen validate --schema pipeline.yaml --diagnostics json", [this] {
              return run_validate({.schema = flags_.schema, .diagnostics = flags_.format(), .quiet = flags_.quiet});
            });
    add_diagnostics(command);
    command->add_flag("--quiet", flags_.quiet, "Errors and warnings only");
  }

  void add_graph() {
    CLI::App* command =
        add("graph", "Print the pipeline as a Mermaid diagram", "pipegen graph --schema pipeline.yaml > pipeline.mmd",
            [this] { return run_graph({.schema = flags_.schema, .diagnostics = flags_.format()}); });
    add_diagnostics(command);
  }

  void add_up() {
    CLI::App* command = add("up", "Generate, build and run the whole pipeline on this machine, until Ctrl-C",
                            "pipegen up --schema pipeline.yaml", [this] {
                              UpOptions options;
                              options.schema = flags_.schema;
                              options.output = flags_.output;
                              if (!flags_.data.empty()) options.data = flags_.data;
                              if (!flags_.nats_url.empty()) options.nats_url = flags_.nats_url;
                              options.api_port = flags_.api_port;
                              options.nats_port = flags_.nats_port;
                              options.force = flags_.force;
                              return run_up_command(options, flags_.chosen_database());
                            });
    add_output(command);
    add_database(command);
    command->add_option("--data", flags_.data,
                        "Folder in which the NATS server and SQLite keep their data (else it is thrown away)");
    command->add_option("--nats-url", flags_.nats_url, "Use this NATS server instead of starting one");
    command
        ->add_option("--api-port", flags_.api_port,
                     "Port of the HTTP API (0: any free one; else the one in the schema, when it is free)")
        ->check(CLI::Range(0, 65535));
    command->add_option("--nats-port", flags_.nats_port, "Port of the NATS server that is started (0: any free one)")
        ->check(CLI::Range(0, 65535));
  }

  void add_import() {
    CLI::App* command = app_.add_subcommand("import", "Write a schema of entities of the older layout");
    command->footer("Example:\n  pipegen import --entities entities --output entities.yaml");
    command->add_option("--entities", flags_.entities, "Folder with one file for each entity: .yaml, .yml or .json")
        ->required();
    command->add_option("--output", flags_.imported, "Schema file to write")->capture_default_str();
    command->add_option("--pipeline", flags_.pipeline, "Name of the pipeline (else that of the folder)");
    command->add_flag("--force", flags_.force, "Write over a file that is there");
    add_diagnostics(command);
    command->callback([this] {
      run_ = [this] {
        return run_import({.entities = flags_.entities,
                           .output = flags_.imported,
                           .pipeline = flags_.pipeline,
                           .force = flags_.force,
                           .diagnostics = flags_.format()});
      };
    });
  }

  void add_dlq() {
    CLI::App* command =
        add("dlq", "Dead letters: list, show, replay, drop",
            "pipegen dlq list --schema pipeline.yaml\n  pipegen dlq show 7\n  pipegen dlq replay 7\n"
            "  pipegen dlq drop --all",
            [this] { return run_dlq({.schema = flags_.schema, .stream = flags_.stream, .words = words_()}); });
    command->add_option("--stream", flags_.stream, "The dead-letter stream; else that of the schema's pipeline");
    // The rest is for the program that does it.
    command->allow_extras();
    words_ = [command] { return command->remaining(); };
  }

  void add_status() {
    CLI::App* command = add("status", "What each stage has before it and in hand, and what it could not handle",
                            "pipegen status --schema pipeline.yaml\n  pipegen status --json", [this] {
                              StatusOptions options{.schema = {}, .nats_url = flags_.nats_url, .json = flags_.json};
                              // Without a schema at hand, of whatever is on the server.
                              const bool is_named = app_.get_subcommand("status")->count("--schema") > 0;
                              if (is_named || std::filesystem::exists(flags_.schema)) options.schema = flags_.schema;
                              return run_status(options);
                            });
    command->add_option("--nats-url,--nats", flags_.nats_url,
                        "The NATS server; else NATS_URL, or [nats] url of project.toml");
    command->add_flag("--json", flags_.json, "As JSON");
  }

  CLI::App app_{"Writes complete C++ services from a description of an event-driven pipeline.", "pipegen"};
  Flags flags_;
  std::function<int()> run_;
  std::function<std::vector<std::string>()> words_;
};

}  // namespace

int run_cli(int argc, char** argv) {
  Commands commands;
  try {
    commands.app().parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const std::string first = argc > 1 ? argv[1] : "";
    const std::vector<std::string> names = commands.names();
    if (error.get_exit_code() != 0 && !first.empty() && first[0] != '-' &&
        std::find(names.begin(), names.end(), first) == names.end()) {
      const std::string meant = did_you_mean(first, names);
      std::cerr << "pipegen: there is no command " << in_quotes(first) << (meant.empty() ? "" : " (" + meant + ")")
                << "\nRun pipegen --help for the commands.\n";
      return 2;
    }
    return commands.app().exit(error) == 0 ? 0 : 2;
  }
  try {
    return commands.run();
  } catch (const std::exception& error) {
    std::cerr << "pipegen: internal error: " << error.what() << '\n';
    return 1;
  }
}

}  // namespace pipegen::gen
