#include "nats/sent.hpp"

#include <utility>

namespace pipegen::nats {

Histogram& message_size(Metrics& metrics, const std::string& stage, const char* direction) {
  return metrics.bytes("pipegen_message_size_bytes", "Size of the payload of a message that came in or went out.",
                       {{"stage", stage}, {"direction", direction}});
}

SentCounters::SentCounters(Metrics& metrics, std::string stage)
    : metrics_(metrics), stage_(std::move(stage)), size_(message_size(metrics_, stage_, "out")) {}

void SentCounters::count(const std::string& subject, std::size_t payload_size) {
  Counter* counter = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const bool known = counters_.contains(subject);
    const std::string& name = known || counters_.size() < 100 ? subject : "other";
    auto& slot = counters_[name];
    if (slot == nullptr) {
      slot = &metrics_.counter("messaging_client_sent_messages_total", "Messages published.",
                               {{"stage", stage_}, {"subject", name}});
    }
    counter = slot;
  }
  counter->add();
  size_.observe(static_cast<double>(payload_size));
}

}  // namespace pipegen::nats
