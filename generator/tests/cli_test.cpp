#include "cli/cli.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <locale>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/generate.hpp"
#include "schema/names.hpp"

namespace pipegen::gen {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEvents = R"(pipegen: v1
streams: {JOBS: {}, RESULTS: {}}
buckets: {TEXTS: {}, SOUNDS: {}}
events:
  TextReady: {subject: text.ready, stream: JOBS, fields: {job_id: string, text_key: object<TEXTS>}}
  SoundReady: {subject: sound.ready, stream: RESULTS, fields: {job_id: string, sound_key: object<SOUNDS>}}
)";
constexpr const char* kSpeaker = R"(pipegen: v1
import: events.yaml
stages:
  speaker: {consumes: TextReady, produces: SoundReady, uses: custom, timeout: 1m}
)";
constexpr const char* kListener = R"(pipegen: v1
import: events.yaml
stages:
  listener: {consumes: SoundReady, uses: custom}
)";
constexpr const char* kPipeline = R"(pipegen: v1
pipeline: demo
workflow_id: job_id
import: [events.yaml, speaker.yaml, listener.yaml]
ingest:
  uploads:
    texts: {bucket: TEXTS, produces: TextReady, key: text_key, media_types: [text/plain], max_size: 1MiB}
)";

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const fs::path& path, const std::string& content) {
  if (path.has_parent_path()) fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

std::map<std::string, std::string> snapshot(const fs::path& root) {
  std::map<std::string, std::string> result;
  if (!fs::exists(root)) return result;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) result[entry.path().lexically_relative(root).generic_string()] = read(entry.path());
  }
  return result;
}

Outcome pipegen(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "pipegen");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  Outcome outcome;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  outcome.code = run_cli(static_cast<int>(argv.size()), argv.data());
  std::cout.flush();
  std::cerr.flush();
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

class CommandLine : public testing::Test {
 protected:
  CommandLine() : old_directory_(fs::current_path()) {
    const fs::path base = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path();  // fsync is free
    std::string name = (base / "pipegen-cli-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    fs::current_path(folder_);
    put(folder_ / "events.yaml", kEvents);
    put(folder_ / "speaker.yaml", kSpeaker);
    put(folder_ / "listener.yaml", kListener);
    put(folder_ / "pipeline.yaml", kPipeline);
  }
  ~CommandLine() override {
    fs::current_path(old_directory_);
    fs::remove_all(folder_);
  }

  fs::path folder_, old_directory_;
};

TEST_F(CommandLine, generate_all_writes_the_workspace_and_says_how_to_build_it) {
  const Outcome outcome = pipegen({"generate-all"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const auto files = snapshot("services");
  for (const char* path : {"CMakeLists.txt", "project.toml", "speaker/CMakeLists.txt", "speaker/src/handler.cpp",
                           "listener/generated/main.cpp", "ingest-api/CMakeLists.txt", "pipegen-runtime/CMakeLists.txt",
                           "pipegen-runtime/include/pipegen/context.hpp", ".pipegen/manifest.json"}) {
    EXPECT_TRUE(files.contains(path)) << path;
  }
  EXPECT_FALSE(files.contains("pipegen-runtime/tests/CMakeLists.txt"));
  EXPECT_NE(outcome.out.find(std::to_string(files.size() - 1) + " created"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("cmake -S services -B services/build && cmake --build services/build"), std::string::npos);
  put("services/build/CMakeCache.txt", "PIPEGEN_SERVICES:STRING=speaker\n");
  EXPECT_NE(pipegen({"generate-all"}).out.find(" -B services/build -DPIPEGEN_SERVICES=ALL && "), std::string::npos);
}

TEST_F(CommandLine, no_stage_is_called_like_a_folder_of_the_workspace) {
  ASSERT_EQ(pipegen({"generate-all"}).code, 0);
  for (const auto& entry : fs::directory_iterator("services")) {
    const std::string name = entry.path().filename().string();
    if (name == "speaker" || name == "listener" || !is_kebab_name(name)) continue;
    EXPECT_NE(reserved_stage_name(name), "") << name;
  }
}

TEST_F(CommandLine, generating_again_changes_nothing) {
  ASSERT_EQ(pipegen({"generate-all"}).code, 0);
  const auto before = snapshot("services");
  const auto manifest_time = fs::last_write_time("services/.pipegen/manifest.json");
  const Outcome again = pipegen({"generate-all"});
  EXPECT_EQ(again.code, 0);
  EXPECT_EQ(again.out.find("created"), std::string::npos) << again.out;
  EXPECT_EQ(again.out.find("updated"), std::string::npos) << again.out;
  EXPECT_NE(again.out.find("unchanged"), std::string::npos) << again.out;
  EXPECT_EQ(snapshot("services"), before);
  EXPECT_EQ(fs::last_write_time("services/.pipegen/manifest.json"), manifest_time);
}

constexpr const char* kShop = R"(pipegen: v1
pipeline: shop
entities:
  Order: {table: orders, key: [id], fields: {id: string, parts: list<Part>}}
  Part: {fields: {name: string}}
  Customer: {key: [id], fields: {id: string}}
ingest: {entities: [Order]}
)";

TEST_F(CommandLine, the_database_is_remembered_and_choosing_another_changes_every_service) {
  put("shop.yaml", kShop);
  ASSERT_EQ(pipegen({"generate-worker", "--schema", "shop.yaml"}).code, 0);
  EXPECT_NE(read("services/entity-worker/generated/worker.cpp").find("open_sqlite"), std::string::npos);
  EXPECT_NE(read("services/project.toml").find("url = \"sqlite:shop.db\""), std::string::npos);
  EXPECT_EQ(read("services/project.toml").find("worker_pool_size"), std::string::npos) << "SQLite has one writer";

  ASSERT_EQ(pipegen({"generate-worker", "--schema", "shop.yaml", "--database", "postgresql"}).code, 0);
  ASSERT_EQ(pipegen({"generate-ingest-api", "--schema", "shop.yaml"}).code, 0);
  EXPECT_NE(read("services/entity-worker/generated/worker.cpp").find("open_postgresql"), std::string::npos);
  EXPECT_NE(read("services/ingest-api/generated/api.cpp").find("find_message_in_postgresql"), std::string::npos);
  EXPECT_NE(read("services/ingest-api/CMakeLists.txt").find("pipegen::postgresql"), std::string::npos);
  EXPECT_NE(read("services/project.toml").find("url = \"postgresql://"), std::string::npos);
  EXPECT_NE(read("services/project.toml").find("worker_pool_size = 2"), std::string::npos);
  EXPECT_NE(read("services/docker-compose.yml").find("\n  postgres:\n"), std::string::npos);

  // Of one service the other hears.
  ASSERT_EQ(pipegen({"generate-ingest-api", "--schema", "shop.yaml", "--database", "sqlite"}).code, 0);
  EXPECT_NE(read("services/entity-worker/generated/worker.cpp").find("open_sqlite"), std::string::npos);
  EXPECT_EQ(read("services/docker-compose.yml").find("postgres"), std::string::npos);

  for (const char* again : {"postgresql", ""}) {
    std::vector<std::string> arguments{"generate-all", "--schema", "shop.yaml", "--force"};
    if (*again != '\0') arguments.insert(arguments.end(), {"--database", again});
    ASSERT_EQ(pipegen(arguments).code, 0);
    EXPECT_NE(read("services/entity-worker/generated/worker.cpp").find("open_postgresql"), std::string::npos);
    EXPECT_NE(read("services/ingest-api/generated/api.cpp").find("find_message_in_postgresql"), std::string::npos);
  }
  EXPECT_EQ(pipegen({"generate-all", "--schema", "shop.yaml", "--database", "oracle"}).code, 2);
}

TEST_F(CommandLine, no_user_of_the_database_has_a_name_that_postgresql_keeps_to_itself) {
  for (const auto& [pipeline, user] : {std::pair{"pg-shop", "pipegen"}, std::pair{"shop", "shop"}}) {
    std::string schema = kShop;
    schema.replace(schema.find("pipeline: shop"), 14, "pipeline: " + std::string(pipeline));
    put("shop.yaml", schema);
    fs::remove_all("services");
    ASSERT_EQ(pipegen({"generate-all", "--schema", "shop.yaml", "--database", "postgresql"}).code, 0);
    const std::string compose = read("services/docker-compose.yml");
    EXPECT_NE(compose.find("POSTGRES_USER: " + std::string(user) + "\n"), std::string::npos) << compose;
    EXPECT_NE(compose.find("\"-U\", \"" + std::string(user) + "\""), std::string::npos) << compose;
    for (const char* file : {"docker-compose.yml", "project.toml", ".env.example"}) {
      EXPECT_NE(read("services/" + std::string(file)).find("postgresql://" + std::string(user) + "@"),
                std::string::npos)
          << file;
    }
  }
}

/// A variable of the environment, as it was before once this ends.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    if (value != nullptr) {
      ::setenv(name, value, 1);
    } else {
      ::unsetenv(name);
    }
  }
  ~Variable() {
    if (before_) {
      ::setenv(name_, before_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

TEST_F(CommandLine, up_stores_in_sqlite_when_nobody_says_where_postgresql_is) {
  put("shop.yaml", kShop);
  const Variable path("PATH", "/nonexistent");  // without nats-server it ends before it builds
  const Variable password("DATABASE_PASSWORD", nullptr);
  const auto stored_in = [] {
    const std::string worker = read("services/entity-worker/generated/worker.cpp");
    return worker.find("open_sqlite") != std::string::npos ? "SQLite" : "PostgreSQL";
  };
  ASSERT_EQ(pipegen({"generate-all", "--schema", "shop.yaml", "--database", "postgresql"}).code, 0);
  {
    const Variable url("DATABASE_URL", "postgresql://somewhere/shop");
    EXPECT_EQ(pipegen({"up", "--schema", "shop.yaml"}).code, 1);
    EXPECT_STREQ(stored_in(), "PostgreSQL");
  }
  const Variable url("DATABASE_URL", nullptr);
  EXPECT_EQ(pipegen({"up", "--schema", "shop.yaml", "--database", "postgresql"}).code, 1);
  EXPECT_STREQ(stored_in(), "PostgreSQL");
  EXPECT_EQ(pipegen({"up", "--schema", "shop.yaml"}).code, 1);
  EXPECT_STREQ(stored_in(), "SQLite");
}

TEST_F(CommandLine, one_entity_gets_a_worker_of_its_own) {
  put("shop.yaml", kShop);
  ASSERT_EQ(pipegen({"generate-worker", "--schema", "shop.yaml", "--entity", "Order"}).code, 0);
  EXPECT_TRUE(fs::exists("services/order-worker/generated/order_worker/rows.hpp"));
  EXPECT_FALSE(fs::exists("services/entity-worker"));
  const std::string rows = read("services/order-worker/generated/rows.cpp");
  EXPECT_NE(rows.find("void add_part_row("), std::string::npos);
  EXPECT_EQ(rows.find("const Customer& customer"), std::string::npos);
  // Whoever comes first makes every table.
  EXPECT_NE(read("services/order-worker/generated/tables.cpp").find(".name = \"customer\""), std::string::npos);

  const Outcome part = pipegen({"generate-worker", "--schema", "shop.yaml", "--entity", "Part"});
  EXPECT_EQ(part.code, 1);
  EXPECT_NE(part.err.find("give --entity Order"), std::string::npos) << part.err;
  const Outcome unknown = pipegen({"generate-worker", "--schema", "shop.yaml", "--entity", "Ordr"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_NE(unknown.err.find("there is no entity 'Ordr' [PG0801] (hint: did you mean 'Order'?)"), std::string::npos)
      << unknown.err;

  put("taken.yaml", std::string(kShop) + "stages: {order-worker: {uses: persist, with: {entities: [Customer]}}}\n");
  const Outcome taken =
      pipegen({"generate-worker", "--schema", "taken.yaml", "--entity", "Order", "--output", "other"});
  EXPECT_EQ(taken.code, 1);
  EXPECT_NE(taken.err.find("'order-worker'"), std::string::npos) << taken.err;
}

TEST_F(CommandLine, a_persist_stage_has_a_worker_of_its_own_and_the_others_share_one) {
  put("shop.yaml", std::string(kShop) + "stages: {customers: {uses: persist, with: {entities: [Customer]}}}\n");
  ASSERT_EQ(pipegen({"generate-worker", "--schema", "shop.yaml"}).code, 0);
  EXPECT_NE(read("services/customers/generated/worker.cpp").find("read_customer"), std::string::npos);
  EXPECT_EQ(read("services/entity-worker/generated/worker.cpp").find("read_customer"), std::string::npos);
  EXPECT_NE(read("services/entity-worker/generated/worker.cpp").find("read_order"), std::string::npos);
}

TEST_F(CommandLine, entities_and_stages_of_a_file_below_the_pipelines_get_their_workers) {
  put("events.yaml", std::string(kEvents) + "pipeline: demo\nworkflow_id: job_id\n");
  put("sub/orders.yaml",
      "pipegen: v1\nimport: ../events.yaml\n"
      "entities: {Order: {key: [id], fields: {id: string}}}\n"
      "stages: {listener: {consumes: SoundReady, uses: custom}}\n");
  const Outcome outcome = pipegen({"generate-worker", "--schema", "sub/orders.yaml"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists("services/listener"));
  EXPECT_TRUE(fs::exists("services/entity-worker"));
  const Outcome api = pipegen({"generate-ingest-api", "--schema", "sub/orders.yaml"});
  EXPECT_EQ(api.code, 1);
  EXPECT_NE(api.err.find("sub/orders.yaml: error: "), std::string::npos) << api.err;
}

TEST_F(CommandLine, a_transform_is_written_once_and_one_that_comes_later_is_declared) {
  const auto shop = [](const std::string& fields) {
    return "pipegen: v1\npipeline: shop\nentities:\n  Order:\n    key: [id]\n    fields:\n      id: string\n" + fields;
  };
  put("shop.yaml", shop("      label: {type: string, transform: order_label}\n"));
  ASSERT_EQ(pipegen({"generate-all", "--schema", "shop.yaml"}).code, 0);
  const fs::path mine = "services/entity-worker/src/transforms.cpp";
  EXPECT_NE(read(mine).find("std::string order_label([[maybe_unused]] const Order& order) {"), std::string::npos);
  put(mine, "// mine\n");
  put("shop.yaml", shop("      label: {type: string, transform: order_label}\n"
                        "      note: {type: string?, transform: order_note}\n"));
  ASSERT_EQ(pipegen({"generate-all", "--schema", "shop.yaml"}).code, 0);
  EXPECT_EQ(read(mine), "// mine\n");
  EXPECT_NE(read("services/entity-worker/generated/entity_worker/transforms.hpp")
                .find("std::optional<std::string> order_note(const Order& order);"),
            std::string::npos);
}

TEST_F(CommandLine, neither_the_current_folder_nor_the_locale_changes_the_output) {
  ASSERT_EQ(pipegen({"generate-all"}).code, 0);

  struct Odd : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\1"; }
  };
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new Odd));
  fs::current_path("/");
  const Outcome outcome = pipegen({"generate-all", "--schema", (folder_ / "pipeline.yaml").string(), "--output",
                                   (folder_ / "deep/er/other").string()});
  std::locale::global(before);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(snapshot(folder_ / "services"), snapshot(folder_ / "deep/er/other"));
}

TEST_F(CommandLine, each_command_adds_to_the_workspace_and_all_of_them_make_what_generate_all_makes) {
  ASSERT_EQ(pipegen({"generate-all", "--output", "all"}).code, 0);
  put("speaker.yaml", "pipegen: v1\nimport: pipeline.yaml\n" +
                          std::string(kSpeaker).substr(std::string("pipegen: v1\nimport: events.yaml\n").size()));
  put("listener.yaml", "pipegen: v1\nimport: pipeline.yaml\n" +
                           std::string(kListener).substr(std::string("pipegen: v1\nimport: events.yaml\n").size()));

  const Outcome speaker = pipegen({"generate-worker", "--schema", "speaker.yaml"});
  ASSERT_EQ(speaker.code, 0) << speaker.err;
  EXPECT_TRUE(fs::exists("services/speaker/src/handler.cpp"));
  EXPECT_FALSE(fs::exists("services/listener"));
  EXPECT_FALSE(fs::exists("services/ingest-api"));
  ASSERT_EQ(pipegen({"generate-worker", "--schema", "listener.yaml"}).code, 0);
  EXPECT_NE(read("services/CMakeLists.txt").find("speaker"), std::string::npos) << "the first service is still built";
  ASSERT_EQ(pipegen({"generate-ingest-api"}).code, 0);
  EXPECT_EQ(snapshot("services"), snapshot("all"));
}

TEST_F(CommandLine, a_schema_that_does_not_reach_a_service_leaves_it_in_the_workspace) {
  put("events.yaml", std::string(kEvents) + "pipeline: demo\nworkflow_id: job_id\n");
  put("pipeline.yaml", std::string(kPipeline).substr(0, std::string("pipegen: v1\n").size()) +
                           std::string(kPipeline).substr(std::string(kPipeline).find("import:")));
  ASSERT_EQ(pipegen({"generate-all", "--output", "all"}).code, 0);
  for (const char* schema : {"speaker.yaml", "listener.yaml"}) {  // neither imports the other
    const Outcome outcome = pipegen({"generate-worker", "--schema", schema});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
  }
  for (const char* file : {"CMakeLists.txt", "docker-compose.yml"}) {
    const std::string text = read("services/" + std::string(file));
    EXPECT_NE(text.find("speaker"), std::string::npos) << file;
    EXPECT_NE(text.find("listener"), std::string::npos) << file;
  }
  EXPECT_NE(read("services/project.toml").find("[speaker_service]"), std::string::npos);
  ASSERT_EQ(pipegen({"generate-ingest-api"}).code, 0);
  for (const char* file : {"project.toml", ".pipegen/manifest.json"}) {
    EXPECT_EQ(read("services/" + std::string(file)).size(), read("all/" + std::string(file)).size()) << file;
  }

  put("other.yaml", "pipegen: v1\npipeline: other\n" + std::string(kEvents).substr(12) +
                        "stages:\n  another: {consumes: TextReady, uses: custom}\n");
  const Outcome other = pipegen({"generate-worker", "--schema", "other.yaml"});
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.err.find("holds the services of pipeline 'demo'"), std::string::npos) << other.err;
  EXPECT_FALSE(fs::exists("services/another"));
}

TEST_F(CommandLine, a_service_that_left_the_schema_goes_but_its_handler_stays) {
  ASSERT_EQ(pipegen({"generate-all"}).code, 0);
  put("listener.yaml", "pipegen: v1\nimport: events.yaml\nstages:\n  hearer: {consumes: SoundReady, uses: custom}\n");
  const Outcome outcome = pipegen({"generate-all"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists("services/hearer/generated/main.cpp"));
  EXPECT_FALSE(fs::exists("services/listener/generated"));
  EXPECT_TRUE(fs::exists("services/listener/src/handler.cpp"));
  EXPECT_NE(outcome.out.find("services/listener/src/handler.cpp"), std::string::npos) << outcome.out;
}

TEST_F(CommandLine, an_edited_generated_file_is_named_and_force_takes_it_back) {
  ASSERT_EQ(pipegen({"generate-all"}).code, 0);
  const auto before = snapshot("services");
  put("services/speaker/generated/main.cpp", "edited");
  const Outcome refused = pipegen({"generate-all"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.out, "");
  EXPECT_NE(refused.err.find("services/speaker/generated/main.cpp"), std::string::npos) << refused.err;

  const Outcome json = pipegen({"generate-all", "--diagnostics", "json"});
  EXPECT_EQ(json.code, 1);
  const auto diagnostics = nlohmann::json::parse(json.err);
  ASSERT_FALSE(diagnostics.empty());
  EXPECT_NE(diagnostics.back().dump().find("speaker/generated/main.cpp"), std::string::npos);

  EXPECT_EQ(pipegen({"generate-all", "--force"}).code, 0);
  EXPECT_EQ(snapshot("services"), before);
}

TEST_F(CommandLine, a_wrong_schema_writes_nothing_and_names_the_place) {
  put("speaker.yaml", "pipegen: v1\nimport: events.yaml\nstages:\n  speaker: {consumes: TextRedy, uses: custom}\n");
  for (const char* command : {"generate-all", "generate-ingest-api", "validate", "graph"}) {
    const Outcome outcome = pipegen({command});
    EXPECT_EQ(outcome.code, 1) << command;
    EXPECT_EQ(outcome.out, "") << command;
    EXPECT_NE(outcome.err.find("speaker.yaml:4:23: error: "), std::string::npos) << outcome.err;
  }
  EXPECT_FALSE(fs::exists("services"));
}

TEST_F(CommandLine, a_missing_schema_is_said_with_advice) {
  const Outcome outcome = pipegen({"generate-all", "--schema", "nowhere.yaml"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_NE(outcome.err.find("nowhere.yaml"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("hint: "), std::string::npos) << outcome.err;
  EXPECT_FALSE(fs::exists("services"));
}

TEST_F(CommandLine, a_command_that_has_nothing_to_generate_says_so) {
  const Outcome worker = pipegen({"generate-worker"});
  EXPECT_EQ(worker.code, 1);
  EXPECT_NE(worker.err.find("declares no stage"), std::string::npos) << worker.err;
  put("pipeline.yaml", "pipegen: v1\npipeline: demo\nimport: [speaker.yaml, listener.yaml]\n");
  const Outcome api = pipegen({"generate-ingest-api"});
  EXPECT_EQ(api.code, 1);
  EXPECT_NE(api.err.find("no `ingest:` section"), std::string::npos) << api.err;
  EXPECT_FALSE(fs::exists("services"));
}

TEST_F(CommandLine, validate_and_graph_write_no_file) {
  const auto before = snapshot(folder_);
  const Outcome validated = pipegen({"validate"});
  EXPECT_EQ(validated.code, 0) << validated.err;
  EXPECT_NE(validated.out.find("2 stages, 2 events"), std::string::npos) << validated.out;
  const Outcome drawn = pipegen({"graph"});
  EXPECT_EQ(drawn.code, 0);
  EXPECT_NE(drawn.out.find("speaker"), std::string::npos) << drawn.out;
  EXPECT_EQ(snapshot(folder_), before);
}

TEST_F(CommandLine, json_diagnostics_are_always_one_array) {
  for (const char* command : {"validate", "generate-all", "graph"}) {
    const Outcome outcome = pipegen({command, "--diagnostics", "json"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_TRUE(nlohmann::json::parse(outcome.err).is_array());
  }
}

TEST_F(CommandLine, quiet_is_quiet) {
  EXPECT_EQ(pipegen({"generate-all", "--quiet"}).out, "");
  EXPECT_EQ(pipegen({"validate", "--quiet"}).out, "");
}

TEST_F(CommandLine, a_wrong_command_line_is_exit_code_2) {
  EXPECT_EQ(pipegen({}).code, 2);
  EXPECT_EQ(pipegen({"generate-all", "--outptu", "x"}).code, 2);
  EXPECT_EQ(pipegen({"validate", "--diagnostics", "xml"}).code, 2);
  EXPECT_EQ(pipegen({"validate", "--schema"}).code, 2);
  EXPECT_EQ(pipegen({"up", "--api-port", "70000"}).code, 2);
  const Outcome typo = pipegen({"generate-wroker", "--schema", "speaker.yaml"});
  EXPECT_EQ(typo.code, 2);
  EXPECT_NE(typo.err.find("did you mean 'generate-worker'?"), std::string::npos) << typo.err;
}

TEST_F(CommandLine, help_and_version_are_no_errors) {
  EXPECT_EQ(pipegen({"--version"}).out, "pipegen " PIPEGEN_VERSION "\n");
  EXPECT_EQ(pipegen({"--help"}).code, 0);
  for (const char* command :
       {"generate-worker", "generate-ingest-api", "generate-all", "validate", "graph", "up", "import"}) {
    const Outcome help = pipegen({command, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find(std::string("Example:\n  pipegen ") + command), std::string::npos) << help.out;
  }
}

TEST_F(CommandLine, import_writes_a_schema_that_validate_takes) {
  put("Old Entities/order.yaml",
      "entity:\n  name: Order\n  fields: [{name: order_key, type: String, nullable: false}]\n"
      "  persistence: {table: orders, primary_key: [order_key], engine: x}\n");
  put("Old Entities/notes.txt", "no entity");
  const Outcome imported = pipegen({"import", "--entities", "Old Entities", "--output", "schema/orders.yaml"});
  ASSERT_EQ(imported.code, 0) << imported.err;
  EXPECT_EQ(imported.out, "schema/orders.yaml: 1 entity of 1 file\n");
  EXPECT_NE(imported.err.find("Old Entities/order.yaml:4:58: warning: 'engine' of 'persistence'"), std::string::npos)
      << imported.err;
  EXPECT_NE(read("schema/orders.yaml").find("pipeline: old-entities\n"), std::string::npos);
  EXPECT_EQ(snapshot("schema").size(), 1u);
  EXPECT_EQ(pipegen({"validate", "--schema", "schema/orders.yaml"}).code, 0);

  put("schema/orders.yaml", "mine");
  const Outcome again = pipegen({"import", "--entities", "Old Entities", "--output", "schema/orders.yaml"});
  EXPECT_EQ(again.code, 1);
  EXPECT_NE(again.err.find("schema/orders.yaml is there already"), std::string::npos) << again.err;
  EXPECT_EQ(read("schema/orders.yaml"), "mine");
  EXPECT_EQ(pipegen({"import", "--entities", "Old Entities/", "--output", "schema/orders.yaml", "--force", "--pipeline",
                     "tpch"})
                .code,
            0);
  EXPECT_NE(read("schema/orders.yaml").find("pipeline: tpch\n"), std::string::npos);
}

TEST_F(CommandLine, import_says_what_keeps_it_from_it_and_writes_nothing) {
  EXPECT_EQ(pipegen({"import"}).code, 2);
  EXPECT_EQ(pipegen({"import", "--entities", "nowhere"}).code, 1);
  fs::create_directory("empty");
  const Outcome empty = pipegen({"import", "--entities", "empty"});
  EXPECT_EQ(empty.code, 1);
  EXPECT_NE(empty.err.find("empty has no file"), std::string::npos) << empty.err;
  put("old/a.yaml", "entity: {name: A, fields: [{name: a, type: Quux}], persistence: {primary_key: a}}\n");
  const Outcome wrong = pipegen({"import", "--entities", "old"});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_NE(wrong.err.find("old/a.yaml:1:44: error: no type is called 'Quux'"), std::string::npos) << wrong.err;
  EXPECT_EQ(pipegen({"import", "--entities", "old", "--pipeline", "Not A Name"}).code, 1);
  EXPECT_FALSE(fs::exists("entities.yaml"));
}

TEST_F(CommandLine, import_takes_no_file_of_anybody_away) {
  put("old/a.yaml", "entity: {name: A, fields: [{name: a, type: String}], persistence: {primary_key: a}}\n");
  put("entities.yaml.new", "mine");
  fs::create_directories("taken/schema.yaml");
  const Outcome imported = pipegen({"import", "--entities", "old"});
  EXPECT_EQ(imported.code, 0) << imported.err;
  EXPECT_EQ(read("entities.yaml.new"), "mine");
  EXPECT_EQ(pipegen({"import", "--entities", "old", "--output", "taken/schema.yaml", "--force"}).code, 1);
  EXPECT_EQ(std::distance(fs::directory_iterator("taken"), {}), 1) << "what could not be moved is gone";
}

TEST_F(CommandLine, import_says_which_folder_cannot_be_read) {
  const Outcome long_name = pipegen({"import", "--entities", std::string(300, 'a')});
  EXPECT_EQ(long_name.code, 1);
  EXPECT_EQ(long_name.err.find("internal error"), std::string::npos) << long_name.err;
  fs::create_directory("closed");
  fs::permissions("closed", fs::perms::none);
  fs::permissions(folder_, fs::perms::owner_all | fs::perms::group_exec | fs::perms::others_exec);
  const bool is_root = ::geteuid() == 0;  // who may read everything
  if (is_root) {
    ASSERT_EQ(::seteuid(65534), 0);
  }
  const Outcome closed = pipegen({"import", "--entities", "closed"});
  if (is_root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  fs::permissions("closed", fs::perms::owner_all);
  EXPECT_EQ(closed.code, 1);
  EXPECT_EQ(closed.err, "pipegen: closed cannot be read: Permission denied\n");
}

TEST_F(CommandLine, paths_with_spaces_are_quoted_for_the_shell) {
  const Outcome outcome = pipegen({"generate-all", "--output", "my services"});
  EXPECT_NE(outcome.out.find("cmake -S 'my services' -B 'my services/build'"), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace pipegen::gen
