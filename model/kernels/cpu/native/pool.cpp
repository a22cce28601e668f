#include "pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// One turn of a spinning wait.  Now and then the core is offered to others: it may be theirs to finish what
// we wait for.
inline void pause(unsigned turn) {
    if (turn % 4096 == 4095) std::this_thread::yield();
#if defined(__x86_64__)
    _mm_pause();
#endif
}

}  // namespace

Pool::Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        closing_ = true;
    }
    woken_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::wake() {
    if (workers_.empty()) return;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        awake_ = true;
    }
    woken_.notify_all();
}

void Pool::rest() { awake_ = false; }

void Pool::run(const Region& region) {
    if (workers_.empty() || region.count <= region.grain) {
        if (region.count > 0) region.body(region.self, 0, region.count);
        return;
    }
    region_ = region;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(int(workers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    take_ranges();
    for (unsigned turn = 0; busy_.load(std::memory_order_acquire) > 0; turn++) pause(turn);
}

void Pool::take_ranges() {
    const Region region = region_;
    int64_t begin = next_.load(std::memory_order_relaxed);
    while (begin < region.count) {
        int64_t length = (region.count - begin) / (2 * threads());
        if (length < region.grain) length = region.grain;
        const int64_t end = begin + length < region.count ? begin + length : region.count;
        if (!next_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
        region.body(region.self, begin, end);
        begin = next_.load(std::memory_order_relaxed);
    }
}

void Pool::work() {
    uint64_t seen = 0;
    while (true) {
        for (unsigned turn = 0; epoch_.load(std::memory_order_acquire) == seen; turn++) {
            if (closing_) return;
            if (!awake_) {
                // A region may already be waiting for this thread, though the step that started it is not
                // over.
                std::unique_lock<std::mutex> lock(mutex_);
                woken_.wait(lock, [&] {
                    return awake_ || closing_ || epoch_.load(std::memory_order_acquire) != seen;
                });
            }
            pause(turn);
        }
        seen++;
        take_ranges();
        busy_.fetch_sub(1, std::memory_order_release);
    }
}
