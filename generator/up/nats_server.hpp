// A nats-server of our own, with JetStream, on 127.0.0.1.
#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "up/child.hpp"
#include "up/console.hpp"

namespace pipegen::gen {

/// Its data, its log and its ports file are in one folder.
class NatsServer {
 public:
  /// Starts it and waits until it listens. Port 0 takes a free one. Throws UpError with the reason: the program is
  /// missing, the port is taken, the folder cannot be written or is another server's.
  NatsServer(const std::filesystem::path& folder, int port, Console& console);

  /// Where nats-server is. Throws UpError when it is not installed.
  static std::filesystem::path program();

  const std::string& url() const noexcept { return url_; }
  /// Starts it again, on the same port with the same data, if it has died. Call it now and then.
  void tend();
  Child& process() noexcept { return *child_; }

 private:
  void start();

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::filesystem::path folder_;
  std::unique_ptr<std::FILE, Close> lock_;
  int port_;
  Console& console_;
  std::string url_;
  std::unique_ptr<Child> child_;
  std::chrono::steady_clock::time_point not_before_{};
};

}  // namespace pipegen::gen
