// The kernels for one instruction set; setup.py gives this file its compiler flags.
#define CSL_NS portable
#include <cmath>

#include "isa_portable.h"
// After the instruction set's names:
#include "maths.h"
#include "matmul.h"
#include "mixer.h"
// Last, the parts together:
#include "forward.h"

namespace csl {
extern const Variant variant_portable;
const Variant variant_portable = {"portable", portable::forward, portable::read};
}  // namespace csl
