// LLVM's side of a kernel target.
#pragma once

#include <llvm/IR/Module.h>
#include <llvm/Target/TargetMachine.h>

#include <memory>
#include <string>

#include "codegen/target/target.h"

namespace halfstep {

// Throws Error if LLVM does not know the architecture or it lacks what kernels need.
std::unique_ptr<llvm::TargetMachine> create_target_machine(const KernelTarget& target);
// f32 values in the widest vector register of a CPU.
unsigned vector_floats(const llvm::TargetMachine& machine);

// Optimises `module` and compiles it to PTX text or an ELF object.
std::string compile_module(llvm::Module& module, llvm::TargetMachine& machine, DeviceKind device);
// An ELF object as a shared object.
std::string link_shared_object(const std::string& object);

}  // namespace halfstep
