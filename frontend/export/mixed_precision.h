// A model whose nodes compute in the types that they were assigned: casts where these meet, weights stored as they are
// read.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "frontend/onnx/onnx_model.h"

namespace halfstep {

struct NodeAssignment {
  DType type = DType::f32;  // that it computes in
  std::string reason;       // empty: none is written
  // Of a node in f32: operands, by index, that are rounded to the low type first; whether its first result is.
  std::vector<size_t> rounded_operands = {};
  bool rounds_result = false;
};

struct MixedPrecision {
  DType low = DType::f16;
  // By the name of the node's first result. A node that is not here has the type of what it reads.
  std::map<std::string, NodeAssignment> nodes;
};

struct MixedModel {
  OnnxModel model;
  int64_t low_nodes = 0, casts = 0, low_weights = 0;
  int64_t weight_bytes = 0, weight_bytes_before = 0;
  // Weights with values that the low type turns into 0 or infinity, and how many.
  std::vector<std::pair<std::string, int64_t>> lost_weights = {};
};

// `model` is one of inference. Its inputs and outputs keep their types. What stays f32 whatever is assigned: nodes with
// branches or bodies and what those read, operators of other domains, what the operator's version in the file has no
// low type for, and nodes beside small constants that the low type would round. Nodes have metadata halfstep.precision
// and halfstep.reason, which is that of f32 where it is not what was assigned.
MixedModel mixed_precision(OnnxModel model, const MixedPrecision& assignment);

}  // namespace halfstep
