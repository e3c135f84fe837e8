#include "worker/consumer.hpp"

#include <algorithm>
#include <charconv>
#include <vector>

#include "nats/replies.hpp"
#include "pipegen/json.hpp"
#include "pipegen/log.hpp"
#include "worker/delivery.hpp"

namespace pipegen::worker {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kNanosPerMilli = 1'000'000;

std::string_view or_empty(const char* text) { return text == nullptr ? std::string_view() : text; }

std::string_view header_of(const natsMsg* message, const char* name) {
  const char* value = nullptr;
  return natsMsgHeader_Get(const_cast<natsMsg*>(message), name, &value) == NATS_OK ? or_empty(value)
                                                                                   : std::string_view();
}

struct State {
  std::uint64_t ack_floor = 0;
  std::int64_t pending = -1;
};

State read_state(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"ack_floor", json::kOptional}, {"num_pending", json::kOptional}};
  static constexpr json::Field kFloorFields[] = {{"stream_seq", json::kOptional}};
  State state;
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 1) {
      state.pending = in.int64({.min = 0});
      continue;
    }
    for (json::Object floor(in, kFloorFields); floor.next();)
      state.ack_floor = static_cast<std::uint64_t>(in.int64({.min = 0}));
  }
  return state;
}

}  // namespace

PullConsumer::PullConsumer(nats::Connection& connection, const Stage& stage, Options options)
    : connection_(connection),
      stage_(stage),
      options_(options),
      limits_(options),
      watch_(connection, stage, options.heartbeat * options.quiet_heartbeats),
      log_(Logger().with({{"stage", stage.name}, {"consumer", stage.durable}})) {
  if (Metrics* metrics = connection.handles().metrics; metrics != nullptr) {
    recreated_ =
        &metrics->counter("pipegen_consumer_recreations_total",
                          "Times that the durable consumer was gone and was made again.", {{"stage", stage.name}});
    stalls_ = &metrics->counter("pipegen_consumer_stalls_total",
                                "Times that the durable consumer had messages and gave none until it was helped.",
                                {{"stage", stage.name}});
  }
}

void PullConsumer::ensure() {
  auto& handles = connection_.handles();
  const std::string what = "consumer " + stage_.durable + " of stream " + stage_.stream;
  handles.require_connected(what);

  jsConsumerConfig wanted;
  jsConsumerConfig_Init(&wanted);
  wanted.Durable = stage_.durable.c_str();
  wanted.AckPolicy = js_AckExplicit;
  wanted.DeliverPolicy = js_DeliverAll;
  wanted.AckWait = stage_.ack_wait.count() * kNanosPerMilli;
  // Deliveries are counted by the worker: at the server, a crash would count one for every message in hand.
  wanted.MaxDeliver = -1;
  wanted.MaxAckPending = options_.max_ack_pending;
  wanted.FilterSubject = stage_.filter_subject.empty() ? nullptr : stage_.filter_subject.c_str();

  jsErrCode code = static_cast<jsErrCode>(0);
  nats::StreamInfo stream;
  natsStatus status = js_GetStreamInfo(stream.out(), handles.consume_js, stage_.stream.c_str(), nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "stream " + stage_.stream);
  if (stream->Created != stream_created_) floor_ = std::make_shared<Floor>();
  const bool was_there = stream_created_ != 0;
  stream_created_ = stream->Created;

  if (make_again_) remove();

  nats::ConsumerInfo info;
  status =
      js_GetConsumerInfo(info.out(), handles.consume_js, stage_.stream.c_str(), stage_.durable.c_str(), nullptr, &code);
  if (status == NATS_NOT_FOUND) {
    // A work queue has only what nobody has done, and takes no other policy.
    if (const auto floor = floor_->sequence.load(); floor > 0 && stream->Config->Retention != js_WorkQueuePolicy) {
      wanted.DeliverPolicy = js_DeliverByStartSequence;
      wanted.OptStartSeq = floor + 1;
    }
    status = js_AddConsumer(info.out(), handles.consume_js, stage_.stream.c_str(), &wanted, nullptr, &code);
    if (status != NATS_OK) nats::throw_status(status, code, "cannot create " + what);
    limits_ = Limits(options_);
    if (was_there && recreated_ != nullptr) recreated_->add();
    return;
  }
  if (status != NATS_OK) nats::throw_status(status, code, "cannot look up " + what);

  const jsConsumerConfig& found = *info->Config;
  std::string differences;
  const auto differs = [&](std::string_view setting, std::string_view is, std::string_view should_be) {
    differences.append("\n  ")
        .append(setting)
        .append(": it has ")
        .append(is)
        .append(", the schema says ")
        .append(should_be);
  };
  if (!or_empty(found.DeliverSubject).empty()) differs("kind", "push", "pull");
  if (found.AckPolicy != js_AckExplicit)
    differs("ack_policy", found.AckPolicy == js_AckAll ? "all" : "none", "explicit");
  if (or_empty(found.FilterSubject) != stage_.filter_subject) {
    const auto or_none = [](std::string_view subject) { return subject.empty() ? std::string_view("none") : subject; };
    differs("filter_subject", or_none(or_empty(found.FilterSubject)), or_none(stage_.filter_subject));
  }
  if (found.BackOffLen > 0) differs("backoff", "one of the server's", "none (the worker does it)");
  // By start sequence is what a worker makes when it was deleted.
  if (found.DeliverPolicy != js_DeliverAll && found.DeliverPolicy != js_DeliverByStartSequence)
    differs("deliver_policy", "one that leaves messages out", "all");
  if (found.HeadersOnly) differs("headers_only", "true", "false");
  if (found.ReplayPolicy != js_ReplayInstant) differs("replay_policy", "original", "instant");
  if (found.InactiveThreshold > 0) differs("inactive_threshold", "one, so that the server deletes it", "none");
  if (!differences.empty()) {
    throw ConfigError("the " + what +
                      " exists with other settings; give the stage another `consumer:` name or delete it" +
                      differences);
  }
  limits_ = Limits(options_);
  if (found.MaxRequestBatch > 0) limits_.batch = static_cast<std::size_t>(found.MaxRequestBatch);
  if (found.MaxRequestMaxBytes > 0) {
    limits_.max_bytes = std::min(limits_.max_bytes, static_cast<std::size_t>(found.MaxRequestMaxBytes));
  }
  if (found.MaxRequestExpires > 0) {
    limits_.expires = std::min(limits_.expires, milliseconds(found.MaxRequestExpires / kNanosPerMilli));
    limits_.heartbeat = std::min(limits_.heartbeat, limits_.expires / 2);
  }
  if (found.AckWait == wanted.AckWait && found.MaxDeliver <= 0 && found.MaxAckPending == wanted.MaxAckPending) return;
  jsConsumerConfig mended = found;  // keeps what others set: description, replicas, limits of requests
  mended.AckWait = wanted.AckWait;
  mended.MaxDeliver = wanted.MaxDeliver;
  mended.MaxAckPending = wanted.MaxAckPending;
  nats::ConsumerInfo after;
  status = js_UpdateConsumer(after.out(), handles.consume_js, stage_.stream.c_str(), &mended, nullptr, &code);
  if (status != NATS_OK) nats::throw_status(status, code, "cannot update " + what);
}

/// Of a consumer that gives nothing. What was in hand comes again from the new one.
void PullConsumer::remove() {
  make_again_ = false;
  jsErrCode code{};
  const natsStatus status = js_DeleteConsumer(connection_.handles().consume_js, stage_.stream.c_str(),
                                              stage_.durable.c_str(), nullptr, &code);
  // nats-server 2.9 may report that it could not remove the consumer's folder when the consumer is gone all the same.
  if (status != NATS_OK) {
    log_.warning("deleting a consumer that gives nothing was answered with an error",
                 {{"error", natsStatus_GetText(status)}, {"code", static_cast<int>(code)}});
  }
}

void PullConsumer::bind() {
  ensure();
  natsInbox* inbox = nullptr;
  nats::check(natsInbox_Create(&inbox), "cannot make an inbox");
  inbox_ = inbox;
  natsInbox_Destroy(inbox);
  nats::Subscription subscription;
  nats::check(natsConnection_SubscribeSync(subscription.out(), connection_.handles().consume, (inbox_ + ".*").c_str()),
              "cannot subscribe");
  // What is in hand is bounded by the requests; a limit here would drop messages.
  nats::check(natsSubscription_SetPendingLimits(subscription.get(), -1, -1), "cannot set the subscription up");
  subscription_ = std::move(subscription);
  outstanding_ = 0;
  silences_ = 0;
  heard_ = false;
  trouble_.clear();
}

/// Asks without waiting, so that the fetching goes on.
void PullConsumer::note_floor() {
  const auto now = std::chrono::steady_clock::now();
  if (now - floor_asked_ < options_.note_every || floor_->asked || !connection_.connected()) return;
  floor_asked_ = now;
  received_when_asked_ = received_;
  floor_->asked = true;
  connection_.handles().consume_replies->send("$JS.API.CONSUMER.INFO." + stage_.stream + "." + stage_.durable, {}, {},
                                              [floor = floor_](natsStatus status, const nats::Message& answer) {
                                                if (status == NATS_OK) {
                                                  try {
                                                    const State state =
                                                        json::parse(nats::payload_of(answer.get()), read_state);
                                                    // A server that was killed may have forgotten some of it.
                                                    if (state.ack_floor > floor->sequence)
                                                      floor->sequence = state.ack_floor;
                                                    floor->pending = state.pending;
                                                  } catch (const Error&) {
                                                    // Then what was noted before still holds.
                                                  }
                                                }
                                                floor->asked = false;
                                              });
}

std::optional<std::uint64_t> PullConsumer::take_pending() {
  if (floor_->asked) return std::nullopt;
  const std::int64_t pending = floor_->pending.exchange(-1);
  if (pending < 0 || received_ != received_when_asked_) return std::nullopt;
  return static_cast<std::uint64_t>(pending);
}

/// Nothing came for `time`.
void PullConsumer::watch_for_stall(std::chrono::nanoseconds time) {
  if (outstanding_ == 0) return;
  const auto last = parse_ack_subject(last_reply_);
  const StallWatch::Verdict verdict = watch_.nothing_came(time, last && last->pending > 0);
  if (verdict.remedy == StallWatch::Remedy::kNone) return;
  if (stalls_ != nullptr) stalls_->add();
  const char* remedy = "it is asked again";
  if (verdict.remedy == StallWatch::Remedy::kBindAgain) remedy = "it is bound again";
  if (verdict.remedy == StallWatch::Remedy::kMakeAgain) remedy = "it is deleted and made again";
  log_.warning("a consumer has messages and gives none", {{"reason", verdict.why}, {"remedy", remedy}});
  if (verdict.remedy == StallWatch::Remedy::kAskAgain) {
    outstanding_ = 0;
    return;
  }
  make_again_ = verdict.remedy == StallWatch::Remedy::kMakeAgain;
  if (verdict.began_again) floor_ = std::make_shared<Floor>();
  lose("it gives none of its messages: " + verdict.why);
}

void PullConsumer::request(std::size_t batch) {
  const auto now = std::chrono::steady_clock::now();
  // Nothing was wanted for a while: its silence says nothing.
  if (now - last_wanted_ > limits_.heartbeat) watch_.reset();
  batch = std::min(batch, limits_.batch);
  request_inbox_ = inbox_ + "." + std::to_string(++request_number_);
  const std::string subject = "$JS.API.CONSUMER.MSG.NEXT." + stage_.stream + "." + stage_.durable;
  const std::string body = "{\"batch\":" + std::to_string(batch) +
                           ",\"max_bytes\":" + std::to_string(limits_.max_bytes) +
                           ",\"expires\":" + std::to_string(limits_.expires.count() * kNanosPerMilli) +
                           ",\"idle_heartbeat\":" + std::to_string(limits_.heartbeat.count() * kNanosPerMilli) + "}";
  const natsStatus status =
      natsConnection_PublishRequest(connection_.handles().consume, subject.c_str(), request_inbox_.c_str(), body.data(),
                                    static_cast<int>(body.size()));
  if (status != NATS_OK) return lose(std::string("cannot ask for messages: ") + natsStatus_GetText(status));
  outstanding_ = requested_ = batch;
  last_heard_ = last_wanted_ = now;
}

nats::Message PullConsumer::next(std::chrono::milliseconds patience) {
  note_floor();
  nats::Message message;
  const auto began = std::chrono::steady_clock::now();
  const natsStatus status = natsSubscription_NextMsg(message.out(), subscription_.get(), patience.count());
  if (status == NATS_OK) {
    silences_ = 0;
    last_heard_ = last_wanted_ = std::chrono::steady_clock::now();
    if (or_empty(natsMsg_GetReply(message.get())).starts_with("$JS.ACK.")) {
      if (outstanding_ > 0) --outstanding_;
      heard_ = true;
      ++received_;
      watch_.message_came();
      last_reply_ = natsMsg_GetReply(message.get());
      return message;
    }
    take_status(message.get());
    watch_for_stall(last_heard_ - began);
    return {};
  }
  if (outstanding_ > 0) last_wanted_ = std::chrono::steady_clock::now();
  if (status == NATS_TIMEOUT) {
    check_silence();
    watch_for_stall(std::chrono::steady_clock::now() - began);
  } else if (status == NATS_NO_RESPONDERS) {
    lose("nobody answers for the consumer");
  } else {
    lose(std::string("the subscription failed: ") + natsStatus_GetText(status));
  }
  return {};
}

void PullConsumer::take_status(const natsMsg* message) {
  const std::string_view code = header_of(message, "Status"), text = header_of(message, "Description");
  if (code == "100" || code == "404" || code == "408") heard_ = true;
  if (code == "100") return;                                            // heartbeat
  if (or_empty(natsMsg_GetSubject(message)) != request_inbox_) return;  // of a request that is over
  const bool nothing_came = outstanding_ == requested_;
  outstanding_ = 0;
  if (code == "503") return lose("nobody answers for the consumer");
  if (code == "409" && (text.starts_with("Consumer Deleted") || text.starts_with("Consumer is push"))) {
    return lose("the consumer was deleted");
  }
  if (code != "404" && code != "408" && code != "409") {
    lose("the server refused a request for messages: " + std::string(code) + " " + std::string(text));
  } else if (text.starts_with("Exceeded") || (nothing_came && text.starts_with("Message Size"))) {
    lose("the server refused a request for messages: " + std::string(text));
  }
}

void PullConsumer::check_silence() {
  if (!connection_.connected()) {
    was_away_ = true;
    return;
  }
  if (was_away_) {  // requests do not survive a reconnect
    was_away_ = false;
    outstanding_ = 0;
    return;
  }
  if (outstanding_ == 0 || std::chrono::steady_clock::now() - last_heard_ < limits_.heartbeat * 5 / 2) return;
  outstanding_ = 0;
  if (++silences_ >= 2) lose("no heartbeat came");
}

void PullConsumer::lose(std::string why) {
  outstanding_ = 0;
  trouble_ = std::move(why);
  subscription_.reset();
}

void PullConsumer::close(const std::function<void(nats::Message)>& leftover) {
  if (!subscription_) return;
  if (natsSubscription_Drain(subscription_.get()) == NATS_OK) {
    nats::Message message;
    while (natsSubscription_NextMsg(message.out(), subscription_.get(), 200) == NATS_OK) {
      if (or_empty(natsMsg_GetReply(message.get())).starts_with("$JS.ACK.")) leftover(std::move(message));
    }
  }
  subscription_.reset();
}

}  // namespace pipegen::worker
