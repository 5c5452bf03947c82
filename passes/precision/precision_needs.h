// What keeps a node of the forward graph in f32 although its row lets it follow or run low:
//
//   a constant beyond the low type: one that it turns into 0, infinity or 1, or that is below its normal numbers. What
//     meets it computes in f32, contractions too, and so do the functions that made what it meets (a sigmoid before `1
//     - 1e-7`); the contraction too, where the constant is a factor, since then one side of it is out of range. What
//     it is only put beside (the filler of a pad, a piece of a concat, rows of a scatter) moves in f32 as well.
//   positions and counts: a contraction of what is computed of integers alone (of 16 bits and more: bytes are pixels),
//     one over a single element (an outer product), one whose result a sine or a cosine takes.
//   a rounding for nothing: a value that is read in f32 alone, by an op that needs f32 or, a product or a sum, by a
//     reduction, is not rounded on the way.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "passes/precision/precision_rules.h"
#include "passes/rewrite/known_values.h"

namespace halfstep {

class PrecisionNeeds {
 public:
  // constants_and_positions: what torch does not leave to its user, constants beyond the range and contractions of
  // positions, for which its libraries switch autocast off.
  enum Scope : uint8_t { all, constants_and_positions, nothing };
  PrecisionNeeds(const Graph& graph, const std::vector<PrecisionClass>& classes, DType low, Scope scope);

  // Why the node computes in f32; "" if it need not.
  const std::string& reason(NodeId id) const { return reasons_[static_cast<size_t>(id)]; }
  // Weak values depend on no input: parameters, constants and what is computed of them alone.
  bool is_weak(Value v) const { return weak_[static_cast<size_t>(v.node)]; }
  // A weak value of one element, repeated or not, that is no weight with axes.
  bool is_scalar(Value v) const;
  // Whether the operand is added, and has one axis.
  bool is_like_bias(const Node& node, size_t operand) const;
  // A weak value that a pointwise op reads in f32 whatever else it reads: a scalar or a small constant that the low
  // type rounds.
  bool stays_wide(Value v);

 private:
  enum class Reading : uint8_t { low, wide, needs_wide };

  void find_weak();
  void look_at_constants(Scope scope);
  void look_at_contractions(Scope scope);
  void look_at_angles();
  void look_at_roundings();
  std::vector<char> find_low() const;
  Reading reading(NodeId id, NodeId user, const std::vector<char>& is_low_node, const std::vector<char>& widened) const;
  std::string beyond(std::span<const double> values) const;
  std::string beyond(const Node& node, size_t i);
  bool is_counted(const Node& node) const;
  void keep_makers(Value v, const std::string& why, bool contractions, bool all_operands);
  std::vector<Value> strong_operands(const Node& node) const;
  bool may_change(NodeId id) const;

  const Graph& graph_;
  const std::vector<PrecisionClass>& classes_;
  const DType low_;
  KnownValues known_;
  std::vector<char> weak_, counted_;
  std::vector<std::string> reasons_;
  std::vector<uint8_t> walked_;  // by keep_makers, for what
};

}  // namespace halfstep
