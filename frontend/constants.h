// Values known while importing: whatever depends on constants only is evaluated by the reference interpreter.
#pragma once

#include <optional>
#include <unordered_map>
#include <vector>

#include "ir/builder.h"
#include "ir/interpret.h"

namespace halfstep {

class ConstantEvaluator {
 public:
  explicit ConstantEvaluator(const Builder& builder) : builder_(builder) {}

  bool is_constant(Value v);  // also of an absent value
  // Nothing if the value is not constant, or has more elements than a host evaluation is meant for.
  std::optional<Tensor> evaluate(Value v);

 private:
  void evaluate_node(NodeId id);

  const Builder& builder_;
  std::vector<char> known_;  // by node, as far as asked for
  std::unordered_map<NodeId, std::vector<InterpretedTensor>> results_;
};

}  // namespace halfstep
