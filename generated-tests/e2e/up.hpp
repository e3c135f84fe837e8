// `pipegen up` under test, and the HTTP API that it runs.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "up/child.hpp"

namespace pipegen::testing {

/// Waits until `done` gives true; false when `longest` was over first.
bool await(std::chrono::milliseconds longest, const std::function<bool()>& done);

std::string read_file(const std::filesystem::path& path);
void write_file(const std::filesystem::path& path, std::string_view content);

/// Exit status and everything on stdout and stderr.
struct Ran {
  int status = -1;
  std::string output;
};
Ran run_pipegen(std::vector<std::string> arguments);

/// A process and everything that it started, by pid.
std::vector<pid_t> family(pid_t pid);
bool alive(pid_t pid);

/// A running `pipegen up`; killed when destroyed. Waits for "ready" in the constructor, as long as a first build may
/// take, and throws std::runtime_error with its log when that does not come.
class Up {
 public:
  Up(const std::filesystem::path& schema, const std::filesystem::path& workspace, std::vector<std::string> more = {});
  ~Up();

  const std::string& api() const noexcept { return api_; }
  const std::string& nats() const noexcept { return nats_; }
  /// All it printed on stdout so far.
  std::string out();
  /// All it printed on stderr so far.
  std::string log() const;
  pid_t pid() const;
  /// The process of a service; nothing when there is none now.
  std::optional<pid_t> service(const std::string& name) const;

  /// Sends the signal, then waits for the end. Nothing when it does not end within 60 seconds.
  std::optional<int> stop(int signal);

 private:
  std::unique_ptr<gen::Child> child_;
  std::filesystem::path log_;
  std::string out_, api_, nats_;
};

struct Answer {
  int status = 0;
  std::string body;
  std::string location;
  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
};
/// `body` empty and `media_type` empty: GET. Throws std::runtime_error when there is no answer.
Answer get(const std::string& api, const std::string& path);
Answer post(const std::string& api, const std::string& path, const std::string& body, const std::string& media_type);

/// Posts and gives the path of the workflow. Throws std::runtime_error when the answer is not 202.
std::string upload(const std::string& api, const std::string& path, const std::string& body,
                   const std::string& media_type);
/// Waits until the workflow at this path runs no more; its last status. Throws std::runtime_error when it still does.
nlohmann::json finished(const std::string& api, const std::string& workflow,
                        std::chrono::seconds longest = std::chrono::minutes(5));

}  // namespace pipegen::testing
