// Which CPU this is, and whether kernels compiled for another one run here.
#pragma once

#include <string>

#include "program/program.h"

namespace halfstep {

// The key in CompiledModel.notes under which a saved step keeps host_fingerprint() of the machine that compiled it.
inline constexpr const char* kHostNote = "host";

// Model name and a checksum of the features as the kernel lists them.
std::string host_fingerprint();

// Throws Error if the kernels need what this CPU lacks. The generic levels x86-64 to x86-64-v4 are checked against the
// CPU; any other name is accepted on the CPU that compiled it: from notes, or without a note, this process did.
void check_host_runs(const CompiledModel& model);

}  // namespace halfstep
