#include "http/multipart.hpp"

#include <algorithm>
#include <cctype>

#include "http/server.hpp"

namespace pipegen::http {

namespace {

constexpr std::size_t kMaxPartHead = 8 * 1024;
constexpr int kMaxParts = 256;

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<std::string> header_parameter(std::string_view header, std::string_view name) {
  for (std::size_t at = std::min(header.find(';'), header.size()); at < header.size();) {
    ++at;  // the semicolon
    const std::size_t equals = header.find_first_of("=;", at);
    if (equals == std::string_view::npos) return std::nullopt;
    if (header[equals] == ';') {
      at = equals;
      continue;
    }
    const std::string_view found = trim(header.substr(at, equals - at));
    at = equals + 1;
    while (at < header.size() && (header[at] == ' ' || header[at] == '\t')) ++at;
    std::string value;
    if (at < header.size() && header[at] == '"') {
      for (++at; at < header.size() && header[at] != '"'; ++at) {
        // Browsers send backslashes of file names as they are, so only what must be escaped is unescaped.
        if (header[at] == '\\' && at + 1 < header.size() && (header[at + 1] == '"' || header[at + 1] == '\\')) ++at;
        value.push_back(header[at]);
      }
      at = std::min(header.find(';', at), header.size());
    } else {
      const std::size_t end = std::min(header.find(';', at), header.size());
      value = trim(header.substr(at, end - at));
      at = end;
    }
    if (lower(found) == lower(name)) return value;
  }
  return std::nullopt;
}

MultipartReader::MultipartReader(std::string_view boundary, Callbacks callbacks)
    : delimiter_("\r\n--" + std::string(boundary)), callbacks_(std::move(callbacks)), pending_("\r\n") {
  // The first boundary may have no line before it: the line break in `pending_` makes it like the others.
  if (boundary.empty() || boundary.size() > 70) throw Problem(400, "the form's boundary is missing or too long");
}

void MultipartReader::feed(std::string_view octets) {
  pending_.append(octets);
  while (step()) {
  }
  pending_.erase(0, position_);
  position_ = 0;
}

/// One step through `pending_`; false when it takes more octets to go on.
bool MultipartReader::step() {
  const std::string_view rest = std::string_view(pending_).substr(position_);
  switch (state_) {
    case State::kPreamble:
    case State::kBody: {
      const std::size_t found = rest.find(delimiter_);
      const std::size_t data = found != std::string_view::npos    ? found
                               : rest.size() >= delimiter_.size() ? rest.size() - (delimiter_.size() - 1)
                                                                  : 0;
      if (state_ == State::kBody && data > 0) callbacks_.data(rest.substr(0, data));
      position_ += data;
      if (found == std::string_view::npos) return false;
      position_ += delimiter_.size();
      if (state_ == State::kBody) callbacks_.end();
      state_ = State::kAfterBoundary;
      return true;
    }
    case State::kAfterBoundary: {
      if (rest.size() < 2) return false;
      if (rest.substr(0, 2) == "--") {
        state_ = State::kDone;
        return true;
      }
      const std::size_t end = rest.find("\r\n");
      if (trim(rest.substr(0, std::min(end, rest.size()))).find_first_not_of('\r') != std::string_view::npos) {
        throw Problem(400, "the form has other text behind a boundary");
      }
      if (end == std::string_view::npos) {
        if (rest.size() > kMaxPartHead) throw Problem(400, "the line of a boundary is too long");
        return false;
      }
      position_ += end;  // the line break stays: a head without lines ends with the blank line alone
      state_ = State::kHead;
      return true;
    }
    case State::kHead: {
      const std::size_t end = rest.find("\r\n\r\n");
      if (end == std::string_view::npos || end > kMaxPartHead) {
        if (rest.size() > kMaxPartHead) throw Problem(400, "the head of a part of the form is too long");
        return false;
      }
      if (++parts_ > kMaxParts) throw Problem(400, "the form has too many parts");
      callbacks_.begin(parse_head(rest.substr(0, end)));
      position_ += end + 4;
      state_ = State::kBody;
      return true;
    }
    case State::kDone:
      position_ = pending_.size();
      return false;
  }
  return false;
}

PartHead MultipartReader::parse_head(std::string_view head) const {
  PartHead part;
  bool named = false;
  while (!head.empty()) {
    const std::size_t end = std::min(head.find("\r\n"), head.size());
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = trim(line.substr(colon + 1));
    if (name == "content-type") part.content_type = value;
    if (name != "content-disposition") continue;
    if (auto given = header_parameter(value, "name")) {
      part.name = std::move(*given);
      named = true;
    }
    part.filename = header_parameter(value, "filename");
    if (!part.filename) part.filename = header_parameter(value, "filename*");
  }
  if (!named) throw Problem(400, "a part of the form has no name");
  return part;
}

void MultipartReader::finish() const {
  if (state_ != State::kDone) throw Problem(400, "the form ends before its last boundary");
}

}  // namespace pipegen::http
