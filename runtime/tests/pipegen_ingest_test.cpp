// pipegen-ingest as a process, against a real nats-server; and what it takes for JSON.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <string>
#include <thread>

#include "pipegen/json.hpp"
#include "pipegen/nats.hpp"
#include "programs/ingest/any_json.hpp"
#include "sql/database.hpp"
#include "support/nats_server.hpp"

namespace {

using namespace std::chrono_literals;
using pipegen::ingest::check_any_json;

bool is_json(std::string_view text, std::size_t max_depth = 100) {
  try {
    check_any_json(text, max_depth);
    return true;
  } catch (const pipegen::json::Invalid&) {
    return false;
  }
}

TEST(AnyJsonTest, TakesEverythingThatRfc8259CallsJson) {
  for (const std::string_view text : std::initializer_list<std::string_view>{"0",
                                                                             "-0",
                                                                             "1.5",
                                                                             "1e5",
                                                                             "1E+5",
                                                                             "1e-5",
                                                                             "-0.0e-0",
                                                                             "1e999999",
                                                                             "123456789012345678901234567890",
                                                                             "true",
                                                                             "false",
                                                                             "null",
                                                                             "\"\"",
                                                                             "\"a\"",
                                                                             " \t\r\n1 \t\r\n",
                                                                             "[]",
                                                                             "[ ]",
                                                                             "{}",
                                                                             "{ }",
                                                                             "[1,2]",
                                                                             "[[],{}]",
                                                                             R"({"a":1,"a":2})",
                                                                             R"({"":0})",
                                                                             R"({ "a" : [ 1 , { "b" : null } ] })",
                                                                             R"("\"\\\/\b\f\n\r\t")",
                                                                             R"("\u0000")",
                                                                             R"("\ud800")",
                                                                             R"("\uDFFF\uD800")",
                                                                             "\"\x7f\"",
                                                                             "\"\xc3\xbc\"",
                                                                             "\"\xe2\x82\xac\"",
                                                                             "\"\xf0\x9f\x98\x80\"",
                                                                             "\"\xed\x9f\xbf\"",
                                                                             "\"\xf4\x8f\xbf\xbf\"",
                                                                             "\"\xef\xbf\xbe\""}) {
    EXPECT_TRUE(is_json(text)) << text;
  }
  EXPECT_TRUE(is_json(std::string(100, '[') + std::string(100, ']')));
}

TEST(AnyJsonTest, RefusesEverythingElse) {
  using std::string_view_literals::operator""sv;
  for (const std::string_view text : std::initializer_list<std::string_view>{"",
                                                                             " ",
                                                                             "+1",
                                                                             "01",
                                                                             "-01",
                                                                             "1.",
                                                                             ".5",
                                                                             "-",
                                                                             "1e",
                                                                             "1e+",
                                                                             "0x1",
                                                                             "1_0",
                                                                             "NaN",
                                                                             "Infinity",
                                                                             "-Infinity",
                                                                             "nul",
                                                                             "True",
                                                                             "nullx",
                                                                             "tru",
                                                                             "'a'",
                                                                             "a",
                                                                             "\"",
                                                                             "\"a",
                                                                             "\"\\\"",
                                                                             "\"\\x41\"",
                                                                             "\"\\u12\"",
                                                                             "\"\\u12g4\"",
                                                                             "\"\n\"",
                                                                             "\"\t\"",
                                                                             "\"\0\""sv,
                                                                             "1\0"sv,
                                                                             "[",
                                                                             "]",
                                                                             "[1",
                                                                             "[1,]",
                                                                             "[,1]",
                                                                             "[1 2]",
                                                                             "[1,,2]",
                                                                             "{",
                                                                             "}",
                                                                             "{\"a\"}",
                                                                             "{\"a\":}",
                                                                             "{\"a\":1,}",
                                                                             "{,}",
                                                                             "{a:1}",
                                                                             "{1:1}",
                                                                             "{\"a\" 1}",
                                                                             "{\"a\":1 \"b\":2}",
                                                                             "[}",
                                                                             "{]",
                                                                             "[1}",
                                                                             "1 2",
                                                                             "{}{}",
                                                                             "[]]",
                                                                             "// x\n1",
                                                                             "/* */1",
                                                                             "1#",
                                                                             "\xef\xbb\xbf{}",
                                                                             "\"\xff\"",
                                                                             "\"\x80\"",
                                                                             "\"\xc0\x80\"",
                                                                             "\"\xc1\xbf\"",
                                                                             "\"\xc3\"",
                                                                             "\"\xe0\x80\x80\"",
                                                                             "\"\xed\xa0\x80\"",
                                                                             "\"\xf0\x80\x80\x80\"",
                                                                             "\"\xf4\x90\x80\x80\"",
                                                                             "\"\xf5\x80\x80\x80\"",
                                                                             "\"\xe2\x82",
                                                                             "\xa0"
                                                                             "1",
                                                                             "\v1",
                                                                             "\f1",
                                                                             "\xc2\xa0"
                                                                             "1"}) {
    EXPECT_FALSE(is_json(text)) << text;
  }
  EXPECT_FALSE(is_json(std::string(101, '[') + std::string(101, ']')));
  EXPECT_FALSE(is_json(std::string(1'000'000, '[')));
}

/// pipegen-ingest as a child, until the end of the test.
class Program {
 public:
  explicit Program(std::vector<std::string> arguments) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
    std::string program = PIPEGEN_INGEST;
    std::vector<char*> argv = {program.data()};
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::dup2(ends[1], STDERR_FILENO);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    output_ = ends[0];
  }
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    ::close(output_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// Everything up to `end`, or to the end of its output.
  const std::string& read_until(const std::string& end) {
    char part[4096];
    while (text_.find(end) == std::string::npos) {
      const ssize_t got = ::read(output_, part, sizeof part);
      if (got <= 0) break;
      text_.append(part, static_cast<std::size_t>(got));
    }
    return text_;
  }
  int port() {
    const std::string name = "\"api_port\":";
    const std::string& text = read_until(name);
    const std::size_t at = text.find(name);
    if (at == std::string::npos) return 0;
    read_until("}\n");
    return std::atoi(text_.c_str() + at + name.size());
  }
  int stop() {
    ::kill(pid_, SIGTERM);
    return wait();
  }
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  std::string text_;
};

class PipegenIngestTest : public ::testing::Test {
 protected:
  std::string config(const std::string& ingest, const std::string& rest = "") {
    const std::string file = (folder.path() / "ingest.toml").string();
    std::ofstream(file) << "[nats]\nurl = \"" << nats.url() << "\"\n[ingest]\n"
                        << ingest << "\n[ingest_api]\nport = 0\n"
                        << rest;
    return file;
  }
  static httplib::Client client(int port) {
    httplib::Client out("127.0.0.1", port);
    for (int i = 0; i < 1'000; ++i) {
      const auto ready = out.Get("/ready");
      if (ready && ready->status == 200) break;
      std::this_thread::sleep_for(10ms);
    }
    return out;
  }

  pipegen::testing::NatsServer nats;
  pipegen::testing::TempFolder folder;
};

TEST_F(PipegenIngestTest, TakesAnyJsonIntoTheStreamAndNothingElse) {
  Program program({"--config", config("pipeline = \"shop\"\nentities = [\"Order\", \"Customer\"]")});
  const int port = program.port();
  ASSERT_GT(port, 0);
  auto http = client(port);
  const auto post = [&](const std::string& path, const std::string& body, const char* type = "application/json") {
    const auto answer = http.Post(path, body, type);
    return answer ? answer->status : -1;
  };
  const std::string& said = program.read_until(R"("message":"ready")");
  EXPECT_NE(said.find(R"("message":"publishing","stream":"SHOP_INGEST","replicas":1,"storage":"file","discard":"new")"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("one replica: a lost disk loses messages"), std::string::npos) << said;
  EXPECT_EQ(post("/ingest/order", R"({"a":1,"a":1e999999})"), 202);
  EXPECT_EQ(post("/ingest/Customer", "17"), 202);
  EXPECT_EQ(post("/ingest/message?entity=order", "[]"), 202);
  EXPECT_EQ(post("/ingest/message", "{}"), 422);
  EXPECT_EQ(post("/ingest/order", "{\"a\":01}"), 400);
  EXPECT_EQ(post("/ingest/order", std::string(101, '[') + std::string(101, ']')), 400);
  EXPECT_EQ(post("/ingest/other", "{}"), 404);
  EXPECT_EQ(post("/ingest/batch?entity=order", "1\n{\"x\":1,\"x\":2}\nnope\n[3]\n", "application/x-ndjson"), 202);

  pipegen::nats::ConnectionOptions options;
  options.url = nats.url();
  pipegen::nats::Connection connection(options);
  // Three single ones and three lines came before this one.
  EXPECT_EQ(connection.publish("shop.ingest.order", "{}", "after").sequence, 7u);
  EXPECT_EQ(connection.publish("shop.ingest.customer", "{}", "after-2").stream, "SHOP_INGEST");

  const auto made = http.Post("/ingest/order", "{}", "application/json");
  const auto status = http.Get(made->get_header_value("Location"));
  EXPECT_EQ(status->status, 200);
  EXPECT_NE(status->body.find(R"("status":"accepted")"), std::string::npos) << status->body;
  const auto described = http.Get("/openapi.json");
  EXPECT_NE(described->body.find("\"/ingest/customer\""), std::string::npos);
  EXPECT_TRUE(is_json(described->body));
  EXPECT_NE(described->body.find("#/components/parameters/Entity\""), std::string::npos);
  EXPECT_NE(described->body.find(R"("dead_lettered", "consumed"])"), std::string::npos) << described->body;
  const auto answers_of = [&](const std::string& path) {
    const std::size_t at = described->body.find("\"" + path + "\"");
    EXPECT_NE(at, std::string::npos) << path;
    const std::string part = described->body.substr(at, described->body.find("\"/ingest/", at + 1) - at);
    std::string found;
    for (const std::string status : {"202", "408", "409", "500", "503"}) {
      if (part.find("\"" + status + "\":") != std::string::npos) found += status + " ";
    }
    return found;
  };
  for (const char* path : {"/ingest/order", "/ingest/message", "/ingest/batch"}) {
    EXPECT_EQ(answers_of(path), "202 408 409 500 503 ") << path;
  }
  EXPECT_EQ(answers_of("/ingest/status/{id}"), "500 503 ");
  EXPECT_EQ(http.Get("/")->status, 200);
  EXPECT_EQ(program.stop(), 0);
}

TEST_F(PipegenIngestTest, TellsWhatAWorkerNotedInTheDatabase) {
  const std::string url = "sqlite:" + (folder.path() / "rows.db").string();
  Program program({"--config", config("entities = [\"order\"]", "[database]\nurl = \"" + url + "\"\n")});
  auto http = client(program.port());
  const auto made = http.Post("/ingest/order", "{}", "application/json");
  ASSERT_TRUE(made);
  const std::string location = made->get_header_value("Location");
  const auto before = http.Get(location);
  // No worker has made the database yet: what is in the stream is known all the same.
  EXPECT_EQ(before->status, 200) << before->body;
  EXPECT_NE(before->body.find(R"("status":"accepted")"), std::string::npos) << before->body;

  const auto settings = pipegen::Settings::from("", "test", {{"DATABASE_URL", url}});
  pipegen::sql::Schema schema;
  schema.pipeline = "pipegen";
  const auto database = pipegen::sql::open_sqlite(settings, schema);
  database->migrate();
  pipegen::sql::MessageStatus row;
  row.message_id = location.substr(location.rfind('/') + 1);
  row.entity_type = "order";
  row.state = pipegen::sql::MessageState::kCompleted;
  row.received_at = row.updated_at = pipegen::now();
  database->session()->put_status(row);
  const auto after = http.Get(location);
  EXPECT_EQ(after->status, 200);
  EXPECT_NE(after->body.find(R"("status":"completed")"), std::string::npos) << after->body;
}

TEST_F(PipegenIngestTest, SaysWhatIsWrongWithItsConfiguration) {
  const auto refused = [&](std::vector<std::string> arguments, int status, const std::string& text) {
    Program program(std::move(arguments));
    const std::string said = program.read_until("\n\n");
    EXPECT_NE(said.find(text), std::string::npos) << said;
    EXPECT_EQ(program.wait(), status) << said;
  };
  refused({"--config", config("")}, 78, "ingest.entities");
  refused({"--config", config("entities = [\"a b\"]")}, 78, "a b");
  refused({"--config", config("entities = [\"Batch\"]")}, 78, "/ingest/batch");
  refused({"--config", config("entities = [\"a\", \"A\"]")}, 78, "twice");
  refused({"--config", config("entities = [\"a\", \"b\"]\nsubject = \"x\"")}, 78, "{entity}");
  refused({"--config", config("entities = [\"a\"]\nsubject = \"x.>\"")}, 78, "no subject");
  refused({"--config", config("entities = [\"a\"]\nretention = \"forever\"")}, 78, "work-queue");
  refused({"--config", config("entities = [\"a\"]", "tokens = \"short\"")}, 78, "ingest_api.tokens");
  refused({"--config", "/nowhere/x.toml"}, 78, "/nowhere/x.toml");
  refused({"--config"}, 64, "usage");
  refused({"--nonsense"}, 64, "--nonsense");
  refused({"--help"}, 0, "usage");
  refused({"--check", "--config=" + config("entities = [\"a\"]")}, 0, "are good");
}

}  // namespace
