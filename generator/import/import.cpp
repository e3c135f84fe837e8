#include "import/import.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>

#include "model/snake_case.hpp"
#include "schema/codes.hpp"
#include "schema/load.hpp"
#include "schema/names.hpp"
#include "schema/report.hpp"
#include "schema/values.hpp"

namespace pipegen::gen {

namespace {

bool is_letter_or_digit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

/// "order_key", "orderKey", "ORDER_KEY", "Order Key" as words in small letters.
std::vector<std::string> words_of(const std::string& name) {
  const bool shouts = std::ranges::none_of(name, [](char c) { return c >= 'a' && c <= 'z'; });
  std::string spaced = shouts ? lower_case(name) : snake_case(name);
  std::ranges::replace_if(
      spaced, [](char c) { return !is_letter_or_digit(c); }, '_');
  std::vector<std::string> words;
  for (const std::string& word : split(spaced, '_')) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

std::string field_name(const std::string& name) {
  std::string out;
  for (const std::string& word : words_of(name)) out += (out.empty() ? "" : "_") + word;
  return out.empty() || !(out.front() >= 'a' && out.front() <= 'z') ? "f_" + out : out;
}

std::string type_name(const std::string& name) {
  std::string out;
  for (std::string word : words_of(name)) {
    word.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(word.front())));
    out += word;
  }
  return out.empty() || !(out.front() >= 'A' && out.front() <= 'Z') ? "E" + out : out;
}

std::string in_double_quotes(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    static constexpr char kHex[] = "0123456789abcdef";
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += std::string("\\") + c;
    } else if (code < 0x20 || code == 0x7F) {
      out += std::string("\\x") + kHex[code >> 4] + kHex[code & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

/// A text that YAML gives back as it is, also inside of braces.
std::string yaml_text(const std::string& text) {
  const bool plain = !text.empty() && text.size() < 100 && std::isalpha(static_cast<unsigned char>(text.front())) &&
                     std::ranges::all_of(text, [](char c) { return is_letter_or_digit(c) || c == '_' || c == '-'; });
  static const std::set<std::string> kWords{"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  return plain && !kWords.contains(lower_case(text)) ? text : in_double_quotes(text);
}

/// JSON writes a character beyond U+FFFF as two escapes, which the YAML library refuses: as the one escape of YAML.
std::string without_surrogates(const std::string& json) {
  const auto escaped = [&](std::size_t at, unsigned first, unsigned last) -> std::optional<unsigned> {
    unsigned code = 0;
    if (json.compare(at, 2, "\\u") != 0 || at + 6 > json.size()) return std::nullopt;
    const char* const digits = json.data() + at + 2;
    const auto [end, wrong] = std::from_chars(digits, digits + 4, code, 16);
    const bool good = wrong == std::errc{} && end == digits + 4 && code >= first && code <= last;
    return good ? std::optional(code - first) : std::nullopt;
  };
  std::string out;
  for (std::size_t i = 0; i < json.size();) {
    const auto high = escaped(i, 0xD800, 0xDBFF);
    const auto low = high ? escaped(i + 6, 0xDC00, 0xDFFF) : std::nullopt;
    if (low) {
      char escape[11];
      std::snprintf(escape, sizeof escape, "\\U%08x", 0x10000 + (*high << 10) + *low);
      out += escape;
      i += 12;
    } else {
      const std::size_t length = json[i] == '\\' ? 2 : 1;
      out += json.substr(i, length);
      i += length;
    }
  }
  return out;
}

/// A map of the older layout. Its keys are known by several names each, in any case, with or without '_'.
class OldMap {
 public:
  OldMap(const Node& node, std::string what) : node_(node), what_(std::move(what)) {}

  /// The value of the first of the names that is there.
  const Node* find(std::initializer_list<const char*> names) {
    const Node* found = nullptr;
    for (std::size_t i = 0; node_.is_map() && i < node_.keys.size(); ++i) {
      const std::string key = folded(node_.keys[i].text);
      if (std::ranges::none_of(names, [&](const char* name) { return folded(name) == key; })) continue;
      known_.insert(i);
      if (found == nullptr && !node_.items[i].is_null()) found = &node_.items[i];
    }
    return found;
  }

  /// Warns about what nobody has asked for.
  void tell_unknown(Report& report) const {
    for (std::size_t i = 0; node_.is_map() && i < node_.keys.size(); ++i) {
      if (known_.contains(i)) continue;
      report.warning(code::kUnknownKey, node_.keys[i].span,
                     in_quotes(node_.keys[i].text) + " of " + what_ + " has no place in the schema, and is left out",
                     "see schemas/LANGUAGE.md for what can be said in its place");
    }
  }

 private:
  static std::string folded(std::string_view key) {
    std::string out;
    for (const char c : lower_case(key)) {
      if (c != '_' && c != '-') out += c;
    }
    return out;
  }

  const Node& node_;
  std::string what_;
  std::set<std::size_t> known_;
};

struct NewField {
  std::string old_name;
  std::string name;
  std::string type;      // without '?'
  std::string element;   // of a list: the name of the entity or record in it, if it is one
  std::string reads_as;  // "string", "int32", …: what defaults and limits are checked against
  bool nullable = true;
  bool in_key = false;
  bool of_parent = false;                                 // copied from the entity that this one is in a list of
  std::vector<std::pair<std::string, std::string>> more;  // further keys, as they are written
  Span span, type_span;
};

struct NewEntity {
  std::string name;
  std::string doc;
  std::string table;
  std::string on_conflict;
  std::vector<std::string> key;  // of fields
  std::vector<NewField> fields;
  bool has_table = false;
  Span span;

  NewField* find(const std::string& old_name) {
    for (NewField& field : fields) {
      if (field.old_name == old_name || field.name == field_name(old_name)) return &field;
    }
    return nullptr;
  }
};

class Importer {
 public:
  explicit Importer(Imported& out) : out_(out), values_(report_) {}

  void run(const std::map<std::string, std::string>& files, const std::string& pipeline) {
    for (const auto& [name, text] : files) read_file(name, text);
    if (!report_.has_errors() && entities_.empty()) {
      report_.error(code::kMissingKey, Span{files.empty() ? "" : files.begin()->first, 0, 0, 1},
                    "there is no entity to import", "a file of the older layout says entity: {name: Order, fields: …}");
    }
    bind();
    std::string schema;
    if (!report_.has_errors()) schema = write(pipeline);
    if (!report_.has_errors() && check(schema)) out_.schema = std::move(schema);
    for (Diagnostic& each : report_.sorted()) out_.diagnostics.push_back(std::move(each));
  }

 private:
  struct Reference {
    std::string entity, target;
    std::vector<const Node*> fields;
    Span span;
  };

  // Reading.

  void read_file(const std::string& name, std::string text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
    if (lower_case(name).ends_with(".json")) text = without_surrogates(text);
    const std::string& kept = out_.texts.insert_or_assign(name, std::move(text)).first->second;
    trees_.push_back(std::make_unique<Node>());
    Node& root = *trees_.back();
    if (!parse_syntax(kept, name, report_, root)) return;
    if (!root.is_map()) {
      report_.error(code::kShape, Span{name, 1, 1, 1}, "a file of the older layout is a map, this is " + shape_of(root),
                    "it says entity: {name: Order, fields: …}");
      return;
    }
    OldMap map(root, "the file");
    const Node* one = map.find({"entity"});
    const Node* many = map.find({"entities"});
    if (one == nullptr && many == nullptr) {
      read_entity(root, Span{name, 1, 1, 1});
      return;
    }
    map.tell_unknown(report_);
    if (one != nullptr) read_entity(*one, one->span);
    if (many == nullptr) return;
    if (!many->is_sequence()) {
      report_.error(code::kShape, many->span, "'entities' is a list, this is " + shape_of(*many));
      return;
    }
    for (const Node& item : many->items) read_entity(item, item.span);
  }

  std::string text_of(const Node* node, const std::string& what) {
    return node != nullptr ? values_.text(*node, what).value_or("") : "";
  }

  void read_entity(const Node& node, const Span& where) {
    if (!node.is_map()) {
      report_.error(code::kShape, node.span, "an entity is a map, this is " + shape_of(node),
                    "write entity: {name: Order, fields: …}");
      return;
    }
    OldMap map(node, "the entity");
    NewEntity entity;
    const Node* name = map.find({"name", "entity_name"});
    if (name == nullptr) {
      report_.error(code::kMissingKey, where, "the entity has no 'name'", "write name: Order");
      return;
    }
    const std::string old_name = text_of(name, "'name'");
    entity.name = type_name(old_name);
    entity.span = name->span;
    entity.doc = text_of(map.find({"description", "doc", "documentation", "comment"}), "'description'");
    const Node* fields = map.find({"fields", "columns", "properties", "attributes"});
    if (fields == nullptr || !(fields->is_sequence() || fields->is_map())) {
      report_.error(code::kMissingKey, name->span, "entity " + in_quotes(old_name) + " has no list of 'fields'",
                    "write fields: [{name: order_key, type: String}]");
      return;
    }
    for (std::size_t i = 0; i < fields->items.size(); ++i) {
      read_field(fields->is_map() ? &fields->keys[i] : nullptr, fields->items[i], entity);
    }
    std::vector<const Node*> key = list_at(map.find({"primary_key", "key", "keys"}), "'primary_key'");
    const Node* table = map.find({"table", "table_name"});
    const Node* persistence = map.find({"persistence", "storage", "database"});
    if (persistence != nullptr && persistence->is_map()) {
      read_persistence(*persistence, entity, table, key);
    } else if (persistence != nullptr) {
      report_.error(code::kShape, persistence->span, "'persistence' is a map, this is " + shape_of(*persistence),
                    "write persistence: {table: orders, primary_key: [order_key]}");
    }
    read_key(key, entity);
    entity.table = text_of(table, "'table'");
    entity.has_table = persistence != nullptr || table != nullptr || !entity.key.empty();
    map.tell_unknown(report_);
    const auto same = std::ranges::find_if(
        entities_, [&](const NewEntity& each) { return lower_case(each.name) == lower_case(entity.name); });
    if (same != entities_.end()) {
      report_.error(code::kDuplicate, entity.span, "entity " + in_quotes(entity.name) + " is there twice")
          .notes.push_back({same->span, "the other one"});
      return;
    }
    entities_.push_back(std::move(entity));
  }

  std::vector<const Node*> list_at(const Node* node, const std::string& what) {
    return node != nullptr ? values_.list(*node, what) : std::vector<const Node*>{};
  }

  void read_persistence(const Node& node, NewEntity& entity, const Node*& table, std::vector<const Node*>& key) {
    OldMap map(node, "'persistence'");
    if (const Node* own = map.find({"table", "table_name", "collection"})) table = own;
    if (const Node* own = map.find({"primary_key", "key", "keys", "primary_keys", "id"})) {
      key = list_at(own, "'primary_key'");
    }
    if (const Node* conflict = map.find({"on_conflict", "conflict", "conflict_strategy", "write_mode", "mode"})) {
      read_conflict(*conflict, entity);
    }
    if (const Node* upsert = map.find({"upsert"})) {
      const auto value = values_.boolean(*upsert, "'upsert'");
      if (value && entity.on_conflict.empty()) entity.on_conflict = *value ? "update" : "reject";
    }
    read_indexes(map.find({"indexes", "indices", "index"}), false, entity);
    read_indexes(map.find({"unique", "unique_keys", "unique_constraints", "uniques"}), true, entity);
    const Node* foreign = map.find({"foreign_keys", "references"});
    if (foreign != nullptr && foreign->is_sequence()) {
      for (const Node& item : foreign->items) read_foreign_key(item, entity);
    } else if (foreign != nullptr) {
      read_foreign_key(*foreign, entity);
    }
    map.tell_unknown(report_);
  }

  void read_conflict(const Node& node, NewEntity& entity) {
    static const std::map<std::string, std::string> kMeanings{
        {"update", "update"},     {"upsert", "update"},    {"replace", "update"}, {"merge", "update"},
        {"overwrite", "update"},  {"ignore", "ignore"},    {"skip", "ignore"},    {"nothing", "ignore"},
        {"do_nothing", "ignore"}, {"reject", "reject"},    {"fail", "reject"},    {"error", "reject"},
        {"abort", "reject"},      {"do_update", "update"}, {"insert", "reject"}};
    const auto text = values_.text(node, "'on_conflict'");
    if (!text) return;
    const auto found = kMeanings.find(field_name(*text));
    if (found != kMeanings.end()) {
      entity.on_conflict = found->second;
    } else {
      report_.error(code::kValue, node.span, in_quotes(*text) + " is nothing that a row could do on a conflict",
                    "write update, ignore or reject");
    }
  }

  /// [a, b], [[a, b]] or [{columns: [a], unique: true}].
  void read_indexes(const Node* node, bool unique, NewEntity& entity) {
    if (node == nullptr) return;
    const std::vector<Node> alone{*node};
    for (const Node& item : node->is_sequence() ? node->items : alone) {
      bool is_unique = unique;
      std::vector<const Node*> fields;
      if (item.is_map()) {
        OldMap map(item, "the index");
        fields = list_at(map.find({"columns", "fields", "column", "field"}), "'columns'");
        if (const Node* says = map.find({"unique"})) is_unique = values_.boolean(*says, "'unique'").value_or(unique);
        map.find({"name"});  // ours have names of their own
        map.tell_unknown(report_);
      } else {
        fields = list_at(&item, "an index");
      }
      if (fields.size() > 1) {
        report_.warning(code::kNotSupported, item.span, "an index over several columns has no place in the schema",
                        "it is left out: make it by hand");
        continue;
      }
      for (const Node* field : fields) {
        if (NewField* found = field_of(*field, entity)) add(*found, is_unique ? "unique" : "index", "true");
      }
    }
  }

  void read_foreign_key(const Node& node, NewEntity& entity) {
    if (!node.is_map()) {
      report_.error(code::kShape, node.span, "a foreign key is a map, this is " + shape_of(node),
                    "write {columns: [customer_key], references: Customer}");
      return;
    }
    OldMap map(node, "the foreign key");
    const auto fields = list_at(map.find({"columns", "fields", "column", "field"}), "'columns'");
    const Node* target = map.find({"references", "entity", "table", "referenced_entity", "referenced_table", "target"});
    map.find({"name", "referenced_columns", "referenced_column", "on_delete", "on_update"});
    map.tell_unknown(report_);
    if (target == nullptr || fields.empty()) {
      report_.error(code::kMissingKey, node.span, "the foreign key does not say what it is, or where it leads",
                    "write {columns: [customer_key], references: Customer}");
      return;
    }
    add_reference(entity, fields, *target);
  }

  void add_reference(const NewEntity& entity, const std::vector<const Node*>& fields, const Node& target) {
    std::string name;
    if (target.is_map()) {
      OldMap map(target, "the reference");
      name = text_of(map.find({"entity", "table", "name", "references"}), "'entity'");
      map.find({"column", "columns", "field", "fields", "on_delete", "on_update"});
      map.tell_unknown(report_);
    } else {
      name = text_of(&target, "the reference");
      name = name.substr(0, name.find_first_of(".( "));  // "Customer.customer_key", "customers(id)"
    }
    references_.push_back({entity.name, name, fields, target.span});
  }

  NewField* field_of(const Node& name, NewEntity& entity) {
    NewField* found = entity.find(name.text);
    if (found != nullptr) return found;
    std::vector<std::string> names;
    for (const NewField& field : entity.fields) names.push_back(field.old_name);
    report_.error(code::kUnknownField, name.span, in_quotes(entity.name) + " has no field " + in_quotes(name.text),
                  did_you_mean(name.text, names));
    return nullptr;
  }

  void read_key(const std::vector<const Node*>& key, NewEntity& entity) {
    for (const Node* item : key) {
      NewField* field = field_of(*item, entity);
      if (field != nullptr && std::ranges::find(entity.key, field->name) == entity.key.end()) {
        entity.key.push_back(field->name);
        field->in_key = true;
      }
    }
    if (!key.empty()) return;
    for (const NewField& field : entity.fields) {
      if (field.in_key) entity.key.push_back(field.name);
    }
  }

  static void add(NewField& field, const std::string& key, const std::string& value) {
    const auto same = std::ranges::find(field.more, key, &std::pair<std::string, std::string>::first);
    if (same == field.more.end()) field.more.emplace_back(key, value);
  }

  /// `key`: the name, where fields are a map.
  void read_field(const Node* key, const Node& node, NewEntity& entity) {
    NewField field;
    field.span = key != nullptr ? key->span : node.span;
    if (key != nullptr) field.old_name = key->text;
    if (node.is_scalar()) {
      const std::size_t colon = node.text.find(':');
      if (key == nullptr && colon == std::string::npos) {
        report_.error(code::kShape, node.span, "a field is a map with 'name' and 'type'",
                      "write {name: order_key, type: String}");
        return;
      }
      if (key == nullptr) field.old_name = node.text.substr(0, colon);
      Node type = node;
      if (key == nullptr) type.text = node.text.substr(std::min(node.text.size(), colon + 1));
      read_type(type, nullptr, entity, field);
      finish_field(std::move(field), entity);
      return;
    }
    if (!node.is_map()) {
      report_.error(code::kShape, field.span, "a field is a map with 'name' and 'type', this is " + shape_of(node),
                    "write {name: order_key, type: String}");
      return;
    }
    OldMap map(node, "the field");
    if (const Node* name = map.find({"name", "field_name"})) {
      field.old_name = text_of(name, "'name'");
      field.span = name->span;
    }
    const Node* type = map.find({"type", "data_type", "field_type"});
    if (field.old_name.empty() || type == nullptr) {
      report_.error(
          code::kMissingKey, field.span,
          field.old_name.empty() ? "a field has no 'name'" : "field " + in_quotes(field.old_name) + " has no 'type'",
          "write {name: order_key, type: String}");
      return;
    }
    if (const Node* says = map.find({"nullable", "optional", "is_nullable"})) {
      field.nullable = values_.boolean(*says, "'nullable'").value_or(true);
    }
    if (const Node* says = map.find({"required", "not_null", "mandatory"})) {
      field.nullable = !values_.boolean(*says, "'required'").value_or(false);
    }
    if (const Node* says = map.find({"primary_key", "is_primary_key", "primary", "key", "id"})) {
      field.in_key = values_.boolean(*says, "'primary_key'").value_or(false);
    }
    const std::string doc = text_of(map.find({"description", "doc", "documentation", "comment"}), "'description'");
    if (!doc.empty()) add(field, "doc", yaml_text(doc));
    read_type(*type, &map, entity, field);
    read_limits(map, field);
    if (const Node* column = map.find({"column", "column_name", "db_column"})) {
      const std::string text = text_of(column, "'column'");
      if (!text.empty() && text != field_name(field.old_name)) add(field, "column", yaml_text(text));
    }
    if (const Node* says = map.find({"index", "indexed", "is_indexed"})) {
      if (values_.boolean(*says, "'index'").value_or(false)) add(field, "index", "true");
    }
    if (const Node* says = map.find({"unique", "is_unique"})) {
      if (values_.boolean(*says, "'unique'").value_or(false)) add(field, "unique", "true");
    }
    if (const Node* says = map.find({"sensitive", "pii", "secret"})) {
      if (values_.boolean(*says, "'sensitive'").value_or(false)) add(field, "sensitive", "true");
    }
    if (const Node* target = map.find({"references", "foreign_key", "reference"})) {
      own_names_.push_back(std::make_unique<Node>());
      own_names_.back()->kind = Node::Kind::kScalar;
      own_names_.back()->text = field.old_name;
      own_names_.back()->span = field.span;
      add_reference(entity, {own_names_.back().get()}, *target);
    }
    map.tell_unknown(report_);
    finish_field(std::move(field), entity);
  }

  void finish_field(NewField field, NewEntity& entity) {
    field.name = field_name(field.old_name);
    if (field.name != field.old_name) {
      // The wire and the table keep their names.
      add(field, "json", yaml_text(field.old_name));
      if (is_value_name(field.old_name)) add(field, "column", yaml_text(field.old_name));
    }
    if (NewField* same = entity.find(field.old_name)) {
      report_.error(code::kDuplicate, field.span, "field " + in_quotes(field.old_name) + " is there twice")
          .notes.push_back({same->span, "the other one"});
      return;
    }
    entity.fields.push_back(std::move(field));
  }

  static const std::map<std::string, std::string>& types() {
    static const std::map<std::string, std::string> kTypes{{"string", "string"},
                                                           {"str", "string"},
                                                           {"text", "string"},
                                                           {"varchar", "string"},
                                                           {"nvarchar", "string"},
                                                           {"char", "string"},
                                                           {"character", "string"},
                                                           {"clob", "string"},
                                                           {"integer", "int32"},
                                                           {"int", "int32"},
                                                           {"int4", "int32"},
                                                           {"int32", "int32"},
                                                           {"short", "int32"},
                                                           {"smallint", "int32"},
                                                           {"byte", "int32"},
                                                           {"tinyint", "int32"},
                                                           {"long", "int64"},
                                                           {"bigint", "int64"},
                                                           {"int8", "int64"},
                                                           {"int64", "int64"},
                                                           {"decimal", "decimal"},
                                                           {"numeric", "decimal"},
                                                           {"number", "decimal"},
                                                           {"bigdecimal", "decimal"},
                                                           {"money", "decimal"},
                                                           {"double", "float64"},
                                                           {"float", "float64"},
                                                           {"real", "float64"},
                                                           {"float64", "float64"},
                                                           {"float32", "float64"},
                                                           {"doubleprecision", "float64"},
                                                           {"boolean", "bool"},
                                                           {"bool", "bool"},
                                                           {"date", "date"},
                                                           {"localdate", "date"},
                                                           {"datetime", "timestamp"},
                                                           {"timestamp", "timestamp"},
                                                           {"timestamptz", "timestamp"},
                                                           {"instant", "timestamp"},
                                                           {"offsetdatetime", "timestamp"},
                                                           {"zoneddatetime", "timestamp"},
                                                           {"uuid", "uuid"},
                                                           {"guid", "uuid"},
                                                           {"json", "json"},
                                                           {"jsonb", "json"},
                                                           {"object", "json"},
                                                           {"map", "json"},
                                                           {"any", "json"},
                                                           {"bytes", "bytes"},
                                                           {"binary", "bytes"},
                                                           {"blob", "bytes"},
                                                           {"bytea", "bytes"}};
    return kTypes;
  }

  static std::string folded_type(std::string_view text) {
    std::string out;
    for (const char c : lower_case(text)) {
      if (is_letter_or_digit(c)) out += c;
    }
    return out;
  }

  /// `map`: the rest of the field, which may say more about the type.
  void read_type(const Node& node, OldMap* map, const NewEntity& entity, NewField& field) {
    const auto given = values_.text(node, "'type'");
    field.type_span = node.span;
    if (!given) return;
    std::string text = *given;
    std::erase(text, ' ');
    if (text.ends_with('?')) text.pop_back();
    if (text.find('(') != std::string::npos && text.find(')') == std::string::npos) {
      report_.error(code::kType, node.span, in_quotes(*given) + " has no ')'",
                    "inside of { } the comma ends the value: put the type in quotes");
      return;
    }
    const Node* items = map != nullptr ? map->find({"items", "item_type", "element_type", "of"}) : nullptr;
    // List<X>, X[], Array with items: X.
    std::string inner;
    const std::string word = folded_type(text.substr(0, text.find_first_of("<[(")));
    const bool is_list = word == "list" || word == "array" || word == "set" || word == "collection";
    if (text.ends_with("[]")) {
      inner = text.substr(0, text.size() - 2);
    } else if (is_list) {
      const std::size_t open = text.find_first_of("<[(");
      if (open != std::string::npos && text.size() > open + 1) inner = text.substr(open + 1, text.size() - open - 2);
      if (items != nullptr && items->is_scalar()) inner = items->text;
      if (items != nullptr && items->is_map()) {
        OldMap item(*items, "'items'");
        inner = text_of(item.find({"type", "entity", "name", "ref"}), "'type'");
        item.tell_unknown(report_);
      }
      if (inner.empty()) {
        report_.error(code::kType, node.span, "it is not said what is in the list " + in_quotes(field.old_name),
                      "write type: List<String>");
        return;
      }
    }
    if (!inner.empty()) {
      const std::string element = scalar_type(inner, nullptr, entity, field);
      field.type = "list<" + (element.empty() ? inner : element) + ">";
      field.reads_as = "list";
      if (element.empty()) field.element = inner;
      return;
    }
    field.type = scalar_type(text, map, entity, field);
    field.reads_as = field.type;
    if (field.type.empty()) field.element = text;
  }

  /// Empty when it is no type that everybody knows.
  std::string scalar_type(const std::string& text, OldMap* map, const NewEntity& entity, NewField& field) {
    const std::size_t open = text.find('(');
    const std::string word = folded_type(text.substr(0, open));
    std::vector<std::string> numbers;
    if (open != std::string::npos)
      numbers = split(std::string_view(text).substr(open + 1, text.find(')') - open - 1), ',');
    const auto number = [&](std::size_t index) {
      return index < numbers.size() ? to_int64(numbers[index]) : std::nullopt;
    };
    if (word == "enum" || (map != nullptr && word == "string")) {
      const Node* listed = map != nullptr ? map->find({"values", "enum", "allowed_values", "enum_values"}) : nullptr;
      if (listed != nullptr) return enum_type(*listed, entity, field);
      if (word == "enum") return "";
    }
    const auto found = types().find(word);
    if (found == types().end()) return "";
    if (found->second == "decimal") {
      const Node* precision = map != nullptr ? map->find({"precision"}) : nullptr;
      const Node* scale = map != nullptr ? map->find({"scale"}) : nullptr;
      std::optional<std::int64_t> digits = number(0), behind = number(1);
      if (precision != nullptr) digits = values_.integer(*precision, "'precision'", 1, 38);
      if (scale != nullptr) behind = values_.integer(*scale, "'scale'", 0, 38);
      if (!digits) {
        report_.warning(
            code::kType, field.type_span,
            "it is not said how many digits " + in_quotes(field.old_name) + " has: it becomes decimal(38,10)",
            "write decimal(15,2), with what it needs, into the schema");
        digits = 38;
        behind = behind.value_or(10);
      }
      return "decimal(" + std::to_string(*digits) + "," + std::to_string(behind.value_or(0)) + ")";
    }
    if (found->second == "string" && number(0)) add(field, "max_length", std::to_string(*number(0)));
    return found->second;
  }

  std::string enum_type(const Node& listed, const NewEntity& entity, const NewField& field) {
    std::vector<std::string> listed_values;
    for (const Node* value : values_.list(listed, "'values'")) {
      if (!is_enum_value(value->text)) {
        report_.warning(
            code::kBadName, value->span,
            in_quotes(value->text) + " is no value of an enum, so " + in_quotes(field.old_name) + " becomes a string",
            "letters, digits, '_' and '-', the first a letter");
        return "string";
      }
      listed_values.push_back(value->text);
    }
    const std::string name = entity.name + type_name(field.old_name);
    enums_[name] = std::move(listed_values);
    return name;
  }

  void read_limits(OldMap& map, NewField& field) {
    const bool is_text = field.reads_as == "string" || field.reads_as == "bytes" || field.reads_as == "list";
    const bool is_whole = field.reads_as == "int32" || field.reads_as == "int64";
    const bool is_numeric = is_whole || field.reads_as == "float64" || field.reads_as.starts_with("decimal");
    const auto limit = [&](std::initializer_list<const char*> names, const std::string& key, bool fits) {
      const Node* node = map.find(names);
      if (node == nullptr) return;
      if (!fits || !node->is_scalar() || !is_number(node->text)) {
        report_.warning(code::kConstraintType, node->span,
                        in_quotes(key) + " does not fit " + in_quotes(field.old_name) + ", and is left out");
      } else {
        add(field, key, node->text);
      }
    };
    limit({"max_length", "length", "size", "max_size"}, "max_length", is_text);
    limit({"min_length"}, "min_length", is_text);
    limit({"min", "minimum", "min_value"}, "min", is_numeric);
    limit({"max", "maximum", "max_value"}, "max", is_numeric);
    map.find({"precision", "scale"});
    if (const Node* pattern = map.find({"pattern", "regex"})) {
      const std::string text = text_of(pattern, "'pattern'");
      if (field.reads_as == "string" && !text.empty()) add(field, "pattern", yaml_text(text));
    }
    const Node* value = map.find({"default", "default_value"});
    if (value == nullptr) return;
    const bool is_enum = enums_.contains(field.type);
    const bool fits = value->is_scalar() &&
                      (field.reads_as == "bool" ? value->text == "true" || value->text == "false"
                       : is_whole               ? is_integer(value->text)
                       : is_numeric             ? is_number(value->text)
                       : is_enum ? std::ranges::find(enums_[field.type], value->text) != enums_[field.type].end()
                                 : field.reads_as == "string");
    if (!fits) {
      report_.warning(code::kDefault, value->span,
                      "the default does not fit " + in_quotes(field.old_name) + ", and is left out",
                      "write one into the schema, or make the field optional");
    } else {
      add(field, "default", field.reads_as == "string" ? in_double_quotes(value->text) : value->text);
    }
  }

  // Names of others.

  void bind() {
    std::ranges::sort(entities_, {}, &NewEntity::name);
    for (NewEntity& entity : entities_) {
      for (NewField& field : entity.fields) bind_type(entity, field);
    }
    for (const auto& [part, whole] : parts_) copy_parents_key(*entity_called(part), *entity_called(whole));
    for (const Reference& reference : references_) bind_reference(reference);
    for (const NewEntity& entity : entities_) {
      if (!entity.has_table || !entity.key.empty() || parts_.contains(entity.name)) continue;
      report_.error(code::kEntityKey, entity.span, in_quotes(entity.name) + " has no primary key",
                    "write persistence: {primary_key: [order_key]}");
    }
  }

  NewEntity* entity_called(const std::string& name) {
    for (NewEntity& entity : entities_) {
      if (entity.name == type_name(name) || (!entity.table.empty() && lower_case(entity.table) == lower_case(name)))
        return &entity;
    }
    return nullptr;
  }

  void bind_type(NewEntity& entity, NewField& field) {
    if (field.element.empty()) return;
    const NewEntity* target = entity_called(field.element);
    if (target == nullptr) {
      std::vector<std::string> names{"String",  "Integer", "Long",   "Decimal", "Date", "DateTime", "Timestamp",
                                     "Boolean", "UUID",    "Double", "Float",   "Json", "Bytes",    "List"};
      for (const NewEntity& each : entities_) names.push_back(each.name);
      std::string hint = did_you_mean(field.element, names);
      if (hint.empty())
        hint =
            "there are String, Integer, Long, Decimal, Date, DateTime, Timestamp, Boolean, UUID, "
            "Double, Float, Json, Bytes, List<…> and the names of entities";
      report_.error(code::kUnknownName, field.type_span, "no type is called " + in_quotes(field.element), hint);
      return;
    }
    if (field.type.empty()) {
      field.type = target->name;
      if (!target->has_table) return;
      report_.error(code::kEntityUse, field.type_span,
                    in_quotes(target->name) + " has a table, so it can be in another entity only as a list",
                    "give the field the type of its key, or remove 'persistence' there to store it as JSON");
      return;
    }
    field.type = "list<" + target->name + ">";
    if (!target->has_table) return;
    const auto [other, is_new] = parts_.try_emplace(target->name, entity.name);
    if (!is_new) {
      report_.error(code::kEntityUse, field.type_span,
                    in_quotes(target->name) + " is in a list of " + in_quotes(other->second) + " already",
                    "its rows have one parent: make another entity for this list");
    }
  }

  /// The older layout gives the rows of a list their parent's key as fields: in ours it is copied from the parent.
  void copy_parents_key(NewEntity& part, const NewEntity& whole) {
    for (const NewField& field : whole.fields) {
      if (std::ranges::find(whole.key, field.name) == whole.key.end()) continue;
      for (NewField& own : part.fields) {
        if (own.type != field.type || (own.name != field.name && !refers_to(part, own, whole))) continue;
        own.nullable = false;
        own.of_parent = true;
        std::erase_if(own.more, [](const auto& each) {
          return each.first != "doc" && each.first != "column" && each.first != "index" && each.first != "unique";
        });
        add(own, "parent", field.name);
        break;
      }
    }
    const bool only_parents =
        std::ranges::all_of(part.key, [&](const std::string& name) { return part.find(name)->of_parent; });
    if (only_parents) part.key.clear();  // numbered
  }

  bool refers_to(const NewEntity& part, const NewField& field, const NewEntity& whole) {
    return std::ranges::any_of(references_, [&](const Reference& reference) {
      return reference.entity == part.name && entity_called(reference.target) == &whole &&
             reference.fields.size() == 1 && field_name(reference.fields.front()->text) == field.name;
    });
  }

  void bind_reference(const Reference& reference) {
    NewEntity* entity = entity_called(reference.entity);
    NewEntity* target = entity_called(reference.target);
    if (entity == nullptr) return;
    const auto leave_out = [&](const std::string& why) {
      report_.warning(code::kReference, reference.span, why + ", so it is left out",
                      "see 'references' in schemas/LANGUAGE.md");
    };
    const auto part = entity == nullptr ? parts_.end() : parts_.find(entity->name);
    if (part != parts_.end() && target != nullptr && part->second == target->name) return;  // its rows belong there
    if (target == nullptr) {
      leave_out("the foreign key leads to " + in_quotes(reference.target) + ", which is not imported");
    } else if (reference.fields.size() != 1 || target->key.size() != 1) {
      leave_out("a foreign key of several fields has no place in the schema");
    } else if (parts_.contains(target->name)) {
      leave_out("rows of " + in_quotes(target->name) +
                " are replaced with those they belong to, and nothing can refer to them");
    } else if (NewField* field = field_of(*reference.fields.front(), *entity)) {
      const NewField* key = target->find(target->key.front());
      if (key != nullptr && key->type == field->type) {
        add(*field, "references", target->name);
      } else {
        leave_out("the foreign key " + in_quotes(field->old_name) + " and what it leads to have different types");
      }
    }
  }

  // Writing.

  std::string written(const NewField& field) const {
    const std::string type = field.type + (field.nullable && !field.in_key && !has_default(field) ? "?" : "");
    if (field.more.empty()) return type;
    std::string out = "{type: " + (type.find_first_of(",[]{}") == std::string::npos ? type : "\"" + type + "\"");
    for (const auto& [key, value] : field.more) out += ", " + key + ": " + value;
    return out + "}";
  }

  static bool has_default(const NewField& field) {
    return std::ranges::find(field.more, "default", &std::pair<std::string, std::string>::first) != field.more.end();
  }

  void write_fields(const NewEntity& entity, std::string& out) const {
    out += "    fields:\n";
    for (const NewField& field : entity.fields) out += "      " + field.name + ": " + written(field) + "\n";
  }

  std::string write(const std::string& pipeline) {
    std::string types, tables, roots;
    for (const auto& [name, list] : enums_) {
      types += "  " + name + ": {enum: [";
      for (std::size_t i = 0; i < list.size(); ++i) types += (i ? ", " : "") + yaml_text(list[i]);
      types += "]}\n";
    }
    for (const NewEntity& entity : entities_) {
      std::string& out = entity.has_table ? tables : types;
      out += "  " + entity.name + ":\n";
      if (!entity.doc.empty()) out += "    doc: " + yaml_text(entity.doc) + "\n";
      if (entity.has_table) {
        ++out_.entities;
        const bool is_part = parts_.contains(entity.name);
        if (!entity.table.empty() && entity.table != snake_case(entity.name))
          out += "    table: " + yaml_text(entity.table) + "\n";
        if (!entity.key.empty()) {
          out += "    key: [";
          for (std::size_t i = 0; i < entity.key.size(); ++i) out += (i ? ", " : "") + entity.key[i];
          out += "]\n";
        }
        if (!entity.on_conflict.empty() && !is_part) out += "    on_conflict: " + entity.on_conflict + "\n";
        if (!is_part) roots += (roots.empty() ? "" : ", ") + entity.name;
      }
      write_fields(entity, out);
    }
    std::string out = "pipegen: v1\npipeline: " + pipeline + "\n";
    if (!types.empty()) out += "\ntypes:\n" + types;
    if (!tables.empty()) out += "\nentities:\n" + tables;
    if (!roots.empty()) out += "\ningest:\n  entities: [" + roots + "]\n";
    return out;
  }

  /// What only the whole schema can tell is told in its own words, at its own lines.
  bool check(const std::string& schema) {
    class One : public FileReader {
     public:
      explicit One(const std::string& text) : text_(text) {}
      std::optional<std::string> read(const std::filesystem::path&, std::string&) override { return text_; }

     private:
      const std::string& text_;
    } files(schema);
    Loaded loaded = load_pipeline(files, "(the schema)");
    for (Diagnostic& each : loaded.diagnostics) {
      if (each.severity == Severity::kError) out_.diagnostics.push_back(std::move(each));
    }
    out_.texts.merge(loaded.texts);
    return loaded.pipeline.has_value();
  }

  Imported& out_;
  Report report_;
  Values values_;
  std::vector<std::unique_ptr<Node>> trees_, own_names_;
  std::vector<NewEntity> entities_;
  std::vector<Reference> references_;
  std::map<std::string, std::vector<std::string>> enums_;
  std::map<std::string, std::string> parts_;  // entity -> the one whose list it is in
};

}  // namespace

Imported import_entities(const std::map<std::string, std::string>& files, const std::string& pipeline) {
  Imported out;
  Importer(out).run(files, pipeline);
  return out;
}

}  // namespace pipegen::gen
