// Settings of a service: environment variable over project.toml over the default that the schema gives.
//
//   const auto settings = pipegen::Settings::load();
//   const std::string url = settings.text("nats.url", "nats://127.0.0.1:4222");   // NATS_URL, or [nats] url
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pipegen {

/// Read once at start, then immutable: safe from any thread, cheap to copy. A setting is named "section.key"; its
/// environment variable is the name in upper case with every other character turned into '_'
/// ("wav_aggregator_service.worker_pool_size" is WAV_AGGREGATOR_SERVICE_WORKER_POOL_SIZE). An empty variable counts as
/// unset. Every getter throws ConfigError, naming the setting and where it was set, when the value has the wrong form.
class Settings {
 public:
  /// Nothing set: every getter gives its default.
  Settings();

  /// Reads project.toml from $PIPEGEN_CONFIG, or from the working directory or one of its parents; no file at all is
  /// fine. Throws ConfigError when the file is named but missing, or is not TOML (with line and column).
  static Settings load();
  static Settings from(std::string_view toml, std::string source, std::map<std::string, std::string> environment);

  std::optional<std::string> find(std::string_view name) const;
  std::string text(std::string_view name, std::string_view fallback) const;
  std::int64_t integer(std::string_view name, std::int64_t fallback) const;
  /// From `min` to `max`, both included; `fallback` is taken as it is.
  std::int64_t integer(std::string_view name, std::int64_t fallback, std::int64_t min, std::int64_t max) const;
  double number(std::string_view name, double fallback) const;
  bool flag(std::string_view name, bool fallback) const;
  /// "250ms", "30s", "5m", "24h", "7d"; a bare number is seconds.
  std::chrono::milliseconds duration(std::string_view name, std::chrono::milliseconds fallback) const;
  /// "512MiB", "1GB"; a bare number is bytes.
  std::int64_t size(std::string_view name, std::int64_t fallback) const;
  /// A TOML array of strings, or an environment variable with a JSON array.
  std::vector<std::string> list(std::string_view name, std::vector<std::string> fallback) const;

  /// Text of a `${NAME}` reference or of a file, for secrets: "nats.password" is read from the setting itself, else
  /// from the file that "nats.password_file" names (relative to the folder of project.toml when it is named there),
  /// without the line break at its end. An environment variable wins over project.toml, whichever of the two it is.
  /// Never logged.
  std::optional<std::string> secret(std::string_view name) const;

  /// What project.toml has in [section] and `known` does not, each as "project.toml:3:1: section.name".
  std::vector<std::string> unknown(std::string_view section, std::initializer_list<std::string_view> known) const;

 private:
  struct Data;
  std::shared_ptr<const Data> data_;
};

}  // namespace pipegen
