// pipegen status: what each stage has before it and in hand, and what it could not handle.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "core/json_text.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"
#include "pipegen/settings.hpp"
#include "programs/consumer_status.hpp"
#include "programs/terminal.hpp"

namespace {

using pipegen::ConsumerName;
using pipegen::ConsumerStatus;
using pipegen::Timestamp;
namespace json = pipegen::json;

/// What pipegen knows of the schema's pipeline.
struct Pipeline {
  std::string dead_letter_stream{};
  struct Consumer {
    std::string stage{}, stream{}, stream_setting{}, durable{}, durable_setting{};
  };
  std::vector<Consumer> consumers{};
};

Pipeline::Consumer read_consumer(json::Reader& in) {
  static constexpr json::Field kFields[] = {
      {"stage"}, {"stream"}, {"stream_setting"}, {"durable"}, {"durable_setting"}};
  Pipeline::Consumer consumer;
  for (json::Object fields(in, kFields); fields.next();) {
    std::string* const members[] = {&consumer.stage, &consumer.stream, &consumer.stream_setting, &consumer.durable,
                                    &consumer.durable_setting};
    *members[fields.index()] = in.string();
  }
  return consumer;
}

Pipeline read_pipeline(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"dead_letter_stream"}, {"consumers"}};
  Pipeline pipeline;
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      pipeline.dead_letter_stream = in.string();
    } else {
      pipeline.consumers = in.list<Pipeline::Consumer>(read_consumer);
    }
  }
  return pipeline;
}

double seconds_since(Timestamp then) {
  return std::max(0.0, std::chrono::duration<double>(pipegen::now() - then).count());
}

/// "3d 4h", "12m 5s", "0s"
std::string age_text(Timestamp then) {
  auto seconds = static_cast<std::int64_t>(seconds_since(then));
  struct Unit {
    const char* name;
    std::int64_t seconds;
  };
  static constexpr Unit kUnits[] = {{"d", 86'400}, {"h", 3'600}, {"m", 60}, {"s", 1}};
  std::string text;
  int parts = 0;
  for (const Unit& unit : kUnits) {
    const std::int64_t count = seconds / unit.seconds;
    seconds %= unit.seconds;
    if (count == 0 && parts == 0) continue;
    if (count > 0) text += (parts > 0 ? " " : "") + std::to_string(count) + unit.name;
    if (++parts == 2) break;
  }
  return parts == 0 ? "0s" : text;
}

std::string as_json(const std::vector<ConsumerStatus>& all) {
  json::Writer out;
  out.begin_object();
  out.key("consumers");
  out.begin_array();
  for (const ConsumerStatus& status : all) {
    const auto number = [&](const char* name, std::uint64_t value) {
      out.field(name, static_cast<std::int64_t>(value));
    };
    out.begin_object();
    if (!status.name.stage.empty()) out.field("stage", status.name.stage);
    out.field("stream", status.name.stream);
    out.field("consumer", status.name.durable);
    out.field("exists", status.exists);
    number("pending", status.pending);
    number("in_hand", status.in_hand);
    number("redelivered", status.redelivered);
    number("behind", status.pending + status.in_hand);
    if (status.oldest) {
      out.field("oldest_stored_at", *status.oldest);
      out.field("lag_seconds", seconds_since(*status.oldest));
    } else {
      out.field("lag_seconds", 0.0);
    }
    number("dead_letters", status.dead_letters);
    if (status.last_error) {
      out.key("last_error");
      out.begin_object();
      out.field("at", status.last_error->at);
      // Headers are octets: others may write them in any encoding.
      out.field("class", json::repaired_utf8(status.last_error->error_class));
      out.field("message", json::repaired_utf8(status.last_error->message));
      out.end_object();
    }
    out.end_object();
  }
  out.end_array();
  out.end_object();
  return out.take() + "\n";
}

std::string as_table(const std::vector<ConsumerStatus>& all) {
  if (all.empty()) return "There is no durable consumer on this server.\n";
  const bool has_stages = std::any_of(all.begin(), all.end(), [](const auto& s) { return !s.name.stage.empty(); });
  using Align = pipegen::Table::Align;
  pipegen::Table table({{has_stages ? "STAGE" : "STREAM"},
                        {"CONSUMER"},
                        {"PENDING", Align::kRight},
                        {"IN HAND", Align::kRight},
                        {"REDELIVERED", Align::kRight},
                        {"LAG", Align::kRight},
                        {"DEAD LETTERS", Align::kRight},
                        {"LAST ERROR"}});
  std::uint64_t waiting = 0, dead = 0;
  for (const ConsumerStatus& status : all) {
    const std::string& first = has_stages ? status.name.stage : status.name.stream;
    const auto count = [&](std::uint64_t value) { return status.exists ? std::to_string(value) : std::string("-"); };
    std::string error = status.exists ? "" : "not made yet: no service of it has run on this server";
    if (status.last_error) {
      error = age_text(status.last_error->at) + " ago: " + status.last_error->error_class + ": " +
              status.last_error->message;
    }
    table.add({first, status.name.durable, count(status.pending), count(status.in_hand), count(status.redelivered),
               status.oldest ? age_text(*status.oldest) : "-", std::to_string(status.dead_letters), error});
    waiting += status.pending + status.in_hand;
    dead += status.dead_letters;
  }
  std::string text = table.text();
  text += waiting == 0 ? "Nothing waits" : std::to_string(waiting) + " wait or are in hand";
  text += dead == 0 ? ", and there are no dead letters.\n"
                    : "; " + std::to_string(dead) + (dead == 1 ? " dead letter" : " dead letters") +
                          ": see pipegen dlq list.\n";
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  std::string url, pipeline_text;
  bool wants_json = false;
  CLI::App app{"What each stage has before it and in hand, and what it could not handle.", "pipegen status"};
  app.add_option("--nats-url,--nats", url, "The NATS server; else NATS_URL, or [nats] url of project.toml");
  app.add_option("--pipeline", pipeline_text, "What pipegen knows of the schema's pipeline, as JSON");
  app.add_flag("--json", wants_json, "As JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    const pipegen::Settings settings = pipegen::Settings::load();
    auto options = pipegen::nats::options_from(settings, "pipegen-status");
    if (!url.empty()) options.url = url;
    std::vector<ConsumerName> names;
    std::vector<std::string> dead_letter_streams;
    if (!pipeline_text.empty()) {
      const Pipeline pipeline = json::parse(pipeline_text, read_pipeline);
      dead_letter_streams.push_back(pipeline.dead_letter_stream);
      for (const auto& consumer : pipeline.consumers) {
        names.push_back({.stage = consumer.stage,
                         .stream = settings.text("nats." + consumer.stream_setting, consumer.stream),
                         .durable = settings.text("nats." + consumer.durable_setting, consumer.durable)});
      }
    }
    pipegen::nats::Connection connection(options, std::chrono::seconds(5));
    if (pipeline_text.empty()) {
      names = pipegen::consumers_of(connection);
      dead_letter_streams = pipegen::dead_letter_streams_of(connection);
    }
    const auto all = pipegen::status_of(connection, names, dead_letter_streams);
    std::cout << (wants_json ? as_json(all) : as_table(all)) << std::flush;
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "pipegen status: " << error.what() << '\n';
    return 1;
  }
}
