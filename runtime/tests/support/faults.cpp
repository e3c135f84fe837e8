#include "support/faults.hpp"

#include <algorithm>

namespace pipegen::testing {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

int Tally::add(std::string_view payload) {
  const std::lock_guard lock(mutex_);
  ++total_;
  return ++counts_[std::string(payload)];
}

int Tally::of(const std::string& payload) const {
  const std::lock_guard lock(mutex_);
  const auto at = counts_.find(payload);
  return at == counts_.end() ? 0 : at->second;
}

std::size_t Tally::distinct() const {
  const std::lock_guard lock(mutex_);
  return counts_.size();
}

std::size_t Tally::total() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

int Tally::most() const {
  const std::lock_guard lock(mutex_);
  int most = 0;
  for (const auto& [payload, count] : counts_) most = std::max(most, count);
  return most;
}

std::set<std::string> Tally::all() const {
  const std::lock_guard lock(mutex_);
  std::set<std::string> out;
  for (const auto& [payload, count] : counts_) out.insert(payload);
  return out;
}

nats::StreamInfo stream_info(nats::Connection& connection, const std::string& stream) {
  nats::StreamInfo info;
  jsErrCode code{};
  const natsStatus status =
      js_GetStreamInfo(info.out(), connection.handles().publish_js, stream.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "stream " + stream);
  return info;
}

nats::ConsumerInfo consumer_info(nats::Connection& connection, const std::string& stream, const std::string& durable) {
  nats::ConsumerInfo info;
  jsErrCode code{};
  const natsStatus status =
      js_GetConsumerInfo(info.out(), connection.handles().publish_js, stream.c_str(), durable.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "consumer " + durable);
  return info;
}

std::uint64_t stored(nats::Connection& connection, const std::string& stream) {
  return stream_info(connection, stream)->State.Msgs;
}

std::string state_of(nats::Connection& connection, const std::string& stream, const std::string& durable) {
  const auto s = stream_info(connection, stream);
  const auto c = consumer_info(connection, stream, durable);
  return stream + ": " + std::to_string(s->State.Msgs) + " messages, " + std::to_string(s->State.FirstSeq) + " to " +
         std::to_string(s->State.LastSeq) + "; " + durable + ": delivered " + std::to_string(c->Delivered.Stream) +
         ", floor " + std::to_string(c->AckFloor.Stream) + ", pending " + std::to_string(c->NumPending) +
         ", ack pending " + std::to_string(c->NumAckPending) + ", waiting " + std::to_string(c->NumWaiting) + "\n";
}

namespace {

std::vector<std::string> payloads_to(nats::Connection& connection, const std::string& stream, std::uint64_t& last) {
  std::vector<std::string> out;
  const auto info = stream_info(connection, stream);
  last = info->State.LastSeq;
  for (std::uint64_t seq = info->State.FirstSeq; seq != 0 && seq <= last; ++seq) {
    nats::Message message;
    if (js_GetMsg(message.out(), connection.handles().publish_js, stream.c_str(), seq, nullptr, nullptr) == NATS_OK) {
      out.emplace_back(nats::payload_of(message.get()));
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> payloads(nats::Connection& connection, const std::string& stream) {
  std::uint64_t last = 0;
  return payloads_to(connection, stream, last);
}

std::vector<std::string> take_payloads(nats::Connection& connection, const std::string& stream) {
  std::uint64_t last = 0;
  auto taken = payloads_to(connection, stream, last);
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Purge.Sequence = last + 1;
  jsErrCode code{};
  const natsStatus status = js_PurgeStream(connection.handles().publish_js, stream.c_str(), &options, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "stream " + stream);
  return taken;
}

}  // namespace pipegen::testing
