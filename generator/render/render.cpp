#include "render/render.hpp"

#include <charconv>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace pipegen::gen {
namespace {

using nlohmann::json;

constexpr int kMaxPartialDepth = 64;

/// Templates are parsed to a flat list; the children of a section are the nodes between it and its `end`.
struct Node {
  enum class Kind { kText, kValue, kSection, kInverted, kPartial };
  Kind kind = Kind::kText;
  std::string_view text{};    // kText: itself; else the name
  std::size_t at = 0;         // offset of the tag, for errors
  std::size_t end = 0;        // sections: index after the last child
  std::string_view indent{};  // kPartial that stands alone on its line: what stands before it
};

bool is_blank(char c) { return c == ' ' || c == '\t'; }

bool is_name(std::string_view text, bool partial) {
  if (text.empty()) return false;
  for (const char c : text) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (!plain && c != '.' && !(partial && c == '/')) return false;
  }
  if (partial || text == ".") return true;
  return text.front() != '.' && text.back() != '.' && text.find("..") == std::string_view::npos;
}

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

/// The text of a partial with `indent` before every line that is not empty.
std::string indented(std::string_view text, std::string_view indent) {
  std::string result;
  result.reserve(text.size() + 64 * indent.size());
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline == std::string_view::npos ? newline : newline + 1);
    if (line != "\n" && line != "\r\n") result += indent;
    result += line;
    text.remove_prefix(line.size());
  }
  return result;
}

class Template {
 public:
  Template(std::string_view name, std::string_view text, std::string_view indent)
      : name_(name), indent_(indent.size()) {
    if (indent.empty()) {
      text_ = text;
    } else {
      owned_ = indented(text, indent);
      text_ = owned_;
    }
    parse();
  }
  Template(const Template&) = delete;
  Template& operator=(const Template&) = delete;

  const std::vector<Node>& nodes() const { return nodes_; }

  [[noreturn]] void fail(std::size_t at, const std::string& message) const {
    throw TemplateError(name_ + ".mustache:" + place(at) + ": " + message);
  }

 private:
  /// "line:column" in the template as its author sees it, that is without the indentation of a partial.
  std::string place(std::size_t at) const {
    std::size_t line = 1;
    std::size_t column = 1;
    for (std::size_t i = 0; i < at; ++i) {
      if (text_[i] == '\n') {
        ++line;
        column = 1;
      } else if ((static_cast<unsigned char>(text_[i]) & 0xC0U) != 0x80U) {
        ++column;
      }
    }
    column = column > indent_ ? column - indent_ : 1;
    return std::to_string(line) + ":" + std::to_string(column);
  }

  void add_text(std::size_t from, std::size_t to) {
    if (from < to) nodes_.push_back({.kind = Node::Kind::kText, .text = text_.substr(from, to - from), .at = from});
  }

  void parse() {
    std::vector<std::size_t> open;  // indices of sections
    std::size_t done = 0;           // text before this offset is in nodes_ (or was dropped)
    while (true) {
      const std::size_t tag = text_.find("{{", done);
      if (tag == std::string_view::npos) break;

      const char sigil = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      const bool has_sigil = sigil != '\0' && std::string_view("#^/>!&{=<$*").find(sigil) != std::string_view::npos;
      const std::size_t body = tag + (has_sigil ? 3 : 2);
      const std::string_view closing = sigil == '{' ? "}}}" : "}}";
      const std::size_t close = text_.find(closing, body);
      if (close == std::string_view::npos) fail(tag, "the tag is not closed: " + std::string(closing) + " is missing");
      const std::string_view name = trim(text_.substr(body, close - body));
      const std::size_t after = close + closing.size();

      if (sigil == '=') fail(tag, "other delimiters are not supported");
      if (sigil == '<' || sigil == '$' || sigil == '*') {
        fail(tag, std::string("tags with '") + sigil + "' are not supported");
      }
      if (sigil != '!' && !is_name(name, sigil == '>')) {
        fail(tag, quoted(name) + " is not a name (text with two braces of its own has to write them apart: { {)");
      }

      // A tag that stands alone takes its whole line with it.
      std::size_t text_end = tag;
      std::size_t next = after;
      std::string_view indent;
      if (has_sigil && sigil != '&' && sigil != '{') {
        std::size_t line_begin = tag;
        while (line_begin > 0 && is_blank(text_[line_begin - 1])) --line_begin;
        std::size_t line_end = after;
        while (line_end < text_.size() && is_blank(text_[line_end])) ++line_end;
        const bool at_begin = line_begin == 0 || text_[line_begin - 1] == '\n';
        std::size_t newline = std::string_view::npos;
        if (line_end == text_.size()) {
          newline = 0;
        } else if (text_[line_end] == '\n') {
          newline = 1;
        } else if (text_.substr(line_end, 2) == "\r\n") {
          newline = 2;
        }
        if (at_begin && newline != std::string_view::npos) {
          text_end = line_begin;
          next = line_end + newline;
          indent = text_.substr(line_begin, tag - line_begin);
        }
      }
      add_text(done, text_end);
      done = next;

      switch (sigil) {
        case '!':
          break;
        case '#':
        case '^':
          open.push_back(nodes_.size());
          nodes_.push_back(
              {.kind = sigil == '#' ? Node::Kind::kSection : Node::Kind::kInverted, .text = name, .at = tag});
          break;
        case '/':
          if (open.empty()) fail(tag, "no section is open that {{/" + std::string(name) + "}} could close");
          if (nodes_[open.back()].text != name) {
            const Node& section = nodes_[open.back()];
            fail(tag, "{{/" + std::string(name) + "}} stands where section " + quoted(section.text) + " of " +
                          place(section.at) + " has to be closed first");
          }
          nodes_[open.back()].end = nodes_.size();
          open.pop_back();
          break;
        case '>':
          nodes_.push_back({.kind = Node::Kind::kPartial, .text = name, .at = tag, .indent = indent});
          break;
        default:
          nodes_.push_back({.kind = Node::Kind::kValue, .text = name, .at = tag});
      }
    }
    add_text(done, text_.size());
    if (!open.empty()) fail(nodes_[open.back()].at, "section " + quoted(nodes_[open.back()].text) + " is not closed");
  }

  std::string name_;
  std::size_t indent_;
  std::string owned_;
  std::string_view text_;
  std::vector<Node> nodes_;
};

class Engine {
 public:
  Engine(const TemplateSource& source, const json& view) : source_(source) { contexts_.push_back(&view); }

  std::string run(std::string_view name) {
    const std::optional<std::string_view> text = source_(name);
    if (!text) throw TemplateError(std::string(name) + ".mustache: there is no such template");
    const Template root(name, *text, {});
    out_.reserve(2 * text->size());
    render(root, 0, root.nodes().size());
    return std::move(out_);
  }

 private:
  void render(const Template& from, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end;) {
      const Node& node = from.nodes()[i];
      std::size_t next = i + 1;
      switch (node.kind) {
        case Node::Kind::kText:
          out_ += node.text;
          break;
        case Node::Kind::kValue:
          append(from, node, find(from, node));
          break;
        case Node::Kind::kPartial:
          partial(from, node);
          break;
        case Node::Kind::kSection:
          section(from, node, i + 1, find(from, node));
          next = node.end;
          break;
        case Node::Kind::kInverted:
          if (!truthy(from, node, find(from, node))) render(from, i + 1, node.end);
          next = node.end;
          break;
      }
      i = next;
    }
  }

  void section(const Template& from, const Node& node, std::size_t begin, const json& value) {
    if (!truthy(from, node, value)) return;
    if (value.is_boolean()) return render(from, begin, node.end);
    if (!value.is_array()) return render_with(value, from, begin, node.end);
    for (const json& item : value) render_with(item, from, begin, node.end);
  }

  void render_with(const json& context, const Template& from, std::size_t begin, std::size_t end) {
    contexts_.push_back(&context);
    render(from, begin, end);
    contexts_.pop_back();
  }

  static bool truthy(const Template& from, const Node& node, const json& value) {
    switch (value.type()) {
      case json::value_t::null:
        return false;
      case json::value_t::boolean:
        return value.get<bool>();
      case json::value_t::array:
        return !value.empty();
      case json::value_t::object:
        return true;
      case json::value_t::string:
        return !value.get_ref<const std::string&>().empty();
      default:
        from.fail(node.at, quoted(node.text) + " is a number: a section needs a bool, a list, an object or a string");
    }
  }

  /// The first part of a dotted name is looked for in the innermost context that has it, the rest only inside of that.
  const json& find(const Template& from, const Node& node) const {
    if (node.text == ".") return *contexts_.back();
    std::string_view rest = node.text;
    const auto take = [&rest] {
      const std::size_t dot = rest.find('.');
      const std::string_view part = rest.substr(0, dot);
      rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
      return part;
    };

    const std::string_view first = take();
    const json* value = nullptr;
    for (auto context = contexts_.rbegin(); context != contexts_.rend() && value == nullptr; ++context) {
      value = member(**context, first);
    }
    if (value == nullptr) from.fail(node.at, "the view has no " + quoted(first));
    while (!rest.empty()) {
      const std::string_view part = take();
      value = member(*value, part);
      if (value == nullptr) from.fail(node.at, "the view has no " + quoted(part) + " in " + quoted(node.text));
    }
    return *value;
  }

  static const json* member(const json& object, std::string_view name) {
    if (!object.is_object()) return nullptr;
    const auto found = object.find(name);
    return found == object.end() ? nullptr : &*found;
  }

  void append(const Template& from, const Node& node, const json& value) {
    switch (value.type()) {
      case json::value_t::string:
        out_ += value.get_ref<const std::string&>();
        break;
      case json::value_t::boolean:
        out_ += value.get<bool>() ? "true" : "false";
        break;
      case json::value_t::number_integer:
        out_ += std::to_string(value.get<std::int64_t>());
        break;
      case json::value_t::number_unsigned:
        out_ += std::to_string(value.get<std::uint64_t>());
        break;
      case json::value_t::number_float:
        append_number(value.get<double>());
        break;
      default:
        from.fail(node.at, quoted(node.text) + " is " + value.type_name() + ": only a scalar can be written out");
    }
  }

  void append_number(double value) {
    char buffer[32];  // to_chars does not ask the locale
    out_.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  }

  void partial(const Template& from, const Node& node) {
    if (++depth_ > kMaxPartialDepth) from.fail(node.at, "partials nest too deep at " + quoted(node.text));
    std::unique_ptr<Template>& parsed = partials_[{node.text, std::string(node.indent)}];
    if (!parsed) {
      const std::optional<std::string_view> text = source_(node.text);
      if (!text) from.fail(node.at, "there is no partial " + quoted(node.text));
      parsed = std::make_unique<Template>(node.text, *text, node.indent);
    }
    render(*parsed, 0, parsed->nodes().size());
    --depth_;
  }

  const TemplateSource& source_;
  std::vector<const json*> contexts_;
  std::map<std::pair<std::string_view, std::string>, std::unique_ptr<Template>> partials_;  // by name and indentation
  std::string out_;
  int depth_ = 0;
};

}  // namespace

std::string render(const TemplateSource& templates, std::string_view name, const nlohmann::json& view) {
  return Engine(templates, view).run(name);
}

}  // namespace pipegen::gen
