// The whole model for one block of tokens, in one region of threads: Python and thread start-up are paid once a block.
#pragma once
#include <ctime>

#include "job.h"

namespace csl {
namespace CSL_NS {

static void embed(const Job& job, int row) {
  const csl_model& m = *job.model;
  const int64_t id = job.ids[(size_t)(row / job.n_tokens) * job.all_tokens + job.start + row % job.n_tokens];
  float* to = job.work->residual_rows[row];
  const size_t at = (size_t)id * m.d_model;
  for (int c = 0; c < m.d_model; c += 16) {
    if (m.embedding_kind == CSL_FP32) store(to + c, load((const float*)m.embeddings + at + c));
    else if (m.embedding_kind == CSL_BF16) store(to + c, load_bf16((const uint16_t*)m.embeddings + at + c));
    else store(to + c, load_fp16((const uint16_t*)m.embeddings + at + c));
  }
}

class Clock {  // thread 0's time by phase
 public:
  Clock(double* seconds, int thread) : seconds_(thread == 0 ? seconds : nullptr) { last_ = now(); }
  void mark(Phase phase) {
    if (!seconds_) return;
    double t = now();
    seconds_[phase] += t - last_;
    last_ = t;
  }

 private:
  static double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
  }
  double* seconds_;
  double last_;
};

static void forward(Job& job, Team& team, int thread) {
  const csl_model& m = *job.model;
  const Shape s(m);
  Workspace& w = *job.work;
  const int rows = job.batch * job.n_tokens;
  const size_t conv_size = (size_t)s.conv_dim * s.window;
  float* normed = w.scratch + (size_t)thread * s.d_inner;
  Clock clock(job.seconds, thread);
  for (int row; (row = team.take()) < rows;) embed(job, row);
  team.sync();
  for (int i = 0; i < m.n_layers; i++) {
    const csl_layer& layer = m.layers[i];
    for (int row; (row = team.take()) < rows;) {
      rms_norm(w.residual_rows[row], layer.norm, m.d_model, m.eps, normed);
      put_row(layer.in_proj.kind, normed, m.d_model, w.in, row);
    }
    team.sync();
    clock.mark(NORM);
    matmul(layer.in_proj, w.in, rows, w.projected_rows + 0, false, team);
    team.sync();
    clock.mark(IN_PROJ);
    convolve(job, s, layer, job.conv_in ? job.conv_in + (size_t)i * job.batch * conv_size : nullptr, team);
    team.sync();
    clock.mark(CONV);
    scan(job, s, layer, i, team);
    team.sync();
    clock.mark(SCAN);
    gate(job, s, layer, team, thread);
    team.sync();
    clock.mark(GATE);
    matmul(layer.out_proj, w.out, rows, w.residual_rows + 0, true, team);
    team.sync();
    clock.mark(OUT_PROJ);
  }
  if (job.n_logits) {
    for (int j; (j = team.take()) < job.n_logits;) {
      rms_norm(w.residual_rows[job.head_rows[j]], m.norm_f, m.d_model, m.eps, normed);
      put_row(m.head.kind, normed, m.d_model, w.head, j);
    }
    team.sync();
    matmul(m.head, w.head, job.n_logits, job.logits_rows, false, team);
    team.sync();
  }
  clock.mark(HEAD);
}

// What memory gives at best: every thread reads its part of every buffer once.
static double read(const void* const* buffers, const size_t* bytes, int n, Team& team) {
  constexpr size_t PIECE = 1 << 18;
  F total = zero();
  int first = 0, task = team.take();
  for (int i = 0; i < n; i++) {
    const int pieces = (int)(bytes[i] / PIECE);
    for (; task < first + pieces; task = team.take()) {
      const uint8_t* p = (const uint8_t*)buffers[i] + PIECE * (task - first);
      F sums[4] = {zero(), zero(), zero(), zero()};
      for (size_t at = 0; at < PIECE; at += 256)
        for (int k = 0; k < 4; k++) {
          prefetch(p + at + 64 * k + AHEAD);
          sums[k] = add(sums[k], load((const float*)(p + at + 64 * k)));
        }
      total = add(total, add(add(sums[0], sums[1]), add(sums[2], sums[3])));
    }
    first += pieces;
  }
  return sum(total);
}

}  // namespace CSL_NS
}  // namespace csl
