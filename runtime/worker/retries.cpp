#include "worker/retries.hpp"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <typeinfo>

namespace pipegen::worker {
namespace {

using std::chrono::milliseconds;

milliseconds between(milliseconds least, milliseconds most) {
  thread_local std::minstd_rand generator(std::random_device{}());
  return milliseconds(std::uniform_int_distribution<std::int64_t>(least.count(), most.count())(generator));
}

}  // namespace

std::string class_of(const std::exception& error) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status), std::free);
  const std::string full = status == 0 ? name.get() : typeid(error).name();
  return full.starts_with("pipegen::") ? full.substr(full.rfind(':') + 1) : full;
}

milliseconds jittered(milliseconds delay) { return between(delay * 4 / 5, delay * 6 / 5); }
milliseconds at_least(milliseconds delay) { return between(delay, delay * 6 / 5); }

std::string nak_body(milliseconds delay) {
  if (delay.count() <= 0) return "-NAK";
  return "-NAK {\"delay\":" + std::to_string(std::chrono::nanoseconds(delay).count()) + "}";
}

}  // namespace pipegen::worker
