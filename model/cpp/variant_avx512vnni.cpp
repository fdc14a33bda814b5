// The kernels for one instruction set; setup.py gives this file its compiler flags.
#define CSL_NS avx512vnni
#define CSL_DPBF16 0
#include <cmath>

#include "isa_avx512.h"
// After the instruction set's names:
#include "maths.h"
#include "matmul.h"
#include "mixer.h"
// Last, the parts together:
#include "forward.h"

namespace csl {
extern const Variant variant_avx512vnni;
const Variant variant_avx512vnni = {"avx512vnni", avx512vnni::forward, avx512vnni::read};
}  // namespace csl
