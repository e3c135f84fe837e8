// What the framework itself costs of a stage: events of 512 octets, of file streams, on a server of this machine.
//   worker_benchmark [EVENTS [RUNS]]      100000 and 5
// Prints the medians. Processor time is of the whole process (fetching, parsing, handling, publishing, acks), so it
// says what one event costs whatever else the machine does.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nats/handles.hpp"
#include "pipegen/context.hpp"
#include "pipegen/json.hpp"
#include "pipegen/metrics.hpp"
#include "support/nats_server.hpp"
#include "worker/worker.hpp"

namespace {

using namespace pipegen;
using namespace std::chrono_literals;
using SteadyClock = std::chrono::steady_clock;

// ---- what a generated stage looks like

struct Header {
  Uuid event_id{};
  Timestamp timestamp{};
  std::string workflow_id{};
};

struct PageEvent {
  Header header{};
  std::string text_key{};
  std::int32_t page_number = 0;
  std::int32_t total_pages = 0;
  std::optional<std::string> voice{};
  std::string comment{};
};

Header read_header(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"event_id"}, {"timestamp"}, {"workflow_id"}};
  Header out;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.event_id = in.uuid();
        break;
      case 1:
        out.timestamp = in.timestamp();
        break;
      case 2:
        out.workflow_id = in.string();
        break;
    }
  }
  return out;
}

PageEvent read_page(json::Reader& in) {
  static constexpr json::Field kFields[] = {
      {"header"}, {"text_key"}, {"page_number"}, {"total_pages"}, {"voice", json::kOptional}, {"comment"},
  };
  PageEvent out;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.header = read_header(in);
        break;
      case 1:
        out.text_key = in.string();
        break;
      case 2:
        out.page_number = in.int32({.min = 1});
        break;
      case 3:
        out.total_pages = in.int32({.min = 1});
        break;
      case 4:
        out.voice = in.string();
        break;
      case 5:
        out.comment = in.string();
        break;
    }
  }
  return out;
}

void write(json::Writer& out, const Header& value) {
  out.begin_object();
  out.field("event_id", value.event_id);
  out.field("timestamp", value.timestamp);
  out.field("workflow_id", value.workflow_id);
  out.end_object();
}

void write(json::Writer& out, const PageEvent& value) {
  out.begin_object();
  out.field("header", value.header);
  out.field("text_key", value.text_key);
  out.field("page_number", value.page_number);
  out.field("total_pages", value.total_pages);
  out.field("voice", value.voice);
  out.field("comment", value.comment);
  out.end_object();
}

void publish(Outbox& outbox, PageEvent event) {
  const Fresh fresh = outbox.fresh();
  event.header.event_id = fresh.uuid("header.event_id");
  event.header.timestamp = fresh.now();
  outbox.publish({.event = "PageEvent",
                  .subject = outbox.settings().text("nats.page_subject", "out"),
                  .payload = json::to_json(event)});
}

PageEvent handle(const PageEvent& event, Context&) { return event; }

void consume(std::string_view payload, Context& context, Outbox& outbox) {
  const auto event = json::parse(payload, read_page);
  context.set_workflow(event.header.workflow_id);
  publish(outbox, handle(event, context));
}

std::string make_payload(std::uint64_t i) {
  PageEvent event{.header = {.event_id = Uuid::random(), .timestamp = now(), .workflow_id = "job-" + std::to_string(i)},
                  .text_key = "job/" + std::to_string(i) + ".txt",
                  .page_number = static_cast<std::int32_t>(1 + i % 500),
                  .total_pages = 500,
                  .voice = "en-gb"};
  event.comment.assign(512 - std::min<std::size_t>(json::to_json(event).size(), 512), 'x');
  return json::to_json(event);
}

// ---- measuring

struct Cost {
  double rate = 0;    // events a second
  double user = 0;    // microseconds of processor time an event
  double system = 0;  // the same, in the kernel
  double server = 0;  // the same, of nats-server
};

double seconds_of(const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * time.tv_usec; }

/// Seconds of processor time of another process.
double processor_time(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  double user = 0, system = 0;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

std::uint64_t messages_in(nats::Connection& connection, const char* stream) {
  nats::StreamInfo info;
  nats::check(js_GetStreamInfo(info.out(), connection.handles().consume_js, stream, nullptr, nullptr), stream);
  return info->State.Msgs;
}

struct Kind {
  const char* what;
  bool publishes;
  bool has_status;
};

Stage make_stage(const Kind& kind) {
  Stage stage;
  stage.pipeline = "bench";
  stage.name = "work";
  stage.section = "work_service";
  stage.topology.streams = {{.name = "IN", .subjects = {"in"}, .retention = Retention::kWorkQueue},
                            {.name = "OUT", .subjects = {"out"}},
                            {.name = "BENCH_DLQ", .subjects = {"dlq.bench.>"}}};
  stage.topology.key_values = {{.schema_name = "STATUS", .name = "BENCH_STATUS"}};
  stage.stream = "IN";
  stage.durable = "work-workers";
  stage.filter_subject = "in";
  stage.event = "PageEvent";
  stage.concurrency = 2;
  stage.dead_letter_stream = "BENCH_DLQ";
  stage.dead_letter_subject = "dlq.bench.work";
  if (kind.has_status) stage.status_bucket = "STATUS";
  stage.handle = kind.publishes ? consume : +[](std::string_view payload, Context& context, Outbox&) {
    const auto event = json::parse(payload, read_page);
    context.set_workflow(event.header.workflow_id);
  };
  return stage;
}

Cost run(const Kind& kind, std::uint64_t events) {
  pipegen::testing::NatsServer server;
  nats::Connection connection({.url = server.url(), .name = "bench"});
  const Stage stage = make_stage(kind);
  nats::ensure(connection, stage.topology);
  for (std::uint64_t i = 0; i < events; ++i) {
    const std::string payload = make_payload(i);
    natsConnection_Publish(connection.handles().publish, "in", payload.data(), static_cast<int>(payload.size()));
  }
  natsConnection_Flush(connection.handles().publish);
  while (messages_in(connection, "IN") < events) std::this_thread::sleep_for(10ms);

  Metrics metrics;
  worker::Worker worker(connection, stage, Settings(), metrics);
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  const double server_before = processor_time(server.pid());
  const auto began = SteadyClock::now();
  worker.start();
  // Until the server has every ack; asked seldom, because asking costs processor time too.
  while (worker.in_hand() > 0 || messages_in(connection, "IN") > 0) std::this_thread::sleep_for(20ms);
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
  ::getrusage(RUSAGE_SELF, &after);
  const double server_time = processor_time(server.pid()) - server_before;
  worker.stop();
  const auto each = [&](double time) { return 1e6 * time / static_cast<double>(events); };
  return {.rate = static_cast<double>(events) / seconds,
          .user = each(seconds_of(after.ru_utime) - seconds_of(before.ru_utime)),
          .system = each(seconds_of(after.ru_stime) - seconds_of(before.ru_stime)),
          .server = each(server_time)};
}

double median(std::vector<Cost> runs, double Cost::*member) {
  std::sort(runs.begin(), runs.end(), [&](const Cost& a, const Cost& b) { return a.*member < b.*member; });
  return runs[runs.size() / 2].*member;
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t events = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000;
  const int count = argc > 2 ? std::atoi(argv[2]) : 5;
  const Kind kinds[] = {{"fetch, parse, handle, ack", false, false},
                        {"fetch, parse, handle, publish, ack", true, false},
                        {"the same, with a status entry of the workflow", true, true}};
  std::vector<Cost> runs[std::size(kinds)];
  // In turn, so that whatever else the machine does is shared by all of them.
  for (int i = 0; i < count; ++i) {
    for (std::size_t kind = 0; kind < std::size(kinds); ++kind) runs[kind].push_back(run(kinds[kind], events));
  }
  std::printf("%-48s %10s  %s\n", "", "events/s", "us of processor time an event: worker user + system, nats-server");
  for (std::size_t kind = 0; kind < std::size(kinds); ++kind) {
    std::printf("%-48s %10.0f  %.1f + %.1f, %.1f\n", kinds[kind].what, median(runs[kind], &Cost::rate),
                median(runs[kind], &Cost::user), median(runs[kind], &Cost::system), median(runs[kind], &Cost::server));
  }
}
