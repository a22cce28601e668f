// The floating-point arithmetic.  It is written once, and compiled for each instruction set, where `Lanes` is 32
// float32 values.
//
// Included by isa_*.cpp after they define Lanes; everything is in their unnamed namespace, so that no
// function compiled for one instruction set can be linked into another.
//
// Lanes offers: zero, splat, load, load_pair, store, from_bf16 (32 woven values), add, sub, mul, div, fma
// (a * b + c, rounded once), max, min, select_less (a < b ? x : y, per lane) and power_of_two (of integers in
// -126 .. 127).  Where either of two is not a number, max and min are the second: bounds come first, so that
// what is not a number remains none.

#include "emit.h"

namespace {

// Sums and maxima across lanes: halves are folded onto each other, 16 + 8 + 4 + 2 + 1.
inline float fold_sum(Lanes x) {
    float lane[32];
    store(lane, x);
    for (int half = 16; half >= 1; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

inline float fold_max(Lanes x) {
    float lane[32];
    store(lane, x);
    for (int half = 16; half >= 1; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

// e^x to about 1 ulp; 0 below -87, not a number where x is none.  x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial of degree 6 for e^r
// whose coefficients are those of the Taylor series, the last two adjusted for the interval.
inline Lanes exponential(Lanes x) {
    const Lanes round = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves no fraction bits
    Lanes inside = min(splat(88.0f), max(splat(-87.0f), x));
    Lanes n = sub(add(mul(inside, splat(1.44269504f)), round), round);
    Lanes r = fma(n, splat(-0.693359375f), inside);
    r = fma(n, splat(2.12194440e-4f), r);
    Lanes p = splat(1.3981999e-3f);
    p = fma(p, r, splat(8.3333333e-3f));
    p = fma(p, r, splat(4.1666667e-2f));
    p = fma(p, r, splat(1.6666667e-1f));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    return select_less(x, splat(-87.0f), zero(), mul(p, power_of_two(n)));
}

inline float exponential(float x) {
    float lane[32];
    store(lane, exponential(splat(x)));
    return lane[0];
}

// The scale of a block is its largest magnitude over 127.
void quantise_coarse(const float* values, int width, int8_t* codes, int32_t* sums, float* blocks) {
    const Lanes round = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves no fraction bits
    for (int b = 0; b < width / 32; b++, values += 32, codes += 32) {
        int32_t bits[32], largest = 0;  // compared as integers, above all numbers a NaN
        __builtin_memcpy(bits, values, sizeof bits);
        for (int i = 0; i < 32; i++) bits[i] &= 0x7fffffff;
        for (int i = 0; i < 32; i++) largest = largest > bits[i] ? largest : bits[i];
        float top, code[32];
        __builtin_memcpy(&top, &largest, 4);
        const bool live = top >= SMALLEST && top < __builtin_inff();
        blocks[b] = top < SMALLEST ? 0.0f : top / 127.0f;
        store(code, sub(add(mul(load(values), splat(live ? 127.0f / top : 0.0f)), round), round));
        int32_t whole[32], total = 0;
        // What is not finite has no code; the scale says so.
        for (int i = 0; i < 32; i++) whole[i] = live ? int32_t(code[i]) : 0;
        for (int i = 0; i < 32; i++) total += whole[i];
        sums[b] = total;
        for (int i = 0; i < 32; i++) codes[i] = int8_t(whole[i / 8 * 8 + i % 4 * 2 + i % 8 / 4]);
    }
}

void norm(const float* x, const float* scale, int width, float epsilon, float* out) {
    Lanes squares = zero();
    for (int i = 0; i < width; i += 32) squares = fma(load(x + i), load(x + i), squares);
    const Lanes inverse = splat(1.0f / __builtin_sqrtf(fold_sum(squares) / float(width) + epsilon));
    for (int i = 0; i < width; i += 32) store(out + i, mul(mul(load(x + i), inverse), load(scale + i)));
}

// In place: 32 gates and 32 values become 32 results, which lie before the next 64 inputs.
void swiglu(float* values, int width, float limit, float alpha) {
    const Lanes one = splat(1.0f), high = splat(limit), low = splat(-limit);
    for (int i = 0; i < width; i += 32) {
        const float* in = values + 2 * i;
        Lanes gate = min(high, load_pair(in, in + 32));
        Lanes value = max(low, min(high, load_pair(in + 16, in + 48)));
        Lanes sigmoid = div(one, add(one, exponential(mul(gate, splat(-alpha)))));
        store(values + i, mul(mul(gate, sigmoid), add(value, one)));
    }
}

void combine(const float* values, const float* shares, int used, int width, float* x) {
    for (int i = 0; i < width; i += 32) {
        Lanes total = zero();
        for (int a = 0; a < used; a++)
            total = fma(load(values + int64_t(a) * width + i), splat(shares[a]), total);
        store(x + i, add(load(x + i), total));
    }
}

float dot(const uint16_t* weights, const float* unwoven, int width) {
    Lanes total = zero();
    for (int i = 0; i < width; i += 32) total = fma(from_bf16(weights + i), load(unwoven + i), total);
    return fold_sum(total);
}

void shares(const float* values, int64_t blocks, float top, float sharpness, float threshold, float* all,
            float* below) {
    Lanes total = zero(), low = zero();
    for (int64_t b = 0; b < blocks; b++) {
        const Lanes value = load(values + 32 * b);
        const Lanes share = exponential(mul(sub(value, splat(top)), splat(sharpness)));
        total = add(total, share);
        low = add(low, select_less(value, splat(threshold), share, zero()));
    }
    *all = fold_sum(total);
    *below = fold_sum(low);
}

void maxima(const float* values, int64_t blocks, float* out) {
    for (int64_t b = 0; b < blocks; b++) out[b] = fold_max(load(values + 32 * b));
}

template <int R>
void bf16_rows(const Tile& tile, const Row* rows) {
    Lanes sum[R];
    for (int r = 0; r < R; r++) sum[r] = zero();
    const uint16_t* weights = reinterpret_cast<const uint16_t*>(tile.weights);
    for (int k = 0; k < tile.inputs; k++, weights += 32) {
        __builtin_prefetch(weights + tile.ahead / 2);
        Lanes column = from_bf16(weights);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) sum[r] = fma(column, splat(rows[r].values[k]), sum[r]);
    }
    for (int r = 0; r < R; r++) emit(tile, rows[r], sum[r]);
}

// -- attention: positions are the lanes of a product with keys, dimensions those of one with values

// Into the second level of cache: a segment's keys and values are more than the first has room for.
inline void prefetch_soon(const uint16_t* line) { __builtin_prefetch(line, 0, 2); }

// `soon` and `later` are pages of as many bytes that will be read: prefetched line by line, for a burst would
// wait for itself.
template <int R>
inline void score_page(const float* queries, const uint16_t* keys, int head_dim, float* scores,
                       const uint16_t* soon, const uint16_t* later) {
    Lanes sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sum[r] = zero();
    for (int d = 0; d < head_dim; d++) {
        prefetch_soon(soon + 32 * d);
        prefetch_soon(later + 32 * d);
        Lanes key = from_bf16(keys + 32 * d);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sum[r] = fma(key, splat(queries[r * head_dim + d]), sum[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) store(scores + r * SEGMENT, sum[r]);
}

// `later`: as many keys as there are values, that the next segment will read: by now the memory has nothing else
// to do.
template <int R>
inline void weigh_page(const float* weights, const uint16_t* values, int from, int to, int width,
                       const uint16_t* later, float* out) {
    for (int d = 0; d < width; d += 32) {
        Lanes sum[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sum[r] = load(out + r * width + d);
        for (int j = from; j < to; j++) {
            prefetch_soon(later + j * width + d);
            Lanes value = from_bf16(values + j * width + d);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) sum[r] = fma(value, splat(weights[r * SEGMENT + j]), sum[r]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) store(out + r * width + d, sum[r]);
    }
}

template <int R>
void segment_rows(const Span& span, const float* queries, float* maxima, float* sums, float* out) {
    alignas(64) float scores[R * SEGMENT];
    const int64_t first_page = span.first / 32, last_page = span.last / 32;
    const int used = int(last_page - first_page + 1) * 32;
    auto keys = [&](int64_t page) { return span.keys + span.key_stride * span.pages[page]; };
    auto values = [&](int64_t page) { return span.values + span.value_stride * span.pages[page]; };

    for (int64_t page = first_page; page <= last_page; page++) {
        const uint16_t* next = keys(page < last_page ? page + 1 : page);
        score_page<R>(queries, keys(page), span.head_dim, scores + 32 * (page - first_page), next,
                      values(page));
    }
    const int before = int(span.first - 32 * first_page), after = int(span.last + 1 - 32 * first_page);
    for (int r = 0; r < R; r++) {
        float* row = scores + r * SEGMENT;
        for (int j = 0; j < before; j++) row[j] = -__builtin_inff();
        for (int j = after; j < used; j++) row[j] = -__builtin_inff();
        Lanes highest = load(row);
        for (int j = 32; j < used; j += 32) highest = max(highest, load(row + j));
        maxima[r] = fold_max(highest);
        Lanes total = zero();
        for (int j = 0; j < used; j += 32) {
            Lanes weight = exponential(sub(load(row + j), splat(maxima[r])));
            store(row + j, weight);
            total = add(total, weight);
        }
        sums[r] = fold_sum(total);
    }
    for (int i = 0; i < R * span.padded_dim; i++) out[i] = 0.0f;
    // Only positions that are seen: the others' values may be another sequence's, or were never written.
    for (int64_t page = first_page; page <= last_page; page++) {
        const int start = int(page - first_page) * 32;
        const int from = before > start ? before - start : 0, to = after < start + 32 ? after - start : 32;
        const int64_t ahead = page + SEGMENT / 32;
        const uint16_t* later = ahead <= span.following / 32 ? keys(ahead) : values(page);
        weigh_page<R>(scores + start, values(page), from, to, span.padded_dim, later, out);
    }
}

void segment(const Span& span, const float* queries, int heads, float* maxima, float* sums, float* out) {
    const int in = span.head_dim, to = span.padded_dim;
    int h = 0;
    for (; h + HEADS <= heads; h += HEADS)
        segment_rows<HEADS>(span, queries + h * in, maxima + h, sums + h, out + h * to);
    for (; h < heads; h++) segment_rows<1>(span, queries + h * in, maxima + h, sums + h, out + h * to);
}

void merge(int heads, int padded_dim, float* maxima, float* sums, float* out, const float* later_maxima,
           const float* later_sums, const float* later_out) {
    for (int h = 0; h < heads; h++, out += padded_dim, later_out += padded_dim) {
        const float highest = maxima[h] > later_maxima[h] ? maxima[h] : later_maxima[h];
        const float keep = exponential(maxima[h] - highest), take = exponential(later_maxima[h] - highest);
        maxima[h] = highest;
        sums[h] = sums[h] * keep + later_sums[h] * take;
        for (int d = 0; d < padded_dim; d += 32)
            store(out + d, add(mul(load(out + d), splat(keep)), mul(load(later_out + d), splat(take))));
    }
}

void finish(int heads, int padded_dim, const float* sinks, const float* maxima, const float* sums,
            float* out) {
    for (int h = 0; h < heads; h++, out += padded_dim) {
        const float highest = maxima[h] > sinks[h] ? maxima[h] : sinks[h];
        const float keep = exponential(maxima[h] - highest);
        const float total = sums[h] * keep + exponential(sinks[h] - highest);
        for (int d = 0; d < padded_dim; d += 32) store(out + d, mul(load(out + d), splat(keep / total)));
    }
}

// Picks the instance for the number of rows.
using Pass = void (*)(const Tile&, const Row*);

constexpr Pass BF16_PASSES[MAX_ROWS] = {bf16_rows<1>, bf16_rows<2>, bf16_rows<3>, bf16_rows<4>};

void bf16(const Tile& tile, const Row* rows, int count) {
    for (int first = 0; first < count; first += BF16_ROWS) {
        const int n = count - first < BF16_ROWS ? count - first : BF16_ROWS;
        BF16_PASSES[n - 1](tile, rows + first);
    }
}

}  // namespace
