// The caller's tensors against those of a program: what fits is bound, all that does not is said at once.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "data/data.h"
#include "include/halfstep/halfstep.h"
#include "program/program.h"
#include "runtime/executor.h"

namespace halfstep {

// A value that a program takes or gives, under the caller's name for it.
struct ProgramValue {
  std::string name;
  TensorType type;
  Name buffer;  // its name in the program
};
using ProgramValues = std::vector<ProgramValue>;

// Of the step; its index among GPUs.
struct DevicePlace {
  const Executor& executor;
  int index = 0;
};

// The caller's data of a value.
struct BoundInput {
  const std::byte* data = nullptr;
  bool on_device = false;  // in memory of the step's GPU
};
struct BoundOutput {
  const ProgramValue* value = nullptr;
  void* data = nullptr;
  bool on_device = false;
};

halfstep_tensor tensor_of(const halfstep_input& input);
// Throws ArgumentError for a type that has no halfstep_dtype.
void read_dlpack(const void* dltensor, halfstep_tensor& tensor);

// The data of each of `values`, in their order. Throws ArgumentError: one is missing, unknown, given twice, of another
// type or shape, not dense, NULL or where the step cannot read it.
std::vector<BoundInput> bind_inputs(const ProgramValues& values, std::span<const halfstep_tensor> inputs,
                                    const DevicePlace& step);
// For each of `outputs` the value it names. Throws ArgumentError likewise.
std::vector<BoundOutput> bind_outputs(const ProgramValues& values, std::span<const halfstep_output> outputs);
std::vector<BoundOutput> bind_outputs(const ProgramValues& values, std::span<const halfstep_tensor> outputs,
                                      const DevicePlace& step);

// Whether not every value of the type is one of this input.
bool is_checked(const ProgramValue& value, const ValueRanges& ranges);
// Throws Error naming the input and the first value that chooses no class or row, or is no bool. Those that are checked
// lie on the host.
void check_values(const ProgramValues& values, std::span<const BoundInput> inputs, const ValueRanges& ranges);

}  // namespace halfstep
