#include "schema/load.hpp"

#include <fstream>
#include <system_error>

#include "schema/resolution.hpp"

namespace pipegen::gen {

std::optional<std::string> DiskReader::read(const std::filesystem::path& path, std::string& why) {
  namespace fs = std::filesystem;
  constexpr std::uintmax_t kMostOctets = 16 << 20;
  std::error_code problem;
  const fs::file_status status = fs::status(path, problem);
  if (!fs::exists(status)) {
    why = problem && problem != std::errc::no_such_file_or_directory ? problem.message() : "there is no such file";
    return std::nullopt;
  }
  if (!fs::is_regular_file(status)) {
    why = fs::is_directory(status) ? "it is a folder" : "it is no file";
    return std::nullopt;
  }
  if (const auto size = fs::file_size(path, problem); !problem && size > kMostOctets) {
    why = "it is larger than 16 MiB";
    return std::nullopt;
  }
  std::ifstream in(path, std::ios::binary);
  std::string text;
  if (in) text.assign(std::istreambuf_iterator<char>(in), {});
  if (!in) {
    why = "the system does not allow it";
    return std::nullopt;
  }
  return text;
}

std::string DiskReader::identity(const std::filesystem::path& path) {
  std::error_code problem;
  const std::filesystem::path real = std::filesystem::weakly_canonical(path, problem);
  return problem ? FileReader::identity(path) : real.generic_string();
}

Loaded load_pipeline(FileReader& files, const std::filesystem::path& root) {
  Loaded out;
  Report report;
  const Declarations declarations = read_declarations(files, root, report, out.texts);
  if (!declarations.files.empty()) {
    Resolution resolution(declarations, report);
    resolution.pipeline.root_file = declarations.files.front()->origin;
    resolve_header(resolution);
    resolve_streams(resolution);
    resolve_buckets(resolution);
    resolve_types(resolution);
    resolve_events(resolution);
    resolve_entities(resolution);
    resolve_stages(resolution);
    set_duplicate_windows(resolution);
    resolve_ingest(resolution);
    assign_settings(resolution);
    check_wiring(resolution);
    if (!report.has_errors()) out.pipeline = std::move(resolution.pipeline);
  }
  out.diagnostics = report.sorted();
  return out;
}

}  // namespace pipegen::gen
