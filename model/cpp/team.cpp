#include "team.h"

#include <chrono>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace csl {

static inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Numbers too small to matter cost a hundred times as much as others on x86; a decaying state is full of them.
class FlushDenormals {
 public:
#if defined(__x86_64__) || defined(__i386__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (1ull << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#endif
};

// Some milliseconds. Beside a busy process, giving the core away at once costs a time slice at each of a hundred barriers of a token: 110 ms
// instead of 8 (docs/log.md). Not for ever, in case whoever is waited for needs this very core.
static constexpr int SPINS = 200000;
static constexpr auto AWAKE = std::chrono::microseconds(300);  // a decoding loop's next step comes sooner than that

template <class Condition>
static void wait_until(Condition condition) {
  for (int i = 0; !condition(); i++) {
    if (i < SPINS) pause_cpu();
    else std::this_thread::yield();  // on a busy machine whoever is waited for needs this core
  }
}

Team::Team(int size) : size_(size < 1 ? 1 : size) {
  for (int i = 1; i < size_; i++) threads_.emplace_back([this, i] { serve(i); });
}

Team::~Team() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    job_number_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Team::run(const std::function<void(int)>& work) {
  __atomic_store_n(&next_, 0, __ATOMIC_RELAXED);
  if (size_ == 1) {
    FlushDenormals flush;
    work(0);
    return;
  }
  work_ = &work;
  running_.store(size_ - 1, std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    job_number_.fetch_add(1, std::memory_order_release);
  }
  if (sleeping_.load() > 0) wake_.notify_all();
  {
    FlushDenormals flush;
    work(0);
  }
  wait_until([this] { return running_.load(std::memory_order_acquire) == 0; });
}

void Team::sync() {
  if (size_ == 1) {
    __atomic_store_n(&next_, 0, __ATOMIC_RELAXED);
    return;
  }
  uint32_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    __atomic_store_n(&next_, 0, __ATOMIC_RELAXED);
    generation_.store(generation + 1, std::memory_order_release);
    return;
  }
  wait_until([this, generation] { return generation_.load(std::memory_order_acquire) != generation; });
}

void Team::serve(int index) {
  uint32_t seen = 0;
  for (;;) {
    auto since = std::chrono::steady_clock::now();
    for (int i = 0; job_number_.load(std::memory_order_acquire) == seen; i++) {
      pause_cpu();
      if (i % 256 != 255 || std::chrono::steady_clock::now() - since < AWAKE) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return job_number_.load(std::memory_order_acquire) != seen; });
      sleeping_.fetch_sub(1);
    }
    seen++;
    if (stopping_.load()) return;
    {
      FlushDenormals flush;
      (*work_)(index);
    }
    running_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace csl
