// pipegen-ingest: HTTP in, JetStream out, without a schema. See generic_api.hpp for its configuration.
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string_view>
#include <vector>

#include "generic_api.hpp"
#include "pipegen/ingest.hpp"

namespace {

constexpr int kExitUsage = 64;   // EX_USAGE
constexpr int kExitConfig = 78;  // EX_CONFIG

constexpr std::string_view kUsage =
    "usage: pipegen-ingest [--config FILE] [--check]\n"
    "Takes JSON over HTTP and publishes it to a JetStream stream.\n"
    "  --config FILE  the settings (TOML); else $PIPEGEN_CONFIG, else project.toml here or above\n"
    "  --check        connect, compare what is on the server with the settings, and exit\n";

}  // namespace

int main(int argc, char** argv) {
  std::vector<char*> rest = {argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const char* file = nullptr;
    if (argument == "--help" || argument == "-h") {
      std::cout << kUsage;
      return 0;
    }
    if (argument.starts_with("--config=")) {
      file = argv[i] + 9;
    } else if (argument == "--config" && i + 1 < argc) {
      file = argv[++i];
    } else if (argument == "--check") {
      rest.push_back(argv[i]);
      continue;
    } else {
      std::cerr << "pipegen-ingest: " << (argument == "--config" ? "--config needs a file" : "unknown argument ")
                << (argument == "--config" ? "" : argument) << "\n"
                << kUsage;
      return kExitUsage;
    }
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored)) {
      std::cerr << "pipegen-ingest: there is no file " << file << std::endl;
      return kExitConfig;
    }
    ::setenv("PIPEGEN_CONFIG", file, 1);
  }
  return pipegen::run_ingest_api(static_cast<int>(rest.size()), rest.data(), "pipegen-ingest",
                                 pipegen::ingest::generic_api);
}
