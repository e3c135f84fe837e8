// Lines out of a pipe.
#pragma once

#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <string_view>

namespace pipegen::gen {

class LineReader {
 public:
  /// Reads what is there and calls `take(std::string_view)` for each line that is complete, without its newline; the
  /// last one at the end of the file, too. False at that end. A line longer than 64 KiB comes in parts.
  template <typename Take>
  bool read(int fd, Take take) {
    std::array<char, 16384> buffer;
    while (true) {
      const ssize_t size = ::read(fd, buffer.data(), buffer.size());
      if (size < 0 && errno == EINTR) continue;
      if (size < 0 && errno == EAGAIN) return true;
      if (size <= 0) {
        if (!partial_.empty()) take(std::string_view(partial_));
        partial_.clear();
        return false;
      }
      partial_.append(buffer.data(), static_cast<std::size_t>(size));
      std::size_t begin = 0;
      for (std::size_t end; (end = partial_.find('\n', begin)) != std::string::npos; begin = end + 1) {
        take(std::string_view(partial_).substr(begin, end - begin));
      }
      partial_.erase(0, begin);
      if (partial_.size() > kLongest) {
        take(std::string_view(partial_));
        partial_.clear();
      }
    }
  }

 private:
  static constexpr std::size_t kLongest = 64 * 1024;
  std::string partial_;
};

}  // namespace pipegen::gen
