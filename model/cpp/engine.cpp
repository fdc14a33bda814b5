// The C interface: picks an instruction set, cuts calls into blocks, keeps the working memory.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "job.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace csl {

// setup.py says which of them the compiler could build.
extern const Variant variant_avx512bf16, variant_avx512vnni, variant_avxvnni, variant_avx2, variant_neon;
extern const Variant variant_portable;

// Those that can run here, the fastest first.
static std::vector<const Variant*> available() {
  std::vector<const Variant*> found;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0, f16c = 0, more = 0;
  if (__get_cpuid(1, &a, &b, &c, &d)) f16c = c >> 29 & 1;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) more = a;
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#ifdef CSL_HAVE_AVX512BF16
  if (avx512 && (more >> 5 & 1)) found.push_back(&variant_avx512bf16);
#endif
#ifdef CSL_HAVE_AVX512VNNI
  if (avx512) found.push_back(&variant_avx512vnni);
#endif
#ifdef CSL_HAVE_AVXVNNI
  if (avx2 && (more >> 4 & 1)) found.push_back(&variant_avxvnni);
#endif
#ifdef CSL_HAVE_AVX2
  if (avx2) found.push_back(&variant_avx2);
#endif
#elif defined(__aarch64__)
#ifdef CSL_HAVE_NEON
  found.push_back(&variant_neon);
#endif
#endif
  found.push_back(&variant_portable);
  return found;
}

static const std::vector<const Variant*>& variants() {
  static const std::vector<const Variant*> found = available();
  return found;
}

}  // namespace csl

using namespace csl;

struct csl_engine {
  csl_model model;
  const Variant* variant;
  Team team;
  Workspace work;
  std::mutex one_at_a_time;
  double seconds[N_PHASES] = {};

  csl_engine(const csl_model& m, const Variant* v, int n_threads) : model(m), variant(v), team(n_threads) {}

  int width() const { return model.n_layers ? padded(model.layers[0].in_proj.rows, CSL_ROWS) : CSL_ROWS; }

  // Tokens of all sequences in one block: many, so that weights are read seldom, but with their working memory inside a large cache.
  int block_rows() const { return (size_t)width() * 512 * sizeof(float) > (24u << 20) ? 256 : 512; }

  void reserve(int batch, int n_tokens, int n_logits) {
    const csl_model& m = model;
    Workspace& w = work;
    const int rows = batch * n_tokens, d_inner = m.n_heads * m.head_dim;
    w.projected_width = width();
    w.residual.resize((size_t)rows * m.d_model);
    w.projected.resize((size_t)rows * w.projected_width);
    w.x.resize((size_t)rows * d_inner);
    w.y.resize((size_t)rows * d_inner);
    w.B.resize((size_t)rows * m.n_groups * m.d_state);
    w.C.resize((size_t)rows * m.n_groups * m.d_state);
    w.dt.resize((size_t)rows * m.n_heads);
    w.decay.resize((size_t)rows * m.n_heads);
    w.scratch.resize((size_t)team.size() * std::max(d_inner, m.d_model));
    if (m.n_layers) {
      w.in.resize(m.layers[0].in_proj.kind, rows, m.d_model);
      w.out.resize(m.layers[0].out_proj.kind, rows, d_inner);
    }
    w.head.resize(m.head.kind, n_logits, m.d_model);
    w.residual_rows.resize(rows);
    w.projected_rows.resize(rows);
    for (int i = 0; i < rows; i++) {
      w.residual_rows[i] = w.residual + (size_t)i * m.d_model;
      w.projected_rows[i] = w.projected + (size_t)i * w.projected_width;
    }
  }
};

CSL_API int32_t csl_abi() { return CSL_ABI; }

CSL_API const char* csl_isa(int32_t n) { return n >= 0 && (size_t)n < variants().size() ? variants()[n]->name : nullptr; }

CSL_API csl_engine* csl_create(const csl_model* model, const char* isa, int32_t n_threads) {
  for (const Variant* variant : variants())
    if (!isa || !strcmp(isa, variant->name)) return new csl_engine(*model, variant, n_threads);
  return nullptr;
}

CSL_API void csl_destroy(csl_engine* engine) { delete engine; }

CSL_API int32_t csl_forward(csl_engine* engine, const int64_t* ids, int32_t batch, int32_t n_tokens, const float* conv_in,
                            const float* ssm_in, float* conv_out, float* ssm_out, float* logits, int32_t n_logits) {
  std::lock_guard<std::mutex> lock(engine->one_at_a_time);
  const csl_model& m = engine->model;
  for (size_t i = 0; i < (size_t)batch * n_tokens; i++)
    if (ids[i] < 0 || ids[i] >= m.vocab) return 1;
  std::fill(engine->seconds, engine->seconds + N_PHASES, 0.0);
  const int vocab = padded(m.vocab, CSL_ROWS), block = std::max(1, engine->block_rows() / batch);
  for (int start = 0; start < n_tokens; start += block) {
    const int size = std::min(block, n_tokens - start);
    std::vector<int> head_rows;
    std::vector<float*> logits_rows;
    const int first = std::max(0, n_tokens - n_logits - start);  // of this block's tokens
    engine->reserve(batch, size, std::max(0, size - first) * batch);
    for (int b = 0; b < batch; b++)
      for (int t = first; t < size; t++) {
        head_rows.push_back(b * size + t);
        logits_rows.push_back(logits + ((size_t)b * n_logits + (start + t - (n_tokens - n_logits))) * vocab);
      }
    Job job{&m, &engine->work, ids, batch, n_tokens, start, size, start ? conv_out : conv_in, start ? ssm_out : ssm_in,
            conv_out, ssm_out, (int)head_rows.size(), head_rows.data(), logits_rows.data(), engine->seconds};
    engine->team.run([&](int thread) { engine->variant->forward(job, engine->team, thread); });
  }
  return 0;
}

CSL_API void csl_profile(csl_engine* engine, double* seconds) { std::copy(engine->seconds, engine->seconds + N_PHASES, seconds); }

CSL_API double csl_read(csl_engine* engine, const void* const* buffers, const size_t* bytes, int32_t n) {
  std::lock_guard<std::mutex> lock(engine->one_at_a_time);
  std::vector<double> sums(engine->team.size());
  engine->team.run([&](int thread) { sums[thread] = engine->variant->read(buffers, bytes, n, engine->team); });
  double total = 0;
  for (double part : sums) total += part;
  return total;
}
