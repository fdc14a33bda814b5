// The kernels for one instruction set; setup.py gives this file its compiler flags.
#define CSL_NS avxvnni
#define CSL_AVXVNNI 1
#include <cmath>

#include "isa_avx2.h"
// After the instruction set's names:
#include "maths.h"
#include "matmul.h"
#include "mixer.h"
// Last, the parts together:
#include "forward.h"

namespace csl {
extern const Variant variant_avxvnni;
const Variant variant_avxvnni = {"avxvnni", avxvnni::forward, avxvnni::read};
}  // namespace csl
