// AVX-512 with VNNI: panels of 16-bit codes.  Ice Lake, Zen 4 and later.
//
// vpdpwssd multiplies two columns of 16 bits as fast as vpdpbusd four of 8, so a row of 16-bit codes takes as many
// as its two planes would, with one sum instead of two to put together and no offset to take back.  Weights
// are decoded to 16 bits once per panel, a group of columns at a time, which stays in the first level of cache;
// that would be too much for a few rows, and they keep to vpdpbusd.
#include "panels.h"

#include <algorithm>
#include <cstring>
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2")
#endif

#include "lanes_avx512.h"
#include "emit.h"

namespace {

constexpr int PANEL_ROWS = 128;  // 0.7 MB at 2880 columns
constexpr int STRIP = 8;         // rows at a time: 16 sums of 32 registers

int64_t bytes(int inputs, int rows) { return int64_t(rows) * inputs * 2; }

// [rows, inputs] codes of 16 bits.  Columns of eight lie as 0 4 1 5 2 6 3 7.
void gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    alignas(64) uint8_t order[64];
    for (int i = 0; i < 32; i++) {
        const int column = i % 8 / 2 + i % 2 * 4, high = i / 8 * 16 + column % 2 * 4 + column / 2;
        order[2 * i] = uint8_t(high + 8), order[2 * i + 1] = uint8_t(high);
    }
    const __m512i permutation = _mm512_load_si512(order), sign = _mm512_set1_epi16(0x80);
    for (int r = 0; r < count; r++)
        for (int k = 0; k < inputs; k += 32, panel += 64) {
            const __m512i planes = _mm512_permutexvar_epi8(permutation, _mm512_loadu_si512(rows[r].codes + 2 * k));
            // The lower plane is signed: where it is negative, the upper one is one too many.
            const __m512i borrow = _mm512_slli_epi16(_mm512_and_si512(planes, sign), 1);
            _mm512_storeu_si512(panel, _mm512_sub_epi16(planes, borrow));
        }
}

// One block as 16-bit codes, [16 pairs of columns][32 outputs].
inline void mxfp4_decode(const uint8_t* codes, int64_t ahead, int16_t* to) {
    alignas(64) static const int16_t VALUES[32] = {  // 2 * e2m1; the fifth bit belongs to another code
        0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12, 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const __m512i table = _mm512_load_si512(VALUES);
    for (int line = 0; line < 8; line++) {
        _mm_prefetch(codes + 64 * line + ahead, _MM_HINT_T0);
        const __m512i packed = _mm512_loadu_si512(codes + 64 * line);
        int16_t* at = to + line / 2 * 256 + line % 2 * 32;
        _mm512_store_si512(at, _mm512_permutexvar_epi16(packed, table));
        _mm512_store_si512(at + 64, _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 4), table));
        _mm512_store_si512(at + 128, _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 8), table));
        _mm512_store_si512(at + 192, _mm512_permutexvar_epi16(_mm512_srli_epi16(packed, 12), table));
    }
}

// A group likewise.
inline void int8_decode(const uint8_t* codes, int columns, int64_t ahead, int16_t* to) {
    const __m512i offset = _mm512_set1_epi8(char(128));
    for (int j = 0; j < columns / 8; j++, codes += 256, to += 256)
        for (int half = 0; half < 2; half++) {
            _mm_prefetch(codes + 64 * half + ahead, _MM_HINT_T0);
            _mm_prefetch(codes + 128 + 64 * half + ahead, _MM_HINT_T0);
            const __m512i even = _mm512_xor_si512(_mm512_loadu_si512(codes + 64 * half), offset);
            const __m512i odd = _mm512_xor_si512(_mm512_loadu_si512(codes + 128 + 64 * half), offset);
            int16_t* at = to + 32 * half;
            _mm512_store_si512(at, _mm512_srai_epi16(_mm512_slli_epi16(even, 8), 8));
            _mm512_store_si512(at + 64, _mm512_srai_epi16(_mm512_slli_epi16(odd, 8), 8));
            _mm512_store_si512(at + 128, _mm512_srai_epi16(even, 8));
            _mm512_store_si512(at + 192, _mm512_srai_epi16(odd, 8));
        }
}

inline __m512i broadcast(const uint8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

// R rows times the decoded columns of a tile, scaled and added to their sums [R, 32].
template <int R>
void strip(const uint8_t* rows, int64_t stride, const int16_t* weights, int columns, Lanes scale, float* sums) {
    __m512i low[R], high[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) low[r] = high[r] = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (int pair = 0; pair < columns / 2; pair++) {
        const __m512i first = _mm512_load_si512(weights + 64 * pair);
        const __m512i second = _mm512_load_si512(weights + 64 * pair + 32);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const __m512i codes = broadcast(rows + r * stride + 4 * pair);
            low[r] = _mm512_dpwssd_epi32(low[r], first, codes);
            high[r] = _mm512_dpwssd_epi32(high[r], second, codes);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const Lanes total = {_mm512_cvtepi32_ps(low[r]), _mm512_cvtepi32_ps(high[r])};
        store(sums + 32 * r, add(load(sums + 32 * r), mul(total, scale)));
    }
}

using Strip = void (*)(const uint8_t*, int64_t, const int16_t*, int, Lanes, float*);
constexpr Strip STRIPS[STRIP] = {strip<1>, strip<2>, strip<3>, strip<4>, strip<5>, strip<6>, strip<7>, strip<8>};

// `columns` of all rows of a panel, from `first` on.
inline void columns(const uint8_t* panel, int count, int inputs, int first, int columns, const int16_t* weights,
                    Lanes scale, float* sums) {
    const int64_t stride = 2 * int64_t(inputs);
    const uint8_t* rows = panel + 2 * first;
    int r = 0;
    for (; r + STRIP <= count; r += STRIP)
        strip<STRIP>(rows + r * stride, stride, weights, columns, scale, sums + 32 * r);
    if (r < count) STRIPS[count - r - 1](rows + r * stride, stride, weights, columns, scale, sums + 32 * r);
}

inline void finish(const Tile& first, int t, const Row* rows, int count, const float* sums, float factor,
                   bool coarse = false) {
    Tile tile = first;
    if (tile.bias) tile.bias += TILE * t;
    for (int r = 0; r < count; r++) {
        Row row = rows[r];
        row.out += TILE * t;
        emit(tile, row, mul(load(sums + 32 * r), splat(coarse ? factor : row.scale * factor)));
    }
}

void mxfp4(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_ROWS * TILE];
    alignas(64) int16_t weights[BLOCK * TILE];
    for (int t = 0; t < tiles; t++) {
        const uint8_t* p = first.weights + t * mxfp4_tile_bytes(first.inputs);
        std::memset(sums, 0, sizeof(float) * TILE * count);
        for (int b = 0; b < first.inputs / BLOCK; b++) {
            const uint8_t* scales = p + b / 2 * 1088 + b % 2 * 32;
            if (b % 2 == 0) _mm_prefetch(scales + first.ahead, _MM_HINT_T0);
            mxfp4_decode(p + b / 2 * 1088 + 64 + b % 2 * 512, first.ahead, weights);
            columns(panel, count, first.inputs, b * BLOCK, BLOCK, weights, {e8m0(scales), e8m0(scales + 16)}, sums);
        }
        finish(first, t, rows, count, sums, 0.5f);
    }
}

void int8(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_ROWS * TILE];
    alignas(64) int16_t weights[GROUP * TILE];
    for (int t = 0; t < tiles; t++) {
        const uint8_t* p = first.weights + t * int8_tile_bytes(first.inputs);
        std::memset(sums, 0, sizeof(float) * TILE * count);
        for (int k = 0; k < first.inputs; k += GROUP, p += 64 + GROUP * TILE) {
            const int width = std::min(GROUP, first.inputs - k);
            _mm_prefetch(p + first.ahead, _MM_HINT_T0);
            int8_decode(p + 64, width, first.ahead, weights);
            columns(panel, count, first.inputs, k, width, weights, group_scales(p), sums);
        }
        finish(first, t, rows, count, sums, 1.0f);
    }
}

// -- 8-bit codes: vpdpbusd, four columns at a time, with the offset of the weights taken back beforehand

// [rows, inputs] codes, [rows, inputs / 32] sums of each block's times -offset, [rows, inputs / 32] scales
int64_t coarse_bytes(int inputs, int rows) { return int64_t(rows) * (inputs + inputs / BLOCK * 8); }

template <int OFFSET>
void coarse_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int blocks = inputs / BLOCK;
    int32_t* sums = reinterpret_cast<int32_t*>(panel + int64_t(count) * inputs);
    float* scales = reinterpret_cast<float*>(sums + int64_t(count) * blocks);
    for (int r = 0; r < count; r++, panel += inputs, sums += blocks, scales += blocks) {
        std::memcpy(panel, rows[r].codes, inputs);
        for (int b = 0; b < blocks; b++) sums[b] = -OFFSET * rows[r].sums[b];
        std::memcpy(scales, rows[r].blocks, sizeof(float) * blocks);
    }
}

// One block as 2 * e2m1 + 12, [4 eights of columns][even, odd][32 outputs][4 columns]: the order of the int8 layout.
inline void coarse_decode(const uint8_t* codes, int64_t ahead, uint8_t* to) {
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    for (int line = 0; line < 8; line++) {
        _mm_prefetch(codes + 64 * line + ahead, _MM_HINT_T0);
        const __m512i packed = _mm512_loadu_si512(codes + 64 * line);
        uint8_t* at = to + line / 2 * 256 + line % 2 * 64;
        _mm512_store_si512(at, _mm512_permutexvar_epi8(packed, table));
        _mm512_store_si512(at + 128, _mm512_permutexvar_epi8(_mm512_srli_epi16(packed, 4), table));
    }
}

// R rows from the block's first column on, times one block of weights.
template <int R>
void coarse_strip(const uint8_t* rows, int64_t row, const int32_t* offsets, const float* blocks, int64_t block,
                  const uint8_t* weights, Lanes scale, float* sums) {
    __m512i low[R], high[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) low[r] = high[r] = _mm512_set1_epi32(offsets[r * block]);
#pragma GCC unroll 8
    for (int four = 0; four < BLOCK / 4; four++) {
        const __m512i first = _mm512_loadu_si512(weights + 128 * four);
        const __m512i second = _mm512_loadu_si512(weights + 128 * four + 64);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const __m512i codes = broadcast(rows + r * row + 4 * four);
            low[r] = _mm512_dpbusd_epi32(low[r], first, codes);
            high[r] = _mm512_dpbusd_epi32(high[r], second, codes);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
        const Lanes total = {_mm512_cvtepi32_ps(low[r]), _mm512_cvtepi32_ps(high[r])};
        store(sums + 32 * r, fma(mul(total, splat(blocks[r * block])), scale, load(sums + 32 * r)));
    }
}

using CoarseStrip = void (*)(const uint8_t*, int64_t, const int32_t*, const float*, int64_t, const uint8_t*, Lanes,
                             float*);
constexpr CoarseStrip COARSE_STRIPS[STRIP] = {coarse_strip<1>, coarse_strip<2>, coarse_strip<3>, coarse_strip<4>,
                                              coarse_strip<5>, coarse_strip<6>, coarse_strip<7>, coarse_strip<8>};

// Block `b` of all rows of a panel.
inline void coarse_block(const uint8_t* panel, int count, int inputs, int b, const uint8_t* weights, Lanes scale,
                         float* sums) {
    const int64_t blocks = inputs / BLOCK;
    const int32_t* offsets = reinterpret_cast<const int32_t*>(panel + int64_t(count) * inputs) + b;
    const float* scales = reinterpret_cast<const float*>(offsets + count * blocks);
    for (int r = 0; r < count; r += STRIP) {
        const CoarseStrip strip = COARSE_STRIPS[std::min(STRIP, count - r) - 1];
        strip(panel + int64_t(r) * inputs + b * BLOCK, inputs, offsets + r * blocks, scales + r * blocks, blocks,
              weights, scale, sums + 32 * r);
    }
}

void mxfp4_coarse(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_ROWS * TILE];
    alignas(64) uint8_t weights[BLOCK * TILE];
    for (int t = 0; t < tiles; t++) {
        const uint8_t* p = first.weights + t * mxfp4_tile_bytes(first.inputs);
        std::memset(sums, 0, sizeof(float) * TILE * count);
        for (int b = 0; b < first.inputs / BLOCK; b++) {
            const uint8_t* scales = p + b / 2 * 1088 + b % 2 * 32;
            if (b % 2 == 0) _mm_prefetch(scales + first.ahead, _MM_HINT_T0);
            coarse_decode(p + b / 2 * 1088 + 64 + b % 2 * 512, first.ahead, weights);
            coarse_block(panel, count, first.inputs, b, weights, {e8m0(scales), e8m0(scales + 16)}, sums);
        }
        finish(first, t, rows, count, sums, 0.5f, true);
    }
}

void int8_coarse(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_ROWS * TILE];
    for (int t = 0; t < tiles; t++) {
        const uint8_t* p = first.weights + t * int8_tile_bytes(first.inputs);
        std::memset(sums, 0, sizeof(float) * TILE * count);
        Lanes scale = zero();
        for (int b = 0; b < first.inputs / BLOCK; b++, p += BLOCK * TILE) {
            if (b % 2 == 0) {
                scale = group_scales(p);
                _mm_prefetch(p + first.ahead, _MM_HINT_T0);
                p += 64;
            }
            for (int line = 0; line < 16; line++) _mm_prefetch(p + 64 * line + first.ahead, _MM_HINT_T0);
            coarse_block(panel, count, first.inputs, b, p, scale, sums);
        }
        finish(first, t, rows, count, sums, 1.0f, true);
    }
}

}  // namespace

const Panels VNNI = {{{bytes, gather, mxfp4, PANEL_ROWS, 5}, {coarse_bytes, coarse_gather<12>, mxfp4_coarse, PANEL_ROWS, 5}},
                     {{bytes, gather, int8, PANEL_ROWS, 5}, {coarse_bytes, coarse_gather<128>, int8_coarse, PANEL_ROWS, 5}},
                     nullptr};

#if defined(__clang__)
#pragma clang attribute pop
#endif
