#include <algorithm>

#include "plan/cpp.hpp"
#include "plan/text.hpp"
#include "plan/views.hpp"

namespace pipegen::gen {

namespace {

using nlohmann::json;

constexpr std::size_t kItemIndent = 14;  // of a column, foreign key or index

const Entity& entity_of(const Pipeline& pipeline, const std::string& name) {
  return *std::ranges::find(pipeline.entities, name, &Entity::name);
}

std::size_t index_of(const Pipeline& pipeline, const std::string& name) {
  return static_cast<std::size_t>(std::ranges::find(pipeline.entities, name, &Entity::name) -
                                  pipeline.entities.begin());
}

std::vector<const Entity*> children_of(const Pipeline& pipeline, const Entity& entity) {
  std::vector<const Entity*> children;
  for (const Entity& other : pipeline.entities) {
    if (other.parent == entity.name) children.push_back(&other);
  }
  return children;
}

/// The field of the parent's record that holds the items.
const Field& list_of(const Pipeline& pipeline, const Entity& child) {
  return *pipeline.records.at(entity_of(pipeline, child.parent).record).find(child.list);
}

std::string table_constant(const Entity& entity) { return "k" + entity.name + "Table"; }
std::string child_function(const Entity& child) { return "add_" + snake_case(child.name) + "_row"; }
std::string position_variable(const Entity& child) { return snake_case(child.name) + "_position"; }

/// The entity, its parent, the parent's parent …
std::vector<const Entity*> lineage_of(const Pipeline& pipeline, const Entity& entity) {
  std::vector<const Entity*> lineage{&entity};
  while (!lineage.back()->parent.empty()) lineage.push_back(&entity_of(pipeline, lineage.back()->parent));
  return lineage;
}

/// What the messages and items of a lineage are called in C++: after their entities; "item" for what another entity is
/// made of.
std::vector<std::string> variables_of(const std::vector<const Entity*>& lineage) {
  std::set<std::string> taken{"batch", "row", "to_text"};
  for (const Entity* entity : lineage) {
    taken.insert(position_variable(*entity));
    taken.insert(child_function(*entity));
  }
  std::vector<std::string> names(lineage.size());
  for (std::size_t level = lineage.size(); level-- > 0;) {
    const Entity& entity = *lineage[level];
    std::string name = entity.record == entity.name ? entity.cpp_name : "item";
    while (!taken.insert(name).second) name += "_";
    names[level] = name;
  }
  return names;
}

/// How a value in a message is reached.
struct Reached {
  std::string expression;
  bool optional = false;
};

/// `order.customer.city`; behind an optional or in a list, an expression that is an optional:
/// `pipegen::reach(order.line_items, 0, &LineItem::tax)`.
Reached reached(const Pipeline& pipeline, const std::string& record, const std::string& variable,
                const std::vector<PathStep>& path) {
  std::string expression = variable;
  std::string further;
  bool optional = false;
  const Record* at = record.empty() ? nullptr : &pipeline.records.at(record);
  for (const PathStep& step : path) {
    const Field& field = *at->find(step.name);
    if (optional) {
      further += ", &" + at->name + "::" + field.cpp_name;
    } else {
      expression += "." + field.cpp_name;
    }
    optional = optional || field.optional;
    const Type* type = &field.type;
    if (step.index) {
      further += ", " + std::to_string(*step.index);
      optional = true;
      type = &type->element.at(0);
    }
    at = type->kind == TypeKind::kRecord ? &pipeline.records.at(type->name) : nullptr;
  }
  if (!further.empty()) expression = "pipegen::reach(" + expression + further + ")";
  return {expression, optional};
}

std::string literal_json(const Literal& literal) {
  switch (literal.kind) {
    case Literal::Kind::kNull:
      return "null";
    case Literal::Kind::kBool:
    case Literal::Kind::kNumber:
      return literal.text;
    case Literal::Kind::kText:
      return json(literal.text).dump();
    case Literal::Kind::kList: {
      std::string items;
      for (const Literal& item : literal.items) items += (items.empty() ? "" : ",") + literal_json(item);
      return "[" + items + "]";
    }
  }
  return "null";
}

bool is_stored_as_json(const Type& type) {
  return type.kind == TypeKind::kList || type.kind == TypeKind::kMap || type.kind == TypeKind::kRecord;
}

/// `add(order.order_key)`: what a row gets of a value.
std::string add_call(const Type& type, const Reached& value) {
  std::string text = value.expression;
  if (type.kind == TypeKind::kEnum) text = (value.optional ? "pipegen::optional_text(" : "to_text(") + text + ")";
  if (is_stored_as_json(type)) text = "pipegen::json::as_json(" + text + ")";
  return "add(" + text + ")";
}

std::string add_constant(const Pipeline& pipeline, const Column& column) {
  const Literal& constant = column.source.constant;
  if (constant.kind == Literal::Kind::kNull) return "add_null()";
  switch (column.type.kind) {
    case TypeKind::kEnum:
    case TypeKind::kObject:
      return "add(" + cpp_string(constant.text) + ")";
    case TypeKind::kJson:
      return "add(pipegen::Json{" + cpp_string(constant.text) + "})";
    case TypeKind::kList:
    case TypeKind::kMap:
    case TypeKind::kRecord:
      return "add(pipegen::Json{" + cpp_string(literal_json(constant)) + "})";
    case TypeKind::kInt64:
      return "add(std::int64_t{" + cpp_literal(pipeline, constant, column.type) + "})";
    default:
      return "add(" + cpp_literal(pipeline, constant, column.type) + ")";
  }
}

/// What a transform is given: the message, or the parent and the item.
struct Argument {
  std::string type, name;
};

std::string item_type(const Pipeline& pipeline, const Entity& entity) {
  return entity.parent.empty() ? entity.record : cpp_type(pipeline, list_of(pipeline, entity).type.element.at(0));
}

std::vector<Argument> transform_arguments(const Pipeline& pipeline, const Entity& entity) {
  const std::vector<const Entity*> lineage = lineage_of(pipeline, entity);
  const std::vector<std::string> names = variables_of(lineage);
  std::vector<Argument> arguments;
  if (lineage.size() > 1) arguments.push_back({item_type(pipeline, *lineage[1]), names[1]});
  arguments.push_back({item_type(pipeline, entity), names[0]});
  return arguments;
}

/// What a row of an entity, with the rows of its children, needs to know of its lineage, by level.
struct Used {
  std::set<std::size_t> items, positions;
};

Used used_by(const Pipeline& pipeline, const Entity& entity) {
  Used used;
  for (const Column& column : entity.columns) {
    const auto level = static_cast<std::size_t>(column.source.levels);
    switch (column.source.kind) {
      case ColumnSource::Kind::kField:
      case ColumnSource::Kind::kPath:
        used.items.insert(0);
        break;
      case ColumnSource::Kind::kParent:
        used.items.insert(level);
        break;
      case ColumnSource::Kind::kTransform:
        used.items.insert(0);
        if (!entity.parent.empty()) used.items.insert(1);
        break;
      case ColumnSource::Kind::kPosition:
        used.positions.insert(level);
        break;
      case ColumnSource::Kind::kConstant:
        break;
    }
  }
  for (const Entity* child : children_of(pipeline, entity)) {
    used.items.insert(0);  // its list
    const Used of_child = used_by(pipeline, *child);
    for (const std::size_t level : of_child.items) {
      if (level > 0) used.items.insert(level - 1);
    }
    for (const std::size_t level : of_child.positions) {
      if (level > 0) used.positions.insert(level - 1);
    }
  }
  return used;
}

/// `add(…)` for each column, in the order of the table.
json value_calls(const Pipeline& pipeline, const Entity& entity) {
  const std::vector<const Entity*> lineage = lineage_of(pipeline, entity);
  const std::vector<std::string> names = variables_of(lineage);
  const auto record_at = [&](std::size_t level) {
    const Entity& at = *lineage[level];
    if (at.parent.empty()) return at.record;
    const Type& type = list_of(pipeline, at).type.element.at(0);
    return type.kind == TypeKind::kRecord ? type.name : std::string();
  };
  json calls = json::array();
  for (const Column& column : entity.columns) {
    const ColumnSource& source = column.source;
    const auto level = static_cast<std::size_t>(source.levels);
    switch (source.kind) {
      case ColumnSource::Kind::kField:
      case ColumnSource::Kind::kPath:
        calls.push_back(add_call(column.type, reached(pipeline, record_at(0), names[0], source.path)));
        break;
      case ColumnSource::Kind::kParent:
        calls.push_back(add_call(column.type, reached(pipeline, record_at(level), names[level], source.path)));
        break;
      case ColumnSource::Kind::kConstant:
        calls.push_back(add_constant(pipeline, column));
        break;
      case ColumnSource::Kind::kTransform: {
        std::string arguments;
        for (const Argument& argument : transform_arguments(pipeline, entity)) {
          arguments += (arguments.empty() ? "" : ", ") + argument.name;
        }
        calls.push_back(
            add_call(column.type, {"transforms::" + source.function + "(" + arguments + ")", column.optional}));
        break;
      }
      case ColumnSource::Kind::kPosition:
        calls.push_back("add(" + position_variable(*lineage[level]) + ")");
        break;
    }
  }
  return calls;
}

/// The parameters behind the batch: what the rows need of the lineage, the outermost first.
std::vector<Argument> row_parameters(const Pipeline& pipeline, const Entity& entity) {
  const std::vector<const Entity*> lineage = lineage_of(pipeline, entity);
  const std::vector<std::string> names = variables_of(lineage);
  const Used used = used_by(pipeline, entity);
  std::vector<Argument> parameters;
  for (std::size_t level = lineage.size(); level-- > 0;) {
    if (used.items.contains(level)) {
      parameters.push_back({"const " + item_type(pipeline, *lineage[level]) + "&", names[level]});
    }
    if (used.positions.contains(level)) {
      parameters.push_back({"std::int32_t", position_variable(*lineage[level])});
    }
  }
  return parameters;
}

std::string row_signature(const Pipeline& pipeline, const Entity& entity) {
  std::vector<std::string> parameters{"pipegen::sql::Batch& batch"};
  if (entity.parent.empty()) {
    // Part of an interface: it takes its message even if every column is a constant.
    const bool is_read = used_by(pipeline, entity).items.contains(0);
    parameters.push_back(std::string(is_read ? "" : "[[maybe_unused]] ") + "const " + entity.record + "& " +
                         variables_of({&entity}).front());
    return aligned("void add_rows(", parameters, ")");
  }
  for (const Argument& parameter : row_parameters(pipeline, entity)) {
    parameters.push_back(parameter.type + " " + parameter.name);
  }
  return aligned("void " + child_function(entity) + "(", parameters, ")");
}

json row_view(const Pipeline& pipeline, const Entity& entity) {
  const std::string variable = variables_of(lineage_of(pipeline, entity)).front();
  json loops = json::array();
  for (const Entity* child : children_of(pipeline, entity)) {
    const Field& list = list_of(pipeline, *child);
    const std::string item = variables_of(lineage_of(pipeline, *child)).front();
    const std::string position = position_variable(*child);
    const Used used = used_by(pipeline, *child);
    std::string call = child_function(*child) + "(batch";
    for (const Argument& parameter : row_parameters(pipeline, *child)) {
      call += ", " + std::string(parameter.name == position ? "++" : "") + parameter.name;
    }
    loops.push_back({{"list", variable + "." + list.cpp_name},
                     {"is_optional", list.optional},
                     {"item", std::string(used.items.contains(0) ? "" : "[[maybe_unused]] ") + "const " +
                                  item_type(pipeline, *child) + "& " + item},
                     {"counts", used.positions.contains(0)},
                     {"position", position},
                     {"call", call + ")"}});
  }
  return {{"signature", row_signature(pipeline, entity)},
          {"constant", table_constant(entity)},
          {"values", value_calls(pipeline, entity)},
          {"loops", std::move(loops)}};
}

const char* kind_of(const Type& type) {
  switch (type.kind) {
    case TypeKind::kBool:
      return "kBool";
    case TypeKind::kInt32:
      return "kInt32";
    case TypeKind::kInt64:
      return "kInt64";
    case TypeKind::kFloat64:
      return "kFloat64";
    case TypeKind::kDecimal:
      return "kDecimal";
    case TypeKind::kString:
    case TypeKind::kEnum:
    case TypeKind::kObject:
      return "kText";
    case TypeKind::kBytes:
      return "kBytes";
    case TypeKind::kUuid:
      return "kUuid";
    case TypeKind::kTimestamp:
      return "kTimestamp";
    case TypeKind::kDate:
      return "kDate";
    default:
      return "kJson";
  }
}

/// In braces; an item of a list in the description of a table.
std::string braced(const std::vector<std::string>& parts) {
  const std::string indent(kItemIndent, ' ');
  return aligned(indent + "{", parts, "}").substr(indent.size());
}

std::string column_line(const Column& column, int table_since) {
  std::vector<std::string> parts{".name = " + cpp_string(column.name),
                                 std::string(".kind = Kind::") + kind_of(column.type)};
  if (column.optional) parts.emplace_back(".nullable = true");
  if (column.type.kind == TypeKind::kDecimal) {
    parts.push_back(".precision = " + std::to_string(column.type.precision));
    parts.push_back(".scale = " + std::to_string(column.type.scale));
  }
  if (column.max_length && column.type.kind == TypeKind::kString) {
    parts.push_back(".max_length = " + std::to_string(*column.max_length));
  }
  if (const int since = std::max(column.since, table_since); since != 1) {
    parts.push_back(".since = " + std::to_string(since));
  }
  if (column.default_value && column.default_value->kind != Literal::Kind::kNull) {
    parts.push_back(".fill = " + cpp_string(literal_json(*column.default_value)));
  }
  return braced(parts);
}

std::string indices(const std::vector<std::size_t>& columns) {
  std::string out;
  for (const std::size_t column : columns) out += (out.empty() ? "" : ", ") + std::to_string(column);
  return "{" + out + "}";
}

json table_view(const Pipeline& pipeline, const Entity& entity) {
  json columns = json::array();
  json foreign_keys = json::array();
  json indexes = json::array();
  for (std::size_t i = 0; i < entity.columns.size(); ++i) {
    const Column& column = entity.columns[i];
    columns.push_back(column_line(column, entity.since));
    if (!column.references.empty()) {
      const Entity& target = entity_of(pipeline, column.references);
      foreign_keys.push_back(braced({".columns = " + indices({i}), ".table = " + cpp_string(target.table),
                                     ".referenced = {" + cpp_string(target.columns.at(target.key.at(0)).name) + "}"}));
    }
    if (column.unique) {
      indexes.push_back("{.columns = " + indices({i}) + ", .unique = true}");
    } else if (column.index) {
      indexes.push_back("{.columns = " + indices({i}) + "}");
    }
  }
  json lines = json::array();
  lines.push_back(".key = " + indices(entity.key));
  if (entity.parent.empty()) {
    if (entity.on_conflict == OnConflict::kIgnore) {
      lines.push_back(".on_conflict = pipegen::sql::OnConflict::kIgnore");
    } else if (entity.on_conflict == OnConflict::kReject) {
      lines.push_back(".on_conflict = pipegen::sql::OnConflict::kReject");
    }
  } else {
    lines.push_back(".parent = " + table_constant(entity_of(pipeline, entity.parent)));
    lines.push_back(".parent_key = " + indices(entity.parent_key));
  }
  const bool has_foreign_keys = !foreign_keys.empty();
  const bool has_indexes = !indexes.empty();
  return {{"name", cpp_string(entity.table)},
          {"columns", std::move(columns)},
          {"lines", std::move(lines)},
          {"has_foreign_keys", has_foreign_keys},
          {"foreign_keys", std::move(foreign_keys)},
          {"has_indexes", has_indexes},
          {"indexes", std::move(indexes)},
          {"has_since", entity.since != 1},
          {"since", std::to_string(entity.since)}};
}

/// Adds the entity's children, theirs before them, so that each function comes before its call.
void add_children(const Pipeline& pipeline, const Entity& entity, std::vector<const Entity*>& out) {
  for (const Entity* child : children_of(pipeline, entity)) {
    add_children(pipeline, *child, out);
    out.push_back(child);
  }
}

json transform_views(const Pipeline& pipeline, const std::vector<const Entity*>& entities, const std::string& service) {
  json views = json::array();
  std::set<std::string> seen;
  for (const Entity* entity : entities) {
    for (const Column& column : entity->columns) {
      if (column.source.kind != ColumnSource::Kind::kTransform) continue;
      std::vector<std::string> parameters, unused;
      for (const Argument& argument : transform_arguments(pipeline, *entity)) {
        parameters.push_back("const " + argument.type + "& " + argument.name);
        unused.push_back("[[maybe_unused]] " + parameters.back());
      }
      const std::string type = cpp_type(pipeline, column.type);
      const std::string head =
          (column.optional ? "std::optional<" + type + ">" : type) + " " + column.source.function + "(";
      const std::string signature = aligned(head, parameters, ")");
      if (!seen.insert(signature).second) continue;
      const std::string column_name = entity->table + "." + column.name;
      views.push_back({{"signature", signature},
                       {"scaffold_signature", aligned(head, unused, ")")},
                       {"doc", doc_lines((column.doc.empty() ? "" : column.doc + "\n") + ("Of " + column_name + "."))},
                       {"message", cpp_string(service + "/src/transforms.cpp: " + column.source.function +
                                              " does nothing yet: write what it gives")}});
    }
  }
  return views;
}

}  // namespace

std::string database_open_function(Database database) {
  return database == Database::kSqlite ? "pipegen::sql::open_sqlite" : "pipegen::sql::open_postgresql";
}

void plan_entity_worker(const Pipeline& pipeline, const EntityWorker& worker, Database database, Plan& plan) {
  const Service service = service_of(worker, database);
  std::set<std::string> records;
  std::set<std::string> origin_files{worker.origin.file};
  std::vector<const Entity*> roots, children;
  for (const std::string& name : worker.entities) {
    const Entity& root = entity_of(pipeline, name);
    records.insert(root.record);
    origin_files.insert(root.origin.file);
    roots.push_back(&root);
    add_children(pipeline, root, children);
  }
  std::vector<const Entity*> written = roots;
  written.insert(written.end(), children.begin(), children.end());
  const json transforms = transform_views(pipeline, written, service.name);
  const Needs needs{.streams = {pipeline.entity_stream}, .buckets = {}, .key_values = {}};

  std::string doc = worker.doc;
  if (doc.empty()) {
    doc = "Writes to the database: " + listed(worker.entities) + ".";
  }
  json types = types_view(pipeline, {}, {}, records);
  std::set<std::string> sources{"generated/main.cpp", "generated/rows.cpp", "generated/tables.cpp",
                                "generated/worker.cpp"};
  json base = {{"service", service.name},
               {"namespace", service.cpp_name},
               {"pipeline", pipeline.name},
               {"schema", worker.origin.file},
               {"origin", origins(origin_files)},
               {"title", worker.name},
               {"doc", doc_lines(doc)},
               {"is_api", false},
               {"is_custom", false},
               {"has_transforms", !transforms.empty()},
               {"components", service.components}};
  ServiceFiles files(plan, service, std::move(base), std::move(types), std::move(sources));

  json constants = json::array();
  json tables = json::array();
  std::set<std::string> schema_files;
  for (const Entity& entity : pipeline.entities) {
    constants.push_back({{"name", table_constant(entity)}, {"index", std::to_string(index_of(pipeline, entity.name))}});
    tables.push_back(table_view(pipeline, entity));
    schema_files.insert(entity.origin.file);
  }
  json root_views = json::array();
  json root_declarations = json::array();
  for (const Entity* root : roots) {
    root_views.push_back(row_view(pipeline, *root));
    std::vector<const Entity*> parts;
    add_children(pipeline, *root, parts);
    std::vector<std::string> where{root->table};
    for (const Entity* part : parts) where.push_back(part->table);
    root_declarations.push_back({{"doc", doc_lines("Adds the rows of " + listed(where) + " that a message becomes.")},
                                 {"signature", aligned("void add_rows(",
                                                       {"pipegen::sql::Batch& batch",
                                                        "const " + root->record + "& " + variables_of({root}).front()},
                                                       ")")}});
  }
  json child_views = json::array();
  for (const Entity* child : children) child_views.push_back(row_view(pipeline, *child));
  files.header("rows.hpp", "entities/generated/rows.hpp", {{"roots", std::move(root_declarations)}});
  const bool has_children = !child_views.empty();
  files.generated(
      "rows.cpp", "entities/generated/rows.cpp",
      {{"roots", std::move(root_views)}, {"has_children", has_children}, {"children", std::move(child_views)}});
  const std::string schema_origin = origins(schema_files);
  files.header("tables.hpp", "entities/generated/tables.hpp",
               {{"origin", schema_origin}, {"constants", std::move(constants)}});
  files.generated("tables.cpp", "entities/generated/tables.cpp",
                  {{"origin", schema_origin}, {"tables", std::move(tables)}});

  json lines = json::array();
  const auto line = [](json& to, const std::string& member, const std::string& value) {
    to.push_back(fitted("." + member + " = " + value, 6));
  };
  const Stream& stream = pipeline.streams.at(pipeline.entity_stream);
  line(lines, "pipeline", cpp_string(pipeline.name));
  line(lines, "name", cpp_string(worker.name));
  line(lines, "section", cpp_string(worker.section));
  line(lines, "topology", "topology(settings)");
  line(lines, "stream", setting_text("nats", stream.setting, stream.name));
  line(lines, "dead_letter_stream", cpp_string(dead_letter_stream(pipeline)));
  line(lines, "dead_letter_subject", cpp_string("dlq." + pipeline.name + "." + worker.name));
  line(lines, "schema", "schema()");
  line(lines, "open_database", database_open_function(database));
  json entities = json::array();
  for (const Entity* root : roots) {
    json entity = json::array();
    line(entity, "name", cpp_string(root->name));
    line(entity, "subject", setting_text("nats", root->setting, root->subject));
    line(entity, "durable", setting_text("nats", root->durable_setting, root->durable));
    entities.push_back({{"lines", std::move(entity)}, {"read", read_function(root->record)}});
  }
  files.header("worker.hpp", "entities/generated/worker.hpp");
  files.generated("worker.cpp", "entities/generated/worker.cpp",
                  {{"lines", std::move(lines)},
                   {"entities", std::move(entities)},
                   {"topology", topology_view(pipeline, needs, false)}});
  files.generated("main.cpp", "entities/generated/main.cpp");

  if (!transforms.empty()) {
    const json view = {{"transforms", transforms}};
    files.header("transforms.hpp", "entities/generated/transforms.hpp", view);
    files.scaffold("transforms.cpp", "entities/src/transforms.cpp", view);
    files.scaffold("sources.cmake", "entities/src/sources.cmake");
  }
  plan_service(pipeline, service, needs, files.view(), plan);
  for (const Entity* root : roots) {
    plan.services[service.name]["nats_settings"][root->durable_setting] = root->durable;
  }
}

}  // namespace pipegen::gen
