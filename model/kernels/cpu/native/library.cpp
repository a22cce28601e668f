// The rest of the interface: opening, packing weights into the layout of layout.h, and measuring memory.
#include "abi.h"
#include "layout.h"
#include "machine.h"

#include <chrono>
#include <cmath>
#include <cstring>

namespace {

struct Choice {
    const Isa* isa;
    bool (*runs_here)();
};

const Choice CHOICES[] = {
#if defined(__x86_64__)
    {&AVX512,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
                __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
     }},
    {&AVX2, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }},
#endif
    {&PORTABLE, [] { return true; }},
};

float widen(uint16_t bf16) {
    const uint32_t bits = uint32_t(bf16) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

uint16_t to_bf16(float x) {  // of finite numbers, to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Which row of the matrix is row r of a tile; with `paired`, 16 even rows come before their 16 odd ones.
int64_t source_row(int64_t tile, int r, bool paired) {
    if (!paired) return tile * TILE + r;
    return tile * TILE + (r < 16 ? 2 * r : 2 * (r - 16) + 1);
}

void pack_mxfp4_tile(const uint8_t* blocks, const uint8_t* scales, int64_t tile, int64_t outputs, int64_t inputs, bool paired,
                     uint8_t* out) {
    const int64_t count = inputs / BLOCK;
    std::memset(out, 0, mxfp4_tile_bytes(inputs));
    for (int64_t b = 0; b < count; b++) {
        uint8_t* pair = out + b / 2 * (64 + 1024);
        uint8_t *to_scales = pair + b % 2 * 32, *to_codes = pair + 64 + b % 2 * 512;
        for (int r = 0; r < TILE; r++) {
            const int64_t row = source_row(tile, r, paired);
            if (row >= outputs) continue;
            to_scales[r] = scales[row * count + b];
            for (int g = 0; g < 4; g++) std::memcpy(to_codes + 128 * g + 4 * r, blocks + (row * count + b) * 16 + 4 * g, 4);
        }
    }
}

void pack_bf16_tile(const uint16_t* weights, int64_t tile, int64_t outputs, int64_t inputs, uint8_t* out) {
    uint16_t* to = reinterpret_cast<uint16_t*>(out);
    for (int r = 0; r < TILE; r++) {
        const int64_t row = tile * TILE + r;
        uint16_t* column = to + (r < 16 ? 2 * r : 2 * (r - 16) + 1);
        for (int64_t k = 0; k < inputs; k++) column[32 * k] = row < outputs ? weights[row * inputs + k] : 0;
    }
}

// Symmetric: the scale is the largest magnitude of the group over 127, rounded to bf16.
void pack_int8_tile(const uint16_t* weights, int64_t tile, int64_t outputs, int64_t inputs, uint8_t* out) {
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits, and takes no call as rint() does
    uint8_t* p = out;
    for (int64_t k = 0; k < inputs; k += GROUP) {
        const int columns = inputs - k < GROUP ? BLOCK : GROUP;
        uint8_t* to = p + 64;
        for (int r = 0; r < TILE; r++) {
            const int64_t row = tile * TILE + r;
            float group[GROUP] = {}, largest = 0.0f;
            int32_t codes[GROUP];
            if (row < outputs)
                for (int j = 0; j < columns; j++) group[j] = widen(weights[row * inputs + k + j]);
            for (int j = 0; j < GROUP; j++) {
                const float magnitude = std::fabs(group[j]);
                largest = magnitude > largest ? magnitude : largest;
            }
            const uint16_t scale = to_bf16(largest / 127.0f);
            std::memcpy(p + 2 * r, &scale, 2);
            const float inverse = scale ? 1.0f / widen(scale) : 0.0f;
            for (int j = 0; j < GROUP; j++) {
                const float code = (group[j] * inverse + ROUND) - ROUND;
                codes[j] = int32_t(code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code) + 128;
            }
            for (int j = 0; j < columns; j += 8) {
                const int32_t* c = codes + j;
                const uint8_t bytes[8] = {uint8_t(c[0]), uint8_t(c[2]), uint8_t(c[4]), uint8_t(c[6]),
                                          uint8_t(c[1]), uint8_t(c[3]), uint8_t(c[5]), uint8_t(c[7])};
                std::memcpy(to + 32 * j + 4 * r, bytes, 4);
                std::memcpy(to + 32 * j + 128 + 4 * r, bytes + 4, 4);
            }
        }
        p = to + columns * TILE;
    }
}

}  // namespace

extern "C" {

#ifndef SOURCES
#define SOURCES unknown
#endif
#define QUOTE(x) #x
#define QUOTED(x) QUOTE(x)
const char* gptoss_sources() { return QUOTED(SOURCES); }

int gptoss_abi(int32_t* sizes) {
    const int32_t all[] = {sizeof(Embed),  sizeof(Norm),    sizeof(Quantise), sizeof(Dense),   sizeof(Store),
                           sizeof(Attend), sizeof(Route),   sizeof(Experts),  sizeof(Activate), sizeof(Combine),
                           sizeof(Rescore), sizeof(Instruction), sizeof(Step)};
    std::memcpy(sizes, all, sizeof all);
    return ABI_VERSION;
}

const char* gptoss_isas() {
    static char names[64];
    names[0] = 0;
    for (const Choice& choice : CHOICES)
        if (choice.runs_here()) {
            if (names[0]) std::strcat(names, " ");
            std::strcat(names, choice.isa->name);
        }
    return names;
}

Machine* gptoss_open(int threads, const char* isa) {
    for (const Choice& choice : CHOICES)
        if (choice.runs_here() && !std::strcmp(choice.isa->name, isa)) return new Machine(threads, *choice.isa);
    return nullptr;
}

void gptoss_close(Machine* machine) { delete machine; }

int64_t gptoss_packed_bytes(int format, int64_t outputs, int64_t inputs) {
    const int64_t tiles = round_up(outputs, TILE) / TILE;
    return tiles * (format == MXFP4 ? mxfp4_tile_bytes(inputs) : format == INT8 ? int8_tile_bytes(inputs) : bf16_tile_bytes(inputs));
}

void gptoss_pack_mxfp4(Machine* machine, const uint8_t* blocks, const uint8_t* scales, int64_t matrices, int64_t outputs,
                       int64_t inputs, int paired, uint8_t* out) {
    const int64_t tiles = round_up(outputs, TILE) / TILE, columns = inputs / BLOCK;
    machine->pool.wake();
    machine->pool.each(matrices * tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t matrix = i / tiles;
            pack_mxfp4_tile(blocks + matrix * outputs * columns * 16, scales + matrix * outputs * columns, i % tiles, outputs,
                            inputs, paired, out + i * mxfp4_tile_bytes(inputs));
        }
    });
    machine->pool.rest();
}

void gptoss_pack_dense(Machine* machine, int format, const uint16_t* weights, int64_t outputs, int64_t inputs, uint8_t* out) {
    machine->pool.wake();
    machine->pool.each(round_up(outputs, TILE) / TILE, 1, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; tile++) {
            if (format == INT8)
                pack_int8_tile(weights, tile, outputs, inputs, out + tile * int8_tile_bytes(inputs));
            else
                pack_bf16_tile(weights, tile, outputs, inputs, out + tile * bf16_tile_bytes(inputs));
        }
    });
    machine->pool.rest();
}

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
