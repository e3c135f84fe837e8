#include "support/postgres_server.hpp"

#include <fcntl.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace pipegen::testing {
namespace {

namespace fs = std::filesystem;

/// Debian keeps them off the PATH, a folder for each version.
std::string programs_folder() {
  fs::path newest;
  int newest_version = 0;
  std::error_code ignored;
  for (const auto& version : fs::directory_iterator("/usr/lib/postgresql", ignored)) {
    const int number = std::atoi(version.path().filename().c_str());
    if (number > newest_version && fs::exists(version.path() / "bin/postgres")) {
      newest = version.path() / "bin";
      newest_version = number;
    }
  }
  if (newest.empty()) throw std::runtime_error("PostgreSQL is not installed: scripts/setup --tests");
  return newest.string();
}

pid_t spawn(std::vector<std::string> command, const std::string& log_path) {
  std::vector<char*> argv;
  for (auto& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGINT);
  const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  ::setenv("LC_ALL", "C.UTF-8", 1);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

/// Whether the server takes clients: it answers a start packet with a request for authentication, not with an error.
bool takes_clients(const fs::path& socket_path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof address.sun_path - 1);
  const char start[] = "\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0";  // 41 octets, with the closing NUL
  char answer = 0;
  const timeval patience{.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const bool good = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                    ::send(fd, start, 41, MSG_NOSIGNAL) == 41 && ::recv(fd, &answer, 1, 0) == 1 && answer == 'R';
  ::close(fd);
  return good;
}

}  // namespace

PostgresServer::PostgresServer(std::vector<std::string> settings)
    : settings_(std::move(settings)), programs_(programs_folder()) {
  const fs::path folder = folder_.path();
  fs::create_directory(folder / "data");
  if (::geteuid() == 0) {
    const passwd* user = ::getpwnam("postgres");
    if (user == nullptr) throw std::runtime_error("there is no user postgres");
    for (const fs::path& path : {folder, folder / "data"}) {
      if (::chown(path.c_str(), user->pw_uid, user->pw_gid) != 0) throw std::runtime_error("chown failed");
    }
  }
  const pid_t initdb = spawn(as_user({programs_ + "/initdb", "-D", (folder / "data").string(), "-U", "postgres", "-A",
                                      "trust", "-E", "UTF8", "--no-sync"}),
                             (folder / "log").string());
  int status = 0;
  if (initdb < 0 || ::waitpid(initdb, &status, 0) != initdb || status != 0) {
    throw std::runtime_error("initdb failed:\n" + log());
  }
  start();
}

PostgresServer::~PostgresServer() {
  if (pid_ > 0) stop();
}

std::string PostgresServer::url(const std::string& database) const {
  return "host=" + folder_.path().string() + " user=postgres dbname=" + database;
}

std::string PostgresServer::log() const {
  std::ifstream in(folder_.path() / "log", std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> PostgresServer::as_user(std::vector<std::string> command) const {
  if (::geteuid() != 0) return command;
  // A change of user clears the signal that a parent's death sends: setpriv sets it again.
  std::vector<std::string> words = {"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
                                    "--pdeathsig=SIGINT"};
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

void PostgresServer::start() {
  const fs::path folder = folder_.path();
  std::vector<std::string> command = {programs_ + "/postgres", "-D", (folder / "data").string(), "-k",
                                      folder.string(),         "-c", "listen_addresses="};
  for (const std::string& setting : settings_) command.insert(command.end(), {"-c", setting});
  pid_ = spawn(as_user(command), (folder / "log").string());
  if (pid_ < 0) throw std::runtime_error("fork failed");
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!takes_clients(folder / ".s.PGSQL.5432")) {
    const bool gone = ::waitpid(pid_, nullptr, WNOHANG) == pid_;
    if (gone) pid_ = -1;
    if (gone || std::chrono::steady_clock::now() > give_up) {
      throw std::runtime_error("PostgreSQL did not start; its log:\n" + log());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void PostgresServer::stop() {
  signal_all(SIGCONT);
  ::kill(pid_, SIGINT);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void PostgresServer::signal_all(int signal) {
  // Each process of the server is a child of the first.
  std::ifstream children("/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_) + "/children");
  std::vector<pid_t> pids = {pid_};
  for (pid_t child = 0; children >> child;) pids.push_back(child);
  for (const pid_t pid : pids) ::kill(pid, signal);
}

}  // namespace pipegen::testing
