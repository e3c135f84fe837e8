// Reading the small files that libraries write for us. Internal to runtime/media.
#pragma once

#include <filesystem>
#include <fstream>

#include "pipegen/error.hpp"
#include "pipegen/types.hpp"

namespace pipegen::actions {

/// The whole file. Throws TransientError: a file of our own scratch folder that cannot be read is not the message's
/// fault.
inline Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const auto size = in ? static_cast<std::streamoff>(in.tellg()) : -1;
  if (size < 0) throw TransientError("cannot read " + path.string());
  Bytes bytes(static_cast<std::size_t>(size));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(bytes.data()), size);
  if (!in && size > 0) throw TransientError("cannot read " + path.string());
  return bytes;
}

inline void write_file(const std::filesystem::path& path, BytesView bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.flush();
  if (!out) throw TransientError("cannot write " + path.string() + ": is the disk full?");
}

}  // namespace pipegen::actions
