// What cannot heal by itself is refused when a service starts: exit status 78 and one line that says what to do.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "pipegen/entities.hpp"
#include "pipegen/ingest.hpp"
#include "pipegen/json.hpp"
#include "pipegen/worker.hpp"
#include "sql/database.hpp"
#include "support/faults.hpp"
#include "support/nats_server.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using testing::NatsServer;
using testing::Process;
using testing::TempFolder;

Topology topology() {
  Topology out;
  out.add_stream({.name = "IN", .subjects = {"in.a"}, .retention = Retention::kWorkQueue});
  out.add_stream({.name = "OUT", .subjects = {"out.a", "out.of_others"}});
  out.add_stream({.name = "TEST_DLQ", .subjects = {"dlq.test.>"}});
  out.add_key_value({.schema_name = "STATE", .name = "TEST_STATE"});
  return out;
}

std::string read_text(std::string_view body) {
  return json::parse(body, [](json::Reader& in) { return in.string(); });
}

Stage make_stage(const Settings&) {
  Stage stage;
  stage.pipeline = "test";
  stage.name = "work";
  stage.section = "work_service";
  stage.topology = topology();
  stage.stream = "IN";
  stage.durable = "work-workers";
  stage.filter_subject = "in.a";
  stage.event = "Input";
  stage.publishes = {"out.a"};
  stage.status_bucket = "STATE";
  stage.dead_letter_stream = "TEST_DLQ";
  stage.dead_letter_subject = "dlq.test.work";
  stage.handle = [](std::string_view, Context&, Outbox&) {};
  return stage;
}

IngestApi make_api(const Settings&) {
  IngestApi api;
  api.pipeline = "test";
  api.section = "ingest_api";
  api.port = 0;
  api.topology = topology();
  api.entity_stream = "IN";
  api.openapi = "{}";
  api.add_entity(
      {.name = "Thing", .path = "thing", .subject = "in.a", .check = [](std::string_view body) { read_text(body); }});
  return api;
}

EntityWorkerSpec make_entities(const Settings&) {
  EntityWorkerSpec spec;
  spec.pipeline = "test";
  spec.name = "entity-worker";
  spec.section = "entity_worker_service";
  spec.topology = topology();
  spec.stream = "IN";
  spec.dead_letter_stream = "TEST_DLQ";
  spec.dead_letter_subject = "dlq.test.work";
  spec.schema.pipeline = "test";
  spec.schema.add_table({.name = "things", .columns = {{.name = "id"}}, .key = {0}});
  spec.open_database = sql::open_sqlite;
  spec.add_entity(
      {.name = "Thing",
       .subject = "in.a",
       .durable = "work-workers",
       .add_rows = [](std::string_view payload, sql::Batch& batch) { batch.add_row(0).add(read_text(payload)); }});
  return spec;
}

int service_process(const std::string& service, int argc, char** argv) {
  if (service == "api") return run_ingest_api(argc, argv, "service", make_api);
  if (service == "entities") return run_entity_worker(argc, argv, "service", make_entities);
  return run_worker(argc, argv, "service", make_stage);
}

class Refusals : public ::testing::TestWithParam<const char*> {
 protected:
  std::string service() const { return GetParam(); }

  /// Starts the service, which has to end, and gives what it says: its lines that are no log of the usual course.
  std::string refused(const NatsServer& server, std::vector<std::string> settings = {}) {
    settings.insert(settings.begin(), {"REFUSALS_SERVICE=" + service(), "NATS_URL=" + server.url(),
                                       "DATABASE_URL=sqlite:" + (folder_.path() / "test.db").string()});
    Process process({}, settings);
    EXPECT_TRUE(process.ends_within(20s)) << process.log();
    EXPECT_TRUE(process.ended() && process.exit_status() == 78) << process.log();
    std::istringstream log(process.log());
    std::string errors;
    int count = 0;
    for (std::string line; std::getline(log, line);) {
      if (line.find(R"("level":"info")") != std::string::npos) continue;
      if (line.find(R"("level":"warning")") != std::string::npos) continue;
      errors += (count++ == 0 ? "" : "\n") + line;
    }
    EXPECT_EQ(count, 1) << errors;
    return errors;
  }
  static void expect(const std::string& error, const std::vector<std::string>& parts) {
    for (const auto& part : parts) EXPECT_NE(error.find(part), std::string::npos) << "no " << part << " in:\n" << error;
  }
  static std::string user(const std::string& permissions) {
    return "authorization { users: [{ user: alice, password: a, permissions: { " + permissions + " } }] }";
  }
  static const std::vector<std::string>& alice() {
    static const std::vector<std::string> settings = {"NATS_USER=alice", "NATS_PASSWORD=a"};
    return settings;
  }
  /// ca.pem, and NAME.pem with NAME.key for 127.0.0.1, good for so many days from now.
  void make_certificates(const std::vector<std::pair<std::string, int>>& names) {
    const auto run = [&](const std::string& command) {
      const std::string line = "cd " + folder_.path().string() + " && openssl " + command + " >/dev/null 2>&1";
      ASSERT_EQ(std::system(line.c_str()), 0) << line;
    };
    std::ofstream(folder_.path() / "ext") << "subjectAltName=IP:127.0.0.1\n";
    run("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca");
    for (const auto& [name, days] : names) {
      run("req -newkey rsa:2048 -nodes -keyout " + name + ".key -out " + name + ".csr -subj /CN=" + name);
      run("x509 -req -in " + name + ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out " + name +
          ".pem -days " + std::to_string(days));
    }
  }
  std::string file(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string tls(const std::string& server_name) const {
    return "tls { cert_file: \"" + file(server_name + ".pem") + "\", key_file: \"" + file(server_name + ".key") +
           "\", ca_file: \"" + file("ca.pem") + "\", verify: true }";
  }
  std::vector<std::string> certificates(const std::string& name) const {
    return {"NATS_TLS_CA_FILE=" + file("ca.pem"), "NATS_TLS_CERTIFICATE_FILE=" + file(name + ".pem"),
            "NATS_TLS_KEY_FILE=" + file(name + ".key")};
  }

  TempFolder folder_;
};

TEST_P(Refusals, WrongCredentials) {
  const NatsServer server({}, "authorization { user: alice, password: a }");
  const std::string error = refused(server, {"NATS_USER=alice", "NATS_PASSWORD=wrong-secret"});
  expect(error, {"refuses the credentials", "check nats.user and nats.password"});
  EXPECT_EQ(error.find("wrong-secret"), std::string::npos) << error;
}

TEST_P(Refusals, ExpiredCertificates) {
  make_certificates({{"good", 2}, {"old", -1}});
  const NatsServer server({}, tls("good")), expired({}, tls("old"));
  expect(refused(server, certificates("old")), {"nats.tls_certificate_file", "old.pem expired on ", "renew it"});
  expect(refused(expired, certificates("good")), {"TLS", "that the server's certificate has not expired"});
}

TEST_P(Refusals, RenewedCertificatesAreUsedByTheSameProcess) {
  make_certificates({{"good", 2}, {"renewed", 2}});
  // Who renewed ones are for may do nothing: whoever is refused has shown them.
  const NatsServer server({}, "tls { cert_file: \"" + file("good.pem") + "\", key_file: \"" + file("good.key") +
                                  "\", ca_file: \"" + file("ca.pem") +
                                  "\", verify_and_map: true }\nauthorization { users: [{ user: \"CN=good\" }, { user: "
                                  "\"CN=renewed\", permissions: { publish: { deny: \"$JS.API.>\" } } }] }");
  for (const char* kind : {".pem", ".key"}) std::filesystem::copy_file(file("good") + kind, file("client") + kind);
  std::vector<std::string> settings = certificates("client");
  settings.insert(settings.end(),
                  {"REFUSALS_SERVICE=" + service(), "NATS_URL=" + server.url(), "NATS_CERTIFICATES_EVERY=100ms",
                   "DATABASE_URL=sqlite:" + (folder_.path() / "test.db").string()});
  Process process({}, settings);
  ASSERT_TRUE(process.says("\"ready\"")) << process.log();
  for (const char* kind : {".pem", ".key"}) {
    std::filesystem::copy_file(file("renewed") + kind, file("client") + kind,
                               std::filesystem::copy_options::overwrite_existing);
  }
  EXPECT_TRUE(process.says("begins again")) << process.log();
  EXPECT_TRUE(process.ends_within(20s)) << process.log();
  EXPECT_TRUE(process.ended() && process.exit_status() == 78) << process.log();
}

TEST_P(Refusals, AServerWithoutJetStream) {
  const NatsServer server({"--no-jetstream"});
  expect(refused(server), {"has no JetStream", "start it as `nats-server -js`"});
}

TEST_P(Refusals, AStreamWithOtherSettings) {
  const NatsServer server;
  nats::Connection connection({.url = server.url()});
  Topology other;
  other.add_stream({.name = "IN", .subjects = {"in.a"}, .discard = Discard::kOld, .max_messages = 5});
  nats::ensure(connection, other);
  expect(refused(server),
         {"stream IN exists with other settings", "retention: server has limits, schema wants work_queue",
          "discard: server has old, schema wants new", "nats stream edit IN"});
}

TEST_P(Refusals, AConsumerWithOtherSettings) {
  if (service() == "api") GTEST_SKIP() << "the API has no consumer";
  const NatsServer server;
  nats::Connection connection({.url = server.url()});
  nats::ensure(connection, topology());
  jsConsumerConfig config;
  jsConsumerConfig_Init(&config);
  config.Durable = "work-workers";
  config.AckPolicy = js_AckExplicit;
  ASSERT_EQ(js_AddConsumer(nullptr, connection.handles().publish_js, "IN", &config, nullptr, nullptr), NATS_OK);
  expect(refused(server), {"consumer work-workers of stream IN exists with other settings",
                           "`consumer:` name or delete it", "filter_subject: it has none, the schema says in.a"});
}

TEST_P(Refusals, ABucketThatIsSomebodyElsesStream) {
  const NatsServer server;
  nats::Connection connection({.url = server.url()});
  Topology other;
  other.add_stream({.name = "KV_TEST_STATE", .subjects = {"mine.>"}});
  nats::ensure(connection, other);
  expect(refused(server), {"key-value bucket TEST_STATE exists with other settings", "another name in project.toml"});
  EXPECT_STREQ(testing::stream_info(connection, "KV_TEST_STATE")->Config->Subjects[0], "mine.>");
}

TEST_P(Refusals, AUserWhoMayNotUseJetStream) {
  const NatsServer server({}, user("publish: { deny: \"$JS.API.>\" }"));
  expect(refused(server, alice()), {"$JS.API.", "grant it in the server's permissions"});
}

TEST_P(Refusals, AUserWhoMayNotCreateStreams) {
  const NatsServer server({}, user("publish: { deny: \"$JS.API.STREAM.CREATE.>\" }"));
  expect(refused(server, alice()), {"$JS.API.STREAM.CREATE.IN", "grant it in the server's permissions"});
}

TEST_P(Refusals, AUserWhoMayNotPublish) {
  const auto expect_refused = [&](const std::string& denied, const std::string& said) {
    const NatsServer server({}, user("publish: { deny: \"" + denied + "\" }"));
    expect(refused(server, alice()), {"\"" + said, "grant it in the server's permissions"});
  };
  const std::string subject = service() == "worker" ? "out.a" : service() == "api" ? "in.a" : "dlq.test.work";
  expect_refused(subject, subject + "\"");
  if (service() == "worker") expect_refused("$KV.TEST_STATE.>", "$KV.TEST_STATE.");
}

TEST_P(Refusals, NotAUserWhoMayNotPublishWhatOthersDo) {
  const NatsServer server({}, user("publish: { deny: \"out.of_others\" }"));
  std::vector<std::string> settings = alice();
  settings.insert(settings.end(), {"REFUSALS_SERVICE=" + service(), "NATS_URL=" + server.url(),
                                   "DATABASE_URL=sqlite:" + (folder_.path() / "test.db").string()});
  Process process({}, settings);
  EXPECT_TRUE(process.says("\"ready\"")) << process.log();
}

INSTANTIATE_TEST_SUITE_P(Of, Refusals, ::testing::Values("worker", "api", "entities"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace pipegen

int main(int argc, char** argv) {
  if (const char* service = std::getenv("REFUSALS_SERVICE")) return pipegen::service_process(service, argc, argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
