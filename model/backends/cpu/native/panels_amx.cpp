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

#include <cpuid.h>
#include <cstring>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

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

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Whoever computes with tiles: all eight are whole.
struct Tiles {
    Tiles() {
        static const TileConfig config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
};

inline void fence() { asm volatile("" ::: "memory"); }  // GCC does not know that tiles are loaded from memory

// Sums of the products of one step, which wait for their scales.
//
// counts  [2 blocks or groups][groups of rows][2 halves of the tile] registers of sums
// sums    [groups of rows][2 halves][16 rows][16]
struct Waiting {
    const float* counts = nullptr;
    const float* scales = nullptr;  // [2][2 halves][16]
    float* sums = nullptr;
    int units = 0, registers = 0;  // groups of four rows that are left; registers for each block or group
    int done = 0;

    template <typename Fold>
    inline void some(const Fold& fold) {
        if (done < units) {
            const int at = done / 4, row = done % 4 * 4;
            fold(*this, at, row);
            done++;
        }
    }
    template <typename Fold>
    void all(const Fold& fold) {
        while (done < units) some(fold);
    }
};

// -- MXFP4

constexpr int PAIR = 2 * 2 * REGISTER;  // of a panel: 16 rows of two blocks, both planes

int64_t mxfp4_bytes(int inputs, int rows) {
    return round_up(inputs / BLOCK, 2) / 2 * (round_up(rows, SIDE) / SIDE) * PAIR;
}

// [pairs of blocks][groups of 16 rows][2 blocks][2 planes] registers.  Columns of eight lie as 0 4 1 5 2 6 3 7.
void mxfp4_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int groups = int(round_up(count, SIDE) / SIDE), blocks = inputs / BLOCK;
    alignas(64) uint8_t order[64];
    for (int plane = 0; plane < 2; plane++)
        for (int i = 0; i < 32; i++) {
            const int column = i % 8 / 2 + i % 2 * 4;
            order[32 * plane + i] = uint8_t(i / 8 * 16 + 8 * plane + column % 2 * 4 + column / 2);
        }
    const __m512i permutation = _mm512_load_si512(order);
    auto bf16 = [](__m256i codes, __m512 factor) {  // 32 codes as numbers that bf16 can hold
        const __m512i a = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes));
        const __m512i b = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1));
        const __m512i x = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(a), factor));
        const __m512i y = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(b), factor));
        return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16))),
                                  _mm512_cvtepi32_epi16(_mm512_srli_epi32(y, 16)), 1);
    };
    for (int r = 0; r < groups * SIDE; r++) {
        uint8_t* to = panel + r / SIDE * PAIR + r % SIDE * 64;
        for (int b = 0; b < blocks; b++) {
            uint8_t* at = to + int64_t(b / 2) * groups * PAIR + b % 2 * (PAIR / 2);
            if (r >= count) {
                std::memset(at, 0, 64), std::memset(at + REGISTER, 0, 64);
                continue;
            }
            const __m512i codes =
                _mm512_permutexvar_epi8(permutation, _mm512_loadu_si512(rows[r].codes + 64 * b));
            _mm512_store_si512(at, bf16(_mm512_castsi512_si256(codes), _mm512_set1_ps(256.0f)));
            _mm512_store_si512(at + REGISTER,
                               bf16(_mm512_extracti64x4_epi64(codes, 1), _mm512_set1_ps(1.0f)));
        }
    }
}

// One pair of blocks of a tile as bf16: [2 blocks][2 halves] registers; its scales as [2 blocks][2 halves][16].
inline void mxfp4_decode(const uint8_t* p, int blocks, int64_t ahead, uint8_t* to, float* scales) {
    alignas(64) static const uint16_t VALUES[32] = {  // 2 * e2m1 in bf16; the fifth bit belongs to another code
        0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0, 0x4100, 0x4140, 0,      0xbf80, 0xc000,
        0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140, 0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0,
        0x4100, 0x4140, 0,      0xbf80, 0xc000, 0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140};
    const __m512i table = _mm512_load_si512(VALUES);
    _mm_prefetch(p + ahead, _MM_HINT_T0);
    for (int b = 0; b < blocks; b++) {
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

// Four rows of one register: both blocks' sums, scaled, added in their order.
inline void mxfp4_fold(const Waiting& w, int at, int row) {
    const float* counts = w.counts + at * 256 + row * 16;
    float* sums = w.sums + at * 256 + row * 16;
    const __m512 first = _mm512_load_ps(w.scales + at % 2 * 16), second = _mm512_load_ps(w.scales + 32 + at % 2 * 16);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        __m512 sum = _mm512_load_ps(sums + 16 * r);
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_load_ps(counts + 16 * r), first));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_load_ps(counts + w.registers * 256 + 16 * r), second));
        _mm512_store_ps(sums + 16 * r, sum);
    }
}
// The last block of an odd number.
inline void mxfp4_fold_last(const Waiting& w, int at, int row) {
    const float* counts = w.counts + at * 256 + row * 16;
    float* sums = w.sums + at * 256 + row * 16;
    const __m512 scale = _mm512_load_ps(w.scales + at % 2 * 16);
    for (int r = 0; r < 4; r++)
        _mm512_store_ps(sums + 16 * r, _mm512_add_ps(_mm512_load_ps(sums + 16 * r),
                                                     _mm512_mul_ps(_mm512_load_ps(counts + 16 * r), scale)));
}

// G groups of 16 rows times one tile, for `blocks` blocks; meanwhile `waiting` is folded.
template <int G>
inline void mxfp4_step(const uint8_t* panel, const uint8_t* weights, int blocks, float* counts, Waiting& waiting) {
    auto fold = [&] { waiting.some(mxfp4_fold); };
    for (int b = 0; b < blocks; b++) {
        const uint8_t* a = panel + b * (PAIR / 2);
        _tile_loadd(6, weights + 2 * b * REGISTER, 64);
        _tile_loadd(7, weights + (2 * b + 1) * REGISTER, 64);
        _tile_zero(0);
        _tile_zero(1);
        if (G == 2) _tile_zero(2);
        if (G == 2) _tile_zero(3);
        _tile_loadd(4, a, 64);
        _tile_dpbf16ps(0, 4, 6);
        fold();
        _tile_dpbf16ps(1, 4, 7);
        fold();
        if (G == 2) {
            _tile_loadd(5, a + PAIR, 64);
            _tile_dpbf16ps(2, 5, 6);
            fold();
            _tile_dpbf16ps(3, 5, 7);
            fold();
        }
        _tile_loadd(4, a + REGISTER, 64);
        _tile_dpbf16ps(0, 4, 6);
        fold();
        _tile_dpbf16ps(1, 4, 7);
        fold();
        if (G == 2) {
            _tile_loadd(5, a + PAIR + REGISTER, 64);
            _tile_dpbf16ps(2, 5, 6);
            fold();
            _tile_dpbf16ps(3, 5, 7);
            fold();
        }
        float* to = counts + b * 2 * G * 256;
        _tile_stored(0, to, 64);
        _tile_stored(1, to + 256, 64);
        if (G == 2) _tile_stored(2, to + 512, 64);
        if (G == 2) _tile_stored(3, to + 768, 64);
    }
    waiting.all(mxfp4_fold);
}

void mxfp4(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_TILES][MXFP4_ROWS / SIDE][2][256];
    alignas(64) float counts[2][2 * 4 * 256];
    alignas(64) float scales[2][PANEL_TILES][64];
    alignas(64) uint8_t weights[PANEL_TILES][4 * REGISTER];
    const int groups = int(round_up(count, SIDE) / SIDE), blocks = first.inputs / BLOCK;
    const int64_t stride = mxfp4_tile_bytes(first.inputs);
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    const Tiles configured;
    Waiting waiting;
    int turn = 0;
    for (int b = 0; b < blocks; b += 2) {
        const int these = blocks - b < 2 ? 1 : 2;
        if (these < 2) waiting.all(mxfp4_fold);
        float(*scale)[64] = scales[b / 2 % 2];
        for (int t = 0; t < tiles; t++)
            mxfp4_decode(first.weights + t * stride + b / 2 * (64 + 1024), these, first.ahead, weights[t], scale[t]);
        fence();
        const uint8_t* codes = panel + int64_t(b / 2) * groups * PAIR;
        for (int g = 0; g < groups; g += 2, codes += 2 * PAIR) {
            const int width = groups - g < 2 ? 1 : 2;
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                if (width == 2)
                    mxfp4_step<2>(codes, weights[t], these, counts[turn], waiting);
                else
                    mxfp4_step<1>(codes, weights[t], these, counts[turn], waiting);
                waiting = {counts[turn], scale[t], sums[t][g][0], 8 * width, 2 * width, 0};
                if (these < 2) waiting.all(mxfp4_fold_last);
            }
        }
    }
    waiting.all(mxfp4_fold);
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

// [groups of 64 columns][groups of 16 rows][2 planes] registers.
int64_t int8_bytes(int inputs, int rows) {
    return round_up(inputs, GROUP) / GROUP * (round_up(rows, SIDE) / SIDE) * 2 * REGISTER;
}

void int8_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int groups = int(round_up(count, SIDE) / SIDE);
    const __m512i high = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i low = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    for (int r = 0; r < groups * SIDE; r++) {
        uint8_t* at = panel + r / SIDE * 2 * REGISTER + r % SIDE * 64;
        for (int k = 0; k < inputs; k += GROUP, at += groups * 2 * REGISTER) {
            __m512i a = _mm512_setzero_si512(), b = a;
            if (r < count) a = _mm512_loadu_si512(rows[r].codes + 2 * k);
            if (r < count && inputs - k > BLOCK) b = _mm512_loadu_si512(rows[r].codes + 2 * k + 64);
            _mm512_store_si512(at, _mm512_permutex2var_epi64(a, high, b));
            _mm512_store_si512(at + REGISTER, _mm512_permutex2var_epi64(a, low, b));
        }
    }
}

// One group of a tile as signed bytes, [2 halves] registers, and its scales.
inline void int8_decode(const uint8_t* p, int columns, int64_t ahead, uint8_t* to, float* scales) {
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

// counts  [2 planes][2 halves] registers: 256 times the first, and the second.
inline void int8_fold(const Waiting& w, int at, int row) {
    const int32_t* counts = reinterpret_cast<const int32_t*>(w.counts) + at * 256 + row * 16;
    float* sums = w.sums + at * 256 + row * 16;
    const __m512 scale = _mm512_load_ps(w.scales + at % 2 * 16);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        // Both are exact, so their sum is rounded once, as that of whole numbers is.
        const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(counts + 16 * r));
        const __m512 low = _mm512_cvtepi32_ps(_mm512_load_si512(counts + 512 + 16 * r));
        const __m512 total = _mm512_fmadd_ps(high, _mm512_set1_ps(256.0f), low);
        _mm512_store_ps(sums + 16 * r, _mm512_add_ps(_mm512_load_ps(sums + 16 * r), _mm512_mul_ps(total, scale)));
    }
}

inline void int8_step(const uint8_t* panel, const uint8_t* weights, float* counts, Waiting& waiting) {
    auto fold = [&] { waiting.some(int8_fold), waiting.some(int8_fold); };
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + REGISTER, 64);
    _tile_loadd(4, panel, 64);
    _tile_loadd(5, panel + REGISTER, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_dpbssd(0, 4, 6);
    fold();
    _tile_dpbssd(1, 4, 7);
    fold();
    _tile_dpbssd(2, 5, 6);
    fold();
    _tile_dpbssd(3, 5, 7);
    fold();
    _tile_stored(0, counts, 64);
    _tile_stored(1, counts + 256, 64);
    _tile_stored(2, counts + 512, 64);
    _tile_stored(3, counts + 768, 64);
}

void int8(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_TILES][INT8_ROWS / SIDE][2][256];
    alignas(64) float counts[2][4 * 256];
    alignas(64) float scales[2][PANEL_TILES][32];
    alignas(64) uint8_t weights[PANEL_TILES][2 * REGISTER];
    const int groups = int(round_up(count, SIDE) / SIDE);
    const int64_t stride = int8_tile_bytes(first.inputs);
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    const Tiles configured;
    Waiting waiting;
    int turn = 0;
    for (int k = 0; k < first.inputs; k += GROUP) {
        float(*scale)[32] = scales[k / GROUP % 2];
        for (int t = 0; t < tiles; t++)
            int8_decode(first.weights + t * stride + k / GROUP * (64 + TILE * GROUP), first.inputs - k, first.ahead,
                        weights[t], scale[t]);
        fence();
        const uint8_t* codes = panel + int64_t(k / GROUP) * groups * 2 * REGISTER;
        for (int g = 0; g < groups; g++, codes += 2 * REGISTER)
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                int8_step(codes, weights[t], counts[turn], waiting);
                waiting = {counts[turn], scale[t], sums[t][g][0], 8, 2, 0};
            }
    }
    waiting.all(int8_fold);
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

}  // namespace

const Panels AMX = {{mxfp4_bytes, mxfp4_gather, mxfp4, MXFP4_ROWS}, {int8_bytes, int8_gather, int8, INT8_ROWS}};

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
