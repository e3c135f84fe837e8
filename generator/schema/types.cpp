// The head of a schema, `types:`, and the fields of records and events.
#include <locale.h>
#include <regex.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

struct SimpleType {
  const char* name;
  TypeKind kind;
};

constexpr SimpleType kSimpleTypes[] = {
    {"bool", TypeKind::kBool},       {"int32", TypeKind::kInt32},         {"int64", TypeKind::kInt64},
    {"float64", TypeKind::kFloat64}, {"string", TypeKind::kString},       {"bytes", TypeKind::kBytes},
    {"uuid", TypeKind::kUuid},       {"timestamp", TypeKind::kTimestamp}, {"date", TypeKind::kDate},
    {"json", TypeKind::kJson},
};

/// Reads "list<map<Order?>>" and the like; every mistake is reported at its place in the text.
class TypeParser {
 public:
  TypeParser(Resolution& r, const Node& node) : r_(r), node_(node), text_(node.text) {}

  std::optional<Type> parse(bool& optional) {
    auto type = one(0);
    if (!type) return std::nullopt;
    optional = take('?');
    if (at_ != text_.size())
      return fail(at_, "this is no type", "types look like string, int32?, list<Order>, object<FILES>");
    return type;
  }

 private:
  std::optional<Type> one(int depth) {
    if (depth > 8) return fail(at_, "types are nested too deeply", "");
    blanks();
    const std::size_t start = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_' || text_[at_] == '-'))
      ++at_;
    const std::string name = text_.substr(start, at_ - start);
    if (name.empty())
      return fail(start, "a type is missing here", "types look like string, int32?, list<Order>, object<FILES>");

    for (const SimpleType& simple : kSimpleTypes) {
      if (name == simple.name) return Type{.kind = simple.kind, .name = {}, .element = {}};
    }
    if (name == "decimal") return decimal(start);
    if (name == "list" || name == "map") return container(name, depth);
    if (name == "object") return object(start);
    return declared(name, start);
  }

  std::optional<Type> decimal(std::size_t start) {
    Type type{.kind = TypeKind::kDecimal, .name = {}, .element = {}};
    const std::string hint = node_.flow && text_.find(')') == std::string::npos
                                 ? "inside of { } the comma ends the value: put the type in quotes"
                                 : "write decimal(15,2): 15 digits in all, 2 of them after the point";
    if (!take('(') || !digits(type.precision) || !take(',') || !digits(type.scale) || !take(')')) {
      return fail(start, "a decimal needs its precision and scale", hint);
    }
    if (type.precision < 1 || type.precision > 38 || type.scale > type.precision) {
      return fail(start, "a decimal has 1 to 38 digits, and no more of them after the point", "");
    }
    return type;
  }

  std::optional<Type> container(const std::string& name, int depth) {
    Type type{.kind = name == "list" ? TypeKind::kList : TypeKind::kMap, .name = {}, .element = {}};
    if (!take('<')) return fail(at_, "a " + name + " needs the type of what is in it", "write " + name + "<string>");
    auto element = one(depth + 1);
    if (!element) return std::nullopt;
    if (take('?')) {
      r_.report.error(code::kOptionalItem, part_of(node_, at_ - 1, 1), "what is in a " + name + " cannot be optional",
                      "write " + name + "<" + spelled(*element) + ">? when the " + name + " itself may be left out");
      return std::nullopt;
    }
    if (!take('>')) return fail(at_, "a '>' is missing here", "");
    type.element.push_back(std::move(*element));
    return type;
  }

  std::optional<Type> object(std::size_t start) {
    Type type{.kind = TypeKind::kObject, .name = {}, .element = {}};
    if (!take('<')) return fail(start, "an object needs the bucket it lies in", "write object<TEXT_FILES>");
    blanks();
    const std::size_t name_start = at_;
    while (at_ < text_.size() && text_[at_] != '>' && text_[at_] != ' ') ++at_;
    type.name = text_.substr(name_start, at_ - name_start);
    const std::size_t name_length = at_ - name_start;
    if (!take('>')) return fail(at_, "a '>' is missing here", "");
    if (r_.find(Section::kBuckets, type.name, part_of(node_, name_start, name_length)) == nullptr) return std::nullopt;
    return type;
  }

  std::optional<Type> declared(const std::string& name, std::size_t start) {
    const auto& types = r_.declared.table(Section::kTypes);
    if (const auto found = types.find(name); found != types.end()) {
      r_.used.emplace(Section::kTypes, name);
      const Node& value = *found->second.value;
      const bool is_enum =
          value.is_map() && std::ranges::any_of(value.keys, [](const Node& key) { return key.text == "enum"; });
      return Type{.kind = is_enum ? TypeKind::kEnum : TypeKind::kRecord, .name = name, .element = {}};
    }
    const auto& events = r_.declared.table(Section::kEvents);
    if (const auto found = events.find(name); found != events.end()) {
      const Node& value = *found->second.value;
      const bool shares =
          value.is_map() && std::ranges::any_of(value.keys, [](const Node& key) { return key.text == "record"; });
      if (shares)
        return fail(start, in_quotes(name) + " is an event without fields of its own", "use the record that it names");
      return Type{.kind = TypeKind::kRecord, .name = name, .element = {}};
    }
    const auto& entities = r_.declared.table(Section::kEntities);
    if (const auto found = entities.find(name); found != entities.end()) {
      const Node& value = *found->second.value;
      const bool derived =
          value.is_map() && std::ranges::any_of(value.keys, [](const Node& key) { return key.text == "repeated_for"; });
      if (derived)
        return fail(start, in_quotes(name) + " is made of the items of another entity, so no field can hold one",
                    "use the type of those items");
      return Type{.kind = TypeKind::kRecord, .name = name, .element = {}};
    }
    if (!r_.declared.complete) return std::nullopt;
    std::vector<std::string> names{"decimal", "list", "map", "object"};
    for (const SimpleType& simple : kSimpleTypes) names.emplace_back(simple.name);
    for (const auto* declared : {&types, &entities}) {
      for (const auto& [known, declaration] : *declared) {
        if (names.size() <= 1000) names.push_back(known);
      }
    }
    static const std::map<std::string, std::string> kElsewhere{{"int", "write int32 or int64"},
                                                               {"integer", "write int32 or int64"},
                                                               {"long", "write int64"},
                                                               {"float", "write float64"},
                                                               {"double", "write float64"},
                                                               {"number", "write float64 or decimal(15,2)"},
                                                               {"boolean", "write bool"},
                                                               {"str", "write string"},
                                                               {"text", "write string"},
                                                               {"datetime", "write timestamp"},
                                                               {"time", "write timestamp"},
                                                               {"array", "write list<…>"},
                                                               {"any", "write json"},
                                                               {"uint32", "write int64 with min: 0"},
                                                               {"uint64", "write int64 with min: 0"}};
    const auto elsewhere = kElsewhere.find(name);
    std::string hint = elsewhere != kElsewhere.end() ? elsewhere->second : did_you_mean(name, names);
    for (const auto& [section, others] : r_.declared.tables) {
      if (hint.empty() && others.contains(name)) hint = in_quotes(name) + " is " + a_section(section);
    }
    if (hint.empty()) hint = "declare it under 'types:', or import the file that does";
    r_.report.error(code::kUnknownName, part_of(node_, start, name.size()), "no type is called " + in_quotes(name),
                    hint);
    return std::nullopt;
  }

  std::nullopt_t fail(std::size_t where, const std::string& message, const std::string& hint) {
    const std::size_t start = std::min(where, text_.empty() ? 0 : text_.size() - 1);
    r_.report.error(code::kType, part_of(node_, start, text_.size() - start), message, hint);
    return std::nullopt;
  }

  void blanks() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(char c) {
    blanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool digits(int& out) {
    blanks();
    const auto [end, problem] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), out);
    if (problem != std::errc{} || out < 0) return false;
    at_ = static_cast<std::size_t>(end - text_.data());
    return true;
  }

  Resolution& r_;
  const Node& node_;
  const std::string& text_;
  std::size_t at_ = 0;
};

bool is_numeric(TypeKind kind) {
  return kind == TypeKind::kInt32 || kind == TypeKind::kInt64 || kind == TypeKind::kFloat64 ||
         kind == TypeKind::kDecimal;
}

bool has_length(TypeKind kind) {
  return kind == TypeKind::kString || kind == TypeKind::kBytes || kind == TypeKind::kList || kind == TypeKind::kMap;
}

/// '9' in the shape stands for a digit, the rest for itself.
bool has_shape(std::string_view text, std::string_view shape) {
  if (text.size() != shape.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (shape[i] == '9' ? !(text[i] >= '0' && text[i] <= '9') : text[i] != shape[i]) return false;
  }
  return true;
}

/// Dates and times are generated as what the runtime's parsers give for the text: what they refuse, is refused here.
std::optional<std::chrono::sys_days> date_of(std::string_view text) {
  if (!has_shape(text, "9999-99-99")) return std::nullopt;
  const int year = static_cast<int>(*to_int64(text.substr(0, 4)));
  const int month = static_cast<int>(*to_int64(text.substr(5, 2)));
  const int day = static_cast<int>(*to_int64(text.substr(8, 2)));
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (year < 1 || !date.ok()) return std::nullopt;
  return std::chrono::sys_days(date);
}

bool is_time_of_day(std::string_view text) { return has_shape(text, "99:99") && text < "24" && text.substr(3) < "60"; }

bool is_timestamp(std::string_view text) {
  if (text.size() < 20 || !has_shape(text.substr(10, 9), "T99:99:99")) return false;
  const auto date = date_of(text.substr(0, 10));
  if (!date || !is_time_of_day(text.substr(11, 5)) || text.substr(17, 2) > "59") return false;
  std::string_view rest = text.substr(19);
  if (rest.starts_with('.')) {
    std::size_t end = 1;
    while (end < rest.size() && rest[end] >= '0' && rest[end] <= '9') ++end;
    if (end == 1 || end > 10) return false;
    rest.remove_prefix(end);
  }
  if (rest == "Z") return true;
  if (!(rest.starts_with('+') || rest.starts_with('-')) || !is_time_of_day(rest.substr(1))) return false;
  // In UTC it has to be in the years 1 to 9999, too.
  const auto minutes = [](std::string_view time) {
    return std::chrono::minutes(*to_int64(time.substr(0, 2)) * 60 + *to_int64(time.substr(3, 2)));
  };
  const auto offset = minutes(rest.substr(1));
  const auto in_utc = *date + minutes(text.substr(11, 5)) + (rest.front() == '-' ? offset : -offset);
  using std::chrono::year;
  return in_utc >= std::chrono::sys_days(year(1) / 1 / 1) && in_utc < std::chrono::sys_days(year(10000) / 1 / 1);
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !std::isxdigit(static_cast<unsigned char>(text[i]))) return false;
  }
  return true;
}

/// Why a number is not one of the type; empty: it is.
std::string number_misfit(std::string_view text, const Type& type) {
  if (type.kind == TypeKind::kInt32 || type.kind == TypeKind::kInt64) {
    const auto number = is_integer(text) ? to_int64(text) : std::nullopt;
    if (!number) return "is no whole number of 64 bits";
    if (type.kind == TypeKind::kInt32 &&
        (*number < std::numeric_limits<std::int32_t>::min() || *number > std::numeric_limits<std::int32_t>::max())) {
      return "does not fit into int32";
    }
    return "";
  }
  if (!is_number(text)) return "is no number";
  if (type.kind == TypeKind::kFloat64) {
    const double number = std::strtod(std::string(text).c_str(), nullptr);
    const bool is_zero = text.substr(0, text.find_first_of("eE")).find_first_of("123456789") == std::string_view::npos;
    if (std::isinf(number)) return "is too large for float64";
    if (number == 0 && !is_zero) return "is too small for float64";
  }
  if (type.kind == TypeKind::kDecimal) {
    if (text.find_first_of("eE") != std::string_view::npos) return "has an exponent, which decimals have not";
    std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
    const std::size_t point = digits.find('.');
    const std::size_t whole = digits.substr(0, point) == "0" ? 0 : std::min(point, digits.size());
    const std::size_t fraction = point == std::string_view::npos ? 0 : digits.size() - point - 1;
    if (fraction > static_cast<std::size_t>(type.scale) ||
        whole > static_cast<std::size_t>(type.precision - type.scale)) {
      return "does not fit into " + spelled(type);
    }
  }
  return "";
}

/// A pattern, compiled and matched as the runtime does it: "." is one character of UTF-8, in whatever locale we run.
class Regex {
 public:
  explicit Regex(const std::string& text)
      : before_(::uselocale(utf8())), problem_(::regcomp(&compiled_, text.c_str(), REG_EXTENDED | REG_NOSUB)) {}
  ~Regex() {
    if (problem_ == 0) ::regfree(&compiled_);
    ::uselocale(before_);
  }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  bool matches(const std::string& text) const {
    return problem_ == 0 && ::regexec(&compiled_, text.c_str(), 0, nullptr, 0) == 0;
  }
  /// Why it is none; empty: it is.
  std::string problem() const {
    char message[200] = "";
    if (problem_ != 0) ::regerror(problem_, &compiled_, message, sizeof message);
    return message;
  }

 private:
  static locale_t utf8() {
    static const locale_t locale = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
    return locale;  // null leaves the locale as it is
  }

  locale_t before_;
  regex_t compiled_{};
  int problem_;
};

/// How large the automaton of an expression may become: groups and repetitions multiplied out.
class PatternSize {
 public:
  explicit PatternSize(std::string_view text) : text_(text) {}
  double size() { return sequence(0); }
  /// After size(): how far it was read. What is left begins with a ')' that closes nothing.
  std::size_t end() const { return at_; }

 private:
  double sequence(int depth) {
    double total = 0;
    double atom = 0;
    while (at_ < text_.size() && text_[at_] != ')') {
      const char c = text_[at_++];
      if (c == '{') {
        double most = 0, number = 0;
        while (at_ < text_.size() && text_[at_] != '}') {
          number = text_[at_] >= '0' && text_[at_] <= '9' ? std::min(number * 10 + (text_[at_] - '0'), 1e6) : 0;
          most = std::max(most, number);
          ++at_;
        }
        if (at_ < text_.size()) ++at_;
        total += atom * std::max(most - 1, 0.0);
        atom *= std::max(most, 1.0);
        continue;
      }
      if (c == '*' || c == '+' || c == '?' || c == '|') continue;
      atom = 1;
      if (c == '(') {
        atom = depth < 50 ? sequence(depth + 1) : 1e9;
        if (at_ < text_.size()) ++at_;
      } else if (c == '[') {
        skip_set();
      } else if (c == '\\' && at_ < text_.size()) {
        ++at_;
      }
      total += atom;
    }
    return total;
  }

  /// Behind its '[': to the ']' that ends it, which is neither its first character nor in a class such as [:alpha:].
  void skip_set() {
    if (at_ < text_.size() && text_[at_] == '^') ++at_;
    if (at_ < text_.size() && text_[at_] == ']') ++at_;
    while (at_ < text_.size() && text_[at_] != ']') {
      const std::string_view rest = text_.substr(at_, 2);
      const bool is_class = rest == "[:" || rest == "[." || rest == "[=";
      const std::size_t end = is_class ? text_.find(std::string{rest[1], ']'}, at_ + 2) : std::string_view::npos;
      at_ = end == std::string_view::npos ? at_ + 1 : end + 2;
    }
    if (at_ < text_.size()) ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

bool check_pattern(Resolution& r, const Node& node) {
  const std::string& text = node.text;
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] != '\\') continue;
    const char next = text[i + 1];
    if (std::isalnum(static_cast<unsigned char>(next))) {
      const std::string hint = next == 'd'   ? "write [0-9]"
                               : next == 'w' ? "write [A-Za-z0-9_]"
                               : next == 's' ? "write [[:space:]]"
                                             : "patterns are POSIX extended regular expressions";
      r.report.error(code::kPattern, part_of(node, i, 2), in_quotes(text.substr(i, 2)) + " has no meaning in a pattern",
                     hint);
      return false;
    }
    ++i;
  }
  if (text.find("(?") != std::string::npos) {
    r.report.error(code::kPattern, part_of(node, text.find("(?"), 2), "'(?' has no meaning in a pattern",
                   "patterns are POSIX extended regular expressions");
    return false;
  }
  PatternSize pattern(text);
  if (text.size() > 1000 || pattern.size() > 20'000) {
    r.report.error(code::kPattern, node.span, "the pattern is too large", "repeat less, or check it in a handler");
    return false;
  }
  if (pattern.end() < text.size()) {
    r.report.error(code::kPattern, part_of(node, pattern.end(), 1), "this ')' closes nothing",
                   "write '\\)' to mean the character, in single quotes");
    return false;
  }
  if (const std::string problem = Regex(text).problem(); !problem.empty()) {
    r.report.error(code::kPattern, node.span, "the pattern is no regular expression: " + problem,
                   "patterns are POSIX extended regular expressions");
    return false;
  }
  return true;
}

/// "min:" or "max:" of a number.
std::optional<std::string> bound(Resolution& r, const MapView& map, const char* key, const Field& field) {
  const Node* node = map.find(key);
  if (node == nullptr) return std::nullopt;
  if (!is_numeric(field.type.kind)) {
    r.report.error(code::kConstraintType, node->span,
                   in_quotes(key) + " is for numbers, this is " + spelled(field.type),
                   has_length(field.type.kind) ? "write " + std::string(key) + "_length" : "");
    return std::nullopt;
  }
  const auto text = r.values.text(*node, in_quotes(key));
  if (!text) return std::nullopt;
  if (const std::string why = number_misfit(*text, field.type); !why.empty()) {
    r.report.error(code::kConstraintValue, node->span, in_quotes(*text) + " " + why);
    return std::nullopt;
  }
  return text;
}

std::optional<std::int64_t> length_bound(Resolution& r, const MapView& map, const char* key, const Field& field) {
  const Node* node = map.find(key);
  if (node == nullptr) return std::nullopt;
  if (!has_length(field.type.kind)) {
    r.report.error(code::kConstraintType, node->span,
                   in_quotes(key) + " is for strings, bytes, lists and maps, this is " + spelled(field.type),
                   is_numeric(field.type.kind) ? "write " + std::string(key).substr(0, 3) : "");
    return std::nullopt;
  }
  return r.values.integer(*node, in_quotes(key), 0, std::numeric_limits<std::int32_t>::max());
}

void check_default(Resolution& r, const Node& node, Field& field) {
  std::string why;
  auto literal = literal_as(r, node, field.type, why);
  if (!literal) {
    if (!why.empty()) {
      r.report.error(code::kDefault, node.span, "the default does not fit " + spelled(field.type) + ": " + why,
                     node.is_null() ? "to say that it may be left out, write " + spelled(field.type, true) : "");
    }
    return;
  }
  for (const std::string& rule : broken_rules(field, *literal)) {
    r.report.error(code::kDefault, node.span, "the default breaks the field's own " + in_quotes(rule));
  }
  field.default_value = std::move(literal);
}

void check_forms_of_later_keys(Resolution& r, const MapView& map) {
  if (const Node* column = map.find("column")) {
    const auto text = r.values.text(*column, "'column'");
    if (text && !is_field_name(lower_case(*text))) {
      r.report.error(code::kValue, column->span, in_quotes(*text) + " is no name of a column",
                     "letters, digits and '_'");
    }
  }
  if (const Node* index = map.find("index")) r.values.boolean(*index, "'index'");
  if (const Node* unique = map.find("unique")) r.values.boolean(*unique, "'unique'");
  if (const Node* since = map.find("since")) {
    const auto text = r.values.text(*since, "'since'");
    const std::string_view number =
        text ? std::string_view(*text).substr(text->starts_with('v') ? 1 : 0) : std::string_view("1");
    const auto parts = split(number, '.');
    if (!std::ranges::all_of(parts,
                             [](const std::string& part) { return is_integer(part) && !part.starts_with('-'); })) {
      r.report.error(code::kValue, since->span, in_quotes(*text) + " is no version", "write v2 or 1.4");
    }
  }
}

void check_fresh(Resolution& r, const Node& node, Field& field) {
  const auto choice = r.values.choice(node, "'fresh'", {"uuid", "now"});
  if (!choice) return;
  const bool uuid = *choice == 0;
  if (field.type.kind != (uuid ? TypeKind::kUuid : TypeKind::kTimestamp)) {
    r.report.error(code::kFresh, node.span,
                   "'fresh: " + node.text + "' is for fields of type " + (uuid ? "uuid" : "timestamp") + ", this is " +
                       spelled(field.type));
    return;
  }
  field.fresh = uuid ? FreshKind::kUuid : FreshKind::kNow;
}

}  // namespace

bool resolve_field(Resolution& r, const Node& key, const Node& value, const Record& record, Field& field,
                   const std::vector<std::string>& more_keys) {
  field.name = key.text;
  field.cpp_name = cpp_field_name(field.name);
  field.json_name = r.camel_case ? camel_case(field.name) : field.name;
  const std::string what = named("field", record.name + "." + field.name);
  if (!is_field_name(field.name)) {
    r.report.error(code::kBadName, key.span, in_quotes(field.name) + " is no name of a field",
                   "small letters, digits and '_', the first a letter: page_number");
  }
  if (value.is_null()) {
    r.report.error(code::kNoValue, key.span, what + " has no type", "write " + field.name + ": string");
    return false;
  }
  if (value.is_sequence()) {
    r.report.error(code::kShape, value.span, what + " is a type or a map, this is a list",
                   "for a list write list<string>");
    return false;
  }
  if (value.is_scalar()) {
    const auto type = TypeParser(r, value).parse(field.optional);
    if (type) field.type = *type;
    return type.has_value();
  }
  for (std::size_t i = 0; i < value.keys.size(); ++i) {
    const Node& type = value.items[i];
    // {type: decimal(15,2)}: what follows the comma is no key, and is not reported as one.
    if (value.keys[i].text != "type" || !type.is_scalar() || !type.plain || !type.text.starts_with("decimal("))
      continue;
    if (type.text.find(')') == std::string::npos) return TypeParser(r, type).parse(field.optional).has_value();
  }
  std::vector<std::string> keys{"type",       "doc",        "default",   "min",   "max",
                                "min_length", "max_length", "pattern",   "json",  "column",
                                "index",      "unique",     "sensitive", "since", "fresh"};
  keys.insert(keys.end(), more_keys.begin(), more_keys.end());
  const MapView map(r.report, value, what, key.span, keys);
  bool good = false;
  if (const Node* type_node = map.require("type", "write type: string")) {
    if (r.values.text(*type_node, "'type'")) {
      const auto type = TypeParser(r, *type_node).parse(field.optional);
      if (type) field.type = *type;
      good = type.has_value();
    }
  }
  if (const Node* doc = map.find("doc")) field.doc = r.values.text(*doc, "'doc'").value_or("");
  if (const Node* json = map.find("json")) {
    const auto text = r.values.text(*json, "'json'");
    const bool wrong =
        text && (text->empty() || text->size() > 128 || std::ranges::any_of(*text, [](char c) {
                   return static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '\\' || c == '/' || c == '~';
                 }));
    if (wrong) {
      r.report.error(code::kValue, json->span, in_quotes(*text) + " cannot be a name on the wire",
                     "no blanks, quotes, '/', '~' or '\\', at most 128 octets");
    } else if (text) {
      field.json_name = *text;
    }
  }
  if (const Node* sensitive = map.find("sensitive"))
    field.sensitive = r.values.boolean(*sensitive, "'sensitive'").value_or(false);
  if (more_keys.empty()) check_forms_of_later_keys(r, map);
  if (!good) return false;

  field.min = bound(r, map, "min", field);
  field.max = bound(r, map, "max", field);
  if (field.min && field.max && compare_numbers(*field.min, *field.max) > 0) {
    r.report.error(code::kConstraintValue, map.find("min")->span, "'min' is greater than 'max'");
    field.min.reset();
  }
  field.min_length = length_bound(r, map, "min_length", field);
  field.max_length = length_bound(r, map, "max_length", field);
  if (field.min_length && field.max_length && *field.min_length > *field.max_length) {
    r.report.error(code::kConstraintValue, map.find("min_length")->span, "'min_length' is greater than 'max_length'");
    field.min_length.reset();
  }
  if (const Node* pattern = map.find("pattern")) {
    if (field.type.kind != TypeKind::kString) {
      r.report.error(code::kConstraintType, pattern->span, "'pattern' is for strings, this is " + spelled(field.type));
    } else if (r.values.text(*pattern, "'pattern'") && check_pattern(r, *pattern)) {
      field.pattern = pattern->text;
    }
  }
  if (const Node* fresh = map.find("fresh")) check_fresh(r, *fresh, field);
  if (value.is_map()) {
    for (std::size_t i = 0; i < value.keys.size(); ++i) {
      if (value.keys[i].text == "default") check_default(r, value.items[i], field);
    }
  }
  return true;
}

namespace {

void check_field_names(Resolution& r, const Record& record) {
  std::map<std::string, const Field*> wire_names, cpp_names;
  for (const Field& field : record.fields) {
    const Span& span = r.field_spans.at({record.name, field.name});
    const auto [same, is_new] = wire_names.try_emplace(lower_case(field.json_name), &field);
    if (!is_new) {
      const bool exact = same->second->json_name == field.json_name;
      r.report
          .error(code::kJsonName, span,
                 exact ? "two fields are called " + in_quotes(field.json_name) + " on the wire"
                       : in_quotes(field.json_name) + " and " + in_quotes(same->second->json_name) +
                             " differ on the wire only in capitals",
                 "give one of them another name with 'json:'")
          .notes.push_back({r.field_spans.at({record.name, same->second->name}), "the other one"});
    }
    const auto [clash, unique] = cpp_names.try_emplace(field.cpp_name, &field);
    if (!unique) {
      r.report
          .error(code::kClash, span, "both fields would be called " + in_quotes(field.cpp_name) + " in C++",
                 "rename one")
          .notes.push_back({r.field_spans.at({record.name, clash->second->name}), "the other one"});
    }
  }
}

void resolve_enum(Resolution& r, const std::string& name, const Declaration& declaration, const MapView& map,
                  const Node& list) {
  Enum out{.name = name, .doc = {}, .values = {}, .cpp_names = {}, .origin = {declaration.file->origin}};
  if (const Node* doc = map.find("doc")) out.doc = r.values.text(*doc, "'doc'").value_or("");
  std::map<std::string, const Node*> known;
  for (const Node* value : r.values.list(list, "'enum'")) {
    if (!is_enum_value(value->text)) {
      r.report.error(code::kBadName, value->span, in_quotes(value->text) + " is no value of an enum",
                     "letters, digits, '_' and '-', the first a letter: top");
      continue;
    }
    const std::string cpp_name = cpp_enum_name(value->text);
    const auto [same, is_new] = known.try_emplace(lower_case(cpp_name), value);
    if (!is_new) {
      r.report
          .error(code::kClash, value->span,
                 same->second->text == value->text ? in_quotes(value->text) + " is there twice"
                                                   : in_quotes(value->text) + " and " + in_quotes(same->second->text) +
                                                         " are too alike to be told apart in C++")
          .notes.push_back({same->second->span, "the other one"});
      continue;
    }
    out.values.push_back(value->text);
    out.cpp_names.push_back(cpp_name);
  }
  if (list.is_sequence() && list.items.empty()) {
    r.report.error(code::kType, list.span, "an enum has at least one value", "write enum: [top, bottom]");
  }
  r.pipeline.enums.emplace(name, std::move(out));
}

/// Records that hold themselves by value, over any number of steps.
class Containment {
 public:
  explicit Containment(Resolution& r) : r_(r) {}

  void check() {
    for (const auto& [name, record] : r_.pipeline.records) visit(record, Span{});
  }

 private:
  /// `from`: the field that holds it, if one does.
  void visit(const Record& record, const Span& from) {
    if (done_.contains(record.name)) return;
    if (path_.size() > 100) {
      r_.report.error(code::kTooLarge, from, "records are nested more than 100 levels deep");
      return;
    }
    path_.push_back(record.name);
    for (const Field& field : record.fields) {
      if (field.type.kind != TypeKind::kRecord || r_.broken_fields.contains(record.name + "." + field.name)) continue;
      const auto again = std::ranges::find(path_, field.type.name);
      if (again != path_.end()) {
        std::string circle;
        for (auto each = again; each != path_.end(); ++each) circle += *each + " -> ";
        r_.report.error(code::kContainsItself, r_.field_spans.at({record.name, field.name}),
                        in_quotes(field.type.name) + " would contain itself: " + circle + field.type.name,
                        "use list<" + field.type.name + ">, or name the other by its key");
      } else if (const auto inner = r_.pipeline.records.find(field.type.name); inner != r_.pipeline.records.end()) {
        visit(inner->second, r_.field_spans.at({record.name, field.name}));
      }
    }
    path_.pop_back();
    done_.insert(record.name);
  }

  Resolution& r_;
  std::vector<std::string> path_;
  std::set<std::string> done_;
};

void check_type_name(Resolution& r, Section section, const std::string& name, const Declaration& declaration,
                     std::map<std::string, std::pair<std::string, Span>>& seen) {
  if (is_macro_name(name)) {
    r.report.error(code::kReserved, declaration.key->span,
                   in_quotes(name) + " is a macro of the C library, so nothing can be called so in C++",
                   "choose another name");
  }
  const auto [same, is_new] = seen.try_emplace(lower_case(name), name, declaration.key->span);
  if (!is_new && same->second.first != name) {
    r.report
        .error(code::kClash, declaration.key->span,
               in_quotes(name) + " and " + in_quotes(same->second.first) +
                   " differ only in capitals: their functions would have the same names in C++",
               "rename this " + section_word(section))
        .notes.push_back({same->second.second, "the other one"});
  }
}

}  // namespace

std::string spelled(const Type& type, bool optional) {
  std::string out;
  switch (type.kind) {
    case TypeKind::kDecimal:
      out = "decimal(" + std::to_string(type.precision) + "," + std::to_string(type.scale) + ")";
      break;
    case TypeKind::kList:
      out = "list<" + (type.element.empty() ? "" : spelled(type.element.front())) + ">";
      break;
    case TypeKind::kMap:
      out = "map<" + (type.element.empty() ? "" : spelled(type.element.front())) + ">";
      break;
    case TypeKind::kObject:
      out = "object<" + type.name + ">";
      break;
    case TypeKind::kRecord:
    case TypeKind::kEnum:
      out = type.name;
      break;
    default:
      for (const SimpleType& simple : kSimpleTypes) {
        if (simple.kind == type.kind) out = simple.name;
      }
  }
  return optional ? out + "?" : out;
}

std::vector<std::string> broken_rules(const Field& field, const Literal& literal) {
  std::vector<std::string> rules;
  if (field.min && compare_numbers(literal.text, *field.min) < 0) rules.emplace_back("min");
  if (field.max && compare_numbers(literal.text, *field.max) > 0) rules.emplace_back("max");
  const std::int64_t length =
      literal.kind == Literal::Kind::kList ? static_cast<std::int64_t>(literal.items.size()) : characters(literal.text);
  if (field.min_length && length < *field.min_length) rules.emplace_back("min_length");
  if (field.max_length && length > *field.max_length) rules.emplace_back("max_length");
  if (field.pattern && !Regex("^(" + *field.pattern + ")$").matches(literal.text)) rules.emplace_back("pattern");
  return rules;
}

std::optional<Literal> literal_as(const Resolution& r, const Node& node, const Type& type, std::string& why) {
  Literal literal = literal_of(node);
  if (type.kind == TypeKind::kList) {
    if (!node.is_sequence()) {
      why = "a list is written [a, b], this is " + shape_of(node);
      return std::nullopt;
    }
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      auto item = literal_as(r, node.items[i], type.element.front(), why);
      if (!item) return std::nullopt;
      literal.items[i] = std::move(*item);
    }
    return literal;
  }
  if (!node.is_scalar()) {
    why = "it is written as a single value, this is " + shape_of(node);
    return std::nullopt;
  }
  switch (type.kind) {
    case TypeKind::kBool:
      if (literal.kind != Literal::Kind::kBool) why = in_quotes(node.text) + " is neither true nor false";
      break;
    case TypeKind::kInt32:
    case TypeKind::kInt64:
    case TypeKind::kFloat64:
    case TypeKind::kDecimal:
      why = number_misfit(node.text, type);
      if (!why.empty()) why = in_quotes(node.text) + " " + why;
      literal.kind = Literal::Kind::kNumber;
      break;
    case TypeKind::kString:
    case TypeKind::kObject:
      literal.kind = Literal::Kind::kText;
      break;
    case TypeKind::kUuid:
      if (!is_uuid(node.text)) why = in_quotes(node.text) + " is no uuid such as 123e4567-e89b-12d3-a456-426614174000";
      literal.kind = Literal::Kind::kText;
      break;
    case TypeKind::kTimestamp:
      if (!is_timestamp(node.text)) why = in_quotes(node.text) + " is no time such as 2026-01-31T12:00:00Z";
      literal.kind = Literal::Kind::kText;
      break;
    case TypeKind::kDate:
      if (!date_of(node.text)) why = in_quotes(node.text) + " is no date such as 2026-01-31";
      literal.kind = Literal::Kind::kText;
      break;
    case TypeKind::kEnum: {
      literal.kind = Literal::Kind::kText;
      const auto found = r.pipeline.enums.find(type.name);
      if (found == r.pipeline.enums.end()) break;
      if (std::ranges::find(found->second.values, node.text) == found->second.values.end()) {
        const std::string hint = did_you_mean(node.text, found->second.values);
        why = in_quotes(node.text) + " is no value of " + type.name + (hint.empty() ? "" : "; " + hint);
      }
      break;
    }
    default:
      why = "values of this type cannot be written in a schema";
  }
  if (!why.empty()) return std::nullopt;
  return literal;
}

void resolve_header(Resolution& r) {
  const Declarations& all = r.declared;
  if (all.pipeline.key == nullptr) {
    if (all.complete && !all.files.empty()) {
      r.report.error(code::kNoPipeline, Span{all.files.front()->name, 1, 1, 1},
                     "no file says to which pipeline this belongs",
                     "write 'pipeline: name' here, or import the file that does");
    }
  } else if (const auto name = r.values.text(*all.pipeline.value, "'pipeline'")) {
    if (!is_kebab_name(*name)) {
      r.report.error(code::kBadName, all.pipeline.value->span, in_quotes(*name) + " is no name of a pipeline",
                     "small letters, digits and '-', the first a letter: pdf-to-audio");
    } else {
      r.pipeline.name = *name;
      r.pipeline.origin = {all.pipeline.file->origin};
      r.pipeline.cpp_name = cpp_namespace_name(*name);
      r.pipeline.constant = *name;
      for (char& c : r.pipeline.constant)
        c = c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  if (all.json_names.key != nullptr) {
    const auto choice = r.values.choice(*all.json_names.value, "'json_names'", {"snake_case", "camelCase"});
    r.camel_case = choice && *choice == 1;
  }
  if (all.workflow_id.key != nullptr) {
    const auto path = r.values.text(*all.workflow_id.value, "'workflow_id'");
    if (path && is_field_path(*path)) {
      r.pipeline.workflow_id = split(*path, '.');
    } else if (path) {
      r.report.error(code::kValue, all.workflow_id.value->span, in_quotes(*path) + " is no path of a field",
                     "write it as header.workflow_id");
    }
  }
}

void resolve_fields(Resolution& r, const Node& fields, Record& record) {
  if (fields.is_null()) return;
  if (!fields.is_map()) {
    r.report.error(code::kShape, fields.span, "'fields' is a map from names to types, this is " + shape_of(fields));
    r.broken_records.insert(record.name);
    return;
  }
  for (std::size_t i = 0; i < fields.keys.size(); ++i) {
    Field field;
    r.field_spans[{record.name, fields.keys[i].text}] = fields.keys[i].span;
    if (!resolve_field(r, fields.keys[i], fields.items[i], record, field))
      r.broken_fields.insert(record.name + "." + field.name);
    record.fields.push_back(std::move(field));
  }
  finish_record(r, record);
}

void finish_record(Resolution& r, Record& record) {
  check_field_names(r, record);
  std::ranges::sort(record.fields, {}, &Field::name);
}

void resolve_types(Resolution& r) {
  std::map<std::string, std::pair<std::string, Span>> seen;
  for (const Section section : {Section::kTypes, Section::kEvents, Section::kEntities}) {
    for (const auto& [name, declaration] : r.declared.table(section))
      check_type_name(r, section, name, declaration, seen);
  }

  // Enums first: defaults of fields are checked against them.
  std::vector<std::pair<std::string, const Declaration*>> records;
  for (const auto& [name, declaration] : r.declared.table(Section::kTypes)) {
    const Node& value = *declaration.value;
    const MapView map(r.report, value, named("type", name), declaration.key->span, {"doc", "fields", "enum"});
    const auto has = [&](std::string_view key) { return key_of(value, key) != nullptr; };
    if (has("enum") && has("fields")) {
      r.report.error(code::kType, declaration.key->span, "a type has either 'fields' or 'enum', not both");
    }
    if (has("enum")) {
      if (const Node* list = map.find("enum")) resolve_enum(r, name, declaration, map, *list);
      r.pipeline.enums.try_emplace(name, Enum{.name = name, .doc = {}, .values = {}, .cpp_names = {}, .origin = {}});
    } else {
      if (map && !has("fields")) map.require("fields", "write 'fields:' or 'enum: [a, b]'");
      records.emplace_back(name, &declaration);
    }
  }
  for (const auto& [name, declaration] : records) {
    Record record{.name = name, .doc = {}, .fields = {}, .origin = {declaration->file->origin}};
    const Node& value = *declaration->value;
    bool has_fields = false;
    for (std::size_t i = 0; value.is_map() && i < value.keys.size(); ++i) {
      if (value.keys[i].text == "doc") record.doc = r.values.text(value.items[i], "'doc'").value_or("");
      if (value.keys[i].text != "fields") continue;
      has_fields = true;
      resolve_fields(r, value.items[i], record);
    }
    if (!has_fields) r.broken_records.insert(name);
    r.pipeline.records.emplace(name, std::move(record));
  }
  // Events with fields of their own are records, too.
  for (const auto& [name, declaration] : r.declared.table(Section::kEvents)) {
    const Node& value = *declaration.value;
    for (std::size_t i = 0; value.is_map() && i < value.keys.size(); ++i) {
      if (value.keys[i].text != "fields") continue;
      Record record{.name = name, .doc = {}, .fields = {}, .origin = {declaration.file->origin}};
      for (std::size_t k = 0; k < value.keys.size(); ++k) {
        if (value.keys[k].text == "doc" && value.items[k].is_scalar()) record.doc = value.items[k].text;
      }
      resolve_fields(r, value.items[i], record);
      r.pipeline.records.try_emplace(name, std::move(record));
    }
  }
  read_entities(r);
  Containment(r).check();
}

}  // namespace pipegen::gen
