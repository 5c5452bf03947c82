// Rules of autocast: what the user, or a preset, says about the precision of operators and nodes.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ir/op.h"

namespace halfstep {

// Overrides the precision class of the nodes whose IR operator or ONNX operator is `pattern` or whose ONNX name matches
// it (`*`, `?`, `[]`). The last rule that matches decides. A node that stands for several (attention, a norm written
// out) runs in f32 if one of them is denied.
struct PrecisionRule {
  std::string pattern;
  Precision precision = Precision::follow;
  std::string source;  // for the report: "deny list"
};
PrecisionRule allow_rule(std::string pattern);  // runs in the low type
PrecisionRule deny_rule(std::string pattern);   // runs in f32
PrecisionRule infer_rule(std::string pattern);  // follows its operands

// "default": the rows as they are, but for ONNX operators that accumulate in several nodes. "torch": the rows with what
// torch.autocast does otherwise on CUDA. Error for another.
std::vector<PrecisionRule> autocast_preset(const std::string& name);

// The nodes of the file that graphs were made of.
struct SourceNodes {
  std::set<std::string> known_operators;            // that a rule may name, whether the model has them or not
  std::map<std::string, std::string> operators;     // ONNX operator by node name
  std::map<std::string, std::string> part_of = {};  // of a node that became part of another: that one's name
};

// For every node of `before` that bears a name which no node of `after` that computes on data does: the name, and that
// of the nearest node behind it (before it, if there is none) that is still there.
std::map<std::string, std::string> parts_taken_in(const Graph& before, const Graph& after);

// The precision class of a node, and the rule that decided; "" for the row.
struct PrecisionClass {
  Precision precision = Precision::follow;
  std::string source;
};
// For each node of the graph. Error if a rule's pattern is no operator and matches no node.
std::vector<PrecisionClass> precision_classes(const Graph& graph, const std::vector<PrecisionRule>& rules,
                                              const SourceNodes& sources);

}  // namespace halfstep
