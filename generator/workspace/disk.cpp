#include "workspace/disk.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "workspace/workspace.hpp"

namespace pipegen::gen::disk {

int (*before_step)() = nullptr;

namespace {

[[noreturn]] void fail(const char* what, const std::filesystem::path& path, int error) {
  throw WorkspaceError(std::string("cannot ") + what + " " + path.string() + ": " + std::strerror(error));
}

void step(const char* what, const std::filesystem::path& path) {
  if (before_step == nullptr) return;
  if (const int error = before_step(); error != 0) fail(what, path, error);
}

class File {
 public:
  File(const std::filesystem::path& path, int flags, mode_t mode = 0)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace

std::optional<struct stat> status(const std::filesystem::path& path) {
  struct stat result {};
  if (::lstat(path.c_str(), &result) == 0) return result;
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  fail("look at", path, errno);
}

std::optional<std::string> read(const std::filesystem::path& path) {
  const File file(path, O_RDONLY);
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    fail("read", path, errno);
  }
  struct stat about {};
  if (::fstat(file.fd(), &about) != 0) fail("read", path, errno);
  std::string content(static_cast<std::size_t>(about.st_size) + 1, '\0');  // one more, to see the end
  std::size_t size = 0;
  while (true) {
    const ssize_t got = ::read(file.fd(), content.data() + size, content.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path, errno);
    size += static_cast<std::size_t>(got);
    if (size < content.size()) break;
    content.resize(2 * size);
  }
  content.resize(size);
  return content;
}

void make_directory(const std::filesystem::path& path) {
  step("create", path);
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) fail("create", path, errno);
}

void write(const std::filesystem::path& path, std::string_view content, mode_t mode) {
  step("write", path);
  const File file(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (!file || (mode != 0 && ::fchmod(file.fd(), mode) != 0)) fail("write", path, errno);
  while (!content.empty()) {
    const ssize_t put = ::write(file.fd(), content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("write", path, errno);
    content.remove_prefix(static_cast<std::size_t>(put));
  }
#ifdef SYNC_FILE_RANGE_WRITE
  ::sync_file_range(file.fd(), 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
}

void settle(const std::filesystem::path& path) {
#ifdef SYNC_FILE_RANGE_WRITE
  step("store", path);
  const File file(path, O_RDONLY);
  constexpr unsigned kWait = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (file && ::sync_file_range(file.fd(), 0, 0, kWait) == 0) return;
  // Some file systems cannot do that.
  if (!file || (errno != ENOSYS && errno != EINVAL && errno != ESPIPE)) fail("store", path, errno);
#endif
  sync(path);
}

void sync(const std::filesystem::path& file_or_directory) {
  step("store", file_or_directory);
  const File file(file_or_directory, O_RDONLY);
  // Some file systems cannot sync a folder and say EINVAL.
  if (!file || (::fsync(file.fd()) != 0 && errno != EINVAL)) fail("store", file_or_directory, errno);
}

void move(const std::filesystem::path& from, const std::filesystem::path& to) {
  step("write", to);
  if (::rename(from.c_str(), to.c_str()) != 0) fail("write", to, errno);
}

void remove(const std::filesystem::path& path) {
  step("remove", path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) fail("remove", path, errno);
}

bool remove_directory(const std::filesystem::path& path) {
  step("remove", path);
  if (::rmdir(path.c_str()) == 0) return true;
  if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOENT || errno == ENOTDIR || errno == EBUSY) return false;
  fail("remove", path, errno);
}

}  // namespace pipegen::gen::disk
