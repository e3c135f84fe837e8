// Randomness from the kernel.
#pragma once

#include <sys/random.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <system_error>

namespace pipegen {

/// Fills `rest` from getrandom(2). Thread safe, fork safe.
inline void fill_random(std::span<std::byte> rest) {
  while (!rest.empty()) {
    const auto got = ::getrandom(rest.data(), rest.size(), 0);
    if (got < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category(), "getrandom");
    if (got > 0) rest = rest.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace pipegen
