// Composite operators: known to the passes as one op, expanded to primitive ones before fusion. What they compute is in
// f32 inside, whatever they read and write.
#include <limits>

#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::axis_of;
using ops::expect;
using ops::rank;

std::vector<TensorType> along_axis_type(const TypeContext& c) {
  axis_of(c.attributes, rank(c.operand(0)));
  expect(is_floating(c.operand(0).dtype), "a floating operand expected, found " + to_string(c.operand(0)));
  return {c.operand(0)};
}

// Everything a softmax over one axis needs, in f32; `axis` stays with size 1 in maximum and log_sum.
struct SoftmaxParts {
  Value x, shifted, exponentials, sum, log_sum;
};

SoftmaxParts softmax_parts(Builder& b, Value x, int64_t axis) {
  SoftmaxParts p;
  p.x = b.cast(x, DType::f32);
  const Shape shape = b.shape(x);
  const Value maximum = b.call("reduce_max", {p.x}, {{"axes", Ints{axis}}});
  p.shifted = b.sub(p.x, b.broadcast(maximum, shape));
  p.exponentials = b.unary("exp", p.shifted);
  p.sum = b.call("reduce_sum", {p.exponentials}, {{"axes", Ints{axis}}});
  p.log_sum = b.unary("log", p.sum);
  return p;
}

Value sum_along(Builder& b, Value x, int64_t axis) {
  return b.broadcast(b.call("reduce_sum", {x}, {{"axes", Ints{axis}}}), b.shape(x));
}

std::vector<Value> expand_softmax(const ExpandContext& c) {
  const SoftmaxParts p = softmax_parts(c.builder, c.operands[0], c.node.attributes.integer("axis"));
  return {c.builder.cast(c.builder.div(p.exponentials, p.sum), c.node.results[0].dtype)};
}

// dx = y (dy - sum(dy y)).
std::vector<Value> softmax_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value dy = b.cast(c.cotangents[0], DType::f32), y = b.cast(c.results[0], DType::f32);
  const Value inner = sum_along(b, b.mul(dy, y), c.node.attributes.integer("axis"));
  return {b.cast(b.mul(y, b.sub(dy, inner)), b.dtype(c.operands[0]))};
}

std::vector<Value> expand_log_softmax(const ExpandContext& c) {
  const SoftmaxParts p = softmax_parts(c.builder, c.operands[0], c.node.attributes.integer("axis"));
  return {c.builder.cast(c.builder.sub(p.shifted, p.log_sum), c.node.results[0].dtype)};
}

// dx = dy - exp(y) sum(dy).
std::vector<Value> log_softmax_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value dy = b.cast(c.cotangents[0], DType::f32), y = b.cast(c.results[0], DType::f32);
  const Value total = sum_along(b, dy, c.node.attributes.integer("axis"));
  return {b.cast(b.sub(dy, b.mul(b.unary("exp", y), total)), b.dtype(c.operands[0]))};
}

std::vector<TensorType> cross_entropy_type(const TypeContext& c) {
  const TensorType &logits = c.operand(0), &labels = c.operand(1);
  expect(rank(logits) == 2 && is_floating(logits.dtype), "logits [N, C] expected, found " + to_string(logits));
  expect(labels == TensorType{DType::i64, {logits.shape[0]}},
         "labels " + to_string(TensorType{DType::i64, {logits.shape[0]}}) + " expected, found " + to_string(labels));
  return {{DType::f32, {logits.shape[0]}}};
}

// Positions on an axis, in the narrowest type that kernels compute with.
Value narrow_iota(Builder& b, const Shape& shape, int64_t axis) {
  const Value position = b.call("iota", {}, {{"shape", shape}, {"axis", axis}});
  const bool fits = shape[static_cast<size_t>(axis)] < std::numeric_limits<int32_t>::max();
  return fits ? b.cast(position, DType::i32) : position;
}

// [N, C]: which class each row's label names; [N, 1]: whether the row counts.
struct LabelMasks {
  Value one_hot, valid;
};

LabelMasks label_masks(Builder& b, const Shape& shape, Value labels, int64_t ignore_index) {
  const Value column = b.reshape(labels, {shape[0], 1});
  const Value classes = narrow_iota(b, shape, 1);
  const Value none = b.constant_like(column, -1), end = b.constant_like(column, static_cast<double>(shape[1]));
  const Value label = b.cast(b.call("max", {b.call("min", {column, end}), none}), b.dtype(classes));
  const Value one_hot = b.call("eq", {classes, b.broadcast(label, shape)});
  return {one_hot, b.unary("not", b.call("eq", {column, b.constant_like(column, static_cast<double>(ignore_index))}))};
}

// log(sum(exp(x))) - sum(target x), 0 where the label is ignore_index; a target is 1 for the label and 0 elsewhere,
// mixed with 1 / C everywhere by the share of smoothing.
std::vector<Value> expand_cross_entropy(const ExpandContext& c) {
  Builder& b = c.builder;
  const SoftmaxParts p = softmax_parts(b, c.operands[0], 1);
  const LabelMasks masks = label_masks(b, b.shape(p.x), c.operands[1], c.node.attributes.integer("ignore_index"));
  const Value picked =
      b.call("reduce_sum", {b.select(masks.one_hot, p.shifted, b.constant_like(p.x, 0))}, {{"axes", Ints{1}}});
  const double smoothing = c.node.attributes.number("smoothing");
  Value target = picked;
  if (smoothing != 0) {
    const Value all = b.call("reduce_sum", {p.shifted}, {{"axes", Ints{1}}});
    target = b.add(b.mul(picked, 1 - smoothing), b.mul(all, smoothing / static_cast<double>(b.shape(p.x)[1])));
  }
  const Value loss = b.sub(p.log_sum, target);
  return {b.reshape(b.select(masks.valid, loss, b.constant_like(loss, 0)), c.node.results[0].shape)};
}

// dx = (softmax(x) - target) dy.
std::vector<Value> cross_entropy_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const SoftmaxParts p = softmax_parts(b, c.operands[0], 1);
  const LabelMasks masks = label_masks(b, b.shape(p.x), c.operands[1], c.node.attributes.integer("ignore_index"));
  const Value row = b.reshape(b.cast(c.cotangents[0], DType::f32), {b.shape(p.x)[0], 1});
  const Value weight = b.select(masks.valid, row, b.constant_like(row, 0));
  const double smoothing = c.node.attributes.number("smoothing");
  const Value y = b.mul(p.exponentials, b.unary("reciprocal", p.sum));
  Value difference = b.select(masks.one_hot, b.sub(y, b.constant_like(y, 1)), y);
  if (smoothing != 0) {
    const double share = smoothing / static_cast<double>(b.shape(p.x)[1]);
    difference = b.sub(y, b.add(b.mul(b.cast(masks.one_hot, DType::f32), 1 - smoothing), share));
  }
  return {b.cast(b.mul(difference, weight), b.dtype(c.operands[0])), Value{}};
}

std::vector<TensorType> argmax_type(const TypeContext& c) {
  TensorType result{DType::i64, c.operand(0).shape};
  result.shape[axis_of(c.attributes, rank(result))] = 1;
  return {result};
}

// The smallest index that attains the maximum.
std::vector<Value> expand_argmax(const ExpandContext& c) {
  Builder& b = c.builder;
  const Value x = c.operands[0];
  const Shape shape = b.shape(x);
  const int64_t axis = c.node.attributes.integer("axis");
  const Value maximum = b.broadcast(b.call("reduce_max", {x}, {{"axes", Ints{axis}}}), shape);
  const Value index = narrow_iota(b, shape, axis);
  const Value none = b.constant_like(index, static_cast<double>(shape[static_cast<size_t>(axis)]));
  const Value first = b.call("reduce_min", {b.select(b.call("eq", {x, maximum}), index, none)}, {{"axes", Ints{axis}}});
  return {b.cast(first, DType::i64)};
}

// The shape of the mask: x's own, or one that broadcasts to it (stochastic depth drops whole samples).
Shape mask_shape(const Attributes& attributes, const Shape& x) {
  const Ints& shape = attributes.ints("shape");
  return shape.empty() ? x : shape;
}

std::vector<TensorType> dropout_type(const TypeContext& c) {
  const double ratio = c.attributes.number("ratio");
  expect(ratio >= 0 && ratio < 1, "ratio " + std::to_string(ratio) + " is outside [0, 1)");
  expect(
      c.operand(1) == TensorType{DType::i64, {}} && c.operand(2) == TensorType{DType::i32, {}},
      "seed i64[] and iteration i32[] expected, found " + to_string(c.operand(1)) + " and " + to_string(c.operand(2)));
  const Shape &x = c.operand(0).shape, mask = mask_shape(c.attributes, x);
  bool fits = mask.size() == x.size();
  for (size_t i = 0; fits && i < x.size(); ++i) fits = mask[i] == x[i] || mask[i] == 1;
  expect(fits, "a mask " + to_string(mask) + " does not broadcast to " + to_string(x));
  return {c.operand(0)};
}

std::vector<Value> expand_dropout(const ExpandContext& c) {
  Builder& b = c.builder;
  const double ratio = c.node.attributes.number("ratio");
  const Shape shape = b.shape(c.operands[0]);
  const Value u =
      b.call("uniform", {c.operands[1], c.operands[2]},
             {{"shape", mask_shape(c.node.attributes, shape)}, {"site", c.node.attributes.integer("site")}});
  const Value kept = b.broadcast(b.call("less_equal", {b.constant_like(u, ratio), u}), shape);
  const Value x = c.operands[0], wide = is_low(b.dtype(x)) ? b.cast(x, DType::f32) : x;
  const Value scaled = b.cast(b.mul(wide, 1 / (1 - ratio)), b.dtype(x));
  return {b.select(kept, scaled, b.constant_like(x, 0))};
}

// Dropout is linear in x with the same mask.
std::vector<Value> dropout_vjp(const VjpContext& c) {
  return {c.builder.call("dropout", {c.cotangents[0], c.operands[1], c.operands[2]}, c.node.attributes), Value{},
          Value{}};
}

std::optional<OperandAxes> resize_along_axis(const Node& node, size_t axis) {
  return ops::axis_of_first(node, axis, node.attributes.integer("axis") != static_cast<int64_t>(axis));
}

std::optional<OperandAxes> resize_dropout(const Node& node, size_t axis) {
  return ops::axis_of_first(node, axis, node.attributes.ints("shape").empty());
}

const AttributeSpec kAxis{"axis", int64_t{0}, AttributeSpec::required, AxisRole::axis};

const std::vector<Op> kOps{
    {.name = "softmax",
     .onnx = "Softmax",
     .operands = {{"x"}},
     .attributes = {kAxis},
     .type = along_axis_type,
     .precision = Precision::full_inside,
     .vjp = softmax_vjp,
     .kernel = KernelKind::composite,
     .resize = resize_along_axis,
     .expand = expand_softmax},
    {.name = "log_softmax",
     .onnx = "LogSoftmax",
     .operands = {{"x"}},
     .attributes = {kAxis},
     .type = along_axis_type,
     .precision = Precision::full_inside,
     .vjp = log_softmax_vjp,
     .kernel = KernelKind::composite,
     .resize = resize_along_axis,
     .expand = expand_log_softmax},
    {.name = "softmax_cross_entropy",
     .operands = {{"logits"}, {"labels"}},
     .attributes = {{"ignore_index", int64_t{-100}, AttributeSpec::defaulted},
                    {"smoothing", 0.0, AttributeSpec::defaulted}},
     .type = cross_entropy_type,
     .precision = Precision::full,
     .vjp = cross_entropy_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_cross_entropy},
    {.name = "argmax",
     .operands = {{"x"}},
     .attributes = {kAxis},
     .type = argmax_type,
     .not_differentiable = "its result is discrete",
     .kernel = KernelKind::composite,
     .expand = expand_argmax},
    {.name = "dropout",
     .onnx = "Dropout",
     .operands = {{"x"}, {"seed"}, {"iteration"}},
     .attributes = {{"ratio", 0.5},
                    {"site", int64_t{0}},
                    {"shape", Ints(), AttributeSpec::defaulted, AxisRole::per_axis}},
     .type = dropout_type,
     .vjp = dropout_vjp,
     .kernel = KernelKind::composite,
     .resize = resize_dropout,
     .expand = expand_dropout,
     .inference = [](const ExpandContext& c) -> std::vector<Value> { return {c.operands[0]}; }},
};

}  // namespace

std::span<const Op> composite_ops() { return kOps; }

}  // namespace halfstep
