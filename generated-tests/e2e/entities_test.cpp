// Entities, from HTTP to rows, as `pipegen up` runs them.
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>

#include "up.hpp"

namespace pipegen::testing {
namespace {

using namespace std::chrono_literals;

const std::filesystem::path kExample = std::filesystem::path(PIPEGEN_SOURCE_DIR) / "examples" / "tpch";
const std::filesystem::path kFolder = PIPEGEN_E2E_FOLDER;

/// The first value that the statement gives; empty while there is no such table, or no row.
std::string one(const std::filesystem::path& database, const std::string& sql) {
  sqlite3* connection = nullptr;
  sqlite3_open_v2(database.c_str(), &connection, SQLITE_OPEN_READONLY, nullptr);
  sqlite3_busy_timeout(connection, 5000);
  sqlite3_stmt* statement = nullptr;
  std::string out;
  if (sqlite3_prepare_v2(connection, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
    out = text != nullptr ? text : "NULL";
  }
  sqlite3_finalize(statement);
  sqlite3_close(connection);
  return out;
}

std::string example(const std::string& file) { return read_file(kExample / file); }

/// `count` orders, as examples/tpch/generate-data makes them.
std::string orders(int count) {
  const std::filesystem::path file = kFolder / "orders.ndjson";
  std::filesystem::create_directories(kFolder);
  const std::string command =
      "'" + (kExample / "generate-data").string() + "' " + std::to_string(count) + " > '" + file.string() + "'";
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  return read_file(file);
}

TEST(Entities, WhatIsPostedIsARowAndItsStatusSaysSo) {
  const std::filesystem::path data = kFolder / "tpch-data";
  const std::filesystem::path database = data / "tpch.db";
  std::filesystem::remove_all(data);
  constexpr int kOrders = 20'000;
  {
    Up up(kExample / "pipeline.yaml", kFolder / "tpch", {"--data", data.string()});
    // The product refers to a supplier that comes later.
    const Answer product =
        post(up.api(), "/ingest/message?entity=Product", example("product.json"), "application/json");
    ASSERT_EQ(product.status, 202) << product.body;
    std::vector<std::string> locations{product.location};
    for (const char* file : {"supplier.json", "customer.json", "order.json"}) {
      const Answer answer = post(up.api(), "/ingest/message", example(file), "application/json");
      ASSERT_EQ(answer.status, 202) << file << answer.body;
      EXPECT_EQ(answer.location, "/ingest/status/" + answer.json().at("message_id").get<std::string>());
      locations.push_back(answer.location);
    }
    for (const std::string& location : locations) {
      EXPECT_TRUE(await(60s, [&] { return get(up.api(), location).json().value("status", "") == "completed"; }))
          << get(up.api(), location).body << up.log();
    }
    EXPECT_EQ(one(database, "SELECT total_price FROM orders"), "173665.47");
    EXPECT_EQ(one(database, "SELECT count(*) FROM line_items WHERE order_key = 'O000000001'"), "2");
    EXPECT_EQ(one(database, "SELECT ordered_on FROM line_items"), "1996-01-02");
    EXPECT_EQ(one(database, "SELECT name || city FROM customers"), "Ada's Ångström & SønsÅrhus");
    EXPECT_EQ(one(database, "SELECT main_tag || source FROM products"), "newcatalogue");

    const Answer wrong =
        post(up.api(), "/ingest/order", R"({"order_key": "", "order_status": "X"})", "application/json");
    EXPECT_EQ(wrong.status, 422);
    EXPECT_EQ(wrong.json().at("errors").size(), 8U) << wrong.body;

    // A worker that is killed while it works loses nothing, and writes nothing twice.
    const Answer batch =
        post(up.api(), "/ingest/batch?entity=Order", orders(kOrders) + "{\"order_key\": 1}\n", "application/x-ndjson");
    ASSERT_EQ(batch.status, 202) << batch.body;
    EXPECT_EQ(batch.json().at("accepted"), kOrders);
    EXPECT_EQ(batch.json().at("rejected"), 1);
    EXPECT_EQ(batch.json().at("errors").at(0).at("line"), kOrders + 1);
    if (const auto worker = up.service("entity-worker")) ::kill(*worker, SIGKILL);
    EXPECT_TRUE(await(90s, [&] { return one(database, "SELECT count(*) FROM orders") == std::to_string(kOrders); }))
        << one(database, "SELECT count(*) FROM orders") << up.log();
    EXPECT_EQ(up.stop(SIGTERM), 0);
  }
  // The order of order.json came again among the others: its row and line items are those of the last one.
  EXPECT_EQ(one(database, "SELECT total_price FROM orders WHERE order_key = 'O000000001'"), "444194.06");
  EXPECT_EQ(one(database, "SELECT count(*) FROM line_items WHERE order_key = 'O000000001'"), "1");
  EXPECT_EQ(one(database, "SELECT count(*) FROM message_status WHERE status <> 'completed'"), "0");
  // The rows outlive the pipeline, which finds them again.
  Up again(kExample / "pipeline.yaml", kFolder / "tpch", {"--data", data.string()});
  EXPECT_EQ(post(again.api(), "/ingest/order", example("order.json"), "application/json").status, 202);
  EXPECT_TRUE(await(60s, [&] {
    return one(database, "SELECT total_price FROM orders WHERE order_key = 'O000000001'") == "173665.47";
  }));
  EXPECT_EQ(one(database, "SELECT count(*) FROM orders"), std::to_string(kOrders));
}

}  // namespace
}  // namespace pipegen::testing
