#include <algorithm>

#include "model/action.hpp"
#include "plan/cpp.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

constexpr std::size_t kOptionIndent = 6;  // of a member of an action's options

/// What an action's outputs are called: inside the callback of a handler that makes many, else after the call.
std::string output_expression(const Action& action, const std::string& output) {
  if (!action.makes_many) return "result." + output;
  if (output == "page") return "page.number";
  if (output == "pages") return "page.total";
  return "page." + output;
}

const ActionArgument* find_argument(const Stage& stage, std::string_view parameter) {
  const auto found = std::ranges::find(stage.arguments, parameter, &ActionArgument::parameter);
  return found == stage.arguments.end() ? nullptr : &*found;
}

/// `settings.number("pdf_to_png_service.dpi", 200)`.
std::string setting_expression(const Stage& stage, const ActionParameter& parameter) {
  const std::string name = cpp_string(stage.section + "." + std::string(parameter.name));
  const ActionArgument* argument = find_argument(stage, parameter.name);
  if (parameter.is_list) {
    std::vector<std::string> items;
    if (argument != nullptr) {
      for (const Literal& item : argument->value.literal.items) items.push_back(cpp_string(item.text));
    }
    const std::string indent(kOptionIndent + 4, ' ');
    const std::string list = aligned(indent + "{", items, "}").substr(indent.size());
    const std::string call = "context.settings().list(";
    if (list.find('\n') == std::string::npos) return call + name + ", " + list + ")";
    return call + "\n" + indent + name + ",\n" + indent + list + ")";
  }
  const std::string value = argument != nullptr ? argument->value.literal.text : std::string(parameter.fallback);
  switch (parameter.type) {
    case TypeKind::kBool:
      return "context.settings().flag(" + name + ", " + (value.empty() ? "false" : value) + ")";
    case TypeKind::kInt32:
    case TypeKind::kInt64:
      return "context.settings().integer(" + name + ", " + (value.empty() ? "0" : value) + ")";
    case TypeKind::kFloat64:
      return "context.settings().number(" + name + ", " + (value.empty() ? "0" : float_literal(value)) + ")";
    default:
      return "context.settings().text(" + name + ", " + cpp_string(value) + ")";
  }
}

/// `.values = {{"page", pipegen::concat("page ", event.page_number)}, {"width", event.width}}`.
std::string named_values(const Pipeline& pipeline, const std::string& member, const ActionArgument& argument,
                         const std::string& consumed) {
  std::vector<std::string> items;
  for (const auto& [name, value] : argument.values) {
    Type type;  // of a literal
    if (value.literal.kind == Literal::Kind::kBool) type.kind = TypeKind::kBool;
    if (value.literal.kind == Literal::Kind::kNumber) {
      const bool whole = value.literal.text.find_first_of(".eE") == std::string::npos;
      type.kind = whole ? TypeKind::kInt64 : TypeKind::kFloat64;
    }
    if (value.kind == Expression::Kind::kConsumed) type = value.path.type;
    items.push_back("{" + cpp_string(name) + ", " + value_expression(pipeline, value, type, consumed, "") + "}");
  }
  const std::string indent(kOptionIndent, ' ');
  return aligned(indent + member + "{", items, "}").substr(indent.size());
}

/// The members of the action's options: `.text = event.text_key`.
json option_lines(const Pipeline& pipeline, const Stage& stage, const Action& action, const std::string& consumed,
                  const std::string& produced) {
  json lines = json::array();
  for (const ActionParameter& parameter : action.parameters) {
    const ActionArgument* argument = find_argument(stage, parameter.name);
    const std::string member = "." + std::string(parameter.name) + " = ";
    switch (parameter.role) {
      case ActionParameter::Role::kInput:
        if (argument != nullptr && !action.collects) {
          lines.push_back(member + path_expression(pipeline, consumed, "event", argument->value.path.names));
        }
        break;
      case ActionParameter::Role::kOutput:
        if (argument != nullptr && !action.makes_many) {
          lines.push_back(member + path_expression(pipeline, produced, "out", {argument->field}));
        }
        break;
      case ActionParameter::Role::kValue:
        if (argument != nullptr) {
          Type wanted;
          wanted.kind = parameter.type;
          lines.push_back(member + value_expression(pipeline, argument->value, wanted, consumed, produced));
        }
        break;
      case ActionParameter::Role::kSetting:
        lines.push_back(member + setting_expression(stage, parameter));
        break;
      case ActionParameter::Role::kSecret:
        lines.push_back(member + "context.settings().secret(" +
                        cpp_string(stage.section + "." + std::string(parameter.name)) + ")");
        break;
      case ActionParameter::Role::kValues:
        if (argument != nullptr && !argument->values.empty()) {
          lines.push_back(named_values(pipeline, member, *argument, consumed));
        }
        break;
      case ActionParameter::Role::kResult:
        if (argument != nullptr && parameter.asked_for) lines.push_back(member + "true");
        break;
    }
  }
  return lines;
}

json all_fitted(const json& lines, std::size_t indent) {
  json out = json::array();
  for (const json& line : lines) out.push_back(fitted(line.get<std::string>(), indent));
  return out;
}

/// What is done about the produced event, statement by statement.
struct Assignments {
  json before = json::array();  // `out.header = event.header`, keys last because they may be made of other fields
  json after = json::array();   // `out.status = result.status`: what is known after the action; empty if it makes many
};

Assignments assignments(const Pipeline& pipeline, const Action& action, const ProducedEvent& produced,
                        const std::string& consumed) {
  const std::string& record_name = pipeline.events.at(produced.event).record;
  const Record& record = pipeline.records.at(record_name);
  Assignments out;
  json& lines = out.before;
  json keys = json::array();
  for (const FieldSource& source : produced.sources) {
    const Field& field = *record.find(source.field);
    const std::string target = "out." + field.cpp_name;
    switch (source.kind) {
      case FieldSource::Kind::kAbsent:
        break;
      case FieldSource::Kind::kCopied:
        lines.push_back(target + " = " + path_expression(pipeline, consumed, "event", {field.name}));
        break;
      case FieldSource::Kind::kSet:
        lines.push_back(target + " = " + value_expression(pipeline, source.expression, field, consumed, record_name));
        break;
      case FieldSource::Kind::kAction:
        (action.makes_many ? out.before : out.after)
            .push_back(target + " = " + output_expression(action, source.output));
        break;
      case FieldSource::Kind::kKey:
        if (source.expression.parts.empty()) {
          keys.push_back(target + " = {context.output_key(\"bin\")}");
        } else {
          keys.push_back(target + " = {" + interpolation(pipeline, source.expression.parts, consumed, record_name) +
                         "}");
        }
        break;
    }
  }
  for (const json& key : keys) lines.push_back(key);
  return out;
}

bool reads_event(const Expression& expression) {
  return expression.kind == Expression::Kind::kConsumed ||
         std::ranges::any_of(expression.parts, [](const Expression::Part& part) {
           return part.kind == Expression::Part::Kind::kConsumed;
         });
}

/// Whether anything in the produced event comes from the consumed one.
bool reads_event(const ProducedEvent& produced) {
  const auto reads = [](const FieldSource& source) {
    return source.kind == FieldSource::Kind::kCopied || reads_event(source.expression);
  };
  return std::ranges::any_of(produced.sources, reads) || std::ranges::any_of(produced.parameters, reads);
}

/// Whether the handler of a built-in action needs the event at all: it has to be without a name otherwise.
bool reads_event(const Stage& stage) {
  const bool arguments = std::ranges::any_of(stage.arguments, [](const ActionArgument& argument) {
    return reads_event(argument.value) ||
           std::ranges::any_of(argument.values, [](const auto& value) { return reads_event(value.second); });
  });
  return arguments || std::ranges::any_of(stage.produces, [](const ProducedEvent& each) { return reads_event(each); });
}

/// `pipegen::Emitter<PNGCreatedEvent>& emit`, one for each event that the handler may make many of, or whose subject it
/// has to complete.
struct EmitterText {
  std::string type, name, doc;
};
std::vector<EmitterText> emitters(const Pipeline& pipeline, const Stage& stage) {
  std::vector<EmitterText> out;
  for (const ProducedEvent& produced : stage.produces) {
    const Event& event = pipeline.events.at(produced.event);
    EmitterText text;
    text.name = stage.produces.size() == 1 ? "emit" : "emit_" + snake_case(produced.event);
    text.type = "pipegen::Emitter<" + produced.event;
    std::string call = text.name + "(event";
    for (const Parameter& parameter : event.parameters) {
      text.type += ", std::string_view";
      call += ", " + parameter.cpp_name;
    }
    text.type += ">";
    if (!event.parameters.empty()) text.doc = call + ") publishes on " + event.subject + ".";
    out.push_back(std::move(text));
  }
  return out;
}

/// Whether the handler just returns its event, or nothing for an event that is left out.
bool returns_event(const Pipeline& pipeline, const Stage& stage) {
  return stage.produces.size() == 1 && stage.produces[0].count != ProducedEvent::Count::kMany &&
         pipeline.events.at(stage.produces[0].event).parameters.empty();
}

/// `attribute` stands before each parameter; a handler that does not read its event gives it no name.
std::string handler_signature(const Pipeline& pipeline, const Stage& stage, const std::string& attribute = "",
                              bool named = true) {
  std::string result = "void";
  std::vector<std::string> parameters{
      attribute + (stage.collect ? "const std::vector<" + stage.consumes + ">& events"
                                 : "const " + stage.consumes + (named ? "& event" : "&")),
      attribute + "pipegen::Context& context"};
  if (returns_event(pipeline, stage)) {
    const ProducedEvent& produced = stage.produces[0];
    result =
        produced.count == ProducedEvent::Count::kOptional ? "std::optional<" + produced.event + ">" : produced.event;
  } else {
    for (const EmitterText& emitter : emitters(pipeline, stage)) {
      parameters.push_back(attribute + emitter.type + "& " + emitter.name);
    }
  }
  return aligned(result + " handle(", parameters, ")");
}

/// The statements that call the handler and publish what it gives.
json call_lines(const Pipeline& pipeline, const Stage& stage) {
  const std::string input = stage.collect ? "events" : "event";
  json lines = json::array();
  if (!returns_event(pipeline, stage)) {
    std::string arguments;
    for (const EmitterText& emitter : emitters(pipeline, stage)) {
      lines.push_back(emitter.type + " " + emitter.name + "(outbox);");
      arguments += ", " + emitter.name;
    }
    lines.push_back("handle(" + input + ", context" + arguments + ");");
  } else if (stage.produces[0].count == ProducedEvent::Count::kOne) {
    lines.push_back("publish(outbox, handle(" + input + ", context));");
  } else {
    lines.push_back("if (auto out = handle(" + input + ", context)) publish(outbox, std::move(*out));");
  }
  return lines;
}

/// What the handler of a built-in action does with its event.
std::string deliver(const Pipeline& pipeline, const Stage& stage, const std::string& consumed_record) {
  if (returns_event(pipeline, stage)) return "return out";
  const ProducedEvent& produced = stage.produces[0];
  std::string call = "emit(std::move(out)";
  for (const FieldSource& parameter : produced.parameters) {
    call += ", " + value_expression(pipeline, parameter.expression, Type{}, consumed_record,
                                    pipeline.events.at(produced.event).record);
  }
  return call + ")";
}

std::string handler_template(const Action& action) {
  if (action.makes_many) return "worker/generated/handler_pages.cpp";
  if (action.collects) return "worker/generated/handler_group.cpp";
  return "worker/generated/handler_one.cpp";
}

json stage_view(const Pipeline& pipeline, const Stage& stage) {
  const Event& consumed = pipeline.events.at(stage.consumes);
  json lines = json::array();
  const auto line = [&](const std::string& member, const std::string& value) {
    lines.push_back(fitted("." + member + " = " + value, 6));
  };
  line("pipeline", cpp_string(pipeline.name));
  line("name", cpp_string(stage.name));
  line("section", cpp_string(stage.section));
  line("topology", "topology(settings)");
  line("stream", setting_text("nats", pipeline.streams.at(consumed.stream).setting, consumed.stream));
  line("durable", setting_text("nats", stage.durable_setting, stage.durable));
  const std::string subject = setting_text("nats", consumed.setting, consumed.subject);
  line("filter_subject", consumed.placeholders.empty() ? subject : "pipegen::subject_filter(" + subject + ")");
  line("event", cpp_string(stage.consumes));
  std::vector<std::string> publishes;
  for (const ProducedEvent& produced : stage.produces) {
    const Event& event = pipeline.events.at(produced.event);
    if (event.placeholders.empty()) publishes.push_back(setting_text("nats", event.setting, event.subject));
  }
  if (!publishes.empty()) lines.push_back(aligned("      .publishes = {", publishes, "}").substr(6));
  line("concurrency", std::to_string(stage.concurrency));
  line("ack_wait", cpp_duration(stage.ack_wait));
  line("timeout", cpp_duration(stage.timeout));
  line("max_deliver", std::to_string(stage.retry.max_deliver));
  std::string backoff;
  for (const auto delay : stage.retry.backoff) backoff += (backoff.empty() ? "" : ", ") + cpp_duration(delay);
  line("backoff", "{" + backoff + "}");
  line("dead_letter_stream", cpp_string(dead_letter_stream(pipeline)));
  line("dead_letter_subject", cpp_string("dlq." + pipeline.name + "." + stage.name));
  if (const std::string status = status_bucket(pipeline); !status.empty()) line("status_bucket", cpp_string(status));
  if (!stage.collect) line("handle", "consume");

  json view = {{"lines", lines},
               {"collects", stage.collect.has_value()},
               {"outbox", stage.produces.empty() ? "pipegen::Outbox&" : "pipegen::Outbox& outbox"},
               {"call", call_lines(pipeline, stage)},
               {"consumes", stage.consumes},
               {"read_consumed", read_function(stage.consumes)},
               {"has_workflow", !pipeline.workflow_id.empty()}};
  view["workflow"] =
      pipeline.workflow_id.empty() ? "" : path_expression(pipeline, consumed.record, "event", pipeline.workflow_id);
  if (stage.collect) {
    const CollectSpec& collect = *stage.collect;
    view["collect"] = {
        {"state", cpp_string(collect.state)},
        {"expires", cpp_duration(collect.expires)},
        {"group", path_expression(pipeline, consumed.record, "event", collect.by.names)},
        {"index", path_expression(pipeline, consumed.record, "event", collect.index.names)},
        {"count", path_expression(pipeline, consumed.record, "event", collect.count.names)},
    };
  }
  return view;
}

}  // namespace

void plan_worker(const Pipeline& pipeline, const Stage& stage, Plan& plan) {
  const Service service = service_of(stage);
  const Action* action = find_action(stage.action);
  const Event& consumed = pipeline.events.at(stage.consumes);

  std::set<std::string> events{stage.consumes};
  std::set<std::string> published;
  Needs needs{.streams = {consumed.stream}, .buckets = {}, .key_values = {}};
  for (const ProducedEvent& produced : stage.produces) {
    events.insert(produced.event);
    published.insert(produced.event);
    needs.streams.insert(pipeline.events.at(produced.event).stream);
  }
  json types = types_view(pipeline, events, published);
  for (const json& bucket : types["buckets"]) needs.buckets.insert(bucket["name"].get<std::string>());
  if (stage.collect) needs.key_values.insert(stage.collect->state);

  std::string doc =
      stage.doc.empty() ? (stage.collect ? "Handles a group of " : "Handles one ") + stage.consumes + "." : stage.doc;
  json base = {{"service", service.name},
               {"namespace", service.cpp_name},
               {"pipeline", pipeline.name},
               {"schema", stage.origin.file},
               {"title", stage.name},
               {"doc", doc_lines(doc)},
               {"is_api", false},
               {"has_transforms", false},
               {"is_custom", stage.action == "custom"},
               {"components", service.components}};
  std::set<std::string> sources{"generated/main.cpp", "generated/stage.cpp"};
  if (action != nullptr) sources.insert("generated/handler.cpp");

  ServiceFiles files(plan, service, std::move(base), std::move(types), std::move(sources));

  std::set<std::string> stage_files{stage.origin.file, consumed.origin.file};
  json emits = json::array();
  if (!returns_event(pipeline, stage)) {
    for (const EmitterText& emitter : emitters(pipeline, stage)) {
      if (!emitter.doc.empty()) emits.push_back(emitter.doc);
    }
  }
  json handler = {{"signature", handler_signature(pipeline, stage)},
                  {"emits", emits},
                  {"collects", stage.collect.has_value()},
                  {"origin", origins({stage.origin.file})}};
  files.header("handler.hpp", "worker/generated/handler.hpp", handler);
  files.header("stage.hpp", "worker/generated/stage.hpp", {{"origin", origins({stage.origin.file})}});
  json stage_data = stage_view(pipeline, stage);
  stage_data["origin"] = origins(stage_files);
  stage_data["topology"] = topology_view(pipeline, needs, false);
  files.generated("stage.cpp", "worker/generated/stage.cpp", std::move(stage_data));
  files.generated("main.cpp", "worker/generated/main.cpp", {{"origin", origins({stage.origin.file})}});

  if (action != nullptr) {
    const ProducedEvent* produced = stage.produces.empty() ? nullptr : &stage.produces.front();
    const std::string produced_record = produced == nullptr ? "" : pipeline.events.at(produced->event).record;
    const Assignments lines =
        produced == nullptr ? Assignments{} : assignments(pipeline, *action, *produced, consumed.record);
    handler["signature"] = handler_signature(pipeline, stage, "", reads_event(stage));
    handler["has_produced"] = produced != nullptr;
    handler["produced"] = produced == nullptr ? "" : produced->event;
    handler["consumes"] = stage.consumes;
    handler["action"] = action->name;
    handler["header"] = action->component == "audio" ? "wav" : action->name;
    handler["options_type"] = [&] {
      std::string name;
      bool upper = true;
      for (const char c : action->name) {
        if (c == '_') {
          upper = true;
        } else {
          name.push_back(upper ? static_cast<char>(c - 'a' + 'A') : c);
          upper = false;
        }
      }
      return name;
    }();
    handler["options"] =
        all_fitted(option_lines(pipeline, stage, *action, consumed.record, produced_record), kOptionIndent);
    handler["assignments"] = all_fitted(lines.before, action->makes_many ? 4 : 2);
    handler["has_results"] = !lines.after.empty();
    handler["results"] = all_fitted(lines.after, 2);
    if (produced != nullptr) handler["deliver"] = deliver(pipeline, stage, consumed.record);
    for (const ActionParameter& parameter : action->parameters) {
      const ActionArgument* argument = find_argument(stage, parameter.name);
      if (argument == nullptr) continue;
      if (parameter.role == ActionParameter::Role::kOutput) {
        const Field& field = *pipeline.records.at(produced_record).find(argument->field);
        handler["output"] = {{"member", field.cpp_name}, {"tag", pipeline.buckets.at(field.type.name).cpp_name}};
      }
      if (parameter.role == ActionParameter::Role::kInput && action->collects) {
        handler["input_member"] = path_expression(pipeline, consumed.record, "part", argument->value.path.names);
      }
    }
    // A group's handler needs its first event only when something is copied from it.
    handler["uses_event"] = produced != nullptr && reads_event(*produced);
    files.generated("handler.cpp", handler_template(*action), handler);
  } else {
    handler["scaffold_signature"] = handler_signature(pipeline, stage, "[[maybe_unused]] ");
    files.scaffold("handler.cpp", "worker/src/handler.cpp", handler);
    files.scaffold("sources.cmake", "worker/src/sources.cmake");
  }
  plan_service(pipeline, service, needs, files.view(), plan);
}

}  // namespace pipegen::gen
