// What is said of a failure, and how long to wait after it.
#pragma once

#include <chrono>
#include <exception>
#include <string>

namespace pipegen::worker {

/// The name of the error's class, for headers and logs: "TransientError" of this library's, the whole name of others.
std::string class_of(const std::exception& error);

/// 80 to 120 % of it, so that many workers do not come back in step.
std::chrono::milliseconds jittered(std::chrono::milliseconds delay);
/// 100 to 120 % of it: a delay that somebody asked for is not cut short.
std::chrono::milliseconds at_least(std::chrono::milliseconds delay);

/// The answer that asks for a message again after `delay`.
std::string nak_body(std::chrono::milliseconds delay);

}  // namespace pipegen::worker
