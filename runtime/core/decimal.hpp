// Decimal numbers as text, for Decimal and for the limits of the JSON reader.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pipegen {

/// The parts of a number in the grammar of JSON; views into its text.
struct DecimalParts {
  bool negative = false;
  std::string_view integer;   // at least one digit
  std::string_view fraction;  // digits after the point
  std::int64_t exponent = 0;  // saturates
};
std::optional<DecimalParts> split_decimal(std::string_view text);

/// By value. Both are "[-]digits[.digits]", of any scale.
std::strong_ordering compare_decimals(std::string_view left, std::string_view right);

}  // namespace pipegen
