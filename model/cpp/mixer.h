// What lies between the two projections of a Mamba2 layer: convolution, step sizes, the recurrence, gate and norm; all in fp32.
// The recurrence runs token by token with a tile of the state in registers over all tokens of the block, so there is no term quadratic in the
// length and no chunk matrix, and the order of every sum is that of single steps.
// Letters as in model/ssd.py: B batch, T tokens, H heads, P head_dim, G groups, N d_state.
#pragma once
#include "job.h"

namespace csl {
namespace CSL_NS {

constexpr int CONV_CHANNELS = 512;  // of one task: their weights stay in the first-level cache
constexpr int CONV_TOKENS = 64;
constexpr int STATE_VECTORS = 16;  // of a tile of the state, in registers over all tokens of the block

struct Shape {
  int d_inner, conv_dim, window, bc_width, per_group;
  explicit Shape(const csl_model& m)
      : d_inner(m.n_heads * m.head_dim),
        conv_dim(m.n_heads * m.head_dim + 2 * m.n_groups * m.d_state),
        window(m.d_conv - 1),
        bc_width(m.n_groups * m.d_state),
        per_group(m.n_heads / m.n_groups) {}
};

// Column `t` of the convolution's input, 16 channels from `c` on; columns before the block come from the state.
static inline F input_column(const Job& job, const Shape& s, const float* before, int sequence, int t, int c) {
  if (t >= 0) return load(job.work->projected_rows[sequence * job.n_tokens + t] + s.d_inner + c);
  if (!before) return zero();
  alignas(64) float column[16];
  for (int i = 0; i < 16; i++) column[i] = before[(size_t)(c + i) * s.window + s.window + t];
  return load(column);
}

// Where channel c of token t goes: x by head, B and C by group.
static inline float* conv_output(const Job& job, const Shape& s, int sequence, int t, int c) {
  const csl_model& m = *job.model;
  const Workspace& w = *job.work;
  if (c < s.d_inner) {
    int head = c / m.head_dim;
    return w.x + (((size_t)sequence * m.n_heads + head) * job.n_tokens + t) * m.head_dim + c % m.head_dim;
  }
  c -= s.d_inner;
  const Buffer<float>& to = c < s.bc_width ? w.B : w.C;
  c %= s.bc_width;
  return to + (((size_t)sequence * m.n_groups + c / m.d_state) * job.n_tokens + t) * m.d_state + c % m.d_state;
}

static void conv_task(const Job& job, const Shape& s, const csl_layer& layer, const float* before, int sequence, int channel, int token) {
  const int last_channel = channel + CONV_CHANNELS < s.conv_dim ? channel + CONV_CHANNELS : s.conv_dim;
  const int last_token = token + CONV_TOKENS < job.n_tokens ? token + CONV_TOKENS : job.n_tokens;
  for (int t = token; t < last_token; t++)
    for (int c = channel; c < last_channel; c += 16) {
      F total = load(layer.conv_bias + c);
      for (int k = 0; k <= s.window; k++)
        total = fma(input_column(job, s, before, sequence, t - s.window + k, c), load(layer.conv_weight + (size_t)k * s.conv_dim + c), total);
      store(conv_output(job, s, sequence, t, c), silu(total));
    }
}

static void step_sizes(const Job& job, const Shape& s, const csl_layer& layer, int sequence) {
  const csl_model& m = *job.model;
  const Workspace& w = *job.work;
  alignas(64) float dt[16], decay[16];
  for (int t = 0; t < job.n_tokens; t++)
    for (int h = 0; h < m.n_heads; h += 16) {
      F v = load(w.projected_rows[sequence * job.n_tokens + t] + s.d_inner + s.conv_dim + h);
      v = min(max(softplus(add(v, load(layer.dt_bias + h))), set1(m.dt_min)), set1(m.dt_max));
      store(dt, v);
      store(decay, exp(mul(v, load(layer.A + h))));
      for (int i = 0; i < 16 && h + i < m.n_heads; i++) {
        size_t at = ((size_t)sequence * m.n_heads + h + i) * job.n_tokens + t;
        w.dt[at] = dt[i];
        w.decay[at] = decay[i];
      }
    }
}

static void convolve(Job& job, const Shape& s, const csl_layer& layer, const float* before, Team& team) {
  const int channels = (s.conv_dim + CONV_CHANNELS - 1) / CONV_CHANNELS, tokens = (job.n_tokens + CONV_TOKENS - 1) / CONV_TOKENS;
  const int per_sequence = channels * tokens + 1;
  for (int task; (task = team.take()) < per_sequence * job.batch;) {
    int sequence = task / per_sequence, part = task % per_sequence;
    const float* columns = before ? before + (size_t)sequence * s.conv_dim * s.window : nullptr;
    if (part == 0) step_sizes(job, s, layer, sequence);
    else conv_task(job, s, layer, columns, sequence, (part - 1) % channels * CONV_CHANNELS, (part - 1) / channels * CONV_TOKENS);
  }
}

// The last columns of the convolution's input become the new state; `before` and `after` may be the same.
static void next_window(const Job& job, const Shape& s, const float* before, float* after, int sequence) {
  float columns[16];
  for (int c = 0; c < s.conv_dim; c++) {
    for (int k = 0; k < s.window; k++) {
      int t = job.n_tokens - s.window + k;
      if (t >= 0) columns[k] = job.work->projected_rows[sequence * job.n_tokens + t][s.d_inner + c];
      else columns[k] = before ? before[(size_t)c * s.window + s.window + t] : 0.0f;
    }
    for (int k = 0; k < s.window; k++) after[(size_t)c * s.window + k] = columns[k];
  }
}

// V vectors of P, from `lane` on, of one head: S = decay S + (dt x) B, y = S C + D x. Whole rows of the state where they are 64 wide: memory
// is then read and written in one stream.
template <int V>
static void scan_lanes(const Job& job, const csl_layer& layer, const float* before, float* after, int sequence, int head, int lane) {
  const csl_model& m = *job.model;
  const Workspace& w = *job.work;
  const int P = m.head_dim, N = m.d_state, T = job.n_tokens;
  const size_t h = (size_t)sequence * m.n_heads + head;
  const size_t group = (size_t)sequence * m.n_groups + head / (m.n_heads / m.n_groups);
  const float *dt = w.dt + h * T, *decay = w.decay + h * T;
  constexpr int TILE = V == 1 ? 8 : STATE_VECTORS / V;  // rows of N
  const F skip = set1(layer.D[head]);
  for (int n = 0; n < N; n += TILE) {
    F state[TILE][V];
    for (int i = 0; i < TILE; i++)
      for (int v = 0; v < V; v++) state[i][v] = before ? load(before + (size_t)(n + i) * P + lane + 16 * v) : zero();
    const float *x = w.x + h * T * P + lane, *B = w.B + group * T * N + n, *C = w.C + group * T * N + n;
    float* y = w.y + h * T * P + lane;
    for (int t = 0; t < T; t++, x += P, y += P, B += N, C += N) {
      F kept = set1(decay[t]), size = set1(dt[t]), input[V], output[V];
      for (int v = 0; v < V; v++) {
        F value = load(x + 16 * v);
        input[v] = mul(value, size);
        output[v] = n == 0 ? mul(value, skip) : load(y + 16 * v);
      }
      for (int i = 0; i < TILE; i++) {
        F b = set1(B[i]), c = set1(C[i]);
        for (int v = 0; v < V; v++) {
          state[i][v] = fma(b, input[v], mul(state[i][v], kept));
          output[v] = fma(c, state[i][v], output[v]);
        }
      }
      for (int v = 0; v < V; v++) store(y + 16 * v, output[v]);
    }
    for (int i = 0; i < TILE; i++)
      for (int v = 0; v < V; v++) store(after + (size_t)(n + i) * P + lane + 16 * v, state[i][v]);
  }
}

static void scan(Job& job, const Shape& s, const csl_layer& layer, int number, Team& team) {
  const csl_model& m = *job.model;
  const size_t conv_size = (size_t)s.conv_dim * s.window, state_size = (size_t)m.d_state * m.head_dim;
  const int width = m.head_dim % 64 == 0 ? 64 : 32;  // lanes of one task
  const int parts = (m.head_dim + width - 1) / width, tasks = m.n_heads * parts, per_sequence = tasks + 1;
  for (int task; (task = team.take()) < per_sequence * job.batch;) {
    const int sequence = task / per_sequence, part = task % per_sequence;
    const size_t place = (size_t)number * job.batch + sequence;
    if (part == tasks) {
      next_window(job, s, job.conv_in ? job.conv_in + place * conv_size : nullptr, job.conv_out + place * conv_size, sequence);
      continue;
    }
    const int head = part / parts, lane = part % parts * width;
    const size_t at = (place * m.n_heads + head) * state_size;
    const float* before = job.ssm_in ? job.ssm_in + at : nullptr;
    if (width == 64) scan_lanes<4>(job, layer, before, job.ssm_out + at, sequence, head, lane);
    else if (lane + 32 <= m.head_dim) scan_lanes<2>(job, layer, before, job.ssm_out + at, sequence, head, lane);
    else scan_lanes<1>(job, layer, before, job.ssm_out + at, sequence, head, lane);
  }
}

// y * silu(z), normed over each group of channels, as the output projection wants it.
static void gate(Job& job, const Shape& s, const csl_layer& layer, Team& team, int thread) {
  const csl_model& m = *job.model;
  Workspace& w = *job.work;
  float* gated = w.scratch + (size_t)thread * s.d_inner;
  const int width = s.d_inner / m.n_groups;
  for (int row; (row = team.take()) < job.batch * job.n_tokens;) {
    const int sequence = row / job.n_tokens, t = row % job.n_tokens;
    for (int h = 0; h < m.n_heads; h++) {
      const float* y = w.y + (((size_t)sequence * m.n_heads + h) * job.n_tokens + t) * m.head_dim;
      const float* z = w.projected_rows[row] + (size_t)h * m.head_dim;
      for (int p = 0; p < m.head_dim; p += 16) store(gated + (size_t)h * m.head_dim + p, mul(load(y + p), silu(load(z + p))));
    }
    for (int g = 0; g < m.n_groups; g++) rms_norm(gated + g * width, layer.gate_norm + g * width, width, m.eps, gated + g * width);
    put_row(layer.out_proj.kind, gated, s.d_inner, w.out, row);
  }
}

}  // namespace CSL_NS
}  // namespace csl
