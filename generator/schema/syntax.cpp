#include "schema/syntax.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <map>
#include <optional>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "schema/codes.hpp"

namespace pipegen::gen {

namespace {

constexpr std::size_t kMostOctets = std::size_t{1} << 20;
constexpr std::size_t kMostNodes = 100'000;
constexpr std::size_t kMostInLine = std::size_t{1} << 16;
constexpr std::size_t kMostDepth = 32;

/// The YAML library takes the '?' of "{type: string?, min: 1}" for the beginning of a key, which YAML 1.2 does not.
/// While it parses, a '?' inside of a word is this octet, which no text holds; it is as long, so that every place stays
/// where it is.
constexpr char kQuestionMark = '\x01';

std::string masked(std::string_view text) {
  std::string out(text);
  for (std::size_t i = 1; i < out.size(); ++i) {
    if (out[i] == '?' && std::string_view(" \t\r\n{[,").find(text[i - 1]) == std::string_view::npos)
      out[i] = kQuestionMark;
  }
  return out;
}

std::string unmasked(std::string text) {
  std::ranges::replace(text, kQuestionMark, '?');
  return text;
}

/// Ends the parse; what is wrong has been reported.
struct Stop {};

/// Turns the parser's marks (lines and octets from 0) into spans (lines and characters from 1).
class Places {
 public:
  Places(std::string_view text, std::string file) : text_(text), file_(std::move(file)) {
    starts_.push_back(0);
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') starts_.push_back(i + 1);
    }
  }

  std::size_t offset(const YAML::Mark& mark) const {
    if (mark.line < 0) return 0;
    const auto line = std::min(static_cast<std::size_t>(mark.line), starts_.size() - 1);
    return std::min(starts_[line] + static_cast<std::size_t>(std::max(mark.column, 0)), text_.size());
  }

  /// Where a line begins that is longer than that.
  std::optional<std::size_t> longer_line(std::size_t most) const {
    for (std::size_t i = 0; i < starts_.size(); ++i) {
      const std::size_t end = i + 1 < starts_.size() ? starts_[i + 1] : text_.size();
      if (end - starts_[i] > most) return starts_[i];
    }
    return std::nullopt;
  }

  Span span(std::size_t offset, int length = 1) const {
    const auto after = std::ranges::upper_bound(starts_, offset);
    const std::size_t line = static_cast<std::size_t>(after - starts_.begin()) - 1;
    const std::string_view before = text_.substr(starts_[line], offset - starts_[line]);
    return {file_, static_cast<int>(line) + 1, characters(before) + 1, std::max(length, 1)};
  }

  /// The scalar as it stands in the file, up to the end of its first line; empty when a quote is never closed.
  std::optional<std::string_view> scalar(std::size_t offset, const std::string& value) const {
    const std::string_view rest = text_.substr(offset);
    if (rest.empty()) return rest;
    const char quote = rest.front();
    if (quote == '"' || quote == '\'') {
      for (std::size_t i = 1; i < rest.size(); ++i) {
        if (quote == '"' && rest[i] == '\\') {
          ++i;
        } else if (rest[i] == quote) {
          if (quote == '\'' && i + 1 < rest.size() && rest[i + 1] == quote) {
            ++i;
          } else {
            return first_line(rest.substr(0, i + 1));
          }
        }
      }
      return std::nullopt;
    }
    if (rest.starts_with(value)) return first_line(rest.substr(0, value.size()));
    if (quote == '|' || quote == '>') return rest.substr(0, 1);
    return first_line(rest);
  }

 private:
  static std::string_view first_line(std::string_view text) {
    text = text.substr(0, text.find('\n'));
    while (!text.empty() && (text.back() == ' ' || text.back() == '\r')) text.remove_suffix(1);
    return text;
  }

  std::string_view text_;
  std::string file_;
  std::vector<std::size_t> starts_;
};

std::size_t count_nodes(const Node& node) {
  std::size_t count = 1 + node.keys.size();
  for (const Node& item : node.items) count += count_nodes(item);
  return count;
}

/// Builds the tree from the parser's events. Containers under construction are on a stack of their own.
class Builder : public YAML::EventHandler {
 public:
  Builder(const Places& places, Report& report, Node& root) : places_(places), report_(report), root_(root) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) {
      report_.error(code::kNotInLanguage, at(mark), "a second document begins here",
                    "one file is one document: remove the '---'");
      throw Stop{};
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Node node;
    node.span = at(mark);
    finish(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      report_.error(code::kNotInLanguage, at(mark), "an alias cannot stand inside of what it stands for");
      throw Stop{};
    }
    const Node& named = found->second;
    count(count_nodes(named) - 1, at(mark));
    if (frames_.size() + depths_[anchor] > kMostDepth) too_deep(at(mark));
    finish(Node(named), 0);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& masked_value) override {
    const std::string value = unmasked(masked_value);
    const std::size_t offset = places_.offset(mark);
    const auto source = places_.scalar(offset, value);
    if (!source) {
      report_.error(code::kSyntax, places_.span(offset), "this quote is never closed");
      throw Stop{};
    }
    Node node;
    node.kind = Node::Kind::kScalar;
    node.span = places_.span(offset, characters(*source));
    node.text = value;
    node.plain = tag.empty() || tag == "?";
    node.flow = flow_ > 0;
    if (!node.plain && tag != "!" && tag != "tag:yaml.org,2002:str") refuse_tag(node.span, tag);
    if (value.find('\0') != std::string::npos) {
      // Regular expressions and C strings end there.
      report_.error(code::kNotInLanguage, node.span, "the text holds the character NUL",
                    "remove the escape, or keep such data in 'bytes'");
      std::erase(node.text, '\0');
    }
    finish(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value style) override {
    open(mark, tag, anchor, style, Node::Kind::kSequence);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value style) override {
    open(mark, tag, anchor, style, Node::Kind::kMap);
  }
  void OnMapEnd() override { close(); }

  bool empty() const { return documents_ == 0 || root_.is_null(); }

 private:
  struct Frame {
    Node node;
    YAML::anchor_t anchor = 0;
    bool flow = false;
    std::optional<Node> key;  // kMap: read, its value is next
    bool drop_value = false;  // the key was reported
    std::unordered_map<std::string, std::size_t> known;
    std::size_t depth = 1;
  };

  Span at(const YAML::Mark& mark) const { return places_.span(places_.offset(mark)); }

  void refuse_tag(const Span& span, const std::string& tag) {
    report_.error(code::kNotInLanguage, span, "the tag " + in_quotes(unmasked(tag)) + " is not part of the language",
                  "remove it");
  }

  void count(std::size_t more, const Span& span) {
    nodes_ += more;
    if (nodes_ > kMostNodes) {
      report_.error(code::kTooLarge, span, "the file has more than " + std::to_string(kMostNodes) + " values",
                    "aliases count as what they stand for; divide the schema with 'import:'");
      throw Stop{};
    }
  }

  void too_deep(const Span& span) {
    report_.error(code::kTooLarge, span, "more than " + std::to_string(kMostDepth) + " levels of nesting");
    throw Stop{};
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value style,
            Node::Kind kind) {
    if (frames_.size() >= kMostDepth) too_deep(at(mark));
    if (!tag.empty() && tag != "?") refuse_tag(at(mark), tag);
    Frame frame;
    frame.node.kind = kind;
    frame.node.span = at(mark);
    frame.anchor = anchor;
    frame.flow = style == YAML::EmitterStyle::Flow;
    flow_ += frame.flow ? 1 : 0;
    frames_.push_back(std::move(frame));
  }

  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    flow_ -= frame.flow ? 1 : 0;
    if (frame.anchor != 0) depths_[frame.anchor] = frame.depth;
    if (!frames_.empty()) frames_.back().depth = std::max(frames_.back().depth, frame.depth + 1);
    finish(std::move(frame.node), frame.anchor);
  }

  /// A whole value: into the container that is open, or the root.
  void finish(Node node, YAML::anchor_t anchor) {
    count(1, node.span);
    if (anchor != 0) anchors_[anchor] = node;
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.is_sequence()) {
      frame.node.items.push_back(std::move(node));
    } else if (!frame.key) {
      take_key(frame, std::move(node));
    } else {
      if (!frame.drop_value) {
        frame.node.keys.push_back(std::move(*frame.key));
        frame.node.items.push_back(std::move(node));
      }
      frame.key.reset();
    }
  }

  void take_key(Frame& frame, Node key) {
    frame.drop_value = false;
    if (!key.is_scalar()) {
      report_.error(code::kNotInLanguage, key.span, "a key is a name",
                    "write the name, in quotes if it means something in YAML");
      frame.drop_value = true;
    } else {
      const auto [known, is_new] = frame.known.try_emplace(key.text, frame.node.keys.size());
      if (!is_new) {
        frame.drop_value = true;
        Diagnostic& error =
            report_.error(code::kDuplicateKey, key.span, "the key " + in_quotes(key.text) + " is here twice");
        if (known->second < frame.node.keys.size())
          error.notes.push_back({frame.node.keys[known->second].span, "first given here"});
      }
    }
    frame.key = std::move(key);
  }

  const Places& places_;
  Report& report_;
  Node& root_;
  std::vector<Frame> frames_;
  std::unordered_map<YAML::anchor_t, Node> anchors_;
  std::unordered_map<YAML::anchor_t, std::size_t> depths_;
  std::size_t nodes_ = 0;
  int documents_ = 0;
  int flow_ = 0;
};

/// Octets of the UTF-8 sequence that starts here; 0 when there is none, or it is a character that no text holds.
std::size_t text_sequence(std::string_view rest) {
  const auto octet = [&](std::size_t i) { return i < rest.size() ? static_cast<unsigned char>(rest[i]) : 0U; };
  const unsigned first = octet(0);
  if (first < 0x80) return first == '\t' || first == '\n' || first == '\r' || (first >= 0x20 && first != 0x7F) ? 1 : 0;
  const std::size_t length = first >= 0xC2 && first < 0xE0   ? 2
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xF0 && first < 0xF5 ? 4
                                                             : 0;
  unsigned value = length == 2 ? first & 0x1F : length == 3 ? first & 0x0F : first & 0x07;
  for (std::size_t i = 1; i < length; ++i) {
    if ((octet(i) & 0xC0) != 0x80) return 0;
    value = (value << 6) | (octet(i) & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && (value < 0x10000 || value > 0x10FFFF));
  return surrogate || overlong || value < 0xA0 ? 0 : length;
}

bool is_text(std::string_view text, const Places& places, Report& report) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = text_sequence(text.substr(i));
    if (length == 0) {
      report.error(code::kNotText, places.span(i), "this is not text in UTF-8", "save the file as UTF-8");
      return false;
    }
    i += length;
  }
  return true;
}

/// What the parser says, in words that help.
std::pair<std::string, std::string> explain(const std::string& message, std::string_view at) {
  if (at.starts_with('\t')) return {"a tab stands where YAML wants blanks", "indent with blanks"};
  if (message == "illegal map value")
    return {"a key is not expected here", "look at the indentation; quote a text that holds ': '"};
  if (message == "illegal block entry") return {"a list item is not expected here", "look at the indentation"};
  if (message.starts_with("end of map flow not found")) return {"a '{' is never closed, or a comma is missing", ""};
  if (message.starts_with("end of sequence flow not found"))
    return {"a '[' is never closed, or a comma is missing", ""};
  if (message.starts_with("end of map not found"))
    return {"this does not belong to the map above it", "look at the indentation"};
  if (message.starts_with("end of sequence not found"))
    return {"this does not belong to the list above it", "look at the indentation"};
  if (message == "unknown token") return {"a value cannot begin with this character", "quote it"};
  return {"this is no YAML: " + message, ""};
}

}  // namespace

Span part_of(const Node& scalar, std::size_t offset, std::size_t length) {
  const int whole = characters(scalar.text);
  const int quotes = scalar.span.length - whole;
  if ((quotes != 0 && quotes != 2) || offset > scalar.text.size()) return scalar.span;
  Span span = scalar.span;
  span.column += quotes / 2 + characters(std::string_view(scalar.text).substr(0, offset));
  span.length = std::max(1, characters(std::string_view(scalar.text).substr(offset, length)));
  return span;
}

bool parse_syntax(std::string_view text, const std::string& file, Report& report, Node& root) {
  const Span whole{file, 0, 0, 1};
  if (text.size() > kMostOctets) {
    report.error(code::kTooLarge, whole, "the file is larger than 1 MiB", "divide the schema with 'import:'");
    return false;
  }
  const Places places(text, file);
  if (const auto longest = places.longer_line(kMostInLine)) {
    report.error(code::kTooLarge, places.span(*longest), "the line is longer than 64 KiB", "break it");
    return false;
  }
  if (!is_text(text, places, report)) return false;
  Builder builder(places, report, root);
  try {
    std::istringstream in(masked(text));
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop&) {
    return false;
  } catch (const YAML::Exception& error) {
    const std::size_t offset = places.offset(error.mark);
    const auto [message, hint] = explain(unmasked(error.msg), text.substr(offset));
    report.error(code::kSyntax, places.span(offset), message, hint);
    return false;
  } catch (const std::exception& error) {
    report.error(code::kSyntax, whole, std::string("this is no YAML: ") + error.what());
    return false;
  }
  if (builder.empty()) {
    report.error(code::kHeader, whole, "the file is empty", "a schema begins with 'pipegen: v1'");
    return false;
  }
  if (!root.is_map()) {
    report.error(
        code::kShape, root.span,
        "a schema is a map of sections, this is " + std::string(root.is_sequence() ? "a list" : "a single value"),
        "begin with 'pipegen: v1'");
    return false;
  }
  return true;
}

}  // namespace pipegen::gen
