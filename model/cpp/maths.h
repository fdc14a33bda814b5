// exp, SiLU, softplus and RMSNorm on sixteen floats; relative error about 1e-7. Every sum has one order, whatever the number of tokens or threads.
#pragma once

namespace csl {
namespace CSL_NS {

static inline F exp(F x) {
  x = min(max(x, set1(-87.0f)), set1(88.0f));
  F n = round(mul(x, set1(1.44269504f)));
  F r = fma(n, set1(-0.693145752f), x);
  r = fma(n, set1(-1.42860677e-6f), r);
  F p = set1(1.0f / 5040);
  p = fma(p, r, set1(1.0f / 720));
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return scale2(p, n);
}

static inline F silu(F x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

// log(1 + e^x) = max(x, 0) + log1p(e), e = exp(-|x|); log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3.
static inline F softplus(F x) {
  F e = exp(sub(zero(), abs(x)));
  F s = div(e, add(set1(2.0f), e)), s2 = mul(s, s);
  F p = set1(1.0f / 17);
  for (int k = 15; k >= 1; k -= 2) p = fma(p, s2, set1(1.0f / k));
  return fma(mul(set1(2.0f), s), p, max(x, zero()));
}

// x (n) * weight * 1 / rms(x). n is a multiple of 16.
static inline void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
  F squares = zero();
  for (int i = 0; i < n; i += 16) {
    F v = load(x + i);
    squares = fma(v, v, squares);
  }
  F scale = set1(1.0f / std::sqrt(sum(squares) / (float)n + eps));
  for (int i = 0; i < n; i += 16) store(out + i, mul(mul(load(x + i), scale), load(weight + i)));
}

}  // namespace CSL_NS
}  // namespace csl
