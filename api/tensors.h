// The caller's tensors against those of a program: what fits is bound, all that does not is said at once.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "data/data.h"
#include "include/halfstep/halfstep.h"
#include "program/program.h"

namespace halfstep {

// A value that a program takes or gives, under the caller's name for it.
struct ProgramValue {
  std::string name;
  TensorType type;
  std::string buffer;  // its name in the program
};
using ProgramValues = std::vector<ProgramValue>;

// The data of each of `values`, in their order. Throws ArgumentError: one is missing, unknown, given twice, of another
// type or shape, or NULL.
std::vector<const std::byte*> bind_inputs(const ProgramValues& values, std::span<const halfstep_input> inputs);
// For each of `outputs` the value it names. Throws ArgumentError likewise.
std::vector<const ProgramValue*> bind_outputs(const ProgramValues& values, std::span<const halfstep_output> outputs);
// Throws Error naming the input and the first value that chooses no class or row, or is no bool.
void check_values(const ProgramValues& values, std::span<const std::byte* const> data, const ValueRanges& ranges);

}  // namespace halfstep
