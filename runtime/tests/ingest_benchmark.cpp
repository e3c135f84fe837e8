// How many messages the ingestion API takes: one by one from 64 connections (with wrk, Debian package wrk), and in one
// request of 200,000 lines. The API is a process of its own; the nats-server is real.
//
//   build/dev/bin/ingest_benchmark            prints the figures
//   build/dev/bin/ingest_benchmark serve URL  only the API, on a port that it prints
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>

#include "http/ingest_server.hpp"
#include "http/service.hpp"
#include "pipegen/json.hpp"
#include "support/nats_server.hpp"

namespace {

using namespace pipegen;

constexpr int kLines = 200'000;

/// 300 octets.
std::string order(int key) {
  std::string text = R"({"order_key":)" + std::to_string(1'000'000 + key) +
                     R"(,"customer_key":370,"order_status":"O","total_price":"172799.49","order_date":"1996-01-02",)"
                     R"("order_priority":"5-LOW","clerk":"Clerk#000000951","ship_priority":0,"comment":")";
  text.append(298 - text.size(), 'c');
  return text + "\"}";
}

int read_order(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"order_key"},   {"customer_key"},  {"order_status"},
                                            {"total_price"}, {"order_date"},    {"order_priority"},
                                            {"clerk"},       {"ship_priority"}, {"comment"}};
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
      case 1:
      case 7:
        in.int64();
        break;
      case 3:
        in.decimal({.precision = 15, .scale = 2});
        break;
      case 4:
        in.date();
        break;
      default:
        in.string({.max_length = 300});
    }
  }
  return 0;
}

IngestApi bench_api() {
  IngestApi api;
  api.pipeline = "bench";
  api.section = "ingest_api";
  api.port = 0;
  api.entity_stream = "BENCH_INGEST";
  api.topology.add_stream({.name = "BENCH_INGEST", .subjects = {"bench.ingest.*"}, .retention = Retention::kWorkQueue});
  for (const auto& [name, path] : {std::pair("Order", "order"), std::pair("Return", "return")}) {
    api.add_entity({.name = name,
                    .path = path,
                    .subject = std::string("bench.ingest.") + path,
                    .check = [](std::string_view body) { json::parse(body, read_order); }});
  }
  return api;
}

int serve(const std::string& url) {
  Metrics metrics;
  nats::ConnectionOptions options;
  options.url = url;
  nats::Connection connection(options);
  const IngestApi api = bench_api();
  nats::ensure(connection, api.topology);
  http::IngestServer server(api, Settings::load(), metrics);
  server.start();
  server.attach(connection);
  std::cout << server.port() << std::endl;
  wait_for_signal();
  return 0;
}

/// This program again, as the API.
class Api {
 public:
  explicit Api(const std::string& url) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe failed");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl("/proc/self/exe", "ingest_benchmark", "serve", url.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    std::string text;
    for (char c = 0; ::read(ends[0], &c, 1) == 1 && c != '\n';) text.push_back(c);
    ::close(ends[0]);
    port = std::stoi(text);
  }
  ~Api() {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  /// The most memory that it ever had, in MiB.
  long peak() const {
    std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) / 1024;
    }
    return 0;
  }
  /// Seconds of processor time so far.
  double cpu() const {
    std::ifstream stat("/proc/" + std::to_string(pid_) + "/stat");
    std::string word;
    long ticks = 0;
    for (int i = 1; i <= 15 && stat >> word; ++i) {
      if (i >= 14) ticks += std::stol(word);
    }
    return static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

  int port = 0;

 private:
  pid_t pid_ = 0;
};

void one_by_one(const Api& api, const std::string& path, const std::string& seconds) {
  const pipegen::testing::TempFolder folder;
  const std::string script = (folder.path() / "post.lua").string();
  std::ofstream(script) << "wrk.method = \"POST\"\nwrk.headers[\"Content-Type\"] = \"application/json\"\nwrk.body = [["
                        << order(1) << "]]\n";
  const double before = api.cpu();
  std::cout << "POST " << path << ", 64 connections\n" << std::flush;
  const std::string command = "wrk -t1 -c64 -d" + seconds + "s --latency -s " + script +
                              " http://127.0.0.1:" + std::to_string(api.port) + path +
                              " | grep -E '50%|99%|Requests/sec|Non-2xx'";
  if (std::system(command.c_str()) != 0) std::cerr << "is wrk installed?\n";
  std::cout << "  processor time of the API: " << api.cpu() - before << " s in " << seconds << " s" << std::endl;
}

void all_at_once(const Api& api) {
  std::string body;
  for (int i = 0; i < kLines; ++i) body += order(i) + "\n";
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(api.port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) throw std::runtime_error("connect");
  const std::string head =
      "POST /ingest/batch?entity=order HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
      "Connection: close\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n";
  const double cpu = api.cpu();
  const auto start = std::chrono::steady_clock::now();
  for (std::string_view rest : {std::string_view(head), std::string_view(body)}) {
    while (!rest.empty()) {
      const ssize_t sent = ::send(fd, rest.data(), rest.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;
      rest.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  std::string answer;
  char part[4096];
  for (ssize_t got = 0; (got = ::recv(fd, part, sizeof part, 0)) > 0;)
    answer.append(part, static_cast<std::size_t>(got));
  ::close(fd);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  std::cout << "POST /ingest/batch, " << kLines << " lines: " << static_cast<int>(kLines / time.count())
            << " lines/s, API " << (api.cpu() - cpu) * 1e6 / kLines << " us a line; "
            << answer.substr(answer.rfind("\r\n") + 2) << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "serve") return serve(argv[2]);
  const std::string seconds = argc > 1 ? argv[1] : "8";
  pipegen::testing::NatsServer nats;
  {
    const Api api(nats.url());
    all_at_once(api);
    all_at_once(api);
    std::cout << "peak memory of the API: " << api.peak() << " MiB" << std::endl;
  }
  const Api api(nats.url());
  one_by_one(api, "/ingest/order", seconds);
  one_by_one(api, "/ingest/message?entity=order", seconds);
  one_by_one(api, "/ingest/nothing", seconds);
  std::cout << "peak memory of the API: " << api.peak() << " MiB" << std::endl;
  return 0;
}
