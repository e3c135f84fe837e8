#include "nats/garbage.hpp"

#include <algorithm>
#include <random>

#include "pipegen/error.hpp"
#include "pipegen/log.hpp"

namespace pipegen::nats {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kFirst = std::chrono::minutes(10);

}  // namespace

GarbageCollector::Options GarbageCollector::options_from(const Settings& settings) {
  Options options;
  options.every = std::max(settings.duration("nats.garbage_every", options.every), milliseconds(1));
  options.age = settings.duration("nats.garbage_age", options.age);
  return options;
}

GarbageCollector::GarbageCollector(Connection& connection, const Topology& topology, Metrics& metrics, Options options)
    : options_(options) {
  for (const BucketSpec& bucket : topology.object_buckets) {
    buckets_.push_back(
        {bucket.name, ObjectStore(connection, bucket.name),
         metrics.counter("pipegen_garbage_collected_total",
                         "Objects that nobody finished writing, and that were purged.", {{"bucket", bucket.name}})});
  }
  if (!buckets_.empty()) thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

GarbageCollector::~GarbageCollector() = default;

void GarbageCollector::run(const std::stop_token& stop) {
  std::minstd_rand random(std::random_device{}());
  const auto between = [&](milliseconds least, milliseconds most) {
    return milliseconds(std::uniform_int_distribution<std::int64_t>(least.count(), most.count())(random));
  };
  const std::stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
  milliseconds pause = between(milliseconds(0), std::min(options_.every, kFirst));
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      options_.clock->wait_for(changed_, lock, pause, [&] { return stop.stop_requested(); });
    }
    for (Bucket& bucket : buckets_) {
      if (stop.stop_requested()) return;
      collect(bucket, stop);
    }
    if (stop.stop_requested()) return;
    pause = between(options_.every * 4 / 5, options_.every * 6 / 5);
  }
}

void GarbageCollector::collect(Bucket& bucket, const std::stop_token& stop) {
  const Logger log;
  try {
    const std::size_t collected = bucket.store.collect_garbage(options_.clock->wall_time() - options_.age, stop);
    if (collected == 0) return;
    bucket.collected.add(static_cast<double>(collected));
    log.info("purged objects that nobody finished writing", {{"bucket", bucket.name}, {"objects", collected}});
  } catch (const std::exception& error) {
    log.warning("the garbage of an object bucket is not collected",
                {{"bucket", bucket.name}, {"reason", error.what()}});
  }
}

}  // namespace pipegen::nats
