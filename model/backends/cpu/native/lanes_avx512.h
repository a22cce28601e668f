// `Lanes` as two registers of AVX-512, and the scales of weights in this form.  Included by the files that are
// compiled for AVX-512, after they have selected it.

#include <cstdint>
#include <immintrin.h>

namespace {

struct Lanes {
    __m512 low, high;
};

inline Lanes zero() { return {_mm512_setzero_ps(), _mm512_setzero_ps()}; }
inline Lanes splat(float x) { return {_mm512_set1_ps(x), _mm512_set1_ps(x)}; }
inline Lanes load_pair(const float* p, const float* q) { return {_mm512_loadu_ps(p), _mm512_loadu_ps(q)}; }
inline Lanes load(const float* p) { return load_pair(p, p + 16); }
inline void store(float* p, Lanes x) { _mm512_storeu_ps(p, x.low), _mm512_storeu_ps(p + 16, x.high); }
inline Lanes add(Lanes a, Lanes b) { return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)}; }
inline Lanes sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.low, b.low), _mm512_sub_ps(a.high, b.high)}; }
inline Lanes mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.low, b.low), _mm512_mul_ps(a.high, b.high)}; }
inline Lanes div(Lanes a, Lanes b) { return {_mm512_div_ps(a.low, b.low), _mm512_div_ps(a.high, b.high)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.low, b.low), _mm512_max_ps(a.high, b.high)}; }
inline Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.low, b.low), _mm512_min_ps(a.high, b.high)}; }
inline Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm512_fmadd_ps(a.low, b.low, c.low), _mm512_fmadd_ps(a.high, b.high, c.high)};
}
inline Lanes select_less(Lanes a, Lanes b, Lanes x, Lanes y) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.low, b.low, _CMP_LT_OQ), y.low, x.low),
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.high, b.high, _CMP_LT_OQ), y.high, x.high)};
}
inline __m512 power_of_two(__m512 n) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
inline Lanes power_of_two(Lanes n) { return {power_of_two(n.low), power_of_two(n.high)}; }
inline Lanes from_bf16(const uint16_t* woven) {
    __m512i words = _mm512_loadu_si512(woven);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(int(0xffff0000))))};
}

constexpr int HEADS = 8;        // query heads at a time: 16 accumulators of 32 registers
constexpr int BF16_ROWS = 4;    // bf16 rows at a time

// -- scales of 16 and of 32 rows

inline __m512 e8m0(const uint8_t* p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)), 23));
}

inline __m512 widened(__m256i words) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

inline Lanes group_scales(const uint8_t* p) {
    const __m512i words = _mm512_loadu_si512(p);
    return {widened(_mm512_castsi512_si256(words)), widened(_mm512_extracti64x4_epi64(words, 1))};
}

}  // namespace
