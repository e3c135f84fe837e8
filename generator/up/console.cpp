#include "up/console.hpp"

#include <unistd.h>

#include <array>
#include <cstdlib>

namespace pipegen::gen {

namespace {

bool wants_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return ::isatty(STDERR_FILENO) == 1 && (no_colour == nullptr || *no_colour == '\0');
}

int rank(std::string_view level) {
  if (level == "debug") return 0;
  if (level == "warning") return 2;
  if (level == "error") return 3;
  return 1;
}

/// Lines below it are not shown: the services log at info at least, because `up` reads them.
int lowest_shown() {
  static const char* const kLevel = std::getenv("LOG_LEVEL");
  return kLevel == nullptr ? 0 : rank(kLevel);
}

}  // namespace

Console::Console() : Console(stderr, wants_colour()) {}

Console::Console(std::FILE* stream, bool colour, std::size_t name_width)
    : stream_(stream), colour_(colour), name_width_(name_width) {}

void Console::log(const std::string& name, const LogLine& line) {
  if (!line.level.empty() && rank(line.level) < lowest_shown()) return;
  std::string text = name;
  if (text.size() < name_width_) text.append(name_width_ - text.size(), ' ');
  text += " |";
  const std::string level = line.level.empty() ? "" : " " + line.level;
  if (colour_) {
    static constexpr std::array kColours{36, 32, 35, 34, 33, 96, 92, 95};
    const auto [entry, added] = colours_.try_emplace(name, kColours[colours_.size() % kColours.size()]);
    text = "\x1b[" + std::to_string(entry->second) + "m" + text + "\x1b[0m";
    const int severity = rank(line.level);
    if (severity == 3) {
      text += "\x1b[31m" + level + "\x1b[0m";
    } else if (severity == 2) {
      text += "\x1b[33m" + level + "\x1b[0m";
    } else {
      text += level;
    }
  } else {
    text += level;
  }
  write(text + " " + line.text);
}

void Console::say(std::string_view text) { write(text); }

void Console::status(std::string_view text) {
  if (!colour_) return;
  const std::string line = "\r\x1b[K" + std::string(text);
  std::fwrite(line.data(), 1, line.size(), stream_);
  std::fflush(stream_);
  status_shown_ = true;
}

void Console::write(std::string_view text) {
  // One write, so that lines of several processes on one terminal do not mix.
  const std::string line = (status_shown_ ? "\r\x1b[K" : "") + std::string(text) + "\n";
  status_shown_ = false;
  std::fwrite(line.data(), 1, line.size(), stream_);
  std::fflush(stream_);
}

}  // namespace pipegen::gen
