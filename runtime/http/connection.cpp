#include "http/connection.hpp"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "http/server.hpp"

namespace pipegen::http {

namespace {

constexpr std::uint64_t kMinRate = 1024;            // octets per second
constexpr std::uint64_t kMinRateScarce = 8 * 1024;  // still less than any sound or picture is played at
// The system's own choice grows to megabytes, which a slow reader holds for minutes.
constexpr int kSendBuffer = 256 * 1024;

/// The address that a socket is connected to: of IPv6 the network, because a client has as many addresses in it as it
/// likes.
std::string address_of(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  if (address.ss_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<sockaddr_in6&>(address).sin6_addr;
    const char* octets = reinterpret_cast<const char*>(ip.s6_addr);
    return IN6_IS_ADDR_V4MAPPED(&ip) ? std::string(octets + 12, 4) : std::string(octets, 8);
  }
  const in_addr& ip = reinterpret_cast<sockaddr_in&>(address).sin_addr;
  return {reinterpret_cast<const char*>(&ip), sizeof ip};
}

}  // namespace

std::shared_ptr<void> Addresses::take(int socket, int most) {
  const std::string address = address_of(socket);
  {
    const std::lock_guard lock(mutex_);
    int& count = counts_[address];
    if (count >= most) return nullptr;
    ++count;
  }
  return {this, [address](Addresses* self) { self->give_back(address); }};
}

void Addresses::give_back(const std::string& address) {
  const std::lock_guard lock(mutex_);
  const auto found = counts_.find(address);
  if (--found->second == 0) counts_.erase(found);
}

Connection::Connection(int descriptor) : fd(descriptor) {
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
}

Connection::~Connection() { ::close(fd); }

void Connection::consume(std::size_t octets) {
  offset_ += octets;
  searched_ = 0;
  if (offset_ == input_.size()) {
    input_.clear();
    offset_ = 0;
  }
}

Connection::Fill Connection::fill() {
  if (offset_ > 0) {
    input_.erase(0, offset_);
    offset_ = 0;
  }
  char part[16 * 1024];
  const ssize_t got = ::recv(fd, part, sizeof part, MSG_DONTWAIT);
  if (got > 0) {
    input_.append(part, static_cast<std::size_t>(got));
    return Fill::kMore;
  }
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return Fill::kNothing;
  return Fill::kClosed;
}

bool Connection::ready(std::size_t max_head, bool with_body) {
  if (!head_) {
    while (unread().starts_with("\r\n")) consume(2);  // RFC 9112, 2.2
    const std::size_t end = unread().find("\r\n\r\n", searched_);
    if (std::min(end, unread().size()) > max_head) throw Problem(431, "the head of the request is too large");
    if (end == std::string_view::npos) {
      searched_ = unread().size() - std::min<std::size_t>(unread().size(), 3);
      return false;
    }
    head_size_ = end + 4;
    head_ = parse_head(unread().substr(0, head_size_));
  }
  const bool buffers = with_body && !head_->chunked && !head_->expects_continue && head_->length <= kMaxBufferedBody;
  return !buffers || unread().size() - head_size_ >= head_->length;
}

RequestHead Connection::take_head() {
  consume(head_size_);
  RequestHead head = *std::move(head_);
  head_.reset();
  return head;
}

Transfer::~Transfer() {
  if (has_slot_) slots_.give_back();
}

bool Transfer::hold_slot() {
  if (!has_slot_) has_slot_ = slots_.take();
  return has_slot_ || fail(Failure::kNoSlot);
}

ssize_t Transfer::read(char* out, std::size_t size) {
  while (connection_.unread().empty()) {
    if (!wait(POLLIN, read_deadline_, reads_)) return -1;
    if (size >= 4096) {
      const ssize_t got = ::recv(connection_.fd, out, size, MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) continue;
      if (got > 0) received_ += static_cast<std::uint64_t>(got);
      if (got <= 0) fail(Failure::kClosed);
      return got;
    }
    if (connection_.fill() == Connection::Fill::kClosed) {
      fail(Failure::kClosed);
      return 0;
    }
    received_ += connection_.unread().size();
  }
  const std::string_view unread = connection_.unread();
  const std::size_t part = std::min(size, unread.size());
  std::memcpy(out, unread.data(), part);
  connection_.consume(part);
  return static_cast<ssize_t>(part);
}

bool Transfer::write(const char* data, std::size_t size) {
  for (std::size_t done = 0; done < size;) {
    const ssize_t sent = ::send(connection_.fd, data + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      done += static_cast<std::size_t>(sent);
      connection_.sent += static_cast<std::uint64_t>(sent);
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) return fail(Failure::kClosed);
    if (!wait(POLLOUT, Clock::time_point::max(), writes_)) return false;
  }
  return true;
}

bool Transfer::wait(short events, Clock::time_point deadline, Pace& pace) {
  if (!hold_slot()) return false;
  while (true) {
    const auto start = Clock::now();
    if (start >= deadline) return fail(Failure::kTooSlow);
    // In steps, because a client that reads slowly makes progress long before there is room to write.
    const auto step = std::min<Clock::duration>(deadline - start, pace.window() / 4);
    pollfd descriptor{connection_.fd, events, 0};
    const int ready =
        ::poll(&descriptor, 1, static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(step).count()));
    if (ready < 0 && errno != EINTR) return fail(Failure::kClosed);
    const std::uint64_t min_rate = slots_.scarce() ? kMinRateScarce : kMinRate;
    if (!pace.keeps_up(Clock::now() - start, moved(events), min_rate)) return fail(Failure::kTooSlow);
    if (ready > 0) return true;
  }
}

std::uint64_t Transfer::moved(short events) const {
  if (events == POLLIN) return received_;
  int on_the_way = 0;  // written, and not yet taken by the client
  ::ioctl(connection_.fd, SIOCOUTQ, &on_the_way);
  return connection_.sent - std::min(connection_.sent, static_cast<std::uint64_t>(std::max(on_the_way, 0)));
}

bool Transfer::Pace::keeps_up(Clock::duration waited, std::uint64_t octets, std::uint64_t min_rate) {
  waited_ += waited;
  if (waited_ < window_) return true;
  const auto millis =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(waited_).count());
  const bool fast = (octets - octets_) * 1000 >= min_rate * millis;
  waited_ = {};
  octets_ = octets;
  return fast;
}

}  // namespace pipegen::http
