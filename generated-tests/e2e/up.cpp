#include "up.hpp"

#include <httplib.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace pipegen::testing {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// Appends what the pipe holds; false at its end.
bool read_available(int fd, std::string& text) {
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t size = ::read(fd, buffer.data(), buffer.size());
    if (size < 0) return true;
    if (size == 0) return false;
    text.append(buffer.data(), static_cast<std::size_t>(size));
  }
}

void wait_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  ::poll(&entry, 1, 200);
}

Answer answer(const httplib::Result& result, const std::string& what) {
  if (!result) throw std::runtime_error(what + ": " + httplib::to_string(result.error()));
  return {result->status, result->body, result->get_header_value("Location")};
}

httplib::Client client(const std::string& api) {
  httplib::Client result(api);
  result.set_tcp_nodelay(true);
  result.set_read_timeout(60s);
  return result;
}

}  // namespace

bool await(std::chrono::milliseconds longest, const std::function<bool()>& done) {
  for (const auto deadline = Clock::now() + longest; Clock::now() < deadline; std::this_thread::sleep_for(20ms)) {
    if (done()) return true;
  }
  return done();
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

Ran run_pipegen(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), PIPEGEN_PROGRAM);
  gen::Child child({.arguments = std::move(arguments)});
  Ran ran;
  while (read_available(child.output(), ran.output)) wait_readable(child.output());
  if (await(10s, [&] { return child.exit_status().has_value(); })) ran.status = *child.exit_status();
  return ran;
}

std::vector<pid_t> family(pid_t pid) {
  std::vector<pid_t> result{pid};
  for (std::size_t i = 0; i < result.size(); ++i) {
    const std::string number = std::to_string(result[i]);
    std::istringstream children(read_file("/proc/" + number + "/task/" + number + "/children"));
    for (pid_t child; children >> child;) result.push_back(child);
  }
  return result;
}

bool alive(pid_t pid) {
  std::istringstream stat(read_file("/proc/" + std::to_string(pid) + "/stat"));
  std::string number, name, state;
  return stat >> number >> name >> state && state != "Z" && state != "X";
}

Up::Up(const std::filesystem::path& schema, const std::filesystem::path& workspace, std::vector<std::string> more)
    : log_(workspace.string() + ".log") {
  std::filesystem::create_directories(workspace.parent_path());
  std::filesystem::remove(log_);
  // The shell only parts stdout from stderr, and then is pipegen.
  std::vector<std::string> arguments{"/bin/sh", "-c", "exec \"$@\" 2>>\"$UP_LOG\"", "sh", PIPEGEN_PROGRAM, "up",
                                     "--schema", schema.string(), "--output", workspace.string(),
                                     // Other runs want the schema's port too.
                                     "--api-port", "0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  child_ = std::make_unique<gen::Child>(
      gen::ChildOptions{.arguments = std::move(arguments), .environment = {{"UP_LOG", log_.string()}}});

  const auto deadline = Clock::now() + 20min;  // the first time it compiles the runtime and every service
  while (out_.find('\n') == std::string::npos) {
    if (!read_available(child_->output(), out_) || Clock::now() > deadline) {
      throw std::runtime_error("pipegen up did not become ready:\n" + log());
    }
    wait_readable(child_->output());
  }
  std::istringstream line(out_.substr(0, out_.find('\n')));
  for (std::string part; line >> part;) {
    if (part.starts_with("api=")) api_ = part.substr(4);
    if (part.starts_with("nats=")) nats_ = part.substr(5);
  }
}

Up::~Up() = default;

std::string Up::out() {
  read_available(child_->output(), out_);
  return out_;
}

std::string Up::log() const { return read_file(log_); }

pid_t Up::pid() const { return child_->pid(); }

std::optional<pid_t> Up::service(const std::string& name) const {
  for (const pid_t pid : family(child_->pid())) {
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error);
    if (!error && program.filename() == name && alive(pid)) return pid;
  }
  return std::nullopt;
}

std::optional<int> Up::stop(int signal) {
  child_->signal(signal);
  await(60s, [&] {
    read_available(child_->output(), out_);
    return child_->exit_status().has_value();
  });
  return child_->exit_status();
}

Answer get(const std::string& api, const std::string& path) { return answer(client(api).Get(path), "GET " + path); }

Answer post(const std::string& api, const std::string& path, const std::string& body, const std::string& media_type) {
  return answer(client(api).Post(path, body, media_type), "POST " + path);
}

std::string upload(const std::string& api, const std::string& path, const std::string& body,
                   const std::string& media_type) {
  const Answer accepted = post(api, path, body, media_type);
  if (accepted.status != 202) throw std::runtime_error("POST " + path + ": " + accepted.body);
  return path.substr(0, path.find('?')) + "/" + accepted.json().at("workflow_id").get<std::string>();
}

nlohmann::json finished(const std::string& api, const std::string& workflow, std::chrono::seconds longest) {
  nlohmann::json status;
  const bool done = await(longest, [&] {
    status = get(api, workflow).json();
    return status.is_object() && status.value("state", "running") != "running";
  });
  if (!done) throw std::runtime_error(workflow + " still runs: " + status.dump());
  return status;
}

}  // namespace pipegen::testing
