// The C interface of the native kernels. Plain structs and raw pointers: nothing of torch's or Python's ABI.
// model/native.py holds the same structs for ctypes; CSL_ABI changes whenever one of them does.
#pragma once
#include <cstddef>
#include <cstdint>

#define CSL_ABI 3
#define CSL_GROUP 64  // inputs that share one scale, of weights and of activations
#define CSL_ROWS 16   // output rows that are interleaved

#if defined(_WIN32)
#define CSL_API extern "C" __declspec(dllexport)
#else
#define CSL_API extern "C" __attribute__((visibility("default")))
#endif

enum csl_kind : int32_t { CSL_FP32 = 0, CSL_BF16 = 1, CSL_INT8 = 2, CSL_INT4 = 3, CSL_FP16 = 4 /* embeddings only */ };

// A weight (rows, cols) in blocks of 16 rows, padded with zeros to whole blocks and whole groups (model/packed.py makes it):
//   fp32  [blocks][cols][16]         bf16 [blocks][cols / 2][16][2]
//   int8  [blocks][cols / 4][16][4]  value + 128
//   int4  [blocks][cols / 8][16][4]  low nibble: input j of 8, high nibble: input j + 4; value + 8
//   scales (int8, int4): fp16 [blocks][groups][16]
struct csl_matrix {
  int32_t kind, rows, cols, padding;
  const uint8_t* data;
  const uint16_t* scales;
};

struct csl_layer {
  csl_matrix in_proj, out_proj;
  const float* norm;         // (d_model)
  const float* conv_weight;  // (d_conv, conv_dim)
  const float* conv_bias;    // (conv_dim)
  const float* dt_bias;      // (H)
  const float* A;            // (H), negative
  const float* D;            // (H)
  const float* gate_norm;    // (d_inner)
};

struct csl_model {
  int32_t d_model, n_layers, vocab, d_state, d_conv, head_dim, n_heads, n_groups;
  float eps, dt_min, dt_max;
  int32_t embedding_kind;  // fp32, bf16 or fp16
  const void* embeddings;  // (vocab, d_model)
  const float* norm_f;     // (d_model)
  csl_matrix head;
  const csl_layer* layers;
};

struct csl_engine;

CSL_API int32_t csl_abi();
// The n-th instruction set that this machine has and this build knows, the fastest first, or nullptr.
CSL_API const char* csl_isa(int32_t n);
// nullptr when `isa` cannot run here. The model's memory must outlive the engine.
CSL_API csl_engine* csl_create(const csl_model* model, const char* isa, int32_t n_threads);
CSL_API void csl_destroy(csl_engine* engine);
// ids (batch, n_tokens). States are contiguous: conv (L, batch, conv_dim, d_conv - 1), ssm (L, batch, H, N, P), mind the order of the last two.
// Null pointers as input are a state of zeros; input and output may be the same memory. logits (batch, n_logits, padded vocab): the last
// n_logits tokens of each sequence. Returns 0, or 1 for an id outside the vocabulary (nothing is written then).
CSL_API int32_t csl_forward(csl_engine* engine, const int64_t* ids, int32_t batch, int32_t n_tokens, const float* conv_in,
                            const float* ssm_in, float* conv_out, float* ssm_out, float* logits, int32_t n_logits);
// Seconds that the threads spent in each phase of the last csl_forward: norm, in_proj, conv, scan, gate, out_proj, head.
CSL_API void csl_profile(csl_engine* engine, double* seconds);
// Reads `n` buffers with the engine's threads and returns a sum that keeps the compiler from leaving it out.
CSL_API double csl_read(csl_engine* engine, const void* const* buffers, const size_t* bytes, int32_t n);
