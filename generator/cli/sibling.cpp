#include "cli/sibling.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>

namespace pipegen::gen {

int become_sibling(const std::string& program, std::vector<std::string> arguments) {
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / program;
  arguments.insert(arguments.begin(), path.string());
  std::vector<char*> words;
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  ::execv(path.c_str(), words.data());
  std::cerr << "pipegen: cannot run " << path.string() << ": " << std::strerror(errno)
            << "; it is built and installed together with pipegen\n";
  return 1;
}

}  // namespace pipegen::gen
