// A call of a handler, without a worker around it: for tests of the built-in actions.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <stop_token>
#include <string>
#include <string_view>

#include "pipegen/context.hpp"
#include "pipegen/nats.hpp"
#include "support/nats_server.hpp"

namespace pipegen::testing {

class TestContext : public Context {
 public:
  explicit TestContext(nats::Connection& connection) : connection_(connection) {}

  const MessageInfo& message() const override { return info; }
  const Settings& settings() const override { return settings_; }
  const Logger& log() const override { return logger_; }
  std::chrono::steady_clock::time_point deadline() const override {
    return std::chrono::steady_clock::now() + std::chrono::seconds(60);
  }
  std::stop_token stop_token() const override { return stop.get_token(); }
  void set_workflow(std::string_view) override {}
  std::string output_key(std::string_view extension) override { return "output." + std::string(extension); }
  ObjectStore& objects(std::string_view bucket) override {
    return stores_.try_emplace(std::string(bucket), connection_, std::string(bucket)).first->second;
  }
  KeyValue& key_value(std::string_view) override { throw ConfigError("there is no key-value bucket in this test"); }
  std::string scratch() override { return folder_.path().string(); }

  MessageInfo info;
  std::stop_source stop;

 private:
  nats::Connection& connection_;
  Settings settings_;
  Logger logger_;
  TempFolder folder_;
  std::map<std::string, ObjectStore> stores_;
};

}  // namespace pipegen::testing
