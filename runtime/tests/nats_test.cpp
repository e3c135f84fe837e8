#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "nats/garbage.hpp"
#include "nats/handles.hpp"
#include "nats/promises.hpp"
#include "pipegen/key_value.hpp"
#include "pipegen/log.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/object_store.hpp"
#include "support/eventually.hpp"
#include "support/nats_jwt.hpp"
#include "support/nats_server.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using nats::Connection;
using testing::eventually;
using testing::NatsServer;
using testing::TempFolder;
using Clock = std::chrono::steady_clock;

/// Counts up; wait_for() returns when it has got there.
class Latch {
 public:
  void add() {
    const std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  bool wait_for(int count, std::chrono::milliseconds patience = 20s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return count_ >= count; });
  }
  int count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

template <typename E, typename Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another kind of error: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

Bytes random_bytes(std::size_t size, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  Bytes bytes(size);
  for (auto& octet : bytes) octet = static_cast<std::byte>(random());
  return bytes;
}

std::uint64_t messages_in(Connection& connection, const std::string& stream, const std::string& subject = ">") {
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Info.SubjectsFilter = subject.c_str();
  nats::StreamInfo info;
  jsErrCode code{};
  nats::check(js_GetStreamInfo(info.out(), connection.handles().consume_js, stream.c_str(), &options, &code), stream);
  std::uint64_t count = 0;
  const auto* subjects = info->State.Subjects;
  for (int i = 0; subjects != nullptr && i < subjects->Count; ++i) count += subjects->List[i].Msgs;
  return count;
}

StreamSpec stream_spec() { return {.name = "JOBS", .subjects = {"jobs.>"}, .retention = Retention::kWorkQueue}; }
const Topology kJobs{.streams = {stream_spec()}};
const Topology kBucket{.object_buckets = {{.schema_name = "FILES", .name = "FILES"}}};
const Topology kState{.key_values = {{.schema_name = "STATE", .name = "STATE"}}};

// --------------------------------------------------------------------------------------------------- connection

TEST(NatsConnection, PublishesAndTellsDuplicatesByMessageId) {
  NatsServer server;
  Connection connection({.url = server.url(), .name = "test"});
  nats::ensure(connection, kJobs);
  EXPECT_TRUE(connection.connected());
  const auto first = connection.publish("jobs.a", "one", "id-1", {{"traceparent", "x"}});
  const auto again = connection.publish("jobs.a", "one", "id-1");
  EXPECT_EQ(first.stream, "JOBS");
  EXPECT_EQ(first.sequence, 1U);
  EXPECT_FALSE(first.duplicate);
  EXPECT_TRUE(again.duplicate);
  nats::Message message;
  ASSERT_EQ(js_GetMsg(message.out(), connection.handles().consume_js, "JOBS", 1, nullptr, nullptr), NATS_OK);
  const char* header = nullptr;
  ASSERT_EQ(natsMsgHeader_Get(message.get(), "traceparent", &header), NATS_OK);
  EXPECT_STREQ(header, "x");
}

TEST(NatsConnection, SaysWhatIsWrongWithAPublish) {
  NatsServer server;
  Connection connection({.url = server.url()});
  Topology topology = kJobs;
  topology.streams[0].max_messages = 2;
  nats::ensure(connection, topology);
  EXPECT_TRUE(
      has(error_of<Unavailable>([&] { connection.publish("nobody.home", "x", "1"); }), "no stream has this subject"));
  connection.publish("jobs.a", "x", "1");
  connection.publish("jobs.a", "x", "2");
  EXPECT_TRUE(has(error_of<Unavailable>([&] { connection.publish("jobs.a", "x", "3"); }), "is full"));
  const std::string large(static_cast<std::size_t>(connection.max_payload()) + 1, 'x');
  EXPECT_TRUE(has(error_of<PermanentError>([&] { connection.publish("jobs.a", large, "4"); }), "max_payload"));
}

TEST(NatsConnection, AnswersEveryAsyncPublishOnce) {
  NatsServer server;
  Connection connection({.url = server.url()});
  nats::ensure(connection, kJobs);
  constexpr int kCount = 50'000;
  Latch done;
  std::atomic<int> stored = 0;
  for (int i = 0; i < kCount; ++i) {
    connection.publish_async("jobs.a", "{\"page\":1}", "id-" + std::to_string(i), {},
                             [&](const nats::PublishAck* ack, std::string_view, bool) {
                               if (ack != nullptr && !ack->duplicate) ++stored;
                               done.add();
                             });
  }
  ASSERT_TRUE(done.wait_for(kCount));
  EXPECT_EQ(stored, kCount);
  EXPECT_EQ(messages_in(connection, "JOBS"), static_cast<std::uint64_t>(kCount));
  Latch refused;
  std::string error;
  connection.publish_async("nobody.home", "x", "1", {}, [&](const nats::PublishAck* ack, std::string_view text, bool) {
    EXPECT_EQ(ack, nullptr);
    error = text;
    refused.add();
  });
  ASSERT_TRUE(refused.wait_for(1));
  EXPECT_TRUE(has(error, "no stream has this subject")) << error;
}

TEST(NatsConnection, LosesNoAcceptedMessageWhenTheServerDiesInMidPublish) {
  NatsServer server;
  Connection connection({.url = server.url()});
  nats::ensure(connection, kJobs);
  constexpr int kCount = 30'000;
  Latch done;
  std::mutex mutex;
  std::set<std::uint64_t> accepted;
  std::atomic<int> failed = 0;
  Latch lost;
  Latch back;
  connection.on_change([&](bool connected) { connected ? back.add() : lost.add(); });
  for (int i = 0; i < kCount; ++i) {
    if (i == kCount / 2) server.kill();
    connection.publish_async("jobs.a", std::string(200, 'x'), std::to_string(i), {},
                             [&](const nats::PublishAck* ack, std::string_view, bool) {
                               if (ack == nullptr) {
                                 ++failed;
                               } else {
                                 const std::lock_guard lock(mutex);
                                 accepted.insert(ack->sequence);
                               }
                               done.add();
                             });
  }
  ASSERT_TRUE(lost.wait_for(1));
  EXPECT_FALSE(connection.connected());
  server.start();
  ASSERT_TRUE(back.wait_for(1));
  ASSERT_TRUE(done.wait_for(kCount, 40s)) << done.count();
  EXPECT_EQ(static_cast<int>(accepted.size()) + failed, kCount);
  // All of them: nothing is missing between the first message and the last.
  nats::StreamInfo info;
  ASSERT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, "JOBS", nullptr, nullptr), NATS_OK);
  EXPECT_EQ(info->State.FirstSeq, 1u);
  EXPECT_GE(info->State.LastSeq, *accepted.rbegin());
  EXPECT_EQ(info->State.Msgs, info->State.LastSeq);
  EXPECT_EQ(info->State.NumDeleted, 0);
  EXPECT_FALSE(connection.publish("jobs.a", "after", "after").duplicate);
}

TEST(NatsConnection, FailsQuicklyWhileTheServerIsAway) {
  NatsServer server;
  Connection connection({.url = server.url()});
  nats::ensure(connection, kJobs);
  nats::ensure(connection, kBucket);
  nats::ensure(connection, kState);
  server.kill();
  ASSERT_TRUE(eventually([&] { return !connection.connected(); }));
  const auto start = Clock::now();
  EXPECT_TRUE(has(error_of<Unavailable>([&] { connection.publish("jobs.a", "x", "1"); }), "not connected"));
  error_of<Unavailable>([&] { ObjectStore(connection, "FILES").get("a"); });
  error_of<Unavailable>([&] { KeyValue(connection, "STATE").get("a"); });
  EXPECT_LT(Clock::now() - start, 10s);
}

TEST(NatsConnection, FailsWithinSecondsWhenTheServerIsFrozen) {
  NatsServer server;
  Connection connection({.url = server.url()});
  nats::ensure(connection, kJobs);
  server.kill(SIGSTOP);
  const auto start = Clock::now();
  EXPECT_TRUE(has(error_of<Unavailable>([&] { connection.publish("jobs.a", "x", "1"); }), "in time"));
  EXPECT_LT(Clock::now() - start, 8s);
  server.kill(SIGCONT);
  EXPECT_TRUE(eventually([&] {
    try {
      connection.publish("jobs.a", "x", "1");
      return true;
    } catch (const Unavailable&) {
      return false;
    }
  }));
}

TEST(NatsConnection, WaitsForAServerThatIsNotThereYetAndThenGivesUp) {
  NatsServer server;
  const std::string url = "nats://secret-user:secret-word@127.0.0.1:" + std::to_string(server.port());
  server.kill();
  const std::string error = error_of<ConfigError>([&] { Connection connection({.url = url}, 1s); });
  EXPECT_TRUE(has(error, "cannot reach nats://127.0.0.1:" + std::to_string(server.port()) + " for 1 s")) << error;
  EXPECT_FALSE(has(error, "secret")) << error;
  std::thread late([&] { server.start(); });
  Connection connection({.url = url}, 10s);
  late.join();
  EXPECT_TRUE(connection.connected());
}

TEST(NatsConnection, RefusesWrongCredentialsInOneLineWithoutSecrets) {
  NatsServer server({}, "authorization { user: alice, password: rabbit-hole }");
  EXPECT_TRUE(Connection({.url = server.url(), .user = "alice", .password = "rabbit-hole"}).connected());
  const auto at = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_TRUE(Connection({.url = "nats://alice:rabbit-hole@" + at}).connected());
  for (const auto& options :
       std::vector<nats::ConnectionOptions>{{.url = server.url()},
                                            {.url = server.url(), .user = "alice", .password = "wrong-secret"},
                                            {.url = "nats://alice:wrong-secret@" + at}}) {
    const std::string error = error_of<ConfigError>([&] { Connection connection(options); });
    EXPECT_TRUE(has(error, "refuses the credentials: check nats.user")) << error;
    EXPECT_FALSE(has(error, "wrong-secret")) << error;
    EXPECT_FALSE(has(error, "\n")) << error;
  }
}

TEST(NatsConnection, SurvivesPublishesThatTheServerCannotTake) {
  NatsServer server;
  Connection connection({.url = server.url()});
  nats::ensure(connection, kJobs);
  nats::ensure(connection, kState);
  for (const std::string& subject : {"jobs." + std::string(5'000, 'a'), std::string("jobs.a b"), std::string()}) {
    error_of<PermanentError>([&] { connection.publish(subject, "x", "1"); });
  }
  const auto limit = static_cast<std::size_t>(connection.max_payload());
  error_of<PermanentError>([&] { connection.publish("jobs.a", "x", "2", {{"Large", std::string(limit, 'x')}}); });
  error_of<PermanentError>([&] { connection.publish("jobs.a", std::string(limit - 10, 'x'), "3"); });
  const std::string text(5'000, '/');
  KeyValue(connection, "STATE").put(KeyValue::key_token(text) + "." + KeyValue::key_token("a"), "kept");
  EXPECT_EQ(KeyValue(connection, "STATE").get(KeyValue::key_token(text) + ".a")->value, "kept");
  EXPECT_FALSE(connection.closed_for_good());
  EXPECT_EQ(connection.publish("jobs.a", "x", "4").sequence, 1U);
}

TEST(NatsConnection, KnowsWhenItIsClosedForGood) {
  NatsServer server({}, "authorization { user: alice, password: rabbit-hole }");
  Connection connection({.url = server.url(), .user = "alice", .password = "rabbit-hole"});
  server.kill();
  ASSERT_TRUE(eventually([&] { return !connection.connected(); }));
  EXPECT_FALSE(connection.closed_for_good());
  server.set_config("authorization { user: alice, password: looking-glass }");
  server.start();
  EXPECT_TRUE(eventually([&] { return connection.closed_for_good(); }));
}

TEST(NatsConnection, TakesATokenAndSeveralServers) {
  NatsServer server({"--auth", "s3cret"});
  EXPECT_TRUE(Connection({.url = "nats://127.0.0.1:1, " + server.url(), .token = "s3cret"}).connected());
  EXPECT_TRUE(
      has(error_of<ConfigError>([&] { Connection connection({.url = server.url(), .token = "no"}); }), "nats.token"));
}

TEST(NatsConnection, TakesACredentialsFile) {
  const testing::NatsOperator trusted;
  const testing::NatsOperator stranger;
  NatsServer server({}, trusted.config());
  TempFolder folder;
  const auto credentials = [&](const char* name, const std::string& text) {
    std::ofstream(folder.path() / name) << text;
    return (folder.path() / name).string();
  };
  nats::ConnectionOptions options{.url = server.url(),
                                  .credentials_file = credentials("tts.creds", trusted.credentials())};
  {
    Connection connection(options);
    nats::ensure(connection, kJobs);
    EXPECT_EQ(connection.publish("jobs.a", "x", "1").stream, "JOBS");
    server.kill();
    ASSERT_TRUE(eventually([&] { return !connection.connected(); }));
    server.start();
    EXPECT_TRUE(eventually([&] { return connection.connected(); })) << "it did not sign the second time";
  }
  error_of<ConfigError>([&] { Connection connection({.url = server.url()}); });
  for (const std::string& text : {stranger.credentials(), std::string("nothing of the kind")}) {
    options.credentials_file = credentials("wrong.creds", text);
    const std::string error = error_of<ConfigError>([&] { Connection connection(options); });
    EXPECT_TRUE(has(error, "nats.credentials_file")) << error;
    EXPECT_FALSE(has(error, "SU")) << error;
  }
  options.credentials_file = "/nowhere/tts.creds";
  EXPECT_EQ(error_of<ConfigError>([&] { Connection connection(options); }),
            "nats.credentials_file: there is no file /nowhere/tts.creds");
}

TEST(NatsConnection, NeverSaysAPasswordThatIsInAUrl) {
  EXPECT_EQ(nats::without_secrets("cannot reach nats://me:pa/ss@word,x@host:4222 for 1 s"),
            "cannot reach nats://host:4222 for 1 s");
  EXPECT_EQ(nats::without_secrets("nats://me:a@one:1,tls://you:b/@two:2, nats://three:3"),
            "nats://one:1,tls://two:2, nats://three:3");
  EXPECT_EQ(nats::without_secrets("\"nats://token@host\" and me@home"), "\"nats://host\" and me@home");
  NatsServer server({}, "authorization { user: alice, password: \"rab,bit/hole\" }");
  const std::string at = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_TRUE(Connection({.url = server.url(), .user = "alice", .password = "rab,bit/hole"}).connected());
  for (const std::string& url : {"nats://alice:bra,zen/hole@" + at, "alice:bra,zen/hole@" + at,
                                 "nats://127.0.0.1:1, nats://alice:bra,zen/hole@" + at}) {
    const std::string error = error_of<ConfigError>([&] { Connection connection({.url = url}, 1s); });
    for (const std::string part : {"bra", "zen", "hole"}) EXPECT_FALSE(has(error, part)) << error;
    EXPECT_TRUE(has(error, at)) << error;
  }
}

TEST(NatsConnection, RefusesAServerWithoutJetStream) {
  NatsServer server({"--no-jetstream"});
  const std::string error = error_of<ConfigError>([&] { Connection connection({.url = server.url()}); });
  EXPECT_TRUE(has(error, "nats-server -js")) << error;
}

void run_command(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

/// An authority, a server certificate for `host`, a client certificate.
void make_certificates(const std::filesystem::path& folder, const std::string& host) {
  const std::string in = "cd " + folder.string() + " && openssl ";
  const std::string quiet = " >/dev/null 2>&1";
  run_command(in + "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca" + quiet);
  for (const std::string name : {"server", "client"}) {
    std::ofstream(folder / (name + ".ext")) << "subjectAltName=" << host << "\n";
    run_command(in + "req -newkey rsa:2048 -nodes -keyout " + name + ".key -out " + name + ".csr -subj /CN=" + name +
                quiet);
    run_command(in + "x509 -req -in " + name + ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile " +
                name + ".ext -out " + name + ".pem" + quiet);
  }
}

TEST(NatsConnection, ChecksTheServersCertificateAndShowsItsOwn) {
  TempFolder good;
  TempFolder other;
  make_certificates(good.path(), "IP:127.0.0.1");
  make_certificates(other.path(), "DNS:somewhere.else");
  const auto file = [](const TempFolder& folder, const char* name) { return (folder.path() / name).string(); };
  const auto tls = [&](const TempFolder& folder) {
    return "tls { cert_file: \"" + file(folder, "server.pem") + "\", key_file: \"" + file(folder, "server.key") +
           "\", ca_file: \"" + file(good, "ca.pem") + "\", verify: true }";
  };
  const NatsServer server({}, tls(good));
  const NatsServer misnamed({}, tls(other));
  nats::ConnectionOptions options{.url = server.url(),
                                  .tls_ca_file = file(good, "ca.pem"),
                                  .tls_certificate_file = file(good, "client.pem"),
                                  .tls_key_file = file(good, "client.key")};
  EXPECT_TRUE(Connection(options).connected());

  auto wrong_ca = options;
  wrong_ca.tls_ca_file = file(other, "ca.pem");
  EXPECT_TRUE(has(error_of<ConfigError>([&] { Connection connection(wrong_ca); }), "check nats.tls_ca_file"));

  auto wrong_name = options;
  wrong_name.url = misnamed.url();
  wrong_name.tls_ca_file = file(other, "ca.pem");
  EXPECT_TRUE(has(error_of<ConfigError>([&] { Connection connection(wrong_name); }), "the TLS connection failed"));

  nats::ConnectionOptions plain{.url = server.url()};
  EXPECT_TRUE(has(error_of<ConfigError>([&] { Connection connection(plain); }), "nats.tls_ca_file"));

  auto missing = options;
  missing.tls_ca_file = "/nowhere/ca.pem";
  EXPECT_TRUE(has(error_of<ConfigError>([&] { Connection connection(missing); }), "there is no file /nowhere/ca.pem"));
}

TEST(NatsConnection, ReadsItsOptionsFromTheSettings) {
  const auto settings = Settings::from("[nats]\nurl = \"tls://a:4222,tls://b:4222\"\nuser = \"u\"\n", "project.toml",
                                       {{"NATS_PASSWORD", "p"}, {"NATS_TLS_CA_FILE", "/ca.pem"}});
  const auto options = nats::options_from(settings, "tts");
  EXPECT_EQ(options.url, "tls://a:4222,tls://b:4222");
  EXPECT_EQ(options.name, "tts");
  EXPECT_EQ(options.user, "u");
  EXPECT_EQ(options.password, "p");
  EXPECT_EQ(options.tls_ca_file, "/ca.pem");
  EXPECT_FALSE(options.token);
}

TEST(NatsConnection, CountsReconnectsAndOctetsOfObjects) {
  NatsServer server;
  Metrics metrics;
  Connection connection({.url = server.url(), .metrics = &metrics});
  nats::ensure(connection, kBucket);
  ObjectStore store(connection, "FILES");
  store.put("a", random_bytes(300'000));
  store.get("a");
  store.get_range("a", 0, 10, [](BytesView) { return true; });
  EXPECT_TRUE(has(metrics.render(), "pipegen_object_bytes_total{direction=\"in\"} 300000\n")) << metrics.render();
  // What was fetched: whole chunks, also for a part of one.
  EXPECT_TRUE(has(metrics.render(), "pipegen_object_bytes_total{direction=\"out\"} 431072\n")) << metrics.render();
  EXPECT_TRUE(has(metrics.render(), "pipegen_nats_reconnects_total{connection=\"publishing\"} 0\n"));
  server.kill();
  ASSERT_TRUE(eventually([&] { return !connection.connected(); }));
  server.start();
  ASSERT_TRUE(eventually([&] { return connection.connected(); }));
  for (const std::string side : {"publishing", "consuming"}) {
    EXPECT_TRUE(has(metrics.render(), "pipegen_nats_reconnects_total{connection=\"" + side + "\"} 1\n"));
  }
}

// ------------------------------------------------------------------------------------------------------- ensure

TEST(NatsEnsure, MakesEverythingOnceAlsoWhenSeveralServicesStartTogether) {
  NatsServer server;
  Connection connection({.url = server.url()});
  Topology topology = kJobs;
  topology.streams[0].max_age = 30s;  // shorter than the duplicate window, which the server would refuse
  topology.object_buckets = kBucket.object_buckets;
  topology.key_values = kState.key_values;
  std::atomic<int> good = 0;
  std::vector<std::thread> services;
  for (int i = 0; i < 8; ++i) {
    services.emplace_back([&] {
      nats::ensure(connection, topology);
      ++good;
    });
  }
  for (auto& service : services) service.join();
  EXPECT_EQ(good, 8);
  nats::ensure(connection, topology);
}

TEST(NatsEnsure, ListsEverySettingThatDiffers) {
  NatsServer server;
  Connection connection({.url = server.url()});
  StreamSpec spec = stream_spec();
  spec.subjects = {"b", "a"};
  nats::ensure(connection, {.streams = {spec}});
  spec.subjects = {"a", "b"};
  nats::ensure(connection, {.streams = {spec}});
  spec.subjects = {"a", "c"};
  spec.max_age = std::chrono::hours(24);
  spec.max_bytes = 1 << 30;
  spec.retention = Retention::kLimits;
  const std::string error = error_of<ConfigError>([&] { nats::ensure(connection, {.streams = {spec}}); });
  EXPECT_EQ(
      error,
      "stream JOBS exists with other settings:\n"
      "  retention: server has work_queue, schema wants limits\n"
      "  max_age: server has no limit, schema wants 1d\n"
      "  max_bytes: server has no limit, schema wants 1073741824\n"
      "change the schema, or change the server (`nats stream edit JOBS`), or give it another name in project.toml");
}

std::vector<std::string> subjects_in(Connection& connection, const std::string& stream) {
  nats::StreamInfo info;
  nats::check(js_GetStreamInfo(info.out(), connection.handles().consume_js, stream.c_str(), nullptr, nullptr), stream);
  std::vector<std::string> subjects(info->Config->Subjects, info->Config->Subjects + info->Config->SubjectsLen);
  std::sort(subjects.begin(), subjects.end());
  return subjects;
}

TEST(NatsEnsure, AddsWhatAnotherServiceDoesNotKnowOfWhoeverComesFirst) {
  NatsServer server;
  Connection connection({.url = server.url()});
  for (const std::string stream : {"FIRST", "SECOND"}) {
    const std::string at = stream + ".";
    const StreamSpec one{.name = stream,
                         .subjects = {at + "a", at + "b", at + "c.*"},
                         .retention = Retention::kWorkQueue,
                         .duplicate_window = 2min};
    const StreamSpec two{.name = stream,
                         .subjects = {at + "b", at + "c.>", at + "d"},
                         .retention = Retention::kWorkQueue,
                         .duplicate_window = 10min};
    for (const StreamSpec& spec : stream == "FIRST" ? std::vector{one, two, one} : std::vector{two, one, two}) {
      nats::ensure(connection, {.streams = {spec}});
    }
    EXPECT_EQ(subjects_in(connection, stream), (std::vector<std::string>{at + "a", at + "b", at + "c.>", at + "d"}));
    for (const std::string subject : {"a", "b", "c.x", "c.x.y", "d"}) {
      EXPECT_EQ(connection.publish(at + subject, "x", subject).stream, stream);
    }
    nats::StreamInfo info;
    ASSERT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, stream.c_str(), nullptr, nullptr), NATS_OK);
    EXPECT_EQ(info->Config->Duplicates, std::chrono::nanoseconds(10min).count());
    StreamSpec slow = two;
    slow.duplicate_window = 20min;
    nats::ensure(connection, {.streams = {slow}});
    ASSERT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, stream.c_str(), nullptr, nullptr), NATS_OK);
    EXPECT_EQ(info->Config->Duplicates, std::chrono::nanoseconds(20min).count());
  }
}

TEST(NatsEnsure, AddsTheSubjectsOfServicesThatStartTogether) {
  NatsServer server;
  Connection connection({.url = server.url()});
  std::vector<std::thread> services;
  std::vector<std::string> all;
  for (const std::string subject : {"a", "b", "c", "d"}) {
    all.push_back(subject);
    services.emplace_back(
        [&connection, subject] { nats::ensure(connection, {.streams = {{.name = "JOBS", .subjects = {subject}}}}); });
  }
  for (auto& service : services) service.join();
  EXPECT_EQ(subjects_in(connection, "JOBS"), all);
}

TEST(NatsEnsure, RefusesStreamsThatLoseMessages) {
  NatsServer server;
  Connection connection({.url = server.url()});
  const auto refused = [&](const std::string& name, const std::function<void(jsStreamConfig&)>& set) {
    const char* subject = name.c_str();
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    config.Name = subject;
    config.Subjects = &subject;
    config.SubjectsLen = 1;
    config.Discard = js_DiscardNew;
    auto* js = connection.handles().consume_js;
    nats::check(js_AddStream(nullptr, js, &config, nullptr, nullptr), name);
    nats::ensure(connection, {.streams = {{.name = name, .subjects = {name}}}});
    set(config);
    nats::check(js_DeleteStream(js, subject, nullptr, nullptr), name);
    nats::check(js_AddStream(nullptr, js, &config, nullptr, nullptr), name);
    return error_of<ConfigError>([&] { nats::ensure(connection, {.streams = {{.name = name, .subjects = {name}}}}); });
  };
  EXPECT_TRUE(has(refused("last", [](auto& config) { config.MaxMsgsPerSubject = 1; }),
                  "max_msgs_per_subject: server has 1, schema wants no limit"));
  EXPECT_TRUE(has(refused("deaf", [](auto& config) { config.NoAck = true; }), "no_ack: server has true"));
  EXPECT_TRUE(has(refused("small", [](auto& config) { config.MaxMsgSize = 100; }),
                  "max_msg_size: server has 100, schema wants no limit"));
}

TEST(NatsEnsure, RefusesWhatCannotWork) {
  NatsServer server;
  Connection connection({.url = server.url()});
  nats::ensure(connection, kJobs);
  StreamSpec overlap{.name = "OTHER", .subjects = {"jobs.a"}};
  const std::string error = error_of<ConfigError>([&] { nats::ensure(connection, {.streams = {overlap}}); });
  EXPECT_TRUE(has(error, "jobs.a belongs to stream JOBS")) << error;
  StreamSpec leaky{.name = "LEAKY",
                   .subjects = {"leaky"},
                   .retention = Retention::kWorkQueue,
                   .discard = Discard::kOld,
                   .max_messages = 5};
  EXPECT_TRUE(has(error_of<ConfigError>([&] { nats::ensure(connection, {.streams = {leaky}}); }), "discard: new"));
  StreamSpec copies{.name = "COPIES", .subjects = {"copies"}, .replicas = 3};
  EXPECT_TRUE(has(error_of<ConfigError>([&] { nats::ensure(connection, {.streams = {copies}}); }), "replicas: 1"));
  StreamSpec more_copies = stream_spec();
  more_copies.replicas = 3;
  const std::string no_cluster = error_of<ConfigError>([&] { nats::ensure(connection, {.streams = {more_copies}}); });
  EXPECT_TRUE(has(no_cluster, "stream JOBS wants 3 replicas")) << no_cluster;
  EXPECT_TRUE(has(no_cluster, "replicas: 1")) << no_cluster;
  error_of<ConfigError>([&] { nats::ensure(connection, {.key_values = {{.schema_name = "x", .name = "a.b"}}}); });
}

// ----------------------------------------------------------------------------------------------------- objects

class Objects : public ::testing::Test {
 protected:
  Objects() : connection({.url = server.url()}), store(connection, "FILES") { nats::ensure(connection, kBucket); }

  std::uint64_t chunks() { return messages_in(connection, "OBJ_FILES", "$O.FILES.C.>"); }

  NatsServer server;
  Connection connection;
  ObjectStore store;
};

TEST_F(Objects, ComeBackAsTheyWerePutWhateverTheirSize) {
  for (const std::size_t size : {0, 1, 131'071, 131'072, 131'073, 300'001, 20 << 20}) {
    const Bytes data = random_bytes(size);
    const auto info = store.put("name/with ?*> " + std::to_string(size), data, {{"pages", "3"}});
    EXPECT_EQ(info.size, size);
    EXPECT_EQ(info.chunks, (size + 131'071) / 131'072);
    EXPECT_EQ(store.get(info.name), data) << size;
    auto reader = store.open(info.name);
    EXPECT_EQ(reader.info().digest, info.digest);
    EXPECT_EQ(reader.info().metadata, info.metadata);
    Bytes read;
    Bytes buffer(70'000);
    while (const auto got = reader.read(buffer))
      read.insert(read.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(got));
    EXPECT_EQ(read, data) << size;
  }
  EXPECT_EQ(store.put("empty", {}).digest, "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=");
  EXPECT_EQ(store.list().size(), 8U);
}

TEST_F(Objects, AreWrittenInPiecesOfAnySizeAndVisibleOnlyWhenFinished) {
  const Bytes data = random_bytes(1'000'003);
  auto writer = store.create("book.pdf");
  std::size_t step = 1;
  for (BytesView rest = data; !rest.empty(); step = step * 3 + 1) {
    const auto part = rest.first(std::min(step, rest.size()));
    writer.write(part);
    rest = rest.subspan(part.size());
  }
  EXPECT_FALSE(store.info("book.pdf"));
  writer.finish();
  EXPECT_EQ(store.get("book.pdf"), data);
  const auto age = now() - store.info("book.pdf")->modified;
  EXPECT_GT(age, -5s);
  EXPECT_LT(age, 60s);
}

TEST_F(Objects, ThatAreOverwrittenLeaveNoChunksBehind) {
  store.put("a", random_bytes(500'000, 1));
  const Bytes data = random_bytes(300'000, 2);
  store.put("a", data);
  EXPECT_EQ(store.get("a"), data);
  EXPECT_EQ(chunks(), 3U);
  EXPECT_EQ(store.list().size(), 1U);
}

TEST_F(Objects, AreWholeAlsoWhenManyWriteAndReadOneName) {
  std::vector<Bytes> versions;
  for (unsigned i = 0; i < 4; ++i) versions.push_back(random_bytes(400'000, i));
  store.put("a", versions[0]);
  std::atomic<int> good = 0;
  std::atomic<bool> writing = true;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 5; ++n) store.put("a", versions[i]);
    });
  }
  std::thread reader([&] {
    while (writing || good == 0) {
      try {
        const Bytes data = store.get("a");
        ASSERT_NE(std::find(versions.begin(), versions.end(), data), versions.end());
        ++good;
      } catch (const TransientError&) {  // replaced five times in a row while being read
      }
    }
  });
  for (auto& thread : threads) thread.join();
  writing = false;
  reader.join();
  EXPECT_GT(good, 0);
  EXPECT_EQ(chunks(), 4U);
}

TEST_F(Objects, CanBeRemoved) {
  store.put("a", random_bytes(300'000));
  EXPECT_TRUE(store.remove("a"));
  EXPECT_FALSE(store.remove("a"));
  EXPECT_FALSE(store.info("a"));
  EXPECT_TRUE(store.list().empty());
  EXPECT_EQ(chunks(), 0U);
  EXPECT_TRUE(has(error_of<PermanentError>([&] { store.get("a"); }), "there is no object \"a\" in bucket FILES"));
  store.put("a", random_bytes(10));
  EXPECT_EQ(store.get("a"), random_bytes(10));
}

TEST_F(Objects, AbandonedByTheirWriterLeaveNothing) {
  {
    auto writer = store.create("half");
    writer.write(random_bytes(1 << 20));
  }
  EXPECT_FALSE(store.info("half"));
  EXPECT_EQ(chunks(), 0U);
}

TEST_F(Objects, HalfWrittenByAProcessThatDiedAreInvisibleAndCollected) {
  store.put("whole", random_bytes(300'000));
  const auto before = chunks();
  const auto pid = ::fork();
  if (pid == 0) {
    ::execl(INTEROP_TOOL, INTEROP_TOOL, server.url().c_str(), "put", "FILES", "half", "/dev/zero", nullptr);
    ::_exit(127);
  }
  ASSERT_TRUE(eventually([&] { return chunks() > before + 20; }));
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  EXPECT_FALSE(store.info("half"));
  EXPECT_EQ(store.collect_garbage(1h), 0U);
  EXPECT_TRUE(eventually([&] { return store.collect_garbage(0ms) == 1; }));
  EXPECT_EQ(chunks(), before);
  EXPECT_EQ(store.get("whole"), random_bytes(300'000));
}

TEST_F(Objects, ThatNobodyFinishedArePurgedByEveryServiceNowAndThen) {
  nats::ensure(connection, {.object_buckets = {{.schema_name = "ODD", .name = "ODD"}}});
  const Bytes whole = random_bytes(300'000);
  store.put("whole", whole);
  const auto before = chunks();
  connection.publish("$O.FILES.C.of-the-dead", "chunk", "");
  connection.publish("$O.FILES.C.of-the-dead", "chunk", "");
  connection.publish("$O.ODD.C.perhaps-of-the-dead", "chunk", "");
  connection.publish("$O.ODD.M.eA==", "not the JSON of ADR-20", "");
  Metrics metrics;
  const Topology topology{.object_buckets = {{.schema_name = "ODD", .name = "ODD"}, kBucket.object_buckets[0]}};
  nats::GarbageCollector garbage(connection, topology, metrics, {.every = 20ms, .age = 0ms});
  EXPECT_TRUE(eventually([&] { return has(metrics.render(), "pipegen_garbage_collected_total{bucket=\"FILES\"} 1"); }))
      << metrics.render();
  EXPECT_EQ(chunks(), before);
  EXPECT_EQ(store.get("whole"), whole);
  // Whose chunks these are is not known; the other bucket does not suffer from it.
  EXPECT_EQ(messages_in(connection, "OBJ_ODD"), 2U);
  EXPECT_TRUE(has(error_of<PermanentError>([&] { ObjectStore(connection, "ODD").collect_garbage(0ms); }),
                  "in bucket ODD is not ADR-20's ($O.ODD.M.eA==, sequence 2)"));
}

TEST_F(Objects, FailWithUnavailableWhenTheServerDiesInMidPutAndCanBePutAgain) {
  const Bytes old = random_bytes(200'000, 7);
  store.put("a", old);
  auto writer = std::make_unique<ObjectWriter>(store.create("a"));
  writer->write(random_bytes(3 << 20));
  server.kill();
  error_of<Unavailable>([&] {
    for (int i = 0; i < 100; ++i) writer->write(random_bytes(200'000));
    writer->finish();
  });
  server.start();
  ASSERT_TRUE(eventually([&] { return connection.connected(); }));
  writer.reset();
  EXPECT_EQ(store.get("a"), old);
  const Bytes data = random_bytes(1 << 20, 8);
  store.put("a", data);
  EXPECT_EQ(store.get("a"), data);
}

TEST_F(Objects, GoOnBeingReadWhenTheServerComesBack) {
  const Bytes data = random_bytes(10 << 20);
  store.put("a", data);
  auto reader = store.open("a");
  Bytes read(1 << 20);
  std::size_t filled = 0;
  while (filled < read.size()) filled += reader.read(std::span(read).subspan(filled));
  server.kill();
  ASSERT_TRUE(eventually([&] { return !connection.connected(); }));
  Bytes buffer(100'000);
  const auto start = Clock::now();
  error_of<Unavailable>([&] {
    while (const auto got = reader.read(buffer)) {
      read.insert(read.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(got));
    }
  });
  EXPECT_LT(Clock::now() - start, 15s);
  server.start();
  ASSERT_TRUE(eventually([&] { return connection.connected(); }));
  while (const auto got = reader.read(buffer))
    read.insert(read.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(got));
  EXPECT_EQ(read, data);
}

TEST_F(Objects, ThatAreDamagedAreRefusedBeforeTheirLastChunk) {
  const auto info = store.put("a", random_bytes(500'000));
  auto* js = connection.handles().consume_js;
  nats::Message last;
  const std::string subject = "$O.FILES.C." + info.nuid;
  ASSERT_EQ(js_GetLastMsg(last.out(), js, "OBJ_FILES", subject.c_str(), nullptr, nullptr), NATS_OK);
  ASSERT_EQ(js_EraseMsg(js, "OBJ_FILES", natsMsg_GetSequence(last.get()), nullptr, nullptr), NATS_OK);
  EXPECT_TRUE(has(error_of<PermanentError>([&] { store.get("a"); }), "chunk 4 of 4 is missing"));

  // Same size, other octets.
  ASSERT_EQ(js_Publish(nullptr, js, subject.c_str(), std::string(106'784, 'x').data(), 106'784, nullptr, nullptr),
            NATS_OK);
  auto reader = store.open("a");
  std::size_t given = 0;
  Bytes buffer(50'000);
  const std::string error = error_of<PermanentError>([&] {
    while (const auto got = reader.read(buffer)) given += got;
  });
  EXPECT_TRUE(has(error, "does not have the digest")) << error;
  EXPECT_LE(given, 3U * 131'072);
}

TEST_F(Objects, WhoseMetadataNobodyCanReadAreRefusedByNameAndCanBeWrittenAgain) {
  store.put("good", random_bytes(300'000));
  const std::vector<std::string> broken{"",
                                        "not JSON",
                                        "{",
                                        "[]",
                                        "{}",
                                        R"({"name":1})",
                                        R"({"name":"a","size":-1})",
                                        R"({"name":"a","chunks":"4"})",
                                        std::string("\x89PNG\0\xff", 6)};
  for (const std::string& metadata : broken) {
    SCOPED_TRACE(metadata);
    store.put("a", random_bytes(200'000));
    ASSERT_EQ(chunks(), 5U);
    nats::Message message;
    ASSERT_EQ(
        natsMsg_Create(message.out(), "$O.FILES.M.YQ==", nullptr, metadata.data(), static_cast<int>(metadata.size())),
        NATS_OK);
    ASSERT_EQ(natsMsgHeader_Set(message.get(), "Nats-Rollup", "sub"), NATS_OK);
    ASSERT_EQ(js_PublishMsg(nullptr, connection.handles().publish_js, message.get(), nullptr, nullptr), NATS_OK);
    for (const std::function<void()>& use : std::vector<std::function<void()>>{
             [&] { store.get("a"); }, [&] { store.open("a"); }, [&] { store.info("a"); }, [&] { store.list(); },
             [&] { store.get_range("a", 0, 1, [](BytesView) { return true; }); },
             [&] { store.collect_garbage(0ms); }}) {
      EXPECT_TRUE(has(error_of<PermanentError>(use), "in bucket FILES is not ADR-20's ($O.FILES.M.YQ==, sequence "));
    }
    EXPECT_EQ(store.get("good"), random_bytes(300'000)) << "others suffer from it";
    // Whoever writes it again need not read it first; nor whoever removes it.
    const bool rewritten = &metadata != &broken.back();
    if (rewritten) {
      store.put("a", random_bytes(100, 5));
      EXPECT_EQ(store.get("a"), random_bytes(100, 5));
    } else {
      EXPECT_TRUE(store.remove("a"));
      EXPECT_FALSE(store.info("a"));
      EXPECT_FALSE(store.remove("a"));
    }
    EXPECT_EQ(store.list().size(), rewritten ? 2U : 1U);
    EXPECT_EQ(store.collect_garbage(0ms), 1U) << "the chunks of what was unreadable stay for ever";
  }
}

TEST_F(Objects, MayHaveEveryPrintableAsciiCharacterInTheirNames) {
  std::set<std::string> names;
  std::string all;
  for (char c = ' '; c <= '~'; ++c) {
    all += c;
    names.insert({std::string(1, c), std::string("a") + c + "b", std::string("b") + c});
  }
  names.insert({all, std::string(all.rbegin(), all.rend()), std::string(1024, '~')});
  for (const std::string& name : names) store.put(name, bytes_of(name), {{"name", name}});
  std::set<std::string> listed;
  for (const auto& info : store.list()) EXPECT_TRUE(listed.insert(info.name).second) << info.name;
  EXPECT_EQ(listed, names);
  for (const std::string& name : names) {
    EXPECT_EQ(text_of(store.get(name)), name);
    EXPECT_EQ(store.info(name)->metadata.at("name"), name);
    std::string last;
    store.get_range(name, name.size() - 1, 1, [&](BytesView part) {
      last = text_of(part);
      return true;
    });
    EXPECT_EQ(last, name.substr(name.size() - 1));
  }
  for (const std::string& name : names) {
    EXPECT_TRUE(store.remove(name)) << name;
    EXPECT_FALSE(store.info(name)) << name;
  }
  EXPECT_TRUE(store.list().empty());
  EXPECT_EQ(chunks(), 0U);
}

TEST_F(Objects, GiveAnyRangeOfTheirOctets) {
  const Bytes data = random_bytes(1'000'000);
  // Two objects written in turns: their chunks lie between each other's.
  auto one = store.create("one");
  auto two = store.create("two");
  for (BytesView rest = data; !rest.empty(); rest = rest.subspan(std::min<std::size_t>(rest.size(), 100'000))) {
    one.write(rest.first(std::min<std::size_t>(rest.size(), 100'000)));
    two.write(rest.first(std::min<std::size_t>(rest.size(), 100'000)));
  }
  one.finish();
  two.finish();
  store.put("three", data);
  for (const std::string name : {"one", "two", "three"}) {
    for (const auto& [offset, length] : std::vector<std::pair<std::size_t, std::size_t>>{{0, 1},
                                                                                         {0, 1'000'000},
                                                                                         {131'071, 2},
                                                                                         {131'072, 131'072},
                                                                                         {500'000, 300'000},
                                                                                         {999'999, 1},
                                                                                         {900'000, 9'999'999}}) {
      Bytes part;
      store.get_range(name, offset, length, [&](BytesView octets) {
        part.insert(part.end(), octets.begin(), octets.end());
        return true;
      });
      const auto first = data.begin() + static_cast<std::ptrdiff_t>(offset);
      EXPECT_EQ(part, Bytes(first, first + static_cast<std::ptrdiff_t>(std::min(length, data.size() - offset))))
          << name << " " << offset << "+" << length;
    }
  }
  int calls = 0;
  store.get_range("three", 0, 1'000'000, [&](BytesView) { return ++calls < 2; });
  EXPECT_EQ(calls, 2);
  store.get_range("three", 1'000'000, 5, [&](BytesView) -> bool { throw std::logic_error("nothing is there"); });
}

TEST_F(Objects, GoThroughFilesInFlatMemory) {
  TempFolder folder;
  const auto path = folder.path() / "in";
  constexpr std::size_t kSize = 200 << 20;
  {
    std::ofstream out(path, std::ios::binary);
    const Bytes block = random_bytes(1 << 20);
    for (std::size_t i = 0; i < kSize / block.size(); ++i)
      out.write(reinterpret_cast<const char*>(block.data()), 1 << 20);
  }
  const auto peak = [] {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) / 1024;
    }
    throw std::runtime_error("no VmHWM");
  };
  const auto before = peak();
  store.put_file("large", path);
  store.get_file("large", folder.path() / "out");
  EXPECT_LT(peak() - before, 48) << "MiB";
  EXPECT_EQ(std::system(("cmp " + path.string() + " " + (folder.path() / "out").string()).c_str()), 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
}

TEST_F(Objects, AreRefusedWithBadNamesFullOrMissingBuckets) {
  for (const std::string& name :
       {std::string(), std::string("\xc3\xbc"), std::string("a\nb"), std::string(1025, 'a')}) {
    error_of<PermanentError>([&] { store.put(name, {}); });
  }
  EXPECT_TRUE(has(error_of<ConfigError>([&] { ObjectStore(connection, "NOWHERE").get("a"); }),
                  "object bucket NOWHERE does not exist"));
  error_of<ConfigError>([&] { ObjectStore(connection, "NOWHERE").put("a", {}); });
  error_of<ConfigError>([&] { ObjectStore(connection, "NOWHERE").list(); });
  nats::ensure(connection, {.object_buckets = {{.schema_name = "SMALL", .name = "SMALL", .max_bytes = 500'000}}});
  ObjectStore small(connection, "SMALL");
  small.put("b", random_bytes(100'000));
  EXPECT_TRUE(has(error_of<Unavailable>([&] { small.put("a", random_bytes(450'000)); }), "is full"));
  EXPECT_TRUE(has(error_of<PermanentError>([&] { small.put("a", random_bytes(2 << 20)); }), "has max_bytes 500000"));
  auto writer = std::make_unique<ObjectWriter>(small.create("a"));
  error_of<PermanentError>([&] {
    for (int i = 0; i < 100; ++i) writer->write(random_bytes(100'000));
  });
  writer.reset();
  EXPECT_FALSE(small.info("a"));
  EXPECT_EQ(messages_in(connection, "OBJ_SMALL"), 2U) << "what did not fit left something behind";
  small.put("b", random_bytes(100'000, 2));
}

// ---------------------------------------------------------------------------------------------------- key-value

class Keys : public ::testing::Test {
 protected:
  Keys() : connection({.url = server.url()}), state(connection, "STATE") { nats::ensure(connection, kState); }

  NatsServer server;
  Connection connection;
  KeyValue state;
};

TEST_F(Keys, HoldTheLastValueThatWasPut) {
  EXPECT_FALSE(state.get("a"));
  const auto first = state.put("a", "one");
  const auto second = state.put("a", "two");
  EXPECT_GT(second, first);
  const auto entry = state.get("a");
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->key, "a");
  EXPECT_EQ(entry->value, "two");
  EXPECT_EQ(entry->revision, second);
  EXPECT_LT(now() - entry->created, 60s);
  EXPECT_GT(now() - entry->created, -5s);
  const std::string binary("\0\xff\r\n", 4);
  state.put("b", binary);
  EXPECT_EQ(state.get("b")->value, binary);
  state.put("c", "");
  EXPECT_EQ(state.get("c")->value, "");
}

TEST_F(Keys, AreCreatedOnceAndAgainAfterTheyWereRemoved) {
  EXPECT_TRUE(state.create("a", "one"));
  EXPECT_FALSE(state.create("a", "two"));
  state.remove("a");
  EXPECT_FALSE(state.get("a"));
  EXPECT_TRUE(state.create("a", "three"));
  state.purge("a");
  EXPECT_FALSE(state.get("a"));
  EXPECT_EQ(state.count(">"), 0U);
  EXPECT_TRUE(state.create("a", "four"));
  EXPECT_EQ(state.get("a")->value, "four");
}

TEST_F(Keys, ArePurgedOnlyAtTheRevisionThatWasRead) {
  const auto revision = *state.create("a", "one");
  const auto next = state.put("a", "two");
  EXPECT_FALSE(state.purge("a", revision));
  EXPECT_EQ(state.get("a")->value, "two");
  EXPECT_TRUE(state.purge("a", next));
  EXPECT_EQ(state.count(">"), 0U);
  EXPECT_FALSE(state.purge("a", next));
  EXPECT_TRUE(state.create("a", "three"));
}

TEST_F(Keys, AreUpdatedOnlyFromTheRevisionThatWasRead) {
  const auto revision = *state.create("a", "one");
  const auto next = state.update("a", "two", revision);
  ASSERT_TRUE(next);
  EXPECT_FALSE(state.update("a", "three", revision));
  EXPECT_EQ(state.get("a")->value, "two");
  EXPECT_EQ(state.get("a")->revision, *next);
}

TEST_F(Keys, CountRightWhenSixteenThreadsRaceForThem) {
  std::atomic<int> created = 0;
  std::atomic<int> updates = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] {
      if (state.create("counter", "0")) ++created;
      for (int n = 0; n < 10; ++n) {
        for (;;) {
          const auto entry = state.get("counter");
          const std::string next = std::to_string(std::stoi(entry->value) + 1);
          if (state.update("counter", next, entry->revision)) break;
        }
        ++updates;
      }
      EXPECT_TRUE(state.create("own." + std::to_string(i), "x"));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(created, 1);
  EXPECT_EQ(updates, 160);
  EXPECT_EQ(state.get("counter")->value, "160");
  EXPECT_EQ(state.count("own.*"), 16U);
}

TEST_F(Keys, AreListedByFilterInOrder) {
  for (int page = 0; page < 200; ++page) state.put("job-1.p" + std::to_string(1000 + page), std::to_string(page));
  state.put("job-2.p1", "other");
  state.remove("job-1.p1000");
  EXPECT_EQ(state.count("job-1.*"), 200U);
  const auto entries = state.entries("job-1.>");
  ASSERT_EQ(entries.size(), 199U);
  EXPECT_EQ(entries.front().key, "job-1.p1001");
  EXPECT_EQ(entries.back().key, "job-1.p1199");
  EXPECT_EQ(entries.back().value, "199");
  EXPECT_EQ(state.keys("job-2.*"), std::vector<std::string>{"job-2.p1"});
  EXPECT_TRUE(state.keys("job-3.*").empty());
  EXPECT_EQ(state.count("job-3.*"), 0U);
}

TEST_F(Keys, AreRefusedWithBadNamesAndMissingBuckets) {
  for (const std::string key : {"", ".a", "a.", "a b", "a*", "a..b", "\xc3\xbc"}) {
    error_of<PermanentError>([&] { state.put(key, "x"); });
  }
  EXPECT_EQ(KeyValue::key_token("job 1/\xc3\xbc.x_-"), "job=201=2F=C3=BC=2Ex_-");
  const std::string digest = KeyValue::key_token(std::string(201, 'a'));
  EXPECT_EQ(KeyValue::key_token(std::string(200, 'a')), std::string(200, 'a'));
  EXPECT_TRUE(digest.starts_with("=h")) << digest;
  EXPECT_EQ(digest.size(), 38U);
  EXPECT_NE(digest, KeyValue::key_token(std::string(201, 'b')));
  state.put(KeyValue::key_token("job 1/\xc3\xbc.x_-"), "x");
  KeyValue nowhere(connection, "NOWHERE");
  EXPECT_TRUE(has(error_of<ConfigError>([&] { nowhere.get("a"); }), "key-value bucket NOWHERE does not exist"));
  error_of<ConfigError>([&] { nowhere.put("a", "x"); });
  error_of<ConfigError>([&] { nowhere.count(">"); });
}

TEST(Promises, NameWhatTheStreamCannotGive) {
  const NatsServer server;
  Connection connection({.url = server.url()});
  Logger::configure("test", LogLevel::kInfo);
  const auto line_of = [&](const StreamSpec& stream) {
    Topology topology;
    topology.add_stream(stream);
    topology.add_stream({.name = "DEAD", .subjects = {"dlq.test.>"}});
    nats::ensure(connection, topology);
    ::testing::internal::CaptureStderr();
    nats::log_published(connection, topology, Logger());
    return ::testing::internal::GetCapturedStderr();
  };
  const std::string kept = line_of({.name = "KEPT", .subjects = {"kept"}});
  EXPECT_TRUE(has(kept, R"("message":"publishing","stream":"KEPT","replicas":1,"storage":"file","discard":"new")"))
      << kept;
  EXPECT_TRUE(has(kept, R"("duplicate_window":"120s")")) << kept;
  EXPECT_TRUE(has(kept, "sync_interval: always")) << kept;
  EXPECT_TRUE(has(kept, "one replica")) << kept;
  EXPECT_FALSE(has(kept, "drop")) << kept;
  EXPECT_FALSE(has(kept, "DEAD")) << "nobody publishes there but in trouble: " << kept;
  const std::string fleeting = line_of({.name = "FLEETING",
                                        .subjects = {"fleeting"},
                                        .storage = Storage::kMemory,
                                        .discard = Discard::kOld,
                                        .max_age = 90s,
                                        .max_messages = 10,
                                        .duplicate_window = 500ms});
  EXPECT_TRUE(has(fleeting, R"("duplicate_window":"0.5s")")) << fleeting;
  EXPECT_TRUE(has(fleeting, "in memory only")) << fleeting;
  EXPECT_FALSE(has(fleeting, "sync_interval")) << fleeting;
  EXPECT_TRUE(has(fleeting, "a full stream drops its oldest messages, handled or not")) << fleeting;
  EXPECT_TRUE(has(fleeting, "older than 90s are dropped")) << fleeting;
}

}  // namespace
}  // namespace pipegen
