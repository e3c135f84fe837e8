// The program pipegen-dlq against a real nats-server.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/nats.hpp"
#include "support/nats_server.hpp"

namespace pipegen {
namespace {

class Dlq : public ::testing::Test {
 protected:
  struct Result {
    int status = 0;
    std::string output;  // standard output and standard error
  };

  Dlq() {
    Topology topology;
    topology.add_stream({.name = "IN", .subjects = {"in.>"}, .retention = Retention::kWorkQueue});
    topology.add_stream({.name = "SHOP_DLQ", .subjects = {"dlq.shop.>"}});
    nats::ensure(connection_, topology);
  }

  Result run(const std::string& arguments, const std::string& stream = "SHOP_DLQ") const {
    const std::string command =
        "timeout 60 '" PIPEGEN_DLQ "' --stream " + stream + " --nats-url " + server_.url() + " " + arguments + " 2>&1";
    Result result;
    std::FILE* pipe = ::popen(command.c_str(), "r");
    for (int c; (c = std::fgetc(pipe)) != EOF;) result.output.push_back(static_cast<char>(c));
    result.status = WEXITSTATUS(::pclose(pipe));
    return result;
  }

  void bury(const std::string& id, const std::string& stage, nats::Headers more = {}) {
    nats::Headers headers{{"Pipegen-Original-Nats-Msg-Id", id},
                          {"Pipegen-Error-Stage", stage},
                          {"Pipegen-Error-Class", "Invalid"},
                          {"Pipegen-Error-Message", "/amount: \x1b[31mnot a number"},
                          {"Pipegen-Error-Subject", "in.order"},
                          {"Pipegen-Error-Deliveries", "1"},
                          {"Pipegen-Version", "42"},
                          {"X-Mine", "kept"}};
    more.merge(headers);
    connection_.publish("dlq.shop." + stage, "{\"id\":\"" + id + "\"}", "dlq:IN:" + id, more);
  }

  std::uint64_t stored(const std::string& stream) {
    nats::StreamInfo info;
    jsErrCode code{};
    nats::check(js_GetStreamInfo(info.out(), connection_.handles().consume_js, stream.c_str(), nullptr, &code), stream);
    return info->State.Msgs;
  }

  testing::NatsServer server_;
  nats::Connection connection_{{.url = server_.url()}};
};

TEST_F(Dlq, ListsAndShowsWithoutLettingTheContentMoveTheCursor) {
  EXPECT_EQ(run("list").output, "no dead letters\n");
  bury("first", "writer");
  bury("second", "other");
  const Result all = run("list");
  EXPECT_EQ(all.status, 0);
  EXPECT_NE(all.output.find("first"), std::string::npos) << all.output;
  EXPECT_NE(all.output.find("Invalid: /amount:"), std::string::npos) << all.output;
  EXPECT_EQ(all.output.find('\x1b'), std::string::npos);
  const Result one = run("list --stage other --json");
  EXPECT_EQ(one.output.find("\"message_id\":\"first\""), std::string::npos);
  EXPECT_NE(one.output.find("\"message_id\":\"second\""), std::string::npos) << one.output;
  const Result shown = run("show 1");
  EXPECT_NE(shown.output.find("X-Mine: kept"), std::string::npos) << shown.output;
  EXPECT_NE(shown.output.find("{\"id\":\"first\"}"), std::string::npos);
  EXPECT_EQ(run("show 7").status, 1);
}

TEST_F(Dlq, ReplaysAMessageAsItWasAndTakesItOut) {
  bury("first", "writer");
  bury("second", "writer");
  const Result replayed = run("replay 1");
  EXPECT_EQ(replayed.status, 0);
  EXPECT_EQ(replayed.output, "1 replayed\n");
  EXPECT_EQ(stored("SHOP_DLQ"), 1u);
  ASSERT_EQ(stored("IN"), 1u);
  nats::Message message;
  nats::check(js_GetMsg(message.out(), connection_.handles().consume_js, "IN", 1, nullptr, nullptr), "the message");
  EXPECT_STREQ(natsMsg_GetSubject(message.get()), "in.order");
  EXPECT_EQ(nats::payload_of(message.get()), "{\"id\":\"first\"}");
  const auto header = [&](const char* name) {
    const char* value = nullptr;
    return natsMsgHeader_Get(message.get(), name, &value) == NATS_OK ? std::string(value) : std::string("(none)");
  };
  EXPECT_EQ(header("Pipegen-Message-Id"), "first");
  EXPECT_EQ(header("Pipegen-Version"), "42");
  EXPECT_EQ(header("X-Mine"), "kept");
  EXPECT_EQ(header("Pipegen-Error-Stage"), "(none)");
  EXPECT_EQ(run("replay --all --keep").output, "1 replayed\n");
  EXPECT_EQ(run("replay --all --keep").output, "1 replayed\n");
  EXPECT_EQ(stored("IN"), 2u) << "the second replay of one is a duplicate";
  EXPECT_EQ(stored("SHOP_DLQ"), 1u);
}

TEST_F(Dlq, AReplayedMessageHasTheIdThatItHadBefore) {
  const auto bury_as = [&](const std::string& id, nats::Headers headers) {
    headers.insert({{"Pipegen-Error-Stage", "writer"}, {"Pipegen-Error-Subject", "in.order"}});
    connection_.publish("dlq.shop.writer", "x", id, headers);
  };
  bury_as("dlq:writer:IN:1:2", {{"Pipegen-Message-Id", "named"}, {"Pipegen-Original-Nats-Msg-Id", "other"}});
  // Of services that did not write it down:
  bury_as("dlq:IN:3:4", {{"Pipegen-Original-Nats-Msg-Id", "given"}});
  bury_as("dlq:IN:5:6", {});
  const std::string listed = run("list --json").output;
  EXPECT_EQ(run("replay --all").output, "3 replayed\n");
  std::uint64_t sequence = 0;
  for (const std::string id : {"named", "given", "IN:5:6"}) {
    EXPECT_NE(listed.find("\"message_id\":\"" + id + "\""), std::string::npos) << listed;
    nats::Message message;
    nats::check(js_GetMsg(message.out(), connection_.handles().consume_js, "IN", ++sequence, nullptr, nullptr), id);
    const char* value = nullptr;
    ASSERT_EQ(natsMsgHeader_Get(message.get(), "Pipegen-Message-Id", &value), NATS_OK) << id;
    EXPECT_EQ(value, id);
  }
}

// More than the server sends ahead, so that the program still reads when what it replays comes back.
TEST_F(Dlq, ReplaysWhatIsThereAndNotWhatComesMeanwhile) {
  constexpr int kLetters = 200;
  for (int i = 0; i < kLetters; ++i) {
    bury(std::to_string(i), "writer", {{"X-Padding", std::string(50'000, 'x')}});
  }
  nats::Subscription replayed;
  nats::check(natsConnection_SubscribeSync(replayed.out(), connection_.handles().consume, "in.order"), "in.order");
  std::atomic<bool> done = false;
  std::thread worker([&] {
    for (int i = 0; !done;) {
      nats::Message message;
      if (natsSubscription_NextMsg(message.out(), replayed.get(), 20) == NATS_OK) {
        bury("again-" + std::to_string(i++), "writer");
      }
    }
  });
  const Result result = run("replay --all");
  done = true;
  worker.join();
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.output, std::to_string(kLetters) + " replayed\n");
}

TEST_F(Dlq, WhatIsNoMessageIsNotReplayedAndStays) {
  bury("cut", "writer", {{"Pipegen-Error-Cut", "2000000"}});
  connection_.publish("dlq.shop.joiner", "{}", "group", {{"Pipegen-Error-Message", "a page is missing"}});
  const Result result = run("replay --all");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.output.find("a page is missing"), std::string::npos) << result.output;
  EXPECT_EQ(stored("SHOP_DLQ"), 2u);
  EXPECT_EQ(stored("IN"), 0u);
}

TEST_F(Dlq, DropsWhatIsNamedAndNothingElse) {
  for (const char* id : {"a", "b", "c"}) bury(id, id[0] == 'b' ? "other" : "writer");
  EXPECT_EQ(run("drop 1").output, "1 dropped\n");
  EXPECT_EQ(run("drop 1").status, 1);
  EXPECT_EQ(stored("SHOP_DLQ"), 2u);
  EXPECT_EQ(run("drop --all --stage other").output, "1 dropped\n");
  EXPECT_EQ(stored("SHOP_DLQ"), 1u);
  EXPECT_EQ(run("drop").status, 2) << "nothing is named";
}

TEST_F(Dlq, TouchesOnlyWhatIsOfTheStageThatIsNamed) {
  bury("a", "writer");
  bury("b", "other");
  for (const char* what : {"replay", "drop"}) {
    const Result result = run(std::string(what) + " 1 2 --stage other" + (what[0] == 'r' ? " --keep" : ""));
    EXPECT_EQ(result.status, 1);
    EXPECT_NE(result.output.find("there is no dead letter 1 of other\n"), std::string::npos) << result.output;
    EXPECT_NE(result.output.find("1 " + std::string(what)), std::string::npos) << result.output;
  }
  EXPECT_EQ(stored("IN"), 1u);
  EXPECT_EQ(run("list --json").output.find("\"sequence\":2"), std::string::npos);
  EXPECT_EQ(stored("SHOP_DLQ"), 1u);
}

TEST_F(Dlq, ListsHeadersInAnyEncoding) {
  bury("caf\xe9", "writer", {{"Pipegen-Error-Message", "na\xefve"}});
  bury("second", "writer");
  const Result result = run("list --json");
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("\"message_id\":\"caf\xef\xbf\xbd\""), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("\"error\":\"na\xef\xbf\xbdve\""), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("\"message_id\":\"second\""), std::string::npos) << result.output;
}

TEST_F(Dlq, AListDoesNotFetchTheContent) {
  bury("first", "writer");
  nats::Subscription requests;
  nats::check(natsConnection_SubscribeSync(requests.out(), connection_.handles().consume, "$JS.API.CONSUMER.>"),
              "them");
  EXPECT_NE(run("list").output.find("first"), std::string::npos);
  std::string consumer;
  while (consumer.find("\"config\"") == std::string::npos) {
    nats::Message request;
    ASSERT_EQ(natsSubscription_NextMsg(request.out(), requests.get(), 5'000), NATS_OK) << "no consumer was asked for";
    consumer = nats::payload_of(request.get());
  }
  EXPECT_NE(consumer.find("\"headers_only\":true"), std::string::npos) << consumer;
}

TEST_F(Dlq, SaysWhatIsWrongInOneLine) {
  const Result result = run("list", "NOT_THERE");
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.output.find("NOT_THERE"), std::string::npos) << result.output;
  EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << result.output;
}

}  // namespace
}  // namespace pipegen
