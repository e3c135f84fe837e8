// Rows a second into both databases on this machine, through one session: orders of nine columns, 500 a batch.
//   sql_benchmark [SECONDS] [CHILDREN] [random]
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "sql/database.hpp"
#include "support/postgres_server.hpp"

namespace {

using namespace pipegen;
using namespace pipegen::sql;
using Clock = std::chrono::steady_clock;

bool random_keys = false;

Schema order_schema(int children) {
  Schema schema{.pipeline = "bench"};
  schema.add_table({.name = "orders",
                    .columns = {{.name = "order_key", .max_length = 32},
                                {.name = "clerk", .max_length = 32},
                                {.name = "comment", .nullable = true},
                                {.name = "customer_key", .max_length = 32},
                                {.name = "order_date", .kind = Kind::kDate},
                                {.name = "order_priority", .max_length = 16},
                                {.name = "order_status", .max_length = 16},
                                {.name = "ship_priority", .kind = Kind::kInt32},
                                {.name = "total_price", .kind = Kind::kDecimal, .precision = 15, .scale = 2}},
                    .key = {0}});
  if (children == 0) return schema;
  schema.add_table({.name = "line_items",
                    .columns = {{.name = "order_key", .max_length = 32},
                                {.name = "line_number", .kind = Kind::kInt32},
                                {.name = "quantity", .kind = Kind::kDecimal, .precision = 15, .scale = 2},
                                {.name = "part", .max_length = 32}},
                    .key = {0, 1},
                    .parent = 0,
                    .parent_key = {0}});
  return schema;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void run(const char* what, Database& database, const Schema& schema, double seconds, int children, bool with_status) {
  constexpr int kRows = 500;
  static std::atomic<std::int64_t> versions = 0;
  const auto session = database.session();
  Batch batch(schema);
  std::vector<MessageStatus> statuses(with_status ? kRows : 0);
  for (auto& status : statuses) {
    status.entity_type = "Order";
    status.state = MessageState::kCompleted;
    status.received_at = status.updated_at = now();
  }
  const Decimal price = *Decimal::parse("173665.47", 15, 2);
  const Decimal quantity = *Decimal::parse("17", 15, 2);
  const Date date = *parse_date("1996-01-02");
  const std::string comment = "nstructions sleep furiously among the deposits, and the even ones are final";
  std::int64_t rows = 0;
  double filling = 0;
  const double cpu = cpu_seconds();
  const auto start = Clock::now();
  std::chrono::duration<double> elapsed{};
  while (elapsed.count() < seconds) {
    const auto begin = Clock::now();
    batch.clear();
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t version = ++versions;
      const std::string key =
          "ORD-" + std::to_string(1'000'000'000'000 + (random_keys ? version * 2654435761 % 10'000'000'000 : version));
      batch.begin_message(version);
      Row row = batch.add_row(0);
      row.add(key);
      row.add("Clerk#000000951");
      row.add(comment);
      row.add("CUST-000036901");
      row.add(date);
      row.add("5-LOW");
      row.add("OPEN");
      row.add(static_cast<std::int32_t>(i));
      row.add(price);
      for (int child = 0; child < children; ++child) {
        Row item = batch.add_row(1);
        item.add(key);
        item.add(child);
        item.add(quantity);
        item.add("PART-0001551");
      }
      if (with_status)
        statuses[static_cast<std::size_t>(i)].message_id = "0193a2b4-c5d6-7e8f-9a0b-" + std::to_string(version);
    }
    filling += std::chrono::duration<double>(Clock::now() - begin).count();
    session->write(batch, statuses);
    rows += kRows;
    elapsed = Clock::now() - start;
  }
  const double used = cpu_seconds() - cpu - filling;
  std::printf("%-34s %9.0f orders/s, %.2f us of this process an order\n", what,
              static_cast<double>(rows) / (elapsed.count() - filling), used * 1e6 / static_cast<double>(rows));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 2.5;
  const int children = argc > 2 ? std::atoi(argv[2]) : 0;
  random_keys = argc > 3;
  const Schema schema = order_schema(children);
  {
    pipegen::testing::TempFolder folder;
    const Settings settings =
        Settings::from("[database]\nurl = 'sqlite:" + (folder.path() / "bench.db").string() + "'", "", {});
    const auto database = open_sqlite(settings, schema);
    database->migrate();
    run("SQLite", *database, schema, seconds, children, false);
    run("SQLite, with status rows", *database, schema, seconds, children, true);
  }
  {
    pipegen::testing::PostgresServer server;
    const Settings settings = Settings::from("[database]\nurl = '" + server.url() + "'", "", {});
    const auto database = open_postgresql(settings, schema);
    database->migrate();
    run("PostgreSQL", *database, schema, seconds, children, false);
    run("PostgreSQL, with status rows", *database, schema, seconds, children, true);
    std::jthread other([&] { run("PostgreSQL, one of two sessions", *database, schema, seconds, children, false); });
    run("PostgreSQL, the other", *database, schema, seconds, children, false);
  }
  return 0;
}
