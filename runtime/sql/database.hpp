// A database as the entity worker and the ingestion API see it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipegen/settings.hpp"
#include "pipegen/sql.hpp"

namespace pipegen::sql {

enum class MessageState { kAccepted, kProcessing, kCompleted, kFailed, kDeadLettered };
std::string_view to_string(MessageState state);  // "accepted", "processing", "completed", "failed", "dead_lettered"
std::optional<MessageState> parse_message_state(std::string_view text);

/// A row of the table message_status.
struct MessageStatus {
  std::string message_id{};  // its key
  std::string entity_type{};
  MessageState state = MessageState::kAccepted;
  int attempts = 0;     // to write the message; write() and note_attempt() add them to those of before
  std::string error{};  // of the last one; empty: none
  Timestamp received_at{};
  Timestamp updated_at{};
  std::string traceparent{};  // that the message came with; empty: none
};

/// One connection. Not thread safe. A session that threw Unavailable has lost its connection or may have: it makes a
/// new one at the next call.
///
/// Every call blocks; throws
///   Unavailable     the server is away, ended the connection, is read-only, full, out of connections; a deadlock, a
///                   serialization failure, a lock that was not given in time: nothing was written (a commit that got
///                   no answer may have been; writing the same again is harmless)
///   ConfigError     wrong credentials, a missing permission, table or column
///   TransientError  a row refers to one that is not there (yet)
///   PermanentError  anything else: a value that the database does not take, a constraint
/// and every one of them rolled the transaction back.
class Session {
 public:
  virtual ~Session() = default;

  /// A message whose row met another one of the same key, in a table that rejects such.
  struct Rejected {
    std::size_t message = 0;  // its index in the batch
    std::string reason{};
  };

  /// One transaction: the rows of the batch and `statuses`. Of two rows with one key the one of the greater version
  /// stays, whether both are in the batch or one is in the table: writing a message again, or an older one after a
  /// newer one, changes nothing. When some are rejected, nothing is written: leave them out and write the others.
  virtual std::vector<Rejected> write(const Batch& batch, std::span<const MessageStatus> statuses) = 0;

  /// Adds `status.attempts` (0: it was counted before) to the message's attempts, with its state and error, and gives
  /// their number. A message that is completed stays so: that it is `processing` again is no other attempt, and nothing
  /// to blame it for; that it failed is one. One that is dead-lettered is replayed, and counted anew.
  virtual int note_attempt(const MessageStatus& status) = 0;
  /// Inserts or replaces.
  virtual void put_status(const MessageStatus& status) = 0;
  virtual std::optional<MessageStatus> find_status(std::string_view message_id) = 0;
  /// Removes status rows that were last written before that time, at most so many of them, and gives their number.
  /// Several sessions may do it at the same time.
  virtual std::size_t remove_statuses(Timestamp before, std::size_t most) = 0;
  /// Throws Unavailable when the database cannot be written to now.
  virtual void check() = 0;
};

/// Thread safe.
class Database {
 public:
  virtual ~Database() = default;
  /// Does not connect yet. The database must outlive its sessions.
  virtual std::unique_ptr<Session> session() = 0;
  /// Brings the tables to the newest version of the schema, under a lock: each version is one transaction and one row
  /// of the table pipegen_migrations (pipeline, version, fingerprint, applied_at). Throws ConfigError when the database
  /// is of a newer schema than this, or one of its versions is not what this schema says (a column was added without
  /// `since:`); else like Session.
  virtual void migrate() = 0;
  /// For logs: kind, place and name, without user and password.
  virtual std::string description() const = 0;
  /// "sqlite", "postgresql": as OpenTelemetry names them.
  virtual std::string_view system() const = 0;
  /// Whether several sessions can write at the same time.
  virtual bool concurrent() const = 0;
  /// That it was opened with: what batches for it are made of.
  virtual const Schema& schema() const = 0;
};

/// [database] url: "sqlite:tpch.db" (a path, relative to the working directory) for SQLite,
/// "postgresql://user@host:5432/name" or a libpq connection string for PostgreSQL, whose password may be in [database]
/// password or password_file. Throws ConfigError. `schema` must outlive the database.
/// Settings: "database.lock_timeout" (10 s; of SQLite: how long it waits for the file), and of PostgreSQL
/// "database.connect_timeout" (5 s) and "database.statement_timeout" (30 s). What takes longer is Unavailable.
std::unique_ptr<Database> open_sqlite(const Settings& settings, const Schema& schema);
std::unique_ptr<Database> open_postgresql(const Settings& settings, const Schema& schema);

}  // namespace pipegen::sql
