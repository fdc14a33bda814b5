// The kernels for one instruction set; setup.py gives this file its compiler flags.
#define CSL_NS neon
#include <cmath>

#include "isa_neon.h"
// After the instruction set's names:
#include "maths.h"
#include "matmul.h"
#include "mixer.h"
// Last, the parts together:
#include "forward.h"

namespace csl {
extern const Variant variant_neon;
const Variant variant_neon = {"neon", neon::forward, neon::read};
}  // namespace csl
