// The reference interpreter: slow, obvious, in double. Every result is rounded to its element type, except with
// Rounding::none, where floating values stay double (for central differences).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar.h"

namespace halfstep {

enum class Rounding : uint8_t { to_type, none };

struct InterpretedTensor {
  TensorType type;
  std::vector<double> values;  // row-major
};

struct InterpretOptions {
  Rounding rounding = Rounding::to_type;
  // Called for every node as it is evaluated, in order: traces, search for the first non-finite value.
  std::function<void(NodeId, const std::vector<InterpretedTensor>& results)> observe;
};

struct InterpretResult {
  std::map<Name, InterpretedTensor> outputs;
  std::map<Name, InterpretedTensor> updates;  // by the state leaf's name
};

// `leaves` holds a tensor for every input, state and parameter leaf by name. Throws Error if one is missing or of
// another type.
InterpretResult interpret(const Graph& graph, const NamedTensors& leaves, const InterpretOptions& options = {});
// Scalars as doubles, the interpreter's carrier.
std::unique_ptr<ScalarArithmetic> double_arithmetic();
// Results of one node on given operands.
std::vector<InterpretedTensor> interpret_node(const Node& node, std::span<const InterpretedTensor* const> operands,
                                              Rounding rounding);

}  // namespace halfstep
