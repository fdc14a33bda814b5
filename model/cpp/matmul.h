// y (rows, N) = x (rows, K) W^T for few rows. One block of 16 output rows meets up to MAX_TILE rows of x at a time, so weights are unpacked once
// for all of them. Each output is one sum over ascending inputs in one register, whatever the number of rows and threads: a token fed alone
// and a token fed in a chunk give the same bits.
#pragma once
#include "job.h"

namespace csl {
namespace CSL_NS {

constexpr int AHEAD = 4096;  // bytes that weights are prefetched ahead
constexpr int ROW_BLOCK = 96;      // rows of x in one task: they stay in the second-level cache

static inline void quantise_group(const float* x, int8_t* q, float* scale, int32_t* correction, int zero_point) {
  F v[4] = {load(x), load(x + 16), load(x + 32), load(x + 48)};
  float largest = top(max(max(abs(v[0]), abs(v[1])), max(abs(v[2]), abs(v[3]))));
  F inverse = set1(largest > 0 ? 127.0f / largest : 0.0f);
  I total = to_int(zero());
  for (int i = 0; i < 4; i++) {
    I rounded = to_int(mul(v[i], inverse));
    store_int8(q + 16 * i, rounded);
    total = iadd(total, rounded);
  }
  *scale = largest / 127.0f;
  *correction = -zero_point * isum(total);
}

// Row `row` of the activations from x (cols), as a weight of this kind wants it. cols is a multiple of 16; the padding is made zero.
static void put_row(int kind, const float* x, int cols, Activations& a, int row) {
  alignas(64) float tail[CSL_GROUP];
  const size_t at = (size_t)row * a.stride;
  for (int c = 0; c < a.cols; c += CSL_GROUP) {
    const float* from = x + c;
    if (c + CSL_GROUP > cols) {
      for (int i = 0; i < CSL_GROUP; i++) tail[i] = c + i < cols ? x[c + i] : 0.0f;
      from = tail;
    }
    if (kind == CSL_FP32) {
      for (int i = 0; i < CSL_GROUP; i += 16) store(a.fp32 + (at + c + i), load(from + i));
    } else if (kind == CSL_BF16) {
      for (int i = 0; i < CSL_GROUP; i += 16) store_bf16(a.bf16 + (at + c + i), load(from + i));
    } else {
      const size_t group = (size_t)row * a.groups + c / CSL_GROUP;
      quantise_group(from, a.int8 + (at + c), a.scale + group, a.correction + group, kind == CSL_INT4 ? 8 : 128);
    }
  }
}

template <int KIND>
constexpr size_t block_bytes(int cols) {
  return (size_t)cols * CSL_ROWS * (KIND == CSL_FP32 ? 8 : KIND == CSL_BF16 ? 4 : KIND == CSL_INT8 ? 2 : 1) / 2;
}

template <int T>
static void store_tile(const F* sums, int block, int row, float* const* y, bool accumulate) {
  for (int t = 0; t < T; t++) {
    float* out = y[row + t] + (size_t)CSL_ROWS * block;
    store(out, accumulate ? add(load(out), sums[t]) : sums[t]);
  }
}

// One block of output rows, T rows of x from `row` on.
template <int KIND, int T>
static void integer_tile(const csl_matrix& m, int block, const Activations& x, int row, float* const* y, bool accumulate) {
  constexpr int LINES = KIND == CSL_INT4 ? CSL_GROUP / 8 : CSL_GROUP / 4;
  const int groups = x.groups, stride = x.stride;
  const uint8_t* w = m.data + block_bytes<KIND>(x.cols) * block;
  const uint16_t* s = m.scales + (size_t)CSL_ROWS * groups * block;
  const int8_t* q = x.int8 + (size_t)row * stride;
  const float* scale = x.scale + (size_t)row * groups;
  const int32_t* correction = x.correction + (size_t)row * groups;
  F sums[T];
  for (int t = 0; t < T; t++) sums[t] = zero();
  for (int g = 0; g < groups; g++, q += CSL_GROUP, s += CSL_ROWS) {
    I acc[T];
    for (int t = 0; t < T; t++)
      acc[t] = KIND == CSL_INT4 ? start4(correction[(size_t)t * groups + g]) : start8(correction[(size_t)t * groups + g]);
    for (int line = 0; line < LINES; line++, w += 64) {
      prefetch(w + AHEAD);
      W packed = load_weights(w);
      if constexpr (KIND == CSL_INT4) {
        W low = low_nibbles(packed), high = high_nibbles(packed);
        for (int t = 0; t < T; t++) acc[t] = dot4(acc[t], low, q + (size_t)t * stride + 8 * line);
        for (int t = 0; t < T; t++) acc[t] = dot4(acc[t], high, q + (size_t)t * stride + 8 * line + 4);
      } else {
        W8 weights = prepare8(packed);
        for (int t = 0; t < T; t++) acc[t] = dot8(acc[t], weights, q + (size_t)t * stride + 4 * line);
      }
    }
    F weight_scale = load_fp16(s);
    for (int t = 0; t < T; t++) sums[t] = fma(to_float(acc[t]), mul(weight_scale, set1(scale[(size_t)t * groups + g])), sums[t]);
  }
  store_tile<T>(sums, block, row, y, accumulate);
}

template <int KIND, int T>
static void float_tile(const csl_matrix& m, int block, const Activations& x, int row, float* const* y, bool accumulate) {
  constexpr int STEP = KIND == CSL_BF16 ? 2 : 1;
  const int stride = x.stride;
  const uint8_t* w = m.data + block_bytes<KIND>(x.cols) * block;
  const float* x32 = x.fp32 + (size_t)row * stride;
  const uint16_t* x16 = x.bf16 + (size_t)row * stride;
  F sums[T];
  for (int t = 0; t < T; t++) sums[t] = zero();
  for (int c = 0; c < x.cols; c += STEP, w += 64) {
    prefetch(w + AHEAD);
    if constexpr (KIND == CSL_BF16) {
      W weights = load_weights(w);
      for (int t = 0; t < T; t++) sums[t] = dot_bf16(sums[t], weights, x16 + (size_t)t * stride + c);
    } else {
      F weights = load((const float*)w);
      for (int t = 0; t < T; t++) sums[t] = fma(set1(x32[(size_t)t * stride + c]), weights, sums[t]);
    }
  }
  store_tile<T>(sums, block, row, y, accumulate);
}

template <int KIND, int T>
static void tiles_up_to(int n, const csl_matrix& m, int block, const Activations& x, int row, float* const* y, bool accumulate) {
  if constexpr (T > 1) {
    if (n < T) return tiles_up_to<KIND, T - 1>(n, m, block, x, row, y, accumulate);
  }
  if constexpr (KIND == CSL_INT8 || KIND == CSL_INT4) integer_tile<KIND, T>(m, block, x, row, y, accumulate);
  else float_tile<KIND, T>(m, block, x, row, y, accumulate);
}

// One task: blocks `from` to `to`, rows `first` to `last` of x.
template <int KIND>
static void matmul_task(const csl_matrix& m, int from, int to, const Activations& x, int first, int last, float* const* y, bool accumulate) {
  const int rows = last - first, tiles = (rows + MAX_TILE - 1) / MAX_TILE;
  for (int block = from; block < to; block++)
    for (int i = 0; i < tiles; i++) {  // tiles of almost the same height: 13 rows are 7 and 6, not 12 and 1
      int begin = first + (int)((long)rows * i / tiles), end = first + (int)((long)rows * (i + 1) / tiles);
      tiles_up_to<KIND, MAX_TILE>(end - begin, m, block, x, begin, y, accumulate);
    }
}

// Every thread calls this; there is a barrier before and after it at the caller's.
static void matmul(const csl_matrix& m, const Activations& x, int rows, float* const* y, bool accumulate, Team& team) {
  const int blocks = padded(m.rows, CSL_ROWS) / CSL_ROWS;
  const int row_tasks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
  const int even = team.size() == 1 ? 1 : 16 * team.size();  // enough tasks that no thread waits long for the last one
  int panel = blocks / even;
  panel = panel < 2 ? 2 : panel > 16 ? 16 : panel;
  const int panels = (blocks + panel - 1) / panel;
  for (int task; (task = team.take()) < panels * row_tasks;) {
    int from = task / row_tasks * panel, part = task % row_tasks;
    int to = from + panel < blocks ? from + panel : blocks;
    int first = (int)((long)rows * part / row_tasks), last = (int)((long)rows * (part + 1) / row_tasks);
    switch (m.kind) {
      case CSL_FP32: matmul_task<CSL_FP32>(m, from, to, x, first, last, y, accumulate); break;
      case CSL_BF16: matmul_task<CSL_BF16>(m, from, to, x, first, last, y, accumulate); break;
      case CSL_INT8: matmul_task<CSL_INT8>(m, from, to, x, first, last, y, accumulate); break;
      default: matmul_task<CSL_INT4>(m, from, to, x, first, last, y, accumulate);
    }
  }
}

}  // namespace CSL_NS
}  // namespace csl
