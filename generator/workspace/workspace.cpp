#include "workspace/workspace.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <thread>
#include <utility>

#include "workspace/disk.hpp"
#include "workspace/manifest.hpp"
#include "workspace/sha256.hpp"

namespace pipegen::gen {
namespace {

namespace fs = std::filesystem;

/// The names under .pipegen/.
struct Places {
  explicit Places(const fs::path& root)
      : folder(root / ".pipegen"),
        manifest(folder / "manifest.json"),
        lock(folder / "lock"),
        staging(folder / "staging"),
        staged_manifest(staging / "manifest.json"),
        journal(folder / "journal"),
        new_journal(folder / "journal.new") {}
  fs::path folder, manifest, lock, staging, staged_manifest, journal, new_journal;
};

void check_path(const std::string& path) {
  const fs::path parsed(path);
  bool good = !path.empty() && parsed.is_relative() && parsed.generic_string() == path && *parsed.begin() != ".pipegen";
  for (const fs::path& part : parsed) good = good && !part.empty() && part != "." && part != "..";
  if (!good) throw WorkspaceError("'" + path + "' is no path inside of a workspace");
}

/// The folders of a workspace, looked at once each.
class Folders {
 public:
  explicit Folders(const fs::path& root) : root_(root), real_root_(fs::canonical(root)), device_(device_of(root)) {}

  /// Throws when a folder on the way to `path` is something else, or leads out of the workspace.
  void check(const std::string& path) {
    for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      const std::string folder = path.substr(0, slash);
      const auto [known, is_new] = present_.try_emplace(folder, false);
      if (is_new) known->second = look_at(folder);
      if (!known->second) return;  // what is below is not there either
    }
  }

  /// Throws when files cannot be written to (or removed from) the folder of `path`, or, when it is not there yet, to
  /// the folder in which it would be created. To be called after check(path).
  void check_writable(const std::string& path) const {
    std::string folder = path;
    do {
      const std::size_t slash = folder.rfind('/');
      folder.resize(slash == std::string::npos ? 0 : slash);
    } while (!folder.empty() && !is_present(folder));
    const fs::path full = folder.empty() ? root_ : root_ / folder;
    if (::access(full.c_str(), W_OK | X_OK) != 0) {
      throw WorkspaceError("cannot write to " + full.string() + ": " + std::strerror(errno));
    }
  }

  /// Throws when `path` is a symbolic link that leads out of the workspace, or to nothing.
  void check_link(const std::string& path) const {
    std::error_code failed;
    const fs::path target = fs::canonical(root_ / path, failed);
    if (failed || !is_inside(target)) {
      throw WorkspaceError(
          (root_ / path).string() +
          " is a symbolic link that leads out of the workspace, and pipegen writes to nothing outside: "
          "replace it by what it leads to");
    }
  }

 private:
  static dev_t device_of(const fs::path& path) {
    struct stat about {};
    return ::stat(path.c_str(), &about) == 0 ? about.st_dev : 0;
  }

  bool is_inside(const fs::path& real) const {
    return std::mismatch(real_root_.begin(), real_root_.end(), real.begin(), real.end()).first == real_root_.end();
  }

  bool is_present(const std::string& folder) const {
    const auto known = present_.find(folder);
    return known != present_.end() && known->second;
  }

  bool look_at(const std::string& folder) const {
    const fs::path full = root_ / folder;
    const auto about = disk::status(full);
    if (!about) return false;
    if (S_ISLNK(about->st_mode)) check_link(folder);
    if (!fs::is_directory(full))
      throw WorkspaceError(full.string() + " is in the way: pipegen needs a folder of that name");
    if (device_of(full) != device_) {
      throw WorkspaceError(full.string() + " is on another file system than " + root_.string() +
                           ": a workspace has to be on one, or its files could not be replaced all at once");
    }
    return true;
  }

  fs::path root_;
  fs::path real_root_;
  dev_t device_;
  std::map<std::string, bool> present_;
};

Manifest read_manifest(const fs::path& root) {
  const fs::path path = Places(root).manifest;
  const auto text = disk::read(path);
  return text ? Manifest::parse(*text, path) : Manifest();
}

std::string digest_of_file(const fs::path& path) {
  const auto content = disk::read(path);
  return content ? sha256(*content) : "";
}

// ---- apply: staged files to their places
// -------------------------------------------------------------------------------------

/// Removes the folders of `path` that are empty now, from the inside out.
void remove_empty_folders(const fs::path& root, const std::string& path) {
  std::string folder = path;
  for (std::size_t slash = folder.rfind('/'); slash != std::string::npos; slash = folder.rfind('/')) {
    folder.resize(slash);
    if (!disk::remove_directory(root / folder)) return;
  }
}

void make_folders(const fs::path& root, const std::string& path) {
  for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const fs::path folder = root / path.substr(0, slash);
    if (!fs::is_directory(folder)) disk::make_directory(folder);
  }
}

void remove_staging(const Places& places) {
  if (!disk::status(places.staging)) return;
  std::vector<fs::path> staged;
  for (const auto& entry : fs::directory_iterator(places.staging)) staged.push_back(entry.path());
  for (const fs::path& path : staged) disk::remove(path);
  disk::remove_directory(places.staging);
}

/// Does what is left to do of a journal. A file that is neither as the journal found it nor done has been changed by
/// somebody since, which only happens when the run was interrupted in between: that change stays, and the next write
/// will see it.
void apply(const fs::path& root, const Journal& journal) {
  const Places places(root);
  Folders folders(root);
  const auto check = [&](const std::string& path) {  // a journal may come with somebody else's repository
    check_path(path);
    folders.check(path);
  };
  for (const Journal::Move& move : journal.moves) {
    check(move.path);
    const fs::path staged = places.staging / move.staged;
    const fs::path target = root / move.path;
    if (!disk::status(staged)) continue;
    if (digest_of_file(target) != move.before) continue;
    make_folders(root, move.path);
    disk::move(staged, target);
  }
  for (const Journal::Removal& removal : journal.removals) {
    check(removal.path);
    const std::string now = digest_of_file(root / removal.path);
    if (!now.empty() && now != removal.before) continue;
    if (!now.empty()) disk::remove(root / removal.path);
    remove_empty_folders(root, removal.path);
  }
  if (disk::status(places.staged_manifest)) disk::move(places.staged_manifest, places.manifest);
  disk::sync(places.folder);  // with it all that was moved, before the journal goes
  remove_staging(places);
  disk::remove(places.journal);
}

/// Runs `work`; what the standard library has to say about the file system becomes ours.
template <typename Work>
auto said_as_workspace_error(Work work) {
  try {
    return work();
  } catch (const fs::filesystem_error& error) {
    throw WorkspaceError("cannot work in " + error.path1().string() + ": " + error.code().message());
  }
}

void finish_interrupted_run(const fs::path& root) {
  const Places places(root);
  // A link there may come with somebody else's repository: what it leads to is neither ours to move nor to remove.
  if (const auto about = disk::status(places.staging); about && !S_ISDIR(about->st_mode)) {
    throw WorkspaceError(places.staging.string() +
                         " is in the way: pipegen needs a folder of that name. Remove it, and run this again.");
  }
  if (const auto text = disk::read(places.journal)) apply(root, Journal::parse(*text, places.journal));
  if (disk::status(places.new_journal)) disk::remove(places.new_journal);
  remove_staging(places);
}

// ---- write: what to do with each file
// ----------------------------------------------------------------------------------------

/// The lines of `wanted` that are not in `present`, each behind the "[section]" that it stands in.
std::vector<std::string> missing_lines(const std::string& present, const std::string& wanted) {
  const auto lines_of = [](const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    std::string section;
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with('[')) {
        section = line + ' ';
      } else if (!line.empty() && !line.starts_with('#')) {
        lines.push_back(section + line);
      }
    }
    return lines;
  };
  const auto there = lines_of(present);
  std::vector<std::string> missing = lines_of(wanted);
  std::erase_if(missing, [&](const std::string& line) { return std::ranges::find(there, line) != there.end(); });
  return missing;
}

/// The decisions of one write; nothing on the disk changes until commit().
class Write {
 public:
  Write(const fs::path& root, const WriteOptions& options)
      : root_(root), places_(root), options_(options), folders_(root), old_manifest_(read_manifest(root)) {}

  WriteReport run(const Output& output) {
    manifest_.pipeline = output.pipeline;
    manifest_.services = output.services;
    for (const auto& [path, file] : output.files) {
      check_path(path);
      folders_.check(path);
      decide(path, file);
    }
    for (const auto& [path, entry] : old_manifest_.files) {
      if (!output.files.contains(path)) drop(path, entry);
    }
    refuse_edited();
    commit();
    return std::move(report_);
  }

 private:
  void decide(const std::string& path, const OutputFile& file) {
    const fs::path full = root_ / path;
    const auto about = disk::status(full);
    const auto found = old_manifest_.files.find(path);
    const std::string written = found == old_manifest_.files.end() ? "" : found->second.sha256;  // by an earlier run
    const std::string digest = file.sha256.empty() ? sha256(file.content) : file.sha256;

    if (!about) return put(path, file, digest, "", 0);
    if (S_ISDIR(about->st_mode)) {
      throw WorkspaceError(full.string() + " is in the way: pipegen needs a file of that name");
    }
    const bool is_link = S_ISLNK(about->st_mode);
    if (file.owner == Owner::kUser || (file.owner == Owner::kShared && is_link)) return keep(path, file.owner, written);
    if (is_link) folders_.check_link(path);

    const std::string content = disk::read(full).value_or("");
    if (content == file.content) {
      report_.unchanged.push_back(path);
      manifest_.files[path] = {.owner = file.owner, .sha256 = digest};
      return;
    }
    const std::string now = sha256(content);
    const bool edited = now != written;
    if (edited && file.owner == Owner::kShared) {
      const std::string unwritten = found == old_manifest_.files.end() ? "" : found->second.unwritten_sha256;
      if (digest != (unwritten.empty() ? written : unwritten)) {
        report_.outdated[path] = missing_lines(content, file.content);
      }
      keep(path, file.owner, written);
      if (digest != written) manifest_.files[path].unwritten_sha256 = digest;
      return;
    }
    if (edited && !options_.force) (found == old_manifest_.files.end() ? foreign_ : edited_).push_back(path);
    put(path, file, digest, now, about->st_mode & 07777);
  }

  void put(const std::string& path, const OutputFile& file, const std::string& digest, const std::string& before,
           mode_t mode) {
    folders_.check_writable(path);
    (before.empty() ? report_.created : report_.updated).push_back(path);
    manifest_.files[path] = {.owner = file.owner, .sha256 = digest};
    journal_.moves.push_back({.staged = std::to_string(journal_.moves.size()), .path = path, .before = before});
    staged_.push_back({.content = &file.content, .mode = mode});
  }

  void keep(const std::string& path, Owner owner, const std::string& written) {
    report_.kept.push_back(path);
    manifest_.files[path] = {.owner = owner, .sha256 = written};
  }

  /// A file of the manifest that this run does not generate.
  void drop(const std::string& path, const ManifestEntry& entry) {
    if (!options_.covers || !options_.covers(path)) {
      manifest_.files[path] = entry;
      return;
    }
    check_path(path);
    folders_.check(path);
    const fs::path full = root_ / path;
    const auto about = disk::status(full);
    if (!about) return;
    const std::string now = S_ISREG(about->st_mode) ? digest_of_file(full) : "";
    if (entry.owner == Owner::kUser || now.empty() || now != entry.sha256) {
      report_.orphaned.push_back(path);
      return;
    }
    folders_.check_writable(path);
    report_.removed.push_back(path);
    journal_.removals.push_back({.path = path, .before = now});
  }

  void refuse_edited() const {
    if (edited_.empty() && foreign_.empty()) return;
    std::string message;
    const auto list = [&](const char* title, const std::vector<std::string>& paths) {
      if (paths.empty()) return;
      message += title;
      for (const std::string& path : paths) message += "\n  " + (root_ / path).string();
      message += '\n';
    };
    list("These generated files were edited by hand:", edited_);
    list("These files are in the way, and pipegen did not write them:", foreign_);
    throw WorkspaceError(
        message +
        "Nothing was written. Move your changes to a file that is yours (src/, or the schema), or run again "
        "with --force, which replaces the files named here.");
  }

  void commit() {
    const std::string manifest = manifest_.text();
    const bool same_manifest = disk::read(places_.manifest) == manifest;
    if (journal_.moves.empty() && journal_.removals.empty() && same_manifest) return;
    try {
      stage(manifest);
      disk::write(places_.new_journal, journal_.text());
      disk::sync(places_.new_journal);
      disk::move(places_.new_journal, places_.journal);
    } catch (const WorkspaceError& error) {
      throw_away();
      throw WorkspaceError(std::string(error.what()) + "\nNothing was written.");
    }
    try {
      disk::sync(places_.folder);
      apply(root_, journal_);
    } catch (const WorkspaceError& error) {
      throw WorkspaceError(std::string(error.what()) +
                           "\nThe write is not complete: the next run of pipegen finishes it, once this is mended.");
    }
  }

  void stage(const std::string& manifest) {
    disk::make_directory(places_.staging);
    for (std::size_t i = 0; i < staged_.size(); ++i) {
      disk::write(places_.staging / journal_.moves[i].staged, *staged_[i].content, staged_[i].mode);
    }
    disk::write(places_.staged_manifest, manifest);
    for (const Journal::Move& move : journal_.moves) disk::settle(places_.staging / move.staged);
    disk::settle(places_.staged_manifest);
    disk::sync(places_.staging);
  }

  /// After a failure: whatever cannot be removed now, the next run will remove.
  void throw_away() const {
    try {
      finish_interrupted_run(root_);
    } catch (const WorkspaceError&) {
    }
  }

  struct Staged {
    const std::string* content;
    mode_t mode;  // of the file that it replaces
  };

  const fs::path& root_;
  Places places_;
  const WriteOptions& options_;
  Folders folders_;
  Manifest old_manifest_, manifest_;
  Journal journal_;
  std::vector<Staged> staged_;  // by index of journal_.moves
  WriteReport report_;
  std::vector<std::string> edited_, foreign_;
};

}  // namespace

// ---- Lock
// --------------------------------------------------------------------------------------------------------------------

Lock::Lock(const fs::path& root, std::chrono::milliseconds patience) : root_(root.lexically_normal()) {
  if (!root_.has_filename() && root_.has_parent_path()) root_ = root_.parent_path();  // "services/"
  std::error_code unknown;
  if (const fs::path real = fs::weakly_canonical(root_, unknown); !unknown && real == "/") {
    throw WorkspaceError(root_.string() + " is the root of the file system: choose another --output");
  }
  said_as_workspace_error([&] { acquire(patience); });
  try {
    said_as_workspace_error([&] { finish_interrupted_run(root_); });
  } catch (...) {
    release();
    throw;
  }
}

Lock::~Lock() { release(); }

void Lock::acquire(std::chrono::milliseconds patience) {
  const Places places(root_);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (true) {
    if (!fs::exists(root_)) {
      std::error_code failed;
      if (root_.has_parent_path()) fs::create_directories(root_.parent_path(), failed);
      if (failed) throw WorkspaceError("cannot create " + root_.parent_path().string() + ": " + failed.message());
      disk::make_directory(root_);
      created_root_ = true;
    }
    if (!fs::is_directory(root_)) throw WorkspaceError(root_.string() + " is not a folder: choose another --output");
    if (!disk::status(places.folder)) disk::make_directory(places.folder);
    if (const auto about = disk::status(places.folder); about && !S_ISDIR(about->st_mode)) {
      throw WorkspaceError(places.folder.string() + " is in the way: pipegen needs a folder of that name");
    }

    file_ = ::open(places.lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file_ < 0 && errno == ENOENT) continue;  // another run has just taken the empty folder away
    if (file_ < 0) throw WorkspaceError("cannot write " + places.lock.string() + ": " + std::strerror(errno));
    if (::flock(file_, LOCK_EX | LOCK_NB) == 0) {
      // The run before us may have removed the file between our open and our lock: then it locks nothing.
      struct stat ours {};
      const auto there = disk::status(places.lock);
      if (::fstat(file_, &ours) == 0 && there && there->st_ino == ours.st_ino && there->st_dev == ours.st_dev) break;
    } else if (std::chrono::steady_clock::now() >= deadline) {
      ::close(std::exchange(file_, -1));
      const std::string holder = disk::read(places.lock).value_or("");
      throw WorkspaceError("another pipegen (process " + holder.substr(0, holder.find('\n')) + ") is writing to " +
                           root_.string() + ": wait until it is done, and run this again");
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ::close(std::exchange(file_, -1));
  }
  // Who holds it, for the message above. A lock without the number still locks.
  const std::string self = std::to_string(::getpid()) + '\n';
  if (::ftruncate(file_, 0) == 0) [[maybe_unused]]
    const ssize_t put = ::pwrite(file_, self.data(), self.size(), 0);
}

void Lock::release() noexcept {
  if (file_ < 0) return;
  const Places places(root_);
  ::unlink(places.lock.c_str());
  ::close(std::exchange(file_, -1));
  // Only succeed when nothing was written.
  ::rmdir(places.folder.c_str());
  if (created_root_) ::rmdir(root_.c_str());
}

// ---- the functions
// -----------------------------------------------------------------------------------------------------------

WriteReport write(const Lock& lock, const Output& output, const WriteOptions& options) {
  return said_as_workspace_error([&] { return Write(lock.root(), options).run(output); });
}

WriteReport write(const fs::path& root, const Output& output, const WriteOptions& options) {
  return write(Lock(root), output, options);
}

Services existing_services(const fs::path& root, const std::string& pipeline) {
  Manifest manifest = read_manifest(root);
  if (!manifest.services.empty() && manifest.pipeline != pipeline) {
    throw WorkspaceError(root.string() + " holds the services of pipeline '" + manifest.pipeline + "', and this is '" +
                         pipeline + "': choose another --output, or use generate-all --force, which replaces them");
  }
  // Somebody may have taken a folder away.
  std::erase_if(manifest.services,
                [&](const auto& service) { return !disk::status(root / service.first / "CMakeLists.txt"); });
  return std::move(manifest.services);
}

}  // namespace pipegen::gen
