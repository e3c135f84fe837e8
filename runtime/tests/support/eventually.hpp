// Waiting for a condition, for tests.
#pragma once

#include <chrono>
#include <thread>

namespace pipegen::testing {

/// Whether `condition` gives true within `patience`; it is asked after each `pause`.
template <typename Condition>
bool eventually(Condition condition, std::chrono::milliseconds patience = std::chrono::seconds(30),
                std::chrono::milliseconds pause = std::chrono::milliseconds(10)) {
  const auto end = std::chrono::steady_clock::now() + patience;
  for (; std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(pause)) {
    if (condition()) return true;
  }
  return condition();
}

}  // namespace pipegen::testing
