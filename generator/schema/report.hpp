// Collects diagnostics, and words for them.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "schema/diagnostic.hpp"

namespace pipegen::gen {

class Report {
 public:
  /// Without a hint, the diagnostic gets the usual one of its code. The reference stays valid, so that notes can be
  /// added to it.
  Diagnostic& error(std::string_view code, const Span& span, std::string message, std::string hint = {});
  Diagnostic& warning(std::string_view code, const Span& span, std::string message, std::string hint = {});

  /// Whether that was reported for this place.
  bool has(std::string_view code, const Span& span) const;
  bool has_errors() const noexcept { return errors_ > 0; }
  std::size_t errors() const noexcept { return errors_; }

  /// By file, line, column, code; the same thing said twice is there once.
  std::vector<Diagnostic> sorted() const;

 private:
  Diagnostic& add(Severity severity, std::string_view code, const Span& span, std::string message, std::string hint);

  std::deque<Diagnostic> all_;
  std::size_t errors_ = 0;
};

/// 'text' for a message: shortened, nothing in it that a terminal would obey.
std::string in_quotes(std::string_view text);

/// "a, b or c", each quoted.
std::string one_of(const std::vector<std::string>& choices);

/// "did you mean 'x'?" when a candidate is near, else "".
std::string did_you_mean(std::string_view wrong, const std::vector<std::string>& candidates);

/// Number of characters (code points) of UTF-8 text.
int characters(std::string_view text);

}  // namespace pipegen::gen
