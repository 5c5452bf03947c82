// Parameters that an exporter took for one because their values were equal: fresh layer norms share their ones and
// zeros, and biases their zeros with them. PyTorch trains each on its own.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"
#include "frontend/onnx/ties.h"

namespace halfstep {

// Where a node of the main graph reads a parameter.
struct ParameterUse {
  int node = 0, operand = 0;
};

// One of the parameters that an initializer stands for. A module that is called several times uses it several times.
struct MergedParameter {
  std::string name;  // the initializer's for the first, else of the module or node that uses it: "encoder.1.norm.bias"
  std::vector<ParameterUse> uses;
};

struct SharedInitializer {
  const onnx::TensorProto* tensor = nullptr;
  std::vector<MergedParameter> parameters;  // two or more, by first use
};

// Merged are vectors of one value that operators read where they have parameters. Uses are of one parameter, a tied
// one, if the exporter wrote the same module beside the nodes, or if both stand the same way to a shared matrix: where
// a layer is called twice its matrices are shared too. Where the data is missing, every vector counts that is read
// nowhere else.
std::vector<SharedInitializer> find_merged_parameters(const onnx::GraphProto& graph, const TensorReader& reader,
                                                      const std::map<std::string, Tie>& ties);

}  // namespace halfstep
