// Gives every node of the forward graph a precision and inserts the casts, one per value and type:
//
//   %1 = matmul(%x, %w) : f32                     %1 = matmul(cast(%x), cast(%w)) : f16
//   %2 = relu(%1) : f32                     ->    %2 = relu(%1) : f16
//   %3 = exp(%2) : f32                            %3 = exp(cast(%2)) : f32
//
// What an op needs is a column of its row (ir/op.h), which rules may override by operator or node name. Parameters and
// constants do not promote what they meet, unless the low type cannot hold the constant. Runs before differentiate, so
// that saved activations are low, backward nodes inherit their precision, and a parameter's gradient is f32. Leaves,
// integers, booleans, f64, explicit casts and `keep` operands (statistics) stay as they are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/op.h"

namespace halfstep {

// Overrides the precision class of the nodes whose IR operator or ONNX operator is `pattern` or whose ONNX name matches
// it (`*`, `?`, `[]`). The last rule that matches decides.
struct PrecisionRule {
  std::string pattern;
  Precision precision = Precision::follow;
  std::string source;  // for the report: "deny list"
};
PrecisionRule allow_rule(std::string pattern);  // runs in the low type
PrecisionRule deny_rule(std::string pattern);   // runs in f32
PrecisionRule infer_rule(std::string pattern);  // follows its operands

struct AutocastOptions {
  std::optional<DType> low = DType::f16;  // absent: everything stays f32
  std::vector<PrecisionRule> rules = {};
};

// "default": the rows as they are. "torch": the rows with what torch.autocast does otherwise on CUDA. Error for
// another.
std::vector<PrecisionRule> autocast_preset(const std::string& name);

// One row of the precision table for each operator node that computes on data.
struct PrecisionRow {
  Origin origin;
  std::string op;
  DType operand = DType::f32;        // as read; of several, the first that autocast may cast
  std::optional<DType> accumulator;  // absent: nothing is computed
  DType result = DType::f32;
  std::string reason;
};
using AutocastReport = std::vector<PrecisionRow>;

// Error if a rule's pattern is no operator and matches no node. `report` may be nullptr.
Graph autocast(const Graph& graph, const AutocastOptions& options, AutocastReport* report = nullptr);

}  // namespace halfstep
