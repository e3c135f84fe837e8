#include <espeak-ng/speak_lib.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include "media/pcm.hpp"
#include "pipegen/error.hpp"

// espeak-ng keeps its state in globals, some of which it never sets back: a second text sounds a little different than
// in a fresh process, and there is no way to start over (after espeak_Terminate and espeak_Initialize it hangs). So
// that the same text gives the same octets each time, each is spoken in a child of its own, which takes some
// milliseconds more. That also lets several be spoken at a time, and whatever espeak-ng does to a child does not harm
// the worker.

namespace pipegen::actions {

namespace {

/// How the child ends.
enum ChildStatus { kSpoken = 0, kNoData = 10, kNoVoice = 11, kFailed = 12, kNobodyListens = 13 };

constexpr int kPipe = 3;           // in the child; it has no other descriptor but the standard ones
constexpr int kStopInterval = 50;  // ms between looks at the stop token

void write_all(const void* data, std::size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(kPipe, at, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) ::_exit(kNobodyListens);
    at += written;
    size -= static_cast<std::size_t>(written);
  }
}

static_assert(std::endian::native == std::endian::little, "samples are written as they lie in memory");

int pass_on(short* wave, int count, espeak_EVENT*) {
  if (wave != nullptr && count > 0) write_all(wave, static_cast<std::size_t>(count) * sizeof *wave);
  return 0;
}

/// What the child does: its sample rate into the pipe, then the samples. Other threads of the parent are not here, and
/// may have held locks; glibc has taken care of those of malloc and stdio.
[[noreturn]] void speak_in_child(int pipe, pid_t parent, const std::string& text, const std::string& voice) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(kNobodyListens);
  // The worker stops on these in its own way, and ends the child when it has to.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
  if (pipe != kPipe && ::dup2(pipe, kPipe) < 0) ::_exit(kFailed);
  // A connection of the parent must not stay open because of the child.
  ::close_range(kPipe + 1, ~0U, 0);

  const std::int32_t rate = espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, nullptr, espeakINITIALIZE_DONT_EXIT);
  if (rate <= 0) ::_exit(kNoData);
  espeak_SetSynthCallback(pass_on);
  if (espeak_SetVoiceByName(voice.c_str()) != EE_OK) ::_exit(kNoVoice);
  write_all(&rate, sizeof rate);
  const espeak_ERROR result = espeak_Synth(text.c_str(), text.size() + 1, 0, POS_CHARACTER, 0,
                                           espeakCHARS_AUTO | espeakPHONEMES | espeakENDPAUSE, nullptr, nullptr);
  ::_exit(result == EE_OK ? kSpoken : kFailed);
}

/// Killed and waited for at the latest when this goes.
class Child {
 public:
  Child(const std::string& text, const std::string& voice) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe");
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) speak_in_child(ends[1], parent, text, voice);
    const int error = errno;
    ::close(ends[1]);
    pipe_ = ends[0];
    if (pid_ > 0) return;
    ::close(pipe_);
    errno = error;
    fail("fork");
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
    ::close(pipe_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// 0 at the end.
  std::size_t read(std::span<std::byte> buffer, const Context& context) {
    for (;;) {
      context.throw_if_stopped();
      pollfd ready{.fd = pipe_, .events = POLLIN, .revents = 0};
      if (::poll(&ready, 1, kStopInterval) <= 0) continue;
      const ssize_t got = ::read(pipe_, buffer.data(), buffer.size());
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR) fail("read");
    }
  }
  /// Status of waitpid.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  [[noreturn]] static void fail(const char* what) {
    throw TransientError(std::string("cannot speak: ") + what + ": " + std::strerror(errno));
  }

  pid_t pid_ = -1;
  int pipe_ = -1;
};

}  // namespace

Pcm speak_with_espeak(Context& context, const std::string& text, const std::string& voice) {
  Child child(text, voice);
  Pcm pcm{.file = std::filesystem::path(context.scratch()) / "speech.pcm"};
  std::ofstream out(pcm.file, std::ios::binary | std::ios::trunc);
  std::int32_t rate = 0;
  std::size_t of_rate = 0;  // octets of it that were read
  std::array<std::byte, 64 * 1024> block;
  // Nothing takes a second an octet to say; some versions never come to an end with some texts.
  const std::uint64_t limit = (text.size() + 60) * 48'000 * sizeof(std::int16_t);
  for (std::size_t got; (got = child.read(block, context)) > 0;) {
    BytesView samples = BytesView(block).first(got);
    const std::size_t first = std::min(sizeof rate - of_rate, got);
    std::memcpy(reinterpret_cast<std::byte*>(&rate) + of_rate, samples.data(), first);
    of_rate += first;
    samples = samples.subspan(first);
    if (!out.write(reinterpret_cast<const char*>(samples.data()), static_cast<std::streamsize>(samples.size()))) break;
    pcm.size += samples.size();
    if (pcm.size > limit) throw PermanentError("espeak-ng does not come to an end with the text");
  }
  if (!out.flush()) throw TransientError("cannot write " + pcm.file.string() + ": is the disk full?");
  const int status = child.wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoVoice) {
    throw PermanentError("espeak-ng has no voice \"" + voice + "\"");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoData) {
    throw ConfigError("espeak-ng cannot load its data: install espeak-ng-data");
  }
  if (status != 0 || of_rate < sizeof rate) {
    throw TransientError("espeak-ng could not speak the text" +
                         (WIFSIGNALED(status) ? " (signal " + std::to_string(WTERMSIG(status)) + ")" : std::string()));
  }
  pcm.sample_rate = rate;
  return pcm;
}

}  // namespace pipegen::actions
