// `with:`, `keys:` and `set:` of a built-in action: where each field of the produced event comes from.
#include <algorithm>
#include <span>

#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

using Role = ActionParameter::Role;

/// A program that says what is wrong with its arguments, and a server that answers so, become part of an error.
constexpr const char* kGivenAway = "what a program or a server gets";

class Binder {
 public:
  Binder(Resolution& r, const Action& action, const StageText& text, Stage& stage)
      : r_(r),
        action_(action),
        text_(text),
        with_(text.with != nullptr ? *text.with : nothing_given_),
        stage_(stage),
        consumed_(*r.record_of(stage.consumes)),
        event_(stage.produces.empty() ? nothing_ : r.pipeline.events.at(stage.produces.front().event)),
        produced_(stage.produces.empty() ? no_fields_ : *r.record_of(event_.name)) {}

  void run() {
    read_with();
    check_settings();
    if (stage_.produces.empty()) {
      for (const Node* given : {text_.keys, text_.set}) {
        if (given != nullptr) produces_nothing(given == text_.keys ? "keys" : "set", given->span);
      }
      return;
    }
    read_keys();
    read_set();
    for (const Field& field : produced_.fields) add_source(field);
    for (const Parameter& parameter : event_.parameters) add_parameter(parameter.name);
  }

 private:
  std::string parameter_what(const ActionParameter& parameter) const {
    return in_quotes(parameter.name) + " of " + in_quotes(action_.name);
  }

  void read_with() {
    std::vector<std::string> names;
    for (const ActionParameter& parameter : action_.parameters) {
      if (parameter.role != Role::kSecret) names.emplace_back(parameter.name);
    }
    const MapView map(r_.report, with_, "'with' of " + in_quotes(action_.name), text_.where, {});
    if (!map) return;
    for (const Node& key : with_.keys) {
      if (std::ranges::find(names, key.text) != names.end()) continue;
      const auto secret = std::ranges::find_if(action_.parameters, [&](const ActionParameter& parameter) {
        return parameter.role == Role::kSecret && parameter.name == key.text;
      });
      if (secret != action_.parameters.end()) {
        r_.report.error(code::kUnknownParameter, key.span, in_quotes(key.text) + " is a secret, which no schema holds",
                        "give it to the service as the setting " + stage_.section + "." + key.text);
        continue;
      }
      std::string hint = did_you_mean(key.text, names);
      if (hint.empty()) hint = "it has " + one_of(names);
      r_.report.error(code::kUnknownParameter, key.span,
                      in_quotes(action_.name) + " has no parameter " + in_quotes(key.text), hint);
    }
    for (const ActionParameter& parameter : action_.parameters) {
      if (parameter.role == Role::kSecret) continue;
      const Node* key = key_of(with_, parameter.name);
      if (const Node* value = value_at(with_, parameter.name)) {
        bind(parameter, *value);
      } else if (key != nullptr) {
        r_.report.error(code::kNoValue, key->span, in_quotes(parameter.name) + " has no value",
                        "give it one, or remove it");
      } else if (parameter.required) {
        miss(parameter);
      } else if (!parameter.fallback.empty()) {
        Expression value;
        const bool number = parameter.type == TypeKind::kInt64 || parameter.type == TypeKind::kInt32 ||
                            parameter.type == TypeKind::kFloat64;
        value.literal = {number ? Literal::Kind::kNumber : Literal::Kind::kText, std::string(parameter.fallback), {}};
        stage_.arguments.push_back({std::string(parameter.name), std::move(value), ""});
      }
    }
    for (const ActionParameter& parameter : action_.parameters) check_needs(parameter);
  }

  void miss(const ActionParameter& parameter) {
    const std::string name(parameter.name);
    const std::string message =
        in_quotes(action_.name) + " needs " + in_quotes(name) + ": " + std::string(parameter.doc);
    const Span& where = text_.with != nullptr ? text_.with->span : text_.where;
    if (parameter.role == Role::kSetting) {
      r_.report.error(code::kMissingParameter, where, message,
                      "write with: {" + name + (parameter.is_list ? ": [program, --option, value]}" : ": …}"));
      return;
    }
    const Record& record = parameter.role == Role::kInput ? consumed_ : produced_;
    std::string only;
    int candidates = 0;
    for (const Field& field : record.fields) {
      if (field.type.kind != TypeKind::kObject) continue;
      only = field.name;
      ++candidates;
    }
    const std::string hint = candidates == 1   ? "write with: {" + name + ": " + only + "}"
                             : candidates == 0 ? in_quotes(record.name) + " has no field of type object<…> to name"
                                               : "name one of the object fields of " + in_quotes(record.name);
    if (parameter.role == Role::kOutput) outputs_incomplete_ = true;
    r_.report.error(code::kMissingParameter, where, message, hint);
  }

  void bind(const ActionParameter& parameter, const Node& node) {
    switch (parameter.role) {
      case Role::kInput:
        return bind_input(parameter, node);
      case Role::kOutput:
      case Role::kResult:
        return bind_output(parameter, node);
      case Role::kValue:
        if (auto value = value_of(r_, node, Type{.kind = parameter.type, .name = {}, .element = {}}, true, consumed_,
                                  parameter_what(parameter))) {
          if (value->kind == Expression::Kind::kLiteral && !is_choice(parameter, node)) return;
          if (refuse_sensitive_value(*value, node.span, kGivenAway)) return;
          stage_.arguments.push_back({std::string(parameter.name), std::move(*value), ""});
        }
        return;
      case Role::kValues:
        return bind_values(parameter, node);
      case Role::kSetting:
        return bind_setting(parameter, node);
      case Role::kSecret:
        return;
    }
  }

  bool is_choice(const ActionParameter& parameter, const Node& node) {
    const std::vector<std::string> choices(parameter.choices.begin(), parameter.choices.end());
    return choices.empty() || r_.values.choice(node, parameter_what(parameter), choices).has_value();
  }

  /// A parameter that another one's value asks for, and that has none.
  void check_needs(const ActionParameter& parameter) {
    const std::string_view other = parameter.needed_for.parameter;
    const std::string_view literal = parameter.needed_for.literal;
    const bool is_needed = std::ranges::any_of(stage_.arguments, [&](const ActionArgument& argument) {
      return argument.parameter == other && argument.value.literal.text == literal;
    });
    if (!is_needed) return;
    const Node* value = value_at(with_, parameter.name);
    const bool is_empty = value != nullptr && value->is_sequence() && value->items.empty();
    if (key_of(with_, parameter.name) != nullptr && !is_empty) return;
    r_.report.error(code::kMissingParameter, is_empty ? value->span : value_at(with_, other)->span,
                    in_quotes(action_.name) + " needs " + in_quotes(parameter.name) + " for " + std::string(other) +
                        ": " + std::string(literal),
                    "write " + std::string(parameter.name) + ": " +
                        (parameter.is_list ? "[program, --option, value]" : std::string(parameter.doc)));
  }

  void bind_input(const ActionParameter& parameter, const Node& node) {
    auto path = path_value(r_, node, consumed_, parameter_what(parameter));
    if (!path) return;
    if (path->type.kind != TypeKind::kObject) {
      r_.report.error(
          code::kMisfit, node.span,
          parameter_what(parameter) + " is an object, " + in_quotes(node.text) + " is of type " + spelled(path->type),
          "name a field of type object<…> of " + in_quotes(consumed_.name));
      return;
    }
    if (path->optional) {
      r_.report.error(code::kMisfit, node.span,
                      parameter_what(parameter) + " is always needed, and " + in_quotes(node.text) + " is optional",
                      "make it required");
      return;
    }
    Expression value;
    value.kind = Expression::Kind::kConsumed;
    value.path = std::move(*path);
    stage_.arguments.push_back({std::string(parameter.name), std::move(value), ""});
  }

  void bind_output(const ActionParameter& parameter, const Node& node) {
    const bool is_object = parameter.role == Role::kOutput;
    if (stage_.produces.empty()) return produces_nothing(parameter.name, node.span);
    const auto name = r_.values.text(node, parameter_what(parameter));
    if (!name) return give_up(is_object);
    const Field* field = produced_.find(*name);
    if (field == nullptr) {
      give_up(is_object);
      if (r_.broken_records.contains(produced_.name)) return;
      std::vector<std::string> names;
      for (const Field& each : produced_.fields) names.push_back(each.name);
      r_.report.error(code::kUnknownField, node.span, in_quotes(produced_.name) + " has no field " + in_quotes(*name),
                      did_you_mean(*name, names));
      return;
    }
    if (r_.broken_fields.contains(produced_.name + "." + *name)) return give_up(is_object);
    const Type wanted{.kind = parameter.type, .name = {}, .element = {}};
    if (is_object ? field->type.kind != TypeKind::kObject : !fits(wanted, field->type)) {
      give_up(is_object);
      r_.report.error(code::kMisfit, node.span,
                      parameter_what(parameter) + " is " + (is_object ? "an object" : "of type " + spelled(wanted)) +
                          ", " + in_quotes(produced_.name + "." + *name) + " is of type " + spelled(field->type),
                      is_object ? "name a field of type object<…>" : "");
      return;
    }
    if (is_object && field->optional) {
      give_up(true);
      r_.report.error(code::kMisfit, node.span,
                      parameter_what(parameter) + " is always written, and " + in_quotes(produced_.name + "." + *name) +
                          " is optional",
                      "make it required: " + *name + ": " + spelled(field->type));
      return;
    }
    const auto [same, is_new] = by_action_.try_emplace(*name, &parameter);
    if (!is_new) {
      r_.report.error(code::kTwoSources, node.span,
                      in_quotes(*name) + " is given by both " + in_quotes(same->second->name) + " and " +
                          in_quotes(parameter.name));
      return;
    }
    stage_.arguments.push_back({std::string(parameter.name), {}, *name});
  }

  void produces_nothing(std::string_view key, const Span& span) {
    r_.report.error(
        code::kProduces, span,
        in_quotes(key) + " speaks of the produced event, and stage " + in_quotes(stage_.name) + " produces nothing",
        "add produces: with the event, or remove it");
  }

  void give_up(bool is_object) { outputs_incomplete_ = outputs_incomplete_ || is_object; }

  void bind_setting(const ActionParameter& parameter, const Node& node) {
    Type type{.kind = parameter.type, .name = {}, .element = {}};
    if (parameter.is_list) type = Type{.kind = TypeKind::kList, .name = {}, .element = {type}};
    std::string why;
    auto literal = literal_as(r_, node, type, why);
    if (!literal) {
      r_.report.error(code::kMisfit, node.span, parameter_what(parameter) + " is of type " + spelled(type) + ": " + why,
                      parameter.is_list ? "write [program, --option, value]" : "");
      return;
    }
    if (parameter.required && (parameter.is_list ? literal->items.empty() : literal->text.empty())) {
      r_.report.error(code::kMisfit, node.span, parameter_what(parameter) + " is empty",
                      parameter.is_list ? "write [program, --option, value]" : "give it a value");
      return;
    }
    if (!is_choice(parameter, node)) return;
    Expression value;
    value.literal = std::move(*literal);
    stage_.arguments.push_back({std::string(parameter.name), std::move(value), ""});
  }

  void bind_values(const ActionParameter& parameter, const Node& node) {
    if (!MapView(r_.report, node, parameter_what(parameter), node.span, {})) return;
    ActionArgument argument{.parameter = std::string(parameter.name), .value = {}, .field = {}};
    for (std::size_t i = 0; i < node.keys.size(); ++i) {
      const Node& key = node.keys[i];
      const std::string what = in_quotes(key.text) + " of 'values'";
      const bool taken = std::ranges::any_of(action_.parameters, [&](const ActionParameter& other) {
        return other.placeholders && std::ranges::find(*other.placeholders, key.text) != other.placeholders->end();
      });
      if (!is_value_name(key.text)) {
        r_.report.error(code::kBadName, key.span, in_quotes(key.text) + " is no name of a value",
                        "letters, digits and '_': page_number");
      } else if (taken) {
        r_.report.error(code::kReserved, key.span, in_quotes("{" + key.text + "}") + " has a meaning of its own",
                        "choose another name");
      } else if (node.items[i].is_null()) {
        r_.report.error(code::kNoValue, key.span, what + " has no value", "give it one, or remove it");
      } else if (auto value = named_value(r_, node.items[i], consumed_, what);
                 value && !refuse_sensitive_value(*value, node.items[i].span, kGivenAway)) {
        argument.values.emplace(key.text, std::move(*value));
      }
    }
    stage_.arguments.push_back(std::move(argument));
  }

  /// What can be said about settings only when all of `with:` is known.
  void check_settings() {
    bool uses_output = false;
    for (const ActionParameter& parameter : action_.parameters) {
      const Node* node = value_at(with_, parameter.name);
      if (!parameter.placeholders || node == nullptr) continue;
      const std::span<const Node> texts =
          parameter.is_list ? std::span<const Node>(node->items) : std::span<const Node>(node, 1);
      for (const Node& text : texts) {
        if (!text.is_scalar()) continue;
        const auto parts = split_template(r_, text);
        if (!parts) continue;
        for (const TemplatePart& part : *parts) {
          if (!part.is_placeholder) continue;
          uses_output = uses_output || part.text == "output";
          const Span span = part_of(text, part.offset - 1, part.text.size() + 2);
          if (parameter.is_list && &text == &texts.front()) {
            r_.report.error(code::kUnknownPlaceholder, span,
                            in_quotes(text.text) + " is what to run, which no message chooses",
                            "write the name of the program");
          } else {
            check_placeholder(parameter, part.text, span);
          }
        }
      }
    }
    const Node* text = key_of(with_, "text");
    if (action_.name == "exec" && !stage_.produces.empty() && text != nullptr && key_of(with_, "output") != nullptr &&
        !uses_output) {
      r_.report.error(code::kMisfit, text->span,
                      "'text' and 'output' would both be what the program writes to standard output",
                      "let it write a file, which 'program' calls {output}, or remove one of them");
    }
  }

  void check_placeholder(const ActionParameter& parameter, const std::string& name, const Span& span) {
    std::vector<std::string> names;
    for (const std::string_view each : *parameter.placeholders) {
      const auto port = std::ranges::find(action_.parameters, each, &ActionParameter::name);
      const bool is_port =
          port != action_.parameters.end() && (port->role == Role::kInput || port->role == Role::kOutput);
      if (!is_port || key_of(with_, each) != nullptr) names.emplace_back(each);
    }
    if (const Node* values = value_at(with_, "values"); values != nullptr && values->is_map()) {
      for (const Node& key : values->keys) names.push_back(key.text);
    }
    if (std::ranges::find(names, name) == names.end()) {
      std::string hint = did_you_mean(name, names);
      if (hint.empty()) {
        const bool is_fixed = std::ranges::find(*parameter.placeholders, name) != parameter.placeholders->end();
        const bool has_values =
            std::ranges::find(action_.parameters, Role::kValues, &ActionParameter::role) != action_.parameters.end();
        hint = is_fixed     ? "add " + in_quotes(name) + " to 'with'"
               : has_values ? "give it a value: with: {values: {" + name + ": …}}, or write '{{' to mean the character"
                            : "write '{{' to mean the character";
      }
      r_.report.error(
          code::kUnknownPlaceholder, span,
          "nothing gives " + in_quotes("{" + name + "}") + " in " + parameter_what(parameter) + " its value", hint);
      return;
    }
    if (parameter.is_list) return;
    for (const ActionArgument& argument : stage_.arguments) {
      const auto value = argument.values.find(name);
      if (value == argument.values.end() || !value->second.path.optional) continue;
      r_.report.error(code::kUnknownPlaceholder, span,
                      in_quotes(name) + " is optional: " + parameter_what(parameter) + " would have a hole",
                      "use a field that is always there");
    }
  }

  bool is_parameter(const std::string& name) const {
    return std::ranges::find(event_.parameters, name, &Parameter::name) != event_.parameters.end();
  }

  /// Reports keys that are no fields of the produced event; true for those that are.
  bool is_produced_field(const Node& key, const char* what) {
    if (produced_.find(key.text) != nullptr) return true;
    if (r_.broken_records.contains(produced_.name)) return false;
    std::vector<std::string> names;
    for (const Field& each : produced_.fields) names.push_back(each.name);
    for (const Parameter& parameter : event_.parameters) names.push_back(parameter.name);
    r_.report.error(code::kUnknownField, key.span,
                    in_quotes(what) + ": " + in_quotes(produced_.name) + " has no field " + in_quotes(key.text),
                    did_you_mean(key.text, names));
    return false;
  }

  void read_keys() {
    if (text_.keys == nullptr) return;
    if (!MapView(r_.report, *text_.keys, "'keys'", text_.where, {})) return;
    std::set<std::string> written;
    std::map<std::string, std::string> unavailable;
    for (const auto& [field, parameter] : by_action_) {
      if (parameter->role == Role::kOutput) {
        written.insert(field);
        unavailable.emplace(field, "itself the key of an object that this stage writes");
      } else if (!action_.makes_many) {
        unavailable.emplace(field, "known only when the object has been written");
      }
    }
    for (std::size_t i = 0; i < text_.keys->keys.size(); ++i) {
      const Node& key = text_.keys->keys[i];
      if (!is_produced_field(key, "keys")) continue;
      if (!written.contains(key.text)) {
        if (!outputs_incomplete_) {
          r_.report.error(code::kKeyTemplate, key.span,
                          in_quotes(action_.name) + " writes no object for " + in_quotes(key.text),
                          written.empty() ? "" : "it writes that of " + in_quotes(*written.begin()));
        }
        continue;
      }
      auto expression = key_template(r_, text_.keys->items[i], produced_, consumed_, unavailable,
                                     "the key of " + in_quotes(key.text));
      if (!expression) continue;
      if (stage_.produces.front().count == ProducedEvent::Count::kMany && !tells_apart(*expression)) {
        r_.report.error(code::kKeyTemplate, text_.keys->items[i].span,
                        "every event of a message would write the same object",
                        "put what tells them apart into the key, such as the field that gets the page");
        continue;
      }
      keys_.emplace(key.text, std::move(*expression));
    }
  }

  /// Of the events that one message makes: is there something in it that only the action knows?
  bool tells_apart(const Expression& expression) const {
    return std::ranges::any_of(expression.parts, [&](const Expression::Part& part) {
      if (part.kind != Expression::Part::Kind::kProduced) return false;
      const auto found = by_action_.find(part.path.names.front());
      return found != by_action_.end() && found->second->name == "page";
    });
  }

  void read_set() {
    if (text_.set == nullptr) return;
    if (!MapView(r_.report, *text_.set, "'set'", text_.where, {})) return;
    for (std::size_t i = 0; i < text_.set->keys.size(); ++i) {
      const Node& key = text_.set->keys[i];
      const Node& value = text_.set->items[i];
      if (is_parameter(key.text)) {
        set_tried_.insert(key.text);
        set_parameter(key, value);
        continue;
      }
      if (!is_produced_field(key, "set")) continue;
      const Field& field = *produced_.find(key.text);
      set_tried_.insert(key.text);
      if (r_.broken_fields.contains(produced_.name + "." + key.text)) continue;
      if (const auto other = by_action_.find(key.text); other != by_action_.end()) {
        r_.report.error(code::kTwoSources, key.span,
                        in_quotes(key.text) + " is given by 'set' and by " + in_quotes(other->second->name) + " of " +
                            in_quotes(action_.name),
                        "remove one of them");
        continue;
      }
      if (value.is_null()) {
        if (!field.optional) {
          r_.report.error(code::kMisfit, value.span, in_quotes(key.text) + " must always have a value",
                          "make it optional, or give it one");
        }
        continue;  // absent, though the consumed event may have it
      }
      auto expression = value_of(r_, value, field.type, field.optional, consumed_, in_quotes(key.text));
      if (!expression) continue;
      if (expression->kind == Expression::Kind::kLiteral) check_rules(field, expression->literal, value.span);
      set_.emplace(key.text, std::move(*expression));
    }
  }

  /// Reports a value of which a part would show itself where it is used; true when it did.
  bool refuse_sensitive_value(const Expression& value, const Span& span, const std::string& where) {
    return refuse_sensitive(r_, value.path, span, where) ||
           std::ranges::any_of(
               value.parts, [&](const Expression::Part& part) { return refuse_sensitive(r_, part.path, span, where); });
  }

  /// Whoever consumes the event would refuse it.
  void check_rules(const Field& field, const Literal& literal, const Span& span) {
    for (const std::string& rule : broken_rules(field, literal)) {
      r_.report
          .error(code::kMisfit, span,
                 "this breaks the " + in_quotes(rule) + " of " + in_quotes(produced_.name + "." + field.name),
                 "nobody could consume such an event: write another value")
          .notes.push_back({r_.field_spans.at({produced_.name, field.name}), "the field"});
    }
  }

  /// A part of the subject: a text that is one token of it.
  void set_parameter(const Node& key, const Node& value) {
    if (value.is_null()) {
      r_.report.error(code::kMisfit, value.span, in_quotes(key.text) + " must always have a value",
                      "it is part of the subject " + in_quotes(event_.subject));
      return;
    }
    auto expression = value_of(r_, value, Type{.kind = TypeKind::kString, .name = {}, .element = {}}, false, consumed_,
                               in_quotes(key.text));
    if (!expression) return;
    if (expression->kind == Expression::Kind::kLiteral && !is_resource_name(expression->literal.text)) {
      r_.report.error(code::kPlaceholder, value.span, in_quotes(value.text) + " cannot be part of a subject",
                      "letters, digits, '_' and '-'");
      return;
    }
    if (refuse_sensitive_value(*expression, value.span, "a subject")) return;
    set_.emplace(key.text, std::move(*expression));
  }

  void add_parameter(const std::string& name) {
    FieldSource source;
    source.field = name;
    source.kind = FieldSource::Kind::kSet;
    if (const auto set = set_.find(name); set != set_.end()) {
      source.expression = set->second;
    } else if (!set_tried_.contains(name)) {
      const Field* same = consumed_.find(name);
      r_.report.error(code::kNoParameter, text_.where,
                      "nothing gives the subject of " + in_quotes(event_.name) + " its " + in_quotes("{" + name + "}"),
                      "write set: {" + name + ": " + (same != nullptr ? name : "…") + "}");
    }
    stage_.produces.front().parameters.push_back(std::move(source));
  }

  void add_source(const Field& field) {
    FieldSource source;
    source.field = field.name;
    if (const auto action = by_action_.find(field.name); action != by_action_.end()) {
      if (action->second->role == Role::kOutput) {
        source.kind = FieldSource::Kind::kKey;
        source.expression.kind = Expression::Kind::kInterpolation;
        if (const auto key = keys_.find(field.name); key != keys_.end()) source.expression = key->second;
      } else {
        source.kind = FieldSource::Kind::kAction;
      }
      source.output = action->second->name;
    } else if (const auto set = set_.find(field.name); set != set_.end()) {
      source.kind = FieldSource::Kind::kSet;
      source.expression = set->second;
    } else if (!set_tried_.contains(field.name) && field.fresh == FreshKind::kNone) {
      find_source(field, source);
    }
    stage_.produces.front().sources.push_back(std::move(source));
  }

  void find_source(const Field& field, FieldSource& source) {
    if (r_.broken_fields.contains(produced_.name + "." + field.name)) return;
    const Field* same = consumed_.find(field.name);
    const bool same_broken = same != nullptr && r_.broken_fields.contains(consumed_.name + "." + same->name);
    if (same != nullptr && same->type == field.type && (field.optional || !same->optional)) {
      source.kind = FieldSource::Kind::kCopied;
      return;
    }
    if (field.optional) return;
    if (field.default_value) {
      source.kind = FieldSource::Kind::kSet;
      source.expression.literal = *field.default_value;
      return;
    }
    if (same_broken || r_.broken_records.contains(consumed_.name)) return;
    if (outputs_incomplete_ && field.type.kind == TypeKind::kObject) return;

    std::string why = "it has no source in stage " + in_quotes(stage_.name);
    if (same != nullptr) {
      why = same->type == field.type
                ? "it is optional in " + in_quotes(consumed_.name)
                : "in " + in_quotes(consumed_.name) + " it is of type " + spelled(same->type, same->optional);
    }
    std::string hint;
    for (const ActionParameter& parameter : action_.parameters) {
      const bool free = key_of(with_, parameter.name) == nullptr;
      if (hint.empty() && free && parameter.role == Role::kResult && parameter.type == field.type.kind) {
        hint = "write with: {" + std::string(parameter.name) + ": " + field.name + "} (" + std::string(parameter.doc) +
               "), or set: {" + field.name + ": …}";
      }
    }
    if (hint.empty())
      hint = "write set: {" + field.name + ": …}, add it to " + in_quotes(consumed_.name) + ", or make it optional";
    Diagnostic& error =
        r_.report.error(code::kNoSource, text_.where,
                        "nothing gives " + in_quotes(produced_.name + "." + field.name) + ": " + why, hint);
    if (const auto span = r_.field_spans.find({produced_.name, field.name}); span != r_.field_spans.end()) {
      error.notes.push_back({span->second, "the field"});
    }
    if (same != nullptr) {
      if (const auto span = r_.field_spans.find({consumed_.name, field.name}); span != r_.field_spans.end()) {
        error.notes.push_back({span->second, "the consumed one"});
      }
    }
  }

  Resolution& r_;
  const Action& action_;
  const StageText& text_;
  const Node nothing_given_{};
  const Node& with_;
  Stage& stage_;
  const Event nothing_{};  // these stand for the produced event of a stage that has none
  const Record no_fields_{};
  const Record& consumed_;
  const Event& event_;  // the produced one
  const Record& produced_;
  std::map<std::string, const ActionParameter*> by_action_;  // field -> what fills it
  std::map<std::string, Expression> keys_, set_;             // set_: of fields and of parameters
  std::set<std::string> set_tried_;
  bool outputs_incomplete_ = false;  // `with:` has mistakes: nothing is said about fields that it may have filled
};

}  // namespace

void resolve_sources(Resolution& r, const Action& action, const StageText& text, Stage& stage) {
  if (r.record_of(stage.consumes) == nullptr) return;
  if (!stage.produces.empty() && r.record_of(stage.produces.front().event) == nullptr) return;
  Binder(r, action, text, stage).run();
}

}  // namespace pipegen::gen
