// One kernel as an LLVM function with a launch shape, for either target.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "codegen/emit/emit_expression.h"
#include "codegen/emit/module.h"

namespace halfstep {

struct LaunchShape {
  std::array<int64_t, 3> grid{1, 1, 1};
  int64_t block = 1;
  int64_t resident = 1;  // blocks whose registers a processor must hold at once, and no more need fit
  int64_t units = 1;
  int64_t shared = 0;  // bytes of a block's shared memory beyond its own that it makes use of, if it gets them
};

// `vector_floats`: f32 values in a vector register.
LaunchShape emit_host_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name,
                             unsigned vector_floats);
LaunchShape emit_device_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name);

// What both share.

// How a kernel uses an argument. Arguments may lie in the same memory if one is an output whose every element is stored
// where the other is read; they are `shared`. All others are not written by anyone while the kernel runs, or by it
// only.
struct ArgumentUse {
  bool written = false, shared = false;
};
std::vector<ArgumentUse> argument_uses(const Kernel& kernel);
// Of the kernels of one region, which run in order.
std::vector<Overlay> overlays(std::span<const Kernel> kernels);

// `name`(pointer to each argument but the tables, then `more`), with what is known about its pointers.
llvm::Function* declare_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name,
                               const std::vector<ArgumentUse>& uses, unsigned address_space,
                               const std::vector<llvm::Type*>& more);
// The pointers to all arguments inside it; tables become constants of the module.
Values argument_pointers(llvm::Module& module, const Kernel& kernel, llvm::Function* function, unsigned address_space);
std::unique_ptr<ExpressionEmitter> make_emitter(llvm::IRBuilder<>& ir, const Kernel& kernel, LaneConfig config,
                                                Values pointers, const std::vector<ArgumentUse>& uses);

// The reductions of one phase and what their accumulators start from, as vectors of `lanes`.
std::vector<size_t> reductions_of_phase(const Kernel& kernel, int phase);
int phase_count(const Kernel& kernel);
std::vector<ExpressionId> operands_of(const Kernel& kernel, const std::vector<size_t>& reductions);
Values initial_accumulators(ExpressionEmitter& emitter, const Kernel& kernel, const std::vector<size_t>& reductions,
                            unsigned lanes);
// accumulators[i] combined with the operand of reductions[i]; where `counts` (a scalar, a vector or nullptr) is false,
// as before.
Values accumulate(ExpressionEmitter& emitter, const Kernel& kernel, const std::vector<size_t>& reductions,
                  const Values& accumulators, llvm::Value* counts);
// All lanes of a vector combined, pairwise.
llvm::Value* combine_lanes(ExpressionEmitter& emitter, const Reduction& reduction, llvm::Value* vector);
// Whether indices of points and of elements do.
bool fits_32_bits(const Kernel& kernel);
// Loads whose place depends on `walked`.
int64_t loads_along(const Kernel& kernel, VariableSet walked);
VariableSet variables_of(const Kernel& kernel, std::span<const AtomId> variables);

}  // namespace halfstep
