#include "pipegen/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <utility>

namespace pipegen {
namespace {

struct PrometheusCounter final : Counter {
  explicit PrometheusCounter(prometheus::Counter& metric) : metric(metric) {}
  void add(double amount) override { metric.Increment(amount); }
  prometheus::Counter& metric;
};

struct PrometheusGauge final : Gauge {
  explicit PrometheusGauge(prometheus::Gauge& metric) : metric(metric) {}
  void set(double value) override { metric.Set(value); }
  void add(double amount) override { metric.Increment(amount); }
  prometheus::Gauge& metric;
};

struct PrometheusHistogram final : Histogram {
  explicit PrometheusHistogram(prometheus::Histogram& metric) : metric(metric) {}
  void observe(double value) override { metric.Observe(value); }
  prometheus::Histogram& metric;
};

const std::vector<double> kSeconds = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1,
                                      2.5,   5,    7.5,   10,   30,    60,  120,  300, 600};
const std::vector<double> kBytes = {1 << 6,  1 << 8,  1 << 10, 1 << 12, 1 << 14,
                                    1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24};

}  // namespace

struct Metrics::Impl {
  template <typename Wrapper>
  using Known = std::map<std::pair<std::string, Labels>, std::unique_ptr<Wrapper>>;

  /// Registering a family again gives the same one, and adding the same labels the same metric.
  template <typename Wrapper, typename Builder, typename... Arguments>
  Wrapper& get(Known<Wrapper>& known, Builder builder, std::string_view name, std::string_view help,
               const Labels& labels, const Arguments&... arguments) {
    const std::lock_guard lock(mutex);
    auto& wrapper = known[{std::string(name), labels}];
    if (!wrapper) {
      auto& family = builder.Name(std::string(name)).Help(std::string(help)).Register(registry);
      wrapper = std::make_unique<Wrapper>(family.Add(labels, arguments...));
    }
    return *wrapper;
  }

  mutable std::mutex mutex;
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  Known<PrometheusCounter> counters;
  Known<PrometheusGauge> gauges;
  Known<PrometheusHistogram> histograms;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

Counter& Metrics::counter(std::string_view name, std::string_view help, const Labels& labels) {
  return impl_->get(impl_->counters, prometheus::BuildCounter(), name, help, labels);
}

Gauge& Metrics::gauge(std::string_view name, std::string_view help, const Labels& labels) {
  return impl_->get(impl_->gauges, prometheus::BuildGauge(), name, help, labels);
}

Histogram& Metrics::seconds(std::string_view name, std::string_view help, const Labels& labels) {
  return impl_->get(impl_->histograms, prometheus::BuildHistogram(), name, help, labels, kSeconds);
}

Histogram& Metrics::bytes(std::string_view name, std::string_view help, const Labels& labels) {
  return impl_->get(impl_->histograms, prometheus::BuildHistogram(), name, help, labels, kBytes);
}

std::string Metrics::render() const { return prometheus::TextSerializer().Serialize(impl_->registry.Collect()); }

}  // namespace pipegen
