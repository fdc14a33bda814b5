// Sixteen floats as two AVX2 registers (FMA and F16C come with it). CSL_AVXVNNI: the machine has the 256-bit dot product of bytes.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace csl {
namespace CSL_NS {

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};
using W = I;
constexpr int MAX_TILE = 4;

static inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
static inline F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
static inline F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
static inline F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
static inline F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
static inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
static inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
static inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
static inline F abs(F x) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
static inline F round(F x) { return {_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
static inline __m256 power2(__m256 n) {  // 2^n for whole n in the exponent's range
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
static inline F scale2(F x, F n) { return {_mm256_mul_ps(x.a, power2(n.a)), _mm256_mul_ps(x.b, power2(n.b))}; }
static inline float sum(F x) {
  __m256 s = _mm256_add_ps(x.a, x.b);
  __m128 h = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps(h, h, 1)));
}
static inline float top(F x) {
  __m256 s = _mm256_max_ps(x.a, x.b);
  __m128 h = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  h = _mm_max_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_shuffle_ps(h, h, 1)));
}

static inline F load_fp16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
static inline __m256 widen_bf16(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
static inline F load_bf16(const uint16_t* p) {
  return {widen_bf16(_mm_loadu_si128((const __m128i*)p)), widen_bf16(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
static inline __m256i rounded_bf16(__m256 x) {
  __m256i v = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(v, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(v, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
}
static inline void store_bf16(uint16_t* p, F x) {
  __m256i v = _mm256_packus_epi32(rounded_bf16(x.a), rounded_bf16(x.b));
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(v, 0xd8));
}

static inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
static inline I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
static inline I iadd(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
static inline int32_t isum(I x) {
  __m256i s = _mm256_add_epi32(x.a, x.b);
  __m128i h = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
}
static inline void store_int8(int8_t* p, I x) {
  __m256i v = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

static inline W load_weights(const uint8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
static inline __m256i low(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
static inline W low_nibbles(W w) { return {low(w.a), low(w.b)}; }
static inline W high_nibbles(W w) { return {low(_mm256_srli_epi16(w.a, 4)), low(_mm256_srli_epi16(w.b, 4))}; }
static inline __m256i four(const void* p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}
static inline I same(int32_t z) { return {_mm256_set1_epi32(z), _mm256_set1_epi32(z)}; }
static inline I start4(int32_t z) { return same(z); }

#if CSL_AVXVNNI
static inline __m256i dot(__m256i acc, __m256i w, __m256i x) { return _mm256_dpbusd_avx_epi32(acc, w, x); }
static inline I start8(int32_t z) { return same(z); }
using W8 = W;
static inline W8 prepare8(W w) { return w; }
static inline I dot8(I acc, W8 w, const int8_t* x) {
  __m256i v = four(x);
  return {dot(acc.a, w.a, v), dot(acc.b, w.b, v)};
}
#else
// maddubs saturates at 16 bits: two products of a nibble and an int8 fit, as do two of |weight| <= 128 and an int8 >= -127; two of an
// unsigned byte and an int8 would not. So int8 weights become magnitudes, and their signs go to the activations.
static inline __m256i dot(__m256i acc, __m256i w, __m256i x) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
static inline I start8(int32_t) { return same(0); }
struct W8 {
  W magnitude, value;
};
static inline W8 prepare8(W w) {
  __m256i flip = _mm256_set1_epi8((char)0x80);
  W v = {_mm256_xor_si256(w.a, flip), _mm256_xor_si256(w.b, flip)};
  return {{_mm256_abs_epi8(v.a), _mm256_abs_epi8(v.b)}, v};
}
static inline I dot8(I acc, W8 w, const int8_t* x) {
  __m256i v = four(x);
  return {dot(acc.a, w.magnitude.a, _mm256_sign_epi8(v, w.value.a)), dot(acc.b, w.magnitude.b, _mm256_sign_epi8(v, w.value.b))};
}
#endif
static inline I dot4(I acc, W w, const int8_t* x) {
  __m256i v = four(x);
  return {dot(acc.a, w.a, v), dot(acc.b, w.b, v)};
}

static inline __m256 even(__m256i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
static inline __m256 odd(__m256i v) { return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(0xffff0000))); }
static inline F dot_bf16(F acc, W w, const uint16_t* x) {
  __m256i pair = four(x);
  __m256 first = even(pair), second = odd(pair);
  acc = {_mm256_fmadd_ps(even(w.a), first, acc.a), _mm256_fmadd_ps(even(w.b), first, acc.b)};
  return {_mm256_fmadd_ps(odd(w.a), second, acc.a), _mm256_fmadd_ps(odd(w.b), second, acc.b)};
}

static inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

}  // namespace CSL_NS
}  // namespace csl
