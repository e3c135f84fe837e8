#include "worker/intake.hpp"

#include <algorithm>
#include <utility>

#include "nats/sent.hpp"
#include "worker/retries.hpp"

namespace pipegen::worker {

Intake::Intake(natsConnection* connection, Metrics& metrics, const std::string& stage,
               const std::vector<std::string>& subjects, std::function<void()> finished)
    : connection_(connection),
      finished_(std::move(finished)),
      log_(Logger().with({{"stage", stage}})),
      redelivered_(
          metrics.counter("pipegen_redeliveries_total", "Messages delivered more than once.", {{"stage", stage}})),
      late_(metrics.counter("pipegen_late_redeliveries_total",
                            "Messages delivered again while in hand: their in-progress signals were late.",
                            {{"stage", stage}})),
      acked_(metrics.counter("pipegen_messages_acked_total", "Messages handled and acked.", {{"stage", stage}})),
      naks_(metrics.counter("pipegen_naks_total", "Messages handed back because they failed.", {{"stage", stage}})),
      handed_back_(metrics.counter("pipegen_hand_backs_total", "Messages handed back because the process stops.",
                                   {{"stage", stage}})),
      dead_letters_(metrics.counter("pipegen_dead_letters_total", "Messages moved to the dead-letter stream.",
                                    {{"stage", stage}})),
      lag_(metrics.seconds("pipegen_delivery_lag_seconds", "Age of a message when it is taken in hand.",
                           {{"stage", stage}})),
      size_(nats::message_size(metrics, stage, "in")),
      in_flight_(metrics.gauge("pipegen_in_flight", "Messages in hand.", {{"stage", stage}})) {
  for (const std::string& subject : subjects) {
    const Labels labels{{"stage", stage}, {"subject", subject}};
    sources_.emplace_back(
        metrics.counter("messaging_client_consumed_messages_total", "Messages taken in hand.", labels),
        metrics.gauge("pipegen_pending", "Messages that the consumer has still to deliver.", labels));
  }
}

std::shared_ptr<Delivery> Intake::take(nats::Message message, std::size_t consumer) {
  const auto from = parse_ack_subject(natsMsg_GetReply(message.get()));
  if (!from) {
    log_.error("a message came with a reply subject that is not JetStream's",
               {{"reply", natsMsg_GetReply(message.get())}});
    return nullptr;
  }
  Source& source = sources_[consumer];
  source.pending_now = from->pending;
  auto delivery = std::make_shared<Delivery>(std::move(message), *from);
  source.consumed.add();
  size_.observe(static_cast<double>(delivery->payload().size()));
  if (delivery->deliveries > 1) redelivered_.add();
  const auto age =
      std::chrono::system_clock::now().time_since_epoch() - std::chrono::nanoseconds(delivery->key.stored_at);
  lag_.observe(std::max(0.0, std::chrono::duration<double>(age).count()));
  switch (in_hand_.add(delivery)) {
    case InHand::Arrival::kAlreadyDone:
      answer(delivery->reply(), "+ACK");
      return nullptr;
    case InHand::Arrival::kAlreadyInHand:
      late_.add();
      return nullptr;
    case InHand::Arrival::kNew:
      break;
  }
  return delivery;
}

void Intake::leave(const nats::Message& message) {
  answer(natsMsg_GetReply(message.get()), "-NAK");
  handed_back_.add();
}

void Intake::ack(const Delivery& delivery) {
  if (finish(delivery, "+ACK", true)) acked_.add();
}

void Intake::ack_all(const std::vector<const Delivery*>& deliveries) {
  const auto finished = in_hand_.finish_all(deliveries, true);
  for (const auto& delivery : finished) answer(delivery->reply(), "+ACK");
  acked_.add(static_cast<double>(finished.size()));
  finished_();
}

void Intake::nak(const Delivery& delivery, std::chrono::milliseconds delay) {
  if (finish(delivery, nak_body(delay), false)) naks_.add();
}

void Intake::hand_back(const Delivery& delivery) {
  if (finish(delivery, nak_body(std::chrono::milliseconds(0)), false)) handed_back_.add();
}

void Intake::hand_back_all() {
  for (const auto& delivery : in_hand_.all()) hand_back(*delivery);
}

void Intake::term(const Delivery& delivery) {
  dead_letters_.add();
  finish(delivery, "+TERM", true);
}

void Intake::signal_progress() {
  for (const std::string& reply : in_hand_.replies()) answer(reply.c_str(), "+WPI");
}

void Intake::show() {
  for (Source& source : sources_) source.pending.set(static_cast<double>(source.pending_now));
  in_flight_.set(static_cast<double>(in_hand_.size()));
}

bool Intake::finish(const Delivery& delivery, std::string_view body, bool done) {
  const auto finished = in_hand_.finish(delivery, done);
  if (!finished) return false;
  answer(finished->reply(), body);
  finished_();
  return true;
}

void Intake::answer(const char* reply, std::string_view body) {
  // Not natsMsg_Ack: that needs the subscription, which may have been replaced, and would answer the older of two
  // deliveries.
  natsConnection_Publish(connection_, reply, body.data(), static_cast<int>(body.size()));
}

}  // namespace pipegen::worker
