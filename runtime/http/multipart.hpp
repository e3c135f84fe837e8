// multipart/form-data (RFC 7578), read as it arrives: memory does not grow with the parts.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace pipegen::http {

struct PartHead {
  std::string name;
  std::optional<std::string> filename;
  std::string content_type;  // as given, may be empty
};

/// The value of a parameter of a header ("boundary" of `multipart/form-data; boundary="x"`), unquoted.
std::optional<std::string> header_parameter(std::string_view header, std::string_view name);

/// Feed it the body; it calls back for the head of each part, its octets, and its end. Not thread safe. Throws Problem
/// 400 when the body is not a form.
class MultipartReader {
 public:
  struct Callbacks {
    std::function<void(const PartHead&)> begin;
    std::function<void(std::string_view)> data;
    std::function<void()> end;
  };

  MultipartReader(std::string_view boundary, Callbacks callbacks);
  void feed(std::string_view octets);
  /// Call at the end of the body.
  void finish() const;

 private:
  enum class State { kPreamble, kAfterBoundary, kHead, kBody, kDone };

  bool step();
  PartHead parse_head(std::string_view head) const;

  std::string delimiter_;  // "\r\n--<boundary>"
  Callbacks callbacks_;
  State state_ = State::kPreamble;
  std::string pending_;
  std::size_t position_ = 0;  // in pending_: what lies before is done with
  int parts_ = 0;
};

}  // namespace pipegen::http
