// bfloat16: the upper half of a float32.
#pragma once

#include <cstdint>
#include <cstring>

inline float widen(uint16_t bf16) {
    const uint32_t bits = uint32_t(bf16) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline uint16_t to_bf16(float x) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 64);  // still not a number
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Where element i of 32 lies in woven memory: 0 .. 15 in the low halves of 16 words, 16 .. 31 in the high
// ones.
inline int woven(int i) { return i < 16 ? 2 * i : 2 * (i - 16) + 1; }
