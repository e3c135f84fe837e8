// A real nats-server for tests: on 127.0.0.1, on a free port, with JetStream in a temporary folder.
//
//   pipegen::testing::NatsServer server;
//   pipegen::nats::Connection connection({.url = server.url()});
#pragma once

#include <sys/types.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace pipegen::testing {

/// An empty folder that is removed with everything in it.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

/// Runs from the constructor on, which returns when clients can connect; killed by the destructor, and by the kernel
/// when the test dies. Throws std::runtime_error with the server's log when it does not start.
class NatsServer {
 public:
  /// `config` is the text of a configuration file, added to the command line; "--no-jetstream" among the arguments
  /// leaves JetStream out.
  explicit NatsServer(std::vector<std::string> extra_args = {}, std::string config = "");
  ~NatsServer();
  NatsServer(const NatsServer&) = delete;
  NatsServer& operator=(const NatsServer&) = delete;

  std::string url() const;
  int port() const { return port_; }
  int pid() const { return pid_; }
  /// Sends the signal; returns when the process is gone (SIGSTOP: when it has stopped; SIGCONT: at once).
  void kill(int signal = SIGKILL);
  /// Starts it again, on the same port and data.
  void start();
  /// Where JetStream keeps its data.
  std::filesystem::path data() const { return folder_.path() / "data"; }
  /// For the next start().
  void set_config(std::string config) { config_ = std::move(config); }

 private:
  std::string log() const;

  TempFolder folder_;
  std::vector<std::string> extra_args_;
  std::string config_;
  bool jetstream_ = true;
  int port_ = -1;
  pid_t pid_ = -1;
};

}  // namespace pipegen::testing
