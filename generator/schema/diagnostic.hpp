// What is wrong with a schema, as data: collected, sorted, printed all, never thrown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pipegen::gen {

/// A place in a file. Lines and columns count from 1, columns in characters (code points).
struct Span {
  std::string file;
  int line = 0;  // 0: the file as a whole
  int column = 0;
  int length = 1;  // how many characters the caret underlines
};

enum class Severity { kError, kWarning };

struct Note {
  Span span;
  std::string message;
};

struct Diagnostic {
  std::string code;  // "PG0102": stable, listed in schemas/DIAGNOSTICS.md
  Severity severity = Severity::kError;
  Span span;
  std::string message;
  std::string hint;
  std::vector<Note> notes;  // other places that belong to it: "first declared here"
};

}  // namespace pipegen::gen
