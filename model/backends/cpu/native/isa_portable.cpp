// Any processor, in plain loops: slow.  It defines the results of the other instruction sets.
#include "isa.h"
#include "layout.h"

namespace {

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits

struct Lanes {
    float v[32];
};

template <typename F>
inline Lanes each(F f) {
    Lanes x;
    for (int i = 0; i < 32; i++) x.v[i] = f(i);
    return x;
}
inline float from_bits(uint32_t bits) {
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t to_bits(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits;
}
inline Lanes splat(float x) {
    return each([&](int) { return x; });
}
inline Lanes zero() { return splat(0.0f); }
inline Lanes load_pair(const float* p, const float* q) {
    return each([&](int i) { return i < 16 ? p[i] : q[i - 16]; });
}
inline Lanes load(const float* p) {
    return each([&](int i) { return p[i]; });
}
inline void store(float* p, const Lanes& x) { __builtin_memcpy(p, x.v, sizeof x.v); }
inline Lanes add(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Lanes sub(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Lanes mul(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Lanes div(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
}
// The second where either is not a number, as on x86.
inline Lanes max(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes min(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline Lanes select_less(const Lanes& a, const Lanes& b, const Lanes& x, const Lanes& y) {
    return each([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}
inline Lanes power_of_two(const Lanes& n) {
    // The sum's last eight bits are n + 127, and become the exponent.
    return each([&](int i) { return from_bits(to_bits(n.v[i] + (ROUND + 127.0f)) << 23); });
}
inline Lanes from_bf16(const uint16_t* woven) {
    return each([&](int i) { return from_bits(uint32_t(woven[i < 16 ? 2 * i : 2 * (i - 16) + 1]) << 16); });
}

constexpr int HEADS = 2;
constexpr int BF16_ROWS = 1;

}  // namespace

#include "arithmetic.h"

namespace {

// 16-bit codes in the order of the columns.
void quantise(const float* values, int width, int8_t* codes, int32_t* sums, float* scale) {
    uint32_t top_bits = 0;  // compared as integers, above all numbers a NaN
    for (int i = 0; i < width; i++) {
        const uint32_t bits = to_bits(values[i]) & 0x7fffffff;
        top_bits = bits > top_bits ? bits : top_bits;
    }
    const float top = from_bits(top_bits);
    *scale = top < SMALLEST ? 0.0f : top / 32512.0f;
    const float inverse = top >= SMALLEST ? 32512.0f / top : 0.0f;
    for (int b = 0; b < width / BLOCK; b++) {
        int32_t sum = 0;
        for (int i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
            const float exact = values[i] * inverse;
            // What is not finite has no code; the scale, which is not finite either, says so.
            const int16_t code = __builtin_fabsf(exact) < 32768.0f ? int16_t((exact + ROUND) - ROUND) : 0;
            __builtin_memcpy(codes + 2 * i, &code, 2);
            sum += code;
        }
        sums[b] = sum;
    }
}

inline int32_t code_at(const Row& row, int column) {
    int16_t code;
    __builtin_memcpy(&code, row.codes + 2 * column, 2);
    return code;
}

const int8_t TABLE[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};  // 2 * e2m1

void mxfp4_row(const Tile& tile, const Row& row) {
    Lanes sum = zero();
    const uint8_t* p = tile.weights;
    for (int b = 0; b < tile.inputs / BLOCK; b++) {
        // The second block's scales lie before the first one's codes.
        const uint8_t* scales = b % 2 ? p - 544 : p;
        const uint8_t* codes = b % 2 ? p : p + 64;
        p = codes + 512;
        int32_t total[TILE] = {};
        for (int g = 0; g < 4; g++)
            for (int i = 0; i < 4; i++) {
                const int column = b * BLOCK + 8 * g + 2 * i;
                const int32_t even = code_at(row, column), odd = code_at(row, column + 1);
                for (int r = 0; r < TILE; r++) {
                    const uint8_t byte = codes[128 * g + 4 * r + i];
                    total[r] += TABLE[byte & 15] * even + TABLE[byte >> 4] * odd;
                }
            }
        sum = add(sum, each([&](int r) { return float(total[r]) * from_bits(uint32_t(scales[r]) << 23); }));
    }
    emit(tile, row, mul(sum, splat(row.scale * 0.5f)));
}

inline float group_scale(const uint8_t* scales, int r) {
    return from_bits(uint32_t(scales[2 * r] | scales[2 * r + 1] << 8) << 16);
}

inline int32_t coarse_at(const Row& row, int column) {
    return row.codes[column / 8 * 8 + column % 2 * 4 + column % 8 / 2];
}

void mxfp4_coarse_row(const Tile& tile, const Row& row) {
    Lanes sum = zero();
    const uint8_t* p = tile.weights;
    for (int b = 0; b < tile.inputs / BLOCK; b++) {
        const uint8_t* scales = b % 2 ? p - 544 : p;
        const uint8_t* codes = b % 2 ? p : p + 64;
        p = codes + 512;
        int32_t total[TILE] = {};
        for (int j = 0; j < BLOCK; j++) {
            const int32_t code = coarse_at(row, b * BLOCK + j);
            const uint8_t* column = codes + j / 8 * 128 + j % 8 / 2;
            for (int r = 0; r < TILE; r++) total[r] += TABLE[column[4 * r] >> j % 2 * 4 & 15] * code;
        }
        const float scale = row.blocks[b];
        sum = each([&](int r) {
            return __builtin_fmaf(float(total[r]) * scale, from_bits(uint32_t(scales[r]) << 23), sum.v[r]);
        });
    }
    emit(tile, row, mul(sum, splat(0.5f)));
}

void int8_coarse_row(const Tile& tile, const Row& row) {
    Lanes sum = zero();
    const uint8_t *p = tile.weights, *scales = p;
    for (int b = 0; b < tile.inputs / BLOCK; b++, p += BLOCK * TILE) {
        if (b % 2 == 0) scales = p, p += 64;
        int32_t total[TILE] = {};
        for (int j = 0; j < BLOCK; j++) {
            const int32_t code = coarse_at(row, b * BLOCK + j);
            const uint8_t* column = p + j / 8 * 256 + j % 2 * 128 + j % 8 / 2;
            for (int r = 0; r < TILE; r++) total[r] += (column[4 * r] - 128) * code;
        }
        const float scale = row.blocks[b];
        sum = each([&](int r) { return __builtin_fmaf(float(total[r]) * scale, group_scale(scales, r), sum.v[r]); });
    }
    emit(tile, row, sum);
}

void half_row(const Tile& tile, const Row& row) {
    Lanes sum = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const uint8_t* scales = p;
        p += 64;
        int32_t total[TILE] = {};
        for (int j = 0; j < columns; j++) {
            const int32_t code = code_at(row, k + j);
            const uint8_t* column = p + j / 8 * 128 + j % 8 / 2;
            for (int r = 0; r < TILE; r++)
                total[r] += (2 * (column[4 * r] >> j % 2 * 4 & 15) - tile.offset) * code;
        }
        p += columns * TILE / 2;
        sum = add(sum, each([&](int r) { return float(total[r]) * group_scale(scales, r); }));
    }
    emit(tile, row, mul(sum, splat(row.scale)));
}

void int8_row(const Tile& tile, const Row& row) {
    Lanes sum = zero();
    const uint8_t* p = tile.weights;
    for (int k = 0; k < tile.inputs; k += GROUP) {
        const int columns = tile.inputs - k < GROUP ? BLOCK : GROUP;
        const uint8_t* scales = p;
        p += 64;
        int32_t total[TILE] = {};
        for (int j = 0; j < columns; j++) {
            const int32_t code = code_at(row, k + j);
            const uint8_t* column = p + j / 8 * 256 + j % 2 * 128 + j % 8 / 2;
            for (int r = 0; r < TILE; r++) total[r] += (column[4 * r] - 128) * code;
        }
        p += columns * TILE;
        sum = add(sum, each([&](int r) { return float(total[r]) * group_scale(scales, r); }));
    }
    emit(tile, row, mul(sum, splat(row.scale)));
}

void mxfp4(const Tile& tile, const Row* rows, int count) {
    for (int r = 0; r < count; r++) mxfp4_row(tile, rows[r]);
}

void int8(const Tile& tile, const Row* rows, int count) {
    for (int r = 0; r < count; r++) int8_row(tile, rows[r]);
}

void mxfp4_coarse(const Tile& tile, const Row* rows, int count) {
    for (int r = 0; r < count; r++) mxfp4_coarse_row(tile, rows[r]);
}

void int8_coarse(const Tile& tile, const Row* rows, int count) {
    for (int r = 0; r < count; r++) int8_coarse_row(tile, rows[r]);
}

void half(const Tile& tile, const Row* rows, int count) {
    for (int r = 0; r < count; r++) half_row(tile, rows[r]);
}

uint64_t sum(const uint8_t* data, int64_t bytes) {
    uint64_t total = 0, word;
    for (int64_t i = 0; i + 8 <= bytes; i += 8) {
        __builtin_memcpy(&word, data + i, 8);
        total += word;
    }
    return total;
}

}  // namespace

const Isa PORTABLE = {mxfp4, int8, half, bf16, mxfp4_coarse, int8_coarse, quantise, quantise_coarse, norm, swiglu, combine, segment, merge, finish, dot, shares, maxima, sum};
