// A connection of a client: what it sent that nobody has read yet, and waiting for it only as long as it keeps up.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "http/head.hpp"

namespace pipegen::http {

using Clock = std::chrono::steady_clock;

/// Bodies up to this size are there before a thread is given to their request.
inline constexpr std::uint64_t kMaxBufferedBody = 64 * 1024;

/// How many threads may wait for clients at a time, so that slow ones leave some for everybody else. Thread safe.
class Slots {
 public:
  explicit Slots(int total) : total_(total), left_(total) {}
  bool take() {
    if (--left_ >= 0) return true;
    ++left_;
    return false;
  }
  void give_back() { ++left_; }
  /// Fewer than a quarter are left.
  bool scarce() const { return left_ * 4 < total_; }

 private:
  const int total_;
  std::atomic<int> left_;
};

/// How many connections each address has. Thread safe.
class Addresses {
 public:
  /// Holds one more for the client of this socket until it is destroyed; nothing when that would be more than `most`.
  std::shared_ptr<void> take(int socket, int most);

 private:
  void give_back(const std::string& address);

  std::mutex mutex_;
  std::unordered_map<std::string, int> counts_;
};

/// Owned by the polling thread between requests, and by a serving thread during one. Not thread safe.
class Connection {
 public:
  /// Takes over the socket.
  explicit Connection(int descriptor);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  std::string_view unread() const { return std::string_view(input_).substr(offset_); }
  void consume(std::size_t octets);

  enum class Fill { kMore, kNothing, kClosed };
  /// Takes what the socket has, without waiting.
  Fill fill();

  /// Whether the next request can be served: its head is there, and its body, if that is small and `with_body`. Throws
  /// Problem when it must be refused; `max_head` is the limit for a head.
  bool ready(std::size_t max_head, bool with_body);
  /// The head of the next request, once ready() has found it.
  const std::optional<RequestHead>& head() const { return head_; }
  /// Takes the head away from what is unread.
  RequestHead take_head();

  const int fd;
  int served = 0;
  std::uint64_t sent = 0;         // octets
  bool draining = false;          // answered; reads only so that the client sees the answer before the end
  Clock::time_point deadline;     // of whatever the poller waits for
  std::shared_ptr<void> place{};  // among those of its address

 private:
  std::string input_;
  std::size_t offset_ = 0;
  std::size_t searched_ = 0;  // octets of unread() in which no end of a head begins
  std::size_t head_size_ = 0;
  std::optional<RequestHead> head_;
};

/// Reads and writes for one request, waiting as long as the client keeps up: over each `window` of time spent waiting
/// it must take or give 1 KiB a second, 8 KiB when slots are scarce. A thread waits only while it holds a slot, which
/// it then keeps to the end of the request. Not thread safe.
class Transfer {
 public:
  Transfer(Connection& connection, Slots& slots, std::chrono::milliseconds window)
      : connection_(connection), slots_(slots), reads_(window), writes_(window) {}
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  enum class Failure { kNone, kClosed, kTooSlow, kNoSlot };

  /// False when no slot is left.
  bool hold_slot();
  /// The body that is read from now on must be there by then.
  void read_within(std::chrono::milliseconds timeout) { read_deadline_ = Clock::now() + timeout; }
  /// At least one octet; -1 on failure(), 0 when the client closed.
  ssize_t read(char* out, std::size_t size);
  /// All of it; false on failure().
  bool write(const char* data, std::size_t size);
  Failure failure() const { return failure_; }
  Connection& connection() { return connection_; }

 private:
  /// Time spent waiting for the client, against the octets that it moved.
  class Pace {
   public:
    explicit Pace(std::chrono::milliseconds window) : window_(window) {}
    /// False when it was too slow. `octets`: moved since the beginning.
    bool keeps_up(Clock::duration waited, std::uint64_t octets, std::uint64_t min_rate);
    std::chrono::milliseconds window() const { return window_; }

   private:
    const std::chrono::milliseconds window_;
    Clock::duration waited_{};
    std::uint64_t octets_ = 0;  // when the window began
  };

  bool wait(short events, Clock::time_point deadline, Pace& pace);
  std::uint64_t moved(short events) const;
  bool fail(Failure failure) {
    failure_ = failure;
    return false;
  }

  Connection& connection_;
  Slots& slots_;
  bool has_slot_ = false;
  Pace reads_, writes_;
  Clock::time_point read_deadline_ = Clock::time_point::max();
  std::uint64_t received_ = 0;
  Failure failure_ = Failure::kNone;
};

}  // namespace pipegen::http
