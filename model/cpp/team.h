// Threads that run one function together, meet at barriers and take tasks from a common counter. Who takes which task changes nothing
// in any result. Knows: threads. Does not know: what they compute.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

// The kernels are compiled once for each instruction set. What they share must not be emitted by them, or the linker might take the copy that the
// machine cannot run: it is inlined, or it stands in a file of its own.
#define CSL_INLINE inline __attribute__((always_inline))

namespace csl {

class Team {
 public:
  explicit Team(int size);
  ~Team();
  CSL_INLINE int size() const { return size_; }

  // Runs work(i) on every thread, the caller's included, and returns when all are done. Denormal numbers count as zero meanwhile.
  void run(const std::function<void(int)>& work);

  // All threads wait for each other; the counter of tasks starts again.
  void sync();

  // The next task's number; each number is given once between two barriers.
  CSL_INLINE int take() { return __atomic_fetch_add(&next_, 1, __ATOMIC_RELAXED); }

 private:
  void serve(int index);

  const int size_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<uint32_t> job_number_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) int next_ = 0;
};

}  // namespace csl
