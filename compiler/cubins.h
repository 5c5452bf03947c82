// Machine code for GPUs from a compiled step's PTX, by NVIDIA's ptxas.
#pragma once

#include <string>

#include "program/program.h"

namespace halfstep {

// Adds to `model` machine code for each of `architectures`, "sm_80,sm_90". Throws Error, all problems at once, where
// one of them is none or runs no such PTX, the model is for another device, or ptxas is not found or refuses.
void add_cubins(CompiledModel& model, const std::string& architectures);

}  // namespace halfstep
