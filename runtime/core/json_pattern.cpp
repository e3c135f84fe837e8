#include <locale.h>
#include <regex.h>

#include "pipegen/json.hpp"

namespace pipegen::json {
namespace {

/// Makes "." one character of UTF-8 for the current thread, whatever locale the program runs in.
class Utf8Locale {
 public:
  Utf8Locale() : before_(::uselocale(utf8())) {}
  ~Utf8Locale() { ::uselocale(before_); }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  static locale_t utf8() {
    static const locale_t locale = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    return locale;  // null leaves the locale as it is
  }

  locale_t before_;
};

/// Back-references are no part of POSIX extended expressions; glibc has them, in exponential time.
bool has_back_reference(std::string_view expression) {
  for (std::size_t i = 0; i + 1 < expression.size(); ++i) {
    if (expression[i] != '\\') continue;
    ++i;
    if (expression[i] >= '1' && expression[i] <= '9') return true;
  }
  return false;
}

[[noreturn]] void refuse(const std::string& expression, const std::string& why) {
  throw ConfigError("the pattern " + expression + " is not a POSIX extended regular expression: " + why);
}

}  // namespace

struct Pattern::Compiled {
  regex_t regex;

  explicit Compiled(const std::string& expression) {
    const Utf8Locale locale;
    if (const int error = ::regcomp(&regex, expression.c_str(), REG_EXTENDED | REG_NOSUB); error != 0) {
      char text[128];
      ::regerror(error, &regex, text, sizeof text);
      refuse(expression, text);
    }
  }
  ~Compiled() { ::regfree(&regex); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
};

Pattern::Pattern(std::string_view expression) : expression_(expression) {
  if (expression_.find('\0') != std::string::npos) refuse("with a NUL character", "NUL ends it");
  if (has_back_reference(expression_)) refuse(expression_, "back-references are not supported");
  const Compiled alone(expression_);  // "a)(b" is wrong although it is right between parentheses
  compiled_ = std::make_unique<Compiled>("^(" + expression_ + ")$");
}

Pattern::~Pattern() = default;

bool Pattern::matches(std::string_view text) const {
  const Utf8Locale locale;
  regmatch_t range;
  range.rm_so = 0;
  range.rm_eo = static_cast<regoff_t>(text.size());
  // An empty view may have no data, which regexec does not like.
  const char* const data = text.data() != nullptr ? text.data() : "";
  return ::regexec(&compiled_->regex, data, 1, &range, REG_STARTEND) == 0;
}

}  // namespace pipegen::json
