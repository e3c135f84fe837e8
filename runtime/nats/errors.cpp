#include <cstdlib>
#include <memory>

#include "nats/handles.hpp"

namespace pipegen::nats {
namespace {

std::string last_error(natsStatus status) {
  natsStatus last = NATS_OK;
  const char* text = nats_GetLastError(&last);
  if (last == status && text != nullptr && *text != '\0') return without_secrets(text);
  return natsStatus_GetText(status);
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

std::vector<std::pair<std::string, std::string>> headers_of(natsMsg* message) {
  std::vector<std::pair<std::string, std::string>> headers;
  const char** names = nullptr;
  int count = 0;
  if (natsMsgHeader_Keys(message, &names, &count) != NATS_OK) return headers;
  const std::unique_ptr<const char*, Free> owned_names(names);
  for (int i = 0; i < count; ++i) {
    const char** values = nullptr;
    int value_count = 0;
    if (natsMsgHeader_Values(message, names[i], &values, &value_count) != NATS_OK) continue;
    const std::unique_ptr<const char*, Free> owned_values(values);
    for (int j = 0; j < value_count; ++j) headers.emplace_back(names[i], values[j]);
  }
  return headers;
}

std::string without_secrets(std::string_view text) {
  std::string out;
  for (;;) {
    const auto scheme = text.find("://");
    if (scheme == std::string_view::npos) return out.append(text);
    const auto start = scheme + 3;
    // A password may hold '/', ',' and '@' as they are: it ends at the last '@' before the next URL.
    auto end = std::min(text.find_first_of(" \t\r\n\"'", start), text.size());
    if (const auto next = text.substr(start, end - start).find("://"); next != std::string_view::npos) {
      end = std::min(text.rfind(',', start + next), end);
    }
    const auto at = text.substr(start, end - start).rfind('@');
    out.append(text.substr(0, start));
    out.append(text.substr(at == std::string_view::npos ? start : start + at + 1,
                           at == std::string_view::npos ? end - start : end - start - at - 1));
    text.remove_prefix(end);
  }
}

void throw_status(natsStatus status, std::string_view what) {
  const std::string text = std::string(what) + ": " + last_error(status);
  switch (status) {
    case NATS_TIMEOUT:
      throw Unavailable(std::string(what) + ": the NATS server did not answer in time");
    case NATS_NO_RESPONDERS:
      throw Unavailable(std::string(what) + ": nobody answers (JetStream is away, or no stream has this subject)");
    case NATS_CONNECTION_CLOSED:
    case NATS_CONNECTION_DISCONNECTED:
    case NATS_NOT_YET_CONNECTED:
    case NATS_NO_SERVER:
    case NATS_IO_ERROR:
    case NATS_STALE_CONNECTION:
    case NATS_INSUFFICIENT_BUFFER:
      throw Unavailable(std::string(what) + ": the NATS server is not connected");
    case NATS_MISSED_HEARTBEAT:
    case NATS_SLOW_CONSUMER:
    case NATS_DRAINING:
      throw Unavailable(text);
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_NOT_PERMITTED:
    case NATS_SSL_ERROR:
    case NATS_SECURE_CONNECTION_WANTED:
    case NATS_SECURE_CONNECTION_REQUIRED:
      throw ConfigError(text);
    case NATS_MAX_PAYLOAD:
      throw PermanentError(std::string(what) + ": larger than the server's max_payload");
    case NATS_INVALID_SUBJECT:
      throw PermanentError(std::string(what) + ": not a subject that can be published to");
    default:
      throw TransientError(text);
  }
}

void throw_status(natsStatus status, jsErrCode code, std::string_view what) {
  const std::string text = std::string(what) + ": " + last_error(status);
  switch (static_cast<int>(code)) {
    case 0:
      throw_status(status, what);
    case JSClusterNotAvailErr:
    case JSClusterNotLeaderErr:
    case JSClusterIncompleteErr:
    case JSInsufficientResourcesErr:
    case JSMemoryResourcesExceededErr:
    case JSStorageResourcesExceededErr:
    case JSAccountResourcesExceededErr:
    case JSStreamStoreFailedErr:
    case JSStreamOfflineErr:
    case JSConsumerOfflineErr:
      throw Unavailable(text);
    case JSStreamNotFoundErr:
    case JSConsumerNotFoundErr:
    case JSNotEnabledErr:
    case JSNotEnabledForAccountErr:
      throw ConfigError(text);
    case JSStreamMessageExceedsMaximumErr:
      throw PermanentError(text);
    default:
      throw TransientError(text);
  }
}

}  // namespace pipegen::nats
