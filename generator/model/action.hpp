// The catalogue of built-in actions: what `uses:` may name, what `with:` may say, what the action gives to the produced
// event. One entry here, one header in runtime/include/pipegen/actions and one rendering in plan/ make an action.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "model/pipeline.hpp"

namespace pipegen::gen {

struct ActionParameter {
  enum class Role {
    kInput,    // names an object field of the consumed event
    kOutput,   // names an object field of the produced event, which the action fills
    kResult,   // names a field of the produced event that gets a value of the action (page number, …)
    kValue,    // a literal, or a field of the consumed event
    kValues,   // a map from names to such values, each of any type that has a text
    kSetting,  // a literal: the default of the setting <section>.<name>, which may be changed at run time
    kSecret,   // a secret of the settings; `with:` cannot name it
  } role = Role::kValue;
  std::string_view name;
  TypeKind type = TypeKind::kString;
  bool is_list = false;         // kSetting only: a list of strings
  std::string_view fallback{};  // literal used when `with:` does not say; empty: absent
  bool required = false;
  std::string_view doc{};
  std::vector<std::string_view> choices{};  // kValue, kSetting: the only literals there are; empty: any
  // kSetting only: it may hold "{name}", the name being one of these or of the `values`. Names of inputs and outputs
  // count only when `with:` has them.
  std::optional<std::vector<std::string_view>> placeholders{};
  struct {
    std::string_view parameter{}, literal{};
  } needed_for{};          // required when that parameter has that value
  bool asked_for = false;  // kResult only: an option of that name tells the action that it is wanted
};

struct Action {
  std::string_view name;       // "speak"
  std::string_view component;  // CMake target of the runtime: "pdf", "ocr", "speech", "audio", …
  bool makes_many = false;     // one event per …, by the action's nature
  bool collects = false;       // needs `collect:`
  std::vector<ActionParameter> parameters;
  std::string_view doc{};
};

/// Sorted by name. "custom" is not in it.
std::span<const Action> actions();
const Action* find_action(std::string_view name);

}  // namespace pipegen::gen
