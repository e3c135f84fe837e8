#include "support/nats_server.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <thread>

#ifdef __SANITIZE_ADDRESS__
// It keeps what was freed, to see uses of it. Tests measure memory: not 256 MiB of it.
extern "C" const char* __asan_default_options() { return "quarantine_size_mb=8"; }
#endif

namespace pipegen::testing {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The server greets every connection with INFO, also when it wants TLS next.
bool greets(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  char hello[4] = {};
  const timeval patience{.tv_sec = 2, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const bool good = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                    ::recv(fd, hello, sizeof hello, MSG_WAITALL) == 4 && std::string(hello, 4) == "INFO";
  ::close(fd);
  return good;
}

/// The kernel's "kill it when its parent dies" means the thread that forked: so every fork is done by one that stays.
class Forker {
 public:
  static pid_t run(std::vector<char*>& argv, const std::string& log_path) {
    static Forker* forker = new Forker;  // never destroyed, like its thread
    std::unique_lock lock(forker->mutex_);
    forker->changed_.wait(lock, [] { return forker->argv_ == nullptr; });
    forker->argv_ = &argv;
    forker->log_path_ = log_path.c_str();
    forker->pid_ = 0;
    forker->changed_.notify_all();
    forker->changed_.wait(lock, [] { return forker->pid_ != 0; });
    forker->argv_ = nullptr;
    forker->changed_.notify_all();
    return forker->pid_;
  }

 private:
  Forker() { std::thread(&Forker::serve, this).detach(); }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return argv_ != nullptr && pid_ == 0; });
      pid_ = ::fork();
      if (pid_ == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int log = ::open(log_path_, O_WRONLY | O_CREAT | O_APPEND, 0600);
        ::dup2(log, STDOUT_FILENO);
        ::dup2(log, STDERR_FILENO);
        ::execvp((*argv_)[0], argv_->data());
        ::_exit(127);
      }
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<char*>* argv_ = nullptr;
  const char* log_path_ = nullptr;
  pid_t pid_ = 0;
};

}  // namespace

TempFolder::TempFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "pipegen-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder: " + pattern);
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

NatsServer::NatsServer(std::vector<std::string> extra_args, std::string config)
    : extra_args_(std::move(extra_args)), config_(std::move(config)) {
  jetstream_ = std::erase(extra_args_, "--no-jetstream") == 0;
  start();
}

NatsServer::~NatsServer() {
  if (pid_ > 0) kill(SIGKILL);
}

std::string NatsServer::url() const { return "nats://127.0.0.1:" + std::to_string(port_); }

std::string NatsServer::log() const { return read_file(folder_.path() / "log"); }

void NatsServer::start() {
  const auto folder = folder_.path();
  std::vector<std::string> words = {"nats-server", "-a", "127.0.0.1", "-p", std::to_string(port_)};
  if (port_ == -1) words.insert(words.end(), {"--ports_file_dir", folder.string()});
  if (jetstream_) words.insert(words.end(), {"-js", "-sd", (folder / "data").string()});
  if (!config_.empty()) {
    std::ofstream(folder / "nats.conf") << config_;
    words.insert(words.end(), {"-c", (folder / "nats.conf").string()});
  }
  words.insert(words.end(), extra_args_.begin(), extra_args_.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_ = Forker::run(argv, (folder / "log").string());
  if (pid_ < 0) throw std::runtime_error("fork failed");

  const auto ports_file = folder / ("nats-server_" + std::to_string(pid_) + ".ports");
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    if (port_ == -1) {
      // {"nats":["nats://127.0.0.1:41583"],...}; written in one go once the server listens
      const std::string ports = read_file(ports_file);
      const auto at = ports.find("://127.0.0.1:");
      if (at != std::string::npos) port_ = std::atoi(ports.c_str() + at + 13);
    }
    if (port_ != -1 && greets(port_)) return;
    const bool gone = ::waitpid(pid_, nullptr, WNOHANG) == pid_;
    if (gone) pid_ = -1;
    if (gone || std::chrono::steady_clock::now() > give_up) {
      throw std::runtime_error("nats-server did not start; its log:\n" + log());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void NatsServer::kill(int signal) {
  ::kill(pid_, signal);
  if (signal == SIGCONT) return;
  // A stopped process is reported once all of its threads have stopped.
  ::waitpid(pid_, nullptr, signal == SIGSTOP ? WUNTRACED : 0);
  if (signal == SIGSTOP) return;
  pid_ = -1;
}

}  // namespace pipegen::testing
