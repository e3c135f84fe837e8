#include "schema/resolution.hpp"

namespace pipegen::gen {

const Declaration* Resolution::find(Section section, const Node& name) {
  const auto text = values.text(name, "the name of " + a_section(section));
  return text ? find(section, *text, name.span) : nullptr;
}

const Declaration* Resolution::find(Section section, const std::string& name, const Span& span) {
  const auto& table = declared.table(section);
  if (const auto found = table.find(name); found != table.end()) {
    used.emplace(section, name);
    return &found->second;
  }
  if (!declared.complete) return nullptr;
  std::vector<std::string> names;
  for (const auto& [known, declaration] : table) {
    if (names.size() <= 1000) names.push_back(known);
  }
  std::string hint = did_you_mean(name, names);
  for (const auto& [other, others] : declared.tables) {
    if (hint.empty() && other != section && others.contains(name)) hint = in_quotes(name) + " is " + a_section(other);
  }
  if (hint.empty()) hint = "declare it under '" + section_key(section) + ":', or import the file that does";
  report.error(code::kUnknownName, span, "no " + section_word(section) + " is called " + in_quotes(name), hint);
  return nullptr;
}

const Record* Resolution::record_of(const std::string& event) const {
  const auto found = pipeline.events.find(event);
  if (found == pipeline.events.end()) return nullptr;
  const auto record = pipeline.records.find(found->second.record);
  return record == pipeline.records.end() ? nullptr : &record->second;
}

const Span& Resolution::span_of(Section section, const std::string& name) const {
  return declared.table(section).at(name).key->span;
}

std::string named(std::string_view word, std::string_view name) { return std::string(word) + " " + in_quotes(name); }

}  // namespace pipegen::gen
