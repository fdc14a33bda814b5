// The kernels for one instruction set; setup.py gives this file its compiler flags.
#define CSL_NS avx2
#define CSL_AVXVNNI 0
#include <cmath>

#include "isa_avx2.h"
// After the instruction set's names:
#include "maths.h"
#include "matmul.h"
#include "mixer.h"
// Last, the parts together:
#include "forward.h"

namespace csl {
extern const Variant variant_avx2;
const Variant variant_avx2 = {"avx2", avx2::forward, avx2::read};
}  // namespace csl
