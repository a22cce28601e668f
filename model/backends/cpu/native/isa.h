// What is written once per instruction set: the arithmetic of one tile or one row.  Everything above it is
// plain C++.
//
// All of them compute the same bits.  Products of codes are exact integers; float32 operations happen in an
// order that depends on neither the width of the vectors, nor the number of rows at a time, nor the number of
// threads.
#pragma once

#include <cstdint>

constexpr int SEGMENT = 512;        // positions whose softmax is computed together, from a multiple of itself
constexpr int MAX_ROWS = 4;         // rows that share one pass over a tile
constexpr int READ_AHEAD = 4096;    // bytes, where weights are prefetched: 4 to 16 KB are alike, less and more are slower
constexpr float SMALLEST = 1e-30f;  // a row without larger values is zero: 1 / x must be finite

struct Tile {
    const uint8_t* weights;
    const float* bias;  // 32, or null
    int inputs;
    bool add;    // to what is in `out`
    int offset;     // of HIGH and LOW: a code n stands for 2 n - offset
    int64_t ahead;  // prefetch so many bytes ahead: READ_AHEAD or 0
};

struct Row {
    const int8_t* codes;
    const int32_t* sums;
    float scale;
    const float* values;
    float* out;           // 32
    const float* blocks;  // scales of 8-bit codes; null: the codes have 16
};

// The sum of a row's codes over the group of columns that begins at `first`: one block or two.
inline int32_t group_sum(const Row& row, int first, int columns) {
    const int32_t* sums = row.sums + first / 32;
    return columns == 32 ? sums[0] : sums[0] + sums[1];
}

struct Span {              // the keys and values that one query sees within a segment
    const uint16_t* keys;  // those of one layer and one head in page 0
    const uint16_t* values;
    int64_t key_stride, value_stride;  // elements from page to page
    const int32_t* pages;              // of the sequence
    int64_t first, last;               // positions, both included
    int64_t following;                 // the last one whose keys will be needed soon
    int head_dim, padded_dim;          // the latter rounded up to 32
};

struct Isa {
    // One tile times up to MAX_ROWS rows.
    void (*mxfp4)(const Tile&, const Row*, int rows);
    void (*int8)(const Tile&, const Row*, int rows);
    void (*half)(const Tile&, const Row*, int rows);  // HIGH and LOW
    void (*bf16)(const Tile&, const Row*, int rows);

    // The same of rows with 8-bit codes.  Each block of 32 columns counts by itself, in int8 too: its whole sum times the
    // row's scale for the block, rounded, times the weights' scale and added, rounded once.
    void (*mxfp4_coarse)(const Tile&, const Row*, int rows);
    void (*int8_coarse)(const Tile&, const Row*, int rows);

    void (*quantise)(const float* values, int width, int8_t* codes, int32_t* sums, float* scale);
    // To 8 bits: of each 8 columns first the even ones, then the odd ones.
    void (*quantise_coarse)(const float* values, int width, int8_t* codes, int32_t* sums, float* blocks);
    void (*norm)(const float* x, const float* scale, int width, float epsilon, float* out);
    void (*swiglu)(float* values, int width, float limit, float alpha);
    void (*combine)(const float* values, const float* shares, int used, int width, float* x);

    // For `heads` queries of one token [heads, head_dim]: the maximum of the scores, the sum of exp(score -
    // maximum), and the values weighted by exp(score - maximum) [heads, padded_dim].
    void (*segment)(const Span&, const float* queries, int heads, float* maxima, float* sums, float* out);
    // Fold a later segment into an earlier one.
    void (*merge)(int heads, int padded_dim, float* maxima, float* sums, float* out,
                  const float* later_maxima, const float* later_sums, const float* later_out);
    // Spend the sinks' share and divide by the sum.
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
