// Values known while importing: whatever depends on constants only is evaluated by the reference interpreter.
#pragma once

#include <optional>
#include <unordered_map>

#include "ir/builder.h"
#include "ir/interpret.h"

namespace halfstep {

class ConstantEvaluator {
 public:
  explicit ConstantEvaluator(const Builder& builder) : builder_(builder) {}

  bool is_constant(Value v);
  // Nothing if the value is not constant, or has more elements than a host evaluation is meant for.
  std::optional<Tensor> evaluate(Value v);

 private:
  const std::vector<InterpretedTensor>& results(NodeId id);

  const Builder& builder_;
  std::unordered_map<NodeId, bool> known_;
  std::unordered_map<NodeId, std::vector<InterpretedTensor>> results_;
};

}  // namespace halfstep
