// Rules of autocast: what the user, or a preset, says about the precision of operators and nodes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/op.h"
#include "passes/precision/presets.h"

namespace halfstep {

// What autocast may choose between.
inline bool is_castable(DType type) { return type == DType::f32 || is_low(type); }

// Overrides the precision class of the nodes that all of its selectors match; the last rule that matches decides. A
// node that stands for several (attention, a norm written out) runs in f32 if one of them is denied.
struct PrecisionRule {
  std::string pattern =
      {};  // an operator, or a pattern of node names (`*`, `?`, `[]`); empty, as the next ones: anything
  Precision precision = Precision::follow;
  std::string source = {};  // for the report: "deny list", "policy.toml:12"
  std::string node = {};
  std::string op = {};        // ours, or ONNX's
  std::string subgraph = {};  // a name scope: "encoder/layer.0"
  // With it the rule is about a slot alone: "result", an operand's index in the file, its name in the operator's row,
  // or that of the node or weight it comes from.
  std::string tensor = {};
  std::string reason = {};  // the user's own
  enum NameForm : uint8_t {
    glob,
    regex,
    literal
  } form = glob;  // of `pattern` and `node`; regex: from the name's start
  // checked: a user's that is known to match something. Of a preset without `op`: every node of the model.
  enum Author : uint8_t { user, preset, checked } author = user;
};
PrecisionRule allow_rule(std::string pattern);  // runs in the low type
PrecisionRule deny_rule(std::string pattern);   // runs in f32
PrecisionRule infer_rule(std::string pattern);  // follows its operands
// "policy.toml:12: operator 'Softmax'".
std::string to_string(const PrecisionRule& rule);

// The preset's rows as rules.
std::vector<PrecisionRule> preset_rules(const Preset& preset);

// The nodes of the file that graphs were made of.
struct SourceNodes {
  std::set<std::string> known_operators;            // that a rule may name, whether the model has them or not
  std::map<std::string, std::string> operators;     // ONNX operator by node name
  std::map<std::string, std::string> part_of = {};  // of a node that became part of another: that one's name
  std::map<std::string, std::string> scopes = {};   // the modules around a node, where the exporter tells: "encoder.0"
  // By node name, of each operand: the weight or input that it is, or the node that gives it.
  std::map<std::string, std::vector<std::string>> operands = {};
};

// For every node of `before` that bears a name which no node of `after` that computes on data does: the name, and that
// of the nearest node behind it (before it, if there is none) that is still there.
std::map<std::string, std::string> parts_taken_in(const Graph& before, const Graph& after);

// The precision class of a node, and the rule that decided; "" for the row.
struct PrecisionClass {
  Precision precision = Precision::follow;
  std::string source;
  std::string reason = {};  // the rule's own
  bool is_user = false;     // whether a user's rule decided
  bool is_fixed = false;    // whether a rule says another class than the operator's row, or a user's says the same
  bool has_row = true;      // of a preset without operator rows: whether anything decided
};

// What rules say of single operands and results of a node. One of what only moves an operand for the others of its node
// of the file (the reshape before a convolution) stands at what reads it.
struct SlotRule {
  std::optional<size_t> operand;  // of our operator; absent: the result
  Precision precision = Precision::follow;
  std::string source;
};

struct PrecisionClasses {
  std::vector<PrecisionClass> of;                 // each node of the graph
  std::map<NodeId, std::vector<SlotRule>> slots;  // in the order of the rules
  std::vector<std::string> remarks;               // rules that decide nothing, since later ones win
};

// `removed`: operators whose own row does not count. Error if a selector of a user's rule matches nothing.
PrecisionClasses precision_classes(const Graph& graph, const std::vector<PrecisionRule>& rules,
                                   const SourceNodes& sources, Preset::OperatorRows operator_rows = Preset::below,
                                   const std::vector<std::string>& removed = {});
// Where operand `operand` of a node of the graph stands in its node of the file; `operand` where that is not known.
size_t place_in_file(const Graph& graph, NodeId id, size_t operand, const SourceNodes& sources);
// Past what moves the operand inside its node of the file; the node whose value it is.
Value moved_from(const Graph& graph, NodeId reader, Value v);
// Whether the node only moves an operand for others of its node of the file.
bool moves_for_its_own(const Graph& graph, NodeId id, const std::vector<NodeId>& users);
// Whether the text names an operator, ours or ONNX's.
bool is_operator(const std::string& name, const SourceNodes& sources);

}  // namespace halfstep
