// The workspace's one door to the file system. Every function that changes something asks `before_step` first, so that
// tests can end the process, or let the step fail, at each of them. All throw WorkspaceError with the path and the
// reason.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace pipegen::gen::disk {

/// For tests: called before each change; an errno lets the step fail with it, 0 lets it happen.
extern int (*before_step)();

/// Of the entry itself, not of what a symbolic link leads to; nothing when there is none.
std::optional<struct stat> status(const std::filesystem::path& path);

/// Nothing when there is no such file.
std::optional<std::string> read(const std::filesystem::path& path);

void make_directory(const std::filesystem::path& path);  // fine when it is there
/// Writes a new file and sets the disk to work on it. Mode 0: what the umask says.
void write(const std::filesystem::path& path, std::string_view content, mode_t mode = 0);
/// Waits until the content of a written file is on the disk; that the file itself is there takes a sync() of anything
/// later. So a hundred files cost one flush of the disk, not a hundred: the file system's log keeps the order of
/// changes.
void settle(const std::filesystem::path& path);
/// fsync: this, and every change before it, survives a loss of power.
void sync(const std::filesystem::path& file_or_directory);
void move(const std::filesystem::path& from, const std::filesystem::path& to);
void remove(const std::filesystem::path& path);            // fine when it is not there
bool remove_directory(const std::filesystem::path& path);  // false when it is not empty or not there

}  // namespace pipegen::gen::disk
