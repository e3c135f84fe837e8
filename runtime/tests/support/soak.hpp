// Tests that do more when there is time: scripts/soak runs them with PIPEGEN_SOAK=1, scripts/test without.
#pragma once

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

namespace pipegen::testing {

inline bool soak() {
  const char* value = std::getenv("PIPEGEN_SOAK");
  return value != nullptr && std::string_view(value) == "1";
}

/// A measured value, on a line that scripts/soak shows: "figure: WHAT: VALUE UNIT".
template <typename Value>
void print_figure(std::string_view what, const Value& value, std::string_view unit) {
  std::cout << "figure: " << what << ": " << value << " " << unit << std::endl;
}

}  // namespace pipegen::testing
