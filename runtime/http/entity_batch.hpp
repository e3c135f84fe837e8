// POST /ingest/batch: a body of many messages, taken apart while it arrives and published with a bounded window.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/json.hpp"
#include "pipegen/nats.hpp"

namespace pipegen::http {

/// Finds the messages in a body that comes in parts of any size. Keeps one message at most. Whether what it finds is
/// JSON is for others to say.
class BatchReader {
 public:
  enum class Form { kLines, kArray, kEither };  // kEither: an array when the first character is '['
  /// Gets a message: its line, or its place in the array, counted from 1. Blank lines are left out.
  using Message = std::function<void(std::int64_t number, std::string_view text)>;
  /// Gets what cannot be one.
  using Bad = std::function<void(std::int64_t number, const std::string& detail)>;

  BatchReader(Form form, std::size_t max_size, Message message, Bad bad);
  void feed(std::string_view part);
  /// The body has come to its end.
  void finish();

 private:
  void feed_lines(std::string_view part);
  void feed_array(std::string_view part);
  /// Appends to what is kept of a message that is not complete.
  void keep(std::string_view part);
  /// A message ends with `part`.
  void end(std::string_view part, bool may_be_blank);

  Form form_;
  const std::size_t max_size_;
  const Message message_;
  const Bad bad_;
  std::int64_t number_ = 1;
  std::string kept_;
  bool too_long_ = false;
  // Of an array:
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool ended_ = false;
  bool said_more_ = false;
};

/// Publishes without waiting for each ack, 1,000 messages or 4 MiB at a time. For one thread.
class BatchPublisher {
 public:
  /// A message that the stream will never take.
  struct Refused {
    std::int64_t number = 0;
    std::string reason{};
  };
  struct Result {
    std::int64_t accepted = 0;
    std::vector<Refused> refused{};            // the first thousand of
    std::int64_t refused_count = 0;            // these
    std::optional<std::int64_t> first_lost{};  // the first that is not, or perhaps not, in the stream
    std::string failure{};                     // why
    bool full = false;                         // it was the stream that had no room
  };

  explicit BatchPublisher(nats::Connection& connection);
  /// Waits for room. False when an earlier one failed: then nothing was sent, and to go on is no use.
  bool publish(std::int64_t number, const std::string& subject, std::string_view body, std::string_view message_id,
               const nats::Headers& headers);
  /// Waits for every ack (they all come, or time out).
  Result finish();

 private:
  struct State;
  nats::Connection& connection_;
  std::shared_ptr<State> state_;  // the acks' too
};

}  // namespace pipegen::http
