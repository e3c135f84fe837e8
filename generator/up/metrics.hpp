// The figures of a running service, from its /metrics.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pipegen::gen {

struct Figures {
  std::int64_t done = 0;     // messages acknowledged
  std::int64_t in_hand = 0;  // handlers running now
  std::int64_t dead_letters = 0;
  std::int64_t sent = 0;  // messages published

  bool operator==(const Figures&) const = default;
};

/// GET http://127.0.0.1:port/path; nothing unless the answer is a 200 within `time`.
std::optional<std::string> http_get(int port, std::string_view path, std::chrono::milliseconds time);

/// Sums over the labels of each metric, out of Prometheus' text format.
Figures parse_figures(std::string_view metrics);

}  // namespace pipegen::gen
