// Threads that share the work of one step.
//
// Within a step the workers spin: a region of a few microseconds starts 1000 times a token, and waking a
// sleeping thread costs 40.  Between steps they sleep, so that an idle server is idle.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

class Pool {
public:
    explicit Pool(int threads);
    ~Pool();

    // The caller is one of them.
    int threads() const { return int(workers_.size()) + 1; }

    void wake();  // before the first region of a step
    void rest();  // after the last

    // Calls body(begin, end) for ranges that cover [0, count), on all threads, and returns when all are done.
    //
    // The ranges start long, so that a thread reads one linear stream, and shrink to `grain`, so that all end
    // together. Bodies must not depend on which ranges they get.
    template <typename Body>
    void each(int64_t count, int64_t grain, const Body& body) {
        run({[](const void* self, int64_t begin, int64_t end) {
                 (*static_cast<const Body*>(self))(begin, end);
             },
             &body, count, grain});
    }

private:
    struct Region {
        void (*body)(const void* self, int64_t begin, int64_t end);
        const void* self;
        int64_t count, grain;
    };

    void run(const Region& region);
    void take_ranges();
    void work();

    Region region_{};
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<uint64_t> epoch_{0};  // raised when a region starts
    alignas(64) std::atomic<int> busy_{0};        // workers that have not finished the region
    alignas(64) std::atomic<bool> awake_{false};
    std::atomic<bool> closing_{false};
    std::mutex mutex_;
    std::condition_variable woken_;
    std::vector<std::thread> workers_;
};
