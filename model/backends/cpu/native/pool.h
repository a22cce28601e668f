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

    // Calls body(begin, end) for ranges that cover [0, count), on all threads that are there, and returns when
    // all are done.  A thread that another program keeps off its core is not waited for, unless it holds a
    // range.
    //
    // The ranges start long, so that a thread reads one linear stream, and shrink to `grain`, so that all end
    // together. Bodies must not depend on which ranges they get.
    template <typename Body>
    void each(int64_t count, int64_t grain, const Body& body) {
        run([](const void* self, int64_t begin,
               int64_t end) { (*static_cast<const Body*>(self))(begin, end); },
            &body, count, grain);
    }

private:
    using Call = void (*)(const void* self, int64_t begin, int64_t end);

    void run(Call body, const void* self, int64_t count, int64_t grain);
    void take_ranges();
    void work();

    // The region under way.  Written when all of the last one is done, read by whoever looks for a range, at
    // any time: what was read is good if `cursor_` is then still what it was before.
    std::atomic<Call> body_{nullptr};
    std::atomic<const void*> self_{nullptr};
    std::atomic<int64_t> count_{0}, grain_{1};
    // The region's number in the upper half, where its next range begins in the lower: NOTHING_LEFT if all of
    // it is taken.
    alignas(64) std::atomic<uint64_t> cursor_;
    alignas(64) std::atomic<int64_t> done_{0};  // of count_
    alignas(64) std::atomic<bool> awake_{false};
    std::atomic<bool> closing_{false};
    std::mutex mutex_;
    std::condition_variable woken_;
    std::vector<std::thread> workers_;
};
