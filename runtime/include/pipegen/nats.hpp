// NATS: the connection, and what a service needs to exist on the server. No nats.c header is included from here.
//
//   pipegen::nats::Connection nats(pipegen::nats::options_from(settings, "tts"));
//   pipegen::nats::ensure(nats, topology);
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/error.hpp"
#include "pipegen/settings.hpp"

namespace pipegen {

class Metrics;

enum class Retention { kLimits, kInterest, kWorkQueue };
enum class Storage { kFile, kMemory };
/// What a full stream does: refuse the new message (the publisher gets an error), or drop the oldest.
enum class Discard { kNew, kOld };

/// A stream as the schema wants it, under the name that the settings give it. Zero means no limit.
struct StreamSpec {
  std::string name{};
  std::vector<std::string> subjects{};
  Retention retention = Retention::kLimits;
  Storage storage = Storage::kFile;
  Discard discard = Discard::kNew;
  std::chrono::milliseconds max_age{0};
  std::int64_t max_bytes = 0;
  std::int64_t max_messages = 0;
  std::chrono::milliseconds duplicate_window{120'000};
  int replicas = 1;
};

/// An object-store bucket (ADR-20) or a key-value bucket (ADR-8). `schema_name` is what generated code calls it,
/// `name` what it is called on the server.
struct BucketSpec {
  std::string schema_name{};
  std::string name{};
  Storage storage = Storage::kFile;
  std::chrono::milliseconds max_age{0};
  std::int64_t max_bytes = 0;
  int replicas = 1;
};

/// Everything that must exist before a service starts. Generated code adds one by one: calls compile in a fraction of
/// the time of lists of such structs.
struct Topology {
  std::vector<StreamSpec> streams{};
  std::vector<BucketSpec> object_buckets{};
  std::vector<BucketSpec> key_values{};

  void add_stream(StreamSpec stream);
  void add_object_bucket(BucketSpec bucket);
  void add_key_value(BucketSpec bucket);
};

namespace nats {

/// Headers of a message; names keep their case.
using Headers = std::map<std::string, std::string>;

/// How to reach and trust the server. From [nats] url, user, password, token, credentials_file, tls_ca_file,
/// tls_certificate_file, tls_key_file (and password_file, token_file); a url may name several servers, with commas.
struct ConnectionOptions {
  std::string url = "nats://127.0.0.1:4222";
  std::string name{};
  std::optional<std::string> user{}, password{}, token{}, credentials_file{};
  std::optional<std::string> tls_ca_file{}, tls_certificate_file{}, tls_key_file{};
  /// Shows the state of the connection, counts reconnects and octets of objects, if set. Must outlive the connection.
  Metrics* metrics = nullptr;
};
ConnectionOptions options_from(const Settings& settings, std::string_view service_name);

/// A publish that was sent and not answered: it may be stored all the same. Send it again with the same message id, and
/// undo nothing that it refers to.
class Unconfirmed : public Unavailable {
 public:
  using Unavailable::Unavailable;
};

/// A publish that was refused because the stream has no room: nothing was stored, and nothing will be until its
/// messages are consumed or it is given more room.
class StreamFull : public Unavailable {
 public:
  using Unavailable::Unavailable;
};

/// What the server said to a publish.
struct PublishAck {
  std::string stream{};
  std::uint64_t sequence = 0;
  bool duplicate = false;
};

/// A connection for publishing and one for consuming (nats.c wants them set up differently), each with its
/// JetStream context. Reconnects for ever, with jitter. Thread safe.
class Connection {
 public:
  /// Connects; waits for a server that is not there yet as long as `first_wait` (zero: for ever). Throws ConfigError
  /// when the server refuses the credentials, the certificate is not good, or it has no JetStream.
  explicit Connection(ConnectionOptions options, std::chrono::milliseconds first_wait = std::chrono::seconds(30));
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool connected() const;
  /// True when the server refused something so that this connection never comes back (other credentials, a protocol
  /// error): only a new Connection can go on.
  bool closed_for_good() const;
  /// What the server does not let this user do, as it said last, and what to do about it; empty: nothing so far. A
  /// request that is forbidden gets no answer, so that this is all there is to tell it from a server that is slow.
  std::string forbidden() const;
  /// Asks whether this user may publish to the subjects, with an empty message for each that its stream refuses to
  /// store. Those with wildcards are left out, and those without a stream. Throws ConfigError.
  void require_publishable(const std::vector<std::string>& subjects);
  /// Called from a thread of the library at every change of connected().
  void on_change(std::function<void(bool connected)> callback);
  std::int64_t max_payload() const;

  /// Publishes and waits for the stream's ack, 5 s at most. Throws Unconfirmed (sent, but no answer), any other
  /// Unavailable (not stored: no connection, no responders; StreamFull) or PermanentError (larger than max_payload or
  /// the stream's max_msg_size; no subject that can be published to, or one of more than 3 KiB). Give `message_id`: a
  /// publish that timed out may still arrive.
  PublishAck publish(std::string_view subject, std::string_view payload, std::string_view message_id,
                     const Headers& headers = {});

  /// The same for many threads at a time: what they publish within a millisecond goes out together, so each waits a
  /// millisecond longer and all of them get through several times as much. Waits for the ack for 10 s at most, and not
  /// when the connection breaks meanwhile.
  PublishAck publish_together(std::string_view subject, std::string_view payload, std::string_view message_id,
                              const Headers& headers = {});

  /// Publishes without waiting; `done` is called once, from a thread of the library, with the ack or the error text;
  /// `permanent` says that trying again cannot help (too large for the server or its stream, no possible subject).
  using Done = std::function<void(const PublishAck* ack, std::string_view error, bool permanent)>;
  void publish_async(std::string_view subject, std::string_view payload, std::string_view message_id,
                     const Headers& headers, Done done);

  /// nats.c handles for the rest of runtime/nats: natsConnection* and jsCtx* of the publishing and consuming side.
  struct Handles;
  Handles& handles() noexcept { return *handles_; }

 private:
  std::unique_ptr<Handles> handles_;
};

/// Creates what is missing and compares what is there. A stream that lacks subjects, or whose duplicate window is
/// shorter, is extended; more than that is fine. Throws ConfigError with the difference, one line per setting, when
/// something exists with other settings or with limits that lose messages (one message per subject, no acks), when two
/// streams claim a subject, or when the combination is unsafe (a work queue that discards old messages). Throws
/// Unavailable. Blocks; several services may call it at the same time.
void ensure(Connection& connection, const Topology& topology);

}  // namespace nats
}  // namespace pipegen
