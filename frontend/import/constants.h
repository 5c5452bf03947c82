// Values known while importing: whatever depends on constants only is evaluated.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "frontend/import/budget.h"
#include "ir/builder.h"
#include "ir/graph.h"

namespace halfstep {

class ConstantEvaluator {
 public:
  ConstantEvaluator(const Builder& builder, const ImportBudget& budget) : builder_(builder), budget_(budget) {}

  bool is_constant(Value v);  // also of an absent value
  // Nothing if the value is not constant, has more elements than a host evaluation is meant for, would take the
  // evaluations of this import beyond the budget, or sums integers beyond 2^53.
  std::optional<Tensor> evaluate(Value v);
  // Why `evaluate` gives nothing: "it depends on the data", the budget, or its integers.
  std::string reason(Value v);

 private:
  // Nodes that are yet to be evaluated for v, and whether the budget allows it.
  std::set<NodeId> needed_for(Value v) const;
  bool is_within_budget(const std::set<NodeId>& nodes) const;
  void evaluate_node(NodeId id);

  const Builder& builder_;
  const ImportBudget budget_;
  double bytes_ = 0, operations_ = 0;                        // evaluated so far
  std::vector<char> known_;                                  // by node, as far as asked for
  std::unordered_map<NodeId, std::vector<Tensor>> results_;  // empty where integers are too large to follow
};

}  // namespace halfstep
