#include "http/head.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "http/server.hpp"

namespace pipegen::http {

namespace {

constexpr std::size_t kMaxTarget = 8 * 1024;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

/// Takes the line up to the next CRLF. A CR or LF of its own ends a line for some servers and for others not.
std::string_view next_line(std::string_view& text) {
  const std::size_t end = text.find("\r\n");
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 2);
  if (line.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    throw Problem(400, "the head of the request has a line that does not end in CRLF, or a NUL");
  }
  return line;
}

void read_request_line(std::string_view line, RequestHead& head) {
  const std::size_t first = line.find(' ');
  const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) throw Problem(400, "the request is not HTTP/1.1");
  head.method = line.substr(0, first);
  head.target = line.substr(first + 1, second - first - 1);
  head.version = line.substr(second + 1);
  const bool visible =
      std::all_of(head.target.begin(), head.target.end(), [](unsigned char c) { return c > 0x20 && c != 0x7f; });
  if (!is_token(head.method) || head.target.empty() || !visible ||
      (head.version != "HTTP/1.1" && head.version != "HTTP/1.0")) {
    throw Problem(400, "the request is not HTTP/1.1");
  }
  if (head.target.size() > kMaxTarget) {
    throw Problem(414, "the path and its query are longer than " + std::to_string(kMaxTarget) + " octets");
  }
}

void read_header(std::string_view line, RequestHead& head) {
  const std::size_t colon = line.find(':');
  const std::string_view name = line.substr(0, std::min(colon, line.size()));
  if (colon == std::string_view::npos || !is_token(name)) throw Problem(400, "a header of the request is malformed");
  const std::string_view value = trim(line.substr(colon + 1));
  const bool plain =
      std::all_of(value.begin(), value.end(), [](unsigned char c) { return c == '\t' || (c >= 0x20 && c != 0x7f); });
  if (!plain) throw Problem(400, "a header of the request has control characters");
  head.headers.emplace_back(name, value);
}

/// Finds out how the body ends (RFC 9112, 6.3).
void read_framing(RequestHead& head) {
  std::vector<std::string_view> codings, lengths;
  for (const auto& [name, value] : head.headers) {
    if (same_word(name, "Transfer-Encoding")) codings.push_back(value);
    if (same_word(name, "Content-Length")) lengths.push_back(value);
  }
  if (!codings.empty()) {
    if (codings.size() > 1 || !lengths.empty() || !same_word(codings[0], "chunked") || head.version == "HTTP/1.0") {
      throw Problem(400, "the framing of the body is not clear: send Content-Length, or Transfer-Encoding: chunked");
    }
    head.chunked = true;
  } else if (!lengths.empty()) {
    const std::string_view text = lengths[0];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), head.length);
    if (lengths.size() > 1 || error != std::errc() || end != text.data() + text.size()) {
      throw Problem(400, "Content-Length is not a number");
    }
  }
  const auto encoding = head.header("Content-Encoding");
  if (head.has_body() && encoding && !same_word(*encoding, "identity")) {
    throw Problem(415, "send the body without Content-Encoding", {{"Accept-Encoding", "identity"}});
  }
}

}  // namespace

bool same_word(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&lower](char x, char y) { return lower(x) == lower(y); });
}

std::optional<std::string_view> RequestHead::header(std::string_view name) const {
  for (const auto& [known, value] : headers) {
    if (same_word(known, name)) return value;
  }
  return std::nullopt;
}

bool RequestHead::has_word(std::string_view name, std::string_view word) const {
  for (const auto& [known, value] : headers) {
    if (!same_word(known, name)) continue;
    for (std::string_view rest = value; !rest.empty();) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      if (same_word(trim(rest.substr(0, comma)), word)) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

RequestHead parse_head(std::string_view text) {
  RequestHead head;
  read_request_line(next_line(text), head);
  for (std::string_view line = next_line(text); !line.empty(); line = next_line(text)) read_header(line, head);
  read_framing(head);
  head.expects_continue = head.version == "HTTP/1.1" && head.has_word("Expect", "100-continue");
  return head;
}

}  // namespace pipegen::http
