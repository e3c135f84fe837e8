// A day in seconds: what the runtime does by the clock, with a clock that stands still until the test moves it.
#include "core/clock.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "http/idempotency.hpp"
#include "http/later.hpp"
#include "nats/garbage.hpp"
#include "nats/handles.hpp"
#include "pipegen/metrics.hpp"
#include "support/held_clock.hpp"
#include "support/nats_server.hpp"

namespace pipegen {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using testing::HeldClock;
using testing::NatsServer;

bool eventually(const std::function<bool()>& condition, milliseconds patience = 30s) {
  for (const auto end = std::chrono::steady_clock::now() + patience; std::chrono::steady_clock::now() < end;
       std::this_thread::sleep_for(2ms)) {
    if (condition()) return true;
  }
  return condition();
}

TEST(HeldClockTest, StandsStillUntilItIsMoved) {
  HeldClock clock;
  const auto began = clock.now();
  const Timestamp wall = clock.wall_time();
  std::this_thread::sleep_for(2ms);
  EXPECT_EQ(clock.now(), began);
  clock.advance(24h);
  EXPECT_EQ(clock.now() - began, 24h);
  EXPECT_EQ(clock.wall_time() - wall, 24h);
}

TEST(HeldClockTest, WakesEveryWaiterWhoseTimeHasComeAndNoOther) {
  HeldClock clock;
  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<int> woken = 0;
  std::atomic<bool> stop = false;
  std::vector<std::jthread> waiters;
  for (const auto time : {1h, 2h, 2h, 24h}) {
    waiters.emplace_back([&, time] {
      std::unique_lock lock(mutex);
      clock.wait_for(changed, lock, time, [&] { return stop.load(); });
      ++woken;
    });
  }
  ASSERT_TRUE(clock.await_waiting(4));
  clock.advance(59min);
  EXPECT_TRUE(clock.await_waiting(4));
  EXPECT_EQ(woken, 0);
  clock.advance(1min);
  EXPECT_TRUE(eventually([&] { return woken == 1; }));
  clock.advance(1h);
  EXPECT_TRUE(eventually([&] { return woken == 3; }));
  EXPECT_TRUE(clock.await_waiting(1));
  {
    const std::lock_guard lock(mutex);
    stop = true;
    changed.notify_all();
  }
  EXPECT_TRUE(eventually([&] { return woken == 4; }));
}

TEST(RealClockTest, EndsAWaitByItselfOrByItsCondition) {
  const AnyClock& clock = AnyClock::real();
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_lock lock(mutex);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(clock.wait_for(changed, lock, 20ms, [] { return false; }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 20ms);
  bool done = false;
  std::jthread other([&] {
    const std::lock_guard held(mutex);
    done = true;
    changed.notify_all();
  });
  EXPECT_TRUE(clock.wait_for(changed, lock, 1h, [&] { return done; }));
}

class DayTest : public ::testing::Test {
 protected:
  std::uint64_t messages_in(const std::string& stream) {
    nats::StreamInfo info;
    nats::check(js_GetStreamInfo(info.out(), connection_.handles().consume_js, stream.c_str(), nullptr, nullptr),
                stream);
    return info->State.Msgs;
  }

  NatsServer server_;
  nats::Connection connection_{{.url = server_.url()}};
  HeldClock clock_;
};

TEST_F(DayTest, GarbageIsLookedForEverySixHoursAndTakenWhenItIsAnHourOld) {
  const Topology topology{.object_buckets = {{.schema_name = "FILES", .name = "FILES"}}};
  nats::ensure(connection_, topology);
  connection_.publish("$O.FILES.C.of-the-dead", "chunk", "");
  Metrics metrics;
  nats::GarbageCollector garbage(connection_, topology, metrics, {.clock = &clock_});
  // After a round it sleeps again: the number of its sleeps is the number of its rounds, and one.
  ASSERT_TRUE(clock_.await_waiting(1));
  clock_.advance(10min);
  ASSERT_TRUE(eventually([&] { return clock_.waits() == 2; })) << "no round in the first ten minutes";
  EXPECT_EQ(messages_in("OBJ_FILES"), 1u) << "a writer that is at work still lost its chunk";
  const std::size_t before = clock_.waits();
  std::size_t taken_in_round = 0;
  for (auto time = 0min; time < 24h; time += 10min) {
    clock_.advance(10min);
    ASSERT_TRUE(clock_.await_waiting(1));
    if (taken_in_round == 0 && messages_in("OBJ_FILES") == 0) taken_in_round = clock_.waits() - before;
  }
  EXPECT_EQ(taken_in_round, 1u);
  // Six hours, give or take a fifth.
  EXPECT_GE(clock_.waits() - before, 3u);
  EXPECT_LE(clock_.waits() - before, 5u);
  EXPECT_NE(metrics.render().find("pipegen_garbage_collected_total{bucket=\"FILES\"} 1\n"), std::string::npos);
}

TEST_F(DayTest, AnIdempotencyKeyOfAProcessThatDiedIsFreeAfterTenMinutes) {
  nats::ensure(connection_, {.key_values = {{.schema_name = "KEYS", .name = "KEYS"}}});
  using State = http::Idempotency::Claim::State;
  http::Idempotency died(connection_, "KEYS", 10min, clock_);
  auto claim = died.begin("/documents", "k");
  ASSERT_EQ(claim.state, State::kMine);
  http::Idempotency next(connection_, "KEYS", 10min, clock_);
  for (int minute = 0; minute < 10; ++minute) {
    clock_.advance(1min);
    EXPECT_EQ(next.begin("/documents", "k").state, State::kBusy) << minute;
  }
  clock_.advance(1s);
  const auto taken = next.begin("/documents", "k");
  EXPECT_EQ(taken.state, State::kMine);
  EXPECT_EQ(taken.id, claim.id);
  EXPECT_THROW(died.commit(claim, "digest"), http::Problem);
  next.finish(taken, "answer");
  clock_.advance(24h);
  EXPECT_EQ(next.begin("/documents", "k").state, State::kDone);
}

TEST(LaterTest, IsTriedEverySecondOnceNatsIsBackAndGivenUpAfterAHundredTries) {
  HeldClock clock;
  std::atomic<bool> back = false;
  std::atomic<int> asked = 0, tries = 0;
  http::Later later(clock);
  later.add([&] {
    ++tries;
    throw Unavailable("not yet");
  });
  later.start([&] {
    ++asked;
    return back.load();
  });
  const auto pass = [&](std::chrono::seconds step) {
    ASSERT_TRUE(clock.await_waiting(1));
    clock.advance(step);
    ASSERT_TRUE(clock.await_waiting(1));
  };
  for (int minute = 0; minute < 24 * 60; ++minute) pass(1min);  // away for a day
  EXPECT_EQ(asked, 24 * 60);
  EXPECT_EQ(tries, 0);
  back = true;
  for (int second = 0; second < 99; ++second) pass(1s);
  EXPECT_EQ(tries, 99);
  for (int second = 0; second < 20; ++second) pass(1s);
  EXPECT_EQ(tries, 100);
}

}  // namespace
}  // namespace pipegen
