// What `up` shows on stderr: the lines of the services, each with its name in front, and lines of its own.
#pragma once

#include <cstdio>
#include <map>
#include <string>
#include <string_view>

#include "up/log_line.hpp"

namespace pipegen::gen {

/// Not thread safe. Colours only when told; the constructor without arguments finds out whether stderr is a terminal.
class Console {
 public:
  Console();
  Console(std::FILE* stream, bool colour, std::size_t name_width = 0);

  /// Names are padded to this many characters.
  void name_width(std::size_t width) { name_width_ = width; }

  /// `tts | info page stored page=3`
  void log(const std::string& name, const LogLine& line);
  /// `tts: 12 done, 2 in hand`, or anything else that `up` says itself. Ends a line that `status` left open.
  void say(std::string_view text);
  /// A line that the next one overwrites. Nothing when it is not a terminal.
  void status(std::string_view text);

 private:
  void write(std::string_view text);

  std::FILE* stream_;
  bool colour_;
  std::size_t name_width_ = 0;
  bool status_shown_ = false;
  std::map<std::string, int> colours_;
};

}  // namespace pipegen::gen
