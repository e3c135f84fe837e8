// The tables of entities: their columns, what is in them, their keys, and how they fit together.
#include <algorithm>
#include <tuple>

#include "model/snake_case.hpp"
#include "schema/names.hpp"
#include "schema/resolution.hpp"

namespace pipegen::gen {

namespace {

using SourceKind = ColumnSource::Kind;

/// PostgreSQL cuts longer names off.
constexpr std::size_t kLongestSqlName = 63;
/// PostgreSQL has room for 1,600, with those that were dropped.
constexpr std::size_t kMostColumns = 1000;
/// Of an index in PostgreSQL.
constexpr std::size_t kMostKeyFields = 32;
/// Of parts in parts.
constexpr std::size_t kMostLevels = 16;

/// What of an entity can be found in a type: "LineItem" in list<LineItem>.
const std::string* entity_in(const Resolution& r, const Type& type) {
  const Type* inner = &type;
  while (!inner->element.empty()) inner = &inner->element.front();
  return inner->kind == TypeKind::kRecord && r.entity_texts.contains(inner->name) ? &inner->name : nullptr;
}

bool is_json_column(const Type& type) {
  return type.kind == TypeKind::kJson || type.kind == TypeKind::kList || type.kind == TypeKind::kMap ||
         type.kind == TypeKind::kRecord;
}

bool can_be_key(const Type& type) {
  return !is_json_column(type) && type.kind != TypeKind::kFloat64 && type.kind != TypeKind::kBytes;
}

bool same_source(const ColumnSource& a, const ColumnSource& b) {
  return a.kind == b.kind && a.levels == b.levels &&
         std::ranges::equal(a.path, b.path, [](const PathStep& x, const PathStep& y) {
           return x.name == y.name && x.index == y.index;
         });
}

/// A name in SQL, which is always written in quotes there.
bool check_sql_name(Resolution& r, const Span& span, const std::string& name, bool is_table) {
  const std::string what = is_table ? "table" : "column";
  const std::string hint = is_table ? "write table: with another name" : "write column: with another name";
  if (!is_value_name(name)) {
    r.report.error(code::kTable, span, in_quotes(name) + " is no name of a " + what, "letters, digits and '_'");
    return false;
  }
  if (name.size() > kLongestSqlName) {
    r.report.error(code::kTable, span,
                   "the name of the " + what + ", " + in_quotes(name) + ", is longer than the 63 characters that " +
                       "PostgreSQL keeps",
                   hint);
    return false;
  }
  const std::string lower = lower_case(name);
  std::string why;
  if (is_table) {
    if (lower == "message_status" || lower.starts_with("pipegen_")) why = "pipegen has a table of its own like that";
    if (lower.starts_with("sqlite_")) why = "SQLite keeps names that begin with 'sqlite_' for itself";
    if (lower.starts_with("pg_")) why = "PostgreSQL keeps names that begin with 'pg_' for itself";
  } else {
    static const std::set<std::string_view> kSystem{"cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"};
    if (lower == "pipegen_version") why = "the runtime has a column of that name";
    if (kSystem.contains(lower)) why = "every table of PostgreSQL has a column of that name already";
  }
  if (why.empty()) return true;
  r.report.error(code::kTable, span, "a " + what + " cannot be called " + in_quotes(name) + ": " + why, hint);
  return false;
}

/// Turns the entities as they are written into tables, a parent before its children.
class Tables {
 public:
  explicit Tables(Resolution& r) : r_(r) {}

  void run() {
    for (const auto& [name, text] : r_.entity_texts) find_children(name, text);
    for (const auto& [name, text] : r_.entity_texts) make(name);
    check_references();
    check_table_names();
    check_transforms();
    put_in_order();
  }

 private:
  struct Use {
    std::string entity;  // that has the list
    std::string field;
    Span span;
  };
  /// An entity on its way, with what the model does not keep.
  struct Made {
    Entity entity;
    std::set<std::size_t> unwritten;  // columns that the schema does not write: they come first
    std::size_t level = 0;            // 1: a part of one that messages are made of
    bool key_known = true;            // false: something in it could not be understood
  };

  // Children.

  void find_children(const std::string& name, const EntityText& text) {
    for (const EntityField& field : text.fields) {
      if (!field.good) continue;
      const std::string* child = entity_in(r_, field.field.type);
      if (child == nullptr) continue;
      const Node* type = field.value->is_map() ? value_at(*field.value, "type") : field.value;
      const Span& span = type != nullptr ? type->span : field.key->span;
      const bool is_list =
          field.field.type.kind == TypeKind::kList && field.field.type.element.front().kind == TypeKind::kRecord;
      if (field.is_derived() || text.repeated_for != nullptr) {
        r_.report.error(
            code::kEntityUse, span,
            in_quotes(*child) + " is an entity, so it has a table, and " + in_quotes(field.field.name) + " is a column",
            "make " + in_quotes(*child) + " a record under 'types', or name a field of it");
      } else if (!is_list) {
        r_.report.error(code::kEntityUse, span,
                        "an entity can be a part of another only in a list: " + in_quotes(*child) + " has a table",
                        "write list<" + *child + "> for rows of that table, move " + in_quotes(*child) +
                            " to 'types' to store it as JSON, or hold its key with 'references'");
      } else {
        const auto [other, is_new] = parents_.try_emplace(*child, Use{name, field.field.name, span});
        if (is_new) continue;
        r_.report
            .error(code::kEntityUse, span,
                   in_quotes(*child) + " is a part of " + in_quotes(name + "." + field.field.name) + " and of " +
                       in_quotes(other->second.entity + "." + other->second.field) + ": its rows have one parent",
                   "declare another entity for one of them")
            .notes.push_back({other->second.span, "the other one"});
      }
    }
  }

  /// The item record of a derived entity, and whose list it is in; reports what is wrong.
  void read_repeated_for(const std::string& name, const EntityText& text, Made& made) {
    const Span& where = text.declaration->key->span;
    const MapView map(r_.report, *text.repeated_for, "'repeated_for'", where, {"entity", "field"});
    if (!map) return;
    const Node* entity = map.require("entity", "write repeated_for: {entity: Order, field: line_items}");
    const Node* field = map.require("field", "name the list whose items become rows");
    if (entity == nullptr || r_.find(Section::kEntities, *entity) == nullptr) return;
    if (open_.contains(entity->text)) {
      r_.report.error(code::kRepeatedFor, entity->span, in_quotes(name) + " would be made of itself",
                      "name the entity whose message holds the list");
      return;
    }
    make(entity->text);
    const auto parent = made_.find(entity->text);
    if (parent == made_.end() || field == nullptr) return;
    const auto wanted = r_.values.text(*field, "'field'");
    const auto record = r_.pipeline.records.find(parent->second.entity.record);
    if (!wanted || record == r_.pipeline.records.end()) return;
    if (r_.broken_fields.contains(record->first + "." + *wanted)) return;
    const Field* list = record->second.find(*wanted);
    if (list == nullptr) {
      if (r_.broken_records.contains(record->first)) return;
      std::vector<std::string> lists;
      for (const Field& each : record->second.fields) {
        if (each.type.kind == TypeKind::kList) lists.push_back(each.name);
      }
      std::string hint = did_you_mean(*wanted, lists);
      if (hint.empty()) hint = lists.empty() ? "give it a field of type list<…>" : "its lists: " + one_of(lists);
      r_.report.error(code::kRepeatedFor, field->span, in_quotes(record->first) + " has no field " + in_quotes(*wanted),
                      hint);
      return;
    }
    if (list->type.kind != TypeKind::kList || list->type.element.front().kind != TypeKind::kRecord) {
      r_.report.error(code::kRepeatedFor, field->span,
                      in_quotes(*wanted) + " is of type " + spelled(list->type, list->optional) +
                          ": rows are made of a list of records",
                      "name a field of type list<Name>, where Name has fields");
      return;
    }
    made.entity.parent = entity->text;
    made.entity.list = *wanted;
    made.entity.record = list->type.element.front().name;
  }

  // Entities.

  void make(const std::string& name) {
    if (made_.contains(name) || failed_.contains(name) || open_.contains(name)) return;
    const EntityText& text = r_.entity_texts.at(name);
    if (open_.size() >= kMostLevels) {
      refuse_depth(name, text);
      return;
    }
    open_.insert(name);
    Made made;
    Entity& entity = made.entity;
    entity.name = name;
    entity.cpp_name = cpp_namespace_name(snake_case(name));
    entity.record = text.repeated_for == nullptr ? name : "";
    entity.origin = {text.declaration->file->origin};
    const auto use = parents_.find(name);
    if (text.repeated_for != nullptr) {
      read_repeated_for(name, text, made);
    } else if (use != parents_.end()) {
      if (open_.contains(use->second.entity)) {
        r_.report.error(code::kEntityUse, use->second.span, in_quotes(name) + " would be a part of itself",
                        "hold the key of the other with 'references', or move it to 'types'");
      } else {
        make(use->second.entity);
        entity.parent = use->second.entity;
        entity.list = use->second.field;
      }
    }
    const bool is_part = text.repeated_for != nullptr || use != parents_.end();
    const bool parent_known = !entity.parent.empty() && made_.contains(entity.parent);
    if (parent_known) made.level = made_.at(entity.parent).level + 1;
    if (is_part && !parent_known) {
      failed_.insert(name);  // what is said about the parent is enough
    } else if (made.level > kMostLevels) {
      refuse_depth(name, text);
    } else {
      read_entity(text, made, parent_known ? &made_.at(entity.parent) : nullptr);
      made_.emplace(name, std::move(made));
    }
    open_.erase(name);
  }

  void refuse_depth(const std::string& name, const EntityText& text) {
    if (!too_deep_) {
      r_.report.error(code::kTooLarge, text.declaration->key->span,
                      "entities are parts of each other, more than " + std::to_string(kMostLevels) + " levels deep",
                      "hold the key of the other with 'references' somewhere");
    }
    too_deep_ = true;
    failed_.insert(name);
  }

  void read_entity(const EntityText& text, Made& made, const Made* parent) {
    Entity& entity = made.entity;
    const Node& value = *text.declaration->value;
    const Span& where = text.declaration->key->span;
    if (const Node* doc = value_at(value, "doc"); doc != nullptr && doc->is_scalar()) entity.doc = doc->text;
    entity.table = snake_case(entity.name);
    Span table_span = where;
    if (const Node* table = value_at(value, "table")) {
      entity.table = r_.values.text(*table, "'table'").value_or(entity.table);
      table_span = table->span;
    }
    check_sql_name(r_, table_span, entity.table, true);
    table_spans_[entity.name] = table_span;
    if (const Node* conflict = value_at(value, "on_conflict")) {
      if (parent != nullptr) {
        r_.report.error(code::kEntityUse, conflict->span,
                        "rows of " + in_quotes(entity.name) + " are replaced with the row of " +
                            in_quotes(entity.parent) + " that they belong to",
                        "remove 'on_conflict': that of " + in_quotes(entity.parent) + " decides");
      }
      const auto choice = r_.values.choice(*conflict, "'on_conflict'", {"update", "ignore", "reject"});
      if (choice && *choice == 1) entity.on_conflict = OnConflict::kIgnore;
      if (choice && *choice == 2) entity.on_conflict = OnConflict::kReject;
    }
    entity.since = parent != nullptr ? parent->entity.since : 1;
    if (const Node* since = value_at(value, "since")) {
      const int least = entity.since;
      entity.since = read_since(*since).value_or(least);
      if (entity.since < least) {
        r_.report.error(code::kSince, since->span,
                        in_quotes(entity.name) + " belongs to " + in_quotes(entity.parent) + ", which is there since " +
                            std::to_string(least),
                        "write since: " + std::to_string(least) + ", or remove it");
        entity.since = least;
      }
    }
    if (parent == nullptr && !entity.parent.empty()) return;

    if (text.fields.size() > kMostColumns) {
      r_.report.error(code::kTable, where,
                      in_quotes(entity.name) + " has more than " + std::to_string(kMostColumns) + " fields",
                      "put fields that belong together into a record, which is stored as JSON");
      made.key_known = false;
      return;
    }
    std::vector<Column> columns;
    for (const EntityField& field : text.fields) {
      if (!field.good) {
        unclear_.insert(entity.name + "." + field.field.name);
      } else if (auto column = read_column(field, made, parent)) {
        columns.push_back(std::move(*column));
      }
    }
    arrange(text, made, parent, std::move(columns));
  }

  std::optional<int> read_since(const Node& node) {
    const auto number = r_.values.integer(node, "'since'", 1, 1'000'000);
    return number ? std::optional<int>(static_cast<int>(*number)) : std::nullopt;
  }

  bool flag(const Node& map, const char* key) {
    const Node* node = value_at(map, key);
    return node != nullptr && r_.values.boolean(*node, in_quotes(key)).value_or(false);
  }

  /// Nothing for a field that is no column, or whose column cannot be told.
  std::optional<Column> read_column(const EntityField& field, Made& made, const Made* parent) {
    const Node& value = *field.value;
    const std::string& name = field.field.name;
    const std::string whole = made.entity.name + "." + name;
    const bool is_children = entity_in(r_, field.field.type) != nullptr;
    if (const Node* stored = value_at(value, "stored"); stored != nullptr) {
      if (!r_.values.boolean(*stored, "'stored'").value_or(true)) {
        refuse_column_keys(value, in_quotes(whole) + " is not stored");
        if (is_children) {
          r_.report.error(code::kColumn, stored->span,
                          in_quotes(whole) + " is a list of entities, which have their own table",
                          "move the type of its items to 'types'");
        }
        not_stored_.insert(whole);
        return std::nullopt;
      }
    }
    if (is_children) {
      refuse_column_keys(value, in_quotes(whole) + " is no column: its items are rows of another table");
      return std::nullopt;
    }
    Column column;
    column.field = name;
    column.name = name;
    column.doc = field.field.doc;
    column.type = field.field.type;
    column.optional = field.field.optional;
    if (column.type.kind == TypeKind::kString) column.max_length = field.field.max_length;
    column.default_value = field.field.default_value;
    column.since = made.entity.since;
    Span name_span = field.key->span;
    if (value.is_map()) read_column_keys(field, made, column, name_span);
    column_spans_[whole] = name_span;
    check_sql_name(r_, name_span, column.name, false);
    if (!read_source(field, made, parent, column)) {
      unclear_.insert(whole);
      return std::nullopt;
    }
    return column;
  }

  void refuse_column_keys(const Node& value, const std::string& why) {
    for (const char* key : {"column", "index", "unique", "references", "since"}) {
      if (const Node* node = key_of(value, key)) {
        r_.report.error(code::kColumn, node->span, why + ", so it has no " + in_quotes(key), "remove it");
      }
    }
  }

  void read_column_keys(const EntityField& field, const Made& made, Column& column, Span& name_span) {
    const Node& value = *field.value;
    const std::string whole = made.entity.name + "." + field.field.name;
    if (const Node* node = value_at(value, "column")) {
      column.name = r_.values.text(*node, "'column'").value_or(column.name);
      name_span = node->span;
    }
    column.index = flag(value, "index");
    column.unique = flag(value, "unique");
    for (const char* key : {"index", "unique"}) {
      if (!(std::string_view(key) == "index" ? column.index : column.unique) || !is_json_column(column.type)) continue;
      r_.report.error(
          code::kColumn, value_at(value, key)->span,
          in_quotes(whole) + " is of type " + spelled(column.type) + ", which is stored as JSON and has no order",
          "make columns of its parts with 'from', and give those an index");
      column.index = column.unique = false;
    }
    if (const Node* node = value_at(value, "references")) {
      if (r_.find(Section::kEntities, *node) != nullptr) column.references = node->text;
    }
    if (const Node* node = value_at(value, "since")) {
      const auto since = read_since(*node);
      if (since && *since < made.entity.since) {
        r_.report.error(code::kSince, node->span,
                        in_quotes(whole) + " would be older than its table, which is there since " +
                            std::to_string(made.entity.since),
                        "remove 'since', or correct one of them");
      } else if (since) {
        column.since = *since;
      }
      if (column.since > made.entity.since) {
        if (!column.optional && !column.default_value) {
          r_.report.error(
              code::kSince, field.key->span,
              in_quotes(whole) + " came later than its table, and rows that were there before have no value for it",
              "make it optional, or give it a 'default'");
        } else if (column.unique && column.default_value && !column.optional) {
          r_.report.error(code::kSince, value_at(value, "unique")->span,
                          "all rows that were there before get the same default, so it cannot be unique",
                          "make it optional without a default");
        }
      }
    }
    if (field.is_derived() && column.default_value && column.since == made.entity.since) {
      r_.report.error(
          code::kDerived, value_at(value, "default") != nullptr ? value_at(value, "default")->span : field.key->span,
          in_quotes(whole) + " is always made from the message: a default is for rows that are older than the column",
          "remove it, or say with 'since' when the column came");
    }
  }

  // Where values come from.

  bool read_source(const EntityField& field, const Made& made, const Made* parent, Column& column) {
    const std::string& name = field.field.name;
    column.source.kind = field.source;
    switch (field.source) {
      case SourceKind::kField:
        if (r_.entity_texts.at(made.entity.name).repeated_for != nullptr) return copy_of_item(field, made, column);
        column.source.path = {PathStep{name, std::nullopt, column.optional}};
        return true;
      case SourceKind::kPath: {
        const auto record = r_.pipeline.records.find(made.entity.record);
        if (field.from == nullptr || record == r_.pipeline.records.end()) return false;
        const auto text = r_.values.text(*field.from, "'from'");
        if (!text) return false;
        const Steps steps = find_steps(r_, record->second, *text);
        return take_path(field, *field.from, steps, column);
      }
      case SourceKind::kParent:
        return field.from != nullptr && take_parent(field, made, parent, column);
      case SourceKind::kConstant: {
        if (field.from == nullptr) return false;
        std::string why;
        auto literal = literal_as(r_, *field.from, column.type, why);
        if (literal && column.max_length && characters(literal->text) > *column.max_length) {
          why = in_quotes(literal->text) + " is longer than its 'max_length'";
        }
        if (!why.empty() || !literal) {
          r_.report.error(code::kDerived, field.from->span,
                          "the constant does not fit " + spelled(column.type) + ": " + why,
                          "change the constant, or the type of the field");
          return false;
        }
        column.source.constant = std::move(*literal);
        return true;
      }
      case SourceKind::kTransform:
        return field.from != nullptr && take_transform(field, made, column);
      case SourceKind::kPosition:
        break;
    }
    return false;
  }

  bool copy_of_item(const EntityField& field, const Made& made, Column& column) {
    const auto record = r_.pipeline.records.find(made.entity.record);
    if (record == r_.pipeline.records.end()) return false;
    const Steps steps = find_steps(r_, record->second, field.field.name);
    if (steps.field == nullptr && !steps.quiet) {
      r_.report.error(
          code::kDerived, field.key->span,
          "nothing gives " + in_quotes(made.entity.name + "." + field.field.name) + " its value: " + steps.problem,
          steps.hint.starts_with("did you mean")
              ? steps.hint
              : "write from:, parent:, constant: or transform:, or name a field of the items");
      return false;
    }
    return take_path(field, *field.key, steps, column);
  }

  /// Checks a path against its column, and puts it there.
  bool take_path(const EntityField& field, const Node& node, const Steps& steps, Column& column) {
    if (steps.quiet) return false;
    if (!steps.problem.empty()) {
      r_.report.error(code::kDerived, node.span, steps.problem, steps.hint);
      return false;
    }
    if (!fits_column(field, node, steps.type, steps.optional, steps.field, column)) return false;
    column.source.path = steps.path;
    return true;
  }

  bool fits_column(const EntityField& field, const Node& node, const Type& type, bool optional, const Field* source,
                   Column& column) {
    const std::string& name = field.field.name;
    if (!(type == column.type)) {
      r_.report.error(code::kDerived, node.span,
                      in_quotes(node.text) + " is of type " + spelled(type, optional) + ", and " + in_quotes(name) +
                          " of type " + spelled(column.type, column.optional),
                      "write type: " + spelled(type, optional));
      return false;
    }
    if (optional && !column.optional) {
      r_.report.error(code::kDerived, node.span,
                      in_quotes(node.text) + " may lead nowhere, and " + in_quotes(name) + " must always have a value",
                      "write type: " + spelled(column.type, true));
      return false;
    }
    const bool is_item = source != nullptr && source->type.kind == TypeKind::kList;
    if (column.type.kind == TypeKind::kString && source != nullptr) {
      const std::optional<std::int64_t> most = is_item ? std::nullopt : source->max_length;
      if (!column.max_length) {
        column.max_length = most;
      } else if (!most || *most > *column.max_length) {
        r_.report.error(code::kDerived, node.span,
                        in_quotes(name) + " holds " + std::to_string(*column.max_length) + " characters, and " +
                            in_quotes(node.text) + " may be longer",
                        "give both the same 'max_length'");
      }
    }
    return true;
  }

  /// `parent:` names a field of the entity that this one is a part of, or of the one that that is a part of, and so on.
  bool take_parent(const EntityField& field, const Made& made, const Made* parent, Column& column) {
    const auto text = r_.values.text(*field.from, "'parent'");
    if (!text) return false;
    if (parent == nullptr) {
      r_.report.error(code::kDerived, field.from->span, in_quotes(made.entity.name) + " is a part of no other entity",
                      "write from: to take the value from the message");
      return false;
    }
    Steps nearest;
    int levels = 1;
    for (const Made* at = parent; at != nullptr; at = above(*at), ++levels) {
      const auto record = r_.pipeline.records.find(at->entity.record);
      if (record == r_.pipeline.records.end()) return false;
      Steps steps = find_steps(r_, record->second, *text);
      if (steps || steps.quiet) {
        column.source.levels = levels;
        return take_path(field, *field.from, steps, column);
      }
      if (at == parent) nearest = std::move(steps);
      // Derived fields and copied keys are no part of the message.
      if (unclear_.contains(at->entity.name + "." + *text)) return false;
      const auto same = std::ranges::find(at->entity.columns, *text, &Column::field);
      if (same == at->entity.columns.end()) continue;
      auto source = source_from_below(*same, levels);
      if (!source) {
        r_.report.error(code::kDerived, field.from->span,
                        in_quotes(at->entity.name + "." + *text) + " is made by a function of that entity alone",
                        "give this field its own 'transform'");
        return false;
      }
      Field as_field;
      as_field.type = same->type;
      as_field.max_length = same->max_length;
      if (!fits_column(field, *field.from, same->type, same->optional, &as_field, column)) return false;
      column.source = std::move(*source);
      return true;
    }
    r_.report.error(code::kDerived, field.from->span, nearest.problem, nearest.hint);
    return false;
  }

  const Made* above(const Made& made) const {
    const auto found = made_.find(made.entity.parent);
    return found == made_.end() ? nullptr : &found->second;
  }

  /// A column of an entity as its children see it, `levels` below.
  static std::optional<ColumnSource> source_from_below(const Column& column, int levels) {
    ColumnSource source = column.source;
    switch (column.source.kind) {
      case SourceKind::kField:
      case SourceKind::kPath:
        source.kind = SourceKind::kParent;
        source.levels = levels;
        return source;
      case SourceKind::kParent:
      case SourceKind::kPosition:
        source.levels += levels;
        return source;
      case SourceKind::kConstant:
        return source;
      case SourceKind::kTransform:
        break;
    }
    return std::nullopt;
  }

  bool take_transform(const EntityField& field, const Made& made, Column& column) {
    const auto text = r_.values.text(*field.from, "'transform'");
    if (!text) return false;
    if (!is_field_name(*text) || text->find("__") != std::string::npos) {
      r_.report.error(code::kTransform, field.from->span, in_quotes(*text) + " is no name of a function",
                      "small letters, digits and '_', the first a letter: order_label");
      return false;
    }
    if (cpp_field_name(*text) != *text || cpp_namespace_name(*text) != *text) {
      r_.report.error(code::kReserved, field.from->span, in_quotes(*text) + " has a meaning in C++ already",
                      "choose another name");
      return false;
    }
    column.source.function = *text;
    // It gets the item, and of a part also what the item is in.
    const auto parent = made_.find(made.entity.parent);
    const std::string signature = spelled(column.type, column.optional) + " from " +
                                  (parent == made_.end() ? "" : parent->second.entity.record + " and ") +
                                  made.entity.record;
    const auto [same, is_new] = transforms_.try_emplace(*text, signature, field.from->span);
    if (!is_new && same->second.first != signature) transform_clashes_.emplace_back(*text, field.from->span, signature);
    return true;
  }

  void check_transforms() {
    for (const auto& [name, span, signature] : transform_clashes_) {
      const auto& [first, first_span] = transforms_.at(name);
      r_.report
          .error(
              code::kTransform, span,
              in_quotes(name) + " would be two functions: it makes " + signature + " here, and " + first + " elsewhere",
              "call one of them something else")
          .notes.push_back({first_span, "the other one"});
    }
  }

  // Keys and the order of columns.

  void arrange(const EntityText& text, Made& made, const Made* parent, std::vector<Column> columns) {
    Entity& entity = made.entity;
    std::vector<Column> front;
    const auto take = [&](std::vector<Column>::iterator found) {
      front.push_back(std::move(*found));
      columns.erase(found);
    };
    if (parent != nullptr) {
      made.key_known = parent->key_known;
      for (const std::size_t index : parent->entity.key) {
        const Column& theirs = parent->entity.columns[index];
        auto source = source_from_below(theirs, 1);
        if (!source) continue;  // refused as a key there
        const auto own = std::ranges::find_if(
            columns, [&](const Column& each) { return same_source(each.source, *source) && !each.optional; });
        entity.parent_key.push_back(front.size());
        if (own != columns.end()) {
          take(own);
          continue;
        }
        Column copy;
        copy.field = theirs.source.kind == SourceKind::kPosition && theirs.source.levels == 0
                         ? snake_case(parent->entity.name) + "_" + theirs.field
                         : theirs.field;
        copy.name = copy.field == theirs.field ? theirs.name : copy.field;
        copy.doc = theirs.doc;
        copy.type = theirs.type;
        copy.max_length = theirs.max_length;
        copy.since = entity.since;
        copy.source = std::move(*source);
        made.unwritten.insert(front.size());
        front.push_back(std::move(copy));
      }
    }
    const std::size_t of_parent = front.size();
    std::vector<std::string> key = read_key(text, made, columns, front, parent != nullptr);
    for (const std::string& name : key) {
      const auto found = std::ranges::find(columns, name, &Column::field);
      if (found != columns.end()) take(found);
    }
    if (parent != nullptr && front.size() == of_parent && made.key_known) {
      Column position;
      position.field = position.name = "position";
      position.doc = "The place of the item in its list, from 1.";
      position.type.kind = TypeKind::kInt32;
      position.since = entity.since;
      position.source.kind = SourceKind::kPosition;
      position.source.levels = 0;
      made.unwritten.insert(front.size());
      front.push_back(std::move(position));
    }
    for (std::size_t i = 0; i < front.size(); ++i) entity.key.push_back(i);
    std::ranges::sort(columns, {}, &Column::field);
    entity.columns = std::move(front);
    for (Column& column : columns) entity.columns.push_back(std::move(column));
    check_columns(text, made);
  }

  /// The entity's own key; `front` has the columns of its parent's.
  std::vector<std::string> read_key(const EntityText& text, Made& made, const std::vector<Column>& columns,
                                    const std::vector<Column>& front, bool is_part) {
    const Entity& entity = made.entity;
    const Node& value = *text.declaration->value;
    const Node* node = value_at(value, "key");
    if (node == nullptr) {
      if (!is_part) {
        made.key_known = false;
        const bool typo = r_.broken_entities.contains(entity.name);
        if (key_of(value, "key") == nullptr && !typo) {
          r_.report.error(code::kEntityKey, text.declaration->key->span,
                          named("entity", entity.name) + " needs 'key': what tells its rows apart",
                          "write key: [order_key] with the names of its fields");
        }
      }
      return {};
    }
    std::vector<std::string> names;
    bool only_parents = true;
    const auto items = r_.values.list(*node, "'key'");
    if (node->is_sequence() && node->items.empty()) {
      r_.report.error(code::kEntityKey, node->span, "a key has at least one field",
                      is_part ? "remove 'key' to number the rows of a parent" : "write key: [order_key]");
    }
    if (items.empty()) made.key_known = false;
    for (const Node* item : items) {
      const std::string& name = item->text;
      // The parent's key is in every key of a part.
      const bool is_own = std::ranges::find(columns, name, &Column::field) != columns.end();
      if (!is_own && std::ranges::find(front, name, &Column::field) != front.end()) continue;
      only_parents = false;
      if (std::ranges::find(names, name) != names.end()) {
        r_.report.error(code::kEntityKey, item->span, in_quotes(name) + " is there twice", "remove one");
        continue;
      }
      if (check_key_field(text, made, columns, *item)) {
        names.push_back(name);
      } else {
        made.key_known = false;
      }
    }
    if (is_part && only_parents && !items.empty()) {
      r_.report.error(code::kEntityKey, node->span,
                      "the key of " + in_quotes(entity.name) + " holds only that of " + in_quotes(entity.parent) +
                          ", which all rows of one parent share",
                      "add a field that tells the items apart, or remove 'key' to number them");
    }
    return names;
  }

  bool check_key_field(const EntityText& text, const Made& made, const std::vector<Column>& columns, const Node& item) {
    const std::string& name = item.text;
    const std::string whole = made.entity.name + "." + name;
    const auto found = std::ranges::find(columns, name, &Column::field);
    const auto fail = [&](const std::string& why, const std::string& hint) {
      r_.report.error(code::kEntityKey, item.span, why, hint);
      return false;
    };
    if (found == columns.end()) {
      if (unclear_.contains(whole) || r_.broken_records.contains(made.entity.name)) return false;
      if (not_stored_.contains(whole)) {
        return fail(in_quotes(name) + " is not stored, so it cannot be part of the key", "remove 'stored: false'");
      }
      std::vector<std::string> names;
      for (const EntityField& field : text.fields) names.push_back(field.field.name);
      if (std::ranges::find(names, name) != names.end()) {
        return fail(in_quotes(name) + " is a list of rows, which cannot be part of the key", "use other fields");
      }
      return fail(in_quotes(made.entity.name) + " has no field " + in_quotes(name), did_you_mean(name, names));
    }
    if (!can_be_key(found->type)) {
      return fail(in_quotes(name) + " is of type " + spelled(found->type) + ", which cannot be part of a key",
                  "use strings, whole numbers, decimals, uuids, dates, timestamps, enums or bools");
    }
    if (found->optional) {
      return fail(in_quotes(name) + " may be left out, and a key is always there", "make it required");
    }
    if (found->source.kind == SourceKind::kConstant || found->source.kind == SourceKind::kTransform) {
      const bool constant = found->source.kind == SourceKind::kConstant;
      return fail(in_quotes(name) + (constant ? " is the same in every row" : " is made by a function") +
                      ", so it cannot be part of the key",
                  "use a field of the message, or one with 'from'");
    }
    if (found->since > made.entity.since) {
      return fail(in_quotes(name) + " came later than its table, and a key cannot change", "remove its 'since'");
    }
    return true;
  }

  void check_columns(const EntityText& text, const Made& made) {
    const Entity& entity = made.entity;
    if (entity.key.size() > kMostKeyFields) {
      r_.report.error(code::kEntityKey, text.declaration->key->span,
                      "the key of " + in_quotes(entity.name) + " has " + std::to_string(entity.key.size()) +
                          " fields, and PostgreSQL has room for " + std::to_string(kMostKeyFields),
                      "use fewer: one that tells the rows apart is enough");
    }
    std::map<std::string, std::size_t> seen;
    for (std::size_t i = 0; i < entity.columns.size(); ++i) {
      const auto [same, is_new] = seen.try_emplace(lower_case(entity.columns[i].name), i);
      if (is_new) continue;
      const std::size_t other = same->second;  // before this one, as those that nobody wrote are
      const bool is_copy = made.unwritten.contains(other);
      std::string why, hint = "write column: with another name";
      if (is_copy && entity.columns[other].source.kind == SourceKind::kPosition) {
        why = ": one holds the place in the list";
        hint += ", or name the field as the 'key'";
      } else if (is_copy) {
        why = ": one is copied from the key of " + in_quotes(entity.parent);
        hint += text.repeated_for != nullptr ? ", or remove it when it is the same value"
                                             : ", or stored: false when it is the same value";
      }
      r_.report
          .error(code::kTable, span_of(made, i),
                 "two columns of table " + in_quotes(entity.table) + " would be called " +
                     in_quotes(entity.columns[i].name) + why,
                 hint)
          .notes.push_back({span_of(made, other), is_copy ? "the table" : "the other one"});
    }
  }

  Span span_of(const Made& made, std::size_t column) const {
    const auto found = column_spans_.find(made.entity.name + "." + made.entity.columns[column].field);
    if (found != column_spans_.end() && !made.unwritten.contains(column)) return found->second;
    return r_.entity_texts.at(made.entity.name).declaration->key->span;
  }

  // How the tables fit together.

  void check_table_names() {
    std::map<std::string, const Entity*> seen;
    for (const auto& [name, made] : made_) {
      const auto [same, is_new] = seen.try_emplace(lower_case(made.entity.table), &made.entity);
      if (is_new) continue;
      r_.report
          .error(code::kTable, table_spans_.at(name),
                 "the entities " + in_quotes(same->second->name) + " and " + in_quotes(name) +
                     " would both have the table " + in_quotes(made.entity.table),
                 "write table: with another name")
          .notes.push_back({table_spans_.at(same->second->name), "the other one"});
    }
  }

  Span reference_span(const Entity& entity, const Column& column) const {
    for (const EntityField& field : r_.entity_texts.at(entity.name).fields) {
      if (field.field.name != column.field) continue;
      const Node* node = value_at(*field.value, "references");
      return node != nullptr ? node->span : field.key->span;
    }
    return r_.entity_texts.at(entity.name).declaration->key->span;
  }

  void check_references() {
    for (auto& [name, made] : made_) {
      for (Column& column : made.entity.columns) {
        if (column.references.empty()) continue;
        if (!check_reference(made.entity, column)) column.references.clear();
      }
    }
  }

  bool check_reference(const Entity& entity, const Column& column) {
    const auto found = made_.find(column.references);
    if (found == made_.end()) return false;
    const Entity& target = found->second.entity;
    const auto fail = [&](std::string_view code, const std::string& why, const std::string& hint) {
      r_.report.error(code, reference_span(entity, column), why, hint)
          .notes.push_back({r_.span_of(Section::kEntities, target.name), "the entity that is referred to"});
      return false;
    };
    if (!target.parent.empty()) {
      return fail(code::kReference,
                  "rows of " + in_quotes(target.name) + " belong to those of " + in_quotes(target.parent) +
                      " and are replaced with them, so nothing can refer to them",
                  "refer to " + in_quotes(target.parent));
    }
    if (!found->second.key_known) return false;
    if (target.key.size() != 1) {
      return fail(code::kReference,
                  "the key of " + in_quotes(target.name) + " has " + std::to_string(target.key.size()) +
                      " fields, and a reference is one",
                  "remove 'references', or give " + in_quotes(target.name) + " a key of one field");
    }
    const Column& key = target.columns[target.key.front()];
    if (!(key.type == column.type)) {
      return fail(code::kReference,
                  in_quotes(column.field) + " is of type " + spelled(column.type) + ", and the key of " +
                      in_quotes(target.name) + " of type " + spelled(key.type),
                  "make both the same");
    }
    if (column.since < target.since) {
      return fail(code::kSince,
                  in_quotes(column.field) + " is there since " + std::to_string(column.since) + ", and " +
                      in_quotes(target.name) + " only since " + std::to_string(target.since),
                  "write since: " + std::to_string(target.since) + " here too");
    }
    return true;
  }

  /// Parents and those that are referred to first, then by name.
  void put_in_order() {
    std::map<std::string, std::set<std::string>> waits_for;
    for (const auto& [name, made] : made_) {
      auto& needs = waits_for[name];
      if (!made.entity.parent.empty()) needs.insert(made.entity.parent);
      for (const Column& column : made.entity.columns) {
        if (!column.references.empty() && column.references != name) needs.insert(column.references);
      }
    }
    std::map<std::string, std::vector<std::string>> waited_for;
    std::map<std::string, std::size_t> missing;
    std::set<std::string> ready, placed;
    for (const auto& [name, needs] : waits_for) {
      missing[name] = needs.size();
      if (needs.empty()) ready.insert(name);
      for (const std::string& need : needs) waited_for[need].push_back(name);
    }
    while (!ready.empty()) {
      const std::string name = ready.extract(ready.begin()).value();
      r_.pipeline.entities.push_back(made_.at(name).entity);
      placed.insert(name);
      for (const std::string& other : waited_for[name]) {
        if (--missing[other] == 0) ready.insert(other);
      }
    }
    if (placed.size() < waits_for.size()) report_cycle(waits_for, placed);
  }

  void report_cycle(const std::map<std::string, std::set<std::string>>& waits_for,
                    const std::set<std::string>& placed) {
    std::vector<std::string> path;
    std::string at =
        std::ranges::find_if(waits_for, [&](const auto& each) { return !placed.contains(each.first); })->first;
    while (std::ranges::find(path, at) == path.end()) {
      path.push_back(at);
      const auto& needs = waits_for.at(at);
      at = *std::ranges::find_if(needs, [&](const std::string& need) { return !placed.contains(need); });
    }
    path.erase(path.begin(), std::ranges::find(path, at));
    std::string circle;
    for (const std::string& each : path) circle += each + " -> ";
    Span span = r_.span_of(Section::kEntities, at);
    for (std::size_t i = 0; i < path.size(); ++i) {
      const Entity& entity = made_.at(path[i]).entity;
      const std::string& next = path[(i + 1) % path.size()];
      for (const Column& column : entity.columns) {
        if (column.references == next) span = reference_span(entity, column);
      }
    }
    r_.report.error(code::kReferenceCycle, span, "entities refer to each other in a circle: " + circle + at,
                    "remove one of the 'references': no row could be the first");
  }

  Resolution& r_;
  std::map<std::string, Use> parents_;  // of entities that are items of a list
  std::map<std::string, Made> made_;
  std::set<std::string> failed_;  // could not be made, and why has been reported
  std::set<std::string> open_;
  bool too_deep_ = false;
  std::set<std::string> unclear_;     // "Order.city": something was reported about it
  std::set<std::string> not_stored_;  // "Order.customer"
  std::map<std::string, Span> table_spans_, column_spans_;
  std::map<std::string, std::pair<std::string, Span>> transforms_;  // name -> signature
  std::vector<std::tuple<std::string, Span, std::string>> transform_clashes_;
};

}  // namespace

void make_tables(Resolution& r) { Tables(r).run(); }

}  // namespace pipegen::gen
