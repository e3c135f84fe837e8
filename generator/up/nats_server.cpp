#include "up/nats_server.hpp"

#include <sys/file.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

namespace pipegen::gen {

namespace {

using namespace std::chrono_literals;

/// What the server said last, for the person who has to mend it.
std::string last_lines(const std::filesystem::path& log) {
  std::ifstream in(log);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  while (text.ends_with('\n')) text.pop_back();
  std::size_t begin = text.size();
  for (int lines = 0; lines < 5 && begin != std::string::npos && begin > 0; ++lines)
    begin = text.rfind('\n', begin - 1);
  return begin == std::string::npos ? text : text.substr(begin);
}

}  // namespace

NatsServer::NatsServer(const std::filesystem::path& folder, int port, Console& console)
    : folder_(std::filesystem::absolute(folder)), port_(port), console_(console) {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) throw UpError("cannot make the folder " + folder_.string() + ": " + error.message());
  // Two servers would write to the same files.
  const std::filesystem::path lock = folder_ / "lock";
  lock_.reset(std::fopen(lock.c_str(), "ae"));
  if (!lock_) throw UpError("cannot write " + lock.string() + ": " + std::strerror(errno));
  if (::flock(::fileno(lock_.get()), LOCK_EX | LOCK_NB) != 0) {
    throw UpError("another pipegen up keeps its data in " + folder_.parent_path().string() +
                  ": stop it, or choose another --data");
  }
  start();
}

std::filesystem::path NatsServer::program() {
  if (auto found = find_program("nats-server")) return *found;
  throw UpError(
      "nats-server is not installed: `sudo apt-get install nats-server`, or give the address of a running server "
      "with --nats-url");
}

void NatsServer::start() {
  const std::filesystem::path log = folder_ / "nats-server.log";
  // One that was killed leaves its address, and in a container the next may get the same process id.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    if (entry.path().extension() == ".ports") std::filesystem::remove(entry.path(), ignored);
  }
  child_ = std::make_unique<Child>(ChildOptions{
      .arguments = {program().string(), "-js", "-a", "127.0.0.1", "-p", std::to_string(port_ == 0 ? -1 : port_), "-sd",
                    folder_.string(), "--ports_file_dir", folder_.string()},
      .log = log});
  const std::filesystem::path ports = folder_ / ("nats-server_" + std::to_string(child_->pid()) + ".ports");
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (true) {
    std::ifstream in(ports);
    const auto json = nlohmann::json::parse(in, nullptr, false);
    if (json.is_object() && json.contains("nats") && json["nats"].is_array() && !json["nats"].empty()) {
      const auto url = json["nats"][0].get<std::string>();
      port_ = std::stoi(url.substr(url.rfind(':') + 1));
      break;
    }
    if (const auto status = child_->exit_status()) {
      throw UpError("nats-server ended at once (exit status " + std::to_string(*status) + "):" + last_lines(log));
    }
    if (std::chrono::steady_clock::now() > deadline) throw UpError("nats-server does not start; see " + log.string());
    std::this_thread::sleep_for(5ms);
  }
  url_ = "nats://127.0.0.1:" + std::to_string(port_);
}

void NatsServer::tend() {
  const auto now = std::chrono::steady_clock::now();
  if (!child_->exit_status() || now < not_before_) return;
  not_before_ = now + 1s;
  console_.say("nats-server died (exit status " + std::to_string(*child_->exit_status()) + "), starting it again");
  try {
    start();
  } catch (const UpError& error) {
    console_.say(error.what());
  }
}

}  // namespace pipegen::gen
