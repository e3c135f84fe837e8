// .pipegen/manifest.json: every file that pipegen wrote, with its owner and the SHA-256 of what was written.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "plan/plan.hpp"

namespace pipegen::gen {

struct ManifestEntry {
  Owner owner = Owner::kPipegen;
  std::string sha256;              // empty: the file was there before pipegen wanted to write it, and is its owner's
  std::string unwritten_sha256{};  // of what pipegen would have written last, had the file not been the user's
};

struct Manifest {
  std::string pipeline;  // whose services these are
  Services services;
  std::map<std::string, ManifestEntry> files;  // by path in the workspace

  /// Sorted, one service or file a line, without a date: the same files give the same bytes.
  std::string text() const;
  /// Throws WorkspaceError, which says what to do, when it is not one of ours; `path` is for the message.
  static Manifest parse(const std::string& text, const std::filesystem::path& path);
};

/// What a committed write still has to do: a list that can be worked through again from the start at any time.
struct Journal {
  struct Move {
    std::string staged;  // name in .pipegen/staging
    std::string path;    // in the workspace
    std::string before;  // SHA-256 of what the file held when the write was decided; empty: it was not there
  };
  struct Removal {
    std::string path;
    std::string before;
  };
  std::vector<Move> moves;
  std::vector<Removal> removals;

  std::string text() const;
  static Journal parse(const std::string& text, const std::filesystem::path& path);
};

}  // namespace pipegen::gen
