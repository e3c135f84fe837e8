#include "http/entity_batch.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>

namespace pipegen::http {

namespace {

constexpr std::int64_t kWindow = 1'000;
constexpr std::size_t kWindowBytes = 4u << 20;
constexpr std::size_t kMaxRefused = 1'000;

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

}  // namespace

// --- BatchReader -----------------------------------------------------------------------------------------------------

BatchReader::BatchReader(Form form, std::size_t max_size, Message message, Bad bad)
    : form_(form), max_size_(max_size), message_(std::move(message)), bad_(std::move(bad)) {}

void BatchReader::feed(std::string_view part) {
  while (form_ != Form::kLines && depth_ == 0 && !ended_ && !part.empty()) {  // before the array
    const char c = part.front();
    if (c == '[') {
      form_ = Form::kArray;
      depth_ = 1;
      number_ = 1;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      if (c == '\n') ++number_;
    } else if (form_ == Form::kArray) {
      bad_(1, "the body is no JSON array");
      ended_ = said_more_ = true;
    } else {
      form_ = Form::kLines;
      break;
    }
    part.remove_prefix(1);
  }
  if (form_ == Form::kLines) return feed_lines(part);
  feed_array(part);
}

void BatchReader::feed_lines(std::string_view part) {
  while (!part.empty()) {
    const std::size_t line = part.find('\n');
    if (line == std::string_view::npos) return keep(part);
    end(part.substr(0, line), true);
    part.remove_prefix(line + 1);
  }
}

void BatchReader::feed_array(std::string_view part) {
  std::size_t start = 0;
  for (std::size_t i = 0; i < part.size() && !ended_; ++i) {
    const char c = part[i];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (depth_ > 1 && (c == '}' || c == ']')) {
      --depth_;
    } else if (depth_ == 1 && (c == ',' || c == ']')) {
      ended_ = c == ']';
      end(part.substr(start, i - start), ended_ && number_ == 1);
      start = i + 1;
    }
  }
  if (!ended_) return keep(part.substr(start));
  if (!said_more_ && !trimmed(part.substr(start)).empty()) {
    said_more_ = true;
    bad_(number_, "there is something behind the end of the array");
  }
}

void BatchReader::keep(std::string_view part) {
  if (too_long_) return;
  too_long_ = kept_.size() + part.size() > max_size_;
  if (too_long_) {
    kept_ = {};
  } else {
    kept_.append(part);
  }
}

void BatchReader::end(std::string_view part, bool may_be_blank) {
  if (too_long_ || kept_.size() + part.size() > max_size_) {
    bad_(number_, "it is larger than the " + std::to_string(max_size_) + " octets that are allowed");
  } else {
    if (!kept_.empty()) part = kept_.append(part);
    const std::string_view text = trimmed(part);
    if (!text.empty()) {
      message_(number_, text);
    } else if (!may_be_blank) {
      bad_(number_, "there is nothing between two commas");
    }
  }
  kept_.clear();
  too_long_ = false;
  ++number_;
}

void BatchReader::finish() {
  if (form_ == Form::kLines) return end({}, true);
  if (depth_ > 0 && !ended_) bad_(number_, "the array has no end");
}

// --- BatchPublisher --------------------------------------------------------------------------------------------------

struct BatchPublisher::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::int64_t in_flight = 0;
  std::size_t bytes = 0;
  bool waits = false;  // the publishing thread, until there is room or nothing is in flight
  bool drains = false;
  Result result;

  bool has_room() const { return in_flight < kWindow && bytes < kWindowBytes; }
  bool has_much_room() const { return in_flight <= kWindow / 2 && bytes <= kWindowBytes / 2; }

  void finish(std::int64_t number, std::size_t size, const nats::PublishAck* ack, std::string_view error,
              bool permanent) {
    bool wake = false;
    {
      const std::lock_guard lock(mutex);
      --in_flight;
      bytes -= size;
      if (ack != nullptr) {
        ++result.accepted;
      } else if (permanent) {
        ++result.refused_count;
        if (result.refused.size() < kMaxRefused) result.refused.push_back({number, std::string(error)});
      } else {
        result.first_lost = std::min(result.first_lost.value_or(number), number);
        result.full = result.full || error.find(" is full (") != std::string_view::npos;
        result.failure = error;
      }
      wake = waits && (drains ? in_flight == 0 : has_much_room() || result.first_lost.has_value());
    }
    if (wake) changed.notify_one();
  }
};

BatchPublisher::BatchPublisher(nats::Connection& connection)
    : connection_(connection), state_(std::make_shared<State>()) {}

bool BatchPublisher::publish(std::int64_t number, const std::string& subject, std::string_view body,
                             std::string_view message_id, const nats::Headers& headers) {
  State& state = *state_;
  {
    std::unique_lock lock(state.mutex);
    if (!state.has_room()) {
      state.waits = true;
      state.changed.wait(lock, [&] { return state.has_much_room() || state.result.first_lost.has_value(); });
      state.waits = false;
    }
    if (state.result.first_lost) return false;
    ++state.in_flight;
    state.bytes += body.size();
  }
  connection_.publish_async(
      subject, body, message_id, headers,
      [kept = state_, number, size = body.size()](const nats::PublishAck* ack, std::string_view error, bool permanent) {
        kept->finish(number, size, ack, error, permanent);
      });
  return true;
}

BatchPublisher::Result BatchPublisher::finish() {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.waits = state.drains = true;
  state.changed.wait(lock, [&] { return state.in_flight == 0; });
  return state.result;
}

}  // namespace pipegen::http
