// Sixteen floats in plain C++, for machines that none of the others fits; the compiler turns the loops into what there is.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace csl {
namespace CSL_NS {

struct F {
  float v[16];
};
struct I {
  int32_t v[16];
};
struct W {
  uint8_t v[64];
};
struct W8 {
  int8_t v[64];
};
constexpr int MAX_TILE = 4;

#define CSL_EACH(i) for (int i = 0; i < 16; i++)
#define CSL_BINARY(name, expression)                                      \
  static inline F name(F x, F y) {                                        \
    F r;                                                                  \
    CSL_EACH(i) {                                                         \
      float a = x.v[i], b = y.v[i];                                       \
      r.v[i] = expression;                                                \
    }                                                                     \
    return r;                                                             \
  }
CSL_BINARY(add, a + b)
CSL_BINARY(sub, a - b)
CSL_BINARY(mul, a* b)
CSL_BINARY(div, a / b)
CSL_BINARY(max, a > b ? a : b)
CSL_BINARY(min, a < b ? a : b)
static inline F set1(float x) {
  F r;
  CSL_EACH(i) r.v[i] = x;
  return r;
}
static inline F zero() { return set1(0.0f); }
static inline F load(const float* p) {
  F r;
  memcpy(r.v, p, 64);
  return r;
}
static inline void store(float* p, F x) { memcpy(p, x.v, 64); }
static inline F fma(F x, F y, F z) {
  CSL_EACH(i) z.v[i] = x.v[i] * y.v[i] + z.v[i];
  return z;
}
static inline F abs(F x) {
  CSL_EACH(i) x.v[i] = std::fabs(x.v[i]);
  return x;
}
static inline F round(F x) {
  CSL_EACH(i) x.v[i] = std::nearbyint(x.v[i]);
  return x;
}
static inline float bits_to_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
static inline uint32_t float_to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
static inline F scale2(F x, F n) {
  CSL_EACH(i) x.v[i] *= bits_to_float((uint32_t)((int32_t)n.v[i] + 127) << 23);
  return x;
}
static inline float sum(F x) {
  for (int step = 8; step; step /= 2)
    for (int i = 0; i < step; i++) x.v[i] += x.v[i + step];
  return x.v[0];
}
static inline float top(F x) {
  float best = x.v[0];
  CSL_EACH(i) best = x.v[i] > best ? x.v[i] : best;
  return best;
}

static inline float fp16_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (magnitude << 13));
  float scaled = bits_to_float(magnitude << 13) * 5.192296858534828e33f;  // 2^112; makes subnormal numbers right too
  return bits_to_float(sign | float_to_bits(scaled));
}
static inline F load_fp16(const uint16_t* p) {
  F r;
  CSL_EACH(i) r.v[i] = fp16_to_float(p[i]);
  return r;
}
static inline F load_bf16(const uint16_t* p) {
  F r;
  CSL_EACH(i) r.v[i] = bits_to_float((uint32_t)p[i] << 16);
  return r;
}
static inline void store_bf16(uint16_t* p, F x) {
  CSL_EACH(i) {
    uint32_t v = float_to_bits(x.v[i]);
    p[i] = (uint16_t)((v + 0x7fff + ((v >> 16) & 1)) >> 16);
  }
}

static inline F to_float(I x) {
  F r;
  CSL_EACH(i) r.v[i] = (float)x.v[i];
  return r;
}
static inline I to_int(F x) {
  I r;
  CSL_EACH(i) r.v[i] = (int32_t)std::nearbyint(x.v[i]);
  return r;
}
static inline I iadd(I x, I y) {
  CSL_EACH(i) x.v[i] += y.v[i];
  return x;
}
static inline int32_t isum(I x) {
  int32_t s = 0;
  CSL_EACH(i) s += x.v[i];
  return s;
}
static inline void store_int8(int8_t* p, I x) { CSL_EACH(i) p[i] = (int8_t)x.v[i]; }

static inline W load_weights(const uint8_t* p) {
  W r;
  memcpy(r.v, p, 64);
  return r;
}
static inline W low_nibbles(W w) {
  for (int i = 0; i < 64; i++) w.v[i] &= 15;
  return w;
}
static inline W high_nibbles(W w) {
  for (int i = 0; i < 64; i++) w.v[i] >>= 4;
  return w;
}
static inline I same(int32_t z) {
  I r;
  CSL_EACH(i) r.v[i] = z;
  return r;
}
static inline I start4(int32_t z) { return same(z); }
static inline I start8(int32_t) { return same(0); }
static inline I dot4(I acc, W w, const int8_t* x) {
  CSL_EACH(i) acc.v[i] += w.v[4 * i] * x[0] + w.v[4 * i + 1] * x[1] + w.v[4 * i + 2] * x[2] + w.v[4 * i + 3] * x[3];
  return acc;
}
static inline W8 prepare8(W w) {
  W8 r;
  for (int i = 0; i < 64; i++) r.v[i] = (int8_t)(w.v[i] ^ 0x80);
  return r;
}
static inline I dot8(I acc, W8 w, const int8_t* x) {
  CSL_EACH(i) acc.v[i] += w.v[4 * i] * x[0] + w.v[4 * i + 1] * x[1] + w.v[4 * i + 2] * x[2] + w.v[4 * i + 3] * x[3];
  return acc;
}
static inline F dot_bf16(F acc, W w, const uint16_t* x) {
  float first = bits_to_float((uint32_t)x[0] << 16), second = bits_to_float((uint32_t)x[1] << 16);
  CSL_EACH(i) {
    uint32_t pair;
    memcpy(&pair, w.v + 4 * i, 4);
    acc.v[i] += bits_to_float(pair << 16) * first;
    acc.v[i] += bits_to_float(pair & 0xffff0000u) * second;
  }
  return acc;
}

static inline void prefetch(const void*) {}

}  // namespace CSL_NS
}  // namespace csl
