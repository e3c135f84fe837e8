// pipegen dlq: what could not be handled, for the person who has to decide about it.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <exception>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include "core/json_text.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"
#include "pipegen/settings.hpp"
#include "programs/dead_letter_box.hpp"
#include "programs/terminal.hpp"

namespace {

using pipegen::DeadLetter;
using pipegen::DeadLetterBox;
using pipegen::plain;

struct Options {
  std::string stream, url, stage;
  std::vector<std::uint64_t> sequences;
  std::size_t limit = 0;
  bool all = false, keep = false, json = false;
};

std::string id_of(const DeadLetter& letter) {
  for (const char* name : {"Pipegen-Message-Id", "Pipegen-Original-Nats-Msg-Id"}) {
    if (std::string id = letter.header(name); !id.empty()) return id;
  }
  const std::string own = letter.header("Nats-Msg-Id");
  return own.starts_with("dlq:") ? own.substr(4) : own;
}

void print_line(const DeadLetter& letter, bool json) {
  if (json) {
    pipegen::json::Writer out;
    out.begin_object();
    out.field("sequence", static_cast<std::int64_t>(letter.sequence));
    out.field("stored_at", letter.stored_at);
    // Headers are octets: others may write them in any encoding.
    out.field("message_id", pipegen::json::repaired_utf8(id_of(letter)));
    for (const auto& [field, name] : {std::pair{"stage", "Pipegen-Error-Stage"},
                                      {"subject", "Pipegen-Error-Subject"},
                                      {"class", "Pipegen-Error-Class"},
                                      {"error", "Pipegen-Error-Message"},
                                      {"deliveries", "Pipegen-Error-Deliveries"}}) {
      out.field(field, pipegen::json::repaired_utf8(letter.header(name)));
    }
    out.end_object();
    std::cout << out.text() << '\n';
    return;
  }
  std::cout << std::left << std::setw(8) << letter.sequence << std::setw(29) << pipegen::to_string(letter.stored_at)
            << std::setw(20) << plain(letter.header("Pipegen-Error-Stage")) << std::setw(38) << plain(id_of(letter))
            << plain(letter.header("Pipegen-Error-Class")) << ": " << plain(letter.header("Pipegen-Error-Message"))
            << '\n';
}

int list(DeadLetterBox& box, const Options& options) {
  std::size_t count = 0;
  box.each({.stage = options.stage, .headers_only = true}, [&](const DeadLetter& letter) {
    if (count == 0 && !options.json) {
      std::cout << std::left << std::setw(8) << "SEQ" << std::setw(29) << "TIME" << std::setw(20) << "STAGE"
                << std::setw(38) << "MESSAGE"
                << "REASON\n";
    }
    ++count;
    print_line(letter, options.json);
    return options.limit == 0 || count < options.limit;
  });
  if (count == 0 && !options.json) std::cout << "no dead letters\n";
  return 0;
}

int show(DeadLetterBox& box, const Options& options) {
  int status = 0;
  for (const std::uint64_t sequence : options.sequences) {
    const auto letter = box.find(sequence);
    if (!letter) {
      std::cerr << "pipegen dlq: there is no dead letter " << sequence << '\n';
      status = 1;
      continue;
    }
    for (const auto& [name, value] : letter->headers) std::cout << plain(name) << ": " << plain(value) << '\n';
    std::cout << '\n' << letter->payload << '\n';
  }
  return status;
}

/// Calls `act` for each that is meant; it gives false when it failed, and says why.
template <typename Act>
int for_each_meant(DeadLetterBox& box, const Options& options, const char* done, Act act) {
  std::size_t good = 0, bad = 0;
  const auto one = [&](const DeadLetter& letter) {
    act(letter) ? ++good : ++bad;
    return true;
  };
  if (options.all) {
    box.each({.stage = options.stage}, one);
  } else {
    for (const std::uint64_t sequence : options.sequences) {
      const auto letter = box.find(sequence);
      if (letter && (options.stage.empty() || letter->header("Pipegen-Error-Stage") == options.stage)) {
        one(*letter);
        continue;
      }
      std::cerr << "pipegen dlq: there is no dead letter " << sequence
                << (options.stage.empty() ? "" : " of " + options.stage) << '\n';
      ++bad;
    }
  }
  std::cout << good << ' ' << done << (bad > 0 ? ", " + std::to_string(bad) + " not" : "") << '\n';
  return bad > 0 ? 1 : 0;
}

int replay(DeadLetterBox& box, const Options& options) {
  return for_each_meant(box, options, "replayed", [&](const DeadLetter& letter) {
    try {
      box.replay(letter);
    } catch (const pipegen::PermanentError& error) {
      std::cerr << "pipegen dlq: " << error.what() << '\n';
      return false;
    }
    if (!options.keep) box.drop(letter.sequence);
    return true;
  });
}

int drop(DeadLetterBox& box, const Options& options) {
  return for_each_meant(box, options, "dropped",
                        [&](const DeadLetter& letter) { return box.drop(letter.sequence), true; });
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  int (*action)(DeadLetterBox&, const Options&) = nullptr;
  CLI::App app{"What could not be handled: look at it, send it again, or throw it away.", "pipegen dlq"};
  app.require_subcommand(1);
  app.add_option("--stream", options.stream, "The dead-letter stream (pipegen dlq takes it from the schema)")
      ->required();
  app.add_option("--nats-url", options.url, "The NATS server; else NATS_URL, or [nats] url of project.toml");
  app.fallthrough();

  const auto add = [&](const char* name, const char* what, int (*run)(DeadLetterBox&, const Options&)) {
    CLI::App* command = app.add_subcommand(name, what);
    command->callback([&action, run] { action = run; });
    return command;
  };
  const auto takes_stage = [&](CLI::App* command) {
    command->add_option("--stage", options.stage, "Only those of this stage or worker");
  };
  CLI::App* list_command = add("list", "One line for each, the oldest first", list);
  takes_stage(list_command);
  list_command->add_option("--limit", options.limit, "At most so many");
  list_command->add_flag("--json", options.json, "As JSON, one object a line");
  add("show", "Headers and content", show)->add_option("SEQ", options.sequences, "Which: SEQ of the list")->required();
  const auto takes_which = [&](CLI::App* command) {
    auto* which = command->add_option_group("which");
    which->add_option("SEQ", options.sequences, "Which: SEQ of the list");
    which->add_flag("--all", options.all, "All of them");
    which->require_option(1);
    takes_stage(command);
  };
  CLI::App* replay_command = add("replay", "Send it where it came from, and take it out of the dead letters", replay);
  takes_which(replay_command);
  replay_command->add_flag("--keep", options.keep, "Leave it among the dead letters, too");
  takes_which(add("drop", "Throw it away", drop));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    auto connection_options = pipegen::nats::options_from(pipegen::Settings::load(), "pipegen-dlq");
    if (!options.url.empty()) connection_options.url = options.url;
    pipegen::nats::Connection connection(connection_options, std::chrono::seconds(5));
    DeadLetterBox box(connection, options.stream);
    return action(box, options);
  } catch (const std::exception& error) {
    std::cerr << "pipegen dlq: " << error.what() << '\n';
    return 1;
  }
}
