#include "pipegen/types.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>

#include "core/decimal.hpp"
#include "core/random.hpp"
#include "core/sha256.hpp"
#include "pipegen/error.hpp"

namespace pipegen {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using std::chrono::sys_days;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The number that `width` digits at the front of `text` make, which are removed; -1 when they are no digits.
int take_number(std::string_view& text, std::size_t width) {
  if (text.size() < width) return -1;
  int number = 0;
  for (std::size_t i = 0; i < width; ++i) {
    if (!is_digit(text[i])) return -1;
    number = number * 10 + (text[i] - '0');
  }
  text.remove_prefix(width);
  return number;
}

bool take(std::string_view& text, char c) {
  if (!text.starts_with(c)) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<Date> take_date(std::string_view& text) {
  const int year = take_number(text, 4);
  if (year < 1 || !take(text, '-')) return std::nullopt;
  const int month = take_number(text, 2);
  if (month < 1 || !take(text, '-')) return std::nullopt;
  const int day = take_number(text, 2);
  if (day < 1) return std::nullopt;
  const Date date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                  std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok()) return std::nullopt;
  return date;
}

/// "Z" or "+01:30" as minutes east of UTC.
std::optional<minutes> take_offset(std::string_view& text) {
  if (take(text, 'Z') || take(text, 'z')) return minutes(0);
  const bool west = text.starts_with('-');
  if (!take(text, '-') && !take(text, '+')) return std::nullopt;
  const int hour = take_number(text, 2);
  if (hour < 0 || hour > 23 || !take(text, ':')) return std::nullopt;
  const int minute = take_number(text, 2);
  if (minute < 0 || minute > 59) return std::nullopt;
  const auto offset = hours(hour) + minutes(minute);
  return west ? -offset : offset;
}

/// ".123456789" as microseconds; digits beyond them are dropped.
std::optional<microseconds> take_fraction(std::string_view& text) {
  if (!take(text, '.')) return microseconds(0);
  std::size_t digits = 0;
  int micros = 0;
  for (; digits < text.size() && is_digit(text[digits]); ++digits) {
    if (digits < 6) micros = micros * 10 + (text[digits] - '0');
  }
  if (digits == 0 || digits > 9) return std::nullopt;
  for (std::size_t i = digits; i < 6; ++i) micros *= 10;
  text.remove_prefix(digits);
  return microseconds(micros);
}

constexpr Timestamp kFirst = sys_days(std::chrono::year(1) / 1 / 1);
constexpr Timestamp kAfterLast = sys_days(std::chrono::year(10000) / 1 / 1);

void append_padded(std::string& text, std::int64_t number, int width) {
  char digits[20];
  for (int i = width; i-- > 0; number /= 10) digits[i] = static_cast<char>('0' + number % 10);
  text.append(digits, static_cast<std::size_t>(width));
}

void append_date(std::string& text, Date date) {
  append_padded(text, static_cast<int>(date.year()), 4);
  text += '-';
  append_padded(text, static_cast<unsigned>(date.month()), 2);
  text += '-';
  append_padded(text, static_cast<unsigned>(date.day()), 2);
}

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_hyphen_place(std::size_t i) { return i == 8 || i == 13 || i == 18 || i == 23; }

void stamp(Uuid& uuid, unsigned version) {
  uuid.octets[6] = static_cast<std::uint8_t>((uuid.octets[6] & 0x0f) | version << 4);
  uuid.octets[8] = static_cast<std::uint8_t>((uuid.octets[8] & 0x3f) | 0x80);
}

/// Milliseconds since 1970 and a 12-bit fraction of one, never the same twice in this process.
std::uint64_t next_tick() {
  static std::atomic<std::uint64_t> last = 0;
  const auto nanos = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  const std::uint64_t tick = (nanos / 1'000'000) << 12 | (nanos % 1'000'000) * 4096 / 1'000'000;
  std::uint64_t before = last.load(std::memory_order_relaxed);
  std::uint64_t mine;
  do {
    mine = std::max(tick, before + 1);
  } while (!last.compare_exchange_weak(before, mine, std::memory_order_relaxed));
  return mine;
}

template <typename Number>
std::string number_text(Number number) {
  char digits[32];
  return {digits, std::to_chars(std::begin(digits), std::end(digits), number).ptr};
}

}  // namespace

// ---- time -----------------------------------------------------------------------------------------------------------

std::string to_string(Timestamp time) {
  if (time < kFirst || time >= kAfterLast) throw PermanentError("a timestamp outside the years 1 to 9999 has no text");
  const auto day = std::chrono::floor<days>(time);
  const auto of_day = (time - day).count();
  std::string text;
  text.reserve(27);
  append_date(text, Date(day));
  const auto second = of_day / 1'000'000;
  text += 'T';
  append_padded(text, second / 3600, 2);
  text += ':';
  append_padded(text, second / 60 % 60, 2);
  text += ':';
  append_padded(text, second % 60, 2);
  if (const auto micros = of_day % 1'000'000; micros != 0) {
    text += '.';
    append_padded(text, micros, 6);
  }
  text += 'Z';
  return text;
}

std::optional<Timestamp> parse_timestamp(std::string_view text) {
  const auto date = take_date(text);
  if (!date || !(take(text, 'T') || take(text, 't'))) return std::nullopt;
  const int hour = take_number(text, 2);
  if (hour < 0 || hour > 23 || !take(text, ':')) return std::nullopt;
  const int minute = take_number(text, 2);
  if (minute < 0 || minute > 59 || !take(text, ':')) return std::nullopt;
  const int second = take_number(text, 2);
  if (second < 0 || second > 59) return std::nullopt;
  const auto fraction = take_fraction(text);
  if (!fraction) return std::nullopt;
  const auto offset = take_offset(text);
  if (!offset || !text.empty()) return std::nullopt;
  const Timestamp time = sys_days(*date) + hours(hour) + minutes(minute) + seconds(second) + *fraction - *offset;
  if (time < kFirst || time >= kAfterLast) return std::nullopt;
  return time;
}

Timestamp now() { return std::chrono::floor<microseconds>(std::chrono::system_clock::now()); }

std::string to_string(Date date) {
  if (!date.ok() || static_cast<int>(date.year()) < 1 || static_cast<int>(date.year()) > 9999) {
    throw PermanentError("a date that is no day of the years 1 to 9999 has no text");
  }
  std::string text;
  append_date(text, date);
  return text;
}

std::optional<Date> parse_date(std::string_view text) {
  const auto date = take_date(text);
  return text.empty() ? date : std::nullopt;
}

// ---- uuid -----------------------------------------------------------------------------------------------------------

std::string Uuid::to_string() const {
  char text[36];
  std::size_t at = 0;
  for (const std::uint8_t octet : octets) {
    if (is_hyphen_place(at)) text[at++] = '-';
    text[at++] = "0123456789abcdef"[octet >> 4];
    text[at++] = "0123456789abcdef"[octet & 15];
  }
  return {text, sizeof text};
}

std::optional<Uuid> Uuid::parse(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  Uuid uuid;
  std::size_t at = 0;
  for (std::uint8_t& octet : uuid.octets) {
    if (is_hyphen_place(at) && text[at++] != '-') return std::nullopt;
    const int high = hex_value(text[at++]);
    const int low = hex_value(text[at++]);
    if (high < 0 || low < 0) return std::nullopt;
    octet = static_cast<std::uint8_t>(high << 4 | low);
  }
  return uuid;
}

Uuid Uuid::random() {
  Uuid uuid;
  fill_random(std::as_writable_bytes(std::span(uuid.octets)));
  const std::uint64_t tick = next_tick();
  for (std::size_t i = 0; i < 6; ++i) uuid.octets[i] = static_cast<std::uint8_t>(tick >> (52 - 8 * i));
  uuid.octets[6] = static_cast<std::uint8_t>(tick >> 8 & 0x0f);
  uuid.octets[7] = static_cast<std::uint8_t>(tick);
  stamp(uuid, 7);
  return uuid;
}

Uuid Uuid::derived(std::string_view name) {
  const auto digest = Sha256::of(bytes_of(name));
  Uuid uuid;
  for (std::size_t i = 0; i < uuid.octets.size(); ++i) uuid.octets[i] = std::to_integer<std::uint8_t>(digest[i]);
  stamp(uuid, 8);
  return uuid;
}

// ---- decimal --------------------------------------------------------------------------------------------------------

std::optional<DecimalParts> split_decimal(std::string_view text) {
  const auto take_digits = [&text] {
    std::size_t length = 0;
    while (length < text.size() && is_digit(text[length])) ++length;
    const auto digits = text.substr(0, length);
    text.remove_prefix(length);
    return digits;
  };
  DecimalParts parts;
  parts.negative = take(text, '-');
  parts.integer = take_digits();
  if (parts.integer.empty() || (parts.integer.size() > 1 && parts.integer[0] == '0')) return std::nullopt;
  if (take(text, '.')) {
    parts.fraction = take_digits();
    if (parts.fraction.empty()) return std::nullopt;
  }
  if (take(text, 'e') || take(text, 'E')) {
    const bool negative = text.starts_with('-');
    if (!take(text, '-')) take(text, '+');
    const auto digits = take_digits();
    if (digits.empty()) return std::nullopt;
    for (const char digit : digits) {
      // Far beyond any length of text that can be in memory, and far from overflow.
      parts.exponent = std::min<std::int64_t>(parts.exponent * 10 + (digit - '0'), 1'000'000'000'000'000);
    }
    if (negative) parts.exponent = -parts.exponent;
  }
  if (!text.empty()) return std::nullopt;
  return parts;
}

std::strong_ordering compare_decimals(std::string_view left, std::string_view right) {
  struct Number {
    bool negative;
    std::string_view integer;
    std::string_view fraction;
  };
  const auto split = [](std::string_view text) {
    const bool negative = take(text, '-');
    const auto point = std::min(text.find('.'), text.size());
    Number number{negative, text.substr(0, point), text.substr(std::min(point + 1, text.size()))};
    while (number.integer.starts_with('0')) number.integer.remove_prefix(1);
    while (number.fraction.ends_with('0')) number.fraction.remove_suffix(1);
    if (number.integer.empty() && number.fraction.empty()) number.negative = false;
    return number;
  };
  const Number a = split(left);
  const Number b = split(right);
  if (a.negative != b.negative) return a.negative ? std::strong_ordering::less : std::strong_ordering::greater;
  auto magnitude = a.integer.size() <=> b.integer.size();
  if (magnitude == 0) magnitude = a.integer <=> b.integer;
  if (magnitude == 0) magnitude = a.fraction <=> b.fraction;
  return a.negative ? 0 <=> magnitude : magnitude;
}

std::optional<Decimal> Decimal::parse(std::string_view text, int precision, int scale) {
  const auto parts = split_decimal(text);
  if (!parts || scale < 0 || precision < scale) return std::nullopt;
  std::string_view integer = parts->integer;
  std::string_view fraction = parts->fraction;
  std::string shifted;  // the digits of both, when an exponent moves the point
  if (parts->exponent != 0) {
    shifted.append(integer).append(fraction);
    const auto point = static_cast<std::int64_t>(integer.size()) + parts->exponent;
    const auto first = shifted.find_first_not_of('0');
    if (first == std::string::npos) {
      integer = fraction = {};
    } else {
      const auto last = static_cast<std::int64_t>(shifted.find_last_not_of('0'));
      // Checked before any zero is written: 1e1000000000 must cost nothing.
      if (point - static_cast<std::int64_t>(first) > precision - scale || last + 1 - point > scale) return std::nullopt;
      if (point <= 0) {
        shifted.insert(0, static_cast<std::size_t>(-point), '0');
        integer = {};
        fraction = shifted;
      } else {
        const auto split = static_cast<std::size_t>(point);
        if (split > shifted.size()) shifted.append(split - shifted.size(), '0');
        integer = std::string_view(shifted).substr(0, split);
        fraction = std::string_view(shifted).substr(split);
      }
    }
  }
  while (integer.starts_with('0')) integer.remove_prefix(1);
  while (fraction.ends_with('0')) fraction.remove_suffix(1);
  const auto width = static_cast<std::size_t>(scale);
  if (integer.size() > static_cast<std::size_t>(precision - scale) || fraction.size() > width) return std::nullopt;

  Decimal decimal;
  std::string& canonical = decimal.text_;
  canonical.clear();
  if (parts->negative && !(integer.empty() && fraction.empty())) canonical += '-';
  canonical += integer.empty() ? "0" : integer;
  if (width > 0) {
    canonical += '.';
    canonical += fraction;
    canonical.append(width - fraction.size(), '0');
  }
  return decimal;
}

std::strong_ordering Decimal::operator<=>(const Decimal& other) const { return compare_decimals(text_, other.text_); }

// ---- text -----------------------------------------------------------------------------------------------------------

std::string to_text(std::string_view value) { return std::string(value); }
std::string to_text(bool value) { return value ? "true" : "false"; }
std::string to_text(std::int32_t value) { return number_text(value); }
std::string to_text(std::int64_t value) { return number_text(value); }
std::string to_text(double value) { return number_text(value); }
std::string to_text(const Uuid& value) { return value.to_string(); }
std::string to_text(const Decimal& value) { return value.to_string(); }
std::string to_text(Timestamp value) { return to_string(value); }
std::string to_text(Date value) { return to_string(value); }

}  // namespace pipegen
