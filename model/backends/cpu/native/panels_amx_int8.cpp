// AMX: int8 weights times rows of 16-bit codes.
//
// A group has 64 columns, as a tile of bytes; its sums need int32, one for each plane.
#include "tiles_amx.h"

#if defined(HAVE_AMX)

namespace {

constexpr int INT8_ROWS = 256;
constexpr int PAIR = 2 * 2 * REGISTER;  // 16 rows of two groups of columns, both planes

// [pairs of groups of 64 columns][groups of 16 rows][2 groups][2 planes] registers.
int64_t int8_bytes(int inputs, int rows) {
    return round_up(inputs, 2 * GROUP) / (2 * GROUP) * (round_up(rows, SIDE) / SIDE) * PAIR;
}

void int8_gather(const Row* rows, int count, int inputs, uint8_t* panel) {
    const int groups = int(round_up(count, SIDE) / SIDE);
    const __m512i high = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const __m512i low = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    for (int r = 0; r < groups * SIDE; r++) {
        uint8_t* at = panel + r / SIDE * PAIR + r % SIDE * 64;
        for (int k = 0; k < round_up(inputs, 2 * GROUP); k += GROUP) {
            __m512i a = _mm512_setzero_si512(), b = a;
            if (r < count && k < inputs) a = _mm512_loadu_si512(rows[r].codes + 2 * k);
            if (r < count && k + BLOCK < inputs) b = _mm512_loadu_si512(rows[r].codes + 2 * k + 64);
            _mm512_store_si512(at, _mm512_permutex2var_epi64(a, high, b));
            _mm512_store_si512(at + REGISTER, _mm512_permutex2var_epi64(a, low, b));
            at += k / GROUP % 2 ? int64_t(groups) * PAIR - PAIR / 2 : PAIR / 2;
        }
    }
}

// One group of a tile as signed bytes, [2 halves] registers, and its scales.
inline void int8_decode(const uint8_t* p, int columns, int64_t ahead, uint8_t* to, float* scales) {
    if (columns <= 0) {  // a group of zeros changes no sum
        std::memset(scales, 0, 128);
        return;
    }
    store(scales, group_scales(p));
    _mm_prefetch(p + ahead, _MM_HINT_T0);
    const __m512i offset = _mm512_set1_epi8(char(128));
    p += 64;
    for (int j = 0; j < GROUP / 4; j++)  // of 4 columns
        for (int half = 0; half < 2; half++) {
            _mm_prefetch(p + 128 * j + 64 * half + ahead, _MM_HINT_T0);
            const __m512i codes = 4 * j < columns ? _mm512_loadu_si512(p + 128 * j + 64 * half) : offset;
            _mm512_store_si512(to + half * REGISTER + 64 * j, _mm512_xor_si512(codes, offset));
        }
}

// Both planes' sums are exact, so their sum is rounded once, as that of whole numbers is.
inline __m512 total(const int32_t* high, const int32_t* low) {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(high)), _mm512_set1_ps(256.0f),
                           _mm512_cvtepi32_ps(_mm512_load_si512(low)));
}

// An eighth of a step's sums: four rows of a half, both groups.  A group's registers are [2 planes][2 halves].
template <int PART>
inline void int8_fold(const Waiting& w) {
    constexpr int HALF = PART / 4, ROW = PART % 4 * 64;
    const int32_t* counts = reinterpret_cast<const int32_t*>(w.counts) + HALF * 256 + ROW;
    float* sums = w.sums[0] + HALF * 256 + ROW;
    const __m512 first = _mm512_load_ps(w.scales[0] + HALF * 16), second = _mm512_load_ps(w.scales[1] + HALF * 16);
#pragma GCC unroll 4
    for (int r = 0; r < 64; r += 16) {
        __m512 sum = _mm512_load_ps(sums + r);
        sum = _mm512_add_ps(sum, _mm512_mul_ps(total(counts + r, counts + 512 + r), first));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(total(counts + 1024 + r, counts + 1536 + r), second));
        _mm512_store_ps(sums + r, sum);
    }
}

// 16 rows times a tile, for one group of columns; meanwhile a half of `waiting` is folded.
template <int PART>
inline void int8_square(const uint8_t* rows, const uint8_t* weights, float* counts, const Waiting& waiting) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, rows, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_dpbssd(0, 4, 6);
    int8_fold<PART + 0>(waiting);
    _tile_loadd(5, rows + REGISTER, 64);
    _tile_dpbssd(2, 5, 6);
    int8_fold<PART + 1>(waiting);
    _tile_loadd(7, weights + REGISTER, 64);
    _tile_dpbssd(1, 4, 7);
    int8_fold<PART + 2>(waiting);
    _tile_dpbssd(3, 5, 7);
    int8_fold<PART + 3>(waiting);
    _tile_stored(0, counts, 64);
    _tile_stored(2, counts + 512, 64);
    _tile_stored(1, counts + 256, 64);
    _tile_stored(3, counts + 768, 64);
}

template <int... PARTS>
inline void int8_fold_all(const Waiting& waiting, std::integer_sequence<int, PARTS...>) {
    (int8_fold<PARTS>(waiting), ...);
}

void int8(const Tile& first, int tiles, const uint8_t* panel, const Row* rows, int count) {
    alignas(64) float sums[PANEL_TILES][INT8_ROWS / SIDE][2][256];
    alignas(64) float nowhere[512] = {}, none[32] = {};
    alignas(64) float counts[2][8 * 256];
    alignas(64) float scales[2][PANEL_TILES][2][32];
    alignas(64) uint8_t weights[PANEL_TILES][2][2 * REGISTER] = {};
    const int groups = int(round_up(count, SIDE) / SIDE);
    const int64_t stride = int8_tile_bytes(first.inputs);
    for (int t = 0; t < tiles; t++) std::memset(sums[t], 0, sizeof(float) * 512 * groups);
    std::memset(counts, 0, sizeof counts);
    const Tiles configured;
    Waiting waiting = {counts[1], {none, none}, {nowhere, nowhere}};
    int turn = 0;
    for (int k = 0; k < first.inputs; k += 2 * GROUP) {
        float(*scale)[2][32] = scales[k / GROUP / 2 % 2];
        for (int t = 0; t < tiles; t++)
            for (int i = 0; i < 2; i++)
                int8_decode(first.weights + t * stride + (k / GROUP + i) * (64 + TILE * GROUP),
                            first.inputs - k - i * GROUP, first.ahead, weights[t][i], scale[t][i]);
        fence();
        const uint8_t* codes = panel + int64_t(k / GROUP / 2) * groups * PAIR;
        for (int g = 0; g < groups; g++, codes += PAIR)
            for (int t = 0; t < tiles; t++, turn ^= 1) {
                float* to = counts[turn];
                int8_square<0>(codes, weights[t][0], to, waiting);
                int8_square<4>(codes + PAIR / 2, weights[t][1], to + 4 * 256, waiting);
                waiting = {to, {scale[t][0], scale[t][1]}, {sums[t][g][0], nullptr}};
            }
    }
    int8_fold_all(waiting, std::make_integer_sequence<int, 8>());
    emit_all(first, tiles, rows, count, sums, [](const Row& row) { return row.scale; });
}

}  // namespace

const PanelKernel AMX_INT8 = {int8_bytes, int8_gather, int8, INT8_ROWS, 9};

END_AMX

#endif
