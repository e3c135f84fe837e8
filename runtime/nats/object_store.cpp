#include "pipegen/object_store.hpp"

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <set>

#include "core/encoding.hpp"
#include "core/nuid.hpp"
#include "core/sha256.hpp"
#include "core/trace.hpp"
#include "nats/replies.hpp"
#include "nats/stored.hpp"
#include "pipegen/error.hpp"
#include "pipegen/json.hpp"

namespace pipegen {
namespace {

using nats::Connection;
using nats::Message;
using nats::Outcome;
using nats::Stored;

constexpr std::size_t kChunkSize = 128 * 1024;
constexpr std::size_t kWindow = 16;
constexpr std::size_t kFileBuffer = 256 * 1024;

std::string stream_of(const std::string& bucket) { return "OBJ_" + bucket; }
std::string chunks_of(const std::string& bucket, const std::string& nuid) { return "$O." + bucket + ".C." + nuid; }
std::string meta_prefix(const std::string& bucket) { return "$O." + bucket + ".M."; }
std::string meta_of(const std::string& bucket, std::string_view name) {
  return meta_prefix(bucket) + base64url(bytes_of(name));
}
std::string bucket_text(const std::string& bucket) { return "object bucket " + bucket; }
std::string object_text(const std::string& bucket, std::string_view name) {
  return "object \"" + std::string(name) + "\" in bucket " + bucket;
}

void check_name(std::string_view name) {
  const bool good = !name.empty() && name.size() <= 1024 &&
                    std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!good) {
    throw PermanentError("\"" + std::string(name.substr(0, 1024)) +
                         "\" cannot name an object: printable ASCII, 1 to 1024 characters (percent-encode the rest)");
  }
}

/// The metadata message of an object, and where it is stored.
struct Meta {
  ObjectInfo info{};
  std::uint64_t sequence = 0;
  std::uint64_t chunk_size = kChunkSize;
  bool deleted = false;
  bool link = false;
};

std::map<std::string, std::string> read_texts(const Json& json) {
  try {
    return json::parse(json.text, [](json::Reader& in) {
      return in.map<std::string>([](json::Reader& value) { return value.string(); });
    });
  } catch (const json::Invalid&) {
    return {};  // ADR-20's own example shows a list here; nothing of ours depends on it
  }
}

void read_options(json::Reader& in, Meta& meta) {
  static constexpr json::Field kFields[] = {{"link", json::kOptional}, {"max_chunk_size", json::kOptional}};
  for (json::Object fields(in, kFields); fields.next();) {
    if (fields.index() == 0) {
      meta.link = in.json().text != "null";
    } else if (const auto size = in.int64(); size > 0) {
      meta.chunk_size = static_cast<std::uint64_t>(size);
    }
  }
}

Meta read_meta(json::Reader& in) {
  static constexpr json::Field kFields[] = {{"name"},
                                            {"bucket", json::kOptional},
                                            {"nuid", json::kOptional},
                                            {"size", json::kOptional},
                                            {"chunks", json::kOptional},
                                            {"digest", json::kOptional},
                                            {"deleted", json::kOptional},
                                            {"metadata", json::kOptional},
                                            {"options", json::kOptional}};
  Meta meta;
  for (json::Object fields(in, kFields); fields.next();) {
    switch (fields.index()) {
      case 0:
        meta.info.name = in.string();
        break;
      case 1:
        meta.info.bucket = in.string();
        break;
      case 2:
        meta.info.nuid = in.string();
        break;
      case 3:
        meta.info.size = static_cast<std::uint64_t>(in.int64({.min = 0}));
        break;
      case 4:
        meta.info.chunks = static_cast<std::uint32_t>(in.int64({.min = 0, .max = 0xffffffff}));
        break;
      case 5:
        meta.info.digest = in.string();
        break;
      case 6:
        meta.deleted = in.boolean();
        break;
      case 7:
        meta.info.metadata = read_texts(in.json());
        break;
      case 8:
        read_options(in, meta);
        break;
    }
  }
  return meta;
}

Meta meta_from(const Stored& message, const std::string& bucket) {
  try {
    Meta meta = json::parse(message.data, read_meta);
    meta.sequence = message.sequence;
    meta.info.bucket = bucket;
    meta.info.modified = message.time;  // the time of the message is the truth; "mtime" is often zero
    return meta;
  } catch (const json::Invalid& error) {
    throw PermanentError("the metadata of an object in bucket " + bucket + " is not ADR-20's (" + message.subject +
                         ", sequence " + std::to_string(message.sequence) + "): " + error.what());
  }
}

std::string to_json(const Meta& meta) {
  const ObjectInfo& info = meta.info;
  json::Writer out;
  out.begin_object();
  out.field("name", info.name);
  if (!info.metadata.empty()) out.field("metadata", info.metadata);
  out.key("options");
  out.begin_object();
  out.field("max_chunk_size", static_cast<std::int64_t>(meta.chunk_size));
  out.end_object();
  out.field("bucket", info.bucket);
  out.field("nuid", info.nuid);
  out.field("size", static_cast<std::int64_t>(info.size));
  out.field("mtime", info.modified);
  out.field("chunks", static_cast<std::int64_t>(info.chunks));
  out.field("digest", info.digest);
  if (meta.deleted) out.field("deleted", true);
  out.end_object();
  return out.take();
}

std::optional<Meta> find_meta(Connection& connection, const std::string& bucket, std::string_view name) {
  const auto message =
      nats::last_message(connection.handles(), stream_of(bucket), meta_of(bucket, name), bucket_text(bucket));
  if (!message) return std::nullopt;
  return meta_from(*message, bucket);
}

/// What a new version would take the place of. Metadata that nobody can read is no reason to keep it: all that counts
/// is where it is stored. Its chunks are found by collect_garbage() then.
std::optional<Meta> find_version(Connection& connection, const std::string& bucket, std::string_view name) {
  const auto message =
      nats::last_message(connection.handles(), stream_of(bucket), meta_of(bucket, name), bucket_text(bucket));
  if (!message) return std::nullopt;
  try {
    return meta_from(*message, bucket);
  } catch (const PermanentError&) {
    Meta meta;
    meta.info.name = std::string(name);
    meta.info.bucket = bucket;
    meta.sequence = message->sequence;
    return meta;
  }
}

/// Publishes metadata in place of what is there, and purges the chunks that it replaced. Whoever replaces a version
/// knows exactly which one it was, so that two writers of one name leave no chunks behind.
Outcome replace_meta(Connection& connection, const std::string& bucket, const Meta& meta, std::optional<Meta> current) {
  const std::string subject = meta_of(bucket, meta.info.name);
  const std::string body = to_json(meta);
  for (;;) {
    const std::uint64_t expected = current ? current->sequence : 0;
    const Outcome outcome = connection.handles().consume_replies->publish(
        subject, body, {{"Nats-Rollup", "sub"}, {"Nats-Expected-Last-Subject-Sequence", std::to_string(expected)}});
    if (outcome.code == JSStreamWrongLastSequenceErr) {
      current = find_version(connection, bucket, meta.info.name);
      // Our own publish may have been stored although its ack was lost on the way.
      if (current && !meta.info.nuid.empty() && current->info.nuid == meta.info.nuid &&
          current->deleted == meta.deleted) {
        return {.ack = {.stream = stream_of(bucket), .sequence = current->sequence}};
      }
      continue;
    }
    if (outcome.stored() && current && !current->info.nuid.empty() && current->info.nuid != meta.info.nuid) {
      try {
        nats::purge(connection.handles(), stream_of(bucket), chunks_of(bucket, current->info.nuid), 0,
                    bucket_text(bucket));
      } catch (const Error&) {
        // Nobody can see them any more; collect_garbage() takes them.
      }
    }
    return outcome;
  }
}

/// "SHA-256=<base64url>"; some writers leave the padding out.
bool same_digest(std::string_view left, std::string_view right) {
  const auto bare = [](std::string_view text) { return text.substr(0, text.find_last_not_of('=') + 1); };
  return bare(left) == bare(right);
}

std::string digest_of(Sha256& hash) { return "SHA-256=" + base64url(hash.finish()); }

std::string_view header_of(const Message& message, const char* name) {
  const char* value = nullptr;
  return natsMsgHeader_Get(message.get(), name, &value) == NATS_OK && value != nullptr ? value : std::string_view();
}

std::uint64_t number_of(std::string_view text) {
  std::uint64_t number = 0;
  for (const char c : text) number = number * 10 + static_cast<std::uint64_t>(c - '0');
  return number;
}

/// One stored chunk: either a direct answer, whose octets are not copied, or one that the leader gave in JSON.
struct Chunk {
  Message direct{};
  std::string copied{};
  std::uint64_t sequence = 0;

  BytesView data() const { return bytes_of(direct ? nats::payload_of(direct.get()) : std::string_view(copied)); }
};

/// Gets chunks by direct get, with one request ahead of the caller. Falls back on the leader for what a replica does
/// not have yet, and for buckets made without allow_direct.
class ChunkSource {
 public:
  ChunkSource(Connection& connection, const std::string& bucket, const std::string& nuid)
      : connection_(&connection),
        stream_(stream_of(bucket)),
        subject_(chunks_of(bucket, nuid)),
        what_(bucket_text(bucket)) {}

  /// The first chunk at `sequence` or after it. Throws Unavailable, and can be called again then.
  std::optional<Chunk> at(std::uint64_t sequence) {
    if (!ahead_.valid() || ahead_sequence_ != sequence) ask(sequence);
    for (int attempt = 0;; ++attempt) {
      try {
        return answer(ahead_.get(), sequence);
      } catch (const NoResponders&) {
        return from_leader(sequence);
      } catch (const Unavailable&) {
        if (attempt == 1) throw;
        ask(sequence);
      }
    }
  }

  void ask(std::uint64_t sequence) {
    auto& handles = connection_->handles();
    handles.require_connected(what_);
    json::Writer request;
    request.begin_object();
    request.field("seq", static_cast<std::int64_t>(sequence));
    request.field("next_by_subj", subject_);
    request.end_object();
    auto promise = std::make_shared<std::promise<Message>>();
    ahead_ = promise->get_future();
    ahead_sequence_ = sequence;
    handles.consume_replies->send("$JS.API.DIRECT.GET." + stream_, request.text(), {},
                                  [promise, what = what_](natsStatus status, Message message) {
                                    try {
                                      if (status == NATS_NO_RESPONDERS) throw NoResponders(what);
                                      nats::check(status, what);
                                      promise->set_value(std::move(message));
                                    } catch (...) {
                                      promise->set_exception(std::current_exception());
                                    }
                                  });
  }

 private:
  struct NoResponders : Unavailable {
    using Unavailable::Unavailable;
  };

  std::optional<Chunk> answer(Message message, std::uint64_t sequence) {
    const auto status = header_of(message, "Status");
    if (!status.empty()) return from_leader(sequence);
    Chunk chunk;
    chunk.sequence = number_of(header_of(message, "Nats-Sequence"));
    chunk.direct = std::move(message);
    return counted(std::move(chunk));
  }

  std::optional<Chunk> from_leader(std::uint64_t sequence) {
    auto stored = nats::next_message(connection_->handles(), stream_, subject_, sequence, what_);
    if (!stored) return std::nullopt;
    Chunk chunk;
    chunk.sequence = stored->sequence;
    chunk.copied = std::move(stored->data);
    return counted(std::move(chunk));
  }

  Chunk counted(Chunk chunk) const {
    Counter* octets = connection_->handles().objects_out;
    if (octets != nullptr) octets->add(static_cast<double>(chunk.data().size()));
    return chunk;
  }

  Connection* connection_;
  std::string stream_;
  std::string subject_;
  std::string what_;
  std::future<Message> ahead_;
  std::uint64_t ahead_sequence_ = 0;
};

/// The object's chunks are gone because somebody replaced or removed it: reading again gives the new version.
class Replaced : public TransientError {
 public:
  using TransientError::TransientError;
};

[[noreturn]] void throw_missing(Connection& connection, const ObjectInfo& info, std::uint32_t index) {
  const std::string what = object_text(info.bucket, info.name);
  const auto current = find_meta(connection, info.bucket, info.name);
  if (!current || current->deleted || current->info.nuid != info.nuid) {
    throw Replaced(what + " was replaced or removed while it was being read: read it again");
  }
  throw PermanentError(what + " is damaged: chunk " + std::to_string(index + 1) + " of " + std::to_string(info.chunks) +
                       " is missing; write it again");
}

Meta require_meta(Connection& connection, const std::string& bucket, std::string_view name) {
  check_name(name);
  auto meta = find_meta(connection, bucket, name);
  if (!meta || meta->deleted) throw PermanentError("there is no " + object_text(bucket, name));
  if (meta->link) throw PermanentError(object_text(bucket, name) + " is a link: links are not followed");
  return *std::move(meta);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------- writing

struct ObjectWriter::Impl {
  /// Shared with the acks, which may come when the writer is gone.
  struct Acks {
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t in_flight = 0;
    std::uint64_t last_sequence = 0;
    std::optional<Outcome> failure;
  };

  Connection* connection;
  Meta meta;
  std::optional<Meta> current;
  std::string subject;
  std::string what;
  Bytes buffer{};
  Sha256 hash{};
  std::shared_ptr<Acks> acks = std::make_shared<Acks>();
  bool open = true;
  bool dirty = false;  // chunks may be stored that no object owns
  trace::Span span{};

  Impl(Connection& nats, std::string bucket, std::string name, std::map<std::string, std::string> metadata)
      : connection(&nats), span(trace::Span::of_current(trace::Kind::kClient, "put", bucket)) {
    span.set("pipegen.object", name);
    check_name(name);
    current = find_version(nats, bucket, name);
    meta.info.bucket = std::move(bucket);
    meta.info.name = std::move(name);
    meta.info.nuid = nuid();
    meta.info.metadata = std::move(metadata);
    subject = chunks_of(meta.info.bucket, meta.info.nuid);
    what = object_text(meta.info.bucket, meta.info.name);
  }

  ~Impl() {
    if (!dirty) return;
    span.fail("unfinished", "the object was not finished");
    settle(0);  // so that nothing more arrives after the purge
    try {
      nats::purge(connection->handles(), stream_of(meta.info.bucket), subject, 0, what);
    } catch (const Error&) {
      // The server is away: collect_garbage() takes them.
    }
  }

  /// Returns when at most `limit` chunks wait for their ack; every one ends in an ack or a timeout. The first failure.
  std::optional<Outcome> settle(std::size_t limit) {
    std::unique_lock lock(acks->mutex);
    acks->changed.wait(lock, [&] { return acks->in_flight <= limit; });
    return acks->failure;
  }

  void wait_for(std::size_t limit) {
    const auto failure = settle(limit);
    if (!failure) return;
    open = false;
    if (failure->error.starts_with("maximum bytes")) require_room();
    nats::throw_outcome(*failure, what);
  }

  /// A full bucket may have room later, but never for an object that is larger than all of it.
  void require_room() {
    nats::StreamInfo info;
    jsErrCode code{};
    auto* js = connection->handles().consume_js;
    const std::string stream = stream_of(meta.info.bucket);
    if (js_GetStreamInfo(info.out(), js, stream.c_str(), nullptr, &code) != NATS_OK) return;
    const std::int64_t limit = info->Config->MaxBytes;
    // What the stream counts for each message besides its payload, at the least.
    const std::uint64_t needed = meta.info.size + meta.info.chunks * (subject.size() + 16);
    if (limit <= 0 || needed <= static_cast<std::uint64_t>(limit)) return;
    throw PermanentError(what + " does not fit: the bucket has max_bytes " + std::to_string(limit) +
                         ", and the object is larger than that alone");
  }

  void send(BytesView chunk) {
    wait_for(kWindow - 1);
    {
      const std::lock_guard lock(acks->mutex);
      ++acks->in_flight;
    }
    dirty = true;
    ++meta.info.chunks;
    auto& handles = connection->handles();
    if (handles.objects_in != nullptr) handles.objects_in->add(static_cast<double>(chunk.size()));
    handles.publish_replies->publish(subject, text_of(chunk), {}, [acks = acks](Outcome outcome) {
      const std::lock_guard lock(acks->mutex);
      --acks->in_flight;
      // Chunks are read back in the order of their sequence numbers.
      if (outcome.stored() && outcome.ack.sequence <= acks->last_sequence) outcome.error = "out of order";
      if (outcome.stored()) {
        acks->last_sequence = outcome.ack.sequence;
      } else if (!acks->failure) {
        acks->failure = std::move(outcome);
      }
      acks->changed.notify_all();
    });
  }

  void write(BytesView data) {
    require_open();
    hash.update(data);
    meta.info.size += data.size();
    while (!data.empty()) {
      if (buffer.empty() && data.size() >= kChunkSize) {
        send(data.first(kChunkSize));
        data = data.subspan(kChunkSize);
        continue;
      }
      const auto part = data.first(std::min(data.size(), kChunkSize - buffer.size()));
      buffer.insert(buffer.end(), part.begin(), part.end());
      data = data.subspan(part.size());
      if (buffer.size() == kChunkSize) {
        send(buffer);
        buffer.clear();
      }
    }
  }

  ObjectInfo finish() {
    require_open();
    if (!buffer.empty()) send(buffer);
    buffer.clear();
    wait_for(0);
    open = false;
    meta.info.digest = digest_of(hash);
    meta.info.modified = now();
    connection->handles().require_connected(what);
    const Outcome outcome = replace_meta(*connection, meta.info.bucket, meta, std::move(current));
    // Without an answer the metadata may still arrive; then the chunks must be there.
    if (outcome.status == NATS_OK && !outcome.stored()) nats::throw_outcome(outcome, what);
    dirty = false;
    if (!outcome.stored()) nats::throw_outcome(outcome, what);
    span.set("pipegen.object.size", meta.info.size);
    span.end();
    return meta.info;
  }

  void require_open() const {
    if (!open) throw PermanentError(what + ": the writer has finished or failed; make a new one");
  }
};

ObjectWriter::ObjectWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ObjectWriter::ObjectWriter(ObjectWriter&&) noexcept = default;
ObjectWriter& ObjectWriter::operator=(ObjectWriter&&) noexcept = default;
ObjectWriter::~ObjectWriter() = default;
void ObjectWriter::write(BytesView data) { impl_->write(data); }
ObjectInfo ObjectWriter::finish() { return impl_->finish(); }

// ---------------------------------------------------------------------------------------------------------- reading

struct ObjectReader::Impl {
  Connection* connection;
  Meta meta;
  ChunkSource source;
  Sha256 hash{};
  Chunk chunk{};
  BytesView rest{};  // of `chunk`, not handed out yet
  std::uint32_t chunks_read = 0;
  std::uint64_t octets_read = 0;
  trace::Span span;  // until nobody reads any more

  Impl(Connection& nats, Meta found)
      : connection(&nats),
        meta(std::move(found)),
        source(nats, meta.info.bucket, meta.info.nuid),
        span(trace::Span::of_current(trace::Kind::kClient, "get", meta.info.bucket)) {
    span.set("pipegen.object", meta.info.name);
    span.set("pipegen.object.size", meta.info.size);
    if (meta.info.chunks == 0) verify();
  }

  void verify() {
    const std::string what = object_text(meta.info.bucket, meta.info.name);
    if (octets_read != meta.info.size) {
      throw PermanentError(what + " is damaged: its chunks hold " + std::to_string(octets_read) +
                           " octets, its metadata " + std::to_string(meta.info.size) + "; write it again");
    }
    if (!same_digest(digest_of(hash), meta.info.digest)) {
      throw PermanentError(what + " is damaged: its content does not have the digest of its metadata; write it again");
    }
  }

  bool next_chunk() {
    if (chunks_read == meta.info.chunks) return false;
    auto next = source.at(chunks_read == 0 ? 1 : chunk.sequence + 1);
    if (!next) throw_missing(*connection, meta.info, chunks_read);
    chunk = *std::move(next);
    ++chunks_read;
    if (chunks_read < meta.info.chunks && connection->connected()) source.ask(chunk.sequence + 1);
    hash.update(chunk.data());
    octets_read += chunk.data().size();
    if (chunks_read == meta.info.chunks) verify();
    rest = chunk.data();
    return true;
  }

  std::size_t read(std::span<std::byte> buffer) {
    std::size_t filled = 0;
    while (filled < buffer.size()) {
      if (rest.empty()) {
        if (filled > 0 || !next_chunk()) break;  // what is here already is not lost to an error of the next chunk
        continue;
      }
      const auto part = rest.first(std::min(rest.size(), buffer.size() - filled));
      std::copy(part.begin(), part.end(), buffer.begin() + static_cast<std::ptrdiff_t>(filled));
      rest = rest.subspan(part.size());
      filled += part.size();
    }
    return filled;
  }
};

ObjectReader::ObjectReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ObjectReader::ObjectReader(ObjectReader&&) noexcept = default;
ObjectReader& ObjectReader::operator=(ObjectReader&&) noexcept = default;
ObjectReader::~ObjectReader() = default;
const ObjectInfo& ObjectReader::info() const noexcept { return impl_->meta.info; }
std::size_t ObjectReader::read(std::span<std::byte> buffer) { return impl_->read(buffer); }

Bytes ObjectReader::read_all() {
  Bytes all;
  if (impl_->octets_read == 0) all.reserve(std::min<std::uint64_t>(info().size, 1U << 30));
  for (;;) {
    const BytesView rest = std::exchange(impl_->rest, {});
    all.insert(all.end(), rest.begin(), rest.end());
    if (!impl_->next_chunk()) return all;
  }
}

// ----------------------------------------------------------------------------------------------------------- bucket

ObjectStore::ObjectStore(nats::Connection& connection, std::string bucket)
    : connection_(&connection), bucket_(std::move(bucket)) {
  nats::check_bucket_name(bucket_);
}

ObjectWriter ObjectStore::create(std::string name, std::map<std::string, std::string> metadata) {
  return ObjectWriter(
      std::make_unique<ObjectWriter::Impl>(*connection_, bucket_, std::move(name), std::move(metadata)));
}

ObjectInfo ObjectStore::put(std::string name, BytesView data, std::map<std::string, std::string> metadata) {
  ObjectWriter writer = create(std::move(name), std::move(metadata));
  writer.write(data);
  return writer.finish();
}

ObjectInfo ObjectStore::put_file(std::string name, const std::string& file,
                                 std::map<std::string, std::string> metadata) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw PermanentError("cannot read " + file);
  ObjectWriter writer = create(std::move(name), std::move(metadata));
  Bytes buffer(kFileBuffer);
  do {
    in.read(reinterpret_cast<char*>(buffer.data()), static_cast<std::streamsize>(buffer.size()));
    writer.write(BytesView(buffer).first(static_cast<std::size_t>(in.gcount())));
  } while (in);
  if (!in.eof()) throw TransientError("cannot read " + file + " to its end");
  return writer.finish();
}

ObjectReader ObjectStore::open(std::string_view name) {
  return ObjectReader(std::make_unique<ObjectReader::Impl>(*connection_, require_meta(*connection_, bucket_, name)));
}

Bytes ObjectStore::get(std::string_view name) {
  for (int attempt = 0;; ++attempt) {
    try {
      return open(name).read_all();
    } catch (const Replaced&) {
      if (attempt == 4) throw;
    }
  }
}

ObjectInfo ObjectStore::get_file(std::string_view name, const std::string& file) {
  const std::string partial = file + ".part-" + nuid();
  try {
    for (int attempt = 0;; ++attempt) {
      try {
        ObjectReader reader = open(name);
        std::ofstream out(partial, std::ios::binary | std::ios::trunc);
        Bytes buffer(kFileBuffer);
        while (const std::size_t got = reader.read(buffer)) {
          out.write(reinterpret_cast<const char*>(buffer.data()), static_cast<std::streamsize>(got));
        }
        out.close();
        if (!out) throw TransientError("cannot write " + file + ": is there room, and permission?");
        std::filesystem::rename(partial, file);
        return reader.info();
      } catch (const Replaced&) {
        if (attempt == 4) throw;
      }
    }
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
}

namespace {

/// Where to start reading for the chunk of number `index` (from 0). Chunks of one object have ascending sequence
/// numbers, without gaps unless somebody else wrote at the same time.
std::uint64_t sequence_of(Connection& connection, const ObjectInfo& info, ChunkSource& source, std::uint64_t index) {
  const auto first = source.at(1);
  if (!first) throw_missing(connection, info, 0);
  // A consumer counts what is left from a sequence on. Never too far: chunk `index` is at `guess` or behind it.
  std::uint64_t guess = first->sequence + index;
  const std::string stream = stream_of(info.bucket);
  const std::string subject = chunks_of(info.bucket, info.nuid);
  for (;;) {
    jsConsumerConfig config;
    jsConsumerConfig_Init(&config);
    config.DeliverPolicy = js_DeliverByStartSequence;
    config.OptStartSeq = guess;
    config.FilterSubject = subject.c_str();
    config.AckPolicy = js_AckNone;
    config.InactiveThreshold = 1'000'000'000;
    config.MemoryStorage = true;
    config.Replicas = 1;
    nats::ConsumerInfo consumer;
    jsErrCode code{};
    auto* js = connection.handles().consume_js;
    const natsStatus status = js_AddConsumer(consumer.out(), js, stream.c_str(), &config, nullptr, &code);
    if (status != NATS_OK) nats::throw_status(status, code, object_text(info.bucket, info.name));
    js_DeleteConsumer(js, stream.c_str(), consumer->Name, nullptr, nullptr);
    const std::uint64_t at_guess = info.chunks - std::min<std::uint64_t>(consumer->NumPending, info.chunks);
    if (at_guess >= index) return guess;
    guess += index - at_guess;
  }
}

void send_range(Connection& connection, const Meta& meta, std::uint64_t offset, std::uint64_t length,
                const std::function<bool(BytesView)>& sink) {
  const ObjectInfo& info = meta.info;
  if (offset >= info.size) return;
  length = std::min(length, info.size - offset);
  ChunkSource source(connection, info.bucket, info.nuid);

  const bool regular = (info.size + meta.chunk_size - 1) / meta.chunk_size == info.chunks;
  std::uint64_t index = regular ? offset / meta.chunk_size : 0;
  std::uint64_t position = index * meta.chunk_size;  // of the next chunk's first octet
  std::uint64_t sequence = index == 0 ? 1 : sequence_of(connection, info, source, index);
  while (length > 0) {
    const auto chunk = source.at(sequence);
    if (!chunk) throw_missing(connection, info, static_cast<std::uint32_t>(index));
    BytesView data = chunk->data();
    if (regular && data.size() != std::min(meta.chunk_size, info.size - position)) {
      throw PermanentError(object_text(info.bucket, info.name) + " is damaged: chunk " + std::to_string(index + 1) +
                           " has the wrong size; write it again");
    }
    ++index;
    position += data.size();
    sequence = chunk->sequence + 1;
    if (position < offset + length) source.ask(sequence);
    const std::uint64_t start = position - data.size();
    if (offset >= position) continue;
    data = data.subspan(offset - start);
    data = data.first(std::min<std::uint64_t>(data.size(), length));
    offset += data.size();
    length -= data.size();
    if (!data.empty() && !sink(data)) return;
  }
}

}  // namespace

void ObjectStore::get_range(std::string_view name, std::uint64_t offset, std::uint64_t length,
                            const std::function<bool(BytesView)>& sink) {
  send_range(*connection_, require_meta(*connection_, bucket_, name), offset, length, sink);
}

void ObjectStore::get_range(const ObjectInfo& object, std::uint64_t offset, std::uint64_t length,
                            const std::function<bool(BytesView)>& sink) {
  const Meta meta = require_meta(*connection_, bucket_, object.name);
  if (meta.info.nuid != object.nuid) {
    throw Replaced(object_text(bucket_, object.name) + " was replaced while it was being read: read it again");
  }
  send_range(*connection_, meta, offset, length, sink);
}

std::optional<ObjectInfo> ObjectStore::info(std::string_view name) {
  check_name(name);
  auto meta = find_meta(*connection_, bucket_, name);
  if (!meta || meta->deleted) return std::nullopt;
  return std::move(meta->info);
}

namespace {

std::vector<Meta> all_metas(Connection& connection, const std::string& bucket) {
  const auto subjects =
      nats::subjects_of(connection.handles(), stream_of(bucket), meta_prefix(bucket) + ">", bucket_text(bucket));
  std::vector<Meta> metas;
  for (const auto& message :
       nats::last_messages(connection.handles(), stream_of(bucket), subjects, bucket_text(bucket))) {
    metas.push_back(meta_from(message, bucket));
  }
  return metas;
}

}  // namespace

std::vector<ObjectInfo> ObjectStore::list() {
  std::vector<ObjectInfo> objects;
  for (auto& meta : all_metas(*connection_, bucket_)) {
    if (!meta.deleted) objects.push_back(std::move(meta.info));
  }
  std::sort(objects.begin(), objects.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return objects;
}

bool ObjectStore::remove(std::string_view name) {
  check_name(name);
  auto current = find_version(*connection_, bucket_, name);
  if (!current || current->deleted) return false;
  Meta marker = *current;
  marker.deleted = true;
  marker.info.size = 0;
  marker.info.chunks = 0;
  marker.info.digest.clear();
  marker.info.modified = now();
  const std::string nuid = current->info.nuid;
  const Outcome outcome = replace_meta(*connection_, bucket_, marker, std::move(current));
  if (!outcome.stored()) nats::throw_outcome(outcome, object_text(bucket_, name));
  if (nuid.empty()) return true;
  nats::purge(connection_->handles(), stream_of(bucket_), chunks_of(bucket_, nuid), 0, bucket_text(bucket_));
  return true;
}

std::size_t ObjectStore::collect_garbage(std::chrono::milliseconds age, std::stop_token stop) {
  return collect_garbage(now() - age, std::move(stop));
}

std::size_t ObjectStore::collect_garbage(Timestamp written_before, std::stop_token stop) {
  auto& handles = connection_->handles();
  const std::string stream = stream_of(bucket_);
  // Chunks first: what becomes an object after this line is among the metadata read below.
  const auto chunked = nats::subjects_of(handles, stream, chunks_of(bucket_, ">"), bucket_text(bucket_));
  std::set<std::string> owned;
  for (const auto& meta : all_metas(*connection_, bucket_)) {
    if (!meta.deleted) owned.insert(chunks_of(bucket_, meta.info.nuid));
  }
  std::size_t purged = 0;
  for (const auto& subject : chunked) {
    if (owned.contains(subject)) continue;
    if (stop.stop_requested()) break;
    const auto last = nats::last_message(handles, stream, subject, bucket_text(bucket_));
    if (!last || last->time > written_before) continue;
    nats::purge(handles, stream, subject, 0, bucket_text(bucket_));
    ++purged;
  }
  return purged;
}

}  // namespace pipegen
