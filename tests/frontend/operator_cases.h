// One node with what it computes: the cases of operators_test.cpp.
#pragma once

#include <string>
#include <vector>

#include "test_model.h"

namespace halfstep::test {

// An operand: fed when the model runs, known when it is compiled, or left out.
struct Operand {
  enum Kind { data, known, absent } kind;
  Tensor tensor;
};
inline Operand x(const Shape& shape, const std::vector<double>& values) {
  return {Operand::data, floats(shape, values)};
}
inline Operand x(const Tensor& tensor) { return {Operand::data, tensor}; }
inline Operand known(const Tensor& tensor) { return {Operand::known, tensor}; }
inline Operand absent() { return {Operand::absent, {}}; }
inline Operand bools(const Shape& shape, const std::vector<double>& values) {
  return {Operand::data, Tensor::from_values({DType::boolean, shape}, values)};
}

struct Case {
  std::string op;
  int64_t opset;
  std::vector<Operand> operands;
  AttributeList attributes;
  std::vector<std::vector<double>> results;  // "" of a result that is not asked for: empty
};

// Norms, attention and the fused operators of com.microsoft.
std::vector<Case> attention_cases();
// Optimizer steps.
std::vector<Case> training_cases();
std::vector<Case> quantization_cases();
// Samples of images.
std::vector<Case> grid_cases();
// Signals, bits, integer products, regions, and what the newest opsets added.
std::vector<Case> newer_cases();

}  // namespace halfstep::test
