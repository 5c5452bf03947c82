// Values that an exporter made for its own sizes: copies, position ids, masks. Where one meets a value that is read at
// another size, it is made again for that size, if its content proves how it goes on.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "frontend/import/constants.h"
#include "ir/builder.h"

namespace halfstep {

// The part of an axis that is to have another size: the axis is [outer, from, inner], and `from` becomes `to`. Where a
// reshape merged the batch into it, the rest of it stands outside or inside.
struct AxisPart {
  size_t axis;
  int64_t from, to;
  int64_t outer = 1, inner = 1;
  int64_t size() const { return outer * to * inner; }
  bool is_whole() const { return outer == 1 && inner == 1; }
  auto operator<=>(const AxisPart&) const = default;
};

// `tensor` with `axis` of another size. Proven are equal slices; an arithmetic sequence of integers (of two: 0 and
// another); a function of the distance to another axis (a causal mask, relative positions), whose growth must be a
// single step. `proof` is what `tensor` was before other axes of it were resized, which may leave too few elements to
// prove anything.
std::optional<Tensor> continue_pattern(const Tensor& tensor, size_t axis, int64_t size, const Tensor& proof);
// Whether every slice along `axis` is the same.
bool repeats(const Tensor& tensor, size_t axis);
Tensor repeat(const Tensor& tensor, size_t axis, int64_t size);  // the first slice, `size` times
inline Tensor first_slice(const Tensor& tensor, size_t axis) { return repeat(tensor, axis, 1); }

class Respecialisation {
 public:
  // Gives a parameter or state that repeats itself along an axis as a leaf of size 1 there; throws Error if it does
  // not.
  using RepeatedLeaf = std::function<Value(const Node& leaf, size_t axis)>;

  Respecialisation(Builder& builder, ConstantEvaluator& constants, RepeatedLeaf repeated_leaf)
      : builder_(builder), constants_(constants), repeated_leaf_(std::move(repeated_leaf)) {}

  // `v` with a part of an axis of another size. Throws Error that says what cannot be proven.
  Value resize(Value v, const AxisPart& part);

 private:
  Value resize_node(Value v, const AxisPart& part);
  Value resize_constant(Value v, const Tensor& value, const AxisPart& part);
  // `axes`: the axis of each operand whose slices make the result's; none: it is the same for all of them.
  Value resize_operands(const Node& node, const std::vector<std::optional<size_t>>& axes, const AxisPart& part);
  Value resize_reshape(const Node& node, const AxisPart& part);
  Value resize_slice(const Node& node, const AxisPart& part);
  Value resize_gather(const Node& node, const AxisPart& part);

  Builder& builder_;
  ConstantEvaluator& constants_;
  RepeatedLeaf repeated_leaf_;
  std::map<std::pair<Value, AxisPart>, Value> resized_;
  std::map<Value, Tensor> proofs_;  // of constants made here
  int depth_ = 0;
};

}  // namespace halfstep
