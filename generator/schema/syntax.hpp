// Text to syntax tree: YAML with a place on every node, and nothing of the YAML library in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "schema/diagnostic.hpp"
#include "schema/report.hpp"

namespace pipegen::gen {

struct Node {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  Span span;               // kMap, kSequence: of the first character
  std::string text;        // kScalar
  bool plain = true;       // kScalar: written without quotes
  bool flow = false;       // inside { } or [ ]
  std::vector<Node> keys;  // kMap: scalars, each once; keys[i] belongs to items[i]
  std::vector<Node> items;

  bool is_map() const { return kind == Kind::kMap; }
  bool is_scalar() const { return kind == Kind::kScalar; }
  bool is_null() const { return kind == Kind::kNull; }
  bool is_sequence() const { return kind == Kind::kSequence; }
};

/// The part of a scalar's span that starts `offset` octets into its text, when the text stands in the file as it is.
Span part_of(const Node& scalar, std::size_t offset, std::size_t length);

/// False when the text is no YAML that the language knows (diagnostics say why). `text` has no byte order mark.
bool parse_syntax(std::string_view text, const std::string& file, Report& report, Node& root);

}  // namespace pipegen::gen
