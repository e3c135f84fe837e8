#include "schema/names.hpp"

#include <algorithm>
#include <set>
#include <span>

#include "schema/reserved_names.hpp"

namespace pipegen::gen {

namespace {

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
char upper(char c) { return is_lower(c) ? static_cast<char>(c - 'a' + 'A') : c; }
char lower(char c) { return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

constexpr std::size_t kLongestName = 128;

template <typename First, typename Rest>
bool is_name(std::string_view text, First first, Rest rest) {
  return !text.empty() && text.size() <= kLongestName && first(text.front()) && std::ranges::all_of(text, rest);
}

/// Keywords, and lower-case macros of the standard headers.
const std::set<std::string_view>& keywords() {
  static const std::set<std::string_view> kWords{"alignas",
                                                 "alignof",
                                                 "and",
                                                 "and_eq",
                                                 "asm",
                                                 "assert",
                                                 "auto",
                                                 "bitand",
                                                 "bitor",
                                                 "bool",
                                                 "break",
                                                 "case",
                                                 "catch",
                                                 "char",
                                                 "char8_t",
                                                 "char16_t",
                                                 "char32_t",
                                                 "class",
                                                 "compl",
                                                 "concept",
                                                 "const",
                                                 "consteval",
                                                 "constexpr",
                                                 "constinit",
                                                 "const_cast",
                                                 "continue",
                                                 "co_await",
                                                 "co_return",
                                                 "co_yield",
                                                 "decltype",
                                                 "default",
                                                 "delete",
                                                 "do",
                                                 "double",
                                                 "dynamic_cast",
                                                 "else",
                                                 "enum",
                                                 "errno",
                                                 "explicit",
                                                 "export",
                                                 "extern",
                                                 "false",
                                                 "float",
                                                 "for",
                                                 "friend",
                                                 "goto",
                                                 "i386",
                                                 "if",
                                                 "inline",
                                                 "int",
                                                 "linux",
                                                 "long",
                                                 "mutable",
                                                 "namespace",
                                                 "new",
                                                 "noexcept",
                                                 "not",
                                                 "not_eq",
                                                 "nullptr",
                                                 "offsetof",
                                                 "operator",
                                                 "or",
                                                 "or_eq",
                                                 "pipegen",
                                                 "private",
                                                 "protected",
                                                 "public",
                                                 "register",
                                                 "reinterpret_cast",
                                                 "requires",
                                                 "return",
                                                 "setjmp",
                                                 "short",
                                                 "signed",
                                                 "sizeof",
                                                 "static",
                                                 "static_assert",
                                                 "static_cast",
                                                 "std",
                                                 "stderr",
                                                 "stdin",
                                                 "stdout",
                                                 "struct",
                                                 "switch",
                                                 "template",
                                                 "this",
                                                 "thread_local",
                                                 "throw",
                                                 "true",
                                                 "try",
                                                 "typedef",
                                                 "typeid",
                                                 "typename",
                                                 "union",
                                                 "unix",
                                                 "unsigned",
                                                 "using",
                                                 "va_arg",
                                                 "virtual",
                                                 "void",
                                                 "volatile",
                                                 "wchar_t",
                                                 "while",
                                                 "xor",
                                                 "xor_eq"};
  return kWords;
}

bool contains(std::span<const std::string_view> sorted, std::string_view name) {
  return std::ranges::binary_search(sorted, name);
}

/// What a namespace could not be called: the lists of scripts/reserved-names, and what they cannot know.
bool is_global_name(std::string_view name) {
  static const std::set<std::string_view> kMore{"encrypt", "exec", "gets", "main", "stime", "uname"};
  return contains(kGlobalNames, name) || contains(kFieldMacros, name) || kMore.contains(name);
}

std::vector<std::string> words(std::string_view name) {
  std::vector<std::string> out(1);
  for (const char c : name) {
    if (c == '_' || c == '-') {
      if (!out.back().empty()) out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  if (out.back().empty()) out.pop_back();
  return out;
}

}  // namespace

bool is_type_name(std::string_view text) {
  return is_name(text, is_upper, [](char c) { return is_upper(c) || is_lower(c) || is_digit(c); });
}
bool is_field_name(std::string_view text) {
  return is_name(text, is_lower, [](char c) { return is_lower(c) || is_digit(c) || c == '_'; });
}
bool is_kebab_name(std::string_view text) {
  return is_name(text, is_lower, [](char c) { return is_lower(c) || is_digit(c) || c == '-'; });
}
bool is_resource_name(std::string_view text) {
  const auto allowed = [](char c) { return is_upper(c) || is_lower(c) || is_digit(c) || c == '_' || c == '-'; };
  return is_name(text, allowed, allowed) && std::ranges::any_of(text, [](char c) { return c != '_' && c != '-'; });
}
bool is_package_name(std::string_view text) {
  const auto plain = [](char c) { return is_lower(c) || is_digit(c); };
  return text.size() > 1 && is_name(text, plain, [&](char c) { return plain(c) || c == '+' || c == '-' || c == '.'; });
}
bool is_enum_value(std::string_view text) {
  return is_name(
      text, [](char c) { return is_upper(c) || is_lower(c); },
      [](char c) { return is_upper(c) || is_lower(c) || is_digit(c) || c == '_' || c == '-'; });
}
bool is_value_name(std::string_view text) {
  const auto allowed = [](char c) { return is_upper(c) || is_lower(c) || is_digit(c) || c == '_'; };
  return is_name(text, allowed, allowed);
}
bool is_field_path(std::string_view text) {
  const auto parts = split(text, '.');
  return std::ranges::all_of(parts, [](const std::string& part) { return is_field_name(part); });
}

std::string cpp_field_name(const std::string& name) {
  return keywords().contains(name) || contains(kFieldMacros, name) ? name + "_" : name;
}

std::string cpp_namespace_name(const std::string& name) {
  std::string out = name;
  std::ranges::replace(out, '-', '_');
  return keywords().contains(out) || is_global_name(out) ? out + "_" : out;
}

std::string cpp_enum_name(std::string_view value) {
  std::string out = "k";
  for (const std::string& word : words(value)) out += upper(word.front()) + word.substr(1);
  return out;
}

std::string cpp_tag_name(std::string_view bucket) {
  std::string out;
  for (std::string word : words(bucket)) {
    if (std::ranges::none_of(word, is_lower)) std::ranges::transform(word, word.begin(), lower);
    out += upper(word.front()) + word.substr(1);
  }
  return is_digit(out.front()) ? "Bucket" + out : out;
}

std::string camel_case(std::string_view field) {
  std::string out;
  for (const std::string& word : words(field)) out += out.empty() ? word : upper(word.front()) + word.substr(1);
  return out;
}

bool is_macro_name(std::string_view type_name) {
  // Of other versions of the C library.
  static const std::set<std::string_view> kMore{"DOMAIN", "FALSE", "OVERFLOW", "TRUE", "UNDERFLOW"};
  return contains(kTypeMacros, type_name) || kMore.contains(type_name) ||
         (type_name.starts_with("SIG") && std::ranges::none_of(type_name, is_lower));
}

std::string reserved_stage_name(std::string_view name) {
  static const std::set<std::string_view> kFolders{"build", "generated", "ingest-api", "monitoring", "nats", "pipegen"};
  static const std::set<std::string_view> kTargets{"all",           "clean",   "depend",  "edit-cache",
                                                   "help",          "install", "package", "preinstall",
                                                   "rebuild-cache", "test",    "tests"};
  if (kFolders.contains(name) || name.starts_with("pipegen-")) return "the workspace has something else of that name";
  if (kTargets.contains(name)) return "it is the name of a target that every CMake build has";
  return "";
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), lower);
  return out;
}

std::string setting_word(std::string_view name) {
  std::string out;
  for (const std::string& word : words(name)) out += (out.empty() ? "" : "_") + lower_case(word);
  return out;
}

std::string setting_word_without(std::string_view name, const std::vector<std::string>& droppable) {
  const std::string whole = setting_word(name);
  const std::size_t last = whole.rfind('_');
  if (last == std::string::npos) return whole;
  return std::ranges::find(droppable, whole.substr(last + 1)) != droppable.end() ? whole.substr(0, last) : whole;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> out(1);
  for (const char c : text) {
    if (c == separator) {
      out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  return out;
}

}  // namespace pipegen::gen
