// Events on their way out: what generated publish() functions call. See stage.hpp for where the outbox comes from.
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pipegen/settings.hpp"
#include "pipegen/types.hpp"

namespace pipegen {

/// Makes the `fresh` fields of one outgoing event: a uuid is the same at every redelivery, the time is not.
class Fresh {
 public:
  explicit Fresh(std::string message_id) : message_id_(message_id), scope_(std::move(message_id)) {}
  /// Nats-Msg-Id of the event.
  const std::string& message_id() const noexcept { return message_id_; }
  /// Of the field at that path, "header.event_id": another one for each field.
  Uuid uuid(std::string_view path) const { return Uuid::derived(concat(scope_, ":", path)); }
  Timestamp now() const { return pipegen::now(); }
  /// For what is inside of the field at that path.
  Fresh in(std::string_view path) const {
    Fresh inner(*this);
    inner.scope_ = concat(scope_, ":", path);
    return inner;
  }

 private:
  std::string message_id_{};
  std::string scope_{};  // what the uuids are derived from
};

// The fresh fields of what is in an optional, a list or a map. renew(Record&, const Fresh&) is generated for the
// records that have some.
template <typename T>
void renew(std::optional<T>& value, const Fresh& fresh) {
  if (value) renew(*value, fresh);
}
template <typename T>
void renew(std::vector<T>& values, const Fresh& fresh) {
  for (std::size_t i = 0; i < values.size(); ++i) renew(values[i], fresh.in(std::to_string(i)));
}
template <typename T>
void renew(std::map<std::string, T>& values, const Fresh& fresh) {
  std::size_t i = 0;
  for (auto& [key, value] : values) renew(value, fresh.in(std::to_string(i++)));
}

/// An event on its way out.
struct Outgoing {
  std::string_view event{};  // its name in the schema
  std::string subject{};
  std::string payload{};
  bool is_result = false;  // the workflow's result: kept with its status for the API
};

/// Where a stage's events go. Each is published at once, without waiting; the message in hand is acked when all of them
/// are. Nats-Msg-Id is derived from the consumed message's id, the stage and the position of the event among those that
/// this call published: emit in the same order every time.
class Outbox {
 public:
  virtual ~Outbox() = default;
  virtual const Settings& settings() const = 0;
  /// For the event that publish() is called with next.
  virtual Fresh fresh() = 0;
  virtual void publish(Outgoing event) = 0;
};

/// What a handler that makes several events calls: `emit(event)`; `emit(event, region)` when {region} in its subject is
/// no field of it. `publish(Outbox&, Event, Parameters...)` is generated for each event.
template <typename Event, typename... Parameters>
class Emitter {
 public:
  explicit Emitter(Outbox& outbox) : outbox_(outbox) {}
  void operator()(Event event, Parameters... parameters) { publish(outbox_, std::move(event), parameters...); }

 private:
  Outbox& outbox_;
};

/// Values for the placeholders of a subject ("orders.{region}.created"); each must be one token of a subject (no dot,
/// blank or wildcard, not empty), else PermanentError.
std::string fill_subject(std::string_view subject,
                         std::initializer_list<std::pair<std::string_view, std::string>> values);

/// The subjects that such a subject can become: "orders.*.created".
std::string subject_filter(std::string_view subject);

}  // namespace pipegen
