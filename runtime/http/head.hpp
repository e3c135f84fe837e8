// The head of a request, read strictly: what two servers may read differently is refused, so that nobody can hide one
// request in another. The octets are kept as they came; nothing is decoded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pipegen::http {

/// Same text but for the case of ASCII letters.
bool same_word(std::string_view a, std::string_view b);

struct RequestHead {
  std::string method;
  std::string target;   // "/documents?title=a%20b"
  std::string version;  // "HTTP/1.1" or "HTTP/1.0"
  std::vector<std::pair<std::string, std::string>> headers;
  bool chunked = false;
  std::uint64_t length = 0;  // of the body, unless it is chunked
  bool expects_continue = false;

  /// The first header of this name, in any case.
  std::optional<std::string_view> header(std::string_view name) const;
  /// Whether a header that is a list of words, such as Connection, has this one.
  bool has_word(std::string_view name, std::string_view word) const;
  std::string_view path() const { return std::string_view(target).substr(0, target.find('?')); }
  bool has_body() const { return chunked || length > 0; }
};

/// `text`: from the first octet of the request line to the empty line, which it includes. Throws Problem (400, 414,
/// 415).
RequestHead parse_head(std::string_view text);

}  // namespace pipegen::http
