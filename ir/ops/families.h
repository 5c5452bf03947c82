// The operator families and what their rows share. Each family file defines one span of rows; table.cpp joins them.
#pragma once

#include <concepts>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {

std::span<const Op> leaf_ops();
std::span<const Op> pointwise_ops();
std::span<const Op> movement_ops();
std::span<const Op> indexing_ops();
std::span<const Op> reduction_ops();
std::span<const Op> window_ops();
std::span<const Op> depthwise_ops();
std::span<const Op> contraction_ops();
std::span<const Op> composite_ops();
std::span<const Op> normalization_ops();
std::span<const Op> attention_ops();
std::span<const Op> flash_attention_ops();
std::span<const Op> recurrent_ops();
std::span<const Op> resample_ops();

namespace ops {

// `ok` or an Error that the builder completes with the op and the node.
inline void expect(bool ok, std::string_view otherwise) {
  if (!ok) throw Error(std::string(otherwise));
}
// The text is only made for the error: the rules of common ops are asked at every node.
template <std::invocable Text>
void expect(bool ok, const Text& otherwise) {
  if (!ok) throw Error(otherwise());
}

inline size_t rank(const TensorType& type) { return type.shape.size(); }

// The axis as an index; Error unless -1 < axis < rank.
inline size_t axis_of(const Attributes& attributes, size_t rank) {
  const int64_t axis = attributes.integer("axis");
  expect(axis >= 0 && axis < static_cast<int64_t>(rank),
         "axis " + std::to_string(axis) + " is outside rank " + std::to_string(rank));
  return static_cast<size_t>(axis);
}

// A per-axis list of length `count`; an empty one stands for `otherwise` everywhere.
inline Ints per_axis(const Attributes& attributes, std::string_view name, size_t count, int64_t otherwise) {
  const Ints& values = attributes.ints(name);
  if (values.empty()) return Ints(count, otherwise);
  expect(values.size() == count, "'" + std::string(name) + "' has " + std::to_string(values.size()) + " entries, " +
                                     std::to_string(count) + " expected");
  return values;
}

// The axes of a resize rule where slices along `axis` are made of operand 0's, if `applies`.
inline std::optional<OperandAxes> axis_of_first(const Node& node, size_t axis, bool applies) {
  if (!applies) return std::nullopt;
  OperandAxes axes(node.operands.size());
  axes[0] = axis;
  return axes;
}
// Images of a batch, each for itself.
inline std::optional<OperandAxes> resize_batch(const Node& node, size_t axis) {
  return axis_of_first(node, axis, axis == 0);
}

// Sliding windows over the spatial axes of a channels-last tensor: the geometry shared by convolution and pooling.
struct WindowGeometry {
  Ints window, strides, pads_begin, pads_end, dilations;
  int64_t output_size(size_t axis, int64_t input_size) const;
  // The input position that window element `element` of output `output` reads; outside [0, size) it is padding.
  int64_t input_position(size_t axis, int64_t output, int64_t element) const {
    return output * strides[axis] - pads_begin[axis] + element * dilations[axis];
  }
};
WindowGeometry window_geometry(const Attributes& attributes, Ints window);
// The attributes of windows, and `more`.
std::vector<AttributeSpec> window_attributes(std::vector<AttributeSpec> more);
// What windows over x [N, spatial..., C] give: x's type, [N, out..., C].
TensorType windowed_type(const TensorType& x, const WindowGeometry& g);
// The x, by the attribute "spatial", whose windows give operand 0: the type rule of their gradient.
TensorType unwindowed_type(const TypeContext& c);
// A window whose elements are weighted by operand 1, [window..., C].
inline bool has_filter(const Op& op) {
  return op.kernel == KernelKind::window && op.combine == ScalarOp::add && op.operands.size() == 2;
}
Shape spatial_of(const Shape& channels_last);

// Calls `visit(index)` for every multi-index of `shape`, row-major.
template <typename Visit>
void for_each_index(const Shape& shape, Visit&& visit) {
  Ints index(shape.size(), 0);
  for (int64_t d : shape)
    if (d == 0) return;
  while (true) {
    visit(static_cast<const Ints&>(index));
    size_t axis = shape.size();
    while (axis > 0 && ++index[axis - 1] == shape[axis - 1]) index[--axis] = 0;
    if (axis == 0) return;
  }
}

inline int64_t linear_index(const Ints& index, const std::vector<int64_t>& strides) {
  int64_t at = 0;
  for (size_t i = 0; i < index.size(); ++i) at += index[i] * strides[i];
  return at;
}

}  // namespace ops
}  // namespace halfstep
