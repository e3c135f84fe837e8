#include "http/idempotency.hpp"

#include "core/sha256.hpp"
#include "pipegen/json.hpp"
#include "pipegen/nats.hpp"

namespace pipegen::http {

namespace {

struct Entry {
  std::string state;
  Timestamp at{};
  std::string id;
  std::string digest;
  std::string response;
};

Entry read_entry(json::Reader& in) {
  static constexpr json::Field kFields[] = {
      {"state"}, {"at"}, {"id", json::kOptional}, {"digest", json::kOptional}, {"response", json::kOptional}};
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
        out.id = in.string();
        break;
      case 3:
        out.digest = in.string();
        break;
      case 4:
        out.response = in.string();
        break;
    }
  }
  return out;
}

}  // namespace

Problem other_payload() {
  return Problem(422, "this Idempotency-Key was used before, with another payload; give a new one");
}

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

Idempotency::Idempotency(nats::Connection& connection, std::string bucket, std::chrono::milliseconds takeover,
                         const AnyClock& clock)
    : store_(connection, std::move(bucket)), takeover_(takeover), clock_(&clock) {}

std::string Idempotency::text_of(std::string_view state, const Claim& claim, std::string_view digest,
                                 std::string_view response) const {
  json::Writer out;
  out.begin_object();
  out.field("state", state);
  out.field("at", clock_->wall_time());
  out.field("id", claim.id);
  if (!digest.empty()) out.field("digest", digest);
  if (!response.empty()) out.field("response", response);
  out.end_object();
  return out.take();
}

Idempotency::Claim Idempotency::begin(std::string_view path, std::string_view key) {
  Claim claim;
  try {
    begin(claim, path, key);
  } catch (const nats::Unconfirmed&) {
    if (claim.unconfirmed.empty()) throw;
    claim.state = Claim::State::kUnsure;
  }
  return claim;
}

void Idempotency::begin(Claim& claim, std::string_view path, std::string_view key) {
  std::string name(path);
  name.append(":").append(key);
  claim.entry = base64url(Sha256::of(bytes_of(name)));
  const std::string new_id = Uuid::random().to_string();
  // Whoever loses a race looks again: the winner's entry says what to do.
  for (int tries = 0; tries < 5; ++tries) {
    claim.id = new_id;
    claim.digest.clear();
    claim.unconfirmed = text_of("running", claim, {});
    const auto created = store_.create(claim.entry, claim.unconfirmed);
    claim.unconfirmed.clear();
    if (created) {
      claim.state = Claim::State::kMine;
      claim.revision = *created;
      return;
    }
    const auto found = store_.get(claim.entry);
    if (!found) continue;  // expired in between
    Entry entry;
    try {
      entry = json::parse(found->value, read_entry);
    } catch (const json::Invalid&) {
      // Not written by us; treated like one that failed.
    }
    claim.digest = std::move(entry.digest);
    if (entry.state == "done") {
      claim.state = Claim::State::kDone;
      claim.response = std::move(entry.response);
      return;
    }
    if (entry.state == "running" && clock_->wall_time() - entry.at <= takeover_) return;
    if (Uuid::parse(entry.id)) claim.id = std::move(entry.id);
    if (put(claim, text_of("running", claim, claim.digest), found->revision)) {
      claim.state = Claim::State::kMine;
      return;
    }
  }
}

/// False when the entry has moved on from `revision`. An answer that is lost leaves what was sent in the claim.
bool Idempotency::put(Claim& claim, std::string text, std::uint64_t revision) {
  claim.unconfirmed = std::move(text);
  const auto stored = store_.update(claim.entry, claim.unconfirmed, revision);
  claim.unconfirmed.clear();
  if (stored) claim.revision = *stored;
  return stored.has_value();
}

void Idempotency::commit(Claim& claim, std::string_view digest) {
  if (!claim.digest.empty() && claim.digest != digest) throw other_payload();
  keep(claim, digest);
  claim.digest = digest;
}

void Idempotency::keep(Claim& claim) { keep(claim, claim.digest); }

void Idempotency::keep(Claim& claim, std::string_view digest) {
  if (put(claim, text_of("running", claim, digest), claim.revision)) return;
  throw Problem(409, "another request with this Idempotency-Key has taken over", {{"Retry-After", "1"}});
}

void Idempotency::finish(const Claim& claim, std::string_view response) {
  store_.update(claim.entry, text_of("done", claim, claim.digest, response), claim.revision);
}

void Idempotency::release(const Claim& claim, bool published) {
  const std::string text = text_of("free", claim, published ? claim.digest : "");
  if (store_.update(claim.entry, text, claim.revision) || claim.unconfirmed.empty()) return;
  // It is ours as long as its value is the one that got no answer.
  const auto found = store_.get(claim.entry);
  if (found && found->value == claim.unconfirmed) store_.update(claim.entry, text, found->revision);
}

}  // namespace pipegen::http
