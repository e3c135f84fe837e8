#include "schema/report.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "schema/codes.hpp"

namespace pipegen::gen {

namespace {

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours, each at a cost of one.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        next[j] = std::min(next[j], before[j - 2] + 1);
    }
    std::swap(before, row);
    std::swap(row, next);
  }
  return row[b.size()];
}

std::string folded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '_' || c == '-') continue;
    out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return out;
}

/// What to do about a code, for the places that know nothing better.
constexpr std::pair<std::string_view, std::string_view> kUsualHints[] = {
    {code::kUnreadable, "correct the name, or the permissions of the file"},
    {code::kNotText, "save the file as UTF-8"},
    {code::kSyntax, "look here and at the lines before: brackets, quotes and indentation have to match"},
    {code::kDuplicateKey, "remove one of the two, or rename it"},
    {code::kTooLarge, "split it up: 'import' brings files together, and a record under 'types' can be used by name"},
    {code::kNotInLanguage, "write plain maps, lists and values: 'key: value'"},
    {code::kHeader, "begin the file with 'pipegen: v1'"},
    {code::kShape, "a map is 'name: value', a list is '[a, b]', a single value stands alone"},
    {code::kUnknownKey, "remove it: schemas/LANGUAGE.md lists the keys"},
    {code::kMissingKey, "add it"},
    {code::kNoValue, "give it a value, or remove the key"},
    {code::kNotSupported, "leave it out for now"},
    {code::kImport, "write a path relative to this file, such as 'events.yaml'"},
    {code::kValue, "correct the value, or remove the key where it has a default"},
    {code::kBadName, "choose a name of that form"},
    {code::kDuplicate, "remove one of the two, or rename it"},
    {code::kUnknownName, "declare it, or import the file that does"},
    {code::kClash, "rename one of the two"},
    {code::kReserved, "choose another name"},
    {code::kNoPipeline, "add 'pipeline: name' to the root file, or import the file that has it"},
    {code::kUnused, "remove it"},
    {code::kSettingClash, "rename one of the two"},
    {code::kType, "see 'Types and fields' in schemas/LANGUAGE.md for how types are written"},
    {code::kOptionalItem, "remove the '?' inside; to make the whole field optional, put it after the '>'"},
    {code::kConstraintType, "remove it, or change the type of the field"},
    {code::kConstraintValue, "change the limit, or the type of the field"},
    {code::kDefault, "change the default, or the type and the limits of the field"},
    {code::kPattern, "write a POSIX extended regular expression: '[0-9]' for a digit, '[a-z]+' for letters"},
    {code::kContainsItself, "make it a list or map of the record, which may be empty"},
    {code::kJsonName, "give one of them another name with 'json:'"},
    {code::kFresh, "change the type of the field, or remove 'fresh'"},
    {code::kSensitive, "use a field that everybody may see, or remove its 'sensitive'"},
    {code::kSubject, "write names with dots between: 'orders.created'"},
    {code::kPlaceholder, "use a required field that is a string, uuid, whole number or enum"},
    {code::kParameter, "name a field of the event's record"},
    {code::kSubjectOverlap, "change one of the two subjects"},
    {code::kStreamOptions, "change one of the two options"},
    {code::kEventShape, "give 'fields', or the name of a record under 'types' as 'record'"},
    {code::kNoParameter, "make it a field of the event, or publish the event from a custom stage"},
    {code::kUnknownAction, "use a built-in action, or 'custom'"},
    {code::kUnknownParameter, "remove it: schemas/LANGUAGE.md lists the parameters of each action"},
    {code::kMissingParameter, "add it under 'with'"},
    {code::kMisfit, "give a value or a field of that type"},
    {code::kNoSource, "give it a value under 'set'"},
    {code::kUnknownField, "add it to the event, or name a field that is there"},
    {code::kExpression, "write a field path, a \"{field}\" interpolation in quotes, or a literal"},
    {code::kKeyTemplate, "name fields of the produced or the consumed event: \"{workflow_id}/{page}.png\""},
    {code::kCollect, "name fields of the consumed event that have such a type"},
    {code::kProduces, "write one event, 'Event?' for one or none, 'list<Event>' for any number"},
    {code::kNotForCustom, "remove it: the handler in C++ does that"},
    {code::kTwoSources, "remove one of the two"},
    {code::kNotConsumed, "fine when another program does"},
    {code::kNotProduced, "fine when another program does"},
    {code::kPilesUp, "give the stream another 'retention', or add a stage"},
    {code::kSameDurable, "give one of them another 'consumer'"},
    {code::kTwoConsumers, "give the stream 'retention: interest' or 'limits'"},
    {code::kCycle, "let one of the stages produce another event"},
    {code::kWorkflowId, "add the field, or name another as 'workflow_id'"},
    {code::kUpload, "change the upload, or the fields of its event"},
    {code::kRoute, "choose another path"},
    {code::kEntityKey, "name required fields of the entity: key: [order_key]"},
    {code::kEntityUse, "hold the key of the other entity with 'references'"},
    {code::kTable, "choose another name"},
    {code::kReference, "refer to an entity whose key is one field of the same type"},
    {code::kSince, "correct one of the two versions"},
    {code::kDerived, "name a field that single values can be taken from, such as customer.address.city"},
    {code::kReferenceCycle, "remove one of the 'references'"},
    {code::kTransform, "choose another name"},
    {code::kRepeatedFor, "write repeated_for: {entity: Order, field: line_items}"},
    {code::kTwoWriters, "remove the entity from one of the stages"},
    {code::kColumn, "remove it"},
    {code::kPersist, "remove it"},
};

std::string usual_hint(std::string_view code) {
  const auto found = std::ranges::find(kUsualHints, code, &std::pair<std::string_view, std::string_view>::first);
  return found == std::end(kUsualHints) ? "" : std::string(found->second);
}

auto order(const Diagnostic& d) { return std::tie(d.span.file, d.span.line, d.span.column, d.code, d.message); }

}  // namespace

Diagnostic& Report::error(std::string_view code, const Span& span, std::string message, std::string hint) {
  ++errors_;
  return add(Severity::kError, code, span, std::move(message), std::move(hint));
}

Diagnostic& Report::warning(std::string_view code, const Span& span, std::string message, std::string hint) {
  return add(Severity::kWarning, code, span, std::move(message), std::move(hint));
}

Diagnostic& Report::add(Severity severity, std::string_view code, const Span& span, std::string message,
                        std::string hint) {
  if (hint.empty()) hint = usual_hint(code);
  all_.push_back({std::string(code), severity, span, std::move(message), std::move(hint), {}});
  return all_.back();
}

bool Report::has(std::string_view code, const Span& span) const {
  return std::ranges::any_of(all_, [&](const Diagnostic& each) {
    return each.code == code && each.span.file == span.file && each.span.line == span.line &&
           each.span.column == span.column;
  });
}

std::vector<Diagnostic> Report::sorted() const {
  std::vector<Diagnostic> out(all_.begin(), all_.end());
  std::ranges::stable_sort(out, [](const Diagnostic& a, const Diagnostic& b) { return order(a) < order(b); });
  const auto same = [](const Diagnostic& a, const Diagnostic& b) { return order(a) == order(b); };
  out.erase(std::unique(out.begin(), out.end(), same), out.end());
  return out;
}

std::string in_quotes(std::string_view text) {
  constexpr int kMost = 60;
  std::string out = "'";
  int length = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if ((c & 0xC0) != 0x80 && ++length > kMost) return out + "…'";
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || c == 0x7F ||
               (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0)) {
      out += '?';
      if (c == 0xC2) ++i;
    } else {
      out += text[i];
    }
  }
  return out + "'";
}

std::string one_of(const std::vector<std::string>& choices) {
  std::string out;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += i + 1 == choices.size() ? " or " : ", ";
    out += in_quotes(choices[i]);
  }
  return out;
}

std::string did_you_mean(std::string_view wrong, const std::vector<std::string>& candidates) {
  // Beyond that nobody waits for a guess.
  if (wrong.empty() || wrong.size() > 100 || candidates.size() > 1000) return "";
  const std::string wrong_folded = folded(wrong);
  const std::size_t most = wrong.size() <= 3 ? 1 : wrong.size() <= 8 ? 2 : 3;
  const std::string* best = nullptr;
  std::size_t best_distance = most + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t gap =
        candidate.size() > wrong.size() ? candidate.size() - wrong.size() : wrong.size() - candidate.size();
    std::size_t distance = best_distance;
    if (folded(candidate) == wrong_folded) {
      distance = 0;
    } else if (gap < best_distance) {
      distance = edit_distance(wrong, candidate);
      if (distance >= candidate.size()) continue;  // nothing in common
    }
    if (distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  return best == nullptr ? "" : "did you mean " + in_quotes(*best) + "?";
}

int characters(std::string_view text) {
  return static_cast<int>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace pipegen::gen
