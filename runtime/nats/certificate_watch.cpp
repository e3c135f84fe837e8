#include "nats/certificate_watch.hpp"

#include <sys/stat.h>

#include <utility>

#include "nats/handles.hpp"

namespace pipegen::nats {

CertificateWatch::CertificateWatch(ConnectionOptions options, std::chrono::milliseconds every, const AnyClock& clock)
    : options_(std::move(options)),
      every_(every),
      clock_(clock),
      in_use_(look()),
      seen_(in_use_),
      next_look_(clock_.now() + every_) {}

CertificateWatch::CertificateWatch(const ConnectionOptions& options, const Settings& settings)
    : CertificateWatch(options, settings.duration("nats.certificates_every", std::chrono::minutes(1))) {}

bool CertificateWatch::renewed() {
  const auto now = clock_.now();
  if (now < next_look_) return false;
  next_look_ = now + every_;
  std::vector<File> files = look();
  if (files != seen_) {
    seen_ = std::move(files);
    return false;
  }
  if (seen_ == in_use_) return false;
  try {
    check_security(options_);
    return true;
  } catch (const ConfigError& error) {
    log_.error("the certificates were renewed and cannot be used; the connection keeps those it has",
               {{"error", error.what()}});
    in_use_ = seen_;
    return false;
  }
}

std::vector<CertificateWatch::File> CertificateWatch::look() const {
  std::vector<File> files;
  for (const auto* name : {&options_.tls_ca_file, &options_.tls_certificate_file, &options_.tls_key_file}) {
    if (!*name) continue;
    struct stat status {};
    if (::stat((*name)->c_str(), &status) != 0) status = {};
    files.push_back({status.st_ino, status.st_size, status.st_mtim.tv_sec * 1'000'000'000LL + status.st_mtim.tv_nsec});
  }
  return files;
}

}  // namespace pipegen::nats
