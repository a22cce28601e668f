// AMX: products of 16 x 16 tiles.  Sapphire Rapids and later.
//
// MXFP4.  A block's products must be summed apart from the next block's, since each has its own scale, and a block
// has 32 columns where a tile of bytes has 64.  A tile of bf16 has 32.  Each plane of codes, and each weight, is a
// bf16 number exactly, and all sums of a block are whole numbers below 2^24, so float32 holds them exactly, in
// whatever order the tile unit adds: both planes add up in one register, the upper one 256 times.
//
// int8.  A group has 64 columns, as a tile of bytes; its sums need int32, one for each plane.
//
// The tile unit computes while the vector units scale the sums of the step before and add them up, row by row
// between tile instructions.  A step is one tile of weights and two pairs of (rows, blocks or groups).
#include "panels.h"

#if defined(HAVE_AMX)

#include <algorithm>
#include <cpuid.h>
#include <cstring>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#define TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2,amx-tile,amx-int8,amx-bf16"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2,amx-tile,amx-int8,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2,amx-tile,amx-int8,amx-bf16")
#endif

#include "lanes_avx512.h"
#include "emit.h"

namespace {

constexpr int SIDE = 16;          // rows of a tile register, and its words
constexpr int REGISTER = 1024;    // bytes of one
constexpr int MXFP4_ROWS = 128, INT8_ROWS = 256;
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

// -- MXFP4

constexpr int QUAD = 4 * REGISTER;  // 32 rows of one block, both planes

int64_t mxfp4_bytes(int inputs, int rows) {
    return round_up(inputs / BLOCK, 2) * (round_up(rows, 2 * SIDE) / (2 * SIDE)) * QUAD;
}

// 32 codes, times a power of two, as bf16, which holds them exactly.
inline __m512i as_bf16(__m256i codes, __m512 factor) {
    const __m512i first = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes));
    const __m512i second = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1));
    const __m512i a = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(first), factor));
    const __m512i b = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(second), factor));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16))),
                              _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1);
}

// [pairs of blocks][32s of rows][2 blocks][2 groups of 16 rows][2 planes] registers.  Columns of eight lie as
// 0 4 1 5 2 6 3 7.
void mxfp4_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int quads = int(round_up(count, 2 * SIDE) / (2 * SIDE)), blocks = inputs / BLOCK;
    alignas(64) uint8_t order[64];
    for (int plane = 0; plane < 2; plane++)
        for (int i = 0; i < 32; i++) {
            const int column = i % 8 / 2 + i % 2 * 4;
            order[32 * plane + i] = uint8_t(i / 8 * 16 + 8 * plane + column % 2 * 4 + column / 2);
        }
    const __m512i permutation = _mm512_load_si512(order);
    for (int r = 0; r < round_up(count, SIDE); r++) {
        uint8_t* to = panel + r / (2 * SIDE) * 2 * QUAD + r / SIDE % 2 * 2 * REGISTER + r % SIDE * 64;
        for (int b = 0; b < round_up(blocks, 2); b++) {
            uint8_t* at = to + (int64_t(b / 2) * quads * 2 + b % 2) * QUAD;
            if (r >= count || b >= blocks) {
                std::memset(at, 0, 64), std::memset(at + REGISTER, 0, 64);
                continue;
            }
            const __m512i codes =
                _mm512_permutexvar_epi8(permutation, _mm512_loadu_si512(rows[r].codes + 64 * b));
            _mm512_store_si512(at, as_bf16(_mm512_castsi512_si256(codes), _mm512_set1_ps(256.0f)));
            _mm512_store_si512(at + REGISTER,
                               as_bf16(_mm512_extracti64x4_epi64(codes, 1), _mm512_set1_ps(1.0f)));
        }
    }
}

constexpr int DECODED = 2 * 2 * REGISTER;  // a pair of blocks of one tile as bf16: [2 blocks][2 halves]

// One pair of blocks of a tile, and its scales as [2 blocks][2 halves][16].
inline void mxfp4_decode(const uint8_t* p, int blocks, int64_t ahead, uint8_t* to, float* scales) {
    alignas(64) static const uint16_t VALUES[32] = {  // 2 * e2m1 in bf16; the fifth bit belongs to another code
        0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0, 0x4100, 0x4140, 0,      0xbf80, 0xc000,
        0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140, 0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0,
        0x4100, 0x4140, 0,      0xbf80, 0xc000, 0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140};
    const __m512i table = _mm512_load_si512(VALUES);
    _mm_prefetch(p + ahead, _MM_HINT_T0);
    for (int b = 0; b < 2; b++) {
        if (b >= blocks) {  // a block of zeros changes no sum
            std::memset(to + 2 * b * REGISTER, 0, 2 * REGISTER), std::memset(scales + 32 * b, 0, 128);
            break;
        }
        const uint8_t* codes = p + 64 + 512 * b;
        for (int half = 0; half < 2; half++) {
            _mm512_store_ps(scales + 32 * b + 16 * half, e8m0(p + 32 * b + 16 * half));
            uint8_t* line = to + (2 * b + half) * REGISTER;
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++, line += 256) {
                _mm_prefetch(codes + 128 * g + 64 * half + ahead, _MM_HINT_T0);
                const __m512i packed = _mm512_loadu_si512(codes + 128 * g + 64 * half);
                _mm512_store_si512(line, _mm512_permutexvar_epi16(packed, table));
                _mm512_store_si512(line + 64, _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 4), table));
                _mm512_store_si512(line + 128, _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 8), table));
                _mm512_store_si512(line + 192, _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 12), table));
            }
        }
    }
}

// A sixteenth of a step's sums: four rows of a register.  Both blocks' are scaled and added in their order.
template <int REG, int QUARTER>
inline void mxfp4_fold(const Waiting& w) {
    constexpr int ROWS = QUARTER * 64;
    const float *counts = w.counts + REG * 256 + ROWS, *scales = w.scales[REG / 2] + REG % 2 * 16;
    float* sums = w.sums[REG / 2] + REG % 2 * 256 + ROWS;
    const __m512 first = _mm512_load_ps(scales), second = _mm512_load_ps(scales + 32);
#pragma GCC unroll 4
    for (int r = 0; r < 64; r += 16) {
        __m512 sum = _mm512_load_ps(sums + r);
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_load_ps(counts + r), first));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_load_ps(counts + 4 * 256 + r), second));
        _mm512_store_ps(sums + r, sum);
    }
}

// One register of sums of one block, of both planes; meanwhile half a register of `waiting` is folded.  The register
// before it is stored: what it holds is complete by now, and its store holds up nothing.
#define PRODUCT(REG, WEIGHTS, HALF, LAST, TO)  \
    _tile_zero(REG);                           \
    _tile_dpbf16ps(REG, 4, WEIGHTS);           \
    fence();                                   \
    mxfp4_fold<REG, 2 * HALF>(waiting);        \
    fence();                                   \
    _tile_dpbf16ps(REG, 5, WEIGHTS);           \
    fence();                                   \
    mxfp4_fold<REG, 2 * HALF + 1>(waiting);    \
    _tile_stored(LAST, TO, 64)

// Two groups of 16 rows times one tile, for one block.
template <int HALF>
inline void mxfp4_square(const uint8_t* rows, const uint8_t* weights, float* counts, float* before,
                         const Waiting& waiting) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + REGISTER, 64);
    _tile_loadd(6, weights, 64);
    PRODUCT(0, 6, HALF, 3, before + 768);
    _tile_loadd(7, weights + REGISTER, 64);
    PRODUCT(1, 7, HALF, 0, counts);
    _tile_loadd(4, rows + 2 * REGISTER, 64);
    _tile_loadd(5, rows + 3 * REGISTER, 64);
    PRODUCT(2, 6, HALF, 1, counts + 256);
    PRODUCT(3, 7, HALF, 2, counts + 512);
}

// One group of rows times two tiles.
template <int HALF>
inline void mxfp4_line(const uint8_t* rows, const uint8_t* weights, const uint8_t* other_weights, float* counts,
                       float* before, const Waiting& waiting) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + REGISTER, 64);
    _tile_loadd(6, weights, 64);
    PRODUCT(0, 6, HALF, 3, before + 768);
    _tile_loadd(7, weights + REGISTER, 64);
    PRODUCT(1, 7, HALF, 0, counts);
    _tile_loadd(6, other_weights, 64);
    PRODUCT(2, 6, HALF, 1, counts + 256);
    _tile_loadd(7, other_weights + REGISTER, 64);
    PRODUCT(3, 7, HALF, 2, counts + 512);
}
#undef PRODUCT

template <int HALF>
inline void mxfp4_fold_half(const Waiting& w) {
    mxfp4_fold<0, 2 * HALF>(w), mxfp4_fold<1, 2 * HALF>(w), mxfp4_fold<2, 2 * HALF>(w), mxfp4_fold<3, 2 * HALF>(w);
    mxfp4_fold<0, 2 * HALF + 1>(w), mxfp4_fold<1, 2 * HALF + 1>(w), mxfp4_fold<2, 2 * HALF + 1>(w),
        mxfp4_fold<3, 2 * HALF + 1>(w);
}

void mxfp4(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(4096) float sums[PANEL_TILES][MXFP4_ROWS / SIDE][2][256];
    alignas(4096) float counts[2][8 * 256];
    alignas(4096) uint8_t weights[PANEL_TILES][DECODED];
    alignas(64) float nowhere[512] = {}, none[64] = {};
    alignas(64) float scales[2][PANEL_TILES][64];
    const int groups = int(round_up(count, SIDE) / SIDE), quads = (groups + 1) / 2, blocks = first.inputs / BLOCK;
    const int64_t stride = mxfp4_tile_bytes(first.inputs);
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    std::memset(counts, 0, sizeof counts);
    const Tiles configured;
    _tile_zero(3);
    Waiting waiting = {counts[1], {none, none}, {nowhere, nowhere}};
    float* before = counts[1] + 1024;  // where the last register of the block before belongs
    int turn = 0;
    for (int pair = 0; pair < (blocks + 1) / 2; pair++) {
        float(*scale)[64] = scales[pair % 2];
        for (int t = 0; t < tiles; t++)
            mxfp4_decode(first.weights + t * stride + pair * (64 + 1024), blocks - 2 * pair, first.ahead, weights[t],
                         scale[t]);
        fence();
        const uint8_t* codes = panel + int64_t(pair) * quads * 2 * QUAD;
        for (int g = 0; g < groups; g += 2, codes += 2 * QUAD) {
            const bool alone = g + 1 == groups;
            if (alone && tiles == 2) {
                float* to = counts[turn];
                mxfp4_line<0>(codes, weights[0], weights[1], to, before, waiting);
                mxfp4_line<1>(codes + QUAD, weights[0] + DECODED / 2, weights[1] + DECODED / 2, to + 1024, to, waiting);
                waiting = {to, {scale[0], scale[1]}, {sums[0][g][0], sums[1][g][0]}};
                before = to + 1024;
                turn ^= 1;
                continue;
            }
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                float* to = counts[turn];
                mxfp4_square<0>(codes, weights[t], to, before, waiting);
                mxfp4_square<1>(codes + QUAD, weights[t] + DECODED / 2, to + 1024, to, waiting);
                waiting = {to, {scale[t], scale[t]}, {sums[t][g][0], alone ? nowhere : sums[t][g + 1][0]}};
                before = to + 1024;
            }
        }
    }
    _tile_stored(3, before + 768, 64);
    mxfp4_fold_half<0>(waiting);
    mxfp4_fold_half<1>(waiting);
    for (int t = 0; t < tiles; t++) {
        Tile tile = first;
        if (tile.bias) tile.bias += TILE * t;
        for (int r = 0; r < count; r++) {
            Row row = rows[r];
            row.out += TILE * t;
            const float* sum = sums[t][r / SIDE][0] + r % SIDE * 16;
            emit(tile, row, mul(load_pair(sum, sum + 256), splat(row.scale * 0.5f)));
        }
    }
}

// -- int8

constexpr int PAIR = 2 * 2 * REGISTER;  // 16 rows of two groups of columns, both planes

// [pairs of groups of 64 columns][groups of 16 rows][2 groups][2 planes] registers.
int64_t int8_bytes(int inputs, int rows) {
    return round_up(inputs, 2 * GROUP) / (2 * GROUP) * (round_up(rows, SIDE) / SIDE) * PAIR;
}

void int8_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int groups = int(round_up(count, SIDE) / SIDE);
    const __m512i high = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i low = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    for (int r = 0; r < groups * SIDE; r++) {
        uint8_t* at = panel + r / SIDE * PAIR + r % SIDE * 64;
        for (int k = 0; k < round_up(inputs, 2 * GROUP); k += GROUP) {
            __m512i a = _mm512_setzero_si512(), b = a;
            if (r < count && k < inputs) a = _mm512_loadu_si512(rows[r].codes + 2 * k);
            if (r < count && k + BLOCK < inputs) b = _mm512_loadu_si512(rows[r].codes + 2 * k + 64);
            _mm512_store_si512(at, _mm512_permutex2var_epi64(a, high, b));
            _mm512_store_si512(at + REGISTER, _mm512_permutex2var_epi64(a, low, b));
            at += k / GROUP % 2 ? int64_t(groups) * PAIR - PAIR / 2 : PAIR / 2;
        }
    }
}

// One group of a tile as signed bytes, [2 halves] registers, and its scales.
inline void int8_decode(const uint8_t* p, int columns, int64_t ahead, uint8_t* to, float* scales) {
    if (columns <= 0) {  // a group of zeros changes no sum
        std::memset(scales, 0, 128);
        return;
    }
    store(scales, group_scales(p));
    _mm_prefetch(p + ahead, _MM_HINT_T0);
    const __m512i offset = _mm512_set1_epi8(char(128));
    p += 64;
    for (int j = 0; j < GROUP / 4; j++)  // of 4 columns
        for (int half = 0; half < 2; half++) {
            _mm_prefetch(p + 128 * j + 64 * half + ahead, _MM_HINT_T0);
            const __m512i codes = 4 * j < columns ? _mm512_loadu_si512(p + 128 * j + 64 * half) : offset;
            _mm512_store_si512(to + half * REGISTER + 64 * j, _mm512_xor_si512(codes, offset));
        }
}

// An eighth of a step's sums: four rows of a half, both groups.  A group's registers are [2 planes][2 halves].
template <int PART>
inline void int8_fold(const Waiting& w) {
    constexpr int HALF = PART / 4, ROW = PART % 4 * 64;
    const int32_t* counts = reinterpret_cast<const int32_t*>(w.counts) + HALF * 256 + ROW;
    float* sums = w.sums[0] + HALF * 256 + ROW;
    const __m512 first = _mm512_load_ps(w.scales[0] + HALF * 16), second = _mm512_load_ps(w.scales[1] + HALF * 16);
    // Both planes' sums are exact, so their sum is rounded once, as that of whole numbers is.
    auto total = [](const int32_t* high, const int32_t* low) {
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(high)), _mm512_set1_ps(256.0f),
                               _mm512_cvtepi32_ps(_mm512_load_si512(low)));
    };
#pragma GCC unroll 4
    for (int r = 0; r < 64; r += 16) {
        __m512 sum = _mm512_load_ps(sums + r);
        sum = _mm512_add_ps(sum, _mm512_mul_ps(total(counts + r, counts + 512 + r), first));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(total(counts + 1024 + r, counts + 1536 + r), second));
        _mm512_store_ps(sums + r, sum);
    }
}

// 16 rows times a tile, for one group of columns; meanwhile a half of `waiting` is folded.
template <int PART>
inline void int8_square(const uint8_t* rows, const uint8_t* weights, float* counts, const Waiting& waiting) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, rows, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_dpbssd(0, 4, 6);
    int8_fold<PART + 0>(waiting);
    _tile_loadd(5, rows + REGISTER, 64);
    _tile_dpbssd(2, 5, 6);
    int8_fold<PART + 1>(waiting);
    _tile_loadd(7, weights + REGISTER, 64);
    _tile_dpbssd(1, 4, 7);
    int8_fold<PART + 2>(waiting);
    _tile_dpbssd(3, 5, 7);
    int8_fold<PART + 3>(waiting);
    _tile_stored(0, counts, 64);
    _tile_stored(2, counts + 512, 64);
    _tile_stored(1, counts + 256, 64);
    _tile_stored(3, counts + 768, 64);
}

template <int... PARTS>
inline void int8_fold_all(const Waiting& waiting, std::integer_sequence<int, PARTS...>) {
    (int8_fold<PARTS>(waiting), ...);
}

void int8(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_TILES][INT8_ROWS / SIDE][2][256];
    alignas(64) float nowhere[512] = {}, none[32] = {};
    alignas(64) float counts[2][8 * 256];
    alignas(64) float scales[2][PANEL_TILES][2][32];
    alignas(64) uint8_t weights[PANEL_TILES][2][2 * REGISTER] = {};
    const int groups = int(round_up(count, SIDE) / SIDE);
    const int64_t stride = int8_tile_bytes(first.inputs);
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    std::memset(counts, 0, sizeof counts);
    const Tiles configured;
    Waiting waiting = {counts[1], {none, none}, {nowhere, nowhere}};
    int turn = 0;
    for (int k = 0; k < first.inputs; k += 2 * GROUP) {
        float(*scale)[2][32] = scales[k / GROUP / 2 % 2];
        for (int t = 0; t < tiles; t++)
            for (int i = 0; i < 2; i++)
                int8_decode(first.weights + t * stride + (k / GROUP + i) * (64 + TILE * GROUP),
                            first.inputs - k - i * GROUP, first.ahead, weights[t][i], scale[t][i]);
        fence();
        const uint8_t* codes = panel + int64_t(k / GROUP / 2) * groups * PAIR;
        for (int g = 0; g < groups; g++, codes += PAIR)
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                float* to = counts[turn];
                int8_square<0>(codes, weights[t][0], to, waiting);
                int8_square<4>(codes + PAIR / 2, weights[t][1], to + 4 * 256, waiting);
                waiting = {to, {scale[t][0], scale[t][1]}, {sums[t][g][0], nullptr}};
            }
    }
    int8_fold_all(waiting, std::make_integer_sequence<int, 8>());
    for (int t = 0; t < tiles; t++) {
        Tile tile = first;
        if (tile.bias) tile.bias += TILE * t;
        for (int r = 0; r < count; r++) {
            Row row = rows[r];
            row.out += TILE * t;
            const float* sum = sums[t][r / SIDE][0] + r % SIDE * 16;
            emit(tile, row, mul(load_pair(sum, sum + 256), splat(row.scale)));
        }
    }
}

// -- 8-bit codes
//
// A block has 32 columns, so rows of codes fill half a register and weights half of one.  Each block's sums have two
// scales, the row's and the weights'.

constexpr int HALF_REGISTER = REGISTER / 2;
constexpr int COARSE_ROWS = 256;

// [pairs of blocks][groups of 16 rows][16 rows][2 blocks] codes, and behind all of them as many scales
// [pairs of blocks][groups][2 blocks][16 rows]
int64_t coarse_codes_bytes(int inputs, int rows) {
    return round_up(inputs, 2 * BLOCK) * round_up(rows, 2 * SIDE);
}
int64_t coarse_bytes(int inputs, int rows) {
    return coarse_codes_bytes(inputs, rows) + coarse_codes_bytes(inputs, rows) / BLOCK * 4;
}

void coarse_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int groups = int(round_up(count, 2 * SIDE) / SIDE), blocks = inputs / BLOCK;
    std::memset(panel, 0, coarse_bytes(inputs, count));
    float* scales = reinterpret_cast<float*>(panel + coarse_codes_bytes(inputs, count));
    for (int r = 0; r < count; r++)
        for (int b = 0; b < blocks; b++) {
            const int64_t group = int64_t(b / 2) * groups + r / SIDE;
            std::memcpy(panel + group * REGISTER + r % SIDE * 64 + b % 2 * BLOCK, rows[r].codes + b * BLOCK, BLOCK);
            scales[group * 32 + b % 2 * SIDE + r % SIDE] = rows[r].blocks[b];
        }
}

// A pair of blocks of one tile as signed bytes, [2 blocks][2 halves] half registers, and its scales
// [2 blocks][2 halves][16].
struct Mxfp4Weights {
    static int64_t tile(int inputs) { return mxfp4_tile_bytes(inputs); }
    static constexpr float FACTOR = 0.5f;
    static void decode(const uint8_t* tile, int pair, int blocks, int64_t ahead, uint8_t* to, float* scales) {
        const __m512i table =  // 2 * e2m1
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
        const uint8_t* p = tile + pair * 1088;
        _mm_prefetch(p + ahead, _MM_HINT_T0);
        for (int b = 0; b < blocks; b++)
            for (int half = 0; half < 2; half++) {
                _mm512_store_ps(scales + 32 * b + 16 * half, e8m0(p + 32 * b + 16 * half));
                const uint8_t* codes = p + 64 + 512 * b + 64 * half;
                uint8_t* line = to + (2 * b + half) * HALF_REGISTER;
                for (int g = 0; g < 4; g++, line += 128) {
                    _mm_prefetch(codes + 128 * g + ahead, _MM_HINT_T0);
                    const __m512i packed = _mm512_loadu_si512(codes + 128 * g);
                    _mm512_store_si512(line, _mm512_permutexvar_epi8(packed, table));
                    _mm512_store_si512(line + 64, _mm512_permutexvar_epi8(_mm512_srli_epi16(packed, 4), table));
                }
            }
    }
};

struct Int8Weights {
    static int64_t tile(int inputs) { return int8_tile_bytes(inputs); }
    static constexpr float FACTOR = 1.0f;
    static void decode(const uint8_t* tile, int pair, int blocks, int64_t ahead, uint8_t* to, float* scales) {
        const __m512i offset = _mm512_set1_epi8(char(128));
        const uint8_t* p = tile + pair * (64 + GROUP * TILE);
        _mm_prefetch(p + ahead, _MM_HINT_T0);
        for (int b = 0; b < blocks; b++) {
            store(scales + 32 * b, group_scales(p));
            for (int j = 0; j < BLOCK / 4; j++)  // of 4 columns
                for (int half = 0; half < 2; half++) {
                    const uint8_t* codes = p + 64 + b * BLOCK * TILE + 128 * j + 64 * half;
                    _mm_prefetch(codes + ahead, _MM_HINT_T0);
                    _mm512_store_si512(to + (2 * b + half) * HALF_REGISTER + 64 * j,
                                       _mm512_xor_si512(_mm512_loadu_si512(codes), offset));
                }
        }
    }
};

struct CoarseWaiting {
    const int32_t* counts;  // [2 blocks][2 groups of rows][2 halves][16 rows][16]
    const float* scales;    // of the weights, [2 blocks][2 halves][16]
    const float* blocks;    // of the rows, [2 groups][2 blocks][16]
    float* sums;            // [2 groups][2 halves][16 rows][16]
};

// A quarter of a register's sums of both blocks.
template <int REG, int QUARTER>
inline void coarse_fold(const CoarseWaiting& w) {
    constexpr int GROUP_OF_ROWS = REG / 2, HALF = REG % 2, ROW = QUARTER * 4, AT = REG * 256 + ROW * 16;
    const __m512 first = _mm512_load_ps(w.scales + HALF * 16), second = _mm512_load_ps(w.scales + 32 + HALF * 16);
    const float* blocks = w.blocks + GROUP_OF_ROWS * 32 + ROW;
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        const __m512 a = _mm512_cvtepi32_ps(_mm512_load_si512(w.counts + AT + 16 * r));
        const __m512 b = _mm512_cvtepi32_ps(_mm512_load_si512(w.counts + 1024 + AT + 16 * r));
        __m512 sum = _mm512_load_ps(w.sums + AT + 16 * r);
        sum = _mm512_fmadd_ps(_mm512_mul_ps(a, _mm512_set1_ps(blocks[r])), first, sum);
        sum = _mm512_fmadd_ps(_mm512_mul_ps(b, _mm512_set1_ps(blocks[16 + r])), second, sum);
        _mm512_store_ps(w.sums + AT + 16 * r, sum);
    }
}

#define COARSE_PRODUCT(REG, ROWS, WEIGHTS, HALF, LAST, TO) \
    _tile_zero(REG);                                       \
    _tile_dpbssd(REG, ROWS, WEIGHTS);                      \
    fence();                                               \
    coarse_fold<REG, 2 * HALF>(waiting);                   \
    coarse_fold<REG, 2 * HALF + 1>(waiting);               \
    _tile_stored(LAST, TO, 64)

// Two groups of 16 rows times one tile, for one block.
template <int HALF>
inline void coarse_square(const uint8_t* rows, const uint8_t* weights, int32_t* counts, int32_t* before,
                          const CoarseWaiting& waiting) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(6, weights, 64);
    COARSE_PRODUCT(0, 4, 6, HALF, 3, before + 768);
    _tile_loadd(7, weights + HALF_REGISTER, 64);
    COARSE_PRODUCT(1, 4, 7, HALF, 0, counts);
    _tile_loadd(5, rows + REGISTER, 64);
    COARSE_PRODUCT(2, 5, 6, HALF, 1, counts + 256);
    COARSE_PRODUCT(3, 5, 7, HALF, 2, counts + 512);
}
#undef COARSE_PRODUCT

template <int HALF>
inline void coarse_fold_half(const CoarseWaiting& w) {
    coarse_fold<0, 2 * HALF>(w), coarse_fold<1, 2 * HALF>(w), coarse_fold<2, 2 * HALF>(w), coarse_fold<3, 2 * HALF>(w);
    coarse_fold<0, 2 * HALF + 1>(w), coarse_fold<1, 2 * HALF + 1>(w), coarse_fold<2, 2 * HALF + 1>(w),
        coarse_fold<3, 2 * HALF + 1>(w);
}

template <typename Weights>
void coarse(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(4096) float sums[PANEL_TILES][COARSE_ROWS / SIDE][2][256];
    alignas(4096) int32_t counts[2][8 * 256];
    alignas(4096) uint8_t weights[PANEL_TILES][4 * HALF_REGISTER] = {};
    alignas(64) float nowhere[1024] = {}, none[64] = {};
    alignas(64) float scales[2][PANEL_TILES][64] = {};
    const int groups = int(round_up(count, 2 * SIDE) / SIDE), blocks = first.inputs / BLOCK;
    const int64_t stride = Weights::tile(first.inputs);
    const float* row_scales = reinterpret_cast<const float*>(panel + coarse_codes_bytes(first.inputs, count));
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    std::memset(counts, 0, sizeof counts);
    const Tiles configured(BLOCK);
    _tile_zero(3);
    CoarseWaiting waiting = {counts[1], none, none, nowhere};
    int32_t* before = counts[1] + 1024;  // where the last register of the block before belongs
    int turn = 0;
    for (int pair = 0; pair < (blocks + 1) / 2; pair++) {
        for (int t = 0; t < tiles; t++) {
            if (blocks - 2 * pair < 2) std::memset(scales[pair % 2][t], 0, sizeof scales[0][0]);
            Weights::decode(first.weights + t * stride, pair, std::min(2, blocks - 2 * pair), first.ahead, weights[t],
                            scales[pair % 2][t]);
        }
        fence();
        const int64_t at = int64_t(pair) * groups;
        for (int g = 0; g < groups; g += 2)
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                const uint8_t* codes = panel + (at + g) * REGISTER;
                int32_t* to = counts[turn];
                coarse_square<0>(codes, weights[t], to, before, waiting);
                coarse_square<1>(codes + BLOCK, weights[t] + REGISTER, to + 1024, to, waiting);
                waiting = {to, scales[pair % 2][t], row_scales + (at + g) * 32, sums[t][g][0]};
                before = to + 1024;
            }
    }
    _tile_stored(3, before + 768, 64);
    coarse_fold_half<0>(waiting);
    coarse_fold_half<1>(waiting);
    for (int t = 0; t < tiles; t++) {
        Tile tile = first;
        if (tile.bias) tile.bias += TILE * t;
        for (int r = 0; r < count; r++) {
            Row row = rows[r];
            row.out += TILE * t;
            const float* sum = sums[t][r / SIDE][0] + r % SIDE * 16;
            emit(tile, row, mul(load_pair(sum, sum + 256), splat(Weights::FACTOR)));
        }
    }
}

}  // namespace

const Panels AMX = {
    {{mxfp4_bytes, mxfp4_gather, mxfp4, MXFP4_ROWS, 9}, {coarse_bytes, coarse_gather, coarse<Mxfp4Weights>, COARSE_ROWS, 9}},
    {{int8_bytes, int8_gather, int8, INT8_ROWS, 9}, {coarse_bytes, coarse_gather, coarse<Int8Weights>, COARSE_ROWS, 9}},
    &VNNI};

#if defined(__clang__)
#pragma clang attribute pop
#endif

bool amx_runs_here() {
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // of arch_prctl, Linux 5.16
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned BF16_BIT = 1u << 22, TILE_BIT = 1u << 24, INT8_BIT = 1u << 25;
    if ((d & (BF16_BIT | TILE_BIT | INT8_BIT)) != (BF16_BIT | TILE_BIT | INT8_BIT)) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

#endif
