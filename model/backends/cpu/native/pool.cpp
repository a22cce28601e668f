#include "pool.h"

#include <algorithm>

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

constexpr uint64_t NOTHING_LEFT = 0xffffffff;

}  // namespace

Pool::Pool(int threads) : cursor_(NOTHING_LEFT) {
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

void Pool::run(Call body, const void* self, int64_t count, int64_t grain) {
    if (workers_.empty() || count <= grain) {
        if (count > 0) body(self, 0, count);
        return;
    }
    body_.store(body, std::memory_order_release);
    self_.store(self, std::memory_order_release);
    count_.store(count, std::memory_order_release);
    grain_.store(grain, std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
    const uint64_t number = cursor_.load(std::memory_order_relaxed) >> 32;
    cursor_.store((number + 1) << 32, std::memory_order_release);
    take_ranges();
    for (unsigned turn = 0; done_.load(std::memory_order_acquire) < count; turn++) pause(turn);
}

void Pool::take_ranges() {
    while (true) {
        uint64_t cursor = cursor_.load(std::memory_order_acquire);
        const uint64_t next = cursor & NOTHING_LEFT;
        if (next == NOTHING_LEFT) return;
        const Call body = body_.load(std::memory_order_acquire);
        const void* self = self_.load(std::memory_order_acquire);
        const int64_t count = count_.load(std::memory_order_acquire);
        const int64_t grain = grain_.load(std::memory_order_acquire);
        const int64_t begin = int64_t(next), length = std::max((count - begin) / (2 * threads()), grain);
        const int64_t end = std::min(begin + length, count);
        const uint64_t after = end == count ? NOTHING_LEFT : uint64_t(end);
        // Succeeds only if no part of the region was taken since, so the region is still this one.
        if (!cursor_.compare_exchange_weak(cursor, (cursor & ~NOTHING_LEFT) | after,
                                           std::memory_order_acq_rel, std::memory_order_relaxed))
            continue;
        body(self, begin, end);
        done_.fetch_add(end - begin, std::memory_order_release);
    }
}

void Pool::work() {
    for (unsigned turn = 0; !closing_; turn++) {
        if (!awake_) {
            std::unique_lock<std::mutex> lock(mutex_);
            woken_.wait(lock, [&] { return awake_ || closing_; });
        }
        take_ranges();
        pause(turn);
    }
}
