// Other functions of the interface: opening the library, and measuring the memory.
#include "abi.h"
#include "machine.h"

#include <chrono>
#include <cstring>
#include <string>
#if defined(HAVE_NEON)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace {

struct Choice {
    const char* name;
    const Isa* isa;
    const Panels* panels;
    bool (*runs_here)();
};

#if defined(__x86_64__)
bool avx512_runs_here() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
#endif

const Choice CHOICES[] = {
#if defined(__x86_64__)
#if defined(HAVE_AMX)
    {"amx", &AVX512, &AMX, [] { return avx512_runs_here() && amx_runs_here(); }},
#endif
    {"avx512", &AVX512, &VNNI, avx512_runs_here},
    {"avx2", &AVX2, nullptr,
     [] {
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi2");
     }},
#elif defined(HAVE_NEON)
    {"neon", &NEON, nullptr, [] { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }},
#endif
    {"portable", &PORTABLE, nullptr, [] { return true; }},
};

}  // namespace

extern "C" {

#ifndef SOURCES
#define SOURCES unknown
#endif
#define QUOTE(x) #x
#define QUOTED(x) QUOTE(x)
const char* gptoss_sources() { return QUOTED(SOURCES); }

int gptoss_abi(int32_t* sizes) {
    const int32_t all[] = {sizeof(Embed),    sizeof(Norm),    sizeof(Quantise), sizeof(Dense),
                           sizeof(Store),    sizeof(Attend),  sizeof(Route),    sizeof(Experts),
                           sizeof(Activate), sizeof(Combine), sizeof(Decide),   sizeof(Rescore),
                           sizeof(Clear),    sizeof(AddUp),
                           sizeof(Instruction), sizeof(Step)};
    std::memcpy(sizes, all, sizeof all);
    return ABI_VERSION;
}

const char* gptoss_isas() {
    static const std::string names = [] {  // computed once, by the first thread that asks
        std::string found;
        for (const Choice& choice : CHOICES)
            if (choice.runs_here()) found += (found.empty() ? "" : " ") + std::string(choice.name);
        return found;
    }();
    return names.c_str();
}

Machine* gptoss_open(int threads, const char* isa) {
    for (const Choice& choice : CHOICES)
        if (choice.runs_here() && !std::strcmp(choice.name, isa))
            return new Machine(threads, *choice.isa, choice.panels);
    return nullptr;
}

void gptoss_close(Machine* machine) { delete machine; }

void gptoss_prompt_bits(Machine* machine, int bits) { machine->prompt_bits = bits; }

void gptoss_prefetch(Machine* machine, int wanted) { machine->ahead = wanted ? READ_AHEAD : 0; }

double gptoss_read_bandwidth(Machine* machine, const uint8_t* data, int64_t bytes) {
    constexpr int64_t PIECE = 1 << 21;
    std::atomic<uint64_t> total{0};
    machine->pool.wake();
    const auto start = std::chrono::steady_clock::now();
    machine->pool.each(bytes / PIECE, 1, [&](int64_t begin, int64_t end) {
        total += machine->isa.sum(data + begin * PIECE, (end - begin) * PIECE);
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    machine->pool.rest();
    return double(bytes / PIECE * PIECE) / seconds.count();
}

}  // extern "C"
