// `pipegen up`: a pipeline on this machine, from its schema to running services, until Ctrl-C.
//
//   const std::vector<UpService> services{{"ingest-api", true, "ingest_api"}, {"tts", false, "tts_service"}};
//   return run_up(options, [&] { return generate(...); }, services);
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pipegen::gen {

struct UpOptions {
  std::filesystem::path schema;               // only named in messages
  std::filesystem::path output;               // the workspace
  std::optional<std::filesystem::path> data;  // where nats-server and SQLite keep theirs; nothing: it is thrown away
  std::optional<std::string> nats_url;        // use this server instead of starting one
  std::optional<int> api_port{};              // 0: any free one; nothing: the service's own, when it is free
  int nats_port = 0;                          // 0: any free one
  bool force = false;                         // for the function that generates
  std::string sqlite_file{};                  // to be put there; empty: the services know where their database is
};

/// A service of the workspace: its program is <output>/build/bin/<name>.
struct UpService {
  std::string name;
  bool is_api = false;
  std::string section;  // of its settings: "ingest_api" gives INGEST_API_PORT
  int port = 0;         // of the API, as the schema says
};

/// Generates (by `generate`, which prints its own errors and gives false on failure), builds what changed, starts
/// nats-server and every service, restarts those that die, and shows their logs and figures on stderr. Once all are
/// ready it prints one line on stdout, `ready api=http://127.0.0.1:PORT nats=nats://127.0.0.1:PORT`. SIGINT or SIGTERM
/// stops the API, then the workers, then nats-server. No process that it started outlives it, even when it is killed
/// itself.
///
/// Must be called from the main thread of a process without others. Blocks. Gives the exit status: 0 stopped as told, 1
/// with the reason on stderr.
int run_up(const UpOptions& options, const std::function<bool()>& generate, const std::vector<UpService>& services);

}  // namespace pipegen::gen
