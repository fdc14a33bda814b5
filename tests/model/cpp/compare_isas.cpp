// A small random model through the C interface, for machines that cannot run the Python tests (another architecture under an emulator).
// One line for each precision and instruction set: kind, name, 1 when stepping gives the bits of feeding at once, largest difference of a logit
// from the portable kernels.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "csl.h"

constexpr int D = 80, HEADS = 6, P = 48, N = 48, GROUPS = 3, LAYERS = 2, VOCAB = 70, TOKENS = 29;
constexpr int INNER = HEADS * P, CONV = INNER + 2 * GROUPS * N, LOGITS = 80;

static uint64_t seed = 1;
static float noise() {  // -1..1
  seed = seed * 6364136223846793005ull + 1442695040888963407ull;
  return (float)((double)(seed >> 33) / (1ull << 30) - 1.0);
}

static std::vector<std::vector<uint8_t>> held;
template <class T>
static T* room(size_t n) {
  held.emplace_back(n * sizeof(T) + 256);
  return reinterpret_cast<T*>(held.back().data());
}

static const float* floats(int n, float scale, float offset) {
  float* p = room<float>(n);
  for (int i = 0; i < n; i++) p[i] = offset + scale * noise();
  return p;
}

static csl_matrix matrix(int kind, int rows, int cols) {
  const size_t values = (size_t)((rows + 15) / 16) * 16 * ((cols + 63) / 64 * 64);
  uint8_t* data = room<uint8_t>(values * 4);
  uint16_t* scales = room<uint16_t>(values / 64);
  for (size_t i = 0; i < values; i++) {
    float value = noise() / std::sqrt((float)cols);
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (kind == CSL_FP32) memcpy(data + 4 * i, &value, 4);
    else if (kind == CSL_BF16) memcpy(data + 2 * i, (uint8_t*)&bits + 2, 2);
    else data[i] = (uint8_t)(1 + bits % 255);  // int8 has no -128
  }
  for (size_t i = 0; i < values / 64; i++) scales[i] = (kind == CSL_INT4 ? 0x2600 : 0x1000) + i % 64;
  return {kind, rows, cols, 0, data, scales};
}

static csl_model make(int kind, std::vector<csl_layer>& layers) {
  for (int i = 0; i < LAYERS; i++)
    layers.push_back({matrix(kind, INNER + CONV + HEADS, D), matrix(kind, D, INNER), floats(D, .2f, 1), floats(4 * CONV, .5f, 0),
                      floats(CONV, .1f, 0), floats(16, 1, -3), floats(16, .5f, -2), floats(HEADS, .2f, 1), floats(INNER, .2f, 1)});
  return {D, LAYERS, VOCAB, N, 4, P, HEADS, GROUPS, 1e-5f, 0.0f, INFINITY, CSL_FP32, floats(VOCAB * D, 1, 0), floats(D, .2f, 1),
          matrix(kind == CSL_INT4 ? (int)CSL_INT8 : kind, VOCAB, D), layers.data()};
}

int main() {
  for (int kind = 0; kind < 4; kind++) {
    std::vector<csl_layer> layers;
    csl_model model = make(kind, layers);
    int64_t ids[TOKENS];
    for (auto& id : ids) id = (int64_t)((noise() + 1) * 34);
    std::vector<std::vector<float>> results;
    std::vector<bool> same;
    for (int n = 0; csl_isa(n); n++) {
      csl_engine* engine = csl_create(&model, csl_isa(n), 2);
      std::vector<float> conv(LAYERS * CONV * 3), ssm(LAYERS * HEADS * P * N), logits(TOKENS * LOGITS), step(LOGITS);
      csl_forward(engine, ids, 1, TOKENS, nullptr, nullptr, conv.data(), ssm.data(), logits.data(), TOKENS);
      bool equal = true;
      for (int t = 0; t < TOKENS; t++) {
        csl_forward(engine, ids + t, 1, 1, t ? conv.data() : nullptr, t ? ssm.data() : nullptr, conv.data(), ssm.data(), step.data(), 1);
        equal = equal && !memcmp(step.data(), &logits[t * LOGITS], VOCAB * 4);
      }
      results.push_back(logits);
      same.push_back(equal);
      csl_destroy(engine);
    }
    for (size_t i = 0; i < results.size(); i++) {
      double difference = 0;
      for (int t = 0; t < TOKENS; t++)
        for (int v = 0; v < VOCAB; v++) difference = std::fmax(difference, std::fabs(results[i][t * LOGITS + v] - results.back()[t * LOGITS + v]));
      printf("%d %s %d %.3g\n", kind, csl_isa((int)i), (int)same[i], difference);
    }
  }
}
