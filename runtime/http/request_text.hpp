// What the routes of an ingestion API read out of requests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/json.hpp"

namespace pipegen::http {

inline constexpr std::int64_t kMaxEventBody = 1 << 20;
inline constexpr std::int64_t kHeaderRoom = 4096;  // of a message, in the server's max_payload

/// "application/pdf; charset=x" -> "application/pdf", in lower case.
std::string media_type_of(std::string_view content_type);
/// "a, b, c"
std::string joined(const std::vector<std::string>& names);
/// Throws Problem 400: what is not JSON at all is another mistake than JSON that is no such event.
void check_json(std::string_view body);

/// [{"pointer":"/a","detail":"…"}], `most` of them.
std::string violations_json(const std::vector<json::Violation>& violations, std::size_t most = 1'000);

}  // namespace pipegen::http
