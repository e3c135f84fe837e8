#include "nats/replies.hpp"

#include <charconv>

#include "pipegen/json.hpp"

namespace pipegen::nats {
namespace {

/// The server's max_control_line is 4,096; the command and the sizes take some of it.
constexpr std::size_t kMostOfControlLine = 3'500;

/// Answers that came before the connection broke may wait for the library's thread that long.
constexpr std::chrono::milliseconds kArriving(250);

Outcome read_outcome(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"stream", json::kOptional},
                                            {"seq", json::kOptional},
                                            {"duplicate", json::kOptional},
                                            {"error", json::kOptional}};
  Outcome outcome;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        outcome.ack.stream = in.string();
        break;
      case 1:
        outcome.ack.sequence = static_cast<std::uint64_t>(in.int64());
        break;
      case 2:
        outcome.ack.duplicate = in.boolean();
        break;
      case 3: {
        ApiError error = read_api_error(in);
        outcome.code = error.code;
        outcome.error = std::move(error.description);
        break;
      }
    }
  }
  return outcome;
}

Outcome outcome_of(natsStatus status, const Message& answer) {
  Outcome outcome;
  outcome.status = status;
  if (status != NATS_OK) return outcome;
  try {
    outcome = json::parse(payload_of(answer.get()), read_outcome);
    if (outcome.code == 0 && outcome.error.empty() && outcome.ack.stream.empty()) {
      outcome.error = "an answer that is no publish ack";
    }
  } catch (const Error&) {
    outcome.error = "an answer that is no publish ack";
  }
  return outcome;
}

}  // namespace

ApiError read_api_error(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"err_code", json::kOptional}, {"description", json::kOptional}};
  ApiError error{.code = 0, .description = "refused"};
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      error.code = in.int32();
    } else {
      error.description = in.string();
    }
  }
  return error;
}

std::string explain(const Outcome& outcome, std::string_view what) {
  std::string text(what);
  switch (outcome.status) {
    case NATS_OK:
      break;
    case NATS_TIMEOUT:
      return text + " got no ack from the NATS server in time (it may be stored all the same)";
    case NATS_CONNECTION_DISCONNECTED:
      return text + " got no ack before the NATS server went away (it may be stored all the same)";
    case NATS_NO_RESPONDERS:
      return text + " was not stored: no stream has this subject, or JetStream is away";
    case NATS_MAX_PAYLOAD:
      return text + " is larger than the server's max_payload: put it into an object bucket, or raise max_payload";
    case NATS_INVALID_SUBJECT:
      return text + " was not stored: this is no subject that can be published to";
    default:
      return text + " was not stored: the NATS server is not connected";
  }
  if (outcome.error.starts_with("maximum ")) {
    text += " was not stored: the stream";
    if (!outcome.ack.stream.empty()) text += " " + outcome.ack.stream;
    return text + " is full (" + outcome.error + ")";
  }
  return text + " was not stored: " + outcome.error;
}

bool is_permanent(const Outcome& outcome) {
  return outcome.status == NATS_MAX_PAYLOAD || outcome.status == NATS_INVALID_SUBJECT ||
         (outcome.status == NATS_OK && outcome.code == JSStreamMessageExceedsMaximumErr);
}

void throw_outcome(const Outcome& outcome, std::string_view what) {
  const std::string text = explain(outcome, what);
  if (is_permanent(outcome)) throw PermanentError(text);
  if (outcome.status != NATS_OK && outcome.status != NATS_NO_RESPONDERS) throw Unconfirmed(text);
  if (outcome.error.starts_with("maximum ")) throw StreamFull(text);
  // Everything else that a stream says about a publish is about its own state: full, sealed, without a leader.
  throw Unavailable(text);
}

Replies::Replies(natsConnection* connection, std::chrono::milliseconds timeout)
    : connection_(connection), timeout_(timeout) {
  natsInbox* inbox = nullptr;
  check(natsInbox_Create(&inbox), "cannot make an inbox");
  inbox_ = std::string(inbox) + ".";
  natsInbox_Destroy(inbox);
  check(natsConnection_Subscribe(subscription_.out(), connection_, (inbox_ + "*").c_str(), on_message, this),
        "cannot subscribe to the inbox");
  // As many answers as requests, so the limit is the callers'; the library's own would drop acks.
  natsSubscription_SetPendingLimits(subscription_.get(), -1, -1);
  natsSubscription_SetOnCompleteCB(subscription_.get(), on_complete, this);
  watcher_ = std::thread([this] { watch(); });
}

Replies::~Replies() {
  natsSubscription_Unsubscribe(subscription_.get());
  {
    std::unique_lock lock(mutex_);
    // A connection that is closed already took the subscription with it, and its callback came then.
    changed_.wait_for(lock, std::chrono::seconds(5), [this] { return subscription_done_; });
    stopping_ = true;
  }
  changed_.notify_all();
  watcher_.join();
}

void Replies::on_message(natsConnection*, natsSubscription*, natsMsg* raw, void* self) {
  auto* replies = static_cast<Replies*>(self);
  Message answer(raw);
  const std::string_view subject = natsMsg_GetSubject(raw);
  std::uint64_t id = 0;
  if (subject.size() <= replies->inbox_.size()) return;
  std::from_chars(subject.data() + replies->inbox_.size(), subject.data() + subject.size(), id);
  const natsStatus status = natsMsg_IsNoResponders(raw) ? NATS_NO_RESPONDERS : NATS_OK;
  replies->finish(id, status, std::move(answer));
}

void Replies::on_complete(void* self) {
  auto* replies = static_cast<Replies*>(self);
  const std::lock_guard lock(replies->mutex_);
  replies->subscription_done_ = true;
  replies->changed_.notify_all();
}

void Replies::finish(std::uint64_t id, natsStatus status, Message answer) {
  Handler handler;
  {
    const std::lock_guard lock(mutex_);
    const auto found = waiting_.find(id);
    if (found == waiting_.end()) return;  // an answer after the timeout
    handler = std::move(found->second);
    waiting_.erase(found);
  }
  handler(status, std::move(answer));
}

void Replies::connection_lost() {
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [deadline, id] : deadlines_) {
      if (waiting_.contains(id)) lost_.emplace_back(Clock::now() + kArriving, id);
    }
    deadlines_.clear();
  }
  changed_.notify_all();
}

void Replies::watch() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto now = Clock::now();
    std::uint64_t id = 0;
    natsStatus status = NATS_TIMEOUT;
    while (!deadlines_.empty() && !waiting_.contains(deadlines_.front().second)) deadlines_.pop_front();
    if (!failed_.empty()) {
      std::tie(id, status) = failed_.front();
      failed_.pop_front();
    } else if (!lost_.empty() && (stopping_ || lost_.front().first <= now)) {
      id = lost_.front().second;
      status = NATS_CONNECTION_DISCONNECTED;
      lost_.pop_front();
    } else if (!deadlines_.empty() && (stopping_ || deadlines_.front().first <= now)) {
      id = deadlines_.front().second;
      if (stopping_) status = NATS_CONNECTION_CLOSED;
    } else if (stopping_) {
      return;
    } else {
      changed_.wait_for(lock, std::chrono::milliseconds(100));
      continue;
    }
    lock.unlock();
    finish(id, status, {});
    lock.lock();
  }
}

void Replies::send(const std::string& subject, std::string_view payload, const Headers& headers, Handler handler) {
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_id_;
    waiting_.emplace(id, std::move(handler));
    deadlines_.emplace_back(Clock::now() + timeout_, id);
  }
  const std::string reply = inbox_ + std::to_string(id);
  natsStatus status = NATS_OK;
  // The server answers what it cannot read with an error that closes the connection for good.
  const bool readable = !subject.empty() && subject.find_first_of(" \t\r\n") == std::string::npos &&
                        subject.size() + reply.size() <= kMostOfControlLine;
  if (!readable) {
    status = NATS_INVALID_SUBJECT;
  } else if (headers.empty()) {
    status = natsConnection_PublishRequest(connection_, subject.c_str(), reply.c_str(), payload.data(),
                                           static_cast<int>(payload.size()));
  } else {
    Message message;
    status =
        natsMsg_Create(message.out(), subject.c_str(), reply.c_str(), payload.data(), static_cast<int>(payload.size()));
    for (const auto& [name, value] : headers) {
      if (status == NATS_OK) status = natsMsgHeader_Set(message.get(), name.c_str(), value.c_str());
    }
    if (status == NATS_OK) status = natsConnection_PublishMsg(connection_, message.get());
  }
  if (status == NATS_OK) return;
  {
    const std::lock_guard lock(mutex_);
    failed_.emplace_back(id, status);
  }
  changed_.notify_all();
}

void Replies::publish(const std::string& subject, std::string_view payload, const Headers& headers,
                      std::function<void(Outcome)> done) {
  send(subject, payload, headers,
       [done = std::move(done)](natsStatus status, Message answer) { done(outcome_of(status, answer)); });
}

Outcome Replies::publish(const std::string& subject, std::string_view payload, const Headers& headers) {
  auto promise = std::make_shared<std::promise<Outcome>>();
  auto outcome = promise->get_future();
  publish(subject, payload, headers, [promise](Outcome value) { promise->set_value(std::move(value)); });
  return outcome.get();
}

std::future<Message> Replies::request(const std::string& subject, std::string payload, std::string what) {
  auto promise = std::make_shared<std::promise<Message>>();
  auto answer = promise->get_future();
  send(subject, payload, {}, [promise, what = std::move(what)](natsStatus status, Message message) {
    try {
      check(status, what);
      promise->set_value(std::move(message));
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
  });
  return answer;
}

}  // namespace pipegen::nats
