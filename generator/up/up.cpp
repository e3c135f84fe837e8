#include "up/up.hpp"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string_view>

#include "up/build.hpp"
#include "up/console.hpp"
#include "up/nats_server.hpp"
#include "up/signals.hpp"
#include "up/supervisor.hpp"

namespace pipegen::gen {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// A folder that goes with its owner.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pipegen-up-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
      throw UpError("cannot make a folder in " + std::filesystem::temp_directory_path().string() + ": " +
                    std::strerror(errno));
    }
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// "nats://user:secret@host" without the user and the secret.
std::string without_credentials(const std::string& urls) {
  std::string result;
  for (std::size_t begin = 0; begin <= urls.size();) {
    const std::size_t end = std::min(urls.find(',', begin), urls.size());
    std::string url = urls.substr(begin, end - begin);
    const std::size_t at = url.rfind('@');
    if (at != std::string::npos) {
      const std::size_t scheme = url.find("://");
      const std::size_t host = scheme == std::string::npos ? 0 : scheme + 3;
      url.erase(host, at + 1 - host);
    }
    result += (result.empty() ? "" : ",") + url;
    begin = end + 1;
  }
  return result;
}

std::string port_variable(const std::string& section) {
  std::string name = section + "_PORT";
  std::ranges::transform(name, name.begin(), [](unsigned char c) {
    return std::isalnum(c) != 0 ? static_cast<char>(std::toupper(c)) : '_';
  });
  return name;
}

bool is_free(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;  // as the API does it
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  const bool free =
      ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && ::listen(fd, 1) == 0;
  ::close(fd);
  return free;
}

int api_port(const UpOptions& options, const UpService& service, Console& console) {
  if (options.api_port) return *options.api_port;
  if (is_free(service.port)) return service.port;
  console.say("port " + std::to_string(service.port) + " is taken, so the API gets another");
  return 0;
}

std::vector<Program> programs(const UpOptions& options, const std::vector<UpService>& services,
                              const std::string& nats_url, const std::filesystem::path& data, Console& console) {
  const std::filesystem::path output = std::filesystem::absolute(options.output);
  const char* level = ::getenv("LOG_LEVEL");
  std::vector<Program> result;
  for (const UpService& service : services) {
    Program program{.name = service.name,
                    .arguments = {(output / "build" / "bin" / service.name).string()},
                    .is_api = service.is_api};
    program.environment = {
        {"NATS_URL", nats_url},
        {"ADMIN_PORT", "0"},
        {"PIPEGEN_CONFIG", (output / "project.toml").string()},
        {"LOG_LEVEL", level != nullptr && std::string_view(level) == "debug" ? "debug" : "info"},
    };
    if (!options.sqlite_file.empty()) {
      program.environment["DATABASE_URL"] =
          "sqlite:" + (std::filesystem::absolute(data) / options.sqlite_file).string();
    }
    if (service.is_api) {
      program.port_variable = port_variable(service.section);
      program.environment[program.port_variable] = std::to_string(api_port(options, service, console));
    }
    result.push_back(std::move(program));
  }
  return result;
}

void print_ready(const std::optional<int>& api_port, const std::string& nats_url) {
  std::string line = "ready";
  if (api_port) line += " api=http://127.0.0.1:" + std::to_string(*api_port);
  line += " nats=" + without_credentials(nats_url) + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

int build_and_run(const UpOptions& options, const std::vector<UpService>& services, Console& console) {
  Signals signals;
  if (!options.nats_url) NatsServer::program();  // before the build, which may take minutes
  if (!build_workspace(options.output, console, signals)) return signals.stop_requests() > 0 ? 0 : 1;

  // Destroyed in the opposite order: the services, then nats-server, then their data.
  std::optional<TemporaryFolder> scratch;
  std::unique_ptr<NatsServer> nats;
  if (!options.data) scratch.emplace();
  const std::filesystem::path data = options.data ? *options.data : scratch->path();
  if (!options.sqlite_file.empty()) std::filesystem::create_directories(data);
  if (!options.nats_url) nats = std::make_unique<NatsServer>(data / "nats", options.nats_port, console);
  const std::string nats_url = nats ? nats->url() : *options.nats_url;
  Supervisor supervisor(programs(options, services, nats_url, data, console), console);

  bool announced = false;
  for (auto next_figures = Clock::now() + 1s; signals.stop_requests() == 0 && !supervisor.gave_up();) {
    supervisor.step(signals, std::clamp(std::chrono::ceil<std::chrono::milliseconds>(next_figures - Clock::now()),
                                        std::chrono::milliseconds(0), std::chrono::milliseconds(1000)));
    if (nats) nats->tend();
    if (!announced && supervisor.all_ready()) {
      announced = true;
      print_ready(supervisor.api_port(), nats_url);
    }
    if (Clock::now() >= next_figures) {
      supervisor.show_figures();
      next_figures = Clock::now() + 1s;
    }
  }

  if (signals.stop_requests() > 0) console.say("stopping");
  supervisor.stop(signals, 30s);
  if (nats) {
    nats->process().signal(SIGTERM);
    for (const auto deadline = Clock::now() + 5s; !nats->process().exit_status() && Clock::now() < deadline;) {
      signals.wait({}, 100ms);
    }
  }
  if (!supervisor.gave_up()) return 0;
  console.say("error: " + *supervisor.gave_up());
  return 1;
}

}  // namespace

int run_up(const UpOptions& options, const std::function<bool()>& generate, const std::vector<UpService>& services) {
  Console console;
  try {
    if (!generate()) return 1;
    if (services.empty()) {
      console.say("error: " + options.schema.string() + " has no stage and no ingest API: there is nothing to run");
      return 1;
    }
    return build_and_run(options, services, console);
  } catch (const std::exception& error) {
    console.say(std::string("error: ") + error.what());
    return 1;
  }
}

}  // namespace pipegen::gen
