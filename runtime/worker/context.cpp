#include "worker/context.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace pipegen::worker {

Stores::Stores(nats::Connection& connection, const Topology& topology) {
  for (const BucketSpec& bucket : topology.object_buckets) {
    objects.emplace(bucket.schema_name.empty() ? bucket.name : bucket.schema_name,
                    ObjectStore(connection, bucket.name));
  }
  for (const BucketSpec& bucket : topology.key_values) {
    key_values.emplace(bucket.schema_name.empty() ? bucket.name : bucket.schema_name,
                       KeyValue(connection, bucket.name));
  }
}

CallContext::CallContext(MessageInfo message, const Stage& stage, const Settings& settings, const Logger& logger,
                         Stores& stores, std::chrono::steady_clock::time_point deadline, std::stop_token stop)
    : stage_(stage),
      settings_(settings),
      logger_(logger),
      stores_(stores),
      message_(std::move(message)),
      deadline_(deadline),
      stop_(std::move(stop)) {}

CallContext::~CallContext() {
  if (scratch_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(scratch_, ignored);
}

const Logger& CallContext::log() const {
  if (!call_logger_) {
    const Logger logger =
        message_.workflow_id.empty() ? logger_ : logger_.with({{"workflow_id", message_.workflow_id}});
    call_logger_ = logger.with(
        {{"message_id", message_.id}, {"trace_id", message_.trace.trace_id()}, {"span_id", message_.trace.span_id()}});
  }
  return *call_logger_;
}

void CallContext::set_workflow(std::string_view workflow_id) {
  // The header wins: it was there before anybody could parse the message, so a dead letter says the same.
  if (!message_.workflow_id.empty() || workflow_id.empty()) return;
  message_.workflow_id = workflow_id;
  call_logger_.reset();
}

std::string CallContext::output_key(std::string_view extension) {
  // Tokens of keys are good parts of an object's name too: short, printable, without a slash of their own.
  std::string key = message_.workflow_id.empty() ? std::string() : KeyValue::key_token(message_.workflow_id) + "/";
  key += stage_.name + "/" + KeyValue::key_token(message_.id);
  if (++output_keys_ > 1) key += "-" + std::to_string(output_keys_);
  if (!extension.empty()) key.append(".").append(extension);
  return key;
}

ObjectStore& CallContext::objects(std::string_view bucket) {
  const auto at = stores_.objects.find(bucket);
  if (at == stores_.objects.end()) {
    throw ConfigError("stage " + stage_.name + " does not use an object bucket " + std::string(bucket) +
                      " in its schema");
  }
  return at->second;
}

KeyValue& CallContext::key_value(std::string_view bucket) {
  const auto at = stores_.key_values.find(bucket);
  if (at == stores_.key_values.end()) {
    throw ConfigError("stage " + stage_.name + " does not use a key-value bucket " + std::string(bucket) +
                      " in its schema");
  }
  return at->second;
}

std::string CallContext::scratch() {
  if (scratch_.empty()) {
    std::string pattern = (std::filesystem::temp_directory_path() / "pipegen-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
      throw TransientError("cannot make a scratch folder " + pattern + ": " + std::strerror(errno));
    }
    scratch_ = pattern;
  }
  return scratch_;
}

}  // namespace pipegen::worker
