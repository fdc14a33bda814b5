// Sixteen floats on AVX-512. CSL_DPBF16 says whether the machine multiplies bf16 pairs itself.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace csl {
namespace CSL_NS {

using F = __m512;   // 16 floats
using I = __m512i;  // 16 int32
using W = __m512i;  // 64 bytes of weights
constexpr int MAX_TILE = 12;  // tokens that meet a block of weights at once: accumulators fill the registers

static inline F zero() { return _mm512_setzero_ps(); }
static inline F set1(float x) { return _mm512_set1_ps(x); }
static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F abs(F a) { return _mm512_abs_ps(a); }
static inline F round(F a) { return _mm512_roundscale_ps(a, 8); }
static inline F scale2(F a, F n) { return _mm512_scalef_ps(a, n); }  // a * 2^n
static inline float sum(F a) { return _mm512_reduce_add_ps(a); }
static inline float top(F a) { return _mm512_reduce_max_ps(a); }

static inline F load_fp16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
static inline F load_bf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline void store_bf16(uint16_t* p, F x) {  // to nearest, ties to even
  __m512i v = _mm512_castps_si512(x);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
  v = _mm512_add_epi32(v, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
}

static inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
static inline I to_int(F a) { return _mm512_cvtps_epi32(a); }  // to nearest, ties to even
static inline I iadd(I a, I b) { return _mm512_add_epi32(a, b); }
static inline int32_t isum(I a) { return _mm512_reduce_add_epi32(a); }
static inline void store_int8(int8_t* p, I a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a)); }

static inline W load_weights(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline W low_nibbles(W w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
static inline W high_nibbles(W w) { return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15)); }
static inline __m512i four(const void* p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}
// `z`: minus the weights' zero point times the sum of the group's activations.
static inline I start4(int32_t z) { return _mm512_set1_epi32(z); }
static inline I start8(int32_t z) { return _mm512_set1_epi32(z); }
static inline I dot4(I acc, W w, const int8_t* x) { return _mm512_dpbusd_epi32(acc, w, four(x)); }
using W8 = W;
static inline W8 prepare8(W w) { return w; }
static inline I dot8(I acc, W8 w, const int8_t* x) { return _mm512_dpbusd_epi32(acc, w, four(x)); }

#if CSL_DPBF16
static inline F dot_bf16(F acc, W w, const uint16_t* x) { return _mm512_dpbf16_ps(acc, (__m512bh)w, (__m512bh)four(x)); }
#else
static inline F dot_bf16(F acc, W w, const uint16_t* x) {
  __m512i pair = four(x), high = _mm512_set1_epi32(0xffff0000);
  acc = fma(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), acc);
  return fma(_mm512_castsi512_ps(_mm512_and_si512(w, high)), _mm512_castsi512_ps(_mm512_and_si512(pair, high)), acc);
}
#endif

static inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

}  // namespace CSL_NS
}  // namespace csl
