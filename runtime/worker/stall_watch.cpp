#include "worker/stall_watch.hpp"

#include <functional>
#include <utility>

#include "nats/replies.hpp"

namespace pipegen::worker {
namespace {

std::uint64_t read_number(json::Reader& in) { return static_cast<std::uint64_t>(in.int64({.min = 0})); }

/// The sequence of the message in the answer, 0 when there is none.
std::uint64_t read_found(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"message", json::kOptional}};
  static constexpr json::Field kMessageFields[] = {{"seq"}};
  std::uint64_t sequence = 0;
  for (json::Object fields(in, kFields); fields.next();) {
    for (json::Object message(in, kMessageFields); message.next();) sequence = read_number(in);
  }
  return sequence;
}

}  // namespace

StallWatch::StallWatch(nats::Connection& connection, const Stage& stage, std::chrono::milliseconds patience)
    : connection_(connection),
      stream_(stage.stream),
      durable_(stage.durable),
      subject_(stage.filter_subject.empty() ? ">" : stage.filter_subject),
      patience_(patience),
      longest_in_hand_(stage.timeout + stage.ack_wait) {}

void StallWatch::reset() {
  quiet_since_ = window_began_ = Clock::now();
  waited_in_window_ = {};
  trickles_ = false;
  before_.reset();
  stalls_ = 0;
}

void StallWatch::message_came() {
  quiet_since_ = Clock::now();
  if (trickles_) return;
  before_.reset();
  stalls_ = 0;
}

StallWatch::Verdict StallWatch::nothing_came(std::chrono::nanoseconds time, bool has_more) {
  const auto now = Clock::now();
  if (!connection_.connected()) {
    reset();
    return {};
  }
  if (has_more) waited_in_window_ += time;
  if (now - window_began_ >= patience_) {
    trickles_ = waited_in_window_ >= (now - window_began_) * 4 / 5;
    window_began_ = now;
    waited_in_window_ = {};
  }
  if (now - quiet_since_ < patience_ && !trickles_) return {};
  std::optional<Report> report;
  {
    const std::lock_guard lock(asked_->mutex);
    if (asked_->open) return {};
    report.swap(asked_->report);
  }
  if (report) return judge(*report);
  if (now >= next_look_) {
    next_look_ = now + patience_;
    ask();
  }
  return {};
}

StallWatch::Report StallWatch::read_consumer(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"created"},
                                            {"config"},
                                            {"delivered"},
                                            {"num_pending"},
                                            {"num_ack_pending"},
                                            {"num_waiting", json::kOptional},
                                            {"paused", json::kOptional}};
  static constexpr json::Field kConfigFields[] = {{"max_ack_pending", json::kOptional}};
  static constexpr json::Field kDeliveredFields[] = {{"consumer_seq"}, {"stream_seq"}};
  Report out;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.created = in.string();
        break;
      case 1:
        for (json::Object config(in, kConfigFields); config.next();) out.max_ack_pending = in.int64();
        break;
      case 2:
        for (json::Object delivered(in, kDeliveredFields); delivered.next();) {
          (delivered.index() == 0 ? out.deliveries : out.delivered) = read_number(in);
        }
        break;
      case 3:
        out.pending = read_number(in);
        break;
      case 4:
        out.ack_pending = read_number(in);
        break;
      case 5:
        out.waiting = read_number(in);
        break;
      case 6:
        out.paused = in.boolean();
        break;
    }
  }
  return out;
}

void StallWatch::read_stream(json::Reader& in, Report& report) {
  static constexpr json::Field kFields[] = {{"config"}, {"state"}};
  static constexpr json::Field kConfigFields[] = {{"retention"}};
  static constexpr json::Field kStateFields[] = {{"last_seq"}, {"subjects", json::kOptional}};
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      for (json::Object config(in, kConfigFields); config.next();) report.work_queue = in.string() == "workqueue";
      continue;
    }
    for (json::Object state(in, kStateFields); state.next();) {
      if (state.index() == 0) {
        report.last = read_number(in);
        continue;
      }
      for (const auto& [subject, messages] : in.map<std::uint64_t>(read_number)) report.messages += messages;
    }
  }
}

/// Whether a work queue has messages that its consumer neither has to deliver nor waits for the acks of.
bool StallWatch::is_left_behind(const Report& report) {
  return report.work_queue && report.pending == 0 && report.messages > report.ack_pending;
}

/// Three questions, one after the other, without waiting. The stream is asked after its consumer, so that it is never
/// behind it without a reason.
void StallWatch::ask() {
  using Answer = std::function<void(const nats::Message&)>;
  nats::Replies* replies = connection_.handles().consume_replies.get();
  const auto close = [asked = asked_](std::optional<Report> report) {
    const std::lock_guard lock(asked->mutex);
    asked->report = std::move(report);
    asked->open = false;
  };
  const auto send = [replies, close](const std::string& subject, const std::string& body, Answer next) {
    replies->send(subject, body, {}, [close, next = std::move(next)](natsStatus status, const nats::Message& answer) {
      if (status != NATS_OK) return close(std::nullopt);
      try {
        next(answer);
      } catch (const Error&) {  // the server says that something is not there, or that it has no leader
        close(std::nullopt);
      }
    });
  };
  {
    const std::lock_guard lock(asked_->mutex);
    asked_->open = true;
  }
  send("$JS.API.CONSUMER.INFO." + stream_ + "." + durable_, {},
       [send, close, stream = stream_, subject = subject_](const nats::Message& consumer) {
         Report report = json::parse(nats::payload_of(consumer.get()), read_consumer);
         json::Writer question;
         question.begin_object();
         question.field("subjects_filter", subject);
         question.end_object();
         send("$JS.API.STREAM.INFO." + stream, question.take(), [=](const nats::Message& answer) mutable {
           json::parse(nats::payload_of(answer.get()), [&](json::Reader& in) {
             read_stream(in, report);
             return 0;
           });
           if (report.messages == 0) return close(report);
           const std::uint64_t from = is_left_behind(report) ? 1 : report.delivered + 1;
           json::Writer request;
           request.begin_object();
           request.field("seq", static_cast<std::int64_t>(from));
           request.field("next_by_subj", subject);
           request.end_object();
           send("$JS.API.STREAM.MSG.GET." + stream, request.take(), [=](const nats::Message& message) mutable {
             report.found = json::parse(nats::payload_of(message.get()), read_found);
             close(report);
           });
         });
       });
}

StallWatch::Verdict StallWatch::judge(const Report& report) {
  if (report.paused) {  // nothing is to come, and one that is made again would not be paused any more
    before_.reset();
    stalls_ = 0;
    return {};
  }
  Verdict verdict;
  const std::string delivered = std::to_string(report.delivered), found = std::to_string(report.found);
  if (report.last < report.delivered) {
    verdict = {Remedy::kMakeAgain,
               "the last sequence of the stream is " + std::to_string(report.last) +
                   ", and it waits for what is behind " + delivered,
               true};
  } else if (report.found > report.delivered) {
    const bool full =
        report.max_ack_pending > 0 && report.ack_pending >= static_cast<std::uint64_t>(report.max_ack_pending);
    // As many acks as may be open: that is others at work, unless those messages are gone.
    const bool gone = report.work_queue && report.ack_pending > report.messages;
    if (full ? gone : report.waiting > 0) {
      verdict = {full ? Remedy::kMakeAgain : Remedy::kAskAgain, "message " + found + " waits and is not delivered"};
    }
  } else if (report.found != 0) {
    verdict = {Remedy::kMakeAgain, "message " + found + " is in the work queue, and the consumer has it as acked"};
  }
  const bool same = before_ && before_->created == report.created &&
                    (before_->deliveries == report.deliveries || trickles_) &&
                    (before_->found == report.found || trickles_) && before_->last <= report.last;
  const auto now = Clock::now();
  if (!same) same_since_ = now;
  // Messages that somebody has in hand would be given to somebody else. Nobody has one for longer than this.
  const bool in_hand = is_left_behind(report) && report.ack_pending > 0 && now - same_since_ < longest_in_hand_;
  before_ = report;
  if (verdict.remedy == Remedy::kNone) {
    before_.reset();
    stalls_ = 0;
    return {};
  }
  next_look_ = now + patience_ / 2;
  if (!same) stalls_ = 0;
  if (!same || in_hand) return {};
  ++stalls_;
  if (verdict.remedy == Remedy::kAskAgain && stalls_ > 1) {
    verdict.remedy = stalls_ == 2 ? Remedy::kBindAgain : Remedy::kMakeAgain;
  }
  if (verdict.remedy == Remedy::kMakeAgain) reset();
  return verdict;
}

}  // namespace pipegen::worker
