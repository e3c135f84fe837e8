// Diagnostics as text and as JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "schema/load.hpp"

namespace pipegen::gen {

namespace {

/// The lines of the files, looked up in one step: there may be as many diagnostics as lines.
class Lines {
 public:
  explicit Lines(const std::map<std::string, std::string>& texts) : texts_(texts) {}

  /// One line without its end; nothing when there is no such line.
  std::optional<std::string_view> find(const Span& span) {
    const auto text = texts_.find(span.file);
    if (text == texts_.end() || span.line < 1) return std::nullopt;
    const auto [starts, is_new] = starts_.try_emplace(span.file);
    if (is_new) {
      starts->second.push_back(0);
      for (std::size_t i = 0; i < text->second.size(); ++i) {
        if (text->second[i] == '\n') starts->second.push_back(i + 1);
      }
    }
    const auto line = static_cast<std::size_t>(span.line) - 1;
    if (line >= starts->second.size()) return std::nullopt;
    std::string_view rest = std::string_view(text->second).substr(starts->second[line]);
    rest = rest.substr(0, rest.find('\n'));
    if (rest.ends_with('\r')) rest.remove_suffix(1);
    return rest;
  }

 private:
  const std::map<std::string, std::string>& texts_;
  std::map<std::string, std::vector<std::size_t>> starts_;
};

/// The characters of a line, each as what a terminal can show.
std::vector<std::string> characters_of(std::string_view line) {
  std::vector<std::string> out;
  for (const char c : line) {
    const unsigned char octet = static_cast<unsigned char>(c);
    if ((octet & 0xC0) == 0x80 && !out.empty()) {
      out.back() += c;
    } else {
      out.emplace_back(1, (octet < 0x20 && c != '\t') || octet == 0x7F || (octet & 0xC0) == 0x80 ? '?' : c);
    }
  }
  // Files that are no UTF-8 are shown too, when they are reported for that.
  for (std::string& character : out) {
    const unsigned char first = static_cast<unsigned char>(character.front());
    const std::size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (character.size() != length || first == 0xC0 || first == 0xC1 || first > 0xF4) character = "?";
  }
  return out;
}

void append_source(std::string& out, Lines& lines, const Span& span) {
  const auto line = lines.find(span);
  if (!line || line->size() > 4096) return;  // nobody reads such a line
  const auto all = characters_of(*line);
  const std::size_t column = std::min(static_cast<std::size_t>(std::max(span.column, 1)) - 1, all.size());
  // Of a very long line, the part around the caret.
  constexpr std::size_t kBefore = 80, kShown = 160;
  const std::size_t from = all.size() > kShown && column > kBefore ? column - kBefore : 0;
  const std::size_t to = std::min(all.size(), from + kShown);
  std::string carets;
  for (std::size_t i = from; i < to; ++i) out += all[i];
  for (std::size_t i = from; i < column; ++i) carets += all[i] == "\t" ? '\t' : ' ';
  carets += '^';
  const std::size_t length = static_cast<std::size_t>(std::max(span.length, 1));
  for (std::size_t i = column + 1; i < std::min(column + length, to); ++i) carets += '~';
  out += "\n" + carets + "\n";
}

std::string place(const Span& span) {
  if (span.line < 1) return span.file;
  return span.file + ":" + std::to_string(span.line) + ":" + std::to_string(span.column);
}

const char* word(Severity severity) { return severity == Severity::kError ? "error" : "warning"; }

}  // namespace

std::string format_text(const std::vector<Diagnostic>& diagnostics, const std::map<std::string, std::string>& texts) {
  std::string out;
  Lines lines(texts);
  for (const Diagnostic& each : diagnostics) {
    out += place(each.span) + ": " + word(each.severity) + ": " + each.message + " [" + each.code + "]";
    if (!each.hint.empty()) out += " (hint: " + each.hint + ")";
    out += "\n";
    append_source(out, lines, each.span);
    for (const Note& note : each.notes) {
      out += place(note.span) + ": note: " + note.message + "\n";
      append_source(out, lines, note.span);
    }
  }
  return out;
}

std::string format_json(const std::vector<Diagnostic>& diagnostics) {
  // Keys in the order in which a person reads them.
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Diagnostic& each : diagnostics) {
    nlohmann::ordered_json notes = nlohmann::ordered_json::array();
    for (const Note& note : each.notes) {
      notes.push_back({{"file", note.span.file},
                       {"line", note.span.line},
                       {"column", note.span.column},
                       {"message", note.message}});
    }
    out.push_back({{"code", each.code},
                   {"severity", word(each.severity)},
                   {"file", each.span.file},
                   {"line", each.span.line},
                   {"column", each.span.column},
                   {"length", each.span.length},
                   {"message", each.message},
                   {"hint", each.hint},
                   {"notes", std::move(notes)}});
  }
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace pipegen::gen
