#include "schema/declarations.hpp"

#include <algorithm>
#include <functional>
#include <optional>

#include "schema/codes.hpp"
#include "schema/names.hpp"
#include "schema/values.hpp"

namespace pipegen::gen {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostFiles = 1000;

struct SectionInfo {
  Section section;
  const char* key;
  const char* word;
  bool (*valid)(std::string_view);
  const char* form;
};

constexpr SectionInfo kSections[] = {
    {Section::kTypes, "types", "type", is_type_name, "letters and digits, the first a capital: EventHeader"},
    {Section::kEvents, "events", "event", is_type_name, "letters and digits, the first a capital: TextProcessedEvent"},
    {Section::kStreams, "streams", "stream", is_resource_name, "letters, digits, '_' and '-': TTS_JOBS"},
    {Section::kBuckets, "buckets", "bucket", is_resource_name, "letters, digits, '_' and '-': TEXT_FILES"},
    {Section::kStages, "stages", "stage", is_kebab_name,
     "small letters, digits and '-', the first a letter: pdf-to-png"},
    {Section::kEntities, "entities", "entity", is_type_name, "letters and digits, the first a capital: LineItem"},
};

/// Whose names are those of records and enums.
constexpr Section kRecordSections[] = {Section::kTypes, Section::kEvents, Section::kEntities};

class Reader {
 public:
  Reader(FileReader& files, fs::path root, Report& report, std::map<std::string, std::string>& texts)
      : files_(files), root_(std::move(root)), report_(report), texts_(texts) {
    for (const SectionInfo& info : kSections) out_.tables[info.section];
  }

  Declarations run() {
    read(root_, nullptr);
    for (const auto& file : out_.files) declare(*file);
    // Wherever generation starts from, a file is called the same.
    if (!out_.files.empty()) {
      const SourceFile& center = out_.pipeline.file != nullptr ? *out_.pipeline.file : *out_.files.front();
      for (const auto& file : out_.files) file->origin = relative(file->path, center.path);
    }
    return std::move(out_);
  }

 private:
  /// `from`: the item of `import:` that names the file; nullptr for the root.
  void read(const fs::path& path, const Node* from) {
    const fs::path normal = path.lexically_normal();
    if (!seen_.insert(files_.identity(path)).second) return;
    // "./a.yaml" given by the user is shown as "./b.yaml" for its neighbours, too.
    const bool dotted = root_.generic_string().starts_with("./") && normal.is_relative() && *normal.begin() != "..";
    const std::string name = from == nullptr ? path.generic_string() : (dotted ? "./" : "") + normal.generic_string();
    const Span where = from != nullptr ? from->span : Span{name, 0, 0, 1};

    std::string why;
    std::optional<std::string> text;
    if (seen_.size() > kMostFiles) {
      why = "more than " + std::to_string(kMostFiles) + " files";
    } else {
      text = files_.read(from == nullptr ? path : normal, why);
    }
    if (!text) {
      report_.error(code::kUnreadable, where, in_quotes(name) + " cannot be read: " + why,
                    from != nullptr ? "paths of 'import:' are relative to the file they stand in" : "");
      out_.complete = false;
      return;
    }
    if (text->starts_with("\xEF\xBB\xBF")) text->erase(0, 3);
    auto file = std::make_unique<SourceFile>();
    file->name = name;
    file->path = normal;
    const std::string& kept = texts_.insert_or_assign(name, std::move(*text)).first->second;
    if (!parse_syntax(kept, name, report_, file->root)) {
      out_.complete = false;
      return;
    }
    const SourceFile& added = *out_.files.emplace_back(std::move(file));
    for (std::size_t i = 0; i < added.root.keys.size(); ++i) {
      if (added.root.keys[i].text == "import") read_imports(added.root.items[i], path);
    }
  }

  /// `file` as seen from the folder of `center`.
  std::string relative(const fs::path& file, const fs::path& center) const {
    const auto seen_from = [](const fs::path& path, const fs::path& folder) {
      return folder.empty() ? path : path.lexically_relative(folder);
    };
    fs::path result = seen_from(file, center.parent_path());
    if (result.empty()) {  // "tts.yaml" from "..": only the whole paths tell
      result = seen_from(files_.identity(file), fs::path(files_.identity(center)).parent_path());
    }
    return result.empty() ? file.generic_string() : result.generic_string();
  }

  void read_imports(const Node& imports, const fs::path& importer) {
    if (imports.is_null()) return;
    for (const Node* item : Values(report_).list(imports, "'import'")) {
      const fs::path target(item->text);
      if (item->text.empty() || target.is_absolute() || item->text.find('\\') != std::string::npos) {
        report_.error(code::kImport, item->span, in_quotes(item->text) + " is no relative path",
                      "name the file as seen from this one, with '/' between folders");
        out_.complete = false;
        continue;
      }
      if (item->text.find("://") != std::string::npos) {
        report_.error(code::kImport, item->span, "only files can be imported",
                      "keep a copy of it in the schema's folder");
        out_.complete = false;
        continue;
      }
      read(importer.parent_path() / target, item);
    }
    if (!imports.is_scalar() && !imports.is_sequence()) out_.complete = false;
  }

  void declare(const SourceFile& file) {
    static const std::vector<std::string> kKeys{"pipegen", "pipeline", "workflow_id", "json_names",
                                                "import",  "types",    "streams",     "buckets",
                                                "events",  "stages",   "ingest",      "entities"};
    const std::size_t errors = report_.errors();
    const MapView sections(report_, file.root, "a schema", Span{file.name, 1, 1, 1}, kKeys, {"workflows"});
    // Whatever stands under a key with a typo is missing elsewhere.
    if (report_.errors() != errors) out_.complete = false;
    check_header(file);
    single(file, "pipeline", out_.pipeline);
    single(file, "workflow_id", out_.workflow_id);
    single(file, "json_names", out_.json_names);
    single(file, "ingest", out_.ingest);
    for (const SectionInfo& info : kSections) {
      for (std::size_t i = 0; i < file.root.keys.size(); ++i) {
        if (file.root.keys[i].text == info.key) declare_all(file, info, file.root.items[i]);
      }
    }
  }

  void check_header(const SourceFile& file) {
    for (std::size_t i = 0; i < file.root.keys.size(); ++i) {
      if (file.root.keys[i].text != "pipegen") continue;
      const Node& value = file.root.items[i];
      if (!value.is_scalar() || value.text != "v1") {
        report_.error(code::kHeader, value.is_scalar() ? value.span : file.root.keys[i].span,
                      "this version of the language is not known", "this pipegen reads 'pipegen: v1'");
      }
      return;
    }
    report_.error(code::kHeader, Span{file.name, 1, 1, 1}, "the file does not say that it is a schema",
                  "begin it with 'pipegen: v1'");
  }

  void single(const SourceFile& file, std::string_view key, Declaration& into) {
    for (std::size_t i = 0; i < file.root.keys.size(); ++i) {
      if (file.root.keys[i].text != key) continue;
      if (into.key != nullptr) {
        report_
            .error(code::kDuplicate, file.root.keys[i].span, in_quotes(key) + " is given in two files",
                   "keep it in one of them; the others reach it by import")
            .notes.push_back({into.key->span, "first given here"});
        return;
      }
      into = {&file.root.keys[i], &file.root.items[i], &file};
    }
  }

  void declare_all(const SourceFile& file, const SectionInfo& info, const Node& section) {
    if (section.is_null()) return;
    if (!section.is_map()) {
      report_.error(code::kShape, section.span,
                    in_quotes(info.key) + " is a map from names to what they mean, this is " + shape_of(section));
      out_.complete = false;
      return;
    }
    for (std::size_t i = 0; i < section.keys.size(); ++i) {
      const Node& key = section.keys[i];
      if (!info.valid(key.text)) {
        report_.error(code::kBadName, key.span, in_quotes(key.text) + " is no name of " + a_section(info.section),
                      info.form);
      }
      const Declaration declaration{&key, &section.items[i], &file};
      const Declaration* first = nullptr;
      const auto [known, is_new] = out_.tables[info.section].try_emplace(key.text, declaration);
      if (!is_new) first = &known->second;
      // The fields of an event or an entity are a record: they share their names with types.
      if (std::ranges::find(kRecordSections, info.section) != std::end(kRecordSections)) {
        for (const Section section : kRecordSections) {
          const auto& others = out_.tables[section];
          const auto found = others.find(key.text);
          if (first == nullptr && section != info.section && found != others.end()) first = &found->second;
        }
      }
      if (first != nullptr) {
        report_
            .error(code::kDuplicate, key.span, in_quotes(key.text) + " is declared twice",
                   "rename one of them, or remove it")
            .notes.push_back({first->key->span, "first declared here"});
      }
    }
  }

  FileReader& files_;
  fs::path root_;
  Report& report_;
  std::map<std::string, std::string>& texts_;
  std::set<std::string> seen_;
  Declarations out_;
};

}  // namespace

std::string section_word(Section section) {
  for (const SectionInfo& info : kSections) {
    if (info.section == section) return info.word;
  }
  return "";
}

std::string section_key(Section section) {
  for (const SectionInfo& info : kSections) {
    if (info.section == section) return info.key;
  }
  return "";
}

std::string a_section(Section section) {
  const std::string word = section_word(section);
  return (word.starts_with('e') ? "an " : "a ") + word;
}

Declarations read_declarations(FileReader& files, const fs::path& root, Report& report,
                               std::map<std::string, std::string>& texts) {
  return Reader(files, root, report, texts).run();
}

}  // namespace pipegen::gen
