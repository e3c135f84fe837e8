// A real PostgreSQL for tests: on a Unix socket in a temporary folder, with the defaults of its package.
//
//   pipegen::testing::PostgresServer server;
//   settings: [database] url = server.url()
#pragma once

#include <sys/types.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "support/nats_server.hpp"

namespace pipegen::testing {

/// Runs from the constructor on, which returns when clients can connect; stopped by the destructor, and by the kernel
/// when the test dies. Anybody may log in as postgres. Root runs it as the user postgres. Throws std::runtime_error
/// with the server's log when it does not start, or is not installed.
class PostgresServer {
 public:
  /// `settings`: "name=value", as of postgresql.conf.
  explicit PostgresServer(std::vector<std::string> settings = {});
  ~PostgresServer();
  PostgresServer(const PostgresServer&) = delete;
  PostgresServer& operator=(const PostgresServer&) = delete;

  std::string url(const std::string& database = "postgres") const;
  const std::filesystem::path& socket_folder() const { return folder_.path(); }
  int pid() const { return pid_; }
  /// Ends every connection; returns when the server is gone.
  void stop();
  /// SIGSTOP, SIGCONT: of every process of the server.
  void signal_all(int signal);
  /// Starts it again, on the same data.
  void start();

 private:
  std::string log() const;
  std::vector<std::string> as_user(std::vector<std::string> command) const;

  TempFolder folder_;
  std::vector<std::string> settings_;
  std::string programs_;
  pid_t pid_ = -1;
};

}  // namespace pipegen::testing
