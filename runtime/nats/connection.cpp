#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>

#include "nats/handles.hpp"
#include "nats/replies.hpp"
#include "pipegen/log.hpp"

namespace pipegen::nats {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// The library calls back until its Closed callback has run, from a thread of its own.
struct Connection::Handles::Shared {
  struct Side {
    Shared* shared = nullptr;
    std::string name{};
    bool opened = false;
    bool up = false;
    bool closed = false;
    Counter* reconnects = nullptr;
    Replies* replies = nullptr;  // while it exists
  };

  std::mutex mutex;
  std::condition_variable changed;
  Side publish{this, "publishing"};
  Side consume{this, "consuming"};
  std::atomic<bool> connected = false;
  std::atomic<std::uint64_t> breaks = 0;  // of either connection: no answer comes to what was sent before
  std::function<void(bool)> on_change;
  bool closing = false;
  std::string address;
  std::string forbidden_said;  // what the server said last about a permission
  Gauge* connected_gauge = nullptr;
  Logger log;

  std::string forbidden() {
    const std::lock_guard lock(mutex);
    if (forbidden_said.empty()) return {};
    return address + " does not let this user do what the service needs (" + forbidden_said +
           "): grant it in the server's permissions; every service needs $JS.API.> and $JS.ACK.> to publish, and "
           "_INBOX.> to subscribe";
  }
  /// Throws ConfigError.
  void refuse_if_forbidden() {
    if (const std::string why = forbidden(); !why.empty()) throw ConfigError(why);
  }

  void set(Side& side, bool up, bool closed = false) {
    std::function<void(bool)> callback;
    bool now_connected = false;
    bool lost = false;
    {
      const std::lock_guard lock(mutex);
      side.up = up;
      side.closed = side.closed || closed;
      lost = closed && !closing;
      now_connected = publish.up && consume.up;
      if (connected.exchange(now_connected) != now_connected && !closing) {
        callback = on_change;
        if (connected_gauge != nullptr) connected_gauge->set(now_connected ? 1 : 0);
      }
      changed.notify_all();
    }
    if (lost) log.error("the NATS connection is closed for good", {{"connection", side.name}});
    if (callback) callback(now_connected);
  }

  static void on_disconnected(natsConnection*, void* closure) {
    auto* side = static_cast<Side*>(closure);
    Shared& shared = *side->shared;
    ++shared.breaks;
    bool closing = false;
    {
      const std::lock_guard lock(shared.mutex);
      closing = shared.closing;
      if (side->replies != nullptr) side->replies->connection_lost();
    }
    if (!closing) {
      shared.log.warning("the NATS server is gone; connecting again",
                         {{"server", shared.address}, {"connection", side->name}});
    }
    shared.set(*side, false);
  }
  static void on_reconnected(natsConnection*, void* closure) {
    auto* side = static_cast<Side*>(closure);
    side->shared->log.info("the NATS server is back", {{"server", side->shared->address}, {"connection", side->name}});
    if (side->reconnects != nullptr) side->reconnects->add();
    side->shared->set(*side, true);
  }
  static void on_closed(natsConnection*, void* closure) {
    auto* side = static_cast<Side*>(closure);
    side->shared->set(*side, false, true);
  }
  /// What no call could return: a permission that is missing, a subscriber that is too slow.
  static void on_error(natsConnection* connection, natsSubscription*, natsStatus status, void* closure) {
    auto* side = static_cast<Side*>(closure);
    const char* text = nullptr;
    if (connection != nullptr) natsConnection_GetLastError(connection, &text);
    if (status == NATS_NOT_PERMITTED && text != nullptr) {
      const std::lock_guard lock(side->shared->mutex);
      side->shared->forbidden_said = text;
    }
    side->shared->log.warning("NATS reports an error", {{"connection", side->name},
                                                        {"status", natsStatus_GetText(status)},
                                                        {"error", without_secrets(text == nullptr ? "" : text)}});
  }
};

namespace {

/// Commas separate servers, but not inside of `user:password@`: then there is an '@' behind the comma and none before.
std::vector<std::string> servers_of(std::string_view urls) {
  std::vector<std::string> servers;
  while (!urls.empty()) {
    auto end = std::min(urls.find(','), urls.size());
    if (urls.substr(0, end).find('@') == std::string_view::npos) {
      const std::string_view rest = urls.substr(end);
      const auto at = rest.substr(0, rest.find("://")).rfind('@');
      if (at != std::string_view::npos) end = std::min(urls.find(',', end + at), urls.size());
    }
    std::string_view url = urls.substr(0, end);
    urls.remove_prefix(std::min(end + 1, urls.size()));
    while (!url.empty() && url.front() == ' ') url.remove_prefix(1);
    while (!url.empty() && url.back() == ' ') url.remove_suffix(1);
    if (url.empty()) continue;
    servers.push_back(url.find("://") == std::string_view::npos ? "nats://" + std::string(url) : std::string(url));
  }
  return servers;
}

std::string address_of(const std::vector<std::string>& servers) {
  std::string address;
  for (const auto& server : servers) address += (address.empty() ? "" : ", ") + without_secrets(server);
  return address;
}

void require_file(const std::optional<std::string>& file, std::string_view setting) {
  if (file && !std::filesystem::is_regular_file(*file)) {
    throw ConfigError(std::string(setting) + ": there is no file " + *file);
  }
}

/// The library would find out only while it connects, and not say which setting it is.
void require_credentials(const std::string& file) {
  std::ifstream in(file);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  if (text.find("BEGIN NATS USER JWT") == std::string::npos || text.find("BEGIN USER NKEY SEED") == std::string::npos) {
    throw ConfigError("nats.credentials_file: " + file +
                      " is not readable, or has no user JWT and seed: write it with `nsc generate creds`");
  }
}

/// The library does not look, and a server that does closes the connection without a word.
void require_valid(const std::string& file, std::string_view setting) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> in(BIO_new_file(file.c_str(), "r"), BIO_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(
      in ? PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr) : nullptr, X509_free);
  ERR_clear_error();
  if (!certificate) throw ConfigError(std::string(setting) + ": there is no certificate (PEM) in " + file);
  const auto text = [](const ASN1_TIME* time) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
    ASN1_TIME_print(out.get(), time);
    char* data = nullptr;
    const long size = BIO_get_mem_data(out.get(), &data);
    return std::string(data, static_cast<std::size_t>(size));
  };
  const ASN1_TIME* until = X509_get0_notAfter(certificate.get());
  const ASN1_TIME* from = X509_get0_notBefore(certificate.get());
  if (X509_cmp_current_time(until) < 0) {
    throw ConfigError(std::string(setting) + ": the certificate in " + file + " expired on " + text(until) +
                      ": renew it");
  }
  if (X509_cmp_current_time(from) > 0) {
    throw ConfigError(std::string(setting) + ": the certificate in " + file + " is good only from " + text(from) +
                      " on: check the clock of this machine");
  }
}

void require(natsStatus status, std::string_view setting) {
  if (status == NATS_OK) return;
  const char* text = nats_GetLastError(nullptr);
  throw ConfigError(std::string(setting) + " cannot be used: " +
                    without_secrets(text != nullptr && *text != '\0' ? text : natsStatus_GetText(status)));
}

void set_security(natsOptions* out, const ConnectionOptions& options, const std::vector<std::string>& servers) {
  require_file(options.credentials_file, "nats.credentials_file");
  require_file(options.tls_ca_file, "nats.tls_ca_file");
  require_file(options.tls_certificate_file, "nats.tls_certificate_file");
  require_file(options.tls_key_file, "nats.tls_key_file");
  if (options.tls_certificate_file.has_value() != options.tls_key_file.has_value()) {
    throw ConfigError("nats.tls_certificate_file and nats.tls_key_file belong together: set both or neither");
  }
  if (options.tls_certificate_file) require_valid(*options.tls_certificate_file, "nats.tls_certificate_file");
  if (options.password && !options.user) throw ConfigError("nats.password is set, nats.user is not: set both");
  if (options.user) {
    require(natsOptions_SetUserInfo(out, options.user->c_str(), options.password.value_or("").c_str()), "nats.user");
  }
  if (options.token) require(natsOptions_SetToken(out, options.token->c_str()), "nats.token");
  if (options.credentials_file) {
    require_credentials(*options.credentials_file);
    require(natsOptions_SetUserCredentialsFromFiles(out, options.credentials_file->c_str(), nullptr),
            "nats.credentials_file");
  }
  const bool tls_url =
      std::any_of(servers.begin(), servers.end(), [](const auto& s) { return s.starts_with("tls://"); });
  if (tls_url || options.tls_ca_file || options.tls_certificate_file) {
    require(natsOptions_SetSecure(out, true), "TLS");
    if (options.tls_ca_file) {
      require(natsOptions_LoadCATrustedCertificates(out, options.tls_ca_file->c_str()), "nats.tls_ca_file");
    }
    if (options.tls_certificate_file) {
      require(
          natsOptions_LoadCertificatesChain(out, options.tls_certificate_file->c_str(), options.tls_key_file->c_str()),
          "nats.tls_certificate_file with nats.tls_key_file");
    }
  }
}

Options options_of(const ConnectionOptions& options, const std::vector<std::string>& servers,
                   Connection::Handles::Shared::Side& side, bool send_asap) {
  using Shared = Connection::Handles::Shared;
  Options out;
  check(natsOptions_Create(out.out()), "cannot make NATS options");
  natsOptions* raw = out.get();
  std::vector<const char*> urls;
  for (const auto& server : servers) urls.push_back(server.c_str());
  require(natsOptions_SetServers(raw, urls.data(), static_cast<int>(urls.size())), "nats.url");
  set_security(raw, options, servers);
  const std::string name = (options.name.empty() ? "pipegen" : options.name) + "/" + side.name;
  natsOptions_SetName(raw, name.c_str());
  natsOptions_SetTimeout(raw, 5'000);
  natsOptions_SetMaxReconnect(raw, -1);
  natsOptions_SetReconnectWait(raw, 250);
  natsOptions_SetReconnectJitter(raw, 250, 250);
  natsOptions_SetPingInterval(raw, 10'000);
  natsOptions_SetMaxPingsOut(raw, 2);
  natsOptions_SetWriteDeadline(raw, 10'000);
  natsOptions_SetFailRequestsOnDisconnect(raw, true);
  natsOptions_SetSendAsap(raw, send_asap);
#if NATS_VERSION_NUMBER >= 0x030D00
  natsOptions_SetIgnoreAuthErrorAbort(raw, true);  // else a second refusal while reconnecting closes for good
#endif
  natsOptions_SetDisconnectedCB(raw, Shared::on_disconnected, &side);
  natsOptions_SetReconnectedCB(raw, Shared::on_reconnected, &side);
  natsOptions_SetClosedCB(raw, Shared::on_closed, &side);
  natsOptions_SetErrorHandler(raw, Shared::on_error, &side);
  return out;
}

std::string text_of(milliseconds time) {
  return time.count() % 1000 == 0 ? std::to_string(time.count() / 1000) + " s" : std::to_string(time.count()) + " ms";
}

/// Waits for the end of the first connection's patience; zero is for ever.
class Patience {
 public:
  explicit Patience(milliseconds time) : time_(time), end_(std::chrono::steady_clock::now() + time) {}
  bool over() const { return time_.count() > 0 && std::chrono::steady_clock::now() >= end_; }
  std::string text() const { return text_of(time_); }

 private:
  milliseconds time_;
  std::chrono::steady_clock::time_point end_;
};

[[noreturn]] void refuse(natsStatus status, const std::string& address) {
  const char* last = nats_GetLastError(nullptr);
  const std::string why = without_secrets(last != nullptr && *last != '\0' ? last : natsStatus_GetText(status));
  switch (status) {
    case NATS_CONNECTION_AUTH_FAILED:
    case NATS_NOT_PERMITTED:
      throw ConfigError(address +
                        " refuses the credentials: check nats.user and nats.password, nats.token or "
                        "nats.credentials_file");
    case NATS_SSL_ERROR:
      throw ConfigError(address + ": the TLS connection failed (" + why +
                        "): check nats.tls_ca_file, the host name in nats.url, that the server's certificate has not "
                        "expired, and nats.tls_certificate_file with nats.tls_key_file");
    case NATS_SECURE_CONNECTION_REQUIRED:
      throw ConfigError(address + " wants TLS: write nats.url as tls://… and set nats.tls_ca_file");
    case NATS_SECURE_CONNECTION_WANTED:
      throw ConfigError(address + " does not offer TLS: take tls:// out of nats.url and the nats.tls_… settings out");
    default:
      throw ConfigError(address + ": " + why + ": check nats.url");
  }
}

bool may_come_up(natsStatus status) {
  switch (status) {
    case NATS_NO_SERVER:
    case NATS_IO_ERROR:
    case NATS_TIMEOUT:
    case NATS_SYS_ERROR:
    case NATS_CONNECTION_CLOSED:
    case NATS_CONNECTION_DISCONNECTED:
    case NATS_STALE_CONNECTION:
      return true;
    default:
      return false;
  }
}

void pause(Connection::Handles::Shared& shared, milliseconds time) {
  std::unique_lock lock(shared.mutex);
  shared.changed.wait_for(lock, time, [] { return false; });
}

/// Not the library's RetryOnFailedConnect: that goes on for ever when it is the credentials that are wrong.
natsConnection* connect(natsOptions* options, Connection::Handles::Shared& shared,
                        Connection::Handles::Shared::Side& side, const Patience& patience) {
  natsConnection* connection = nullptr;
  for (bool first = true;; first = false) {
    const natsStatus status = natsConnection_Connect(&connection, options);
    if (status == NATS_OK) break;
    if (!may_come_up(status)) refuse(status, shared.address);
    if (patience.over()) {
      throw ConfigError("cannot reach " + shared.address + " for " + patience.text() +
                        ": start the NATS server, or check nats.url");
    }
    if (first) shared.log.info("waiting for the NATS server", {{"server", shared.address}});
    pause(shared, milliseconds(250));
  }
  {
    const std::lock_guard lock(shared.mutex);
    side.opened = true;
  }
  shared.set(side, true);
  return connection;
}

void require_jetstream(jsCtx* js, Connection::Handles::Shared& shared, const Patience& patience) {
  // A server that has no JetStream answers at once, but so does one that only just starts it.
  const Patience no_responders(seconds(2));
  for (bool first = true;; first = false) {
    jsAccountInfo* info = nullptr;
    jsErrCode code{};
    const natsStatus status = js_GetAccountInfo(&info, js, nullptr, &code);
    jsAccountInfo_Destroy(info);
    if (status == NATS_OK) return;
    const bool disabled =
        static_cast<int>(code) == JSNotEnabledErr || static_cast<int>(code) == JSNotEnabledForAccountErr;
    if (disabled && (static_cast<int>(code) == JSNotEnabledForAccountErr || no_responders.over())) {
      throw ConfigError(shared.address +
                        " has no JetStream: start it as `nats-server -js`, or enable JetStream for this account");
    }
    if (status == NATS_NO_RESPONDERS && no_responders.over()) {
      throw ConfigError(shared.address +
                        " has no JetStream: start it as `nats-server -js`, or enable JetStream for this account");
    }
    shared.refuse_if_forbidden();
    if (patience.over()) {
      throw ConfigError(shared.address + ": JetStream does not answer for " + patience.text() +
                        ": check that the cluster has a leader");
    }
    if (first) {
      shared.log.warning("waiting for JetStream: does the cluster have a leader?",
                         {{"server", shared.address}, {"reason", natsStatus_GetText(status)}});
    }
    pause(shared, milliseconds(200));
  }
}

}  // namespace

void check_security(const ConnectionOptions& options) {
  Options out;
  check(natsOptions_Create(out.out()), "cannot make NATS options");
  set_security(out.get(), options, {});
}

ConnectionOptions options_from(const Settings& settings, std::string_view service_name) {
  const auto optional = [&](std::string_view name) { return settings.find(name); };
  ConnectionOptions options;
  options.url = settings.text("nats.url", options.url);
  options.name = service_name;
  options.user = optional("nats.user");
  options.password = settings.secret("nats.password");
  options.token = settings.secret("nats.token");
  options.credentials_file = optional("nats.credentials_file");
  options.tls_ca_file = optional("nats.tls_ca_file");
  options.tls_certificate_file = optional("nats.tls_certificate_file");
  options.tls_key_file = optional("nats.tls_key_file");
  return options;
}

Connection::Handles::Handles() : shared(std::make_shared<Shared>()) {}

Connection::Handles::~Handles() {
  {
    const std::lock_guard lock(shared->mutex);
    shared->closing = true;
    shared->publish.replies = shared->consume.replies = nullptr;
  }
  if (publish != nullptr) natsConnection_FlushTimeout(publish, 1'000);
  if (consume != nullptr) natsConnection_FlushTimeout(consume, 1'000);
  publish_replies.reset();
  consume_replies.reset();
  jsCtx_Destroy(publish_js);
  jsCtx_Destroy(consume_js);
  natsConnection_Close(publish);
  natsConnection_Close(consume);
  {
    std::unique_lock lock(shared->mutex);
    const auto done = [](const Shared::Side& side) { return !side.opened || side.closed; };
    shared->changed.wait(lock, [&] { return done(shared->publish) && done(shared->consume); });
  }
  natsConnection_Destroy(publish);
  natsConnection_Destroy(consume);
}

void Connection::Handles::require_connected(std::string_view what, milliseconds patience) {
  if (shared->connected) return;
  std::unique_lock lock(shared->mutex);
  const bool up = shared->changed.wait_for(lock, patience, [this] { return shared->connected.load(); });
  if (!up) throw Unavailable(std::string(what) + ": the NATS server is not connected (" + shared->address + ")");
}

void Connection::Handles::refuse_if_forbidden() { shared->refuse_if_forbidden(); }

Connection::Connection(ConnectionOptions options, milliseconds first_wait) : handles_(std::make_unique<Handles>()) {
  // A lock of the library that is taken is waited for at once: to try it a thousand times first, as is its default,
  // takes the processor from whoever holds it when there are more threads than processors. Says no when it runs
  // already.
  static const natsStatus opened = nats_Open(0);
  static_cast<void>(opened);
  Handles& handles = *handles_;
  Handles::Shared& shared = *handles.shared;
  const auto servers = servers_of(options.url);
  if (servers.empty()) throw ConfigError("nats.url is empty: set it to nats://host:4222");
  shared.address = address_of(servers);

  if (options.metrics != nullptr) {
    Metrics& metrics = *options.metrics;
    handles.metrics = options.metrics;
    const auto octets = [&](const char* direction) {
      return &metrics.counter("pipegen_object_bytes_total", "Octets of objects.", {{"direction", direction}});
    };
    shared.connected_gauge = &metrics.gauge("pipegen_nats_connected", "1 while the NATS server is connected.");
    handles.objects_in = octets("in");
    handles.objects_out = octets("out");
    for (auto* side : {&shared.publish, &shared.consume}) {
      side->reconnects = &metrics.counter("pipegen_nats_reconnects_total", "Times that a connection to NATS came back.",
                                          {{"connection", side->name}});
    }
  }

  const Patience patience(first_wait);
  const Options publish = options_of(options, servers, shared.publish, false);
  const Options consume = options_of(options, servers, shared.consume, true);
  handles.publish = connect(publish.get(), shared, shared.publish, patience);
  handles.consume = connect(consume.get(), shared, shared.consume, patience);
  check(natsConnection_JetStream(&handles.publish_js, handles.publish, nullptr), "cannot use JetStream");
  check(natsConnection_JetStream(&handles.consume_js, handles.consume, nullptr), "cannot use JetStream");
  require_jetstream(handles.consume_js, shared, patience);
  handles.publish_replies = std::make_unique<Replies>(handles.publish, seconds(10));
  handles.consume_replies = std::make_unique<Replies>(handles.consume, seconds(5));
  const std::lock_guard lock(shared.mutex);
  shared.publish.replies = handles.publish_replies.get();
  shared.consume.replies = handles.consume_replies.get();
}

Connection::~Connection() = default;

bool Connection::connected() const { return handles_->shared->connected; }

bool Connection::closed_for_good() const {
  const Handles::Shared& shared = *handles_->shared;
  const std::lock_guard lock(handles_->shared->mutex);
  return !shared.closing && (shared.publish.closed || shared.consume.closed);
}

std::string Connection::forbidden() const { return handles_->shared->forbidden(); }

void Connection::require_publishable(const std::vector<std::string>& subjects) {
  std::vector<std::future<void>> answers;
  for (const auto& subject : subjects) {
    if (subject.find_first_of("*>") != std::string::npos) continue;
    auto promise = std::make_shared<std::promise<void>>();
    answers.push_back(promise->get_future());
    handles_->consume_replies->publish(subject, {}, {{"Nats-Expected-Stream", "_pipegen_may_it_publish"}},
                                       [promise](const Outcome&) { promise->set_value(); });
  }
  for (const auto& answer : answers) {
    while (answer.wait_for(milliseconds(20)) != std::future_status::ready) handles_->shared->refuse_if_forbidden();
  }
}

void Connection::on_change(std::function<void(bool connected)> callback) {
  const std::lock_guard lock(handles_->shared->mutex);
  handles_->shared->on_change = std::move(callback);
}

std::int64_t Connection::max_payload() const { return natsConnection_GetMaxPayload(handles_->publish); }

namespace {

Headers with_id(const Headers& headers, std::string_view message_id) {
  Headers all = headers;
  if (!message_id.empty()) all.insert_or_assign("Nats-Msg-Id", std::string(message_id));
  return all;
}

}  // namespace

PublishAck Connection::publish(std::string_view subject, std::string_view payload, std::string_view message_id,
                               const Headers& headers) {
  const std::string what = "event on " + std::string(subject);
  handles_->require_connected(what);
  const Outcome outcome =
      handles_->consume_replies->publish(std::string(subject), payload, with_id(headers, message_id));
  if (!outcome.stored()) throw_outcome(outcome, what);
  return outcome.ack;
}

PublishAck Connection::publish_together(std::string_view subject, std::string_view payload, std::string_view message_id,
                                        const Headers& headers) {
  const std::string what = "event on " + std::string(subject);
  handles_->require_connected(what);
  const std::atomic<std::uint64_t>& breaks = handles_->shared->breaks;
  const std::uint64_t before = breaks;
  auto promise = std::make_shared<std::promise<Outcome>>();
  auto answer = promise->get_future();
  handles_->publish_replies->publish(std::string(subject), payload, with_id(headers, message_id),
                                     [promise](Outcome outcome) { promise->set_value(std::move(outcome)); });
  while (answer.wait_for(milliseconds(100)) != std::future_status::ready) {
    if (breaks != before) throw Unconfirmed(what + " was sent, and then the NATS server went away before its ack");
  }
  const Outcome outcome = answer.get();
  if (!outcome.stored()) throw_outcome(outcome, what);
  return outcome.ack;
}

void Connection::publish_async(std::string_view subject, std::string_view payload, std::string_view message_id,
                               const Headers& headers, Done done) {
  handles_->publish_replies->publish(std::string(subject), payload, with_id(headers, message_id),
                                     [done = std::move(done), subject = std::string(subject)](const Outcome& outcome) {
                                       if (outcome.stored()) {
                                         done(&outcome.ack, {}, false);
                                       } else {
                                         done(nullptr, explain(outcome, "event on " + subject), is_permanent(outcome));
                                       }
                                     });
}

}  // namespace pipegen::nats
