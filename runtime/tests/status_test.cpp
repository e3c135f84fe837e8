// pipegen status, with and without a schema, against a real nats-server.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "nats/handles.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/types.hpp"
#include "support/nats_server.hpp"

namespace pipegen {
namespace {

constexpr const char* kSchema = R"(
pipegen: v1
pipeline: shop
streams:
  ORDERS: {}
  PAID: {retention: limits, max_age: 1h}
events:
  Ordered: {subject: order.made, stream: ORDERS, fields: {id: string}}
  Paid: {subject: order.paid, stream: PAID, fields: {id: string}}
stages:
  # By name the last one comes first.
  take-order: {consumes: Ordered, produces: Paid, uses: custom}
  ship: {consumes: Paid, uses: custom}
entities:
  Customer: {table: customers, key: [id], fields: {id: string}}
  Visit: {table: visits, key: [id], fields: {id: string}}
ingest: {entities: [Customer, Visit]}
)";

/// The part of the JSON that is about one consumer.
std::string part_of(const std::string& json, const std::string& durable) {
  const auto at = json.find("\"consumer\":\"" + durable + "\"");
  return at == std::string::npos ? "(no " + durable + " in " + json + ")"
                                 : json.substr(at, json.find("\"stream\"", at) - at);
}

class Status : public ::testing::Test {
 protected:
  struct Result {
    int status = 0;
    std::string output;  // standard output and standard error
  };

  Status() {
    Topology topology;
    topology.add_stream({.name = "ORDERS", .subjects = {"order.made"}, .retention = Retention::kWorkQueue});
    topology.add_stream({.name = "PAID", .subjects = {"order.paid"}});
    topology.add_stream({.name = "SHOP_INGEST", .subjects = {"shop.ingest.>"}, .retention = Retention::kWorkQueue});
    topology.add_stream({.name = "SHOP_DLQ", .subjects = {"dlq.shop.>"}});
    nats::ensure(connection_, topology);
    std::ofstream(folder_.path() / "pipeline.yaml") << kSchema;
  }

  Result run(const std::string& command) const {
    Result result;
    std::FILE* pipe = ::popen(("cd '" + folder_.path().string() + "' && " + command + " 2>&1").c_str(), "r");
    for (int c; (c = std::fgetc(pipe)) != EOF;) result.output.push_back(static_cast<char>(c));
    result.status = WEXITSTATUS(::pclose(pipe));
    return result;
  }
  /// Of the server alone: without a schema.
  Result of_server(const std::string& arguments = "") const {
    return run("'" PIPEGEN_STATUS "' --nats-url " + server_.url() + " " + arguments);
  }
  Result of_schema(const std::string& arguments = "") const {
    return run("'" PIPEGEN "' status --nats " + server_.url() + " " + arguments);
  }

  void make_consumer(const std::string& stream, const std::string& durable, const std::string& filter) {
    jsConsumerConfig config;
    jsConsumerConfig_Init(&config);
    config.Durable = durable.c_str();
    config.AckPolicy = js_AckExplicit;
    config.FilterSubject = filter.c_str();
    jsErrCode code{};
    nats::check(js_AddConsumer(nullptr, connection_.handles().publish_js, stream.c_str(), &config, nullptr, &code),
                durable);
  }
  void send(const std::string& subject, int count) {
    for (int i = 0; i < count; ++i) {
      connection_.publish(subject, "{}", subject + std::to_string(sent_++));
    }
  }
  void bury(const std::string& stage, const std::string& stream, const std::string& subject, const std::string& error) {
    connection_.publish("dlq.shop." + stage, "{}", "dlq" + std::to_string(sent_++),
                        {{"Pipegen-Error-Stage", stage},
                         {"Pipegen-Error-Stream", stream},
                         {"Pipegen-Error-Subject", subject},
                         {"Pipegen-Error-Class", "Invalid"},
                         {"Pipegen-Error-Message", error}});
  }

  /// Takes messages in hand: acks `acked` of them, hands back `naked`, and leaves the rest in hand.
  void take(const std::string& stream, const std::string& durable, const std::string& subject, int count, int acked,
            int naked = 0) {
    nats::Subscription subscription;
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Stream = stream.c_str();
    jsErrCode code{};
    nats::check(js_PullSubscribe(subscription.out(), connection_.handles().consume_js, subject.c_str(), durable.c_str(),
                                 nullptr, &options, &code),
                durable);
    natsMsgList list{};
    nats::check(natsSubscription_Fetch(&list, subscription.get(), count, 5'000, &code), "fetch");
    ASSERT_EQ(list.Count, count);
    for (int i = 0; i < list.Count; ++i) {
      if (i < acked) {
        natsMsg_AckSync(list.Msgs[i], nullptr, nullptr);
      } else if (i < acked + naked) {
        natsMsg_NakWithDelay(list.Msgs[i], 60'000, nullptr);
      }
    }
    natsConnection_FlushTimeout(connection_.handles().consume, 5'000);
    natsMsgList_Destroy(&list);
  }

  testing::NatsServer server_;
  testing::TempFolder folder_;
  nats::Connection connection_{{.url = server_.url()}};
  int sent_ = 0;
};

TEST_F(Status, ShowsTheStagesOfTheSchemaInOrderWithWhatWaitsAndWhatFailed) {
  make_consumer("ORDERS", "take-order-workers", "order.made");
  make_consumer("SHOP_INGEST", "customer-writers", "shop.ingest.customer");
  make_consumer("SHOP_INGEST", "visit-writers", "shop.ingest.visit");
  send("order.made", 7);
  send("shop.ingest.visit", 1);
  take("ORDERS", "take-order-workers", "order.made", 3, 1);
  bury("take-order", "ORDERS", "order.made", "the first");
  bury("take-order", "ORDERS", "order.made", "/id:\x1b[31m the newest");
  bury("entity-worker", "SHOP_INGEST", "shop.ingest.customer", "no such country");

  const Result json = of_schema("--json");
  EXPECT_EQ(json.status, 0) << json.output;
  const std::string take_order = part_of(json.output, "take-order-workers");
  EXPECT_NE(take_order.find(R"("pending":4,"in_hand":2,"redelivered":0,"behind":6)"), std::string::npos) << take_order;
  EXPECT_NE(take_order.find(R"("dead_letters":2)"), std::string::npos) << take_order;
  EXPECT_NE(take_order.find("the newest"), std::string::npos) << take_order;
  EXPECT_NE(take_order.find(R"("oldest_stored_at")"), std::string::npos) << take_order;
  const std::string ship = part_of(json.output, "ship-workers");
  EXPECT_NE(ship.find(R"("exists":false)"), std::string::npos) << ship;
  const std::string customer = part_of(json.output, "customer-writers");
  EXPECT_NE(customer.find(R"("dead_letters":1)"), std::string::npos) << customer;
  EXPECT_NE(customer.find("no such country"), std::string::npos) << customer;
  const std::string visit = part_of(json.output, "visit-writers");
  EXPECT_NE(visit.find(R"("pending":1,"in_hand":0)"), std::string::npos) << visit;
  EXPECT_NE(visit.find(R"("dead_letters":0)"), std::string::npos) << visit;

  const Result table = of_schema();
  EXPECT_EQ(table.status, 0) << table.output;
  EXPECT_TRUE(table.output.starts_with("STAGE")) << table.output;
  EXPECT_LT(table.output.find("take-order "), table.output.find("ship ")) << table.output;
  EXPECT_NE(table.output.find("not made yet"), std::string::npos) << table.output;
  EXPECT_NE(table.output.find("Invalid: /id: [31m the newest"), std::string::npos) << table.output;
  EXPECT_EQ(table.output.find('\x1b'), std::string::npos);
  EXPECT_NE(table.output.find("7 wait or are in hand; 3 dead letters: see pipegen dlq list."), std::string::npos)
      << table.output;
}

TEST_F(Status, ShowsEveryDurableConsumerOfAServerWithoutASchema) {
  EXPECT_EQ(of_server().output, "There is no durable consumer on this server.\n");
  make_consumer("ORDERS", "take-order-workers", "order.made");
  make_consumer("PAID", "ship-workers", "order.paid");
  make_consumer("PAID", "bill-workers", "order.paid");
  send("order.paid", 5);
  // The second message is the oldest that is not acked; and one goes round again.
  take("PAID", "ship-workers", "order.paid", 3, 1, 1);
  // Both stages take its messages; the name says whose letter it is.
  bury("bill", "PAID", "order.paid", "no such account");
  const Result json = of_server("--json");
  EXPECT_EQ(json.status, 0) << json.output;
  const std::string ship = part_of(json.output, "ship-workers");
  EXPECT_NE(ship.find(R"("pending":2,"in_hand":2)"), std::string::npos) << ship;
  EXPECT_NE(ship.find(R"("dead_letters":0)"), std::string::npos) << ship;
  const std::string bill = part_of(json.output, "bill-workers");
  EXPECT_NE(bill.find(R"("pending":5,"in_hand":0)"), std::string::npos) << bill;
  EXPECT_NE(bill.find(R"("dead_letters":1)"), std::string::npos) << bill;
  const std::string idle = part_of(json.output, "take-order-workers");
  EXPECT_NE(idle.find(R"("behind":0,"lag_seconds":0)"), std::string::npos) << idle;
  EXPECT_TRUE(of_server().output.starts_with("STREAM")) << of_server().output;
}

TEST_F(Status, ShowsErrorsInAnyEncoding) {
  make_consumer("PAID", "ship-workers", "order.paid");
  bury("ship", "PAID", "order.paid", "na\xefve");
  const Result json = of_server("--json");
  EXPECT_EQ(json.status, 0) << json.output;
  EXPECT_NE(json.output.find("\"message\":\"na\xef\xbf\xbdve\""), std::string::npos) << json.output;
}

TEST_F(Status, TheLagIsTheAgeOfTheOldestMessageThatIsNotAcked) {
  make_consumer("PAID", "ship-workers", "order.paid");
  send("order.paid", 3);
  take("PAID", "ship-workers", "order.paid", 2, 1);  // of a stream that keeps what is acked
  nats::Message second;
  nats::check(js_GetMsg(second.out(), connection_.handles().consume_js, "PAID", 2, nullptr, nullptr), "the message");
  const std::string stored = to_string(Timestamp(std::chrono::microseconds(natsMsg_GetTime(second.get()) / 1'000)));
  const std::string ship = part_of(of_server("--json").output, "ship-workers");
  EXPECT_NE(ship.find("\"oldest_stored_at\":\"" + stored + "\""), std::string::npos) << ship << " and not " << stored;
}

TEST_F(Status, SaysThatNothingWaits) {
  make_consumer("ORDERS", "take-order-workers", "order.made");
  send("order.made", 2);
  take("ORDERS", "take-order-workers", "order.made", 2, 2);
  const Result result = of_server();
  EXPECT_EQ(result.status, 0);
  EXPECT_NE(result.output.find("\nNothing waits, and there are no dead letters.\n"), std::string::npos)
      << result.output;
}

TEST_F(Status, SaysWhichStagesHaveNotRunOnAServerWithoutTheirStreams) {
  const testing::NatsServer other;
  const Result result = run("'" PIPEGEN "' status --nats " + other.url());
  EXPECT_EQ(result.status, 0) << result.output;
  for (const char* durable : {"take-order-workers", "ship-workers", "customer-writers", "visit-writers"}) {
    EXPECT_NE(result.output.find(durable), std::string::npos) << result.output;
  }
  EXPECT_NE(result.output.find("not made yet"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("\nNothing waits"), std::string::npos) << result.output;
}

TEST_F(Status, TakesTheNamesOfConsumersFromTheSettings) {
  make_consumer("ORDERS", "tellers", "order.made");
  send("order.made", 3);
  std::ofstream(folder_.path() / "project.toml") << "[nats]\ntake_order_consumer_name = \"tellers\"\n";
  const std::string tellers = part_of(of_schema("--json").output, "tellers");
  EXPECT_NE(tellers.find(R"("pending":3)"), std::string::npos) << tellers;
}

TEST_F(Status, SaysInOneLineWhatIsWrong) {
  const Result no_schema = of_schema("--schema nowhere.yaml");
  EXPECT_EQ(no_schema.status, 1);
  EXPECT_NE(no_schema.output.find("nowhere.yaml"), std::string::npos) << no_schema.output;
  EXPECT_EQ(run("'" PIPEGEN "' status --nonsense").status, 2);
  server_.kill();
  const Result away = of_schema();
  EXPECT_EQ(away.status, 1);
  EXPECT_NE(away.output.find("cannot reach nats://127.0.0.1:" + std::to_string(server_.port())), std::string::npos)
      << away.output;
  EXPECT_EQ(away.output.find('\n'), away.output.size() - 1) << away.output;
}

}  // namespace
}  // namespace pipegen
