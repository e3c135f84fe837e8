// The only step that touches the output: manifest, ownership, the write that is all or nothing.
//
//   const Lock lock("services");  // one run at a time; finishes what an interrupted one left
//   const Services services = existing_services("services", "pdf-to-audio");
//   … plan, render …
//   const WriteReport report = write(lock, output, {.covers = [](const std::string& path) { return is_ours(path); }});
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "plan/plan.hpp"

namespace pipegen::gen {

/// A rendered file.
struct OutputFile {
  std::string content;
  Owner owner = Owner::kPipegen;
  std::string sha256{};  // of the content, where it is known beforehand
};
using FileSet = std::map<std::string, OutputFile>;  // by path in the workspace, '/' between parts

/// What a workspace is to hold.
struct Output {
  std::string pipeline;
  Services services;
  FileSet files;
};

struct WriteOptions {
  bool force = false;  // take back generated files that somebody edited
  /// Which of the manifest's files this run speaks for: a file that is in the manifest, is not in the FileSet and
  /// for which this gives true is no longer generated. Empty: none.
  std::function<bool(const std::string& path)> covers{};
};

/// What a write did; paths sorted.
struct WriteReport {
  std::vector<std::string> created, updated, unchanged, removed;
  std::vector<std::string> kept;  // the user's, left as they are
  /// Of those, the ones that pipegen would write otherwise since its last run, each with the lines that it lacks
  /// ("[tts_service] worker_pool_size = 4").
  std::map<std::string, std::vector<std::string>> outdated;
  std::vector<std::string>
      orphaned;  // no longer generated but edited or the user's: left there, said once, then forgotten
};

/// The state of the output is at fault: generated files were edited (named), the folder belongs to something else, it
/// cannot be written. what() is for the user; it may have several lines.
class WorkspaceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Keeps other pipegen processes away from a workspace for as long as it lives. Taking it creates the folder when there
/// is none (and takes it away again when nothing gets written), and finishes or throws away what an interrupted run
/// left.
class Lock {
 public:
  /// Waits for another run at most for `patience`, then throws a WorkspaceError that names its process.
  explicit Lock(const std::filesystem::path& root, std::chrono::milliseconds patience = std::chrono::seconds(10));
  ~Lock();
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

  const std::filesystem::path& root() const { return root_; }

 private:
  void acquire(std::chrono::milliseconds patience);
  void release() noexcept;

  std::filesystem::path root_;
  bool created_root_ = false;
  int file_ = -1;
};

/// Writes. All or nothing: new files are staged under .pipegen/, a journal is the commit point, and every run first
/// finishes (or throws away) what an interrupted one left. Files whose content would not change are not touched. A
/// WorkspaceError leaves the workspace as it was, except when it says that the next run finishes the write.
///
/// - kPipegen: rewritten; when its content is neither what the manifest says nor the new one, a WorkspaceError, unless
///   with `force`.
/// - kUser: written when it is not there (so one that its owner deleted comes back), else kept.
/// - kShared: rewritten while its content is what the manifest says, else kept.
WriteReport write(const Lock& lock, const Output& output, const WriteOptions& options);

/// The same under a lock of its own.
WriteReport write(const std::filesystem::path& root, const Output& output, const WriteOptions& options);

/// The services of this workspace that have a build file; none when there is no workspace. Throws a WorkspaceError when
/// they are another pipeline's.
Services existing_services(const std::filesystem::path& root, const std::string& pipeline);

}  // namespace pipegen::gen
