// Divisions by constants as products, for the GPU.
#pragma once

#include <cstdint>

namespace llvm {
class Module;
}

namespace halfstep {

// Writes each unsigned division and remainder by a constant, of numbers below 2^32, as a 64-bit product that is shifted
// by more than 32. LLVM leaves the last shift out where it knows the dividend to be small; what is then added to the
// upper half ptxas 12.8 to 13.0 puts into the product's own instruction, and takes two that differ in that addend alone
// for one: a concat read one piece where another stood. Runs after the optimiser, which knows most of the dividends.
void multiply_for_divisions(llvm::Module& module);

// x / divisor is the upper half of x * factor, shifted further.
struct DivisionProduct {
  uint32_t factor = 0;
  unsigned shift = 1;
  bool beyond = false;  // the factor is 2^32 more
};
// For all x of so many bits, at most 32; the divisor is above 2.
DivisionProduct division_product(uint32_t divisor, unsigned bits);

}  // namespace halfstep
