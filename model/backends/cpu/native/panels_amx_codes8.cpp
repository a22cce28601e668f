// AMX: weights of both formats times rows of 8-bit codes.
//
// A block has 32 columns, so rows of codes fill half a register and weights half of one.  Each block's sums have two
// scales, the row's and the weights'.
#include "tiles_amx.h"

#if defined(HAVE_AMX)

namespace {

constexpr int HALF_REGISTER = REGISTER / 2;
constexpr int COARSE_ROWS = 256;

// [pairs of blocks][groups of 16 rows][16 rows][2 blocks] codes, and behind all of them as many scales
// [pairs of blocks][groups][2 blocks][16 rows]
int64_t coarse_codes_bytes(int inputs, int rows) {
    return round_up(inputs, 2 * BLOCK) * round_up(rows, 2 * SIDE);
}
int64_t coarse_bytes(int inputs, int rows) {
    return coarse_codes_bytes(inputs, rows) + coarse_codes_bytes(inputs, rows) / BLOCK * 4;
}

void coarse_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int groups = int(round_up(count, 2 * SIDE) / SIDE), blocks = inputs / BLOCK;
    std::memset(panel, 0, coarse_bytes(inputs, count));
    float* scales = reinterpret_cast<float*>(panel + coarse_codes_bytes(inputs, count));
    for (int r = 0; r < count; r++)
        for (int b = 0; b < blocks; b++) {
            const int64_t group = int64_t(b / 2) * groups + r / SIDE;
            std::memcpy(panel + group * REGISTER + r % SIDE * 64 + b % 2 * BLOCK, rows[r].codes + b * BLOCK, BLOCK);
            scales[group * 32 + b % 2 * SIDE + r % SIDE] = rows[r].blocks[b];
        }
}

// A pair of blocks of one tile as signed bytes, [2 blocks][2 halves] half registers, and its scales
// [2 blocks][2 halves][16].
struct Mxfp4Weights {
    static int64_t tile(int inputs) { return mxfp4_tile_bytes(inputs); }
    static constexpr float FACTOR = 0.5f;
    static void decode(const uint8_t* tile, int pair, int blocks, int64_t ahead, uint8_t* to, float* scales) {
        const __m512i table =  // 2 * e2m1
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
        const uint8_t* p = tile + pair * 1088;
        _mm_prefetch(p + ahead, _MM_HINT_T0);
        for (int b = 0; b < blocks; b++)
            for (int half = 0; half < 2; half++) {
                _mm512_store_ps(scales + 32 * b + 16 * half, e8m0(p + 32 * b + 16 * half));
                const uint8_t* codes = p + 64 + 512 * b + 64 * half;
                uint8_t* line = to + (2 * b + half) * HALF_REGISTER;
                for (int g = 0; g < 4; g++, line += 128) {
                    _mm_prefetch(codes + 128 * g + ahead, _MM_HINT_T0);
                    const __m512i packed = _mm512_loadu_si512(codes + 128 * g);
                    _mm512_store_si512(line, _mm512_permutexvar_epi8(packed, table));
                    _mm512_store_si512(line + 64, _mm512_permutexvar_epi8(_mm512_srli_epi16(packed, 4), table));
                }
            }
    }
};

struct Int8Weights {
    static int64_t tile(int inputs) { return int8_tile_bytes(inputs); }
    static constexpr float FACTOR = 1.0f;
    static void decode(const uint8_t* tile, int pair, int blocks, int64_t ahead, uint8_t* to, float* scales) {
        const __m512i offset = _mm512_set1_epi8(char(128));
        const uint8_t* p = tile + pair * (64 + GROUP * TILE);
        _mm_prefetch(p + ahead, _MM_HINT_T0);
        for (int b = 0; b < blocks; b++) {
            store(scales + 32 * b, group_scales(p));
            for (int j = 0; j < BLOCK / 4; j++)  // of 4 columns
                for (int half = 0; half < 2; half++) {
                    const uint8_t* codes = p + 64 + b * BLOCK * TILE + 128 * j + 64 * half;
                    _mm_prefetch(codes + ahead, _MM_HINT_T0);
                    _mm512_store_si512(to + (2 * b + half) * HALF_REGISTER + 64 * j,
                                       _mm512_xor_si512(_mm512_loadu_si512(codes), offset));
                }
        }
    }
};

struct CoarseWaiting {
    const int32_t* counts;  // [2 blocks][2 groups of rows][2 halves][16 rows][16]
    const float* scales;    // of the weights, [2 blocks][2 halves][16]
    const float* blocks;    // of the rows, [2 groups][2 blocks][16]
    float* sums;            // [2 groups][2 halves][16 rows][16]
};

// A quarter of a register's sums of both blocks.
template <int REG, int QUARTER>
inline void coarse_fold(const CoarseWaiting& w) {
    constexpr int GROUP_OF_ROWS = REG / 2, HALF = REG % 2, ROW = QUARTER * 4, AT = REG * 256 + ROW * 16;
    const __m512 first = _mm512_load_ps(w.scales + HALF * 16), second = _mm512_load_ps(w.scales + 32 + HALF * 16);
    const float* blocks = w.blocks + GROUP_OF_ROWS * 32 + ROW;
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        const __m512 a = _mm512_cvtepi32_ps(_mm512_load_si512(w.counts + AT + 16 * r));
        const __m512 b = _mm512_cvtepi32_ps(_mm512_load_si512(w.counts + 1024 + AT + 16 * r));
        __m512 sum = _mm512_load_ps(w.sums + AT + 16 * r);
        sum = _mm512_fmadd_ps(_mm512_mul_ps(a, _mm512_set1_ps(blocks[r])), first, sum);
        sum = _mm512_fmadd_ps(_mm512_mul_ps(b, _mm512_set1_ps(blocks[16 + r])), second, sum);
        _mm512_store_ps(w.sums + AT + 16 * r, sum);
    }
}

#define COARSE_PRODUCT(REG, ROWS, WEIGHTS, HALF, LAST, TO) \
    _tile_zero(REG);                                       \
    _tile_dpbssd(REG, ROWS, WEIGHTS);                      \
    fence();                                               \
    coarse_fold<REG, 2 * HALF>(waiting);                   \
    coarse_fold<REG, 2 * HALF + 1>(waiting);               \
    _tile_stored(LAST, TO, 64)

// Two groups of 16 rows times one tile, for one block.
template <int HALF>
inline void coarse_square(const uint8_t* rows, const uint8_t* weights, int32_t* counts, int32_t* before,
                          const CoarseWaiting& waiting) {
    _tile_loadd(4, rows, 64);
    _tile_loadd(6, weights, 64);
    COARSE_PRODUCT(0, 4, 6, HALF, 3, before + 768);
    _tile_loadd(7, weights + HALF_REGISTER, 64);
    COARSE_PRODUCT(1, 4, 7, HALF, 0, counts);
    _tile_loadd(5, rows + REGISTER, 64);
    COARSE_PRODUCT(2, 5, 6, HALF, 1, counts + 256);
    COARSE_PRODUCT(3, 5, 7, HALF, 2, counts + 512);
}
#undef COARSE_PRODUCT

template <int HALF>
inline void coarse_fold_half(const CoarseWaiting& w) {
    coarse_fold<0, 2 * HALF>(w), coarse_fold<1, 2 * HALF>(w), coarse_fold<2, 2 * HALF>(w), coarse_fold<3, 2 * HALF>(w);
    coarse_fold<0, 2 * HALF + 1>(w), coarse_fold<1, 2 * HALF + 1>(w), coarse_fold<2, 2 * HALF + 1>(w),
        coarse_fold<3, 2 * HALF + 1>(w);
}

template <typename Weights>
void coarse(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(4096) float sums[PANEL_TILES][COARSE_ROWS / SIDE][2][256];
    alignas(4096) int32_t counts[2][8 * 256];
    alignas(4096) uint8_t weights[PANEL_TILES][4 * HALF_REGISTER] = {};
    alignas(64) float nowhere[1024] = {}, none[64] = {};
    alignas(64) float scales[2][PANEL_TILES][64] = {};
    const int groups = int(round_up(count, 2 * SIDE) / SIDE), blocks = first.inputs / BLOCK;
    const int64_t stride = Weights::tile(first.inputs);
    const float* row_scales = reinterpret_cast<const float*>(panel + coarse_codes_bytes(first.inputs, count));
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    std::memset(counts, 0, sizeof counts);
    const Tiles configured(BLOCK);
    _tile_zero(3);
    CoarseWaiting waiting = {counts[1], none, none, nowhere};
    int32_t* before = counts[1] + 1024;  // where the last register of the block before belongs
    int turn = 0;
    for (int pair = 0; pair < (blocks + 1) / 2; pair++) {
        for (int t = 0; t < tiles; t++) {
            if (blocks - 2 * pair < 2) std::memset(scales[pair % 2][t], 0, sizeof scales[0][0]);
            Weights::decode(first.weights + t * stride, pair, std::min(2, blocks - 2 * pair), first.ahead, weights[t],
                            scales[pair % 2][t]);
        }
        fence();
        const int64_t at = int64_t(pair) * groups;
        for (int g = 0; g < groups; g += 2)
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                const uint8_t* codes = panel + (at + g) * REGISTER;
                int32_t* to = counts[turn];
                coarse_square<0>(codes, weights[t], to, before, waiting);
                coarse_square<1>(codes + BLOCK, weights[t] + REGISTER, to + 1024, to, waiting);
                waiting = {to, scales[pair % 2][t], row_scales + (at + g) * 32, sums[t][g][0]};
                before = to + 1024;
            }
    }
    _tile_stored(3, before + 768, 64);
    coarse_fold_half<0>(waiting);
    coarse_fold_half<1>(waiting);
    emit_all(first, tiles, rows, count, sums, [](const Row&) { return Weights::FACTOR; });
}

}  // namespace

const PanelKernel AMX_MXFP4_CODES8 = {coarse_bytes, coarse_gather, coarse<Mxfp4Weights>, COARSE_ROWS, 9};
const PanelKernel AMX_INT8_CODES8 = {coarse_bytes, coarse_gather, coarse<Int8Weights>, COARSE_ROWS, 9};

END_AMX

#endif
