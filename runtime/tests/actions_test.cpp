// The actions exec and http_call, with real programs, real HTTP servers and objects in a real nats-server.
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "core/placeholders.hpp"
#include "core/trace.hpp"
#include "pipegen/actions/exec.hpp"
#include "pipegen/actions/http_call.hpp"
#include "pipegen/process.hpp"
#include "support/nats_server.hpp"
#include "support/test_context.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using actions::Exec;
using actions::HttpCall;
using testing::NatsServer;
using testing::TempFolder;
using testing::TestContext;

/// What an error of exactly this class said.
template <typename Error>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    if (typeid(error) == typeid(Error)) return error.what();
    return std::string("another error: ") + error.what();
  }
  return "no error";
}

/// Octets that a wrong order or a lost block would change.
std::string noise(std::size_t size) {
  std::string out(size, '\0');
  std::uint32_t state = 1;
  for (char& c : out) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return out;
}

class Actions : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ = std::make_unique<NatsServer>();
    connection_ = std::make_unique<nats::Connection>(nats::ConnectionOptions{.url = server_->url(), .name = "actions"});
    nats::ensure(*connection_, {.object_buckets = {{.schema_name = "FILES", .name = "FILES"}}});
  }
  static void TearDownTestSuite() {
    connection_.reset();
    server_.reset();
  }

  ObjectStore& files() { return context_.objects("FILES"); }
  ObjectRef put(const std::string& name, std::string_view content) {
    files().put(name, bytes_of(content));
    return at(name);
  }
  static ObjectRef at(const std::string& name) { return {"FILES", name}; }
  std::string get(const std::string& name) { return std::string(text_of(files().get(name))); }

  TempFolder folder_;
  TestContext context_{*connection_};

  inline static std::unique_ptr<NatsServer> server_;
  inline static std::unique_ptr<nats::Connection> connection_;
};

// --- placeholders ----------------------------------------------------------------------------------------------------

TEST(Placeholders, AreReplacedAndDoubledBracesMeanThemselves) {
  const Placeholders values{{"a", "1"}, {"b_c", "{x}"}, {"none", std::nullopt}};
  EXPECT_EQ(fill("", values, "url"), "");
  EXPECT_EQ(fill("x{a}y{b_c}", values, "url"), "x1y{x}") << "a value is not looked at again";
  EXPECT_EQ(fill("{{a}} {{{a}}}", values, "url"), "{a} {1}");
  EXPECT_EQ(fill("{a}{none}", values, "url"), std::nullopt);
  EXPECT_EQ(fill("{a}", values, "url", [](std::string_view text) { return "<" + std::string(text) + ">"; }), "<1>");
  for (const char* wrong : {"{other}", "{}", "{a", "a}", "{", "}"}) {
    EXPECT_NE(message_of<ConfigError>([&] { fill(wrong, values, "url"); }).find("setting url"), std::string::npos)
        << wrong;
  }
}

TEST(Placeholders, AnArgumentWithoutItsValueTakesItsOptionAlong) {
  const Placeholders values{{"seed", "7"}, {"none", std::nullopt}, {"minus", "-5"}};
  using List = std::vector<std::string>;
  const auto list = [&](const List& program) { return fill_arguments(program, values).list; };
  EXPECT_EQ(list({"tts", "--seed", "{seed}", "--ngl", "{none}", "end"}), (List{"tts", "--seed", "7", "end"}));
  EXPECT_EQ(list({"tts", "--ngl={none}", "end"}), (List{"tts", "end"}));
  EXPECT_EQ(list({"tts", "a", "{none}"}), (List{"tts", "a"}));
  EXPECT_EQ(list({"tts", "--seed={seed}", "{none}"}), (List{"tts", "--seed=7"})) << "that option has its value";
  EXPECT_EQ(list({"tts", "{minus}", "{none}"}), (List{"tts", "-5"})) << "that is a value, not an option";
  EXPECT_EQ(list({"-", "{none}"}), (List{"-"})) << "that is the program";
  EXPECT_EQ(list({"tts", "{{none}}"}), (List{"tts", "{none}"}));
  const Arguments arguments = fill_arguments({"tts", "{seed}", "{minus}{none}"}, values);
  EXPECT_EQ(arguments.used, (std::set<std::string, std::less<>>{"seed"})) << "what is left out uses nothing";
  EXPECT_THROW(list({}), ConfigError);
  EXPECT_THROW(list({"{seed}"}), ConfigError);
  EXPECT_THROW(list({"{none}", "a"}), ConfigError);
  EXPECT_THROW(list({"tts", "{other}"}), ConfigError);
}

TEST(Values, HaveATextForPlaceholdersAndJsonForBodies) {
  const actions::Values values{{"flag", true},
                               {"number", std::int32_t{7}},
                               {"share", 0.5},
                               {"text", "a \"b\""},
                               {"id", Uuid{}},
                               {"none", std::optional<std::int64_t>()},
                               {"some", std::optional<std::string>("x")}};
  EXPECT_EQ(values.at("flag").text(), "true");
  EXPECT_EQ(values.at("flag").json(), "true");
  EXPECT_EQ(values.at("number").json(), "7");
  EXPECT_EQ(values.at("share").text(), "0.5");
  EXPECT_EQ(values.at("text").text(), "a \"b\"");
  EXPECT_EQ(values.at("text").json(), "\"a \\\"b\\\"\"");
  EXPECT_EQ(values.at("id").json(), "\"00000000-0000-0000-0000-000000000000\"");
  EXPECT_FALSE(values.at("none").text() || values.at("none").json());
  EXPECT_EQ(values.at("some").json(), "\"x\"");
}

// --- exec ------------------------------------------------------------------------------------------------------------

class ExecAction : public Actions {
 protected:
  std::string run(const Exec& options) { return actions::exec(context_, options).text; }
  static std::vector<std::string> sh(const std::string& script, std::vector<std::string> arguments = {}) {
    std::vector<std::string> program{"/bin/sh", "-c", script, "sh"};
    program.insert(program.end(), arguments.begin(), arguments.end());
    return program;
  }
};

TEST_F(ExecAction, StoresWhatAProgramWritesToStandardOutputOfItsStandardInput) {
  const std::string content = noise(3'000'001);
  run({.program = {"/bin/cat"}, .input = put("picture", content), .output = at("copy")});
  EXPECT_TRUE(get("copy") == content);
  run({.program = {"/bin/cat"}, .input = put("picture", ""), .output = at("copy")});
  EXPECT_EQ(get("copy"), "");
  run({.program = {"/bin/cat"}, .output = at("copy")});
  EXPECT_EQ(get("copy"), "") << "without an input there is nothing to read";
}

TEST_F(ExecAction, GivesTheProgramFilesWithTheExtensionsOfTheKeys) {
  const std::string content = noise(100'000);
  const std::string said =
      run({.program = sh("cp \"$1\" \"$2\"; basename \"$1\"; basename \"$2\"; wc -c", {"{input}", "{output}"}),
           .input = put("1/picture.old.png", content),
           .output = at("1/thumbnail.jpeg"),
           .text = true});
  EXPECT_EQ(said, "input.png\noutput.jpeg\n0") << "what it gets as a file is not its standard input as well";
  EXPECT_TRUE(get("1/thumbnail.jpeg") == content);
  for (const char* name : {"no-extension", "a.b/c", "trailing.", "odd.p-g", "long.abcdefghijklmnopq"}) {
    EXPECT_EQ(run({.program = {"basename", "{input}"}, .input = put(name, ""), .text = true}), "input") << name;
  }
}

TEST_F(ExecAction, HandsValuesOverAsTheyAreAndLeavesOutWhatIsAbsent) {
  Exec options{
      .program = sh("printf '%s|' \"$@\"", {"-resize", "{width}x", "-q", "{quality}", "{page}", "{{x}}"}),
      .text = true,
      .values = {
          {"width", std::optional<std::int32_t>()}, {"quality", "a b; $(touch x) '*'"}, {"page", concat("page ", 3)}}};
  EXPECT_EQ(run(options), "-q|a b; $(touch x) '*'|page 3|{x}|");
  options.values.insert_or_assign("width", 200);
  EXPECT_EQ(run(options), "-resize|200x|-q|a b; $(touch x) '*'|page 3|{x}|");
  options.program.push_back("{size}");
  EXPECT_NE(message_of<ConfigError>([&] { run(options); }).find("{size}"), std::string::npos);
  options.program = {"cat", "{input}"};
  EXPECT_NE(message_of<ConfigError>([&] { run(options); }).find("{input}"), std::string::npos);
  options.program = {};
  EXPECT_NE(message_of<ConfigError>([&] { run(options); }).find("empty"), std::string::npos);
}

TEST_F(ExecAction, TextIsUtf8OfABoundedSizeWithoutItsLastLineBreak) {
  const auto text = [&](const std::string& content) {
    return run({.program = {"cat"}, .input = put("text", content), .text = true});
  };
  EXPECT_EQ(text("zwölf\n\n"), "zwölf\n");
  EXPECT_EQ(text(""), "");
  EXPECT_EQ(text(std::string(1 << 20, 'x')).size(), 1u << 20);
  EXPECT_NE(message_of<PermanentError>([&] { text(std::string((1 << 20) + 1, 'x')); }).find("1048576"),
            std::string::npos);
  EXPECT_EQ(message_of<PermanentError>([&] { text("\xff"); }), "cat answered with text that is not UTF-8");
  EXPECT_NE(
      message_of<ConfigError>([&] { run({.program = {"cat"}, .output = at("copy"), .text = true}); }).find("{output}"),
      std::string::npos);
}

TEST_F(ExecAction, OutputThatNobodyWantsIsNotKept) {
  run({.program = sh("head -c 300000000 /dev/zero")});  // more than a result in memory could be
}

TEST_F(ExecAction, ExitStatusSaysWhoIsToBlame) {
  files().remove("out");
  const auto error = [&](const auto type, const std::string& script) {
    return message_of<std::remove_const_t<decltype(type)>>([&] { run({.program = sh(script), .output = at("out")}); });
  };
  EXPECT_EQ(error(TransientError(""), "echo half; echo 'no licence' >&2; exit 3"),
            "/bin/sh ended with status 3: no licence");
  EXPECT_EQ(error(PermanentError(""), "echo 'not a picture' >&2; exit 65"),
            "/bin/sh ended with status 65: not a picture");
  EXPECT_EQ(error(TransientError(""), "kill -9 $$"), "/bin/sh ended with status 137");
  const std::string last = error(TransientError(""), "seq 1 100000 >&2; exit 1");
  EXPECT_TRUE(last.ends_with("\n99999\n100000")) << last;
  EXPECT_LT(last.size(), 600u);
  EXPECT_EQ(last.find("status 1: 99"), last.find("status 1:")) << "it begins with a whole line: " << last;
  EXPECT_NE(error(TransientError(""), "printf 'a\\377b' >&2; exit 1")
                .find("a\xEF\xBF\xBD"
                      "b"),
            std::string::npos);
  EXPECT_FALSE(files().info("out")) << "what a program wrote before it failed is not stored";

  EXPECT_NE(message_of<ConfigError>([&] { run({.program = {"no-such-program-at-all"}}); }).find("install it"),
            std::string::npos);
  EXPECT_NE(message_of<TransientError>([&] {
              run({.program = {"true", "{output}"}, .output = at("out")});
            }).find("did not write"),
            std::string::npos);
  EXPECT_NE(message_of<PermanentError>([&] {
              run({.program = {"cat"}, .input = at("missing"), .output = at("out")});
            }).find("missing"),
            std::string::npos);
}

/// Neither gone nor waiting for init to look at it.
bool runs(const std::string& pid) {
  std::ifstream stat("/proc/" + pid + "/stat");
  std::string number, name, state;
  return static_cast<bool>(stat >> number >> name >> state) && state != "Z" && state != "X";
}

TEST_F(ExecAction, TheStopTokenEndsTheProgramAndWhatItStarted) {
  const std::filesystem::path pids = folder_.path() / "pids";
  // Both are deaf to SIGTERM, so that it takes a SIGKILL; the file is complete when it has its name.
  const Exec options{.program = sh("trap '' TERM; sleep 1000 & echo $$ $! > \"$1.part\"; mv \"$1.part\" \"$1\"; wait; "
                                   "while :; do sleep 1; done",
                                   {pids.string()}),
                     .output = at("never")};
  std::jthread stopper([&] {
    while (!std::filesystem::exists(pids)) std::this_thread::yield();
    context_.stop.request_stop();
  });
  EXPECT_THROW(run(options), Cancelled);
  std::string child, grandchild;
  std::ifstream(pids) >> child >> grandchild;
  ASSERT_FALSE(grandchild.empty());
  EXPECT_FALSE(std::filesystem::exists("/proc/" + child)) << "it is waited for";
  // SIGKILL was sent; the kernel needs a moment.
  const auto give_up = std::chrono::steady_clock::now() + 10s;
  while (runs(grandchild) && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
  EXPECT_FALSE(runs(grandchild));
  EXPECT_FALSE(files().info("never"));
}

TEST_F(ExecAction, LeavesNoDescriptorOpenHoweverItEnds) {
  const auto open_descriptors = [] {
    const auto entries = std::filesystem::directory_iterator("/proc/self/fd");
    return std::distance(begin(entries), end(entries));
  };
  const ObjectRef picture = put("picture", noise(100'000));
  const auto all = [&] {
    run({.program = {"cat"}, .input = picture, .output = at("copy")});
    run({.program = {"cat"}, .input = picture});
    EXPECT_THROW(run({.program = sh("exit 3"), .input = picture, .output = at("copy")}), TransientError);
    EXPECT_THROW(run({.program = {"no-such-program"}, .input = picture, .output = at("copy")}), ConfigError);
    // Its own descriptors are the standard ones; 3 is the folder that ls reads.
    EXPECT_EQ(run({.program = {"ls", "/proc/self/fd"}, .input = picture, .text = true}), "0\n1\n2\n3");
  };
  all();
  const auto before = open_descriptors();
  for (int i = 0; i < 10; ++i) all();
  EXPECT_EQ(open_descriptors(), before);
}

// --- http_call -------------------------------------------------------------------------------------------------------

/// An HTTP server on a free port; what it does is set up before the first call.
class Server {
 public:
  explicit Server(std::unique_ptr<httplib::Server> server = std::make_unique<httplib::Server>())
      : server_(std::move(server)) {
    port_ = server_->bind_to_any_port("127.0.0.1");
    const auto answer = [this](const httplib::Request& request, httplib::Response& response) {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
      if (handle) handle(request, response);
    };
    const char* any = R"([\s\S]*)";
    server_->Get(any, answer).Post(any, answer).Put(any, answer).Patch(any, answer).Delete(any, answer);
    thread_ = std::jthread([this] { server_->listen_after_bind(); });
    while (!server_->is_running()) std::this_thread::yield();
  }
  ~Server() { server_->stop(); }

  std::string url(const std::string& path = "/", const std::string& scheme = "http") const {
    return scheme + "://127.0.0.1:" + std::to_string(port_) + path;
  }
  std::size_t calls() const {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }
  httplib::Request last() const {
    const std::lock_guard lock(mutex_);
    return requests_.at(requests_.size() - 1);
  }

  std::function<void(const httplib::Request&, httplib::Response&)> handle;

 private:
  std::unique_ptr<httplib::Server> server_;
  int port_ = 0;
  mutable std::mutex mutex_;
  std::vector<httplib::Request> requests_;
  std::jthread thread_;
};

class HttpCallAction : public Actions {
 protected:
  HttpCallAction() {
    context_.info.id = "JOBS:42";
    context_.info.trace = trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "vendor=1");
  }
  actions::HttpCallResult call(const HttpCall& options) { return actions::http_call(context_, options); }
};

TEST_F(HttpCallAction, TheServerThatIsCalledIsAChildOfTheCall) {
  struct Kept : trace::Sink {
    void take(trace::SpanData span) noexcept override { spans.push_back(std::move(span)); }
    std::vector<trace::SpanData> spans;
  };
  static Kept kept;  // a tracer has to stay
  static const trace::Tracer tracer{&kept, {.parent_based = true, .ratio = 1}};
  trace::use(&tracer);
  context_.info.trace.flags = 1;
  Server server;
  server.handle = [](const httplib::Request&, httplib::Response& response) { response.status = 503; };
  EXPECT_THROW(call({.url = server.url("/hook?key=secret")}), TransientError);
  trace::use(nullptr);
  ASSERT_EQ(kept.spans.size(), 1u);
  const trace::SpanData& span = kept.spans[0];
  EXPECT_EQ(span.name, "POST");
  EXPECT_EQ(span.kind, trace::Kind::kClient);
  EXPECT_EQ(span.parent, context_.info.trace.span);
  EXPECT_EQ(server.last().get_header_value("traceparent"), span.context.traceparent());
  EXPECT_TRUE(span.failed);
  for (const auto& attribute : span.attributes) {
    const auto* text = std::get_if<std::string>(&attribute.value);
    if (text != nullptr) {
      EXPECT_EQ(text->find("secret"), std::string::npos) << attribute.name;
    }
  }
}

TEST_F(HttpCallAction, SendsTheValuesAsJsonAndIsDoneWithAnyAnswerOf2xx) {
  Server server;
  server.handle = [](const httplib::Request&, httplib::Response& response) { response.status = 204; };
  const auto result = call(
      {.url = server.url("/hook"),
       .values = {{"eventId", Uuid{}}, {"page", 3}, {"note", std::optional<std::string>()}, {"text", "zwölf \"x\""}}});
  EXPECT_EQ(result.status, 204);
  EXPECT_EQ(result.text, "");
  const httplib::Request request = server.last();
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.path, "/hook");
  EXPECT_EQ(request.body, R"({"eventId":"00000000-0000-0000-0000-000000000000","page":3,"text":"zwölf \"x\""})");
  EXPECT_EQ(request.get_header_value("Content-Type"), "application/json");
  EXPECT_EQ(request.get_header_value("Idempotency-Key"), "JOBS:42");
  EXPECT_FALSE(request.has_header("Authorization"));
  const std::string trace = request.get_header_value("traceparent");
  EXPECT_EQ(trace.size(), 55u);
  EXPECT_TRUE(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace.ends_with("-00")) << trace;
  EXPECT_EQ(trace.find("b7ad6b7169203331"), std::string::npos) << trace;
  EXPECT_EQ(request.get_header_value("tracestate"), "vendor=1");

  context_.info.trace = {};
  call({.url = server.url(), .method = "PUT", .bearer_token = "secret"});
  EXPECT_EQ(server.last().body, "{}");
  EXPECT_EQ(server.last().get_header_value("Authorization"), "Bearer secret");
  EXPECT_FALSE(server.last().has_header("traceparent"));
}

TEST_F(HttpCallAction, PercentEncodesValuesInTheUrlAndLeavesTheRestAsItIs) {
  Server server;
  HttpCall options{.url = server.url("/a+b/{key}?q=x+y%20z&p={key}&{{"),
                   .method = "GET",
                   .values = {{"key", "a/b?c&d=é%.. \r\n"}, {"none", std::optional<std::string>()}}};
  // The server decodes what it is asked for; the raw target is what counts.
  call(options);
  const httplib::Request request = server.last();
  EXPECT_EQ(request.target,
            "/a+b/a%2Fb%3Fc%26d%3D%C3%A9%25..%20%0D%0A?q=x+y%20z&p=a%2Fb%3Fc%26d%3D%C3%A9%25..%20%0D%0A&{");
  EXPECT_EQ(request.body, "");
  EXPECT_FALSE(request.has_header("Content-Type"));

  options.url = server.url("/{none}");
  EXPECT_THROW(call(options), PermanentError);
  options.url = server.url("/{other}");
  EXPECT_NE(message_of<ConfigError>([&] { call(options); }).find("{other}"), std::string::npos);
  options.url = "ftp://127.0.0.1/";
  EXPECT_THROW(call(options), ConfigError);
  options.url = server.url();
  options.method = "FETCH";
  EXPECT_NE(message_of<ConfigError>([&] { call(options); }).find("FETCH"), std::string::npos);
  EXPECT_EQ(server.calls(), 1u);
}

TEST_F(HttpCallAction, StreamsAnObjectThereAndTheAnswerIntoAnother) {
  Server server;
  server.handle = [](const httplib::Request& request, httplib::Response& response) {
    response.status = 201;
    response.set_content(request.body + "!", "image/png");
  };
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{128 * 1024}, std::size_t{5'000'001}}) {
    const std::string content = noise(size);
    for (const char* method : {"POST", "PUT", "PATCH"}) {
      const auto result = call({.url = server.url("/resize"),
                                .method = method,
                                .input = put("picture", content),
                                .output = at("thumbnail")});
      EXPECT_EQ(result.status, 201);
      EXPECT_TRUE(get("thumbnail") == content + "!") << size << " " << method;
    }
  }
  EXPECT_EQ(server.last().get_header_value("Content-Type"), "application/octet-stream");
  EXPECT_EQ(server.last().get_header_value("Content-Length"), "5000001");
  call({.url = server.url(), .input = at("picture"), .content_type = "image/png"});
  EXPECT_EQ(server.last().get_header_value("Content-Type"), "image/png");
  EXPECT_NE(message_of<PermanentError>([&] { call({.url = server.url(), .input = at("missing")}); }).find("missing"),
            std::string::npos);
}

TEST_F(HttpCallAction, GivesTheAnswerAsTextOfABoundedSize) {
  Server server;
  std::string body;
  server.handle = [&](const httplib::Request&, httplib::Response& response) {
    response.set_content(body, "text/plain");
  };
  const auto text = [&](const std::string& answer) {
    body = answer;
    return call({.url = server.url(), .text = true}).text;
  };
  EXPECT_EQ(text("zwölf\n"), "zwölf\n");
  EXPECT_EQ(text(std::string(1 << 20, 'x')).size(), 1u << 20);
  EXPECT_NE(message_of<PermanentError>([&] { text(std::string((1 << 20) + 1, 'x')); }).find("more than 1048576"),
            std::string::npos);
  EXPECT_NE(message_of<PermanentError>([&] { text("\xff"); }).find("not UTF-8"), std::string::npos);
  body = std::string(8 << 20, 'x');
  EXPECT_EQ(call({.url = server.url()}).status, 200) << "an answer that nobody wants may be of any size";
}

TEST_F(HttpCallAction, TheStatusSaysWhatHappensNext) {
  Server server;
  int status = 0;
  server.handle = [&](const httplib::Request&, httplib::Response& response) {
    response.status = status;
    response.set_header("Location", "/elsewhere");
    response.set_content("because \xff" + std::string(100'000, 'x'), "text/plain");
  };
  files().remove("answer");
  const HttpCall options{.url = server.url(), .output = at("answer"), .text = true};
  for (const int passing : {408, 425, 429, 500, 502, 503, 504, 507}) {
    status = passing;
    EXPECT_NE(message_of<TransientError>([&] { call(options); }).find(std::to_string(passing)), std::string::npos);
  }
  for (const int final : {301, 302, 307, 400, 401, 403, 404, 409, 413, 422}) {
    status = final;
    const std::string message = message_of<PermanentError>([&] { call(options); });
    EXPECT_TRUE(message.starts_with(server.url("") + " answered the POST with status " + std::to_string(final) +
                                    ": because \xEF\xBF\xBDxx"))
        << message;
    EXPECT_LT(message.size(), 500u);
  }
  EXPECT_EQ(server.last().path, "/") << "no redirect is followed";
  EXPECT_FALSE(files().info("answer")) << "the body of an error is not the result";
}

TEST_F(HttpCallAction, ASilentConnectionIsDifferentFromNone) {
  std::string gone;
  {
    Server server;
    gone = server.url();
  }
  EXPECT_THROW(call({.url = gone}), Unavailable);

  // Takes the request and closes the connection: the message may be why.
  Server server;
  server.handle = [](const httplib::Request&, httplib::Response& response) {
    response.set_content_provider(1000, "text/plain", [](std::size_t, std::size_t, httplib::DataSink& sink) {
      sink.write("half", 4);
      return false;
    });
  };
  files().remove("answer");
  EXPECT_NE(message_of<TransientError>([&] { call({.url = server.url(), .output = at("answer")}); }).find("broke"),
            std::string::npos);
  EXPECT_FALSE(files().info("answer"));
}

TEST_F(HttpCallAction, TheStopTokenEndsACallThatIsNotAnswered) {
  Server server;
  std::atomic<bool> asked = false, released = false;
  server.handle = [&](const httplib::Request&, httplib::Response&) {
    asked = true;
    released.wait(false);
  };
  std::jthread stopper([&] {
    while (!asked) std::this_thread::yield();
    context_.stop.request_stop();
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THROW(call({.url = server.url()}), Cancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 20s);
  released = true;
  released.notify_all();
}

TEST_F(HttpCallAction, AnHttpsServerHasToHaveAGoodCertificate) {
  const std::string key = (folder_.path() / "key.pem").string(), certificate = (folder_.path() / "cert.pem").string();
  const ProgramResult made =
      run_program({"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
                   "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate});
  ASSERT_EQ(made.exit_status, 0) << made.errors;
  Server server(std::make_unique<httplib::SSLServer>(certificate.c_str(), key.c_str()));
  const HttpCall options{.url = server.url("/", "https"), .text = true, .bearer_token = "secret"};
  const std::string message = message_of<Unavailable>([&] { call(options); });
  EXPECT_NE(message.find("its certificate cannot be trusted"), std::string::npos) << message;
  EXPECT_EQ(server.calls(), 0u) << "nothing was sent";

  // What OpenSSL takes for the system's store.
  ::setenv("SSL_CERT_FILE", certificate.c_str(), 1);
  const int status = call(options).status;
  ::unsetenv("SSL_CERT_FILE");
  EXPECT_EQ(status, 200);
  EXPECT_EQ(server.last().get_header_value("Authorization"), "Bearer secret");
}

}  // namespace
}  // namespace pipegen
