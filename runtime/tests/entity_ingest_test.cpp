// The ingestion API for entities against a real nats-server.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <future>
#include <latch>
#include <map>
#include <semaphore>
#include <set>
#include <thread>

#include "core/sha256.hpp"
#include "http/entity_batch.hpp"
#include "http/idempotency.hpp"
#include "http/ingest_server.hpp"
#include "nats/handles.hpp"
#include "pipegen/error.hpp"
#include "pipegen/ingest.hpp"
#include "pipegen/json.hpp"
#include "support/eventually.hpp"
#include "support/held_clock.hpp"
#include "support/nats_server.hpp"

namespace {

using namespace std::chrono_literals;
using namespace pipegen;
using pipegen::testing::eventually;

constexpr const char* kJson = "application/json";
constexpr const char* kLines = "application/x-ndjson";

int read_order(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"orderKey"}, {"price"}, {"comment", json::kOptional}};
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        in.int64({.min = 1});
        break;
      case 1:
        in.decimal({.precision = 12, .scale = 2});
        break;
      case 2:
        in.string({.max_length = 1'000'000});
        break;
    }
  }
  return 0;
}

int read_customer(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"customerKey"}, {"name"}};
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      in.int64();
    } else {
      in.string();
    }
  }
  return 0;
}

IngestApi shop_api(int more_fit = 0) {
  IngestApi api;
  api.pipeline = "shop";
  api.section = "ingest_api";
  api.port = 0;
  api.entity_stream = "SHOP_INGEST";
  api.topology.add_stream(
      {.name = "SHOP_INGEST", .subjects = {"shop.ingest.*"}, .retention = Retention::kWorkQueue, .max_bytes = 1 << 30});
  api.topology.add_key_value({.schema_name = "KEYS", .name = "KEYS_1", .max_age = 24h});
  api.idempotency_bucket = "KEYS";
  api.openapi = "{}";
  api.add_entity({.name = "Order", .path = "order", .subject = "shop.ingest.order", .check = [](std::string_view body) {
                    json::parse(body, read_order);
                  }});
  api.add_entity(
      {.name = "Customer", .path = "customer", .subject = "shop.ingest.customer", .check = [](std::string_view body) {
         json::parse(body, read_customer);
       }});
  if (more_fit > 0) {
    api.add_entity({.name = "Person", .path = "person", .subject = "shop.ingest.person", .check = [](auto body) {
                      json::parse(body, read_customer);
                    }});
  }
  return api;
}

std::string order(int key) { return R"({"orderKey":)" + std::to_string(key) + R"(,"price":"12.50"})"; }

nats::ConnectionOptions options_for(const std::string& url) {
  nats::ConnectionOptions options;
  options.url = url;
  return options;
}

struct Answer {
  std::int64_t accepted = -1;
  std::int64_t rejected = -1;
  std::vector<std::int64_t> lines{};
};

/// A member that is a number.
std::int64_t number_of(const std::string& body, const std::string& name) {
  const std::size_t at = body.find("\"" + name + "\":");
  return at == std::string::npos ? -1 : std::stoll(body.substr(at + name.size() + 3));
}

Answer read_answer(const std::string& body) {
  Answer out{.accepted = number_of(body, "accepted"), .rejected = number_of(body, "rejected")};
  const std::string name = "\"line\":";
  for (std::size_t at = body.find(name); at != std::string::npos; at = body.find(name, at + 1)) {
    out.lines.push_back(std::stoll(body.substr(at + name.size())));
  }
  return out;
}

std::string member(const std::string& body, const std::string& name) {
  const std::string start = "\"" + name + "\":\"";
  const std::size_t at = body.find(start);
  if (at == std::string::npos) return "";
  return body.substr(at + start.size(), body.find('"', at + start.size()) - at - start.size());
}

class EntityIngestTest : public ::testing::Test {
 protected:
  explicit EntityIngestTest(IngestApi given = shop_api()) : api(std::move(given)), connection(options_for(nats.url())) {
    nats::ensure(connection, api.topology);
    restart({});
  }

  void restart(std::map<std::string, std::string> environment) {
    server.reset();
    server = std::make_unique<http::IngestServer>(api, Settings::from("", "test", std::move(environment)), metrics);
    server->start();
    server->attach(connection);
  }

  httplib::Client client() const {
    httplib::Client out("127.0.0.1", server->port());
    out.set_read_timeout(60s);
    out.set_tcp_nodelay(true);
    return out;
  }
  int messages(const char* stream = "SHOP_INGEST") {
    nats::StreamInfo info;
    EXPECT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, stream, nullptr, nullptr), NATS_OK);
    return info ? static_cast<int>(info->State.Msgs) : -1;
  }
  struct Stored {
    std::string subject, body;
    std::map<std::string, std::string> headers;
  };
  Stored message(std::uint64_t sequence) {
    nats::Message found;
    Stored out;
    EXPECT_EQ(js_GetMsg(found.out(), connection.handles().consume_js, "SHOP_INGEST", sequence, nullptr, nullptr),
              NATS_OK);
    if (!found) return out;
    out.subject = natsMsg_GetSubject(found.get());
    out.body = nats::payload_of(found.get());
    for (const char* name :
         {"Nats-Msg-Id", "Pipegen-Received-At", "Pipegen-Source", "traceparent", "Pipegen-Version"}) {
      const char* value = nullptr;
      if (natsMsgHeader_Get(found.get(), name, &value) == NATS_OK) out.headers[name] = value;
    }
    return out;
  }
  void limit_stream(std::int64_t messages) {
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    const char* subjects[] = {"shop.ingest.*"};
    config.Name = "SHOP_INGEST";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Retention = js_WorkQueuePolicy;
    config.Discard = js_DiscardNew;
    config.MaxMsgs = messages;
    ASSERT_EQ(js_UpdateStream(nullptr, connection.handles().consume_js, &config, nullptr, nullptr), NATS_OK);
  }

  pipegen::testing::NatsServer nats;
  IngestApi api;
  Metrics metrics;
  nats::Connection connection;
  std::unique_ptr<http::IngestServer> server;
};

// --- one message -----------------------------------------------------------------------------------------------------

TEST_F(EntityIngestTest, AMessageIsInTheStreamAsItCameWithItsEnvelope) {
  auto http = client();
  const std::string body = " {\"price\" : 1.50, \"orderKey\":7}\n";
  const auto before = now();
  const auto answer =
      http.Post("/ingest/order", {{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}, body,
                "application/json; charset=utf-8");
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->status, 202) << answer->body;
  const std::string id = member(answer->body, "message_id");
  ASSERT_TRUE(Uuid::parse(id)) << answer->body;
  EXPECT_EQ(id[14], '7');
  EXPECT_EQ(member(answer->body, "status"), "accepted");
  EXPECT_TRUE(parse_timestamp(member(answer->body, "timestamp")));
  EXPECT_EQ(answer->get_header_value("Location"), "/ingest/status/" + id);
  ASSERT_EQ(messages(), 1);
  const Stored stored = message(1);
  EXPECT_EQ(stored.subject, "shop.ingest.order");
  EXPECT_EQ(stored.body, body);
  EXPECT_EQ(stored.headers.at("Nats-Msg-Id"), id);
  EXPECT_EQ(stored.headers.at("Pipegen-Source"), "http");
  EXPECT_TRUE(stored.headers.at("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
  const auto received = parse_timestamp(stored.headers.at("Pipegen-Received-At"));
  ASSERT_TRUE(received);
  EXPECT_GE(*received, before);
  EXPECT_LE(*received, now());
}

TEST_F(EntityIngestTest, TheEntityIsNamedByParameterOrHeaderInAnyCaseOrIsTheOnlyOneThatFits) {
  auto http = client();
  const std::string customer = R"({"customerKey":1,"name":"x"})";
  EXPECT_EQ(http.Post("/ingest/message?entity=ORDER", order(1), kJson)->status, 202);
  EXPECT_EQ(http.Post("/ingest/message", {{"X-Entity-Type", "cusTomer"}}, customer, kJson)->status, 202);
  EXPECT_EQ(http.Post("/ingest/message", customer, kJson)->status, 202);
  EXPECT_EQ(http.Post("/ingest/CUSTOMER", customer, kJson)->status, 202);
  ASSERT_EQ(messages(), 4);
  EXPECT_EQ(message(1).subject, "shop.ingest.order");
  EXPECT_EQ(message(2).subject, "shop.ingest.customer");
  EXPECT_EQ(message(3).subject, "shop.ingest.customer");
  EXPECT_EQ(message(4).subject, "shop.ingest.customer");

  const auto none = http.Post("/ingest/message", R"({"orderKey":0,"price":1})", kJson);
  EXPECT_EQ(none->status, 422);
  EXPECT_NE(none->body.find(R"({"entity":"Order","errors":[{"pointer":"/orderKey")"), std::string::npos) << none->body;
  EXPECT_NE(none->body.find(R"({"entity":"Customer","errors":[)"), std::string::npos) << none->body;
  const auto unknown = http.Post("/ingest/message?entity=Invoice", order(1), kJson);
  EXPECT_EQ(unknown->status, 422);
  EXPECT_NE(unknown->body.find("Order, Customer"), std::string::npos) << unknown->body;
  EXPECT_EQ(http.Post("/ingest/invoice", order(1), kJson)->status, 404);
  EXPECT_EQ(messages(), 4);
}

class TwoThatFitTest : public EntityIngestTest {
 protected:
  TwoThatFitTest() : EntityIngestTest(shop_api(1)) {}
};

TEST_F(TwoThatFitTest, ABodyThatFitsSeveralEntitiesIsRefusedWithTheirNames) {
  auto http = client();
  const auto answer = http.Post("/ingest/message", R"({"customerKey":1,"name":"x"})", kJson);
  EXPECT_EQ(answer->status, 422);
  EXPECT_NE(answer->body.find("Customer, Person"), std::string::npos) << answer->body;
  EXPECT_EQ(http.Post("/ingest/message", order(1), kJson)->status, 202);
  EXPECT_EQ(messages(), 1);
}

TEST_F(EntityIngestTest, WhatIsWrongIsRefusedWithTheRightStatusAndEveryViolation) {
  auto http = client();
  for (const std::string path : {"/ingest/order", "/ingest/message", "/ingest/message?entity=order"}) {
    const auto expect = [&](const httplib::Result& answer, int status) {
      ASSERT_TRUE(answer);
      EXPECT_EQ(answer->status, status) << path << answer->body;
      EXPECT_EQ(answer->get_header_value("Content-Type"), "application/problem+json");
      EXPECT_EQ(number_of(answer->body, "status"), status);
    };
    expect(http.Post(path, R"({"orderKey":1,)", kJson), 400);
    expect(http.Post(path, "", kJson), 400);
    expect(http.Post(path, "{\"orderKey\":1,\"price\":1,\"comment\":\"\xff\"}", kJson), 400);
    expect(http.Post(path, order(1), "text/plain"), 415);
    expect(http.Post(path, {{"Content-Encoding", "gzip"}}, order(1), kJson), 415);
    expect(http.Post(path, std::string(2 << 20, ' ') + order(1), kJson), 413);
    expect(http.Post(path, R"({"orderKey":-1,"price":"x"})", kJson), 422);
  }
  const auto invalid = http.Post("/ingest/order", R"({"orderKey":-1,"price":"x"})", kJson);
  EXPECT_NE(invalid->body.find(R"("pointer":"/orderKey")"), std::string::npos) << invalid->body;
  EXPECT_NE(invalid->body.find(R"("pointer":"/price")"), std::string::npos) << invalid->body;
  EXPECT_EQ(http.Get("/ingest/order")->status, 405);
  EXPECT_EQ(messages(), 0);
}

TEST_F(EntityIngestTest, AFullStreamIs503WithRetryAfterAndSoIsAServerThatIsAway) {
  limit_stream(2);
  auto http = client();
  EXPECT_EQ(http.Post("/ingest/order", order(1), kJson)->status, 202);
  EXPECT_EQ(http.Post("/ingest/order", order(2), kJson)->status, 202);
  const auto full = http.Post("/ingest/order", order(3), kJson);
  EXPECT_EQ(full->status, 503);
  EXPECT_FALSE(full->get_header_value("Retry-After").empty());
  EXPECT_NE(full->body.find("no room"), std::string::npos) << full->body;
  EXPECT_EQ(member(http.Get("/ingest/status/" + message(1).headers.at("Nats-Msg-Id"))->body, "status"), "accepted");
  nats.kill();
  EXPECT_TRUE(eventually([&] { return !connection.connected(); }));
  const auto away = http.Post("/ingest/order", order(3), kJson);
  EXPECT_EQ(away->status, 503);
  EXPECT_FALSE(away->get_header_value("Retry-After").empty());
}

// --- Idempotency-Key -------------------------------------------------------------------------------------------------

TEST_F(EntityIngestTest, TheSameKeyAndBodyFromAHundredClientsGiveOneMessageAndOneId) {
  constexpr int kClients = 100;
  std::latch start(kClients);
  std::mutex mutex;
  std::set<std::string> ids;
  std::map<int, int> statuses;
  std::vector<std::jthread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&] {
      auto http = client();
      start.arrive_and_wait();
      const auto answer = http.Post("/ingest/order", {{"Idempotency-Key", "\"k-1\""}}, order(1), kJson);
      const std::lock_guard lock(mutex);
      ++statuses[answer ? answer->status : -1];
      if (answer) ids.insert(member(answer->body, "message_id"));
    });
  }
  clients.clear();
  EXPECT_EQ(statuses, (std::map<int, int>{{202, kClients}}));
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_EQ(messages(), 1);
  EXPECT_EQ(message(1).headers.at("Nats-Msg-Id"), *ids.begin());
  const auto other = client().Post("/ingest/order", {{"Idempotency-Key", "\"k-1\""}}, order(2), kJson);
  EXPECT_EQ(other->status, 422);
  EXPECT_EQ(messages(), 1);
}

TEST_F(EntityIngestTest, WithoutAKeyTheBucketIsNotTouched) {
  auto http = client();
  EXPECT_EQ(http.Post("/ingest/order", order(1), kJson)->status, 202);
  EXPECT_EQ(http.Post("/ingest/order", order(1), kJson)->status, 202);
  EXPECT_EQ(messages("KV_KEYS_1"), 0);
  EXPECT_EQ(messages(), 2);
}

// --- POST /ingest/batch ----------------------------------------------------------------------------------------------

TEST_F(EntityIngestTest, EveryGoodLineOfABatchIsAcceptedAndEveryBadOneListed) {
  auto http = client();
  std::string body = order(1) + "\n" + order(2) + "\r\n\n   \n" + R"({"orderKey":0,"price":"x"})" + "\n" + "{broken\n" +
                     order(3) + "\n" + "{\"orderKey\":1,\"price\":1,\"comment\":\"" + std::string(1 << 21, 'x') +
                     "\"}\n" + order(4);
  const auto answer = http.Post("/ingest/batch?entity=order", body, kLines);
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->status, 202) << answer->body;
  const Answer read = read_answer(answer->body);
  EXPECT_EQ(read.accepted, 4);
  EXPECT_EQ(read.rejected, 3);
  EXPECT_EQ(read.lines, (std::vector<std::int64_t>{5, 6, 8})) << answer->body;
  EXPECT_NE(answer->body.find(R"("pointer":"/orderKey")"), std::string::npos);
  EXPECT_NE(answer->body.find(R"("pointer":"/price")"), std::string::npos);
  ASSERT_EQ(messages(), 4);
  std::set<std::string> ids;
  for (int i = 1; i <= 4; ++i) {
    const Stored stored = message(static_cast<std::uint64_t>(i));
    EXPECT_EQ(stored.body, order(i));
    EXPECT_EQ(stored.headers.at("Pipegen-Source"), "http");
    EXPECT_FALSE(stored.headers.at("traceparent").empty());
    ids.insert(stored.headers.at("Nats-Msg-Id"));
  }
  EXPECT_EQ(ids.size(), 4u);
}

TEST_F(EntityIngestTest, ABatchTakesArraysAndLinesOfAnyEntityAndWhatCurlSends) {
  auto http = client();
  const std::string customer = R"({"customerKey":1,"name":"a,]}[\"\\"})";
  const auto array = http.Post("/ingest/batch", " [ " + order(1) + " ,\n" + customer + ",17,]", kJson);
  ASSERT_EQ(array->status, 202) << array->body;
  Answer read = read_answer(array->body);
  EXPECT_EQ(read.accepted, 2);
  EXPECT_EQ(read.lines, (std::vector<std::int64_t>{3, 4})) << array->body;
  EXPECT_EQ(message(2).body, customer);
  EXPECT_EQ(message(2).subject, "shop.ingest.customer");
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", ""}) {
    EXPECT_EQ(read_answer(http.Post("/ingest/batch", "\n" + order(1) + "\n" + customer, type)->body).accepted, 2)
        << type;
  }
  EXPECT_EQ(http.Post("/ingest/batch", order(1), "application/xml")->status, 415);
  EXPECT_EQ(messages(), 8);
}

TEST_F(EntityIngestTest, ABatchOfWhichNothingIsAcceptedIs422) {
  auto http = client();
  for (const std::string body : {"", "\n\n", "[]", "[", "{}\n{}", "[{}]"}) {
    const auto answer = http.Post("/ingest/batch", body, kJson);
    EXPECT_EQ(answer->status, 422) << body;
    EXPECT_EQ(read_answer(answer->body).accepted, 0) << body;
  }
  const auto many = http.Post(
      "/ingest/batch?entity=order",
      std::string(3'000, '7') + "\n" +
          [] {
            std::string lines;
            for (int i = 0; i < 2'500; ++i) lines += "7\n";
            return lines;
          }(),
      kLines);
  EXPECT_EQ(many->status, 422);
  EXPECT_EQ(read_answer(many->body).rejected, 2'501);
  EXPECT_EQ(read_answer(many->body).lines.size(), 1'000u);
  EXPECT_EQ(number_of(many->body, "more_errors"), 1'501);
  EXPECT_EQ(messages(), 0);
}

TEST(BatchReaderTest, FindsTheSameMessagesHoweverTheBodyIsCut) {
  const std::string lines = "\n  {\"a\":1}\r\n\n[2]\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n3";
  const std::string array = R"( [ {"a":"],\\\"[{"} , [1,[2,{"b":[]}]],"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 3 ,, 4 ] x )";
  using Form = http::BatchReader::Form;
  for (const auto& [text, form] : {std::pair(lines, Form::kLines), std::pair(array, Form::kEither)}) {
    std::set<std::string> seen;
    for (std::size_t size = 1; size <= text.size(); ++size) {
      std::string found;
      const auto note = [&found](std::int64_t number, std::string_view what) {
        found += std::to_string(number) + "=" + std::string(what) + ";";
      };
      http::BatchReader reader(form, 25, note, note);
      for (std::size_t at = 0; at < text.size(); at += size) reader.feed(std::string_view(text).substr(at, size));
      reader.finish();
      seen.insert(found);
    }
    ASSERT_EQ(seen.size(), 1u) << *seen.begin() << "\n" << *seen.rbegin();
    EXPECT_EQ(*seen.begin(),
              form == Form::kLines
                  ? "2={\"a\":1};4=[2];5=it is larger than the 25 octets that are allowed;6=3;"
                  : "1={\"a\":\"],\\\\\\\"[{\"};2=[1,[2,{\"b\":[]}]];3=it is larger than the 25 octets that are "
                    "allowed;4=3;5=there is nothing between two commas;6=4;7=there is something behind the end of the "
                    "array;");
  }
}

TEST_F(EntityIngestTest, ARepeatedBatchWithAKeyMakesNoDuplicates) {
  auto http = client();
  std::string body;
  for (int i = 1; i <= 500; ++i) body += order(i) + "\n";
  const httplib::Headers key = {{"Idempotency-Key", "batch-1"}};
  const auto first = http.Post("/ingest/batch", key, body, kLines);
  EXPECT_EQ(first->status, 202);
  const auto again = http.Post("/ingest/batch", key, body, kLines);
  EXPECT_EQ(again->status, 202);
  EXPECT_EQ(again->body, first->body);
  EXPECT_EQ(messages(), 500);
  EXPECT_EQ(http.Post("/ingest/batch", key, body + order(501), kLines)->status, 422);
  EXPECT_EQ(messages(), 500);
}

TEST_F(EntityIngestTest, TheAnswerToABatchIsKeptForItsKeyHoweverMuchIsWrongWithIt) {
  auto http = client();
  std::string body = order(1) + "\n";
  for (int i = 0; i < 100; ++i) {
    const std::string name(40'000, static_cast<char>('a' + i % 26));
    body += R"({"orderKey":0,")" + name + R"(":1,")" + name + R"(":1,"price":1})" + "\n";
  }
  const httplib::Headers key = {{"Idempotency-Key", "wrong"}};
  const auto first = http.Post("/ingest/batch?entity=order", key, body, kLines);
  ASSERT_EQ(first->status, 202) << first->body;
  EXPECT_EQ(read_answer(first->body).rejected, 100);
  EXPECT_LT(first->body.size(), 500'000u);
  EXPECT_EQ(http.Post("/ingest/batch?entity=order", key, body, kLines)->body, first->body);
  EXPECT_EQ(messages(), 1);
}

TEST_F(EntityIngestTest, ABatchThatFillsTheStreamSaysHowFarItGotAndGoesOnWithItsKey) {
  limit_stream(300);
  auto http = client();
  std::string body;
  for (int i = 1; i <= 1'000; ++i) body += order(i) + "\n";
  const httplib::Headers key = {{"Idempotency-Key", "batch-2"}};
  const auto full = http.Post("/ingest/batch?entity=order", key, body, kLines);
  ASSERT_TRUE(full);
  EXPECT_EQ(full->status, 503);
  EXPECT_FALSE(full->get_header_value("Retry-After").empty());
  EXPECT_EQ(read_answer(full->body).accepted, 300) << full->body;
  EXPECT_EQ(number_of(full->body, "accepted_through"), 300) << full->body;
  limit_stream(100'000);
  const auto rest = http.Post("/ingest/batch?entity=order", key, body, kLines);
  ASSERT_EQ(rest->status, 202) << rest->body;
  EXPECT_EQ(read_answer(rest->body).accepted, 1'000);
  EXPECT_EQ(messages(), 1'000);
}

TEST_F(EntityIngestTest, TheRestOfABatchThatBrokeIsTakenUnderItsKey) {
  limit_stream(300);
  auto http = client();
  const auto lines = [](int first, int last) {
    std::string body;
    for (int i = first; i <= last; ++i) body += order(i) + "\n";
    return body;
  };
  const httplib::Headers key = {{"Idempotency-Key", "batch-3"}};
  const auto full = http.Post("/ingest/batch?entity=order", key, lines(1, 500), kLines);
  ASSERT_EQ(full->status, 503) << full->body;
  ASSERT_EQ(number_of(full->body, "accepted_through"), 300) << full->body;
  limit_stream(100'000);
  const auto rest = http.Post("/ingest/batch?entity=order", key, lines(301, 500), kLines);
  ASSERT_EQ(rest->status, 202) << rest->body;
  EXPECT_EQ(read_answer(rest->body).accepted, 200);
  nats::StreamInfo info;
  ASSERT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, "SHOP_INGEST", nullptr, nullptr), NATS_OK);
  EXPECT_EQ(info->State.Msgs, 500u);
  std::multiset<std::string> stored;
  for (std::uint64_t at = info->State.FirstSeq; at <= info->State.LastSeq; ++at) {
    nats::Message found;  // what a full stream refuses may leave a gap
    if (js_GetMsg(found.out(), connection.handles().consume_js, "SHOP_INGEST", at, nullptr, nullptr) != NATS_OK)
      continue;
    stored.emplace(nats::payload_of(found.get()));
  }
  for (int i = 1; i <= 500; ++i) EXPECT_EQ(stored.count(order(i)), 1u) << i;
}

TEST_F(EntityIngestTest, ABatchIsTakenOverAMinuteAfterItsLastSignOfLifeAndNoSooner) {
  pipegen::testing::HeldClock clock;
  http::IngestServer held(api, Settings::from("", "test", {}), metrics, clock);
  held.start();
  held.attach(connection);
  httplib::Client http("127.0.0.1", held.port());
  const auto keeps = [&] {
    nats::StreamInfo info;
    EXPECT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, "KV_KEYS_1", nullptr, nullptr), NATS_OK);
    return info ? info->State.LastSeq : 0;
  };
  const auto post = [&](const std::string& key) {
    return http.Post("/ingest/batch?entity=order", {{"Idempotency-Key", key}}, order(1) + "\n" + order(2) + "\n",
                     kLines);
  };
  // A client that takes its time.
  std::counting_semaphore<> go(0);
  auto slow = std::async(std::launch::async, [&] {
    httplib::Client own("127.0.0.1", held.port());
    own.set_read_timeout(60s);
    int sent = 0;
    return own.Post(
        "/ingest/batch?entity=order", {{"Idempotency-Key", "slow"}},
        [&](std::size_t, httplib::DataSink& sink) {
          if (sent++ > 0) go.acquire();
          if (sent > 2) return sink.done(), true;
          const std::string line = order(sent) + "\n";
          return sink.write(line.data(), line.size());
        },
        kLines);
  });
  ASSERT_TRUE(eventually([&] { return messages() == 1; }));
  clock.advance(50s);
  EXPECT_EQ(post("slow")->status, 409);
  const auto before = keeps();
  go.release();
  ASSERT_TRUE(eventually([&] { return keeps() > before; }));
  clock.advance(50s);
  EXPECT_EQ(post("slow")->status, 409);
  go.release();
  const auto answer = slow.get();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 202) << answer->body;
  EXPECT_EQ(post("slow")->body, answer->body);
  EXPECT_EQ(messages(), 2);
  // One whose process died says nothing any more.
  http::Idempotency died(connection, "KEYS_1", 10min, clock);
  died.begin("/ingest/batch", "died");
  clock.advance(50s);
  EXPECT_EQ(post("died")->status, 409);
  clock.advance(11s);
  EXPECT_EQ(post("died")->status, 202);
  EXPECT_EQ(messages(), 4);
}

TEST_F(EntityIngestTest, WhatANatsServerThatDiesMidwayHadAcceptedIsSaid) {
  std::promise<void> half;
  std::promise<void> dead;
  auto sender = std::async(std::launch::async, [&] {
    auto http = client();
    int i = 0;
    return http.Post(
        "/ingest/batch?entity=order",
        [&](std::size_t, httplib::DataSink& sink) {
          std::string part;
          for (int n = 0; n < 100; ++n) part += order(++i) + "\n";
          sink.write(part.data(), part.size());
          if (i == 2'000) {
            half.set_value();
            dead.get_future().wait();
          }
          if (i == 3'000) sink.done();
          return true;
        },
        kLines);
  });
  half.get_future().wait();
  ASSERT_TRUE(eventually([&] { return messages() == 2'000; }));
  nats.kill();
  dead.set_value();
  const auto answer = sender.get();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503) << answer->body;
  EXPECT_FALSE(answer->get_header_value("Retry-After").empty());
  EXPECT_EQ(read_answer(answer->body).accepted, 2'000) << answer->body;
  EXPECT_EQ(number_of(answer->body, "accepted_through"), 2'000) << answer->body;
  nats.start();
  ASSERT_TRUE(eventually([&] { return connection.connected(); }));
  EXPECT_GE(messages(), 2'000);
}

std::size_t resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stoul(line.substr(6));
  }
  return 0;
}

TEST_F(EntityIngestTest, TheMemoryOfABatchIsFlatWhateverItsSize) {
  constexpr int kMessages = 200'000;
  auto http = client();
  EXPECT_EQ(http.Post("/ingest/batch", order(1), kLines)->status, 202);
  const std::size_t before = resident_kib();
  std::atomic<std::size_t> most = 0;
  int i = 0;
  const auto answer = http.Post(
      "/ingest/batch?entity=order",
      [&](std::size_t, httplib::DataSink& sink) {
        std::string part;
        for (int n = 0; n < 1'000; ++n) {
          part += R"({"orderKey":)" + std::to_string(++i) + R"(,"price":"12.50","comment":")" + std::string(250, 'x') +
                  "\"}\n";
        }
        sink.write(part.data(), part.size());
        most = std::max(most.load(), resident_kib());
        if (i == kMessages) sink.done();
        return true;
      },
      kLines);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 202);
  EXPECT_EQ(read_answer(answer->body).accepted, kMessages);
  EXPECT_EQ(messages(), kMessages + 1);
  EXPECT_LT(most - std::min(before, most.load()), 44u * 1024) << "KiB more than before; the body has 59,000";
}

// --- GET /ingest/status ----------------------------------------------------------------------------------------------

class StatusTest : public EntityIngestTest {
 protected:
  StatusTest() : EntityIngestTest(with_rows()) {}

  IngestApi with_rows() {
    IngestApi out = shop_api();
    out.open_status = [this](const Settings&) -> FindMessage {
      return [this](std::string_view id) -> std::optional<MessageRecord> {
        if (database_away) throw Unavailable("the database is away: password=1234");
        const auto found = rows.find(std::string(id));
        return found == rows.end() ? std::nullopt : std::optional(found->second);
      };
    };
    return out;
  }
  std::string status(const std::string& id, int expected = 200) {
    const auto answer = client().Get("/ingest/status/" + id);
    EXPECT_EQ(answer->status, expected) << answer->body;
    return member(answer->body, "status");
  }
  std::string send() { return member(client().Post("/ingest/order", order(1), kJson)->body, "message_id"); }

  std::map<std::string, MessageRecord> rows;
  std::atomic<bool> database_away = false;
};

TEST_F(StatusTest, FollowsAMessageFromTheStreamToItsRow) {
  const std::string id = send();
  const std::string second = send();
  EXPECT_EQ(status(id), "accepted");
  const int stored = messages();

  nats::Subscription worker;
  jsSubOptions options;
  jsSubOptions_Init(&options);
  options.Config.FilterSubject = "shop.ingest.order";
  ASSERT_EQ(js_PullSubscribe(worker.out(), connection.handles().consume_js, "shop.ingest.order", "order-writers",
                             nullptr, &options, nullptr),
            NATS_OK);
  natsMsgList list{};
  ASSERT_EQ(natsSubscription_Fetch(&list, worker.get(), 1, 5'000, nullptr), NATS_OK);
  EXPECT_EQ(status(id), "processing");
  EXPECT_EQ(status(second), "accepted");
  EXPECT_EQ(messages(), stored);  // to ask stores nothing
  ASSERT_EQ(natsMsg_AckSync(list.Msgs[0], nullptr, nullptr), NATS_OK);
  natsMsgList_Destroy(&list);
  EXPECT_EQ(status(id), "consumed");

  rows[id] = {.state = "failed",
              .entity_type = "Order",
              .attempts = 2,
              .error = "no such customer",
              .received_at = now(),
              .updated_at = now()};
  const auto answer = client().Get("/ingest/status/" + id);
  EXPECT_EQ(member(answer->body, "status"), "failed");
  EXPECT_EQ(member(answer->body, "entity_type"), "Order");
  EXPECT_EQ(number_of(answer->body, "attempts"), 2);
  EXPECT_EQ(member(answer->body, "error"), "no such customer");
  EXPECT_EQ(member(answer->body, "message_id"), id);
}

TEST_F(StatusTest, AnIdThatNobodyKnowsIs404AndLeavesNoTrace) {
  for (const std::string& id : {Uuid::random().to_string(), std::string("not-a-uuid"), std::string(300, 'x'),
                                std::string("a%0d%0aNats-Msg-Id:x"), std::string("%00")}) {
    status(id, 404);
  }
  EXPECT_EQ(messages(), 0);
}

TEST_F(StatusTest, WithTheDatabaseAwayTheStreamStillAnswersAndTheRestIs503) {
  const std::string id = send();
  database_away = true;
  EXPECT_EQ(status(id), "accepted");
  const auto answer = client().Get("/ingest/status/" + Uuid::random().to_string());
  EXPECT_EQ(answer->status, 503);
  EXPECT_FALSE(answer->get_header_value("Retry-After").empty());
  EXPECT_EQ(answer->body.find("1234"), std::string::npos);
}

TEST_F(StatusTest, AMessageIsFoundByItsTimeWhenTheStreamHasForgottenItsId) {
  // The server remembers ids for the duplicate window only.
  jsStreamConfig config;
  jsStreamConfig_Init(&config);
  const char* subjects[] = {"shop.ingest.*"};
  config.Name = "SHOP_INGEST";
  config.Subjects = subjects;
  config.SubjectsLen = 1;
  config.Retention = js_WorkQueuePolicy;
  config.Discard = js_DiscardNew;
  config.Duplicates = 100'000'000;  // 100 ms
  ASSERT_EQ(js_UpdateStream(nullptr, connection.handles().consume_js, &config, nullptr, nullptr), NATS_OK);
  std::vector<std::string> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(send());
  const auto forgotten = [&] {
    const auto ack = connection.publish("shop.ingest.order", order(1), ids.back());
    return !ack.duplicate;
  };
  ASSERT_TRUE(eventually(forgotten));
  for (const auto& id : ids) EXPECT_EQ(status(id), "accepted") << id;
  status(Uuid::random().to_string(), 404);
}

// --- what must hold whatever happens -------------------------------------------------------------------------------

TEST_F(EntityIngestTest, EveryMessageThatWasAnswered202IsInTheStreamAlthoughNatsIsKilledUnderLoad) {
  std::atomic<bool> stop = false;
  std::mutex mutex;
  std::set<std::string> accepted;
  std::map<int, int> statuses;
  std::vector<std::jthread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      auto http = client();
      http.set_keep_alive(true);
      for (int n = 0; !stop; ++n) {
        const auto answer = http.Post("/ingest/order", order(i * 1'000'000 + n + 1), kJson);
        const std::lock_guard lock(mutex);
        ++statuses[answer ? answer->status : -1];
        if (answer && answer->status == 202) accepted.insert(member(answer->body, "message_id"));
      }
    });
  }
  const auto count = [&] {
    const std::lock_guard lock(mutex);
    return accepted.size();
  };
  for (int kills = 0; kills < 3; ++kills) {
    const std::size_t before = count();
    ASSERT_TRUE(eventually([&] { return count() > before + 500; }, 8s)) << "requests hang after a kill";
    nats.kill();
    nats.start();
  }
  const std::size_t before = count();
  EXPECT_TRUE(eventually([&] { return count() > before + 500; }, 8s));
  stop = true;
  clients.clear();
  for (const auto& [status, times] : statuses) EXPECT_TRUE(status == 202 || status == 503) << status << " " << times;
  nats::StreamInfo info;
  ASSERT_EQ(js_GetStreamInfo(info.out(), connection.handles().consume_js, "SHOP_INGEST", nullptr, nullptr), NATS_OK);
  std::multiset<std::string> stored;
  for (std::uint64_t at = info->State.FirstSeq; at <= info->State.LastSeq; ++at) {
    stored.insert(message(at).headers["Nats-Msg-Id"]);
  }
  for (const auto& id : accepted) EXPECT_EQ(stored.count(id), 1u) << id;
}

TEST_F(EntityIngestTest, OfManyLinesExactlyTheMalformedOnesAreRefused) {
  constexpr int kCount = 20'000;
  const std::string bad[] = {R"({"orderKey":1,"price":"1.5)",
                             "{\"orderKey\":1,\"price\":1,\"comment\":\"\xc3\x28\"}",
                             std::string("{\"orderKey\":1,\"price\":1,\"comment\":\"\0\"}", 39),
                             std::string(10'000, '['),
                             R"({"orderKey":9223372036854775808,"price":1})",
                             R"({"orderKey":1,"price":1e400})",
                             R"({"orderKey":"1","price":1})",
                             R"({"orderKey":1,"orderKey":1,"price":1})",
                             R"({"orderKey":1})",
                             R"({"orderKey":1,"price":1}{"orderKey":1,"price":1})"};
  std::string body;
  int wrong = 0;
  for (int i = 1; i <= kCount; ++i)
    body += (i % 10 == 0 ? bad[static_cast<std::size_t>(wrong++) % 10] : order(i)) + "\n";
  auto http = client();
  const auto answer = http.Post("/ingest/batch?entity=order", body, kLines);
  ASSERT_TRUE(answer);
  ASSERT_EQ(answer->status, 202);
  const Answer read = read_answer(answer->body);
  EXPECT_EQ(read.accepted, kCount - wrong);
  EXPECT_EQ(read.rejected, wrong);
  for (std::size_t i = 0; i < read.lines.size(); ++i) EXPECT_EQ(read.lines[i], static_cast<int>(i + 1) * 10);
  EXPECT_EQ(messages(), kCount - wrong);
  for (const std::string& one : bad) {
    const int status = http.Post("/ingest/order", one, kJson)->status;
    EXPECT_TRUE(status == 400 || status == 422) << one.substr(0, 60) << status;
  }
  EXPECT_EQ(messages(), kCount - wrong);
}

// --- who may send, and how much --------------------------------------------------------------------------------------

TEST_F(EntityIngestTest, WithTokensEveryRouteButTheOpenOnesNeedsOne) {
  restart({{"INGEST_API_TOKENS", "first-token-of-the-two,second-token-of-the-two"}});
  auto http = client();
  for (const char* path : {"/health", "/ready", "/metrics", "/", "/openapi.json"}) {
    EXPECT_EQ(http.Get(path)->status, 200) << path;
  }
  const httplib::Headers wrong[] = {{},
                                    {{"Authorization", "Bearer first-token-of-the-tw"}},
                                    {{"Authorization", "Bearer first-token-of-the-twoo"}},
                                    {{"Authorization", "Bearer first-token-of-the-two,second-token-of-the-two"}},
                                    {{"Authorization", "Bearer "}},
                                    {{"Authorization", "Basic first-token-of-the-two"}}};
  for (const auto& headers : wrong) {
    for (const auto& answer :
         {http.Post("/ingest/order", headers, order(1), kJson), http.Post("/ingest/ORDER", headers, order(1), kJson),
          http.Post("/ingest/customer", headers, order(1), kJson),
          http.Post("/ingest/message", headers, order(1), kJson), http.Post("/ingest/batch", headers, order(1), kJson),
          http.Get("/ingest/status/" + Uuid::random().to_string(), headers)}) {
      ASSERT_TRUE(answer);
      EXPECT_EQ(answer->status, 401);
      EXPECT_TRUE(answer->get_header_value("WWW-Authenticate").starts_with("Bearer"));
      EXPECT_EQ(answer->body.find("-token-of-"), std::string::npos);
    }
  }
  EXPECT_EQ(messages(), 0);
  EXPECT_EQ(http.Post("/ingest/order", {{"Authorization", "Bearer first-token-of-the-two"}}, order(1), kJson)->status,
            202);
  EXPECT_EQ(http.Post("/ingest/batch", {{"authorization", "bearer second-token-of-the-two"}}, order(1), kJson)->status,
            202);
  EXPECT_EQ(messages(), 2);
  EXPECT_THROW(restart({{"INGEST_API_TOKENS", "short"}}), ConfigError);
  EXPECT_THROW(restart({{"INGEST_API_TOKENS", ","}}), ConfigError);
}

TEST_F(EntityIngestTest, AnAddressHasNoMoreConnectionsThanTheSettingSays) {
  restart({{"INGEST_API_CONNECTIONS_PER_ADDRESS", "3"}});
  std::vector<httplib::Client> open;
  for (int i = 0; i < 3; ++i) {
    open.push_back(client());
    open.back().set_keep_alive(true);
    EXPECT_EQ(open.back().Get("/health")->status, 200);
  }
  const auto refused = client().Get("/health");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 429);
  EXPECT_FALSE(refused->get_header_value("Retry-After").empty());
  EXPECT_EQ(open.front().Get("/health")->status, 200);
  open.clear();
  EXPECT_TRUE(eventually([&] {
    const auto answer = client().Get("/health");
    return answer && answer->status == 200;
  }));
}

TEST_F(EntityIngestTest, MoreRequestsThanMayWaitAre503AndNothingIsLost) {
  restart({{"INGEST_API_THREADS", "2"}, {"INGEST_API_QUEUE", "1"}});
  // Frozen, the server answers no publish: whoever has a thread keeps it.
  nats.kill(SIGSTOP);
  std::mutex mutex;
  std::map<int, int> statuses;
  std::vector<std::jthread> clients;
  for (int i = 0; i < 20; ++i) {
    clients.emplace_back([&, i] {
      const auto answer = client().Post("/ingest/order", order(i + 1), kJson);
      const std::lock_guard lock(mutex);
      ++statuses[answer ? answer->status : -1];
    });
  }
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return statuses[503] == 17;
  }));
  EXPECT_EQ(client().Get("/health")->status, 200);
  nats.kill(SIGCONT);
  clients.clear();
  EXPECT_EQ(statuses, (std::map<int, int>{{202, 3}, {503, 17}}));
  EXPECT_EQ(messages(), 3);
}

// --- the page --------------------------------------------------------------------------------------------------------

class PageTest : public EntityIngestTest {
 protected:
  PageTest() : EntityIngestTest(odd_names()) {}
  static IngestApi odd_names() {
    IngestApi out = shop_api();
    out.pipeline = "<script>alert(1)</script>";
    return out;
  }
};

TEST_F(PageTest, ShowsEverythingEscapedUnderAStrictPolicy) {
  const auto page = client().Get("/");
  ASSERT_EQ(page->status, 200);
  EXPECT_EQ(page->get_header_value("Content-Type"), "text/html; charset=utf-8");
  for (const char* text : {"POST /ingest/order", "POST /ingest/customer", "POST /ingest/batch",
                           "GET /ingest/status/{id}", "/openapi.json", "shop.ingest.order", "<form"}) {
    EXPECT_NE(page->body.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(page->body.find("<script>alert"), std::string::npos);
  EXPECT_NE(page->body.find("&lt;script&gt;alert(1)"), std::string::npos);
  const std::string policy = page->get_header_value("Content-Security-Policy");
  EXPECT_TRUE(policy.starts_with("default-src 'none';")) << policy;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos) << policy;
  // What the browser computes of the inline script and style.
  for (const char* element : {"script", "style"}) {
    const std::string open = "<" + std::string(element) + ">";
    const std::size_t start = page->body.find(open) + open.size();
    const std::string text = page->body.substr(start, page->body.find("</", start) - start);
    EXPECT_NE(policy.find("'sha256-" + base64(Sha256::of(bytes_of(text))) + "'"), std::string::npos) << element;
  }
  EXPECT_EQ(page->body.find("http://"), std::string::npos);
  EXPECT_EQ(page->body.find("https://"), std::string::npos);
}

// --- the API as a process ------------------------------------------------------------------------------------------

/// This program again, as the API (see main).
class ApiProcess {
 public:
  explicit ApiProcess(const std::string& url) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDERR_FILENO);
      ::setenv("PIPEGEN_TEST_API", "1", 1);
      ::setenv("NATS_URL", url.c_str(), 1);
      ::execl("/proc/self/exe", "ingest-api", nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    output_ = ends[0];
    std::string text;
    char c = 0;
    const std::string name = "\"api_port\":";
    while (text.find(name) == std::string::npos || !text.ends_with('\n')) {
      if (::read(output_, &c, 1) != 1) throw std::runtime_error("the API did not start: " + text);
      text.push_back(c);
    }
    port = std::stoi(text.substr(text.find(name) + name.size()));
  }
  ~ApiProcess() {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
    ::close(output_);
  }
  ApiProcess(const ApiProcess&) = delete;
  ApiProcess& operator=(const ApiProcess&) = delete;

  int port = 0;

 private:
  pid_t pid_ = -1;
  int output_ = -1;
};

TEST(EntityApiProcessTest, FiveHundredSlowClientsDoNotSlowAHundredGoodOnes) {
  constexpr int kSlow = 500;
  constexpr int kGood = 100;
  constexpr int kRequests = 20;
#ifdef __SANITIZE_ADDRESS__
  constexpr auto kLimit = 1s;
#else
  constexpr auto kLimit = 100ms;
#endif
  const pipegen::testing::NatsServer nats;
  const ApiProcess api(nats.url());
  httplib::Client ready("127.0.0.1", api.port);
  ASSERT_TRUE(eventually([&] { return ready.Get("/ready")->status == 200; }));

  std::vector<int> slow;
  for (int i = 0; i < kSlow; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(api.port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    slow.push_back(fd);
  }
  // Half of a head, of a small body, of a large one, of a batch without an end.
  const std::string heads[] = {
      "POST /ingest/order HTTP/1.1\r\nHost:",
      "POST /ingest/order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
      "POST /ingest/order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{",
      "POST /ingest/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"};
  std::jthread trickle([&](const std::stop_token& stop) {
    for (int i = 0; i < kSlow; ++i) {
      const std::string& head = heads[i % 4];
      ::send(slow[static_cast<std::size_t>(i)], head.data(), head.size(), MSG_NOSIGNAL);
    }
    while (!stop.stop_requested()) {
      for (const int fd : slow) ::send(fd, " ", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
      std::this_thread::sleep_for(200ms);
    }
  });

  std::mutex mutex;
  std::vector<std::chrono::steady_clock::duration> times;
  std::map<int, int> statuses;
  std::latch start(kGood);
  std::vector<std::jthread> good;
  for (int i = 0; i < kGood; ++i) {
    good.emplace_back([&, i] {
      httplib::Client http("127.0.0.1", api.port);
      http.set_keep_alive(true);
      http.set_tcp_nodelay(true);
      http.Get("/health");
      start.arrive_and_wait();
      for (int n = 0; n < kRequests; ++n) {
        const auto begin = std::chrono::steady_clock::now();
        const auto answer = http.Post("/ingest/order", order(i * kRequests + n + 1), kJson);
        const auto time = std::chrono::steady_clock::now() - begin;
        {
          const std::lock_guard lock(mutex);
          times.push_back(time);
          ++statuses[answer ? answer->status : -1];
        }
        std::this_thread::sleep_for(20ms);
      }
    });
  }
  good.clear();
  trickle.request_stop();
  trickle.join();
  for (const int fd : slow) ::close(fd);
  EXPECT_EQ(statuses, (std::map<int, int>{{202, kGood * kRequests}}));
  std::sort(times.begin(), times.end());
  EXPECT_LT(times[times.size() * 99 / 100], kLimit);
}

}  // namespace

int main(int argc, char** argv) {
  if (std::getenv("PIPEGEN_TEST_API") != nullptr) {
    return pipegen::run_ingest_api(argc, argv, "ingest-api", [](const Settings&) { return shop_api(); });
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
