// Objects and keys from the command line, by the runtime: what generated-tests/interop drives against the official
// JavaScript client. Object and value content goes through files and standard output.
#include <chrono>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "pipegen/key_value.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/object_store.hpp"

namespace {

constexpr const char* kUsage =
    "usage: interop_tool URL COMMAND …\n"
    "  bucket BUCKET                  makes the object bucket and the key-value bucket of this name\n"
    "  put BUCKET NAME FILE           get BUCKET NAME FILE            delete BUCKET NAME        list BUCKET\n"
    "  kvput BUCKET KEY VALUE         kvcreate BUCKET KEY VALUE       kvupdate BUCKET KEY VALUE REVISION\n"
    "  kvget BUCKET KEY               kvdel BUCKET KEY                kvpurge BUCKET KEY        kvkeys BUCKET FILTER\n"
    "  bench BUCKET FILE              puts the file, gets it back, prints MB/s of both\n";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// MiB. Not getrusage: what that gives after exec may be the parent's.
long peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) / 1024;
  }
  return 0;
}

int run(const std::vector<std::string>& words) {
  pipegen::nats::Connection connection({.url = words.at(0), .name = "interop"}, std::chrono::seconds(5));
  const std::string& command = words.at(1);
  const std::string& bucket = words.at(2);
  const auto word = [&](std::size_t index) -> const std::string& { return words.at(index); };
  pipegen::ObjectStore objects(connection, bucket);
  pipegen::KeyValue keys(connection, bucket);
  if (command == "bucket") {
    pipegen::BucketSpec spec{.schema_name = bucket, .name = bucket};
    pipegen::nats::ensure(connection, {.object_buckets = {spec}, .key_values = {spec}});
  } else if (command == "put") {
    const auto info = objects.put_file(word(3), word(4), {{"made-by", "pipegen"}});
    std::cout << info.digest << '\n';
  } else if (command == "get") {
    const auto info = objects.get_file(word(3), word(4));
    std::cout << info.digest << '\n';
  } else if (command == "delete") {
    std::cout << (objects.remove(word(3)) ? "deleted" : "absent") << '\n';
  } else if (command == "list") {
    for (const auto& info : objects.list()) std::cout << info.name << '\n';
  } else if (command == "kvput") {
    std::cout << keys.put(word(3), word(4)) << '\n';
  } else if (command == "kvcreate" || command == "kvupdate") {
    const auto revision =
        command == "kvcreate" ? keys.create(word(3), word(4)) : keys.update(word(3), word(4), std::stoull(word(5)));
    std::cout << (revision ? std::to_string(*revision) : "conflict") << '\n';
  } else if (command == "kvget") {
    const auto entry = keys.get(word(3));
    std::cout << (entry ? std::to_string(entry->revision) + " " + entry->value : "absent") << '\n';
  } else if (command == "kvdel") {
    keys.remove(word(3));
  } else if (command == "kvpurge") {
    keys.purge(word(3));
  } else if (command == "kvkeys") {
    for (const auto& key : keys.keys(word(3))) std::cout << key << '\n';
  } else if (command == "bench") {
    auto start = std::chrono::steady_clock::now();
    const auto info = objects.put_file("bench", word(3));
    const double put = seconds_since(start);
    start = std::chrono::steady_clock::now();
    auto reader = objects.open("bench");
    pipegen::Bytes buffer(128 * 1024);
    while (reader.read(buffer) > 0) {
    }
    const double get = seconds_since(start);
    const double size = static_cast<double>(info.size) / 1e6;
    std::cout << size / put << ' ' << size / get << ' ' << peak_memory() << '\n';
  } else {
    std::cerr << kUsage;
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::out_of_range&) {
    std::cerr << kUsage;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
