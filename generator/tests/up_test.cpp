#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "up/build.hpp"
#include "up/child.hpp"
#include "up/console.hpp"
#include "up/line_reader.hpp"
#include "up/log_line.hpp"
#include "up/metrics.hpp"
#include "up/nats_server.hpp"
#include "up/signals.hpp"
#include "up/supervisor.hpp"

namespace pipegen::gen {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pipegen-up-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// A console whose text can be read.
class Screen {
 public:
  explicit Screen(bool colour = false) : file_(std::tmpfile()), console(file_, colour) {}
  ~Screen() { std::fclose(file_); }
  std::string text() const {
    std::fflush(file_);
    std::rewind(file_);
    std::string result;
    for (int c; (c = std::fgetc(file_)) != EOF;) result.push_back(static_cast<char>(c));
    return result;
  }

 private:
  std::FILE* file_;

 public:
  Console console;
};

Program shell(const std::string& name, const std::string& script, const std::string& argument = "") {
  return {.name = name, .arguments = {"/bin/sh", "-c", script, name, argument}};
}

/// Steps until `done`; false when that takes longer than ten seconds.
template <typename Done>
bool step_until(Supervisor& supervisor, Signals& signals, Done done) {
  for (const auto deadline = Clock::now() + 10s; Clock::now() < deadline;) {
    if (done()) return true;
    supervisor.step(signals, 50ms);
  }
  return false;
}

/// A process that has ended but that nobody has waited for yet does not count.
bool alive(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  return in >> number >> name >> state && state != "Z" && state != "X";
}

bool gone_soon(pid_t pid) {
  for (const auto deadline = Clock::now() + 10s; Clock::now() < deadline; std::this_thread::sleep_for(5ms)) {
    if (!alive(pid)) return true;
  }
  return false;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Signals, TheSameKeystrokeFromTwoSendersIsOneRequestToStop) {
  Signals signals;
  ::kill(::getpid(), SIGINT);
  signals.wait({}, 1s);
  ::kill(::getpid(), SIGINT);
  signals.wait({}, 1s);
  EXPECT_EQ(signals.stop_requests(), 1);
}

TEST(Child, ExitStatusIsTheProgramsOwnOr128PlusTheSignal) {
  Signals signals;
  const auto status_of = [&](const std::string& script) {
    Child child({.arguments = {"/bin/sh", "-c", script}});
    for (const auto deadline = Clock::now() + 10s; !child.exit_status() && Clock::now() < deadline;) {
      signals.wait({}, 100ms);
    }
    return child.exit_status();
  };
  EXPECT_EQ(status_of("exit 0"), 0);
  EXPECT_EQ(status_of("exit 78"), 78);
  EXPECT_EQ(status_of("kill -9 $$"), 137);
}

TEST(Child, AProgramThatIsNotThereIsNamedInTheError) {
  try {
    Child child({.arguments = {"no-such-program-anywhere"}});
    FAIL() << "it started";
  } catch (const UpError& error) {
    EXPECT_NE(std::string(error.what()).find("no-such-program-anywhere"), std::string::npos);
  }
}

TEST(Child, AFileThatTheKernelCannotRunIsAnError) {
  Folder folder;
  std::ofstream(folder / "garbage") << "\x7f"
                                       "ELF but not really";
  std::filesystem::permissions(folder / "garbage", std::filesystem::perms::all);
  EXPECT_THROW(Child({.arguments = {(folder / "garbage").string()}}), UpError);
}

TEST(Child, ArgumentsReachTheProgramAsTheyAreAndNoShellSeesThem) {
  Folder folder;
  const std::string odd = "a b'\"$(touch pwned);*";
  Signals signals;
  {
    Child child({.arguments = {"printf", "%s", odd}, .log = folder / "log"});
    for (const auto deadline = Clock::now() + 10s; !child.exit_status() && Clock::now() < deadline;) {
      signals.wait({}, 100ms);
    }
  }
  EXPECT_EQ(read_file(folder / "log"), odd);
}

TEST(Child, DestroyingOneEndsItsWholeProcessGroup) {
  Signals signals;
  pid_t grandchild = 0;
  {
    Child child({.arguments = {"/bin/sh", "-c", "sleep 1000 & echo $!; wait"}});
    LineReader reader;
    for (const auto deadline = Clock::now() + 10s; grandchild == 0 && Clock::now() < deadline;) {
      signals.wait({child.output()}, 100ms);
      reader.read(child.output(), [&](std::string_view line) { grandchild = std::stoi(std::string(line)); });
    }
    ASSERT_GT(grandchild, 0);
    EXPECT_TRUE(alive(grandchild));
  }
  EXPECT_TRUE(gone_soon(grandchild));
}

TEST(Child, NoneOutlivesUsEvenWhenWeAreKilled) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    Child child({.arguments = {"sleep", "1000"}});
    const pid_t pid = child.pid();
    (void)!::write(pipe[1], &pid, sizeof pid);
    ::pause();
    ::_exit(0);
  }
  pid_t child = 0;
  ASSERT_EQ(::read(pipe[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  EXPECT_TRUE(alive(child));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  EXPECT_TRUE(gone_soon(child));
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(Build, AllServicesAreBuiltInAFolderThatWasConfiguredForOne) {
  const Folder folder;
  const std::filesystem::path workspace = folder / "workspace";
  std::filesystem::create_directories(workspace);
  std::ofstream(workspace / "CMakeLists.txt") << "cmake_minimum_required(VERSION 3.25)\n"
                                                 "project(demo LANGUAGES NONE)\n"
                                                 "set(PIPEGEN_SERVICES ALL CACHE STRING \"\")\n"
                                                 "file(WRITE ${CMAKE_BINARY_DIR}/built ${PIPEGEN_SERVICES})\n";
  const auto built = [&] {
    std::ifstream in(workspace / "build" / "built");
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  EXPECT_FALSE(builds_some_only(workspace));
  const std::string one = "cmake -S '" + workspace.string() + "' -B '" + (workspace / "build").string() +
                          "' -DPIPEGEN_SERVICES=tts > /dev/null";
  ASSERT_EQ(std::system(one.c_str()), 0);
  ASSERT_EQ(built(), "tts");
  EXPECT_TRUE(builds_some_only(workspace));

  Screen screen;
  Signals signals;
  EXPECT_TRUE(build_workspace(workspace, screen.console, signals)) << screen.text();
  EXPECT_EQ(built(), "ALL");
  EXPECT_FALSE(builds_some_only(workspace));
}

TEST(LineReader, GivesWholeLinesHoweverTheyArriveAndTheLastOneWithoutNewline) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_NONBLOCK), 0);
  LineReader reader;
  std::vector<std::string> lines;
  const auto take = [&](std::string_view line) { lines.emplace_back(line); };
  (void)!::write(pipe[1], "one\ntw", 6);
  EXPECT_TRUE(reader.read(pipe[0], take));
  EXPECT_EQ(lines, (std::vector<std::string>{"one"}));
  (void)!::write(pipe[1], "o\n\nend", 6);
  ::close(pipe[1]);
  EXPECT_FALSE(reader.read(pipe[0], take));
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two", "", "end"}));
  ::close(pipe[0]);
}

TEST(LogLine, AJsonLineIsShownAsMessageAndFields) {
  const LogLine line = parse_log_line(
      R"({"time":"2025-01-15T10:00:00Z","level":"warning","service":"tts","message":"page stored","page":3,"why":"no room"})");
  EXPECT_EQ(line.level, "warning");
  EXPECT_EQ(line.text, R"(page stored page=3 why="no room")");
}

TEST(LogLine, PortsAndReadinessAreReadFromTheLine) {
  EXPECT_EQ(parse_log_line(R"({"level":"info","message":"admin endpoints are served","admin_port":4711})").admin_port,
            4711);
  EXPECT_EQ(parse_log_line(R"({"level":"info","message":"the API is served","api_port":8080})").api_port, 8080);
  EXPECT_TRUE(parse_log_line(R"({"level":"info","message":"ready"})").ready);
  EXPECT_FALSE(parse_log_line(R"({"level":"info","message":"not ready"})").ready);
  EXPECT_EQ(parse_log_line(R"({"message":"x","admin_port":70000})").admin_port, std::nullopt);
}

TEST(LogLine, WhatIsNotJsonIsShownWithoutControlCharacters) {
  EXPECT_EQ(parse_log_line("Error in \x1b[31mboxRead\x07").text, "Error in  [31mboxRead ");
  EXPECT_EQ(parse_log_line("{not json").text, "{not json");
  EXPECT_EQ(parse_log_line("").text, "");
}

TEST(Console, LinesCarryTheServicesNameAndNoColourUnlessToldSo) {
  Screen plain;
  plain.console.name_width(8);
  plain.console.log("tts", {.level = "info", .text = "ready"});
  plain.console.status("building [1/2]");
  plain.console.say("built");
  EXPECT_EQ(plain.text(), "tts      | info ready\nbuilt\n");

  Screen coloured(true);
  coloured.console.log("tts", {.level = "error", .text = "gone"});
  EXPECT_NE(coloured.text().find("\x1b["), std::string::npos);
}

TEST(Metrics, FiguresAreSumsOverTheLabels) {
  const Figures figures = parse_figures(
      "# HELP pipegen_messages_acked_total Messages acknowledged.\n"
      "pipegen_messages_acked_total{stage=\"tts\"} 12\n"
      "pipegen_messages_acked_total{stage=\"a } 7\"} 3\n"
      "pipegen_in_flight{stage=\"tts\"} 2\n"
      "pipegen_dead_letters_total{stage=\"tts\"} 1\n"
      "pipegen_dead_letters_total_created{stage=\"tts\"} 1700000000\n"
      "messaging_client_sent_messages_total 1.5e+01\n");
  EXPECT_EQ(figures, (Figures{.done = 15, .in_hand = 2, .dead_letters = 1, .sent = 15}));
}

TEST(Metrics, AServerThatNeverAnswersCostsNoMoreThanTheTimeGiven) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 4), 0);
  socklen_t size = sizeof address;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const auto start = Clock::now();
  EXPECT_EQ(http_get(ntohs(address.sin_port), "/metrics", 100ms), std::nullopt);
  EXPECT_LT(Clock::now() - start, 3s);
  ::close(listener);
}

TEST(Supervisor, LinesOfAServiceArePrefixedWithItsName) {
  Signals signals;
  Screen screen;
  Supervisor supervisor({shell("tts", "echo spoken >&2; exec sleep 1000"), shell("ocr", "echo read; exec sleep 1000")},
                        screen.console);
  EXPECT_TRUE(step_until(supervisor, signals, [&] {
    const std::string text = screen.text();
    return text.find("tts | spoken\n") != std::string::npos && text.find("ocr | read\n") != std::string::npos;
  })) << screen.text();
  supervisor.stop(signals, 5s);
}

TEST(Supervisor, AServiceThatDiesIsStartedAgain) {
  Folder folder;
  Signals signals;
  Screen screen;
  // Dies twice, by a signal and by itself, then stays.
  Supervisor supervisor({shell("tts",
                               "echo x >>\"$1\"; case $(wc -l <\"$1\") in 1) kill -9 $$;; 2) exit 3;; esac;"
                               "echo '{\"message\":\"ready\"}'; exec sleep 1000",
                               (folder / "starts").string())},
                        screen.console, {.first_wait = 10ms, .longest_wait = 50ms});
  EXPECT_TRUE(step_until(supervisor, signals, [&] { return supervisor.all_ready(); })) << screen.text();
  EXPECT_EQ(read_file(folder / "starts"), "x\nx\nx\n");
  EXPECT_NE(screen.text().find("tts died (signal 9"), std::string::npos);
  EXPECT_NE(screen.text().find("tts died (exit status 3)"), std::string::npos);
  supervisor.stop(signals, 5s);
}

TEST(Supervisor, AServiceThatCannotStartIsGivenUpWithItsReason) {
  Folder folder;
  Signals signals;
  Screen screen;
  Supervisor supervisor(
      {shell("tts", "echo x >>\"$1\"; echo '{\"level\":\"error\",\"message\":\"no such voice\"}'; exit 78",
             (folder / "starts").string())},
      screen.console, {.first_wait = 1ms, .longest_wait = 2ms});
  ASSERT_TRUE(step_until(supervisor, signals, [&] { return supervisor.gave_up().has_value(); })) << screen.text();
  EXPECT_EQ(*supervisor.gave_up(), "tts cannot start: no such voice");
  EXPECT_EQ(read_file(folder / "starts"), "x\nx\nx\nx\nx\n");
}

TEST(Supervisor, AnApiComesBackOnThePortThatItHad) {
  Folder folder;
  Signals signals;
  Screen screen;
  Program api = shell("api",
                      "echo \"$API_PORT\" >>\"$1\"; echo '{\"message\":\"the API is served\",\"api_port\":4711}';"
                      "echo '{\"message\":\"ready\"}'; [ \"$API_PORT\" = 0 ] && exit 1; exec sleep 1000",
                      (folder / "ports").string());
  api.is_api = true;
  api.port_variable = "API_PORT";
  api.environment = {{"API_PORT", "0"}};
  Supervisor supervisor({api}, screen.console, {.first_wait = 1ms});
  EXPECT_TRUE(step_until(supervisor, signals, [&] { return read_file(folder / "ports") == "0\n4711\n"; }))
      << read_file(folder / "ports");
  EXPECT_EQ(supervisor.api_port(), 4711);
  supervisor.stop(signals, 5s);
}

TEST(Supervisor, StoppingEndsTheApiFirstAndKillsWhatDoesNotListen) {
  Folder folder;
  Signals signals;
  Screen screen;
  const std::string log = (folder / "ends").string();
  const std::string polite =
      "trap 'echo $0 >>\"$1\"; exit 0' TERM; echo '{\"message\":\"ready\"}'; while :; do sleep 0.02; done";
  const std::string deaf = "trap '' TERM; echo '{\"message\":\"ready\"}'; while :; do sleep 0.02; done";
  Program api = shell("api", polite, log);
  api.is_api = true;
  Supervisor supervisor({shell("worker", polite, log), api, shell("deaf", deaf)}, screen.console);
  ASSERT_TRUE(step_until(supervisor, signals, [&] { return supervisor.all_ready(); })) << screen.text();
  const auto start = Clock::now();
  supervisor.stop(signals, 1500ms);
  EXPECT_LT(Clock::now() - start, 8s);
  EXPECT_EQ(read_file(log), "api\nworker\n");
  EXPECT_NE(screen.text().find("deaf does not stop, killing it"), std::string::npos);
}

TEST(NatsServer, ListensOnAFreePortOfThisMachineAndComesBackOnItAfterItDied) {
  Folder folder;
  Screen screen;
  NatsServer nats(folder / "data", 0, screen.console);
  const std::string url = nats.url();
  EXPECT_TRUE(url.starts_with("nats://127.0.0.1:")) << url;
  const pid_t pid = nats.process().pid();
  ::kill(pid, SIGKILL);
  for (const auto deadline = Clock::now() + 10s; nats.process().pid() == pid && Clock::now() < deadline;) {
    nats.tend();
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_NE(nats.process().pid(), pid);
  EXPECT_EQ(nats.url(), url);
}

TEST(NatsServer, TheAddressOfOneThatWasKilledIsNotBelieved) {
  Folder folder;
  Screen screen;
  std::filesystem::create_directory(folder / "data");
  const std::filesystem::path left = folder / "data" / "nats-server_1.ports";
  std::ofstream(left) << R"({"nats": ["nats://127.0.0.1:1"]})";
  NatsServer nats(folder / "data", 0, screen.console);
  EXPECT_FALSE(std::filesystem::exists(left)) << "the next server may be process 1";
}

TEST(NatsServer, APortThatIsTakenIsAnErrorWithTheServersOwnWords) {
  Folder folder;
  Screen screen;
  NatsServer first(folder / "one", 0, screen.console);
  const int port = std::stoi(first.url().substr(first.url().rfind(':') + 1));
  try {
    NatsServer second(folder / "two", port, screen.console);
    FAIL() << "it started";
  } catch (const UpError& error) {
    EXPECT_NE(std::string(error.what()).find("address already in use"), std::string::npos) << error.what();
  }
}

TEST(NatsServer, AFolderThatAnotherOneUsesIsAnError) {
  Folder folder;
  Screen screen;
  NatsServer first(folder / "nats", 0, screen.console);
  try {
    NatsServer second(folder / "nats", 0, screen.console);
    FAIL() << "it started";
  } catch (const UpError& error) {
    EXPECT_NE(std::string(error.what()).find("another pipegen up keeps its data in"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace pipegen::gen
