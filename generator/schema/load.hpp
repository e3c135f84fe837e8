// Text to resolved pipeline: the first step of the generator.
//
//   const Loaded loaded = load_pipeline(files, "examples/pdf-to-audio/pipeline.yaml");
//   if (!loaded.pipeline) { print(loaded.diagnostics); return 1; }
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/pipeline.hpp"
#include "schema/diagnostic.hpp"

namespace pipegen::gen {

/// Reads files; the one door of this step to the file system, so that tests can bring their own.
class FileReader {
 public:
  virtual ~FileReader() = default;
  /// Nothing when there is no such file or it cannot be read; `why` says which.
  virtual std::optional<std::string> read(const std::filesystem::path& path, std::string& why) = 0;
  /// The same for all paths that lead to one file.
  virtual std::string identity(const std::filesystem::path& path) { return path.lexically_normal().generic_string(); }
};

/// Reads from the disk.
class DiskReader : public FileReader {
 public:
  std::optional<std::string> read(const std::filesystem::path& path, std::string& why) override;
  std::string identity(const std::filesystem::path& path) override;
};

struct Loaded {
  std::optional<Pipeline> pipeline;     // set when no diagnostic is an error
  std::vector<Diagnostic> diagnostics;  // sorted by file, line, column, code
  std::map<std::string, std::string>
      texts;  // every file read, by the name that spans use (to print lines under carets)
};

/// Loads `root` and everything it imports. Never throws for anything that a schema may hold.
Loaded load_pipeline(FileReader& files, const std::filesystem::path& root);

/// "file:line:column: error: message [PG0102] (hint: …)", the line and a caret, notes; as the user sees it.
std::string format_text(const std::vector<Diagnostic>& diagnostics, const std::map<std::string, std::string>& texts);
/// A JSON array of the same, one object a diagnostic.
std::string format_json(const std::vector<Diagnostic>& diagnostics);

}  // namespace pipegen::gen
