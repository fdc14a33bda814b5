// Sixteen floats as four NEON registers, with the dot product of bytes (Armv8.2 "dotprod": every Apple M, Graviton 2 and later).
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace csl {
namespace CSL_NS {

struct F {
  float32x4_t v[4];
};
struct I {
  int32x4_t v[4];
};
struct W {
  uint8x16_t v[4];
};
struct W8 {
  int8x16_t v[4];
};
constexpr int MAX_TILE = 4;

#define CSL_EACH(i) for (int i = 0; i < 4; i++)
#define CSL_BINARY(name, op)               \
  static inline F name(F x, F y) {         \
    F r;                                   \
    CSL_EACH(i) r.v[i] = op(x.v[i], y.v[i]); \
    return r;                              \
  }
CSL_BINARY(add, vaddq_f32)
CSL_BINARY(sub, vsubq_f32)
CSL_BINARY(mul, vmulq_f32)
CSL_BINARY(div, vdivq_f32)
CSL_BINARY(max, vmaxq_f32)
CSL_BINARY(min, vminq_f32)
static inline F set1(float x) {
  F r;
  CSL_EACH(i) r.v[i] = vdupq_n_f32(x);
  return r;
}
static inline F zero() { return set1(0.0f); }
static inline F load(const float* p) {
  F r;
  CSL_EACH(i) r.v[i] = vld1q_f32(p + 4 * i);
  return r;
}
static inline void store(float* p, F x) { CSL_EACH(i) vst1q_f32(p + 4 * i, x.v[i]); }
static inline F fma(F x, F y, F z) {
  CSL_EACH(i) z.v[i] = vfmaq_f32(z.v[i], x.v[i], y.v[i]);
  return z;
}
static inline F abs(F x) {
  CSL_EACH(i) x.v[i] = vabsq_f32(x.v[i]);
  return x;
}
static inline F round(F x) {
  CSL_EACH(i) x.v[i] = vrndnq_f32(x.v[i]);
  return x;
}
static inline F scale2(F x, F n) {
  CSL_EACH(i) {
    int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23);
    x.v[i] = vmulq_f32(x.v[i], vreinterpretq_f32_s32(power));
  }
  return x;
}
static inline float sum(F x) { return vaddvq_f32(vaddq_f32(vaddq_f32(x.v[0], x.v[1]), vaddq_f32(x.v[2], x.v[3]))); }
static inline float top(F x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3]))); }

static inline F load_fp16(const uint16_t* p) {
  F r;
  CSL_EACH(i) r.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
  return r;
}
static inline F load_bf16(const uint16_t* p) {
  F r;
  CSL_EACH(i) r.v[i] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16));
  return r;
}
static inline void store_bf16(uint16_t* p, F x) {
  CSL_EACH(i) {
    uint32x4_t v = vreinterpretq_u32_f32(x.v[i]), odd = vandq_u32(vshrq_n_u32(v, 16), vdupq_n_u32(1));
    vst1_u16(p + 4 * i, vshrn_n_u32(vaddq_u32(v, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16));
  }
}

static inline F to_float(I x) {
  F r;
  CSL_EACH(i) r.v[i] = vcvtq_f32_s32(x.v[i]);
  return r;
}
static inline I to_int(F x) {
  I r;
  CSL_EACH(i) r.v[i] = vcvtnq_s32_f32(x.v[i]);
  return r;
}
static inline I iadd(I x, I y) {
  CSL_EACH(i) x.v[i] = vaddq_s32(x.v[i], y.v[i]);
  return x;
}
static inline int32_t isum(I x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.v[0], x.v[1]), vaddq_s32(x.v[2], x.v[3]))); }
static inline void store_int8(int8_t* p, I x) {
  int16x8_t a = vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1])), b = vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
}

static inline W load_weights(const uint8_t* p) {
  W r;
  CSL_EACH(i) r.v[i] = vld1q_u8(p + 16 * i);
  return r;
}
static inline W low_nibbles(W w) {
  CSL_EACH(i) w.v[i] = vandq_u8(w.v[i], vdupq_n_u8(15));
  return w;
}
static inline W high_nibbles(W w) {
  CSL_EACH(i) w.v[i] = vshrq_n_u8(w.v[i], 4);
  return w;
}
static inline int8x16_t four(const void* p) {
  int32_t v;
  memcpy(&v, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(v));
}
static inline I same(int32_t z) {
  I r;
  CSL_EACH(i) r.v[i] = vdupq_n_s32(z);
  return r;
}
// The instruction multiplies signed by signed: nibbles are small enough, bytes lose their offset here and need no correction.
static inline I start4(int32_t z) { return same(z); }
static inline I start8(int32_t) { return same(0); }
static inline I dot4(I acc, W w, const int8_t* x) {
  int8x16_t v = four(x);
  CSL_EACH(i) acc.v[i] = vdotq_s32(acc.v[i], vreinterpretq_s8_u8(w.v[i]), v);
  return acc;
}
static inline W8 prepare8(W w) {
  W8 r;
  CSL_EACH(i) r.v[i] = vreinterpretq_s8_u8(veorq_u8(w.v[i], vdupq_n_u8(0x80)));
  return r;
}
static inline I dot8(I acc, W8 w, const int8_t* x) {
  int8x16_t v = four(x);
  CSL_EACH(i) acc.v[i] = vdotq_s32(acc.v[i], w.v[i], v);
  return acc;
}
static inline F dot_bf16(F acc, W w, const uint16_t* x) {
  uint32_t pair;
  memcpy(&pair, x, 4);
  uint32_t first = pair << 16, second = pair & 0xffff0000u;
  float a, b;
  memcpy(&a, &first, 4);
  memcpy(&b, &second, 4);
  CSL_EACH(i) {
    uint32x4_t v = vreinterpretq_u32_u8(w.v[i]);
    acc.v[i] = vfmaq_n_f32(acc.v[i], vreinterpretq_f32_u32(vshlq_n_u32(v, 16)), a);
    acc.v[i] = vfmaq_n_f32(acc.v[i], vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff0000u))), b);
  }
  return acc;
}

static inline void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace CSL_NS
}  // namespace csl
