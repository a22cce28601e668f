// AVX-512 with VBMI and VNNI: Ice Lake, Zen 4 and later.
//
// vpermb looks up all 64 codes of a register at once and ignores the bits above the sixth, so low nibbles
// need no mask and high ones one shift.  vpdpbusd multiplies unsigned weights with signed activations:
// weights carry an offset, which the sums of the activations' codes take back.
#include "isa.h"
#include "layout.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,avx2,fma,bmi2")
#endif

#include "lanes_avx512.h"
#include "arithmetic.h"

namespace {

// The codes of 8 columns are 16 bytes: the high bytes of the even ones, of the odd ones, then the low bytes
// likewise.
void quantise(const float* values, int width, int8_t* codes, int32_t* sums, float* scale) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i largest = _mm512_setzero_si512();  // compared as integers, above all numbers a NaN
    for (int i = 0; i < width; i += 16)
        largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_loadu_si512(values + i), magnitude));
    const float top = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(largest))));
    *scale = top < SMALLEST ? 0.0f : top / 32512.0f;
    const __m512 inverse = _mm512_set1_ps(top >= SMALLEST ? 32512.0f / top : 0.0f);
    const __m512i highs =
        _mm512_broadcast_i32x4(_mm_setr_epi8(1, 5, 9, 13, 3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m512i lows =
        _mm512_broadcast_i32x4(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, 2, 6, 10, 14));
    for (int i = 0; i < width; i += 32) {
        __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values + i), inverse));
        __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values + i + 16), inverse));
        __m512i x = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(first)),
                                       _mm512_cvtepi32_epi16(second), 1);
        sums[i / 32] = _mm512_reduce_add_epi32(_mm512_madd_epi16(x, _mm512_set1_epi16(1)));
        __m512i rounded = _mm512_add_epi16(x, _mm512_set1_epi16(128));
        __m512i planes = _mm512_or_si512(_mm512_shuffle_epi8(rounded, highs), _mm512_shuffle_epi8(x, lows));
        _mm512_storeu_si512(codes + 2 * i, planes);
    }
}

inline __m512i broadcast(const int8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

// 8 columns: the products of their even and odd halves with both planes.
template <int R>
inline void multiply(__m512i even, __m512i odd, const Row* rows, int64_t offset, __m512i (&high)[R],
                     __m512i (&low)[R]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const int8_t* codes = rows[r].codes + offset;
        high[r] = _mm512_dpbusd_epi32(high[r], even, broadcast(codes));
        low[r] = _mm512_dpbusd_epi32(low[r], even, broadcast(codes + 8));
        high[r] = _mm512_dpbusd_epi32(high[r], odd, broadcast(codes + 4));
        low[r] = _mm512_dpbusd_epi32(low[r], odd, broadcast(codes + 12));
    }
}

// 256 * high + low of a block, scaled and added to the sum.
inline __m512 accumulate(__m512 sum, __m512i high, __m512i low, __m512 scale) {
    __m512i total = _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
    return _mm512_add_ps(sum, _mm512_mul_ps(_mm512_cvtepi32_ps(total), scale));
}

template <int R>
inline void mxfp4_block(const uint8_t* scales, const uint8_t* codes, int64_t ahead, int block, const Row* rows,
                        Lanes (&sum)[R]) {
    // 2 * e2m1 + 12
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    __m512i high[2][R], low[2][R];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        high[0][r] = high[1][r] = _mm512_setzero_si512();
        low[0][r] = low[1][r] = _mm512_set1_epi32(-12 * rows[r].sums[block]);
    }
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            _mm_prefetch(codes + 128 * g + 64 * half + ahead, _MM_HINT_T0);
            __m512i packed = _mm512_loadu_si512(codes + 128 * g + 64 * half);
            __m512i even = _mm512_permutexvar_epi8(packed, table);
            __m512i odd = _mm512_permutexvar_epi8(_mm512_srli_epi16(packed, 4), table);
            multiply<R>(even, odd, rows, 64 * int64_t(block) + 16 * g, high[half], low[half]);
        }
    }
    const __m512 first = e8m0(scales), second = e8m0(scales + 16);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        sum[r].low = accumulate(sum[r].low, high[0][r], low[0][r], first);
        sum[r].high = accumulate(sum[r].high, high[1][r], low[1][r], second);
    }
}

template <int R>
void mxfp4_rows(const Tile& tile, const Row* rows) {
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    const int blocks = tile.inputs / BLOCK;
    int b = 0;
    for (; b + 2 <= blocks; b += 2, p += 64 + 2 * 512) {
        _mm_prefetch(p + tile.ahead, _MM_HINT_T0);
        mxfp4_block<R>(p, p + 64, tile.ahead, b, rows, sum);
        mxfp4_block<R>(p + 32, p + 64 + 512, tile.ahead, b + 1, rows, sum);
    }
    if (b < blocks) mxfp4_block<R>(p, p + 64, tile.ahead, b, rows, sum);
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale * 0.5f)));
}

template <int R>
void int8_rows(const Tile& tile, const Row* rows) {
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const Lanes scale = group_scales(p);
        _mm_prefetch(p + tile.ahead, _MM_HINT_T0);
        p += 64;
        __m512i high[2][R], low[2][R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            high[0][r] = high[1][r] = _mm512_setzero_si512();
            low[0][r] = low[1][r] = _mm512_set1_epi32(-128 * group_sum(rows[r], k, columns));
        }
        for (int j = 0; j < columns; j += 8, p += 256) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                _mm_prefetch(p + 64 * half + tile.ahead, _MM_HINT_T0);
                _mm_prefetch(p + 128 + 64 * half + tile.ahead, _MM_HINT_T0);
                multiply<R>(_mm512_loadu_si512(p + 64 * half), _mm512_loadu_si512(p + 128 + 64 * half), rows,
                            2 * int64_t(k + j), high[half], low[half]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sum[r].low = accumulate(sum[r].low, high[0][r], low[0][r], scale.low);
            sum[r].high = accumulate(sum[r].high, high[1][r], low[1][r], scale.high);
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale)));
}

template <int R>
void half_rows(const Tile& tile, const Row* rows) {
    const __m512i nibble = _mm512_set1_epi8(15);
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const Lanes scale = group_scales(p);
        _mm_prefetch(p + tile.ahead, _MM_HINT_T0);
        p += 64;
        __m512i high[2][R], low[2][R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
            high[0][r] = high[1][r] = low[0][r] = low[1][r] = _mm512_setzero_si512();
        for (int j = 0; j < columns; j += 8, p += 128) {
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                _mm_prefetch(p + 64 * half + tile.ahead, _MM_HINT_T0);
                __m512i packed = _mm512_loadu_si512(p + 64 * half);
                __m512i even = _mm512_and_si512(packed, nibble);
                __m512i odd = _mm512_and_si512(_mm512_srli_epi16(packed, 4), nibble);
                multiply<R>(even, odd, rows, 2 * int64_t(k + j), high[half], low[half]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const __m512i offset = _mm512_set1_epi32(tile.offset * group_sum(rows[r], k, columns));
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                high[half][r] = _mm512_slli_epi32(high[half][r], 1);
                low[half][r] = _mm512_sub_epi32(_mm512_slli_epi32(low[half][r], 1), offset);
            }
            sum[r].low = accumulate(sum[r].low, high[0][r], low[0][r], scale.low);
            sum[r].high = accumulate(sum[r].high, high[1][r], low[1][r], scale.high);
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale)));
}

// The sums of a block of 8-bit codes, [2 halves], from where the offset of the weights is taken back.
struct CoarseSums {
    __m512i low, high;
};

inline void coarse_step(CoarseSums& sums, __m512i low, __m512i high, const int8_t* codes) {
    const __m512i x = broadcast(codes);
    sums = {_mm512_dpbusd_epi32(sums.low, low, x), _mm512_dpbusd_epi32(sums.high, high, x)};
}

inline Lanes coarse_scaled(CoarseSums sums, float block, Lanes scale, Lanes sum) {
    const Lanes total = {_mm512_cvtepi32_ps(sums.low), _mm512_cvtepi32_ps(sums.high)};
    return fma(mul(total, splat(block)), scale, sum);
}

template <int R>
void mxfp4_coarse_rows(const Tile& tile, const Row* rows) {
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    for (int b = 0; b < tile.inputs / BLOCK; b++) {
        const uint8_t* scales = tile.weights + b / 2 * 1088 + b % 2 * 32;
        const uint8_t* codes = tile.weights + b / 2 * 1088 + 64 + b % 2 * 512;
        _mm_prefetch(scales + tile.ahead, _MM_HINT_T0);
        CoarseSums sums[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) sums[r].low = sums[r].high = _mm512_set1_epi32(-12 * rows[r].sums[b]);
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            _mm_prefetch(codes + 128 * g + tile.ahead, _MM_HINT_T0);
            _mm_prefetch(codes + 128 * g + 64 + tile.ahead, _MM_HINT_T0);
            const __m512i low = _mm512_loadu_si512(codes + 128 * g), high = _mm512_loadu_si512(codes + 128 * g + 64);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const int8_t* x = rows[r].codes + 32 * int64_t(b) + 8 * g;
                coarse_step(sums[r], _mm512_permutexvar_epi8(low, table), _mm512_permutexvar_epi8(high, table), x);
                coarse_step(sums[r], _mm512_permutexvar_epi8(_mm512_srli_epi16(low, 4), table),
                            _mm512_permutexvar_epi8(_mm512_srli_epi16(high, 4), table), x + 4);
            }
        }
        const Lanes scale = {e8m0(scales), e8m0(scales + 16)};
        for (int r = 0; r < R; r++) sum[r] = coarse_scaled(sums[r], rows[r].blocks[b], scale, sum[r]);
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(0.5f)));
}

template <int R>
void int8_coarse_rows(const Tile& tile, const Row* rows) {
    Lanes sum[R], scale = zero();
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int b = 0; b < tile.inputs / BLOCK; b++) {
        if (b % 2 == 0) {
            scale = group_scales(p);
            _mm_prefetch(p + tile.ahead, _MM_HINT_T0);
            p += 64;
        }
        CoarseSums sums[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) sums[r].low = sums[r].high = _mm512_set1_epi32(-128 * rows[r].sums[b]);
        for (int j = 0; j < BLOCK; j += 4, p += 128) {
            _mm_prefetch(p + tile.ahead, _MM_HINT_T0);
            _mm_prefetch(p + 64 + tile.ahead, _MM_HINT_T0);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
                coarse_step(sums[r], _mm512_loadu_si512(p), _mm512_loadu_si512(p + 64),
                            rows[r].codes + 32 * int64_t(b) + j);
        }
        for (int r = 0; r < R; r++) sum[r] = coarse_scaled(sums[r], rows[r].blocks[b], scale, sum[r]);
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], sum[r]);
}

constexpr Pass MXFP4_COARSE[MAX_ROWS] = {mxfp4_coarse_rows<1>, mxfp4_coarse_rows<2>, mxfp4_coarse_rows<3>,
                                         mxfp4_coarse_rows<4>};
void mxfp4_coarse(const Tile& tile, const Row* rows, int count) { MXFP4_COARSE[count - 1](tile, rows); }

constexpr Pass INT8_COARSE[MAX_ROWS] = {int8_coarse_rows<1>, int8_coarse_rows<2>, int8_coarse_rows<3>,
                                        int8_coarse_rows<4>};
void int8_coarse(const Tile& tile, const Row* rows, int count) { INT8_COARSE[count - 1](tile, rows); }

constexpr Pass MXFP4_PASSES[MAX_ROWS] = {mxfp4_rows<1>, mxfp4_rows<2>, mxfp4_rows<3>, mxfp4_rows<4>};
void mxfp4(const Tile& tile, const Row* rows, int count) { MXFP4_PASSES[count - 1](tile, rows); }

constexpr Pass INT8_PASSES[MAX_ROWS] = {int8_rows<1>, int8_rows<2>, int8_rows<3>, int8_rows<4>};
void int8(const Tile& tile, const Row* rows, int count) { INT8_PASSES[count - 1](tile, rows); }

constexpr Pass HALF_PASSES[MAX_ROWS] = {half_rows<1>, half_rows<2>, half_rows<3>, half_rows<4>};
void half(const Tile& tile, const Row* rows, int count) { HALF_PASSES[count - 1](tile, rows); }

uint64_t sum(const uint8_t* data, int64_t bytes) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (int64_t i = 0; i + 256 <= bytes; i += 256) {
        for (int line = 0; line < 4; line++) _mm_prefetch(data + i + 64 * line + READ_AHEAD, _MM_HINT_T0);
        a = _mm512_add_epi64(a, _mm512_loadu_si512(data + i));
        b = _mm512_add_epi64(b, _mm512_loadu_si512(data + i + 64));
        c = _mm512_add_epi64(c, _mm512_loadu_si512(data + i + 128));
        d = _mm512_add_epi64(d, _mm512_loadu_si512(data + i + 192));
    }
    return _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d)));
}

}  // namespace

const Isa AVX512 = {mxfp4, int8, half, bf16, mxfp4_coarse, int8_coarse, quantise, quantise_coarse, norm, swiglu, combine, segment, merge, finish, dot, shares, maxima, sum};

#if defined(__clang__)
#pragma clang attribute pop
#endif
