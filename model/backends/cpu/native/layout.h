// The layout of packed weights in memory.
//
// A matrix [outputs, inputs] consists of tiles.  A tile has 32 outputs and all inputs, as one contiguous stream of
// bytes.  The 32 outputs are the lanes of the vectors.  So an activation is broadcast to all lanes, and nothing is
// added across lanes.
//
//   MXFP4  for each two blocks of 32 columns: 64 B of e8m0 scales [2, 32 rows], then for each block
//          [4, 32 rows, 4 B]: 4 bytes hold 8 columns as in the checkpoint, even ones in the low nibbles, odd
//          ones in the high
//   INT8   for each group of 64 columns: 64 B of bf16 scales [32 rows], then [8, 2, 32 rows, 4 B]: of each 8
//          columns first the even, then the odd ones; a byte is the weight plus 128
//   HIGH, LOW
//          the upper and the lower four bits of an INT8 byte, 16 h + l, each a matrix of its own: 64 B of bf16
//          scales as in INT8, but 8 times and half as large, then the columns as in MXFP4.  High bits stand
//          for 2 h - 15, the middle of what they may be, and low ones for the 2 l - 16 that this lacks
//   BF16   for each column 64 B: 16 words, row j in the low half of word j and row j + 16 in the high half:
//          "woven"
//
// A last odd block, or half group, keeps the space of its scales.  Missing rows are zero.
#pragma once

#include "abi.h"

#include <cstdint>

constexpr int TILE = 32;   // outputs in a tile
constexpr int BLOCK = 32;  // columns that share a scale in MXFP4
constexpr int GROUP = 64;  // columns that share a scale in INT8

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

constexpr int64_t mxfp4_tile_bytes(int64_t inputs) {
    return round_up(inputs / BLOCK, 2) * 32 + inputs / BLOCK * 512;
}
constexpr int64_t int8_tile_bytes(int64_t inputs) { return round_up(inputs, GROUP) + inputs * TILE; }
constexpr int64_t half_tile_bytes(int64_t inputs) { return round_up(inputs, GROUP) + inputs * TILE / 2; }
constexpr int64_t bf16_tile_bytes(int64_t inputs) { return inputs * 64; }
constexpr int64_t tile_bytes(int32_t format, int64_t inputs) {
    return format == MXFP4  ? mxfp4_tile_bytes(inputs)
           : format == INT8 ? int8_tile_bytes(inputs)
           : format == BF16 ? bf16_tile_bytes(inputs)
                            : half_tile_bytes(inputs);
}
constexpr int offset_of(int32_t format) { return format == HIGH ? 15 : 16; }  // see above
