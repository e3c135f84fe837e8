#include "worker/outbox.hpp"

#include <algorithm>

#include "pipegen/log.hpp"

namespace pipegen::worker {

void Publishes::seal(Over over) {
  std::string refusal;
  {
    const std::lock_guard lock(mutex_);
    if (open_ != 0) {
      over_ = std::move(over);
      return;
    }
    refusal = refusal_;
  }
  over(refusal);
}

void Publishes::abandon() {
  const std::lock_guard lock(mutex_);
  abandoned_ = true;
}

void Publishes::wait(std::stop_token stop) {
  const std::stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return open_ == 0 || !failure_.empty() || !refusal_.empty() || stop.stop_requested(); });
  if (!refusal_.empty()) throw PermanentError(refusal_);
  if (open_ == 0) return;
  if (!failure_.empty()) throw Unavailable("an event could not be stored: " + failure_);
  throw Cancelled("told to stop while waiting for events to be stored");
}

void Publisher::close() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return in_library_ == 0; });
}

/// One always fits, however large it is.
bool Publisher::has_room(std::size_t size) const {
  return open_ == 0 || (open_ < kMostOpen && open_bytes_ + size <= kMostOpenBytes);
}

void Publisher::publish(PendingPublish publish, std::stop_token stop) {
  const std::int64_t room = connection_.max_payload();
  std::size_t size = publish.payload.size();
  for (const auto& [name, value] : publish.headers) size += name.size() + value.size() + 4;
  if (room > 0 && size + publish.message_id.size() + 64 > static_cast<std::size_t>(room)) {
    throw PermanentError("an event for " + publish.subject + " has " + std::to_string(size) +
                         " octets, the server takes " + std::to_string(room) +
                         "; put large data into an object and publish its key");
  }
  publish.size = size;
  {
    const std::stop_callback wake(stop, [this] {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    });
    std::unique_lock lock(mutex_);
    const bool in_time = clock_.wait_for(changed_, lock, std::chrono::seconds(10),
                                         [&] { return has_room(size) || stop.stop_requested(); });
    if (!in_time) throw Unavailable("events cannot be stored: " + (failure_.empty() ? "no answer" : failure_));
    if (!has_room(size)) throw Cancelled("told to stop while publishing");
    ++open_;
    open_bytes_ += size;
  }
  const auto pending = std::make_shared<PendingPublish>(std::move(publish));
  {
    const std::lock_guard lock(pending->owner->mutex_);
    ++pending->owner->open_;
  }
  send(pending);
}

void Publisher::send(const std::shared_ptr<PendingPublish>& publish) {
  {
    const std::lock_guard lock(mutex_);
    ++in_library_;
  }
  const auto answered = [this, publish](const nats::PublishAck* ack, std::string_view error, bool permanent) {
    settled(publish, ack, error, permanent);
    const std::lock_guard lock(mutex_);
    --in_library_;
    changed_.notify_all();
  };
  try {
    connection_.publish_async(publish->subject, publish->payload, publish->message_id, publish->headers, answered);
  } catch (const std::exception& error) {  // nothing was sent, nobody calls back
    answered(nullptr, error.what(), false);
  }
}

void Publisher::settled(const std::shared_ptr<PendingPublish>& publish, const nats::PublishAck* ack,
                        std::string_view error, bool permanent) {
  Publishes& owner = *publish->owner;
  const bool is_entry = publish->message_id.empty();
  if (permanent && is_entry) {
    // Only a report on the message, which is done all the same.
    Logger().error("an entry can never be stored", {{"subject", publish->subject}, {"error", error}});
  }
  Publishes::Over last;
  std::string refusal;
  bool over = true;
  {
    const std::lock_guard lock(owner.mutex_);
    over = ack != nullptr || permanent || owner.abandoned_;
    if (!over) {
      owner.failure_ = publish->subject + ": " + std::string(error);
    } else {
      if (permanent && !is_entry && owner.refusal_.empty()) owner.refusal_ = error;
      --owner.open_;
      if (owner.open_ == 0) {
        owner.failure_.clear();
        last = std::move(owner.over_);
        refusal = owner.refusal_;
      }
    }
    owner.changed_.notify_all();
  }
  {
    const std::lock_guard lock(mutex_);
    if (over) {
      --open_;
      open_bytes_ -= publish->size;
      failing_.erase(publish.get());
      if (ack == nullptr) publish->span.fail(permanent ? "PermanentError" : "Unavailable", error);
      publish->span.end();
    } else {
      failing_.insert(publish.get());
      failure_ = publish->subject + ": " + std::string(error);
      publish->due = clock_.now() +
                     std::min<std::chrono::milliseconds>(
                         std::chrono::milliseconds(500) * (1 << std::min(publish->tries, 4)), std::chrono::seconds(5));
      ++publish->tries;
      waiting_.push_back(publish);
    }
    changed_.notify_all();
  }
  if (last) last(refusal);
}

void Publisher::repeat_failed() {
  std::vector<std::shared_ptr<PendingPublish>> due;
  {
    const std::lock_guard lock(mutex_);
    const auto now = clock_.now();
    const auto later = std::partition(waiting_.begin(), waiting_.end(), [&](const auto& p) { return p->due > now; });
    due.assign(std::make_move_iterator(later), std::make_move_iterator(waiting_.end()));
    waiting_.erase(later, waiting_.end());
  }
  for (const auto& publish : due) {
    bool abandoned = false;
    {
      const std::lock_guard lock(publish->owner->mutex_);
      abandoned = publish->owner->abandoned_;
    }
    if (!abandoned) {
      repeated_.add();
      send(publish);
      continue;
    }
    const std::lock_guard lock(mutex_);
    --open_;
    open_bytes_ -= publish->size;
    failing_.erase(publish.get());
    changed_.notify_all();
  }
}

std::string Publisher::trouble() const {
  const std::lock_guard lock(mutex_);
  return failing_.empty() ? std::string() : "events cannot be stored: " + failure_;
}

std::size_t Publisher::open() const {
  const std::lock_guard lock(mutex_);
  return open_;
}

CallOutbox::CallOutbox(Publisher& publisher, SentCounters& sent, const Settings& settings, const Stage& stage,
                       const MessageInfo& message, std::stop_token stop)
    : publisher_(publisher),
      sent_(sent),
      settings_(settings),
      stage_(stage),
      message_(message),
      stop_(std::move(stop)) {}

std::string CallOutbox::id_at(std::size_t position) const {
  return Uuid::derived(message_.id + ":" + stage_.name + ":" + std::to_string(position)).to_string();
}

void CallOutbox::publish(Outgoing event) {
  std::string id = id_at(published_);
  // A span for each: its end says when the event was stored, and whoever consumes it is its child.
  trace::Span span(trace::Kind::kProducer, "send", event.subject, message_.trace);
  if (span.recorded()) {
    span.set("messaging.system", "nats");
    span.set("messaging.operation.name", "send");
    span.set("messaging.operation.type", "send");
    span.set("messaging.destination.name", event.subject);
    span.set("messaging.message.id", id);
    span.set("messaging.message.body.size", event.payload.size());
    if (!message_.workflow_id.empty()) span.set("messaging.message.conversation_id", message_.workflow_id);
  }
  nats::Headers headers;
  trace::add_to(headers, span.context());
  if (!message_.workflow_id.empty()) headers.emplace("Pipegen-Workflow-Id", message_.workflow_id);
  if (event.is_result) result_ = Result{std::string(event.event), event.payload};
  const std::string subject = event.subject;
  const std::size_t size = event.payload.size();
  publisher_.publish({.subject = std::move(event.subject),
                      .payload = std::move(event.payload),
                      .message_id = std::move(id),
                      .headers = std::move(headers),
                      .owner = publishes_,
                      .span = std::move(span)},
                     stop_);
  ++published_;
  ++produced_[std::string(event.event)];
  sent_.count(subject, size);
}

void CallOutbox::publish_entry(std::string subject, std::string value) {
  publisher_.publish({.subject = std::move(subject),
                      .payload = std::move(value),
                      .message_id = {},
                      .headers = {},
                      .owner = publishes_,
                      .span = {}},
                     {});
}

}  // namespace pipegen::worker
