#include "http/server.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "http/connection.hpp"
#include "http/protocol.hpp"
#include "http/router.hpp"
#include "pipegen/error.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;

constexpr int kRequestsPerConnection = 10'000;
constexpr auto kDrainTime = 2s;  // a client that is still sending may read its answer for this long

int bind_to(const ServerOptions& options) {
  const std::string place = options.host + ":" + std::to_string(options.port);
  if (options.port < 0 || options.port > 65535) throw ConfigError("cannot listen on " + place + ": no such port");
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &found)) {
    throw ConfigError("cannot listen on " + place + ": " + ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> guard(found, &::freeaddrinfo);
  int error = 0;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
      error = errno;
      continue;
    }
    // SO_REUSEADDR lets a restart have its port back at once. Not SO_REUSEPORT, with which a second process would
    // silently take half of the connections.
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd, at->ai_addr, at->ai_addrlen) == 0 && ::listen(fd, 1024) == 0) return fd;
    error = errno;
    ::close(fd);
  }
  throw ConfigError("cannot listen on " + place + ": " + std::strerror(error) +
                    (error == EADDRINUSE ? "; give it another port" : ""));
}

int port_of(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

}  // namespace

std::string Request::read_text(std::uint64_t limit, std::chrono::milliseconds timeout) {
  std::string text;
  read_body(limit, timeout, [&text](BytesView part) { text.append(text_of(part)); });
  return text;
}

struct HttpServer::Impl {
  using Owned = std::unique_ptr<Connection>;
  using Waiting = std::unordered_map<int, Owned>;

  explicit Impl(ServerOptions given)
      : options(std::move(given)),
        router(options.metrics, options.traces),
        slots(std::max(1, options.threads * 3 / 4)),
        listener(bind_to(options)),
        number(port_of(listener)),
        poller(::epoll_create1(EPOLL_CLOEXEC)),
        waker(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    watch(listener);
    watch(waker);
    if (options.metrics == nullptr) return;
    for (const int status : {400, 408, 413, 429, 431, 503}) refusals(status);
  }
  ~Impl() {
    stop(0ms);
    ::close(waker);
    ::close(poller);
    if (listener >= 0) ::close(listener);
  }

  void start() {
    if (poll_thread.joinable()) return;
    poll_thread = std::thread([this] { poll(); });
    for (int i = 0; i < options.threads; ++i) threads.emplace_back([this] { work(slots, false); });
    threads.emplace_back([this] { work(no_slots, true); });
  }

  int stop(std::chrono::milliseconds grace) {
    if (!poll_thread.joinable()) return 0;
    stopping = true;
    wake();
    poll_thread.join();
    int cut = 0;
    {
      std::unique_lock lock(mutex);
      done = true;
      has_work.notify_all();
      has_reserved.notify_all();
      is_idle.wait_for(lock, grace, [this] { return is_empty() && serving.empty(); });
      cut = static_cast<int>(queue.size() + reserved.size() + serving.size());
      queue.clear();
      reserved.clear();
      for (const int fd : serving) ::shutdown(fd, SHUT_RDWR);
    }
    for (auto& thread : threads) thread.join();
    threads.clear();
    returned.clear();
    return cut;
  }

  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
  }
  void unwatch(int fd) const { ::epoll_ctl(poller, EPOLL_CTL_DEL, fd, nullptr); }
  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(waker, &one, sizeof one);
  }

  // --- the polling thread: connections that are between requests -----------------------------------------------------

  void poll() {
    epoll_event events[64];
    Clock::time_point closing{};
    Clock::time_point last_sweep = Clock::now();
    while (true) {
      if (stopping && closing == Clock::time_point{}) {
        // What reached the port before the signal is still served.
        accept_all();
        unwatch(listener);
        ::close(listener);
        listener = -1;
        closing = Clock::now() + 200ms;
        // A request whose body is on its way runs already.
        std::vector<int> begun;
        for (const auto& [fd, connection] : waiting) {
          if (connection->head()) begun.push_back(fd);
        }
        for (const int fd : begun) place(take(waiting.find(fd)));
      }
      if (stopping && (waiting.empty() || Clock::now() >= closing)) break;
      const int count = ::epoll_wait(poller, events, 64, stopping ? 20 : 250);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == waker) {
          std::uint64_t ignored = 0;
          [[maybe_unused]] const auto got = ::read(waker, &ignored, sizeof ignored);
        } else if (fd == listener) {
          accept_all();
        } else {
          readable(fd);
        }
      }
      take_returned();
      if (Clock::now() - last_sweep > 100ms) {
        last_sweep = Clock::now();
        sweep(last_sweep);
      }
    }
    for (auto& [fd, connection] : waiting) unwatch(fd);
    open -= static_cast<int>(waiting.size());
    waiting.clear();
  }

  void accept_all() {
    while (true) {
      const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0 && errno == EINTR) continue;
      if (fd < 0) {
        // Out of descriptors: the pending connection keeps the listener readable, so don't spin on it.
        if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(50ms);
        return;
      }
      const int on = 1;
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      auto connection = std::make_unique<Connection>(fd);
      ++open;
      if (open > options.connections) make_room();
      if (open > options.connections || fd >= FD_SETSIZE) {
        refuse(std::move(connection), Problem(503, "too many connections", {{"Retry-After", "1"}}));
        continue;
      }
      if (options.connections_per_address > 0) {
        connection->place = addresses.take(fd, options.connections_per_address);
        if (connection->place == nullptr) {
          refuse(std::move(connection), Problem(429, "too many connections of one address", {{"Retry-After", "1"}}));
          continue;
        }
      }
      connection->deadline = Clock::now() + options.head_timeout;
      wait_for(std::move(connection));
    }
  }

  /// Gives up a connection that is idle between requests, which costs its client nothing; when there is none, the one
  /// that would be given up next anyway.
  void make_room() {
    const auto rank = [](const Waiting::value_type& entry) {
      const Connection& connection = *entry.second;
      const bool is_idle = connection.served > 0 && !connection.draining && connection.unread().empty();
      return std::pair(!is_idle, connection.deadline);
    };
    const auto next = std::min_element(waiting.begin(), waiting.end(),
                                       [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    if (next != waiting.end()) drop(next);
  }

  void wait_for(Owned connection) {
    const int fd = connection->fd;
    waiting[fd] = std::move(connection);
    watch(fd);
  }

  void readable(int fd) {
    const auto found = waiting.find(fd);
    if (found == waiting.end()) return;
    Connection& connection = *found->second;
    const bool idle = connection.unread().empty();
    const auto got = connection.fill();
    if (got == Connection::Fill::kNothing) return;
    if (got == Connection::Fill::kClosed) return drop(found);
    if (connection.draining) return connection.consume(connection.unread().size());
    // The time for a head runs from its first octet, however the rest of it trickles in.
    if (idle && connection.served > 0) connection.deadline = Clock::now() + options.head_timeout;
    place(take(found));
  }

  /// Serves what is ready, waits for what is not, refuses what is wrong.
  void place(Owned connection) {
    const bool had_head = connection->head().has_value();
    try {
      if (connection->ready(options.max_head, !stopping)) return hand_over(std::move(connection));
    } catch (const Problem& problem) {
      return refuse(std::move(connection), problem);
    }
    if (!had_head && connection->head()) connection->deadline = Clock::now() + options.body_timeout;
    wait_for(std::move(connection));
  }

  Owned take(Waiting::iterator at) {
    Owned connection = std::move(at->second);
    unwatch(connection->fd);
    waiting.erase(at);
    return connection;
  }
  void drop(Waiting::iterator at) {
    take(at);
    --open;
  }
  void hand_over(Owned connection) {
    const bool is_reserved = router.is_reserved(connection->head()->path());
    {
      std::unique_lock lock(mutex);
      if (!is_reserved && queue.size() >= static_cast<std::size_t>(options.queue + idle)) {
        lock.unlock();
        return refuse(std::move(connection), Problem(503, "too many requests at a time", {{"Retry-After", "1"}}));
      }
      (is_reserved ? reserved : queue).push_back(std::move(connection));
    }
    has_work.notify_one();
    if (is_reserved) has_reserved.notify_one();
  }

  Counter& refusals(int status) {
    Counter*& counter = refused[status];
    if (counter == nullptr) {
      counter = &options.metrics->counter("http_server_refused_requests_total",
                                          "Requests, and connections, that were refused before a route was looked for.",
                                          {{"status", std::to_string(status)}});
    }
    return *counter;
  }

  /// Answers without a request, and lets the client read the answer.
  void refuse(Owned connection, const Problem& problem) {
    const Response response = problem.response();
    if (options.metrics != nullptr) refusals(response.status).add();
    std::string text = "HTTP/1.1 " + std::to_string(response.status) + " " + title_of(response.status) +
                       "\r\nConnection: close\r\nContent-Type: " + response.content_type +
                       "\r\nContent-Length: " + std::to_string(response.body.size()) + "\r\n";
    for (const auto& [name, value] : response.headers) text.append(name).append(": ").append(value).append("\r\n");
    text.append("\r\n").append(response.body);
    ::send(connection->fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    linger(std::move(connection));
  }

  // Closing while octets of the client are unread would reset the connection and take the answer with it.
  void linger(Owned connection) {
    ::shutdown(connection->fd, SHUT_WR);
    connection->draining = true;
    connection->consume(connection->unread().size());
    connection->deadline = Clock::now() + kDrainTime;
    wait_for(std::move(connection));
  }

  void take_returned() {
    std::vector<Owned> back;
    {
      const std::lock_guard lock(mutex);
      back.swap(returned);
    }
    for (auto& connection : back) {
      if (connection->draining) {
        linger(std::move(connection));
      } else {
        connection->deadline = Clock::now() + (connection->unread().empty() ? options.idle_timeout
                                               : connection->head()         ? options.body_timeout
                                                                            : options.head_timeout);
        place(std::move(connection));
      }
    }
  }

  void sweep(Clock::time_point now) {
    std::vector<int> late;
    for (const auto& [fd, connection] : waiting) {
      if (now >= connection->deadline) late.push_back(fd);
    }
    for (const int fd : late) {
      const auto found = waiting.find(fd);
      if (found->second->draining || found->second->unread().empty()) {
        drop(found);
      } else {
        const bool has_head = found->second->head().has_value();
        refuse(take(found), Problem(408, has_head ? "the body did not arrive in time"
                                                  : "the head of the request did not arrive in time"));
      }
    }
  }

  // --- the serving threads -------------------------------------------------------------------------------------------

  /// `only_reserved`: for the one thread that has time for admin routes whatever the others do. It waits for nobody.
  void work(Slots& own_slots, bool only_reserved) {
    Protocol protocol(router, own_slots, options.idle_timeout, options.pace_window);
    std::unique_lock lock(mutex);
    while (true) {
      if (!only_reserved) ++idle;
      (only_reserved ? has_reserved : has_work).wait(lock, [&] {
        return done || !reserved.empty() || (!only_reserved && !queue.empty());
      });
      if (!only_reserved) --idle;
      auto& from = reserved.empty() && !only_reserved ? queue : reserved;
      if (from.empty()) return;
      Owned connection = std::move(from.front());
      from.pop_front();
      const int fd = connection->fd;
      serving.insert(fd);
      lock.unlock();
      const bool keep = serve(protocol, *connection, only_reserved);
      lock.lock();
      serving.erase(fd);
      if ((keep || connection->draining) && !done) {
        returned.push_back(std::move(connection));
        lock.unlock();
        wake();
        lock.lock();
      } else {
        connection.reset();
        --open;
      }
      if (is_empty() && serving.empty()) is_idle.notify_all();
    }
  }

  /// Serves what is there and what follows at once; true when the connection stays open.
  bool serve(Protocol& protocol, Connection& connection, bool only_reserved) {
    while (true) {
      ++connection.served;
      if (!protocol.serve_one(connection, stopping || connection.served >= kRequestsPerConnection)) {
        connection.draining = true;
        ::shutdown(connection.fd, SHUT_WR);
        return false;
      }
      // A client that asks again at once need not take the way through the poller; not while others wait for a thread.
      if (next_is_ready(connection, only_reserved)) continue;
      if (connection.head()) return true;
      pollfd descriptor{connection.fd, POLLIN, 0};
      if (!nobody_waits() || ::poll(&descriptor, 1, 2) <= 0) return true;
      if (connection.fill() == Connection::Fill::kClosed) return false;
      if (!next_is_ready(connection, only_reserved)) return true;
    }
  }

  bool next_is_ready(Connection& connection, bool only_reserved) const {
    try {
      if (!connection.ready(options.max_head, !stopping)) return false;
    } catch (const Problem&) {
      return false;  // the poller refuses it
    }
    return !only_reserved || router.is_reserved(connection.head()->path());
  }

  bool nobody_waits() {
    const std::lock_guard lock(mutex);
    return is_empty();
  }
  bool is_empty() const { return queue.empty() && reserved.empty(); }

  const ServerOptions options;
  Addresses addresses;  // before every connection
  Router router;
  Slots slots;
  Slots no_slots{0};
  int listener;
  const int number;
  const int poller;
  const int waker;
  Waiting waiting;                    // the polling thread's own
  std::map<int, Counter*> refused{};  // by status: the polling thread's own
  std::atomic<int> open = 0;
  std::atomic<bool> stopping = false;

  std::mutex mutex;  // guards what follows
  std::condition_variable has_work, has_reserved, is_idle;
  std::deque<Owned> queue;
  std::deque<Owned> reserved;  // requests of Lane::kReserved
  std::vector<Owned> returned;
  std::set<int> serving;
  int idle = 0;  // threads that wait for work, or were told of it and have not taken it yet
  bool done = false;

  std::thread poll_thread;
  std::vector<std::thread> threads;
};

HttpServer::HttpServer(ServerOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpServer::~HttpServer() = default;
void HttpServer::route(std::string method, std::string pattern, Handler handler, Lane lane) {
  impl_->router.add(std::move(method), std::move(pattern), std::move(handler), lane);
}
void HttpServer::start() { impl_->start(); }
int HttpServer::port() const noexcept { return impl_->number; }
int HttpServer::stop(std::chrono::milliseconds grace) { return impl_->stop(grace); }

}  // namespace pipegen::http
