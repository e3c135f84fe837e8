// For runtime/worker and runtime/http: what a service publishes, by subject.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>

#include "pipegen/metrics.hpp"

namespace pipegen::nats {

/// The histogram of the sizes of messages' payloads; `direction` is "in" or "out".
Histogram& message_size(Metrics& metrics, const std::string& stage, const char* direction);

/// Counts messages by subject; beyond a hundred subjects the rest is counted as "other". Thread safe.
class SentCounters {
 public:
  SentCounters(Metrics& metrics, std::string stage);
  void count(const std::string& subject, std::size_t payload_size);

 private:
  Metrics& metrics_;
  std::string stage_;
  Histogram& size_;
  std::mutex mutex_;
  std::map<std::string, Counter*> counters_;
};

}  // namespace pipegen::nats
