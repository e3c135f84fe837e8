// For the processes of services: purges what writers of objects left behind when they died.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.hpp"
#include "pipegen/metrics.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/object_store.hpp"
#include "pipegen/settings.hpp"

namespace pipegen::nats {

/// Looks through the object buckets of a topology in a thread of its own: first within minutes, then at `every`, give
/// or take a fifth, so that many processes do not look at once. Counts pipegen_garbage_collected_total. What goes wrong
/// with one bucket is logged, and tried again at the next round. Its end waits for the request that is on its way.
class GarbageCollector {
 public:
  struct Options {
    std::chrono::milliseconds every{std::chrono::hours(6)};
    std::chrono::milliseconds age{std::chrono::hours(1)};  // see ObjectStore::collect_garbage
    const AnyClock* clock = &AnyClock::real();
  };
  /// From [nats] garbage_every and garbage_age.
  static Options options_from(const Settings& settings);

  /// `connection` and `metrics` must outlive it.
  GarbageCollector(Connection& connection, const Topology& topology, Metrics& metrics, Options options);
  ~GarbageCollector();
  GarbageCollector(const GarbageCollector&) = delete;
  GarbageCollector& operator=(const GarbageCollector&) = delete;

  /// Returns at once; the destructor waits.
  void request_stop() { thread_.request_stop(); }

 private:
  struct Bucket {
    std::string name;
    ObjectStore store;
    Counter& collected;
  };

  void run(const std::stop_token& stop);
  void collect(Bucket& bucket, const std::stop_token& stop);

  Options options_;
  std::vector<Bucket> buckets_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::jthread thread_;
};

}  // namespace pipegen::nats
