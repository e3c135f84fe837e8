// JSON-lines logging to standard error.
//
//   context.log().info("page stored", {{"page", 3}, {"bytes", png.size()}});
//   {"time":"2025-01-15T10:00:00.000123Z","level":"info","service":"tts","message":"page stored","workflow_id":"…",
//    "message_id":"…","trace_id":"…","span_id":"…","page":3,"bytes":4711}
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

namespace pipegen {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// A named value on a log line.
struct LogField {
  std::string_view name;
  std::string json;  // the value as JSON

  LogField(std::string_view field, std::string_view text);
  LogField(std::string_view field, const char* text) : LogField(field, std::string_view(text)) {}
  LogField(std::string_view field, const std::string& text) : LogField(field, std::string_view(text)) {}
  LogField(std::string_view field, bool flag) : name(field), json(flag ? "true" : "false") {}
  LogField(std::string_view field, double number);
  template <std::integral T>
  requires(!std::same_as<T, bool>) LogField(std::string_view field, T number)
      : name(field), json(std::to_string(number)) {}
};

/// Cheap to copy; thread safe; a line is written whole. Level by the setting "log.level" (LOG_LEVEL), info by default.
class Logger {
 public:
  /// Logs nowhere until `configure` was called for the process; then as the service that it named.
  Logger();
  static void configure(std::string_view service, LogLevel level);

  /// A logger whose every line carries these fields too.
  Logger with(std::initializer_list<LogField> fields) const;

  void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {}) const;
  void debug(std::string_view message, std::initializer_list<LogField> fields = {}) const;
  void info(std::string_view message, std::initializer_list<LogField> fields = {}) const;
  void warning(std::string_view message, std::initializer_list<LogField> fields = {}) const;
  void error(std::string_view message, std::initializer_list<LogField> fields = {}) const;

 private:
  std::shared_ptr<const std::string> bound_;  // fields as ",\"name\":value" text
};

}  // namespace pipegen
