// NEON with the dot product of bytes: ARM's Neoverse N1 and Cortex-A76, and later.
//
// sdot multiplies signed bytes, so MXFP4 weights need no offset, and int8 weights lose theirs by a flipped bit.
// It takes the four activations it multiplies from a lane: 8 columns of a row are one register.
#include "isa.h"
#include "layout.h"

#if defined(HAVE_NEON)

#include <arm_neon.h>

#if !defined(__clang__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif

namespace {

struct Lanes {
    float32x4_t v[8];
};

template <typename F>
inline Lanes each(F f) {
    return {f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)};
}
inline Lanes splat(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {v, v, v, v, v, v, v, v};
}
inline Lanes zero() { return splat(0.0f); }
inline Lanes load_pair(const float* p, const float* q) {
    return each([&](int i) { return vld1q_f32(i < 4 ? p + 4 * i : q + 4 * (i - 4)); });
}
inline Lanes load(const float* p) { return load_pair(p, p + 16); }
inline void store(float* p, const Lanes& x) {
    for (int i = 0; i < 8; i++) vst1q_f32(p + 4 * i, x.v[i]);
}
inline Lanes add(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline Lanes sub(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline Lanes mul(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline Lanes div(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
}
// The second where either is not a number, as on x86.
inline Lanes max(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline Lanes min(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline Lanes select_less(const Lanes& a, const Lanes& b, const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}
inline Lanes power_of_two(const Lanes& n) {
    return each([&](int i) {
        const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127));
        return vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23));
    });
}
inline Lanes from_bf16(const uint16_t* woven) {
    return each([&](int i) {
        const uint32x4_t words = vreinterpretq_u32_u16(vld1q_u16(woven + 8 * (i % 4)));
        return vreinterpretq_f32_u32(i < 4 ? vshlq_n_u32(words, 16)
                                           : vandq_u32(words, vdupq_n_u32(0xffff0000)));
    });
}

constexpr int HEADS = 2;        // query heads at a time: 16 accumulators of 32 registers
constexpr int BF16_ROWS = 2;    // bf16 rows at a time: as many

}  // namespace

#include "arithmetic.h"

namespace {

// The codes of 8 columns are 16 bytes: the high bytes of the even ones, of the odd ones, then the low bytes
// likewise.
void quantise(const float* values, int width, int8_t* codes, int32_t* sums, float* scale) {
    uint32x4_t largest = vdupq_n_u32(0);  // compared as integers, above all numbers a NaN
    for (int i = 0; i < width; i += 4)
        largest = vmaxq_u32(
            largest, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(values + i)), vdupq_n_u32(0x7fffffff)));
    const uint32_t top_bits = vmaxvq_u32(largest);
    float top;
    __builtin_memcpy(&top, &top_bits, 4);
    *scale = top < SMALLEST ? 0.0f : top / 32512.0f;
    const float32x4_t inverse = vdupq_n_f32(top >= SMALLEST ? 32512.0f / top : 0.0f);
    const uint8x8_t highs = {1, 5, 9, 13, 3, 7, 11, 15}, lows = {0, 4, 8, 12, 2, 6, 10, 14};
    for (int i = 0; i < width; i += BLOCK) {
        sums[i / BLOCK] = 0;
        for (int j = i; j < i + BLOCK; j += 8) {
            const int32x4_t first = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(values + j), inverse));
            const int32x4_t second = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(values + j + 4), inverse));
            const int16x8_t x = vcombine_s16(vmovn_s32(first), vmovn_s32(second));
            sums[i / BLOCK] += vaddlvq_s16(x);
            const int8x16_t rounded = vreinterpretq_s8_s16(vaddq_s16(x, vdupq_n_s16(128)));
            vst1_s8(codes + 2 * j, vqtbl1_s8(rounded, highs));
            vst1_s8(codes + 2 * j + 8, vqtbl1_s8(vreinterpretq_s8_s16(x), lows));
        }
    }
}

// The products of 8 columns of 4 outputs with both planes of R rows; `offset`: of the columns' codes.
template <int R>
inline void multiply(int8x16_t even, int8x16_t odd, const Row* rows, int64_t offset, int32x4_t (&high)[R],
                     int32x4_t (&low)[R]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const int8x16_t x = vld1q_s8(rows[r].codes + offset);
        high[r] = vdotq_laneq_s32(high[r], even, x, 0);
        high[r] = vdotq_laneq_s32(high[r], odd, x, 1);
        low[r] = vdotq_laneq_s32(low[r], even, x, 2);
        low[r] = vdotq_laneq_s32(low[r], odd, x, 3);
    }
}

// 256 * high + low of a block, scaled and added to the sums.
template <int R>
inline void accumulate(Lanes (&sum)[R], int v, const int32x4_t (&high)[R], const int32x4_t (&low)[R],
                       float32x4_t scale) {
    for (int r = 0; r < R; r++) {
        const int32x4_t total = vaddq_s32(vshlq_n_s32(high[r], 8), low[r]);
        sum[r].v[v] = vaddq_f32(sum[r].v[v], vmulq_f32(vcvtq_f32_s32(total), scale));
    }
}

inline float32x4_t e8m0(const uint8_t* p) {
    const uint32x4_t exponents = {p[0], p[1], p[2], p[3]};
    return vreinterpretq_f32_u32(vshlq_n_u32(exponents, 23));
}

template <int R>
inline void mxfp4_block(const uint8_t* scales, const uint8_t* codes, int64_t ahead, int block, const Row* rows,
                        Lanes (&sum)[R]) {
    const int8x16_t table = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};  // 2 * e2m1
    for (int line = 0; line < 8; line++) __builtin_prefetch(codes + 64 * line + ahead);
#pragma GCC unroll 8
    for (int v = 0; v < 8; v++) {
        int32x4_t high[R] = {}, low[R] = {};
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            const uint8x16_t packed = vld1q_u8(codes + 128 * g + 16 * v);
            multiply<R>(vqtbl1q_s8(table, vandq_u8(packed, vdupq_n_u8(15))),
                        vqtbl1q_s8(table, vshrq_n_u8(packed, 4)), rows, 64 * int64_t(block) + 16 * g, high,
                        low);
        }
        accumulate<R>(sum, v, high, low, e8m0(scales + 4 * v));
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
        __builtin_prefetch(p + tile.ahead);
        mxfp4_block<R>(p, p + 64, tile.ahead, b, rows, sum);
        mxfp4_block<R>(p + 32, p + 64 + 512, tile.ahead, b + 1, rows, sum);
    }
    if (b < blocks) mxfp4_block<R>(p, p + 64, tile.ahead, b, rows, sum);
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale * 0.5f)));
}

template <int R>
void int8_rows(const Tile& tile, const Row* rows) {
    const uint8x16_t offset = vdupq_n_u8(128);
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const uint8_t *scales = p, *codes = p + 64;
        p = codes + columns * TILE;
        for (const uint8_t* line = scales; line < p; line += 64) __builtin_prefetch(line + tile.ahead);
        for (int v = 0; v < 8; v++) {
            int32x4_t high[R] = {}, low[R] = {};
            for (int j = 0; j < columns; j += 8) {
                const uint8_t* q = codes + 32 * j + 16 * v;
                multiply<R>(vreinterpretq_s8_u8(veorq_u8(vld1q_u8(q), offset)),
                            vreinterpretq_s8_u8(veorq_u8(vld1q_u8(q + 128), offset)), rows,
                            2 * int64_t(k + j), high, low);
            }
            const uint16x4_t words = vreinterpret_u16_u8(vld1_u8(scales + 8 * v));
            accumulate<R>(sum, v, high, low, vreinterpretq_f32_u32(vshll_n_u16(words, 16)));
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale)));
}

template <int R>
void half_rows(const Tile& tile, const Row* rows) {
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const uint8_t *scales = p, *codes = p + 64;
        p = codes + columns * TILE / 2;
        for (const uint8_t* line = scales; line < p; line += 64) __builtin_prefetch(line + tile.ahead);
        for (int v = 0; v < 8; v++) {
            int32x4_t high[R] = {}, low[R] = {};
            for (int j = 0; j < columns; j += 8) {
                const uint8x16_t packed = vld1q_u8(codes + 16 * j + 16 * v);
                multiply<R>(vreinterpretq_s8_u8(vandq_u8(packed, vdupq_n_u8(15))),
                            vreinterpretq_s8_u8(vshrq_n_u8(packed, 4)), rows, 2 * int64_t(k + j), high, low);
            }
            for (int r = 0; r < R; r++) {
                const int32x4_t offset = vdupq_n_s32(tile.offset * group_sum(rows[r], k, columns));
                high[r] = vshlq_n_s32(high[r], 1);
                low[r] = vsubq_s32(vshlq_n_s32(low[r], 1), offset);
            }
            const uint16x4_t words = vreinterpret_u16_u8(vld1_u8(scales + 8 * v));
            accumulate<R>(sum, v, high, low, vreinterpretq_f32_u32(vshll_n_u16(words, 16)));
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(rows[r].scale)));
}

// 8 columns of 4 outputs times R rows' 8-bit codes; `offset`: of the columns' codes.
template <int R>
inline void coarse_step(int8x16_t even, int8x16_t odd, const Row* rows, int64_t offset, int32x4_t (&total)[R]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const int8x8_t x = vld1_s8(rows[r].codes + offset);
        total[r] = vdotq_lane_s32(vdotq_lane_s32(total[r], even, x, 0), odd, x, 1);
    }
}

template <int R>
inline void coarse_scaled(Lanes (&sum)[R], int v, const int32x4_t (&total)[R], const Row* rows, int block,
                          float32x4_t scale) {
    for (int r = 0; r < R; r++)
        sum[r].v[v] =
            vfmaq_f32(sum[r].v[v], vmulq_n_f32(vcvtq_f32_s32(total[r]), rows[r].blocks[block]), scale);
}

template <int R>
void mxfp4_coarse_rows(const Tile& tile, const Row* rows) {
    const int8x16_t table = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};  // 2 * e2m1
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    for (int b = 0; b < tile.inputs / BLOCK; b++) {
        const uint8_t* scales = tile.weights + b / 2 * 1088 + b % 2 * 32;
        const uint8_t* codes = tile.weights + b / 2 * 1088 + 64 + b % 2 * 512;
        for (int line = 0; line < 8; line++) __builtin_prefetch(codes + 64 * line + tile.ahead);
#pragma GCC unroll 8
        for (int v = 0; v < 8; v++) {
            int32x4_t total[R] = {};
            for (int g = 0; g < 4; g++) {
                const uint8x16_t packed = vld1q_u8(codes + 128 * g + 16 * v);
                coarse_step<R>(vqtbl1q_s8(table, vandq_u8(packed, vdupq_n_u8(15))),
                               vqtbl1q_s8(table, vshrq_n_u8(packed, 4)), rows, 32 * int64_t(b) + 8 * g, total);
            }
            coarse_scaled<R>(sum, v, total, rows, b, e8m0(scales + 4 * v));
        }
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], mul(sum[r], splat(0.5f)));
}

template <int R>
void int8_coarse_rows(const Tile& tile, const Row* rows) {
    const uint8x16_t offset = vdupq_n_u8(128);
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint8_t *p = tile.weights, *scales = p;
    for (int b = 0; b < tile.inputs / BLOCK; b++, p += BLOCK * TILE) {
        if (b % 2 == 0) scales = p, p += 64;
        for (int line = 0; line < 16; line++) __builtin_prefetch(p + 64 * line + tile.ahead);
        for (int v = 0; v < 8; v++) {
            int32x4_t total[R] = {};
            for (int j = 0; j < BLOCK; j += 8) {
                const uint8_t* q = p + 32 * j + 16 * v;
                coarse_step<R>(vreinterpretq_s8_u8(veorq_u8(vld1q_u8(q), offset)),
                               vreinterpretq_s8_u8(veorq_u8(vld1q_u8(q + 128), offset)), rows,
                               32 * int64_t(b) + j, total);
            }
            const uint16x4_t words = vreinterpret_u16_u8(vld1_u8(scales + 8 * v));
            coarse_scaled<R>(sum, v, total, rows, b, vreinterpretq_f32_u32(vshll_n_u16(words, 16)));
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
    uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;
    for (int64_t i = 0; i + 64 <= bytes; i += 64) {
        __builtin_prefetch(data + i + READ_AHEAD);
        a = vaddq_u64(a, vreinterpretq_u64_u8(vld1q_u8(data + i)));
        b = vaddq_u64(b, vreinterpretq_u64_u8(vld1q_u8(data + i + 16)));
        c = vaddq_u64(c, vreinterpretq_u64_u8(vld1q_u8(data + i + 32)));
        d = vaddq_u64(d, vreinterpretq_u64_u8(vld1q_u8(data + i + 48)));
    }
    return vaddvq_u64(vaddq_u64(vaddq_u64(a, b), vaddq_u64(c, d)));
}

}  // namespace

const Isa NEON = {mxfp4, int8, half, bf16, mxfp4_coarse, int8_coarse, quantise, quantise_coarse, norm, swiglu, combine, segment, merge, finish, dot, shares, maxima, sum};

#endif
