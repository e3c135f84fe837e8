// Messages a second through the consumer loop: 512 octets each, of a file store, on a server of this machine.
//   worker_benchmark [MESSAGES]
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "nats/handles.hpp"
#include "pipegen/metrics.hpp"
#include "support/nats_server.hpp"
#include "worker/worker.hpp"

namespace {

using namespace pipegen;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

Stage make_stage(std::function<void(std::string_view, Context&, Outbox&)> handle) {
  Stage stage;
  stage.pipeline = "bench";
  stage.name = "work";
  stage.section = "work_service";
  stage.topology.streams = {{.name = "IN", .subjects = {"in"}, .retention = Retention::kWorkQueue},
                            {.name = "OUT", .subjects = {"out"}},
                            {.name = "BENCH_DLQ", .subjects = {"dlq.bench.>"}}};
  stage.stream = "IN";
  stage.durable = "work-workers";
  stage.filter_subject = "in";
  stage.event = "Input";
  stage.concurrency = 4;
  stage.dead_letter_stream = "BENCH_DLQ";
  stage.dead_letter_subject = "dlq.bench.work";
  stage.handle = std::move(handle);
  return stage;
}

std::uint64_t messages_in(nats::Connection& connection, const char* stream) {
  jsStreamInfo* info = nullptr;
  if (js_GetStreamInfo(&info, connection.handles().consume_js, stream, nullptr, nullptr) != NATS_OK) return 0;
  const std::uint64_t messages = info->State.Msgs;
  jsStreamInfo_Destroy(info);
  return messages;
}

void run(const char* what, std::uint64_t messages, const std::function<void(std::string_view, Outbox&)>& work) {
  pipegen::testing::NatsServer server;
  nats::Connection connection({.url = server.url(), .name = "bench"});
  std::atomic<std::uint64_t> handled = 0;
  const Stage stage = make_stage([&](std::string_view payload, Context&, Outbox& outbox) {
    work(payload, outbox);
    ++handled;
  });
  nats::ensure(connection, stage.topology);
  const std::string payload(512, 'x');
  for (std::uint64_t i = 0; i < messages; ++i) {
    natsConnection_Publish(connection.handles().publish, "in", payload.data(), static_cast<int>(payload.size()));
  }
  natsConnection_Flush(connection.handles().publish);
  while (messages_in(connection, "IN") < messages) std::this_thread::sleep_for(10ms);

  Metrics metrics;
  worker::Worker worker(connection, stage, Settings(), metrics);
  const auto start = Clock::now();
  worker.start();
  while (handled < messages || worker.in_hand() > 0) std::this_thread::sleep_for(1ms);
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("%-40s %8.0f msg/s\n", what, static_cast<double>(messages) / seconds);
  worker.stop();
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t messages = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200'000;
  run("a stage that does nothing", messages, [](std::string_view, Outbox&) {});
  run("a stage that publishes one event", messages, [](std::string_view payload, Outbox& outbox) {
    outbox.publish({.event = "Output", .subject = "out", .payload = std::string(payload)});
  });
}
