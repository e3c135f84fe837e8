// A cursor over the text, not a use of simdjson's on-demand parser: that one does not look at what nobody reads,
// refuses numbers that no double or int64 holds, and lets duplicate keys through. simdjson checks the UTF-8
// (json_text.cpp).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <stdexcept>
#include <utility>

#include "core/decimal.hpp"
#include "core/encoding.hpp"
#include "core/json_text.hpp"
#include "pipegen/json.hpp"

namespace pipegen::json {
namespace {

constexpr std::size_t kMaxViolations = 50;  // kept for one document
constexpr std::size_t kMaxNamed = 5;        // of them, in what()
constexpr std::size_t kMaxMessage = 1000;   // octets of what()
constexpr std::size_t kMaxSegment = 256;    // octets of a key in a pointer
constexpr std::size_t kPadding = 32;        // zeros after the text: the cursor stops there and may look ahead
constexpr std::size_t kMaxPooledText = 1u << 20;
constexpr std::size_t kMaxPooled = 4;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Cuts at most `size` octets, never within a character.
std::string_view cut(std::string_view text, std::size_t size) {
  if (text.size() <= size) return text;
  while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xC0u) == 0x80u) --size;
  return text.substr(0, size);
}

std::string describe(const std::vector<Violation>& violations) {
  std::string text = "the message is not valid: ";
  for (std::size_t i = 0; i < violations.size() && i < kMaxNamed; ++i) {
    if (i > 0) text += "; ";
    text += (violations[i].pointer.empty() ? "the document" : violations[i].pointer) + " " + violations[i].detail;
  }
  if (violations.size() > kMaxNamed) text += "; and " + std::to_string(violations.size() - kMaxNamed) + " more";
  if (text.size() > kMaxMessage) text = std::string(cut(text, kMaxMessage)) + "…";
  // Keys are the sender's: a line break in one must not end a header or a log line.
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return text;
}

const char* kind_of(char first) {
  switch (first) {
    case '"':
      return "a string";
    case '{':
      return "an object";
    case '[':
      return "an array";
    case 't':
    case 'f':
      return "a boolean";
    case 'n':
      return "null";
    default:
      return "a number";
  }
}

int hex4(const char* digits) {
  int value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = digits[i];
    const int digit = is_digit(c)            ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value << 4 | digit;
  }
  return value;
}

bool is_high_surrogate(int unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
bool is_low_surrogate(int unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }

void append_utf8(std::string& out, int code) {
  const auto put = [&out](int octet) { out += static_cast<char>(octet); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

/// Appends what the inside of a string stands for; its escapes were checked.
void unescape(std::string_view raw, std::string& out) {
  for (std::size_t i = 0; i < raw.size();) {
    const auto plain = std::min(raw.find('\\', i), raw.size());
    out.append(raw, i, plain - i);
    if (plain == raw.size()) return;
    const char escape = raw[plain + 1];
    i = plain + 2;
    switch (escape) {
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case 'u': {
        int code = hex4(raw.data() + i);
        i += 4;
        if (is_high_surrogate(code)) {
          code = 0x10000 + ((code - 0xD800) << 10) + (hex4(raw.data() + i + 2) - 0xDC00);
          i += 6;
        }
        append_utf8(out, code);
        break;
      }
      default:
        out += escape;
    }
  }
}

std::size_t code_points(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u; }));
}

std::string number_text(double number) {
  char digits[32];
  return {digits, std::to_chars(std::begin(digits), std::end(digits), number).ptr};
}

/// Bounds come from the schema, where they may have an exponent.
bool is_below(const Decimal& value, std::string_view bound) {
  if (bound.find_first_of("eE") == std::string_view::npos) return compare_decimals(value.to_string(), bound) < 0;
  const auto plain = Decimal::parse(bound, 400, 200);
  if (!plain) throw ConfigError("the limit " + std::string(bound) + " is not a decimal number");
  return compare_decimals(value.to_string(), plain->to_string()) < 0;
}
bool is_above(const Decimal& value, std::string_view bound) {
  if (bound.find_first_of("eE") == std::string_view::npos) return compare_decimals(value.to_string(), bound) > 0;
  const auto plain = Decimal::parse(bound, 400, 200);
  if (!plain) throw ConfigError("the limit " + std::string(bound) + " is not a decimal number");
  return compare_decimals(value.to_string(), plain->to_string()) > 0;
}

}  // namespace

Invalid::Invalid(std::vector<Violation> violations)
    : PermanentError(describe(violations)), violations_(std::move(violations)) {}

/// The cursor. It stands on the first character of a value (pending_) or behind one.
struct Reader::Impl {
  /// An object or array that is being read, and the place in it.
  struct Frame {
    bool is_object;
    bool first = true;           // nothing of it was read
    std::size_t index = 0;       // of the current item
    std::string_view key{};      // of the current value
    std::size_t keys_begin = 0;  // in keys_
  };

  // -- life: one per document, kept for the next one of the thread; nested readers take one each --

  static std::vector<std::unique_ptr<Impl>>& pool() {
    thread_local std::vector<std::unique_ptr<Impl>> free;
    return free;
  }

  static std::unique_ptr<Impl> take() {
    auto& free = pool();
    if (free.empty()) return std::make_unique<Impl>();
    auto impl = std::move(free.back());
    free.pop_back();
    return impl;
  }

  static void give_back(std::unique_ptr<Impl> impl) {
    auto& free = pool();
    if (impl->text_.capacity() > kMaxPooledText || impl->keys_.capacity() > kMaxPooledText / sizeof(std::string_view) ||
        free.size() >= kMaxPooled) {
      return;
    }
    free.push_back(std::move(impl));
  }

  void start(std::string_view text, int max_depth) {
    frames_.clear();
    keys_.clear();
    if (!unescaped_keys_.empty()) unescaped_keys_.clear();
    violations_.clear();
    is_new_ = false;
    made_ = {};
    max_depth_ = static_cast<std::size_t>(std::max(max_depth, 0));
    text_.clear();
    text_.reserve(text.size() + kPadding);
    text_.append(text);
    text_.append(kPadding, '\0');
    p_ = text_.data();
    end_ = p_ + text.size();
    if (text.starts_with("\xEF\xBB\xBF")) reject("is not JSON: it begins with a byte order mark");
    if (!is_utf8(text)) reject("is not valid UTF-8");
    skip_blanks();
    if (p_ == end_) reject("is empty");
    pending_ = true;
  }

  // -- violations --

  [[noreturn]] static void reject(std::string detail) { throw Invalid({{"", std::move(detail)}}); }

  [[noreturn]] void fail(const char* what) const {
    if (p_ >= end_) reject("is not JSON: it ends too early");
    reject("is not JSON: " + std::string(what) + " at byte " + std::to_string(p_ - text_.data()));
  }

  static void append_segment(std::string& pointer, std::string_view key) {
    pointer += '/';
    const std::string_view shown = cut(key, kMaxSegment);
    for (const char c : shown) {
      if (c == '~') {
        pointer += "~0";
      } else if (c == '/') {
        pointer += "~1";
      } else {
        pointer += c;
      }
    }
    if (shown.size() < key.size()) pointer += "…";
  }

  std::string pointer() const {
    std::string text;
    for (const Frame& frame : frames_) {
      append_segment(text, frame.is_object ? frame.key : std::string_view(std::to_string(frame.index)));
    }
    return text;
  }

  void add(std::string detail) {
    if (violations_.size() < kMaxViolations) violations_.push_back({pointer(), std::move(detail)});
  }

  /// About a field of the object that the cursor stands on or behind.
  void add_at(std::string_view key, std::string detail) {
    if (violations_.size() < kMaxViolations) violations_.push_back({pointer_to(key), std::move(detail)});
  }

  std::string pointer_to(std::string_view key) const {
    std::string place = pointer();
    append_segment(place, key);
    return place;
  }

  /// Whether the document is good without that field of the object that the cursor stands behind; or, with `is_here`,
  /// with a null as its value, which the cursor stands on.
  bool may_lack(const Field& field, bool is_here) const {
    if (field.presence == Presence::kOptional) return true;
    if (!is_new_) return false;
    if (field.presence == Presence::kFresh) return true;
    return std::find(made_.begin(), made_.end(), is_here ? pointer() : pointer_to(field.name)) != made_.end();
  }

  // -- tokens --

  // Loops walk on a copy of p_: a char may alias p_ itself, which would send it through memory at every step.

  void skip_blanks() {
    const char* p = p_;
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') ++p;
    p_ = p;
  }

  /// From the opening quote to behind the closing one; gives what is between them, escapes checked but kept.
  std::string_view scan_string(bool& escaped) {
    const char* const begin = p_ + 1;
    const char* p = begin;
    escaped = false;
    for (;;) {
      std::size_t special;
      while ((special = first_special_of_16(p)) == 16) p += 16;  // there is one in the padding at the latest
      p += special;
      if (*p == '"') {
        p_ = p + 1;
        return {begin, static_cast<std::size_t>(p - begin)};
      }
      p_ = p;
      if (*p != '\\') fail("a control character in a string");
      escaped = true;
      scan_escape();
      p = p_;
    }
  }

  void scan_escape() {
    switch (p_[1]) {
      case '"':
      case '\\':
      case '/':
      case 'b':
      case 'f':
      case 'n':
      case 'r':
      case 't':
        p_ += 2;
        return;
      case 'u':
        break;
      default:
        fail("an unknown escape in a string");
    }
    const int unit = hex4(p_ + 2);
    if (unit < 0) fail("an escape without its four hexadecimal digits");
    if (is_low_surrogate(unit)) fail("half a surrogate pair");
    if (is_high_surrogate(unit)) {
      if (p_[6] != '\\' || p_[7] != 'u' || !is_low_surrogate(hex4(p_ + 8))) fail("half a surrogate pair");
      p_ += 6;
    }
    p_ += 6;
  }

  static const char* behind_digits(const char* p) {
    while (is_digit(*p)) ++p;
    return p;
  }

  std::string_view scan_number(bool& integral) {
    const char* const begin = p_;
    const char* p = begin;
    const auto digits = [&](const char* otherwise) {
      if (!is_digit(*p)) {
        p_ = p;
        fail(otherwise);
      }
      p = behind_digits(p);
    };
    if (*p == '-') ++p;
    const char* const first = p;
    digits(p == begin ? "an unexpected character" : "a minus sign without digits");
    if (*first == '0' && p - first > 1) fail("a number with a leading zero");
    integral = true;
    if (*p == '.') {
      integral = false;
      ++p;
      digits("a decimal point without digits");
    }
    if (*p == 'e' || *p == 'E') {
      integral = false;
      ++p;
      if (*p == '+' || *p == '-') ++p;
      digits("an exponent without digits");
    }
    p_ = p;
    return {begin, static_cast<std::size_t>(p - begin)};
  }

  void scan_literal(std::string_view literal) {
    if (std::string_view(p_, literal.size()) != literal) fail("an unexpected character");
    p_ += literal.size();
  }

  void scan_scalar() {
    bool ignored;
    switch (*p_) {
      case '"':
        scan_string(ignored);
        return;
      case 't':
        return scan_literal("true");
      case 'f':
        return scan_literal("false");
      case 'n':
        return scan_literal("null");
      default:
        scan_number(ignored);
    }
  }

  // -- objects and arrays --

  void enter() {
    if (frames_.size() >= max_depth_) {
      throw Invalid({{pointer(), "is nested deeper than " + std::to_string(max_depth_) + " levels"}});
    }
    frames_.push_back({.is_object = *p_ == '{', .keys_begin = keys_.size()});
    ++p_;
  }

  /// Moves to the next value of the innermost object; false (and out of it) when there is none.
  bool next_key() {
    if (pending_) skip();
    Frame& frame = frames_.back();
    skip_blanks();
    if (*p_ == '}') {
      ++p_;
      close_object();
      return false;
    }
    if (!frame.first) {
      if (*p_ != ',') fail("expected ',' or '}'");
      ++p_;
      skip_blanks();
    }
    frame.first = false;
    if (*p_ != '"') fail("expected a key in quotes");
    bool escaped;
    frame.key = scan_string(escaped);
    if (escaped) {
      std::string& key = unescaped_keys_.emplace_back();
      unescape(frame.key, key);
      frame.key = key;
    }
    skip_blanks();
    if (*p_ != ':') fail("expected ':'");
    ++p_;
    skip_blanks();
    pending_ = true;
    return true;
  }

  bool next_item() {
    if (pending_) skip();
    Frame& frame = frames_.back();
    skip_blanks();
    if (*p_ == ']') {
      ++p_;
      frames_.pop_back();
      return false;
    }
    if (frame.first) {
      frame.first = false;
    } else {
      if (*p_ != ',') fail("expected ',' or ']'");
      ++p_;
      skip_blanks();
      ++frame.index;
    }
    pending_ = true;
    return true;
  }

  /// The current key is one that close_object() compares with the others.
  void remember_key() { keys_.push_back(frames_.back().key); }

  void close_object() {
    const auto begin = keys_.begin() + static_cast<std::ptrdiff_t>(frames_.back().keys_begin);
    frames_.pop_back();
    const auto repeated = [this](std::string_view key) { add_at(key, "is given more than once"); };
    if (keys_.end() - begin <= 8) {
      for (auto key = begin; key != keys_.end(); ++key) {
        if (std::find(begin, key, *key) != key) repeated(*key);
      }
    } else {
      std::sort(begin, keys_.end());
      for (auto key = begin + 1; key != keys_.end(); ++key) {
        if (*key == key[-1]) repeated(*key);
      }
    }
    keys_.erase(begin, keys_.end());
  }

  /// Checks the value that the cursor stands on and moves behind it. No recursion: depth costs no stack.
  void skip() {
    pending_ = false;
    const std::size_t depth = frames_.size();
    do {
      pending_ = false;
      if (*p_ == '{' || *p_ == '[') {
        enter();
      } else {
        scan_scalar();
      }
      while (frames_.size() > depth && !next_in_skipped()) {
      }
    } while (frames_.size() > depth);
  }

  bool next_in_skipped() {
    if (!frames_.back().is_object) return next_item();
    if (!next_key()) return false;
    remember_key();
    return true;
  }

  // -- values --

  void begin_value() {
    if (!pending_) throw std::logic_error("json::Reader: there is no value left to read here");
    pending_ = false;
  }

  /// Skips a value that should have been something else.
  void mismatch(const char* expected) {
    const char* const found = kind_of(*p_);
    skip();
    add("must be " + std::string(expected) + ", not " + found);
  }

  /// The string that is the next value; valid until the next call. False: it was something else.
  bool read_text(std::string_view& text, const char* expected = "a string") {
    begin_value();
    if (*p_ != '"') {
      mismatch(expected);
      return false;
    }
    bool escaped;
    text = scan_string(escaped);
    if (escaped) {
      unescaped_.clear();
      unescape(text, unescaped_);
      text = unescaped_;
    }
    return true;
  }

  bool stands_on_number() const { return is_digit(*p_) || *p_ == '-'; }

  std::int64_t read_integer(IntLimits limits, std::int64_t type_min, std::int64_t type_max) {
    begin_value();
    if (!stands_on_number()) {
      mismatch("a whole number");
      return 0;
    }
    bool integral;
    const std::string_view token = scan_number(integral);
    if (!integral) {
      add("must be a whole number, without a point or an exponent");
      return 0;
    }
    std::int64_t number = 0;
    const bool fits = std::from_chars(token.data(), token.data() + token.size(), number).ec == std::errc();
    const std::int64_t min = std::max(limits.min, type_min);
    const std::int64_t max = std::min(limits.max, type_max);
    const bool low = fits ? number < min : token.front() == '-';
    const bool high = fits ? number > max : token.front() != '-';
    if (low) add("must be at least " + std::to_string(min));
    if (high) add("must be at most " + std::to_string(max));
    return low || high ? 0 : number;
  }

  void check_length(std::size_t length, ItemLimits limits, const char* unit) {
    if (length < limits.min_length) add("must have at least " + std::to_string(limits.min_length) + " " + unit);
    if (length > limits.max_length) add("must have at most " + std::to_string(limits.max_length) + " " + unit);
  }

  std::string text_;  // and its padding
  const char* p_ = nullptr;
  const char* end_ = nullptr;
  bool pending_ = false;
  std::size_t max_depth_ = 0;
  std::vector<Frame> frames_;
  std::vector<std::string_view> keys_;      // of all the open objects, those that are to be compared
  std::deque<std::string> unescaped_keys_;  // keys that are not in the text as they are
  std::string unescaped_;
  std::vector<Violation> violations_;
  bool is_new_ = false;  // by parse_new()
  std::span<const std::string_view> made_{};
};

Reader::Reader(std::string_view text, int max_depth) : impl_(Impl::take()) { impl_->start(text, max_depth); }

Reader::Reader(std::string_view text, std::span<const std::string_view> made) : Reader(text) {
  impl_->is_new_ = true;
  impl_->made_ = made;
}

Reader::~Reader() { Impl::give_back(std::move(impl_)); }

bool Reader::boolean() {
  impl_->begin_value();
  const char first = *impl_->p_;
  if (first != 't' && first != 'f') {
    impl_->mismatch("a boolean");
    return false;
  }
  impl_->scan_literal(first == 't' ? "true" : "false");
  return first == 't';
}

std::int32_t Reader::int32(IntLimits limits) {
  using Range = std::numeric_limits<std::int32_t>;
  return static_cast<std::int32_t>(impl_->read_integer(limits, Range::min(), Range::max()));
}

std::int64_t Reader::int64(IntLimits limits) {
  using Range = std::numeric_limits<std::int64_t>;
  return impl_->read_integer(limits, Range::min(), Range::max());
}

double Reader::float64(FloatLimits limits) {
  impl_->begin_value();
  if (!impl_->stands_on_number()) {
    impl_->mismatch("a number");
    return 0;
  }
  bool ignored;
  const std::string_view token = impl_->scan_number(ignored);
  double number = 0;
  const auto result = std::from_chars(token.data(), token.data() + token.size(), number);
  if (result.ec == std::errc::result_out_of_range) {
    // Too small is zero for every use that a double has; too large is not a number at all.
    const auto parts = split_decimal(token);
    const auto zeros =
        parts->integer == "0" ? std::min(parts->fraction.find_first_not_of('0'), parts->fraction.size()) : 0;
    const auto digits =
        parts->integer == "0" ? -static_cast<std::int64_t>(zeros) : static_cast<std::int64_t>(parts->integer.size());
    number = digits + parts->exponent > 0 ? std::numeric_limits<double>::infinity() : 0;
  }
  if (!std::isfinite(number)) {
    impl_->add("is too large for a float64");
    return 0;
  }
  if (number < limits.min) impl_->add("must be at least " + number_text(limits.min));
  if (number > limits.max) impl_->add("must be at most " + number_text(limits.max));
  return number;
}

Decimal Reader::decimal(DecimalLimits limits) {
  std::string_view text;
  if (impl_->pending_ && impl_->stands_on_number()) {
    impl_->begin_value();
    bool ignored;
    text = impl_->scan_number(ignored);
  } else if (!impl_->read_text(text, "a decimal number")) {
    return {};
  }
  auto value = Decimal::parse(text, limits.precision, limits.scale);
  if (!value) {
    impl_->add("must be a decimal number with at most " + std::to_string(limits.precision - limits.scale) +
               " digits before the point and " + std::to_string(limits.scale) + " after it");
    return {};
  }
  if (!limits.min.empty() && is_below(*value, limits.min)) impl_->add("must be at least " + std::string(limits.min));
  if (!limits.max.empty() && is_above(*value, limits.max)) impl_->add("must be at most " + std::string(limits.max));
  return *std::move(value);
}

std::string Reader::string(TextLimits limits) {
  std::string_view text;
  if (!impl_->read_text(text)) return {};
  // A text of n octets has n/4 to n characters: counting them is rarely needed.
  if (text.size() > limits.max_length || (limits.min_length > 0 && text.size() / 4 < limits.min_length)) {
    impl_->check_length(code_points(text), {limits.min_length, limits.max_length}, "characters");
  }
  if (limits.pattern != nullptr && !limits.pattern->matches(text)) {
    impl_->add("must match the pattern " + std::string(limits.pattern->expression()));
  }
  return std::string(text);
}

Bytes Reader::bytes(ItemLimits limits) {
  std::string_view text;
  if (!impl_->read_text(text, "a string of base64")) return {};
  auto value = decode_base64(text);
  if (!value) {
    impl_->add("must be base64 with padding");
    return {};
  }
  impl_->check_length(value->size(), limits, "bytes");
  return *std::move(value);
}

Uuid Reader::uuid() {
  std::string_view text;
  if (!impl_->read_text(text, "a UUID")) return {};
  const auto value = Uuid::parse(text);
  if (!value) impl_->add("must be a UUID (8-4-4-4-12 hexadecimal digits)");
  return value.value_or(Uuid{});
}

Timestamp Reader::timestamp() {
  std::string_view text;
  if (!impl_->read_text(text, "a timestamp")) return {};
  const auto value = parse_timestamp(text);
  if (!value) impl_->add("must be a timestamp as in RFC 3339 (\"2025-01-15T10:00:00Z\")");
  return value.value_or(Timestamp{});
}

Date Reader::date() {
  std::string_view text;
  constexpr Date kEpoch = std::chrono::year(1970) / 1 / 1;
  if (!impl_->read_text(text, "a date")) return kEpoch;
  const auto value = parse_date(text);
  if (!value) impl_->add("must be a date (\"2025-01-15\")");
  return value.value_or(kEpoch);
}

Json Reader::json() {
  impl_->begin_value();
  const char* const begin = impl_->p_;
  impl_->skip();
  return {std::string(begin, impl_->p_)};
}

std::size_t Reader::one_of(std::span<const std::string_view> names) {
  std::string_view text;
  if (!impl_->read_text(text)) return 0;
  const auto found = std::find(names.begin(), names.end(), text);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  std::string expected;
  for (const std::string_view name : names) expected.append(expected.empty() ? "" : ", ").append(name);
  impl_->add("must be one of " + expected);
  return 0;
}

void Reader::violation(std::string detail) { impl_->add(std::move(detail)); }

void Reader::finish() {
  if (impl_->pending_ && impl_->frames_.empty()) impl_->skip();
  if (!impl_->frames_.empty()) throw std::logic_error("json::Reader: finish() within an object or array");
  impl_->skip_blanks();
  if (impl_->p_ != impl_->end_) impl_->fail("something follows the document");
  if (!impl_->violations_.empty()) throw Invalid(std::move(impl_->violations_));
}

bool Reader::enter_array() {
  impl_->begin_value();
  if (*impl_->p_ != '[') {
    impl_->mismatch("an array");
    return false;
  }
  impl_->enter();
  return true;
}

bool Reader::next_item() { return impl_->next_item(); }

bool Reader::enter_map() {
  impl_->begin_value();
  if (*impl_->p_ != '{') {
    impl_->mismatch("an object");
    return false;
  }
  impl_->enter();
  return true;
}

bool Reader::next_entry(std::string& key) {
  if (!impl_->next_key()) return false;
  impl_->remember_key();
  key = impl_->frames_.back().key;
  return true;
}

void Reader::leave(std::size_t size, ItemLimits limits) { impl_->check_length(size, limits, "items"); }

Object::Object(Reader& in, std::span<const Field> fields) : in_(in), fields_(fields), entered_(in.enter_map()) {
  index_ = fields.size();  // so that the first field is the one expected first
  if (fields.size() > 64) many_seen_.resize(fields.size());
}

bool Object::next() {
  if (!entered_) return false;
  Reader::Impl& in = *in_.impl_;
  const std::size_t count = fields_.size();
  const auto seen = [&](std::size_t i) { return many_seen_.empty() ? (seen_ >> i & 1) != 0 : bool(many_seen_[i]); };
  while (in.next_key()) {
    const std::string_view key = in.frames_.back().key;
    // Senders keep the order of the schema, mostly: look at the field after the last one first.
    std::size_t found = index_ + 1 < count ? index_ + 1 : 0;
    if (count == 0 || fields_[found].name != key) {
      found = 0;
      while (found < count && fields_[found].name != key) ++found;
    }
    if (found == count) {
      in.remember_key();
      in.skip();
      continue;
    }
    index_ = found;
    if (seen(found)) {
      in.skip();
      in.add("is given more than once");
      continue;
    }
    if (many_seen_.empty()) {
      seen_ |= std::uint64_t{1} << found;
    } else {
      many_seen_[found] = true;
    }
    if (*in.p_ == 'n' && in.may_lack(fields_[found], true)) {
      in.skip();
      continue;
    }
    return true;
  }
  entered_ = false;
  for (std::size_t i = 0; i < count; ++i) {
    if (!seen(i) && !in.may_lack(fields_[i], false)) in.add_at(fields_[i].name, "is required");
  }
  return false;
}

}  // namespace pipegen::json
