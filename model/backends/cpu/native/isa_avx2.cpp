// AVX2 with FMA: Haswell, Zen and later.
//
// MXFP4 weights are small enough for vpmaddubsw, whose 16-bit sums then have room for four products of two;
// int8 weights are not, and are multiplied as 16-bit numbers by vpmaddwd.  So a row keeps its codes twice: as
// bytes, and as words.
#include "isa.h"
#include "layout.h"

#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi2")
#endif

namespace {

struct Lanes {
    __m256 v[4];
};

template <typename F>
inline Lanes each(F f) {
    return {f(0), f(1), f(2), f(3)};
}
inline Lanes splat(float x) {
    __m256 v = _mm256_set1_ps(x);
    return {v, v, v, v};
}
inline Lanes zero() { return splat(0.0f); }
inline Lanes load_pair(const float* p, const float* q) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8), _mm256_loadu_ps(q), _mm256_loadu_ps(q + 8)};
}
inline Lanes load(const float* p) { return load_pair(p, p + 16); }
inline void store(float* p, Lanes x) {
    for (int i = 0; i < 4; i++) _mm256_storeu_ps(p + 8 * i, x.v[i]);
}
inline Lanes add(Lanes a, Lanes b) {
    return each([&](int i) { return _mm256_add_ps(a.v[i], b.v[i]); });
}
inline Lanes sub(Lanes a, Lanes b) {
    return each([&](int i) { return _mm256_sub_ps(a.v[i], b.v[i]); });
}
inline Lanes mul(Lanes a, Lanes b) {
    return each([&](int i) { return _mm256_mul_ps(a.v[i], b.v[i]); });
}
inline Lanes div(Lanes a, Lanes b) {
    return each([&](int i) { return _mm256_div_ps(a.v[i], b.v[i]); });
}
inline Lanes max(Lanes a, Lanes b) {
    return each([&](int i) { return _mm256_max_ps(a.v[i], b.v[i]); });
}
inline Lanes min(Lanes a, Lanes b) {
    return each([&](int i) { return _mm256_min_ps(a.v[i], b.v[i]); });
}
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
    return each([&](int i) { return _mm256_fmadd_ps(a.v[i], b.v[i], c.v[i]); });
}
inline Lanes select_less(Lanes a, Lanes b, Lanes x, Lanes y) {
    return each(
        [&](int i) { return _mm256_blendv_ps(y.v[i], x.v[i], _mm256_cmp_ps(a.v[i], b.v[i], _CMP_LT_OQ)); });
}
inline Lanes power_of_two(Lanes n) {
    return each([&](int i) {
        __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v[i]), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    });
}
inline __m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline Lanes from_bf16(const uint16_t* woven) {
    const __m256i upper = _mm256_set1_epi32(int(0xffff0000));
    __m256i first = load_bytes(woven), second = load_bytes(woven + 16);
    return {_mm256_castsi256_ps(_mm256_slli_epi32(first, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(second, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(first, upper)),
            _mm256_castsi256_ps(_mm256_and_si256(second, upper))};
}

constexpr int HEADS = 2;        // query heads at a time: 8 accumulators of 16 registers
constexpr int BF16_ROWS = 2;    // bf16 rows at a time: 8 accumulators as well

}  // namespace

#include "arithmetic.h"

namespace {

inline __m256i twice(__m128i x) { return _mm256_broadcastsi128_si256(x); }

// The codes of 8 columns are 16 bytes as in isa_avx512.cpp; behind all of them are, for each 8 columns, 8
// words paired as the bytes of the int8 layout unpack: 0 4, 2 6, 1 5, 3 7.
void quantise(const float* values, int width, int8_t* codes, int32_t* sums, float* scale) {
    __m256i largest = _mm256_setzero_si256();  // compared as integers, above all numbers a NaN
    for (int i = 0; i < width; i += 8)
        largest = _mm256_max_epi32(largest,
                                   _mm256_and_si256(load_bytes(values + i), _mm256_set1_epi32(0x7fffffff)));
    int32_t lanes[8], top_bits = 0;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), largest);
    for (int lane : lanes) top_bits = lane > top_bits ? lane : top_bits;
    float top;
    __builtin_memcpy(&top, &top_bits, 4);
    *scale = top < SMALLEST ? 0.0f : top / 32512.0f;
    const __m256 inverse = _mm256_set1_ps(top >= SMALLEST ? 32512.0f / top : 0.0f);
    const __m256i highs = twice(_mm_setr_epi8(1, 5, 9, 13, 3, 7, 11, 15, -1, -1, -1, -1, -1, -1, -1, -1));
    const __m256i lows = twice(_mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, 2, 6, 10, 14));
    const __m256i pairs = twice(_mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 10, 11, 6, 7, 14, 15));
    for (int i = 0; i < width; i += 32) {
        __m256i total = _mm256_setzero_si256();
        for (int j = i; j < i + 32; j += 16) {
            __m256i first = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(values + j), inverse));
            __m256i second = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(values + j + 8), inverse));
            __m256i x = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
            total = _mm256_add_epi32(total, _mm256_madd_epi16(x, _mm256_set1_epi16(1)));
            __m256i rounded = _mm256_add_epi16(x, _mm256_set1_epi16(128));
            __m256i planes =
                _mm256_or_si256(_mm256_shuffle_epi8(rounded, highs), _mm256_shuffle_epi8(x, lows));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + 2 * j), planes);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + 2 * (width + j)),
                                _mm256_shuffle_epi8(x, pairs));
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), total);
        int32_t block = 0;
        for (int lane : lanes) block += lane;
        sums[i / 32] = block;
    }
}

inline __m256i broadcast(const int8_t* p) {
    int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}

// 8 columns, even and odd ones, of 8 outputs, times both planes of one row's codes.
inline void multiply(__m256i even, __m256i odd, const int8_t* x, __m256i& high, __m256i& low) {
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i highs =
        _mm256_add_epi16(_mm256_maddubs_epi16(even, broadcast(x)), _mm256_maddubs_epi16(odd, broadcast(x + 4)));
    const __m256i lows = _mm256_add_epi16(_mm256_maddubs_epi16(even, broadcast(x + 8)),
                                          _mm256_maddubs_epi16(odd, broadcast(x + 12)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(highs, ones));
    low = _mm256_add_epi32(low, _mm256_madd_epi16(lows, ones));
}

inline __m256 e8m0(const uint8_t* p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)), 23));
}

template <int R>
inline void mxfp4_block(const uint8_t* scales, const uint8_t* codes, int64_t ahead, int block, const Row* rows,
                        Lanes (&sum)[R]) {
    // 2 * e2m1 + 12
    const __m256i table = twice(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m256i high[R], low[R];
        for (int r = 0; r < R; r++) {
            high[r] = _mm256_setzero_si256();
            low[r] = _mm256_set1_epi32(-12 * rows[r].sums[block]);
        }
        if (v % 2 == 0)
            for (int g = 0; g < 4; g++) _mm_prefetch(codes + 128 * g + 32 * v + ahead, _MM_HINT_T0);
        for (int g = 0; g < 4; g += 2) {
            __m256i even[2], odd[2];
            for (int i = 0; i < 2; i++) {
                __m256i packed = load_bytes(codes + 128 * (g + i) + 32 * v);
                even[i] = _mm256_shuffle_epi8(table, _mm256_and_si256(packed, nibble));
                odd[i] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble));
            }
            // Four sums of two products: 4 * 2 * 24 * 128 < 2^15.
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const int8_t* x = rows[r].codes + 64 * int64_t(block) + 16 * g;
                __m256i highs = _mm256_add_epi16(_mm256_maddubs_epi16(even[0], broadcast(x)),
                                                 _mm256_maddubs_epi16(odd[0], broadcast(x + 4)));
                highs = _mm256_add_epi16(highs, _mm256_maddubs_epi16(even[1], broadcast(x + 16)));
                highs = _mm256_add_epi16(highs, _mm256_maddubs_epi16(odd[1], broadcast(x + 20)));
                __m256i lows = _mm256_add_epi16(_mm256_maddubs_epi16(even[0], broadcast(x + 8)),
                                                _mm256_maddubs_epi16(odd[0], broadcast(x + 12)));
                lows = _mm256_add_epi16(lows, _mm256_maddubs_epi16(even[1], broadcast(x + 24)));
                lows = _mm256_add_epi16(lows, _mm256_maddubs_epi16(odd[1], broadcast(x + 28)));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(highs, ones));
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(lows, ones));
            }
        }
        const __m256 scale = e8m0(scales + 8 * v);
        for (int r = 0; r < R; r++) {
            __m256i total = _mm256_add_epi32(_mm256_slli_epi32(high[r], 8), low[r]);
            sum[r].v[v] = _mm256_add_ps(sum[r].v[v], _mm256_mul_ps(_mm256_cvtepi32_ps(total), scale));
        }
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

inline __m256 group_scales(const uint8_t* p) {
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

template <int R>
void int8_rows(const Tile& tile, const Row* rows) {
    const __m256i byte = _mm256_set1_epi16(255);
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const uint8_t *scales = p, *codes = p + 64;
        p = codes + columns * TILE;
        _mm_prefetch(scales + tile.ahead, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i total[R];
            for (int r = 0; r < R; r++) {
                total[r] = _mm256_set1_epi32(-128 * group_sum(rows[r], k, columns));
            }
            for (int j = 0; j < columns; j += 8) {
                const uint8_t* q = codes + 32 * (j + v);
                if (v == 0)
                    for (int line = 0; line < 4; line++) _mm_prefetch(q + 64 * line + tile.ahead, _MM_HINT_T0);
                __m256i even = load_bytes(q), odd = load_bytes(q + 128);
                __m256i weights[4] = {_mm256_and_si256(even, byte), _mm256_srli_epi16(even, 8),
                                      _mm256_and_si256(odd, byte), _mm256_srli_epi16(odd, 8)};
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    const int8_t* x = rows[r].codes + 2 * (int64_t(tile.inputs) + k + j);
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++)
                        total[r] =
                            _mm256_add_epi32(total[r], _mm256_madd_epi16(weights[i], broadcast(x + 4 * i)));
                }
            }
            const __m256 scale = group_scales(scales + 16 * v);
            for (int r = 0; r < R; r++)
                sum[r].v[v] = _mm256_add_ps(sum[r].v[v], _mm256_mul_ps(_mm256_cvtepi32_ps(total[r]), scale));
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale)));
}

template <int R>
void half_rows(const Tile& tile, const Row* rows) {
    const __m256i nibble = _mm256_set1_epi8(15);
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const uint8_t *scales = p, *codes = p + 64;
        p = codes + columns * TILE / 2;
        _mm_prefetch(scales + tile.ahead, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i high[R], low[R];
            for (int r = 0; r < R; r++) high[r] = low[r] = _mm256_setzero_si256();
            for (int j = 0; j < columns; j += 8) {
                const uint8_t* q = codes + 16 * j + 32 * v;
                if (v % 2 == 0) _mm_prefetch(q + tile.ahead, _MM_HINT_T0);
                const __m256i packed = load_bytes(q);
                const __m256i even = _mm256_and_si256(packed, nibble);
                const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
                // Two sums of two products: 2 * 2 * 15 * 128 < 2^15.
#pragma GCC unroll 4
                for (int r = 0; r < R; r++)
                    multiply(even, odd, rows[r].codes + 2 * int64_t(k + j), high[r], low[r]);
            }
            const __m256 scale = group_scales(scales + 16 * v);
            for (int r = 0; r < R; r++) {
                const __m256i offset = _mm256_set1_epi32(tile.offset * group_sum(rows[r], k, columns));
                __m256i total = _mm256_add_epi32(_mm256_slli_epi32(high[r], 8), low[r]);
                total = _mm256_sub_epi32(_mm256_slli_epi32(total, 1), offset);
                sum[r].v[v] = _mm256_add_ps(sum[r].v[v], _mm256_mul_ps(_mm256_cvtepi32_ps(total), scale));
            }
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale)));
}

// 4 columns of 8 outputs, signed, times one row's 8-bit codes.  |w * x| <= 127 * 127, so a sum of two fits 16 bits.
inline __m256i coarse_step(__m256i total, __m256i weights, const int8_t* codes) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(broadcast(codes), weights));
    return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

inline __m256 coarse_scaled(__m256i total, float block, __m256 scale, __m256 sum) {
    return _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(total), _mm256_set1_ps(block)), scale, sum);
}

template <int R>
void mxfp4_coarse_rows(const Tile& tile, const Row* rows) {
    const __m256i table = twice(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));  // 2 * e2m1
    const __m256i nibble = _mm256_set1_epi8(15);
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    for (int b = 0; b < tile.inputs / BLOCK; b++) {
        const uint8_t* scales = tile.weights + b / 2 * 1088 + b % 2 * 32;
        const uint8_t* codes = tile.weights + b / 2 * 1088 + 64 + b % 2 * 512;
        for (int line = 0; line < 8; line++) _mm_prefetch(codes + 64 * line + tile.ahead, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i total[R];
            for (int r = 0; r < R; r++) total[r] = _mm256_setzero_si256();
            for (int g = 0; g < 4; g++) {
                const __m256i packed = load_bytes(codes + 128 * g + 32 * v);
                const __m256i even = _mm256_shuffle_epi8(table, _mm256_and_si256(packed, nibble));
                const __m256i odd =
                    _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble));
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) {
                    const int8_t* x = rows[r].codes + 32 * int64_t(b) + 8 * g;
                    total[r] = coarse_step(coarse_step(total[r], even, x), odd, x + 4);
                }
            }
            for (int r = 0; r < R; r++)
                sum[r].v[v] = coarse_scaled(total[r], rows[r].blocks[b], e8m0(scales + 8 * v), sum[r].v[v]);
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(0.5f)));
}

template <int R>
void int8_coarse_rows(const Tile& tile, const Row* rows) {
    const __m256i offset = _mm256_set1_epi8(char(128));
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t *p = tile.weights, *scales = p;
    for (int b = 0; b < tile.inputs / BLOCK; b++, p += BLOCK * TILE) {
        if (b % 2 == 0) scales = p, p += 64;
        for (int line = 0; line < 16; line++) _mm_prefetch(p + 64 * line + tile.ahead, _MM_HINT_T0);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i total[R];
            for (int r = 0; r < R; r++) total[r] = _mm256_setzero_si256();
            for (int j = 0; j < BLOCK; j += 4) {
                const __m256i weights = _mm256_xor_si256(load_bytes(p + 32 * (j + v)), offset);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++)
                    total[r] = coarse_step(total[r], weights, rows[r].codes + 32 * int64_t(b) + j);
            }
            for (int r = 0; r < R; r++)
                sum[r].v[v] = coarse_scaled(total[r], rows[r].blocks[b], group_scales(scales + 16 * v), sum[r].v[v]);
        }
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
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (int64_t i = 0; i + 128 <= bytes; i += 128) {
        _mm_prefetch(data + i + READ_AHEAD, _MM_HINT_T0), _mm_prefetch(data + i + 64 + READ_AHEAD, _MM_HINT_T0);
        a = _mm256_add_epi64(a, load_bytes(data + i)), b = _mm256_add_epi64(b, load_bytes(data + i + 32));
        c = _mm256_add_epi64(c, load_bytes(data + i + 64)),
        d = _mm256_add_epi64(d, load_bytes(data + i + 96));
    }
    uint64_t lanes[4];
    __m256i total = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), total);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

}  // namespace

const Isa AVX2 = {mxfp4, int8, half, bf16, mxfp4_coarse, int8_coarse, quantise, quantise_coarse, norm, swiglu, combine, segment, merge, finish, dot, shares, maxima, sum};

#if defined(__clang__)
#pragma clang attribute pop
#endif
