// `values:` of the actions exec and http_call: what the schema gives a name for the placeholders of a setting.
//
//   const pipegen::actions::Values values{{"width", event.width}, {"page", pipegen::concat("page ", event.number)}};
#pragma once

#include <concepts>
#include <map>
#include <optional>
#include <string>

#include "pipegen/json.hpp"
#include "pipegen/types.hpp"

namespace pipegen::actions {

/// A value of the message, as text for a placeholder and as JSON for a body; absent when its optional field is. Made of
/// anything that to_text() and json::write() take, implicitly.
class Value {
 public:
  Value(const char* text) : Value(std::string(text)) {}  // NOLINT: implicit on purpose
  template <typename T>
  requires(!std::same_as<T, Value>) Value(const T& value)
      : text_(to_text(value)), json_(json::to_json(value)) {}  // NOLINT
  template <typename T>
  Value(const std::optional<T>& value) {  // NOLINT
    if (value) *this = Value(*value);
  }

  const std::optional<std::string>& text() const noexcept { return text_; }
  const std::optional<std::string>& json() const noexcept { return json_; }

 private:
  std::optional<std::string> text_{};
  std::optional<std::string> json_{};
};

using Values = std::map<std::string, Value>;

}  // namespace pipegen::actions
