// Prometheus metrics of a service, without prometheus-cpp in sight. Names after the OpenTelemetry messaging
// conventions.
//
//   static auto& handled = metrics.counter("messaging_client_consumed_messages_total", "Messages consumed.",
//   {{"subject", s}}); handled.add();
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace pipegen {

using Labels = std::map<std::string, std::string>;

/// References stay valid as long as the Metrics; every call is thread safe.
class Counter {
 public:
  virtual ~Counter() = default;
  virtual void add(double amount = 1) = 0;
};
class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void set(double value) = 0;
  virtual void add(double amount) = 0;
};
class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void observe(double value) = 0;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// Gives the one metric of this name and these labels, made at the first call. Look it up once, not per message.
  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  /// Seconds, in the buckets that OpenTelemetry recommends (5 ms to 10 s) and on to 10 minutes.
  Histogram& seconds(std::string_view name, std::string_view help, const Labels& labels = {});
  /// Bytes, in powers of four from 64 to 16 MiB.
  Histogram& bytes(std::string_view name, std::string_view help, const Labels& labels = {});

  /// The text that /metrics answers (Prometheus text format 0.0.4).
  std::string render() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pipegen
