// The Context of one call of a handler.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "pipegen/context.hpp"
#include "pipegen/nats.hpp"
#include "pipegen/stage.hpp"
#include "worker/delivery.hpp"

namespace pipegen::worker {

/// The stores of a stage, by the names that its schema uses. Made once per process.
struct Stores {
  Stores(nats::Connection& connection, const Topology& topology);
  std::map<std::string, ObjectStore, std::less<>> objects;
  std::map<std::string, KeyValue, std::less<>> key_values;
};

class CallContext : public Context {
 public:
  CallContext(MessageInfo message, const Stage& stage, const Settings& settings, const Logger& logger, Stores& stores,
              std::chrono::steady_clock::time_point deadline, std::stop_token stop);
  ~CallContext() override;

  const MessageInfo& message() const override { return message_; }
  const Settings& settings() const override { return settings_; }
  const Logger& log() const override;
  std::chrono::steady_clock::time_point deadline() const override { return deadline_; }
  std::stop_token stop_token() const override { return stop_; }
  void set_workflow(std::string_view workflow_id) override;
  std::string output_key(std::string_view extension) override;
  ObjectStore& objects(std::string_view bucket) override;
  KeyValue& key_value(std::string_view bucket) override;
  std::string scratch() override;

 private:
  const Stage& stage_;
  const Settings& settings_;
  const Logger& logger_;
  Stores& stores_;
  MessageInfo message_;
  std::chrono::steady_clock::time_point deadline_;
  std::stop_token stop_;
  mutable std::optional<Logger> call_logger_;  // made when a handler logs: most don't
  int output_keys_ = 0;
  std::filesystem::path scratch_;
};

}  // namespace pipegen::worker
