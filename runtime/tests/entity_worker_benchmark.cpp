// What one message costs from the stream to a row: orders of 9 columns, a real nats-server, SQLite and PostgreSQL.
//   entity_worker_benchmark [MESSAGES]
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include "entities/entity_worker.hpp"
#include "nats/handles.hpp"
#include "pipegen/json.hpp"
#include "support/nats_server.hpp"
#include "support/postgres_server.hpp"

namespace {

using namespace pipegen;
using Clock = std::chrono::steady_clock;

const char* const kNames[] = {"order_key",      "clerk",        "comment",       "customer_key", "order_date",
                              "order_priority", "order_status", "ship_priority", "total_price"};

sql::Schema schema() {
  sql::Schema out{.pipeline = "bench", .tables = {}};
  sql::Table table{.name = "orders", .columns = {}, .key = {0}};
  for (const char* name : kNames) table.columns.push_back({.name = name});
  table.columns[4].kind = sql::Kind::kDate;
  table.columns[7].kind = sql::Kind::kInt32;
  table.columns[8].kind = sql::Kind::kDecimal;
  table.columns[8].precision = 15;
  table.columns[8].scale = 2;
  out.add_table(std::move(table));
  return out;
}

void add_order(std::string_view payload, sql::Batch& batch) {
  static constexpr json::Field kFields[] = {{"order_key"},    {"clerk"},         {"comment"},
                                            {"customer_key"}, {"order_date"},    {"order_priority"},
                                            {"order_status"}, {"ship_priority"}, {"total_price"}};
  std::string texts[7];
  Date date{};
  std::int32_t priority = 0;
  Decimal price;
  json::parse(payload, [&](json::Reader& in) {
    for (json::Object fields(in, kFields); fields.next();) {
      const std::size_t i = fields.index();
      if (i == 4) {
        date = in.date();
      } else if (i == 7) {
        priority = in.int32();
      } else if (i == 8) {
        price = in.decimal({.precision = 15, .scale = 2});
      } else {
        texts[i < 4 ? i : i - 1] = in.string();
      }
    }
    return 0;
  });
  sql::Row row = batch.add_row(0);
  for (std::size_t i = 0; i < 4; ++i) row.add(texts[i]);
  row.add(date);
  row.add(texts[4]);
  row.add(texts[5]);
  row.add(priority);
  row.add(price);
}

std::string order(int i) {
  char text[512];
  std::snprintf(
      text, sizeof text,
      "{\"order_key\":\"O%09d\",\"customer_key\":\"C%06d\",\"order_status\":\"O\",\"total_price\":%d.%02d,"
      "\"order_date\":\"1996-%02d-%02d\",\"order_priority\":\"4-NOT SPECIFIED\",\"clerk\":\"Clerk#%09d\","
      "\"ship_priority\":0,\"comment\":\"quickly final packages sleep furiously above the regular deposits\"}",
      i, i % 150'000, 900 + i % 400'000, i % 100, 1 + i % 12, 1 + i % 28, i % 1000);
  return text;
}

/// MiB.
double memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

void run(int messages, bool postgresql, bool status_rows) {
  testing::TempFolder folder;
  testing::NatsServer server;
  std::unique_ptr<testing::PostgresServer> postgres;
  if (postgresql) postgres = std::make_unique<testing::PostgresServer>();
  const std::string url = postgresql ? postgres->url() : "sqlite:" + (folder.path() / "bench.db").string();
  const Settings settings = Settings::from(
      "[database]\nurl = \"" + url + "\"\n[worker]\nstatus_rows = " + (status_rows ? "true" : "false"), "bench", {});
  nats::Connection connection({.url = server.url()});
  EntityWorkerSpec spec;
  spec.pipeline = "bench";
  spec.name = "bench";
  spec.section = "worker";
  spec.topology.add_stream({.name = "IN", .subjects = {"in.>"}, .retention = Retention::kWorkQueue});
  spec.topology.add_stream({.name = "DLQ", .subjects = {"dlq.>"}});
  spec.stream = "IN";
  spec.dead_letter_stream = "DLQ";
  spec.dead_letter_subject = "dlq.bench";
  spec.schema = schema();
  spec.add_entity({.name = "Order", .subject = "in.order", .durable = "orders", .add_rows = add_order});
  nats::ensure(connection, spec.topology);
  std::atomic<int> stored = 0;
  for (int i = 0; i < messages; ++i) {
    while (i - stored > 5'000) std::this_thread::yield();
    connection.publish_async("in.order", order(i), "m" + std::to_string(i), {},
                             [&](const nats::PublishAck*, std::string_view, bool) { ++stored; });
  }
  while (stored < messages) std::this_thread::yield();

  const auto database = (postgresql ? sql::open_postgresql : sql::open_sqlite)(settings, spec.schema);
  database->migrate();
  Metrics metrics;
  entities::EntityWorker worker(connection, spec, settings, *database, metrics);
  const auto began = Clock::now();
  const std::clock_t cpu = std::clock();
  worker.start();
  double early = 0;  // when a fifth is done: from here on it has to stay
  for (;;) {
    nats::StreamInfo info;
    nats::check(js_GetStreamInfo(info.out(), connection.handles().consume_js, "IN", nullptr, nullptr), "stream");
    if (info->State.Msgs == 0) break;
    if (early == 0 && info->State.Msgs < static_cast<std::uint64_t>(messages) * 4 / 5) early = memory();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  std::printf("%-11s status rows %-3s %9.0f rows/s, %5.2f us of processor time a row, memory %.0f to %.0f MiB\n",
              postgresql ? "PostgreSQL" : "SQLite", status_rows ? "on" : "off", messages / seconds,
              1e6 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC / messages, early, memory());
  std::fflush(stdout);
  worker.stop();
}

}  // namespace

int main(int argc, char** argv) {
  const int messages = argc > 1 ? std::atoi(argv[1]) : 200'000;
  for (const bool postgresql : {true, false}) {
    for (const bool status_rows : {false, true}) run(messages, postgresql, status_rows);
  }
}
