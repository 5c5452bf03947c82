// How an emitter's vectors lie.
#pragma once

#include <llvm/IR/DerivedTypes.h>

#include "codegen/kernel/kernel_index.h"
#include "program/program.h"

namespace halfstep {

struct LaneConfig {
  DeviceKind device = DeviceKind::cpu;
  AtomId variable = -1;  // -1: none
  unsigned lanes = 1;    // every base of the lane variable is a multiple of this
  llvm::IntegerType* index_type = nullptr;
  unsigned register_bytes = 64;  // of the widest vector register; no masked access is wider
  bool rare_equalities = false;  // a label's place and a row's greatest element stand behind a branch
  bool long_rows = false;        // on the GPU: rows that do not fit registers
};

}  // namespace halfstep
