// Notices that the files of a connection's certificates were renewed: nats.c reads them once.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "pipegen/log.hpp"
#include "pipegen/nats.hpp"

namespace pipegen::nats {

/// One thread uses it at a time.
class CertificateWatch {
 public:
  /// Looks every `every`. Compares with the files as they are now.
  CertificateWatch(ConnectionOptions options, std::chrono::milliseconds every,
                   const AnyClock& clock = AnyClock::real());
  /// The same, every [nats] certificates_every: a minute.
  CertificateWatch(const ConnectionOptions& options, const Settings& settings);

  /// Whether the files are others than at first, can be used, and stayed as they are from one look to the next: a
  /// certificate and its key are not written at once. Cheap; to be called often. Logs once what cannot be used.
  bool renewed();

 private:
  struct File {
    bool operator==(const File&) const = default;
    ino_t inode = 0;
    off_t size = 0;
    std::int64_t changed = 0;  // nanoseconds since the epoch
  };
  std::vector<File> look() const;

  const ConnectionOptions options_;
  const std::chrono::milliseconds every_;
  const AnyClock& clock_;
  Logger log_;
  std::vector<File> in_use_;
  std::vector<File> seen_;
  AnyClock::TimePoint next_look_;
};

}  // namespace pipegen::nats
