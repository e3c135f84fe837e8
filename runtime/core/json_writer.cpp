#include <charconv>
#include <cmath>

#include "core/encoding.hpp"
#include "core/json_text.hpp"
#include "pipegen/json.hpp"

namespace pipegen::json {
namespace {

template <typename Number>
void append_number(std::string& out, Number number) {
  char digits[32];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), number).ptr;
  out.append(digits, end);
}

/// " of field "name"" when `text` ends with a key.
std::string last_key(std::string_view text) {
  if (!text.ends_with("\":")) return "";
  const auto quote = text.rfind('"', text.size() - 3);
  if (quote == std::string_view::npos) return "";
  return " of field " + std::string(text.substr(quote, text.size() - 1 - quote));
}

}  // namespace

// fresh_: nothing stands before the next element that would want a comma (a bracket was opened or a key written).
// No stack is needed: what follows a closing bracket is never the first element.
void Writer::separate() {
  if (!fresh_ && !text_.empty()) text_ += ',';
  fresh_ = false;
}

void Writer::begin_object() {
  if (text_.empty()) text_.reserve(512);  // most events fit
  separate();
  text_ += '{';
  fresh_ = true;
}

void Writer::end_object() {
  text_ += '}';
  fresh_ = false;
}

void Writer::begin_array() {
  separate();
  text_ += '[';
  fresh_ = true;
}

void Writer::end_array() {
  text_ += ']';
  fresh_ = false;
}

void Writer::key(std::string_view name) {
  if (!is_utf8(name)) throw PermanentError("cannot write JSON: a key is not valid UTF-8");
  separate();
  append_string(text_, name);
  text_ += ':';
  fresh_ = true;
}

void Writer::value(bool value) {
  separate();
  text_ += value ? "true" : "false";
}

void Writer::value(std::int32_t value) {
  separate();
  append_number(text_, value);
}

void Writer::value(std::int64_t value) {
  separate();
  append_number(text_, value);
}

void Writer::value(double value) {
  if (!std::isfinite(value)) {
    throw PermanentError("cannot write JSON: the number" + last_key(text_) + " is infinite or not a number");
  }
  separate();
  append_number(text_, value);
}

void Writer::value(std::string_view value) {
  if (!is_utf8(value)) throw PermanentError("cannot write JSON: the text" + last_key(text_) + " is not valid UTF-8");
  separate();
  append_string(text_, value);
}

void Writer::value(BytesView value) {
  separate();
  text_ += '"';
  text_ += base64(value);
  text_ += '"';
}

void Writer::value(const Uuid& value) {
  separate();
  text_ += '"';
  text_ += value.to_string();
  text_ += '"';
}

void Writer::value(const Decimal& value) {
  separate();
  text_ += '"';
  text_ += value.to_string();
  text_ += '"';
}

void Writer::value(Timestamp value) {
  const std::string text = to_string(value);
  separate();
  text_ += '"';
  text_ += text;
  text_ += '"';
}

void Writer::value(Date value) {
  const std::string text = to_string(value);
  separate();
  text_ += '"';
  text_ += text;
  text_ += '"';
}

void Writer::value(const Json& value) {
  // A handler may have made the text itself; what it got wrong must not break the document around it.
  try {
    Reader in(value.text);
    in.json();
    in.finish();
  } catch (const Invalid&) {
    throw PermanentError("cannot write JSON: the json value" + last_key(text_) + " is not valid JSON");
  }
  separate();
  text_ += value.text;
}

void Writer::null() {
  separate();
  text_ += "null";
}

}  // namespace pipegen::json
