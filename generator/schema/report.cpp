#include "schema/report.hpp"

#include <algorithm>
#include <tuple>

namespace pipegen::gen {

namespace {

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours, each at a cost of one.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        next[j] = std::min(next[j], before[j - 2] + 1);
    }
    std::swap(before, row);
    std::swap(row, next);
  }
  return row[b.size()];
}

std::string folded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '_' || c == '-') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

auto order(const Diagnostic& d) { return std::tie(d.span.file, d.span.line, d.span.column, d.code, d.message); }

}  // namespace

Diagnostic& Report::error(std::string_view code, const Span& span, std::string message, std::string hint) {
  ++errors_;
  all_.push_back({std::string(code), Severity::kError, span, std::move(message), std::move(hint), {}});
  return all_.back();
}

Diagnostic& Report::warning(std::string_view code, const Span& span, std::string message, std::string hint) {
  all_.push_back({std::string(code), Severity::kWarning, span, std::move(message), std::move(hint), {}});
  return all_.back();
}

bool Report::has(std::string_view code, const Span& span) const {
  return std::ranges::any_of(all_, [&](const Diagnostic& each) {
    return each.code == code && each.span.file == span.file && each.span.line == span.line &&
           each.span.column == span.column;
  });
}

std::vector<Diagnostic> Report::sorted() const {
  std::vector<Diagnostic> out(all_.begin(), all_.end());
  std::ranges::stable_sort(out, [](const Diagnostic& a, const Diagnostic& b) { return order(a) < order(b); });
  const auto same = [](const Diagnostic& a, const Diagnostic& b) { return order(a) == order(b); };
  out.erase(std::unique(out.begin(), out.end(), same), out.end());
  return out;
}

std::string in_quotes(std::string_view text) {
  constexpr int kMost = 60;
  std::string out = "'";
  int length = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if ((c & 0xC0) != 0x80 && ++length > kMost) return out + "…'";
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || c == 0x7F ||
               (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0)) {
      out += '?';
      if (c == 0xC2) ++i;
    } else {
      out += text[i];
    }
  }
  return out + "'";
}

std::string one_of(const std::vector<std::string>& choices) {
  std::string out;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += i + 1 == choices.size() ? " or " : ", ";
    out += in_quotes(choices[i]);
  }
  return out;
}

std::string did_you_mean(std::string_view wrong, const std::vector<std::string>& candidates) {
  // Beyond that nobody waits for a guess.
  if (wrong.empty() || wrong.size() > 100 || candidates.size() > 1000) return "";
  const std::string wrong_folded = folded(wrong);
  const std::size_t most = wrong.size() <= 3 ? 1 : wrong.size() <= 8 ? 2 : 3;
  const std::string* best = nullptr;
  std::size_t best_distance = most + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t gap =
        candidate.size() > wrong.size() ? candidate.size() - wrong.size() : wrong.size() - candidate.size();
    std::size_t distance = best_distance;
    if (folded(candidate) == wrong_folded) {
      distance = 0;
    } else if (gap < best_distance) {
      distance = edit_distance(wrong, candidate);
      if (distance >= candidate.size()) continue;  // nothing in common
    }
    if (distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  return best == nullptr ? "" : "did you mean " + in_quotes(*best) + "?";
}

int characters(std::string_view text) {
  return static_cast<int>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace pipegen::gen
