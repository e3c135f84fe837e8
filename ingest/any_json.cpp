#include "any_json.hpp"

#include <string>
#include <vector>

#include "pipegen/json.hpp"

namespace pipegen::ingest {

namespace {

class Checker {
 public:
  Checker(std::string_view text, std::size_t max_depth) : text_(text), max_depth_(max_depth) {}

  void run() {
    skip_blanks();
    value();
    while (!open_.empty()) {
      skip_blanks();
      const char end = open_.back() == '{' ? '}' : ']';
      if (take(end)) {
        open_.pop_back();
        continue;
      }
      if (!take(',')) fail(std::string("a ',' or '") + end + "' is missing");
      skip_blanks();
      if (end == '}') name();
      value();
    }
    skip_blanks();
    if (at_ < text_.size()) fail("something follows the JSON text");
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw json::Invalid({{"", "is not JSON at octet " + std::to_string(at_ + 1) + ": " + why}});
  }
  bool at_end() const { return at_ == text_.size(); }
  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void skip_blanks() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }

  /// A value that is complete, or the beginning of one up to its first item's value.
  void value() {
    for (;;) {
      if (at_end()) fail("the text ends where a value should be");
      const char c = text_[at_];
      if (c == '"') return string();
      if (c == '-' || (c >= '0' && c <= '9')) return number();
      if (c == 't') return word("true");
      if (c == 'f') return word("false");
      if (c == 'n') return word("null");
      if (c != '{' && c != '[') fail("there is no value");
      if (open_.size() >= max_depth_) {
        throw json::Invalid({{"", "is nested deeper than " + std::to_string(max_depth_) + " levels"}});
      }
      ++at_;
      skip_blanks();
      if (take(c == '{' ? '}' : ']')) return;
      open_.push_back(c);
      if (c == '{') name();
    }
  }

  void name() {
    if (at_end() || text_[at_] != '"') fail("there is no name of a member");
    string();
    skip_blanks();
    if (!take(':')) fail("a ':' is missing");
    skip_blanks();
  }

  void word(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) fail("there is no value");
    at_ += expected.size();
  }

  void digits() {
    if (at_end() || text_[at_] < '0' || text_[at_] > '9') fail("a digit is missing");
    while (!at_end() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
  }

  void number() {
    take('-');
    if (!take('0')) digits();
    if (take('.')) digits();
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      digits();
    }
  }

  void string() {
    ++at_;
    for (;;) {
      if (at_end()) fail("a string has no end");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return;
      }
      if (c < 0x20) fail("a control character is in a string");
      if (c < 0x80) {
        ++at_;
        if (c == '\\') escape();
      } else {
        sequence(c);
      }
    }
  }

  void escape() {
    if (at_end()) fail("a string has no end");
    const char c = text_[at_];
    if (c == 'u') {
      ++at_;
      for (int i = 0; i < 4; ++i, ++at_) {
        if (at_end() || std::string_view("0123456789abcdefABCDEF").find(text_[at_]) == std::string_view::npos) {
          fail("four hexadecimal digits must follow \\u");
        }
      }
      return;
    }
    if (std::string_view("\"\\/bfnrt").find(c) == std::string_view::npos) fail("there is no such escape");
    ++at_;
  }

  /// More than one octet of UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
  void sequence(unsigned char first) {
    int more = 0;
    unsigned char low = 0x80, high = 0xbf;  // of the second octet
    if (first >= 0xc2 && first <= 0xdf) {
      more = 1;
    } else if (first >= 0xe0 && first <= 0xef) {
      more = 2;
      if (first == 0xe0) low = 0xa0;
      if (first == 0xed) high = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
      more = 3;
      if (first == 0xf0) low = 0x90;
      if (first == 0xf4) high = 0x8f;
    } else {
      fail("the text is not UTF-8");
    }
    for (++at_; more > 0; --more, ++at_) {
      if (at_end()) fail("the text is not UTF-8");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c < low || c > high) fail("the text is not UTF-8");
      low = 0x80;
      high = 0xbf;
    }
  }

  const std::string_view text_;
  const std::size_t max_depth_;
  std::size_t at_ = 0;
  std::vector<char> open_;
};

}  // namespace

void check_any_json(std::string_view text, std::size_t max_depth) { Checker(text, max_depth).run(); }

}  // namespace pipegen::ingest
