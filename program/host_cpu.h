// Which CPU this is, and whether kernels compiled for another one run here.
#pragma once

#include <string>

#include "program/program.h"

namespace halfstep {

// Model name and a checksum of the features as the kernel lists them.
std::string host_fingerprint();

// Throws Error if the kernels need what this CPU lacks. The generic levels x86-64 to x86-64-v4 are checked against the
// CPU; any other name is accepted on the CPU that compiled it: its notes name it, or this process is that.
void check_host_runs(const CompiledModel& model);

}  // namespace halfstep
