// One weight that an exporter wrote as two initializers: an embedding table that is the output projection too appears a
// second time, often transposed. They are trained as one.
#pragma once

#include <map>
#include <string>

#include "frontend/onnx/tensor_data.h"

namespace halfstep {

struct Tie {
  std::string to;  // the initializer that is trained
  enum Orientation : uint8_t { same, transposed } orientation = same;
};

// By the name of the initializer that repeats another. A tie is seen in the data: matrices of the same values, not all
// alike. Where the data is missing there are none.
std::map<std::string, Tie> find_ties(const onnx::GraphProto& graph, const TensorReader& reader);

// What the repeating initializer holds.
Tensor tied_value(const Tie& tie, const Tensor& of);

}  // namespace halfstep
