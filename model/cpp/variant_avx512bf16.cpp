// The kernels for one instruction set; setup.py gives this file its compiler flags.
#define CSL_NS avx512bf16
#define CSL_DPBF16 1
#include <cmath>

#include "isa_avx512.h"
// After the instruction set's names:
#include "maths.h"
#include "matmul.h"
#include "mixer.h"
// Last, the parts together:
#include "forward.h"

namespace csl {
extern const Variant variant_avx512bf16;
const Variant variant_avx512bf16 = {"avx512bf16", avx512bf16::forward, avx512bf16::read};
}  // namespace csl
