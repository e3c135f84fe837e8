#include "http/idempotency.hpp"

#include "core/sha256.hpp"
#include "http/server.hpp"
#include "pipegen/json.hpp"

namespace pipegen::http {

namespace {

struct Entry {
  std::string state;
  Timestamp at{};
  std::string digest;
  std::string response;
};

Entry read_entry(json::Reader& in) {
  static constexpr json::Field kFields[] = {
      {"state"}, {"at"}, {"digest", json::kOptional}, {"response", json::kOptional}};
  Entry out;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        out.state = in.string();
        break;
      case 1:
        out.at = in.timestamp();
        break;
      case 2:
        out.digest = in.string();
        break;
      case 3:
        out.response = in.string();
        break;
    }
  }
  return out;
}

std::string text_of(const Entry& entry) {
  json::Writer out;
  out.begin_object();
  out.field("state", entry.state);
  out.field("at", entry.at);
  if (entry.state == "done") {
    out.field("digest", entry.digest);
    out.field("response", entry.response);
  }
  out.end_object();
  return out.take();
}

}  // namespace

std::string parse_idempotency_key(std::string_view header) {
  const auto bad = [] {
    return Problem(400, "Idempotency-Key must be 1 to 255 visible characters, with or without quotes");
  };
  std::string key;
  if (header.starts_with('"')) {
    std::size_t at = 1;
    for (; at < header.size() && header[at] != '"'; ++at) {
      if (header[at] == '\\' && ++at == header.size()) throw bad();
      key.push_back(header[at]);
    }
    if (at + 1 != header.size()) throw bad();
  } else {
    key = header;
  }
  if (key.empty() || key.size() > 255) throw bad();
  for (const unsigned char c : key) {
    if (c < 0x20 || c > 0x7e) throw bad();
  }
  return key;
}

Idempotency::Idempotency(nats::Connection& connection, std::string bucket, std::chrono::milliseconds takeover)
    : store_(connection, std::move(bucket)), takeover_(takeover) {}

Idempotency::Claim Idempotency::begin(std::string_view path, std::string_view key) {
  std::string name(path);
  name.append(":").append(key);
  Claim claim;
  claim.entry = base64url(Sha256::of(bytes_of(name)));
  const std::string running = text_of({.state = "running", .at = now(), .digest = {}, .response = {}});
  // Whoever loses a race looks again: the winner's entry says what to do.
  for (int tries = 0; tries < 5; ++tries) {
    if (const auto revision = store_.create(claim.entry, running)) {
      claim.state = Claim::State::kMine;
      claim.revision = *revision;
      return claim;
    }
    const auto found = store_.get(claim.entry);
    if (!found) continue;  // expired in between
    Entry entry;
    try {
      entry = json::parse(found->value, read_entry);
    } catch (const json::Invalid&) {
      // Not written by us; treated like one that failed.
    }
    if (entry.state == "done") {
      claim.state = Claim::State::kDone;
      claim.digest = std::move(entry.digest);
      claim.response = std::move(entry.response);
      return claim;
    }
    const bool died = entry.state == "running" && now() - entry.at > takeover_;
    if (entry.state == "running" && !died) return claim;
    if (const auto revision = store_.update(claim.entry, running, found->revision)) {
      claim.state = Claim::State::kMine;
      claim.revision = *revision;
      claim.taken_over = died;
      return claim;
    }
  }
  return claim;
}

void Idempotency::finish(const Claim& claim, std::string_view digest, std::string_view response) {
  store_.update(
      claim.entry,
      text_of({.state = "done", .at = now(), .digest = std::string(digest), .response = std::string(response)}),
      claim.revision);
}

void Idempotency::release(const Claim& claim) {
  store_.update(claim.entry, text_of({.state = "free", .at = now(), .digest = {}, .response = {}}), claim.revision);
}

}  // namespace pipegen::http
