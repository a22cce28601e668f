// What all products of 16 x 16 tiles have in common.  Sapphire Rapids and later.
//
// The tile unit computes while the vector units scale the sums of the step before and add them up, row by row
// between tile instructions.  A step is one tile of weights and two pairs of (rows, blocks or groups).
//
// Who includes this compiles for AMX from then on, and ends with END_AMX.
#pragma once

#include "panels.h"

#if defined(HAVE_AMX)

#include <algorithm>
#include <cstring>
#include <immintrin.h>
#include <utility>

#if defined(__clang__)
#define END_AMX _Pragma("clang attribute pop")
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2,amx-tile,amx-int8,amx-bf16"))), apply_to = function)
#else
#define END_AMX
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2,amx-tile,amx-int8,amx-bf16")
#endif

#include "lanes_avx512.h"
#include "emit.h"

namespace {

constexpr int SIDE = 16;          // rows of a tile register, and its words
constexpr int REGISTER = 1024;    // bytes of one
constexpr int MOST_ROWS = 256;

// GCC does not know that configurations and tiles are loaded from memory.
inline void fence() { asm volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Whoever computes with tiles: registers 0 to 3 for sums, 4 and 5 for rows of `columns` bytes, 6 and 7 for weights.
struct Tiles {
    explicit Tiles(int columns = 64) {
        TileConfig config;
        config.row_bytes[4] = config.row_bytes[5] = uint16_t(columns);
        config.rows[6] = config.rows[7] = uint8_t(columns / 4);
        asm volatile("" ::"r"(&config) : "memory");
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
};

// What a step left behind: sums of products in memory, which wait for their scales.
struct Waiting {
    const float* counts;     // registers
    const float* scales[2];  // of registers 0 and 1, and of 2 and 3
    float* sums[2];          // likewise, [2 halves][16 rows][16]
};

// Writes the outputs: sums [tiles][groups of 16 rows][2 halves][16 rows][16], times a factor for each row.
template <typename Sums, typename Factor>
inline void emit_all(const Tile& first, int tiles, const Row* rows, int count, const Sums& sums, Factor factor) {
    for (int t = 0; t < tiles; t++) {
        Tile tile = first;
        if (tile.bias) tile.bias += TILE * t;
        for (int r = 0; r < count; r++) {
            Row row = rows[r];
            row.out += TILE * t;
            const float* sum = sums[t][r / SIDE][0] + r % SIDE * 16;
            emit(tile, row, mul(load_pair(sum, sum + 256), splat(factor(row))));
        }
    }
}

}  // namespace

#endif
