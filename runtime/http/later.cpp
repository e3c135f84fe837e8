#include "http/later.hpp"

#include "pipegen/error.hpp"
#include "pipegen/log.hpp"

namespace pipegen::http {

namespace {

using namespace std::chrono_literals;

constexpr int kMaxTries = 100;
constexpr std::size_t kMaxTasks = 10'000;

}  // namespace

void Later::start(std::function<bool()> can_run) {
  can_run_ = std::move(can_run);
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    while (!clock_.wait_for(changed_, lock, 1s, [this] { return stopping_; })) {
      if (tasks_.empty() || !can_run_()) continue;
      Tasks batch;
      batch.swap(tasks_);
      lock.unlock();
      Tasks again = run(std::move(batch));
      lock.lock();
      tasks_.insert(tasks_.end(), again.begin(), again.end());
    }
  });
}

void Later::add(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  if (tasks_.size() < kMaxTasks) tasks_.push_back({std::move(task)});
}

void Later::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (!thread_.joinable()) return;
  thread_.join();
  if (can_run_()) run(std::move(tasks_));
}

Later::Tasks Later::run(Tasks tasks) {
  Tasks again;
  for (auto& task : tasks) {
    try {
      task.run();
    } catch (const Unavailable& error) {
      if (++task.tries < kMaxTries) {
        again.push_back(std::move(task));
      } else {
        Logger().warning("clearing up was given up", {{"error", error.what()}});
      }
    } catch (const std::exception& error) {
      Logger().warning("clearing up failed", {{"error", error.what()}});
    }
  }
  return again;
}

}  // namespace pipegen::http
