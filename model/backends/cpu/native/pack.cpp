// Converts weights of a checkpoint to the layout of layout.h.
#include "abi.h"
#include "bf16.h"
#include "layout.h"
#include "machine.h"

#include <cstring>

namespace {

// Which row of the matrix is row r of a tile; with `paired`, 16 even rows come before their 16 odd ones.
int64_t source_row(int64_t tile, int r, bool paired) {
    if (!paired) return tile * TILE + r;
    return tile * TILE + woven(r);
}

void pack_mxfp4_tile(const uint8_t* blocks, const uint8_t* scales, int64_t tile, int64_t outputs,
                     int64_t inputs, bool paired, uint8_t* out) {
    const int64_t count = inputs / BLOCK;
    std::memset(out, 0, mxfp4_tile_bytes(inputs));
    for (int64_t b = 0; b < count; b++) {
        uint8_t* pair = out + b / 2 * (64 + 1024);
        uint8_t *to_scales = pair + b % 2 * 32, *to_codes = pair + 64 + b % 2 * 512;
        for (int r = 0; r < TILE; r++) {
            const int64_t row = source_row(tile, r, paired);
            if (row >= outputs) continue;
            to_scales[r] = scales[row * count + b];
            for (int g = 0; g < 4; g++)
                std::memcpy(to_codes + 128 * g + 4 * r, blocks + (row * count + b) * 16 + 4 * g, 4);
        }
    }
}

void pack_bf16_tile(const uint16_t* weights, int64_t tile, int64_t outputs, int64_t inputs, uint8_t* out) {
    uint16_t* to = reinterpret_cast<uint16_t*>(out);
    for (int r = 0; r < TILE; r++) {
        const int64_t row = tile * TILE + r;
        uint16_t* column = to + woven(r);
        for (int64_t k = 0; k < inputs; k++) column[32 * k] = row < outputs ? weights[row * inputs + k] : 0;
    }
}

// Symmetric: the scale is the largest magnitude of the group over 127, rounded to bf16.  If a weight is not
// finite the scale is not either, and so are all products with it.
//
// Calls `put` with the group's codes, 64 of them, for each row of each group, and writes the scales times
// `factor`, a power of two.
template <typename Put>
void pack_groups(const uint16_t* weights, int64_t tile, int64_t outputs, int64_t inputs, float factor,
                 int column_bytes, uint8_t* out, const Put& put) {
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits
    uint8_t* p = out;
    for (int64_t k = 0; k < inputs; k += GROUP) {
        const int columns = inputs - k < GROUP ? BLOCK : GROUP;
        uint8_t* to = p + 64;
        for (int r = 0; r < TILE; r++) {
            const int64_t row = tile * TILE + r;
            float group[GROUP] = {};
            int32_t codes[GROUP];
            uint16_t largest = 0;  // compared as integers, above all numbers a NaN
            if (row < outputs)
                for (int j = 0; j < columns; j++) {
                    const uint16_t weight = weights[row * inputs + k + j], magnitude = weight & 0x7fff;
                    group[j] = widen(weight);
                    largest = magnitude > largest ? magnitude : largest;
                }
            const uint16_t scale = to_bf16(widen(largest) / 127.0f);
            const uint16_t written = to_bf16(widen(scale) * factor);
            std::memcpy(p + 2 * r, &written, 2);
            const float inverse = scale ? 1.0f / widen(scale) : 0.0f;
            for (int j = 0; j < GROUP; j++) {
                const float code = (group[j] * inverse + ROUND) - ROUND;
                codes[j] = int32_t(code > 127.0f ? 127.0f : code >= -127.0f ? code : -127.0f) + 128;
            }
            for (int j = 0; j < columns; j += 8) put(codes + j, to + j * column_bytes + 4 * r);
        }
        p = to + columns * column_bytes;
    }
}

void pack_int8_tile(const uint16_t* weights, int64_t tile, int64_t outputs, int64_t inputs, uint8_t* out) {
    pack_groups(weights, tile, outputs, inputs, 1.0f, TILE, out, [](const int32_t* c, uint8_t* to) {
        const uint8_t bytes[8] = {uint8_t(c[0]), uint8_t(c[2]), uint8_t(c[4]), uint8_t(c[6]),
                                  uint8_t(c[1]), uint8_t(c[3]), uint8_t(c[5]), uint8_t(c[7])};
        std::memcpy(to, bytes, 4);
        std::memcpy(to + 128, bytes + 4, 4);
    });
}

void pack_half_tile(const uint16_t* weights, int64_t tile, int64_t outputs, int64_t inputs, bool high,
                    uint8_t* out) {
    const int shift = high ? 4 : 0;
    const float factor = high ? 8.0f : 0.5f;
    pack_groups(weights, tile, outputs, inputs, factor, TILE / 2, out, [&](const int32_t* c, uint8_t* to) {
        for (int i = 0; i < 4; i++) to[i] = uint8_t((c[2 * i] >> shift & 15) | (c[2 * i + 1] >> shift & 15) << 4);
    });
}

}  // namespace

extern "C" {

int64_t gptoss_packed_bytes(int format, int64_t outputs, int64_t inputs) {
    return round_up(outputs, TILE) / TILE * tile_bytes(format, inputs);
}

void gptoss_pack_mxfp4(Machine* machine, const uint8_t* blocks, const uint8_t* scales, int64_t matrices,
                       int64_t outputs, int64_t inputs, int paired, uint8_t* out) {
    const int64_t tiles = round_up(outputs, TILE) / TILE, columns = inputs / BLOCK;
    machine->pool.wake();
    machine->pool.each(matrices * tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
            const int64_t matrix = i / tiles;
            pack_mxfp4_tile(blocks + matrix * outputs * columns * 16, scales + matrix * outputs * columns,
                            i % tiles, outputs, inputs, paired, out + i * mxfp4_tile_bytes(inputs));
        }
    });
    machine->pool.rest();
}

void gptoss_pack_dense(Machine* machine, int format, const uint16_t* weights, int64_t outputs, int64_t inputs,
                       uint8_t* out) {
    machine->pool.wake();
    machine->pool.each(round_up(outputs, TILE) / TILE, 1, [&](int64_t begin, int64_t end) {
        for (int64_t tile = begin; tile < end; tile++) {
            uint8_t* to = out + tile * tile_bytes(format, inputs);
            if (format == INT8)
                pack_int8_tile(weights, tile, outputs, inputs, to);
            else if (format == BF16)
                pack_bf16_tile(weights, tile, outputs, inputs, to);
            else
                pack_half_tile(weights, tile, outputs, inputs, format == HIGH, to);
        }
    });
    machine->pool.rest();
}

}  // extern "C"
