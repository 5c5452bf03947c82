// Initializers of no axes that are weights: a temperature, the factor of a residual branch. Most are numbers of a
// formula.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "frontend/onnx/model_proto.h"
#include "frontend/onnx/tensor_data.h"

namespace halfstep {

// Which of the main graph's floating initializers [] are weights. Such a one
//   - is a factor, a divisor or a summand of what depends on an input, or of a weight that such a value is multiplied
//     by: itself or what is computed of it and of constants alone. That it is compared with a constant too does not
//     matter;
//   - has a name that a person gave: neither numbered nor called after an operator or a number, as exporters do;
//   - holds no number of a formula: a whole one but 0 or 1, the root or the reciprocal of one, a small epsilon, pi and
//     its like. Without data the name decides.
struct ScalarWeights {
  std::set<std::string> weights;
  std::vector<std::string> numbers;  // that stand where weights could and are not numbered, but taken for none
  std::vector<std::string> others;   // with such a name, but computed with in another way
};
ScalarWeights find_scalar_weights(const onnx::GraphProto& graph, const TensorReader& reader);

}  // namespace halfstep
