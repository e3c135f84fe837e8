#include "up/metrics.hpp"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace pipegen::gen {

namespace {

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

std::optional<std::string> http_get(int port, std::string_view path, std::chrono::milliseconds time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  const auto wait = [&](int fd, short events) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd entry{fd, events, 0};
    return left.count() > 0 && ::poll(&entry, 1, static_cast<int>(left.count())) == 1;
  };

  const Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (!wait(socket.fd(), POLLOUT)) return std::nullopt;
  const std::string request = "GET " + std::string(path) + " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) +
                              "\r\nConnection: close\r\n\r\n";
  if (::send(socket.fd(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
    return std::nullopt;
  }
  std::string answer;
  std::array<char, 16384> buffer;
  while (wait(socket.fd(), POLLIN)) {
    const ssize_t size = ::recv(socket.fd(), buffer.data(), buffer.size(), 0);
    if (size < 0) return std::nullopt;
    if (size > 0) {
      answer.append(buffer.data(), static_cast<std::size_t>(size));
      if (answer.size() > (8U << 20)) return std::nullopt;
      continue;
    }
    const std::size_t body = answer.find("\r\n\r\n");
    if (!answer.starts_with("HTTP/1.1 200 ") || body == std::string::npos) return std::nullopt;
    return answer.substr(body + 4);
  }
  return std::nullopt;
}

Figures parse_figures(std::string_view metrics) {
  Figures figures;
  while (!metrics.empty()) {
    const std::size_t end = std::min(metrics.find('\n'), metrics.size());
    const std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
    if (line.empty() || line.front() == '#') continue;
    const std::string_view name = line.substr(0, line.find_first_of("{ "));
    std::int64_t* figure = name == "pipegen_messages_acked_total"           ? &figures.done
                           : name == "pipegen_in_flight"                    ? &figures.in_hand
                           : name == "pipegen_dead_letters_total"           ? &figures.dead_letters
                           : name == "messaging_client_sent_messages_total" ? &figures.sent
                                                                            : nullptr;
    if (figure == nullptr) continue;
    // Label values may hold blanks; the value comes after the closing brace.
    const std::size_t labels = line.rfind('}');
    const std::string value(line.substr(labels == std::string_view::npos ? name.size() : labels + 1));
    const double number = std::strtod(value.c_str(), nullptr);
    if (std::isfinite(number)) *figure += std::llround(number);
  }
  return figures;
}

}  // namespace pipegen::gen
