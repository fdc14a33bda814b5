// What one call computes and the memory it works in; the same for every instruction set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "csl.h"
#include "team.h"

namespace csl {

template <class T>
class Buffer {  // aligned to cache lines, with some room behind it for loads of whole vectors
 public:
  void resize(size_t n) {
    if (n <= size_) return;
    size_t bytes = (n * sizeof(T) + 1024 + 63) / 64 * 64;
    std::free(data_);
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    size_ = n;
  }
  ~Buffer() { std::free(data_); }
  CSL_INLINE T* operator+(size_t n) const { return data_ + n; }
  CSL_INLINE T& operator[](size_t n) const { return data_[n]; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

static CSL_INLINE int padded(int n, int unit) { return (n + unit - 1) / unit * unit; }

// The left side of a matrix product: rows of `cols` values as the weights' kind wants them.
struct Activations {
  int cols = 0, groups = 0;     // padded
  int stride = 0;               // values from row to row
  Buffer<float> fp32;           // (rows, stride)
  Buffer<uint16_t> bf16;        // (rows, stride)
  Buffer<int8_t> int8;          // (rows, stride)
  Buffer<float> scale;          // (rows, groups)
  Buffer<int32_t> correction;   // (rows, groups): minus the weights' zero point times the sum of the group

  void resize(int kind, int rows, int unpadded_cols) {
    cols = padded(unpadded_cols, CSL_GROUP);
    groups = cols / CSL_GROUP;
    // Widths are powers of two: without a cache line between them, a dozen rows would fight for the eight places of one set of the first-level cache.
    stride = cols + 64 / (kind == CSL_FP32 ? 4 : kind == CSL_BF16 ? 2 : 1);
    size_t n = (size_t)rows * stride;
    if (kind == CSL_FP32) fp32.resize(n);
    else if (kind == CSL_BF16) bf16.resize(n);
    else {
      int8.resize(n);
      scale.resize((size_t)rows * groups);
      correction.resize((size_t)rows * groups);
    }
  }
};

enum Phase { NORM, IN_PROJ, CONV, SCAN, GATE, OUT_PROJ, HEAD, N_PHASES };

// A block of tokens of each sequence: row b * n_tokens + t of every buffer is token t of sequence b.
struct Workspace {
  int max_rows = 0;
  int projected_width = 0;       // in_proj's rows, padded
  Buffer<float> residual;        // (rows, d_model)
  Buffer<float> projected;       // (rows, projected_width): z, x, B, C, dt
  Buffer<float> x, y;            // (batch, H, n_tokens, P)
  Buffer<float> B, C;            // (batch, G, n_tokens, N)
  Buffer<float> dt, decay;       // (batch, H, n_tokens)
  Buffer<float> scratch;         // (threads, d_inner)
  Activations in, out, head;
  Buffer<float*> residual_rows, projected_rows;
};

struct Job {
  const csl_model* model;
  Workspace* work;
  const int64_t* ids;  // (batch, all_tokens)
  int batch, all_tokens, start, n_tokens;  // this block: tokens start .. start + n_tokens
  const float *conv_in, *ssm_in;  // null: zeros
  float *conv_out, *ssm_out;
  int n_logits;                // rows whose logits are wanted
  const int* head_rows;        // (n_logits)
  float* const* logits_rows;   // (n_logits): where to
  double* seconds;             // of each phase, measured on thread 0
};

struct Variant {
  const char* name;
  void (*forward)(Job& job, Team& team, int thread);
  double (*read)(const void* const* buffers, const size_t* bytes, int n, Team& team);
};

}  // namespace csl
