// How long the checks of a message take: an order of 9 fields, 512 octets.
#include <benchmark/benchmark.h>

#include "pipegen/json.hpp"

namespace {

using pipegen::json::Field;
using pipegen::json::Object;
using pipegen::json::Reader;
using pipegen::json::Writer;

struct Order {
  std::string order_key;
  std::string customer;
  std::int64_t quantity = 0;
  std::int32_t line = 0;
  pipegen::Decimal price;
  double weight = 0;
  bool paid = false;
  pipegen::Timestamp at;
  std::string comment;
};

Order read_order(Reader& in) {
  static constexpr Field kFields[] = {{"orderKey"}, {"customer"}, {"quantity"},  {"line"},   {"price"},
                                      {"weight"},   {"paid"},     {"createdAt"}, {"comment"}};
  Order out;
  for (Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.order_key = in.string({.max_length = 32});
        break;
      case 1:
        out.customer = in.string({.max_length = 64});
        break;
      case 2:
        out.quantity = in.int64({.min = 1});
        break;
      case 3:
        out.line = in.int32();
        break;
      case 4:
        out.price = in.decimal({.precision = 15, .scale = 2, .min = "0"});
        break;
      case 5:
        out.weight = in.float64();
        break;
      case 6:
        out.paid = in.boolean();
        break;
      case 7:
        out.at = in.timestamp();
        break;
      case 8:
        out.comment = in.string();
        break;
    }
  }
  return out;
}

void write(Writer& out, const Order& order) {
  out.begin_object();
  out.field("orderKey", order.order_key);
  out.field("customer", order.customer);
  out.field("quantity", order.quantity);
  out.field("line", order.line);
  out.field("price", order.price);
  out.field("weight", order.weight);
  out.field("paid", order.paid);
  out.field("createdAt", order.at);
  out.field("comment", order.comment);
  out.end_object();
}

std::string message() {
  std::string text = R"({"orderKey":"ORD-2025-000123","customer":"Customer#000000042","quantity":17,"line":3,)"
                     R"("price":"1234567.89","weight":12.375,"paid":true,"createdAt":"2025-01-15T10:00:00.123456Z",)"
                     R"("comment":"\"quick\" )";
  while (text.size() < 510) text += "lorem ipsum "[text.size() % 12];
  return text + "\"}";
}

void reading(benchmark::State& state) {
  const std::string text = message();
  for (auto _ : state) benchmark::DoNotOptimize(pipegen::json::parse(text, read_order));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}
BENCHMARK(reading);

void reading_unknown_fields(benchmark::State& state) {
  const std::string text = message();
  const auto ignore = [](Reader& in) {
    for (Object fields(in, {}); fields.next();) {
    }
    return 0;
  };
  for (auto _ : state) benchmark::DoNotOptimize(pipegen::json::parse(text, ignore));
}
BENCHMARK(reading_unknown_fields);

void writing(benchmark::State& state) {
  const Order order = pipegen::json::parse(message(), read_order);
  for (auto _ : state) benchmark::DoNotOptimize(pipegen::json::to_json(order));
}
BENCHMARK(writing);

}  // namespace
