// The errors of the runtime, each named after what the worker does next with the message in hand.
//
//   throw pipegen::PermanentError("the PDF needs a password");
//
// Anything else that leaves a handler counts as a TransientError.
#pragma once

#include <stdexcept>

namespace pipegen {

/// Base of every error that the runtime throws on purpose. `what()` is one sentence for a person: what
/// happened, where, and what to do. It never holds a secret.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Trying again cannot help: the message goes to the dead-letter stream at once.
class PermanentError : public Error {
 public:
  using Error::Error;
};

/// Trying again may help: the message is handed back with the delay of the stage's `retry.backoff`, and goes to
/// the dead-letter stream when the handler has failed `retry.max_deliver` times with it. (Deliveries for other reasons
/// do not count: a restart, a crash of the process.)
class TransientError : public Error {
 public:
  using Error::Error;
};

/// Something that the service depends on is away, and the message is not to blame: the worker holds what it has,
/// stops fetching, reports "not ready", and runs the handler again when the dependency is back. Not counted.
class Unavailable : public Error {
 public:
  using Error::Error;
};

/// The handler was told to stop (its deadline passed or the process is shutting down) and did.
class Cancelled : public Error {
 public:
  using Error::Error;
};

/// The service cannot work with these settings, or against this server. At the start: printed in one line, exit status
/// 78. From a handler: as Unavailable, until somebody mends it, so it is not for what a single message asks for.
class ConfigError : public Error {
 public:
  using Error::Error;
};

}  // namespace pipegen
