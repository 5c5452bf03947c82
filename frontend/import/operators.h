// The ONNX operators that can be imported: one row each, in family files joined here.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/import/node_context.h"

namespace halfstep {

// Builds the node's results in order; results at the end that nobody wants may be left out.
using ImportFunction = std::vector<Value> (*)(NodeContext&);

// The same for operators whose operands and results need not be tensors.
using BindFunction = std::vector<Binding> (*)(NodeContext&);

inline constexpr int kVariadic = 1 << 30;

struct OnnxOperator {
  std::string_view name;  // with its domain, if that is not the standard one: "com.microsoft.FusedMatMul"
  // Opset versions at which the operator's meaning or form changed, the first being the one that introduced it (or 1).
  // A version that only widens types is not listed: it means what the one before means.
  std::vector<int> versions;
  int least_operands;
  int most_operands;
  ImportFunction import;
  std::string_view limits = "";  // what is refused, for the documentation
  BindFunction bind = nullptr;   // instead of `import`
  // Whether operands may be of a type that is held in a wider one (frontend/onnx/narrow_types.h).
  enum NarrowOperands : uint8_t { refused, read } narrow_operands = refused;
};

std::span<const OnnxOperator> shape_operators();
std::span<const OnnxOperator> control_operators();
std::span<const OnnxOperator> sequence_operators();
std::span<const OnnxOperator> pointwise_operators();
std::span<const OnnxOperator> activation_operators();
std::span<const OnnxOperator> movement_operators();
std::span<const OnnxOperator> indexing_operators();
std::span<const OnnxOperator> order_operators();
std::span<const OnnxOperator> contraction_operators();
std::span<const OnnxOperator> einsum_operators();
std::span<const OnnxOperator> pooling_operators();
std::span<const OnnxOperator> spatial_operators();
std::span<const OnnxOperator> grid_operators();
std::span<const OnnxOperator> random_operators();
std::span<const OnnxOperator> reduction_operators();
std::span<const OnnxOperator> normalization_operators();
std::span<const OnnxOperator> attention_operators();
std::span<const OnnxOperator> microsoft_operators();
std::span<const OnnxOperator> loss_operators();
std::span<const OnnxOperator> recurrent_operators();
std::span<const OnnxOperator> training_operators();
std::span<const OnnxOperator> quantization_operators();
std::span<const OnnxOperator> integer_operators();
std::span<const OnnxOperator> signal_operators();
std::span<const OnnxOperator> state_operators();
std::span<const OnnxOperator> region_operators();
std::span<const OnnxOperator> selection_operators();

// All rows, sorted by name.
const std::vector<const OnnxOperator*>& onnx_operators();
const OnnxOperator* find_onnx_operator(std::string_view name);
// docs/operators.md.
std::string operators_markdown();

}  // namespace halfstep
