// The metrics of every kind of service, as processes that did some work show them, and what a workspace has for
// Prometheus and Grafana: promtool has nothing to say about either, and they name the same metrics.
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "nats/handles.hpp"
#include "pipegen/entities.hpp"
#include "pipegen/ingest.hpp"
#include "pipegen/json.hpp"
#include "pipegen/worker.hpp"
#include "sql/database.hpp"
#include "support/eventually.hpp"
#include "support/nats_server.hpp"
#include "support/process.hpp"

namespace pipegen {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::eventually;
using testing::Process;
using Names = std::set<std::string>;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Said {
  int status = 0;
  std::string output;
};
Said promtool(const std::string& arguments) {
  Said said;
  std::FILE* pipe = ::popen(("promtool " + arguments + " 2>&1").c_str(), "r");
  for (int c; (c = std::fgetc(pipe)) != EOF;) said.output.push_back(static_cast<char>(c));
  said.status = WEXITSTATUS(::pclose(pipe));
  return said;
}

// ------------------------------------------------------------------------------------------------ the services

/// A stage that collects: it has every metric that a stage may have. Items are "<group> <index> <count>".
Stage make_stage(const Settings&) {
  Stage stage;
  stage.pipeline = "test";
  stage.name = "work";
  stage.section = "work_service";
  stage.topology.add_stream({.name = "IN", .subjects = {"in.>"}, .retention = Retention::kWorkQueue});
  stage.topology.add_stream({.name = "OUT", .subjects = {"out.>"}});
  stage.topology.add_stream({.name = "TEST_DLQ", .subjects = {"dlq.test.>"}});
  stage.topology.add_object_bucket({.schema_name = "FILES", .name = "FILES"});
  stage.topology.add_key_value({.schema_name = "STATE", .name = "STATE"});
  stage.stream = "IN";
  stage.durable = "work-workers";
  stage.filter_subject = "in.a";
  stage.event = "Input";
  stage.dead_letter_stream = "TEST_DLQ";
  stage.dead_letter_subject = "dlq.test.work";
  stage.collect = Collect{
      .state_bucket = "STATE",
      .item =
          [](std::string_view payload) {
            char group[64] = {};
            int index = 0, count = 0;
            if (std::sscanf(std::string(payload).c_str(), "%63s %d %d", group, &index, &count) != 3)
              throw PermanentError("not an item");
            return Collect::Item{.group = group, .index = index, .count = count};
          },
      .handle = [](const std::vector<std::string>&, Context&,
                   Outbox& outbox) { outbox.publish({.event = "Output", .subject = "out.a", .payload = "joined"}); }};
  return stage;
}

EntityWorkerSpec make_entity_worker(const Settings&) {
  EntityWorkerSpec spec;
  spec.pipeline = "shop";
  spec.name = "entity-worker";
  spec.section = "entity_worker_service";
  spec.topology.add_stream({.name = "ROWS", .subjects = {"rows.>"}, .retention = Retention::kWorkQueue});
  spec.topology.add_stream({.name = "SHOP_DLQ", .subjects = {"dlq.shop.>"}});
  spec.stream = "ROWS";
  spec.dead_letter_stream = "SHOP_DLQ";
  spec.dead_letter_subject = "dlq.shop.entity-worker";
  spec.schema.pipeline = "shop";
  spec.schema.add_table({.name = "groups", .columns = {{.name = "name"}}, .key = {0}});
  spec.open_database = sql::open_sqlite;
  for (const char* name : {"group", "team"}) {
    spec.add_entity({.name = name,
                     .subject = std::string("rows.") + name,
                     .durable = std::string(name) + "-writers",
                     .add_rows = [](std::string_view payload, sql::Batch& batch) {
                       batch.add_row(0).add(json::parse(payload, [](json::Reader& in) { return in.string(); }));
                     }});
  }
  return spec;
}

IngestApi make_api(const Settings&) {
  IngestApi api;
  api.pipeline = "shop";
  api.section = "ingest_api";
  api.port = 0;
  api.entity_stream = "SHOP_INGEST";
  api.topology.add_stream({.name = "SHOP_INGEST", .subjects = {"shop.ingest.>"}, .retention = Retention::kWorkQueue});
  api.topology.add_object_bucket({.schema_name = "FILES", .name = "FILES"});
  api.topology.add_key_value({.schema_name = "KEYS", .name = "KEYS"});
  api.idempotency_bucket = "KEYS";
  api.openapi = "{}";
  api.add_entity({.name = "Order", .path = "order", .subject = "shop.ingest.order", .check = [](std::string_view body) {
                    json::parse(body, [](json::Reader& in) { return in.string(); });
                  }});
  return api;
}

/// Where it serves /metrics, once it is ready; `field` is what its log calls the port.
int port_of(testing::Process& process, const std::string& field) {
  return process.says(R"("message":"ready")") ? process.logged(field) : 0;
}

std::string metrics_at(int port) {
  const auto answer = httplib::Client("127.0.0.1", port).Get("/metrics");
  return answer && answer->status == 200 ? answer->body : "";
}

/// The names of the families: a histogram has one.
Names names_of(const std::string& text) {
  Names names;
  const std::regex type("# TYPE ([a-z_]+) [a-z]+");
  for (std::sregex_iterator at(text.begin(), text.end(), type), end; at != end; ++at) names.insert((*at)[1]);
  return names;
}

/// Every metric that expressions in the text are about.
Names asked_for(const std::string& text) {
  Names names;
  const std::regex name("\\b(pipegen|messaging|http_server)_[a-z_]+[a-z]");
  for (std::sregex_iterator at(text.begin(), text.end(), name), end; at != end; ++at) {
    names.insert(std::regex_replace(at->str(), std::regex("_(bucket|sum|count)$"), ""));
  }
  return names;
}

/// Every kind of service, each after some work.
class Services {
 public:
  Services() {
    const auto self = [&](const char* mode, std::vector<std::string> more = {}) {
      more.insert(more.end(), {"NATS_URL=" + server_.url(), std::string("METRICS_TEST_MODE=") + mode});
      return std::make_unique<Process>(std::vector<std::string>{}, std::move(more));
    };
    // Nobody listens there: the spans are counted all the same.
    const auto worker = self("worker", {"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9"});
    const auto writer = self("entity-worker", {"DATABASE_URL=sqlite:" + (folder_.path() / "rows.db").string()});
    const auto api = self("api");
    const std::string config = (folder_.path() / "ingest.toml").string();
    std::ofstream(config) << "[nats]\nurl = \"" << server_.url()
                          << "\"\n[ingest]\npipeline = \"any\"\nentities = [\"order\"]\n[ingest_api]\nport = 0\n";
    Process ingest({"--config", config}, {}, PIPEGEN_INGEST);

    const int worker_port = port_of(*worker, "admin_port"), writer_port = port_of(*writer, "admin_port");
    const int api_port = port_of(*api, "api_port"), ingest_port = port_of(ingest, "api_port");
    nats::Connection connection({.url = server_.url()});
    connection.publish("in.a", "g 1 2", "1");
    connection.publish("in.a", "g 2 2", "2");
    connection.publish("rows.team", "\"red\"", "3");
    for (const int port : {api_port, ingest_port}) {
      httplib::Client http("127.0.0.1", port);
      EXPECT_EQ(http.Post("/ingest/order", "\"one\"", "application/json")->status, 202) << api->log();
      EXPECT_EQ(http.Get("/coffee/7")->status, 404);
      httplib::Request odd;
      odd.method = "BREW";
      odd.path = "/coffee";
      http.send(odd);
    }
    const auto show = [&](const char* name, const Process& process, int port, const std::string& line) {
      EXPECT_TRUE(eventually([&] {
        text[name] = metrics_at(port);
        return text[name].find("\n" + line) != std::string::npos;
      })) << "there is no "
          << line << " in " << text[name] << "\n"
          << process.log();
    };
    show("worker", *worker, worker_port, R"(pipegen_messages_acked_total{stage="work"} 2)");
    show("entity worker", *writer, writer_port, R"(pipegen_messages_acked_total{stage="entity-worker"} 1)");
    show("api", *api, api_port, R"(pipegen_ingested_messages_total{entity="Order",outcome="accepted"} 1)");
    show("pipegen-ingest", ingest, ingest_port,
         R"(pipegen_ingested_messages_total{entity="order",outcome="accepted"} 1)");
  }

  std::map<std::string, std::string> text;  // that /metrics answers, by service

 private:
  testing::NatsServer server_;
  testing::TempFolder folder_;
};

std::vector<fs::path> monitoring_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(PIPEGEN_SOURCE_DIR) / "generated-tests" / "golden")) {
    folders.push_back(entry.path() / "expected" / "monitoring");
  }
  return folders;
}

TEST(Metrics, PromtoolFindsNothingWrongWithThoseOfAnyService) {
  const Services services;
  const testing::TempFolder folder;
  for (const auto& [name, text] : services.text) {
    const std::string file = (folder.path() / "metrics").string();
    std::ofstream(file) << text;
    const Said said = promtool("check metrics < '" + file + "'");
    EXPECT_EQ(said.status, 0) << name;
    EXPECT_EQ(said.output, "") << name;
  }
}

TEST(Metrics, SayWhatWentThroughAService) {
  const Services services;
  const auto has = [&](const char* service, const std::string& line) {
    const std::string& text = services.text.at(service);
    EXPECT_NE(text.find("\n" + line), std::string::npos) << line << " is not in " << text;
  };
  has("worker", R"(messaging_client_consumed_messages_total{stage="work",subject="in.a"} 2)");
  has("worker", R"(messaging_client_sent_messages_total{stage="work",subject="out.a"} 1)");
  has("worker", R"(pipegen_message_size_bytes_sum{direction="in",stage="work"} 10)");
  has("worker", R"(pipegen_message_size_bytes_sum{direction="out",stage="work"} 6)");
  has("worker", R"(pipegen_delivery_lag_seconds_count{stage="work"} 2)");
  has("worker", R"(messaging_process_duration_seconds_count{stage="work"} 2)");
  has("worker", R"(pipegen_pending{stage="work",subject="in.a"} 0)");
  has("worker", R"(pipegen_held{stage="work",what="nats"} 0)");
  has("entity worker", R"(messaging_client_consumed_messages_total{stage="entity-worker",subject="rows.team"} 1)");
  has("entity worker", R"(messaging_client_consumed_messages_total{stage="entity-worker",subject="rows.group"} 0)");
  for (const auto& [name, text] : services.text) {
    has(name.c_str(), "pipegen_ready 1");
    has(name.c_str(), "pipegen_nats_connected 1");
    for (const char* word : {"BREW", "coffee"}) {
      EXPECT_EQ(text.find(word), std::string::npos) << "clients must not make time series: " << text;
    }
  }
  has("api", R"(messaging_client_sent_messages_total{stage="ingest-api",subject="shop.ingest.order"} 1)");
  has("api", R"(pipegen_message_size_bytes_sum{direction="out",stage="ingest-api"} 5)");
  has("api", "http_server_active_requests 0");
  has("api", R"(http_server_refused_requests_total{status="503"} 0)");
  has("api", R"(http_server_request_duration_seconds_count{method="POST",route="/ingest/order",status="202"} 1)");
  has("api", R"(http_server_request_duration_seconds_count{method="GET",route="unmatched",status="404"} 1)");
}

TEST(Metrics, AreThoseThatTheDashboardAndTheRulesAskFor) {
  const Services services;
  Names exported;
  for (const auto& [name, text] : services.text) exported.merge(names_of(text));
  for (const fs::path& folder : monitoring_folders()) {
    const std::string dashboard = read_file(folder / "grafana-dashboard.json");
    Names asked = asked_for(dashboard + read_file(folder / "alerts.yml"));
    EXPECT_GT(asked.size(), 15u) << folder;
    for (const std::string& name : asked) EXPECT_TRUE(exported.contains(name)) << folder << ": nobody exports " << name;
    if (dashboard.find("HTTP API") == std::string::npos) continue;
    const Names shown = asked_for(dashboard);
    for (const std::string& name : exported) EXPECT_TRUE(shown.contains(name)) << folder << " does not show " << name;
  }
}

TEST(Monitoring, PromtoolFindsNothingWrongWithRulesAndConfiguration) {
  for (const fs::path& folder : monitoring_folders()) {
    const Said rules = promtool("check rules '" + (folder / "alerts.yml").string() + "'");
    EXPECT_EQ(rules.status, 0) << folder << rules.output;
    EXPECT_NE(rules.output.find("SUCCESS"), std::string::npos) << folder << rules.output;
    const Said config = promtool("check config '" + (folder / "prometheus.yml").string() + "'");
    EXPECT_EQ(config.status, 0) << folder << config.output;
    EXPECT_NE(config.output.find("1 rule files found"), std::string::npos) << folder << config.output;
  }
}

TEST(Monitoring, ScrapesEveryServiceOfTheComposeFile) {
  for (const fs::path& folder : monitoring_folders()) {
    const std::string compose = read_file(folder / ".." / "docker-compose.yml");
    const std::string config = read_file(folder / "prometheus.yml");
    const std::regex dockerfile("dockerfile: ([a-z0-9-]+)/Dockerfile");
    int services = 0;
    for (std::sregex_iterator at(compose.begin(), compose.end(), dockerfile), end; at != end; ++at, ++services) {
      const std::string name = (*at)[1];
      const std::string image = read_file(folder / ".." / name / "Dockerfile");
      std::smatch port;
      ASSERT_TRUE(std::regex_search(image, port, std::regex("EXPOSE ([0-9]+)"))) << image;
      EXPECT_NE(config.find("names: [" + name + "], type: A, port: " + port[1].str() + ","), std::string::npos)
          << name << " is not in " << config;
    }
    EXPECT_GT(services, 0) << folder;
  }
}

TEST(Monitoring, RulesFireWhenTheyShouldAndNotOtherwise) {
  const Said said = promtool("test rules '" PIPEGEN_SOURCE_DIR "/runtime/tests/alerts.test.yml'");
  EXPECT_EQ(said.status, 0) << said.output;
}

TEST(Monitoring, TheDashboardIsOneThatGrafanaImports) {
  for (const fs::path& folder : monitoring_folders()) {
    SCOPED_TRACE(folder);
    const auto dashboard = nlohmann::json::parse(read_file(folder / "grafana-dashboard.json"));
    EXPECT_GE(dashboard.at("schemaVersion").get<int>(), 30);
    EXPECT_TRUE(dashboard.at("id").is_null());
    EXPECT_LE(dashboard.at("uid").get<std::string>().size(), 40u);
    EXPECT_FALSE(dashboard.at("title").get<std::string>().empty());
    EXPECT_EQ(dashboard.at("__inputs").at(0).at("name"), "DS_PROMETHEUS");
    EXPECT_EQ(dashboard.at("__inputs").at(0).at("type"), "datasource");
    Names variables;
    for (const auto& variable : dashboard.at("templating").at("list")) {
      variables.insert(variable.at("name").get<std::string>());
      EXPECT_EQ(variable.at("datasource").at("uid"), "${DS_PROMETHEUS}");
    }
    EXPECT_EQ(variables, (Names{"service", "stage"}));
    std::set<int> ids;
    std::set<std::pair<int, int>> places;
    for (const auto& panel : dashboard.at("panels")) {
      EXPECT_TRUE(ids.insert(panel.at("id").get<int>()).second) << panel;
      const auto& place = panel.at("gridPos");
      EXPECT_TRUE(places.emplace(place.at("x").get<int>(), place.at("y").get<int>()).second) << panel;
      EXPECT_LE(place.at("x").get<int>() + place.at("w").get<int>(), 24) << panel;
      if (panel.at("type") == "row") continue;
      EXPECT_EQ(panel.at("datasource").at("uid"), "${DS_PROMETHEUS}");
      EXPECT_FALSE(panel.at("targets").empty()) << panel;
      for (const auto& target : panel.at("targets")) {
        EXPECT_FALSE(target.at("expr").get<std::string>().empty());
        EXPECT_EQ(target.at("legendFormat").get<std::string>().find("{{open"), std::string::npos);
      }
    }
    // PromQL that Prometheus takes: as rules, with Grafana's variables filled in.
    const testing::TempFolder temporary;
    const fs::path rules = temporary.path() / "rules.yml";
    nlohmann::json list = nlohmann::json::array();
    for (const auto& panel : dashboard.at("panels")) {
      for (const auto& target : panel.value("targets", nlohmann::json::array())) {
        const std::string expression =
            std::regex_replace(target.at("expr").get<std::string>(), std::regex("\\$__rate_interval"), "5m");
        list.push_back({{"record", "panel:" + std::to_string(list.size())}, {"expr", expression}});
      }
    }
    std::ofstream(rules) << nlohmann::json{{"groups", {{{"name", "panels"}, {"rules", list}}}}};
    const Said said = promtool("check rules '" + rules.string() + "'");
    EXPECT_EQ(said.status, 0) << said.output;
  }
}

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  using namespace pipegen;
  const char* given = std::getenv("METRICS_TEST_MODE");
  const std::string mode = given == nullptr ? "" : given;
  if (mode == "worker") return run_worker(argc, argv, "work", make_stage);
  if (mode == "entity-worker") return run_entity_worker(argc, argv, "entity-worker", make_entity_worker);
  if (mode == "api") return run_ingest_api(argc, argv, "ingest-api", make_api);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
