// Objects in a NATS bucket, by ADR-20: what the official clients write can be read here, and the other way round.
//
//   pipegen::ObjectStore store(connection, "PDF_FILES");
//   auto writer = store.create("book.pdf");
//   writer.write(part);            // as often as needed; memory stays flat
//   const pipegen::ObjectInfo info = writer.finish();   // visible from here on
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/types.hpp"

namespace pipegen {

namespace nats {
class Connection;
}

struct ObjectInfo {
  std::string bucket;
  std::string name;
  std::string nuid;
  std::uint64_t size = 0;
  std::uint32_t chunks = 0;
  std::string digest;  // "SHA-256=<padded base64url>"
  Timestamp modified{};
  std::map<std::string, std::string> metadata;
};

/// Writes one object, front to back. Nobody sees it before finish(); destroyed before that, its chunks are
/// purged (chunks of a process that died are collected by ObjectStore::collect_garbage). Not thread safe.
class ObjectWriter {
 public:
  ObjectWriter(ObjectWriter&&) noexcept;
  ObjectWriter& operator=(ObjectWriter&&) noexcept;
  ~ObjectWriter();
  /// Blocks while the window of unacknowledged chunks is full, 10 s at most. Throws Unavailable (the server is away,
  /// the bucket is full), PermanentError (larger than the bucket's max_bytes alone); the writer has failed then.
  void write(BytesView data);
  /// Waits for every chunk's ack, then publishes the metadata. An object of this name that was there before is
  /// replaced, its chunks purged. Throws like write(); the object is not visible then (if it was the answer that got
  /// lost on the way, it may be).
  ObjectInfo finish();

  struct Impl;
  explicit ObjectWriter(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

/// Reads one object, front to back. The last octets are given out only after the digest of the whole was verified.
/// Not thread safe.
class ObjectReader {
 public:
  ObjectReader(ObjectReader&&) noexcept;
  ObjectReader& operator=(ObjectReader&&) noexcept;
  ~ObjectReader();
  const ObjectInfo& info() const noexcept;
  /// Fills up to buffer.size() octets; 0 at the end. Throws Unavailable (the server is away; read() may be called
  /// again), TransientError (somebody replaced or removed the object: open it again), PermanentError (a chunk is
  /// missing, the digest is wrong).
  std::size_t read(std::span<std::byte> buffer);
  /// The rest. Throws like read().
  Bytes read_all();

  struct Impl;
  explicit ObjectReader(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

/// One bucket. Cheap to make; thread safe. Object names: any printable ASCII, 1 to 1024 characters; others are refused
/// with PermanentError, because the official JavaScript client cannot name them. Every call blocks until the server
/// answered, and throws ConfigError when there is no such bucket, and Unavailable when the server is away (after 2 s
/// without a connection) or does not answer (after 5 s).
class ObjectStore {
 public:
  /// Does not look whether there is such a bucket. Throws ConfigError for a name that no bucket can have.
  ObjectStore(nats::Connection& connection, std::string bucket);

  ObjectWriter create(std::string name, std::map<std::string, std::string> metadata = {});
  /// Throw like ObjectWriter; put_file also PermanentError when the file cannot be opened, TransientError when it
  /// cannot be read to its end.
  ObjectInfo put(std::string name, BytesView data, std::map<std::string, std::string> metadata = {});
  ObjectInfo put_file(std::string name, const std::string& file, std::map<std::string, std::string> metadata = {});

  /// Throws PermanentError when there is no such object (links are not followed).
  ObjectReader open(std::string_view name);
  /// Throws like open() and ObjectReader::read(). An object that is replaced meanwhile is read again, five times.
  Bytes get(std::string_view name);
  /// The same, into a file that is complete when this returns, and not there when it throws: TransientError when it
  /// cannot be written.
  ObjectInfo get_file(std::string_view name, const std::string& file);
  /// Octets [offset, offset + length) for HTTP ranges; a part has no digest of its own, so it is not verified.
  /// Ends when `sink` gives false; what `sink` throws comes through. Throws like open() and ObjectReader::read().
  void get_range(std::string_view name, std::uint64_t offset, std::uint64_t length,
                 const std::function<bool(BytesView)>& sink);
  /// The same, of this very version: throws TransientError when the object was replaced since.
  void get_range(const ObjectInfo& object, std::uint64_t offset, std::uint64_t length,
                 const std::function<bool(BytesView)>& sink);

  /// Nothing when there is no such object. Throws PermanentError when its metadata is not readable.
  std::optional<ObjectInfo> info(std::string_view name);
  /// In order of name, read one by one. Throws like info().
  std::vector<ObjectInfo> list();
  /// Writes the delete marker and purges the chunks; false when there was no such object. Throws like info(); after
  /// Unavailable the object may be gone already.
  bool remove(std::string_view name);
  /// Purges chunks that belong to no object and are older than `age`; gives their number of objects. Every service does
  /// this now and then. Told to stop, it returns before the next request. Throws Unavailable, ConfigError (no such
  /// bucket), and PermanentError, before anything is purged, when an object's metadata is not readable: its chunks
  /// could not be told from garbage.
  std::size_t collect_garbage(std::chrono::milliseconds age = std::chrono::hours(1), std::stop_token stop = {});
  /// The same for those whose last chunk was written before that time, by the server's clock.
  std::size_t collect_garbage(Timestamp written_before, std::stop_token stop = {});

 private:
  nats::Connection* connection_;
  std::string bucket_;
};

}  // namespace pipegen
