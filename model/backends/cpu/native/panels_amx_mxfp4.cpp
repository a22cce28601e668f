// AMX: MXFP4 weights times rows of 16-bit codes.
//
// A block's products must be summed apart from the next block's, since each has its own scale, and a block has 32
// columns where a tile of bytes has 64.  A tile of bf16 has 32.  Each plane of codes, and each weight, is a bf16
// number exactly, and all sums of a block are whole numbers below 2^24, so float32 holds them exactly, in whatever
// order the tile unit adds: both planes add up in one register, the upper one 256 times.
#include "tiles_amx.h"

#if defined(HAVE_AMX)

namespace {

constexpr int MXFP4_ROWS = 128;
constexpr int QUAD = 4 * REGISTER;  // 32 rows of one block, both planes

int64_t mxfp4_bytes(int inputs, int rows) {
    return round_up(inputs / BLOCK, 2) * (round_up(rows, 2 * SIDE) / (2 * SIDE)) * QUAD;
}

// 32 codes, times a power of two, as bf16, which holds them exactly.
inline __m512i as_bf16(__m256i codes, __m512 factor) {
    const __m512i first = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes));
    const __m512i second = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1));
    const __m512i a = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(first), factor));
    const __m512i b = _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(second), factor));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16))),
                              _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)), 1);
}

// [pairs of blocks][32s of rows][2 blocks][2 groups of 16 rows][2 planes] registers.  Columns of eight lie as
// 0 4 1 5 2 6 3 7.
void mxfp4_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int quads = int(round_up(count, 2 * SIDE) / (2 * SIDE)), blocks = inputs / BLOCK;
    alignas(64) uint8_t order[64];
    for (int plane = 0; plane < 2; plane++)
        for (int i = 0; i < 32; i++) {
            const int column = i % 8 / 2 + i % 2 * 4;
            order[32 * plane + i] = uint8_t(i / 8 * 16 + 8 * plane + column % 2 * 4 + column / 2);
        }
    const __m512i permutation = _mm512_load_si512(order);
    for (int r = 0; r < round_up(count, SIDE); r++) {
        uint8_t* to = panel + r / (2 * SIDE) * 2 * QUAD + r / SIDE % 2 * 2 * REGISTER + r % SIDE * 64;
        for (int b = 0; b < round_up(blocks, 2); b++) {
            uint8_t* at = to + (int64_t(b / 2) * quads * 2 + b % 2) * QUAD;
            if (r >= count || b >= blocks) {
                std::memset(at, 0, 64), std::memset(at + REGISTER, 0, 64);
                continue;
            }
            const __m512i codes =
                _mm512_permutexvar_epi8(permutation, _mm512_loadu_si512(rows[r].codes + 64 * b));
            _mm512_store_si512(at, as_bf16(_mm512_castsi512_si256(codes), _mm512_set1_ps(256.0f)));
            _mm512_store_si512(at + REGISTER,
                               as_bf16(_mm512_extracti64x4_epi64(codes, 1), _mm512_set1_ps(1.0f)));
        }
    }
}

constexpr int DECODED = 2 * 2 * REGISTER;  // a pair of blocks of one tile as bf16: [2 blocks][2 halves]

// One pair of blocks of a tile, and its scales as [2 blocks][2 halves][16].
inline void mxfp4_decode(const uint8_t* p, int blocks, int64_t ahead, uint8_t* to, float* scales) {
    alignas(64) static const uint16_t VALUES[32] = {  // 2 * e2m1 in bf16; the fifth bit belongs to another code
        0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0, 0x4100, 0x4140, 0,      0xbf80, 0xc000,
        0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140, 0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40c0,
        0x4100, 0x4140, 0,      0xbf80, 0xc000, 0xc040, 0xc080, 0xc0c0, 0xc100, 0xc140};
    const __m512i table = _mm512_load_si512(VALUES);
    _mm_prefetch(p + ahead, _MM_HINT_T0);
    for (int b = 0; b < 2; b++) {
        if (b >= blocks) {  // a block of zeros changes no sum
            std::memset(to + 2 * b * REGISTER, 0, 2 * REGISTER), std::memset(scales + 32 * b, 0, 128);
            break;
        }
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

// A sixteenth of a step's sums: four rows of a register.  Both blocks' are scaled and added in their order.
template <int REG, int QUARTER>
inline void mxfp4_fold(const Waiting& w) {
    constexpr int ROWS = QUARTER * 64;
    const float *counts = w.counts + REG * 256 + ROWS, *scales = w.scales[REG / 2] + REG % 2 * 16;
    float* sums = w.sums[REG / 2] + REG % 2 * 256 + ROWS;
    const __m512 first = _mm512_load_ps(scales), second = _mm512_load_ps(scales + 32);
#pragma GCC unroll 4
    for (int r = 0; r < 64; r += 16) {
        __m512 sum = _mm512_load_ps(sums + r);
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_load_ps(counts + r), first));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_load_ps(counts + 4 * 256 + r), second));
        _mm512_store_ps(sums + r, sum);
    }
}

// One register of sums of one block, of both planes; meanwhile half a register of `waiting` is folded.  The register
// before it is stored: what it holds is complete by now, and its store holds up nothing.
#define PRODUCT(REG, WEIGHTS, HALF, LAST, TO)  \
    _tile_zero(REG);                           \
    _tile_dpbf16ps(REG, 4, WEIGHTS);           \
    fence();                                   \
    mxfp4_fold<REG, 2 * HALF>(waiting);        \
    fence();                                   \
    _tile_dpbf16ps(REG, 5, WEIGHTS);           \
    fence();                                   \
    mxfp4_fold<REG, 2 * HALF + 1>(waiting);    \
    _tile_stored(LAST, TO, 64)

// Two groups of 16 rows times one tile, for one block.
template <int HALF>
inline void mxfp4_square(const uint8_t* rows, const uint8_t* weights, float* counts, float* before,
                         const Waiting& waiting) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + REGISTER, 64);
    _tile_loadd(6, weights, 64);
    PRODUCT(0, 6, HALF, 3, before + 768);
    _tile_loadd(7, weights + REGISTER, 64);
    PRODUCT(1, 7, HALF, 0, counts);
    _tile_loadd(4, rows + 2 * REGISTER, 64);
    _tile_loadd(5, rows + 3 * REGISTER, 64);
    PRODUCT(2, 6, HALF, 1, counts + 256);
    PRODUCT(3, 7, HALF, 2, counts + 512);
}

// One group of rows times two tiles.
template <int HALF>
inline void mxfp4_line(const uint8_t* rows, const uint8_t* weights, const uint8_t* other_weights, float* counts,
                       float* before, const Waiting& waiting) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + REGISTER, 64);
    _tile_loadd(6, weights, 64);
    PRODUCT(0, 6, HALF, 3, before + 768);
    _tile_loadd(7, weights + REGISTER, 64);
    PRODUCT(1, 7, HALF, 0, counts);
    _tile_loadd(6, other_weights, 64);
    PRODUCT(2, 6, HALF, 1, counts + 256);
    _tile_loadd(7, other_weights + REGISTER, 64);
    PRODUCT(3, 7, HALF, 2, counts + 512);
}
#undef PRODUCT

template <int HALF>
inline void mxfp4_fold_half(const Waiting& w) {
    mxfp4_fold<0, 2 * HALF>(w), mxfp4_fold<1, 2 * HALF>(w), mxfp4_fold<2, 2 * HALF>(w), mxfp4_fold<3, 2 * HALF>(w);
    mxfp4_fold<0, 2 * HALF + 1>(w), mxfp4_fold<1, 2 * HALF + 1>(w), mxfp4_fold<2, 2 * HALF + 1>(w),
        mxfp4_fold<3, 2 * HALF + 1>(w);
}

void mxfp4(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(4096) float sums[PANEL_TILES][MXFP4_ROWS / SIDE][2][256];
    alignas(4096) float counts[2][8 * 256];
    alignas(4096) uint8_t weights[PANEL_TILES][DECODED];
    alignas(64) float nowhere[512] = {}, none[64] = {};
    alignas(64) float scales[2][PANEL_TILES][64];
    const int groups = int(round_up(count, SIDE) / SIDE), quads = (groups + 1) / 2, blocks = first.inputs / BLOCK;
    const int64_t stride = mxfp4_tile_bytes(first.inputs);
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    std::memset(counts, 0, sizeof counts);
    const Tiles configured;
    _tile_zero(3);
    Waiting waiting = {counts[1], {none, none}, {nowhere, nowhere}};
    float* before = counts[1] + 1024;  // where the last register of the block before belongs
    int turn = 0;
    for (int pair = 0; pair < (blocks + 1) / 2; pair++) {
        float(*scale)[64] = scales[pair % 2];
        for (int t = 0; t < tiles; t++)
            mxfp4_decode(first.weights + t * stride + pair * (64 + 1024), blocks - 2 * pair, first.ahead, weights[t],
                         scale[t]);
        fence();
        const uint8_t* codes = panel + int64_t(pair) * quads * 2 * QUAD;
        for (int g = 0; g < groups; g += 2, codes += 2 * QUAD) {
            const bool alone = g + 1 == groups;
            if (alone && tiles == 2) {
                float* to = counts[turn];
                mxfp4_line<0>(codes, weights[0], weights[1], to, before, waiting);
                mxfp4_line<1>(codes + QUAD, weights[0] + DECODED / 2, weights[1] + DECODED / 2, to + 1024, to, waiting);
                waiting = {to, {scale[0], scale[1]}, {sums[0][g][0], sums[1][g][0]}};
                before = to + 1024;
                turn ^= 1;
                continue;
            }
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                float* to = counts[turn];
                mxfp4_square<0>(codes, weights[t], to, before, waiting);
                mxfp4_square<1>(codes + QUAD, weights[t] + DECODED / 2, to + 1024, to, waiting);
                waiting = {to, {scale[t], scale[t]}, {sums[t][g][0], alone ? nowhere : sums[t][g + 1][0]}};
                before = to + 1024;
            }
        }
    }
    _tile_stored(3, before + 768, 64);
    mxfp4_fold_half<0>(waiting);
    mxfp4_fold_half<1>(waiting);
    emit_all(first, tiles, rows, count, sums, [](const Row& row) { return row.scale * 0.5f; });
}

}  // namespace

const PanelKernel AMX_MXFP4 = {mxfp4_bytes, mxfp4_gather, mxfp4, MXFP4_ROWS, 9};

END_AMX

#endif
