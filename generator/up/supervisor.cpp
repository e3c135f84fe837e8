#include "up/supervisor.hpp"

#include <algorithm>
#include <cstring>

namespace pipegen::gen {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int kConfigError = 78;  // EX_CONFIG, what the runtime exits with when trying again cannot help

std::string how_it_ended(int status) {
  if (status <= 128) return "exit status " + std::to_string(status);
  const char* name = ::strsignal(status - 128);
  return "signal " + std::to_string(status - 128) + (name != nullptr ? std::string(", ") + name : "");
}

std::string seconds_text(std::chrono::milliseconds time) {
  const auto tenths = time.count() / 100;
  return std::to_string(tenths / 10) + (tenths % 10 != 0 ? "." + std::to_string(tenths % 10) : "") + " s";
}

}  // namespace

struct Supervisor::Service {
  explicit Service(Program what) : program(std::move(what)) {}

  Program program;
  std::unique_ptr<Child> child;  // none while it waits to be started again
  LineReader reader;
  bool output_open = false;
  std::optional<int> admin_port;
  std::optional<int> api_port;
  bool ready = false;
  std::string last_error;
  Clock::time_point started_at;
  Clock::time_point start_at;  // when there is no child
  std::chrono::milliseconds wait{0};
  int config_errors = 0;
  Figures figures;  // of this run
  Figures before;   // of the runs before it
  Figures shown;
};

Supervisor::Supervisor(std::vector<Program> programs, Console& console, RestartPolicy policy)
    : console_(console), policy_(policy) {
  std::size_t width = 0;
  for (Program& program : programs) {
    width = std::max(width, program.name.size());
    services_.push_back(std::make_unique<Service>(std::move(program)));
  }
  console_.name_width(width);
  for (const auto& service : services_) start(*service);
}

Supervisor::~Supervisor() = default;

void Supervisor::start(Service& service) {
  service.reader = {};
  service.output_open = true;
  service.ready = false;
  service.admin_port.reset();
  service.before.done += service.figures.done;
  service.before.dead_letters += service.figures.dead_letters;
  service.before.sent += service.figures.sent;
  service.figures = {};
  service.started_at = Clock::now();
  service.child = std::make_unique<Child>(
      ChildOptions{.arguments = service.program.arguments, .environment = service.program.environment});
}

void Supervisor::step(Signals& signals, std::chrono::milliseconds longest) {
  const auto now = Clock::now();
  std::vector<int> readable;
  for (const auto& service : services_) {
    if (service->child) {
      if (service->output_open) readable.push_back(service->child->output());
    } else {
      longest = std::min(longest, std::chrono::ceil<std::chrono::milliseconds>(service->start_at - now));
    }
  }
  signals.wait(readable, longest);
  for (const auto& service : services_) {
    if (service->child) {
      read_output(*service);
      if (const auto status = service->child->exit_status()) handle_exit(*service, *status);
    } else if (Clock::now() >= service->start_at) {
      start(*service);
    }
  }
}

void Supervisor::read_output(Service& service) {
  service.output_open = service.reader.read(service.child->output(), [&](std::string_view text) {
    const LogLine line = parse_log_line(text);
    if (line.admin_port) service.admin_port = line.admin_port;
    if (line.api_port) {
      service.api_port = line.api_port;
      // Whoever read our "ready" line expects it there after a restart, too.
      if (!service.program.port_variable.empty()) {
        service.program.environment[service.program.port_variable] = std::to_string(*line.api_port);
      }
    }
    if (line.ready) {
      service.ready = true;
      service.config_errors = 0;
    }
    if (line.level == "error" || line.level.empty()) service.last_error = line.text;
    console_.log(service.program.name, line);
  });
}

void Supervisor::handle_exit(Service& service, int status) {
  read_output(service);  // what it said at the very end
  const auto now = Clock::now();
  const bool good_run = service.ready && now - service.started_at >= policy_.good_run;
  service.wait =
      good_run || service.wait.count() == 0 ? policy_.first_wait : std::min(service.wait * 2, policy_.longest_wait);
  service.config_errors = status == kConfigError ? service.config_errors + 1 : 0;
  service.child.reset();
  service.ready = false;
  service.start_at = now + service.wait;
  const std::string& name = service.program.name;
  if (service.config_errors >= policy_.config_errors) {
    gave_up_ = name + " cannot start" + (service.last_error.empty() ? "" : ": " + service.last_error);
    return;
  }
  console_.say(name + " died (" + how_it_ended(status) + "), starting it again in " + seconds_text(service.wait));
}

bool Supervisor::all_ready() const {
  return std::ranges::all_of(services_, [](const auto& service) { return service->ready; });
}

std::optional<int> Supervisor::api_port() const {
  for (const auto& service : services_) {
    if (service->program.is_api && service->api_port) return service->api_port;
  }
  return std::nullopt;
}

void Supervisor::show_figures() {
  for (const auto& service : services_) {
    if (!service->child || !service->ready) continue;
    const auto port = service->admin_port ? service->admin_port : service->api_port;
    if (!port) continue;
    const auto metrics = http_get(*port, "/metrics", 250ms);
    if (!metrics) continue;
    service->figures = parse_figures(*metrics);
    Figures total = service->figures;
    total.done += service->before.done;
    total.dead_letters += service->before.dead_letters;
    total.sent += service->before.sent;
    if (total == service->shown) continue;
    // What a worker published is what the next one has to do: its line says it.
    const bool worth_a_line = service->program.is_api || total.done != service->shown.done ||
                              total.in_hand != service->shown.in_hand ||
                              total.dead_letters != service->shown.dead_letters;
    service->shown = total;
    if (!worth_a_line) continue;
    console_.say(service->program.is_api ? service->program.name + ": " + std::to_string(total.sent) + " accepted"
                                         : service->program.name + ": " + std::to_string(total.done) + " done, " +
                                               std::to_string(total.in_hand) + " in hand, " +
                                               std::to_string(total.dead_letters) + " dead letters");
  }
}

bool Supervisor::wait_for_end(Signals& signals, bool apis_only, Clock::time_point until, int stop_requests) {
  while (true) {
    std::vector<int> readable;
    bool running = false;
    for (const auto& service : services_) {
      if (!service->child) continue;
      read_output(*service);
      if (service->child->exit_status()) {
        read_output(*service);
        service->child.reset();
        continue;
      }
      running = running || service->program.is_api || !apis_only;
      if (service->output_open) readable.push_back(service->child->output());
    }
    if (!running) return true;
    const auto now = Clock::now();
    if (now >= until || signals.stop_requests() > stop_requests) return false;
    signals.wait(readable,
                 std::min<std::chrono::milliseconds>(500ms, std::chrono::ceil<std::chrono::milliseconds>(until - now)));
  }
}

void Supervisor::stop(Signals& signals, std::chrono::milliseconds time) {
  const auto deadline = Clock::now() + time;
  const int stop_requests = signals.stop_requests();
  const auto signal_all = [&](int number, bool apis) {
    for (const auto& service : services_) {
      if (service->child && service->program.is_api == apis) service->child->signal(number);
    }
  };
  signal_all(SIGTERM, true);
  wait_for_end(signals, true, Clock::now() + time / 3, stop_requests);
  signal_all(SIGTERM, false);
  if (!wait_for_end(signals, false, deadline, stop_requests)) {
    for (const auto& service : services_) {
      if (!service->child) continue;
      console_.say(service->program.name + " does not stop, killing it");
      service->child.reset();
    }
  }
}

}  // namespace pipegen::gen
