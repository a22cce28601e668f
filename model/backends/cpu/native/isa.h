// The functions that each instruction set implements: the arithmetic of one tile or one row.  All other code is
// plain C++.
//
// All instruction sets give bit-identical results.  Products of codes are exact integers, and the order of float32
// operations depends neither on the width of the vectors, nor on the number of rows, nor on the number of threads.
#pragma once

#include <cstdint>

constexpr int SEGMENT = 512;        // positions whose softmax is computed together; the first is a multiple of this
constexpr int MAX_ROWS = 4;         // rows that share one pass over a tile
constexpr int READ_AHEAD = 4096;    // bytes between reading and prefetching weights: 4 to 16 KB are equally fast, others slower
constexpr float SMALLEST = 1e-30f;  // a row without larger values is zero: 1 / x must be finite

struct Tile {
    const uint8_t* weights;
    const float* bias;  // 32, or null
    int inputs;
    bool add;    // add the result to `out`
    int offset;     // of HIGH and LOW: a code n stands for 2 n - offset
    int64_t ahead;  // bytes to prefetch ahead: READ_AHEAD or 0
};

struct Row {
    const int8_t* codes;
    const int32_t* sums;
    float scale;
    const float* values;
    float* out;           // 32
    const float* blocks;  // scales of 8-bit codes; null: the codes have 16 bits
};

// The sum of a row's codes over the group of columns that begins at `first`: one block or two.
inline int32_t group_sum(const Row& row, int first, int columns) {
    const int32_t* sums = row.sums + first / 32;
    return columns == 32 ? sums[0] : sums[0] + sums[1];
}

struct Span {              // the visible keys and values of one query in a segment
    const uint16_t* keys;  // those of one layer and one head in page 0
    const uint16_t* values;
    int64_t key_stride, value_stride;  // elements from page to page
    const int32_t* pages;              // of the sequence
    int64_t first, last;               // positions, both included
    int64_t following;                 // the last one whose keys will be needed soon
    int head_dim, padded_dim;          // the latter rounded up to 32
};

struct Isa {
    // Multiplies one tile with up to MAX_ROWS rows.
    void (*mxfp4)(const Tile&, const Row*, int rows);
    void (*int8)(const Tile&, const Row*, int rows);
    void (*half)(const Tile&, const Row*, int rows);  // HIGH and LOW
    void (*bf16)(const Tile&, const Row*, int rows);

    // The same for rows with 8-bit codes.  Each block of 32 columns is added separately, also with int8 weights: its
    // integer sum times the row's scale for the block is rounded; this times the weights' scale is added.
    void (*mxfp4_coarse)(const Tile&, const Row*, int rows);
    void (*int8_coarse)(const Tile&, const Row*, int rows);

    void (*quantise)(const float* values, int width, int8_t* codes, int32_t* sums, float* scale);
    // Quantises to 8 bits; of each 8 columns first the even ones, then the odd ones.
    void (*quantise_coarse)(const float* values, int width, int8_t* codes, int32_t* sums, float* blocks);
    void (*norm)(const float* x, const float* scale, int width, float epsilon, float* out);
    void (*swiglu)(float* values, int width, float limit, float alpha);
    void (*combine)(const float* values, const float* shares, int used, int width, float* x);

    // For `heads` queries of one token [heads, head_dim]: the maximum of the scores, the sum of exp(score -
    // maximum), and the values weighted by exp(score - maximum) [heads, padded_dim].
    void (*segment)(const Span&, const float* queries, int heads, float* maxima, float* sums, float* out);
    // Adds a later segment to an earlier one.
    void (*merge)(int heads, int padded_dim, float* maxima, float* sums, float* out,
                  const float* later_maxima, const float* later_sums, const float* later_out);
    // Adds the sinks to the sum, and divides by it.
    void (*finish)(int heads, int padded_dim, const float* sinks, const float* maxima, const float* sums,
                   float* out);

    // Dot product of a bf16 row in its natural order with a row whose 32-blocks have even columns before odd
    // ones.
    float (*dot)(const uint16_t* weights, const float* unwoven, int width);
    // The sum of exp((value - top) * sharpness), and of those alone that are below `threshold`, over 32 * blocks
    // values.
    void (*shares)(const float* values, int64_t blocks, float top, float sharpness, float threshold,
                   float* all, float* below);
    // The maximum of each 32 values.
    void (*maxima)(const float* values, int64_t blocks, float* out);
    // Reads every byte; for measuring bandwidth.
    uint64_t (*sum)(const uint8_t* data, int64_t bytes);
};

extern const Isa PORTABLE;
#if defined(__x86_64__)
extern const Isa AVX2;
extern const Isa AVX512;
#elif defined(__aarch64__) && (!defined(__clang__) || defined(__ARM_FEATURE_DOTPROD))
#define HAVE_NEON  // Clang takes the dot product's intrinsics only if its command line says so
extern const Isa NEON;
#endif
