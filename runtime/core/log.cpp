#include "pipegen/log.hpp"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <atomic>
#include <charconv>
#include <cmath>
#include <mutex>
#include <vector>

#include "core/json_text.hpp"
#include "pipegen/types.hpp"

namespace pipegen {
namespace {

/// What configure() set up. Kept until the process ends: a logger may be in use anywhere, also in static destructors.
struct Target {
  LogLevel level;
  std::string service;  // as JSON
  spdlog::logger out;
};
std::atomic<Target*> current = nullptr;

std::string json_text(std::string_view text) {
  std::string json;
  json::append_string(json, json::is_utf8(text) ? text : json::repaired_utf8(text));
  return json;
}

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    default:
      return "error";
  }
}

void append(std::string& line, std::initializer_list<LogField> fields) {
  for (const LogField& field : fields) {
    line += ',';
    line += json_text(field.name);
    line += ':';
    line += field.json;
  }
}

}  // namespace

LogField::LogField(std::string_view field, std::string_view text) : name(field), json(json_text(text)) {}

LogField::LogField(std::string_view field, double number) : name(field) {
  if (!std::isfinite(number)) {
    json = std::isnan(number) ? "\"NaN\"" : number > 0 ? "\"Infinity\"" : "\"-Infinity\"";
    return;
  }
  char digits[32];
  json.assign(digits, std::to_chars(std::begin(digits), std::end(digits), number).ptr);
}

Logger::Logger() = default;

void Logger::configure(std::string_view service, LogLevel level) {
  static std::mutex mutex;
  static auto& all = *new std::vector<std::unique_ptr<Target>>;
  auto target = std::make_unique<Target>(
      Target{level, json_text(service), spdlog::logger("", std::make_shared<spdlog::sinks::stderr_sink_mt>())});
  // The line is made here, so spdlog only writes it. The sink writes a line with one call and stderr has no buffer.
  target->out.set_formatter(std::make_unique<spdlog::pattern_formatter>("%v", spdlog::pattern_time_type::utc, "\n"));
  target->out.set_level(spdlog::level::trace);
  target->out.set_error_handler([](const std::string&) {});  // nowhere left to say that the log cannot be written
  const std::lock_guard lock(mutex);
  current = all.emplace_back(std::move(target)).get();
}

Logger Logger::with(std::initializer_list<LogField> fields) const {
  std::string bound = bound_ ? *bound_ : "";
  append(bound, fields);
  Logger logger;
  logger.bound_ = std::make_shared<const std::string>(std::move(bound));
  return logger;
}

void Logger::log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) const {
  Target* const target = current;
  if (target == nullptr || level < target->level) return;
  std::string line = "{\"time\":\"" + to_string(now()) + "\",\"level\":\"" + name_of(level) + "\",\"service\":";
  line += target->service;
  line += ",\"message\":";
  line += json_text(message);
  if (bound_) line += *bound_;
  append(line, fields);
  line += '}';
  target->out.log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

void Logger::debug(std::string_view message, std::initializer_list<LogField> fields) const {
  log(LogLevel::kDebug, message, fields);
}
void Logger::info(std::string_view message, std::initializer_list<LogField> fields) const {
  log(LogLevel::kInfo, message, fields);
}
void Logger::warning(std::string_view message, std::initializer_list<LogField> fields) const {
  log(LogLevel::kWarning, message, fields);
}
void Logger::error(std::string_view message, std::initializer_list<LogField> fields) const {
  log(LogLevel::kError, message, fields);
}

}  // namespace pipegen
