// Composite operators: known to the passes as one op, expanded to primitive ones before fusion. What they compute is in
// f32 inside, whatever they read and write.
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

// [N, C]: which class each row's label names; [N, 1]: whether the row counts.
struct LabelMasks {
  Value one_hot, valid;
};

LabelMasks label_masks(Builder& b, const Shape& shape, Value labels, int64_t ignore_index) {
  const Value column = b.reshape(labels, {shape[0], 1});
  const Value classes = b.call("iota", {}, {{"shape", shape}, {"axis", int64_t{1}}});
  const Value one_hot = b.call("eq", {classes, b.broadcast(column, shape)});
  return {one_hot, b.unary("not", b.call("eq", {column, b.constant_like(column, static_cast<double>(ignore_index))}))};
}

// log(sum(exp(x))) - x[label]; 0 where the label is ignore_index.
std::vector<Value> expand_cross_entropy(const ExpandContext& c) {
  Builder& b = c.builder;
  const SoftmaxParts p = softmax_parts(b, c.operands[0], 1);
  const LabelMasks masks = label_masks(b, b.shape(p.x), c.operands[1], c.node.attributes.integer("ignore_index"));
  const Value picked =
      b.call("reduce_sum", {b.select(masks.one_hot, p.shifted, b.constant_like(p.x, 0))}, {{"axes", Ints{1}}});
  const Value loss = b.sub(p.log_sum, picked);
  return {b.reshape(b.select(masks.valid, loss, b.constant_like(loss, 0)), c.node.results[0].shape)};
}

// dx = (softmax(x) - one_hot) dy.
std::vector<Value> cross_entropy_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const SoftmaxParts p = softmax_parts(b, c.operands[0], 1);
  const LabelMasks masks = label_masks(b, b.shape(p.x), c.operands[1], c.node.attributes.integer("ignore_index"));
  const Value row = b.reshape(b.cast(c.cotangents[0], DType::f32), {b.shape(p.x)[0], 1});
  const Value weight = b.select(masks.valid, row, b.constant_like(row, 0));
  const Value difference = b.sub(b.div(p.exponentials, p.sum), b.cast(masks.one_hot, DType::f32));
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
  const Value index = b.call("iota", {}, {{"shape", shape}, {"axis", axis}});
  const Value none = b.constant_like(index, static_cast<double>(shape[static_cast<size_t>(axis)]));
  return {b.call("reduce_min", {b.select(b.call("eq", {x, maximum}), index, none)}, {{"axes", Ints{axis}}})};
}

// Batch normalisation over every axis but `axis`; statistics in f32, y in x's type.
std::vector<TensorType> batch_norm_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  const TensorType channel{DType::f32, {x.shape[axis_of(c.attributes, rank(x))]}};
  for (size_t i = 1; i < c.operands.size(); ++i)
    expect(c.operand(i) == channel, to_string(channel) + " expected, found " + to_string(c.operand(i)));
  return {x, channel, channel};
}

struct BatchNormAxes {
  size_t axis;
  Ints reduced;
  Shape channel;  // [1, ..., C, ..., 1]
  double count;   // elements a channel's mean runs over
};

BatchNormAxes batch_norm_axes(const Attributes& attributes, const Shape& x) {
  BatchNormAxes a{axis_of(attributes, x.size()), {}, Shape(x.size(), 1), 1};
  for (size_t i = 0; i < x.size(); ++i) {
    if (i == a.axis) continue;
    a.reduced.push_back(static_cast<int64_t>(i));
    a.count *= static_cast<double>(x[i]);
  }
  a.channel[a.axis] = x[a.axis];
  return a;
}

Value normalise(Builder& b, Value x32, Value mean, Value variance, const BatchNormAxes& a, double epsilon) {
  const Value inverse = b.unary("rsqrt", b.add(b.reshape(variance, a.channel), epsilon));
  return b.mul(b.sub(x32, b.reshape(mean, a.channel)), inverse);
}

// One pass: sums of (x - k) and (x - k)^2, where k is each channel's first element, so that a large mean does not
// cancel.
std::vector<Value> expand_batch_norm(const ExpandContext& c) {
  Builder& b = c.builder;
  const Shape shape = b.shape(c.operands[0]);
  const BatchNormAxes a = batch_norm_axes(c.node.attributes, shape);
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value k = b.slice(x, Ints(shape.size(), 0), a.channel);
  const Value d = b.sub(x, b.broadcast(k, shape));
  const Value first = b.mul(b.call("reduce_sum", {d}, {{"axes", a.reduced}}), 1 / a.count);
  const Value second = b.mul(b.call("reduce_sum", {b.mul(d, d)}, {{"axes", a.reduced}}), 1 / a.count);
  const Value centred = b.sub(second, b.mul(first, first));
  const Value variance = b.reshape(b.call("max", {centred, b.constant_like(centred, 0)}), c.node.results[1].shape);
  const Value mean = b.reshape(b.add(k, first), c.node.results[1].shape);
  const Value normal = normalise(b, x, mean, variance, a, c.node.attributes.number("epsilon"));
  const Value y = b.add(b.mul(normal, b.reshape(c.operands[1], a.channel)), b.reshape(c.operands[2], a.channel));
  return {b.cast(y, c.node.results[0].dtype), mean, variance};
}

// Ioffe and Szegedy 2015, section 3, with n elements a channel:
// dbias = sum(dy), dscale = sum(dy xhat), dx = scale invstd (dy - dbias / n - xhat dscale / n).
std::vector<Value> batch_norm_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  expect(!c.cotangents[1] && !c.cotangents[2], "gradients through the batch statistics' outputs are not supported");
  const Shape shape = b.shape(c.operands[0]);
  const BatchNormAxes a = batch_norm_axes(c.node.attributes, shape);
  const double epsilon = c.node.attributes.number("epsilon");
  const Value x = b.cast(c.operands[0], DType::f32), dy = b.cast(c.cotangents[0], DType::f32);
  const Value normal = normalise(b, x, c.results[1], c.results[2], a, epsilon);
  const Value dbias = b.call("reduce_sum", {dy}, {{"axes", a.reduced}});
  const Value dscale = b.call("reduce_sum", {b.mul(dy, normal)}, {{"axes", a.reduced}});
  const Value inverse = b.unary("rsqrt", b.add(b.reshape(c.results[2], a.channel), epsilon));
  const Value slope = b.mul(b.reshape(c.operands[1], a.channel), inverse);
  const Value inner = b.sub(b.sub(dy, b.mul(dbias, 1 / a.count)), b.mul(normal, b.mul(dscale, 1 / a.count)));
  const Shape channel = b.shape(c.operands[1]);
  return {b.cast(b.mul(inner, slope), b.dtype(c.operands[0])), b.reshape(dscale, channel), b.reshape(dbias, channel),
          Value{}, Value{}};
}

std::vector<Value> batch_norm_inference(const ExpandContext& c) {
  Builder& b = c.builder;
  const BatchNormAxes a = batch_norm_axes(c.node.attributes, b.shape(c.operands[0]));
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value normal = normalise(b, x, c.operands[3], c.operands[4], a, c.node.attributes.number("epsilon"));
  const Value y = b.add(b.mul(normal, b.reshape(c.operands[1], a.channel)), b.reshape(c.operands[2], a.channel));
  return {b.cast(y, c.node.results[0].dtype), c.operands[3], c.operands[4]};
}

std::vector<TensorType> dropout_type(const TypeContext& c) {
  const double ratio = c.attributes.number("ratio");
  expect(ratio >= 0 && ratio < 1, "ratio " + std::to_string(ratio) + " is outside [0, 1)");
  expect(
      c.operand(1) == TensorType{DType::i64, {}} && c.operand(2) == TensorType{DType::i32, {}},
      "seed i64[] and iteration i32[] expected, found " + to_string(c.operand(1)) + " and " + to_string(c.operand(2)));
  return {c.operand(0)};
}

std::vector<Value> expand_dropout(const ExpandContext& c) {
  Builder& b = c.builder;
  const double ratio = c.node.attributes.number("ratio");
  const Value u = b.call("uniform", {c.operands[1], c.operands[2]},
                         {{"shape", b.shape(c.operands[0])}, {"site", c.node.attributes.integer("site")}});
  const Value kept = b.call("less_equal", {b.constant_like(u, ratio), u});
  return {b.select(kept, b.mul(c.operands[0], 1 / (1 - ratio)), b.constant_like(c.operands[0], 0))};
}

// Dropout is linear in x with the same mask.
std::vector<Value> dropout_vjp(const VjpContext& c) {
  return {c.builder.call("dropout", {c.cotangents[0], c.operands[1], c.operands[2]}, c.node.attributes), Value{},
          Value{}};
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
     .expand = expand_softmax},
    {.name = "log_softmax",
     .onnx = "LogSoftmax",
     .operands = {{"x"}},
     .attributes = {kAxis},
     .type = along_axis_type,
     .precision = Precision::full_inside,
     .vjp = log_softmax_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_log_softmax},
    {.name = "softmax_cross_entropy",
     .operands = {{"logits"}, {"labels"}},
     .attributes = {{"ignore_index", int64_t{-100}, AttributeSpec::defaulted}},
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
    {.name = "batch_norm",
     .onnx = "BatchNormalization",
     .operands = {{"x"},
                  {"scale", OperandSpec::one, OperandSpec::keep},
                  {"bias", OperandSpec::one, OperandSpec::keep},
                  {"running_mean", OperandSpec::one, OperandSpec::keep},
                  {"running_variance", OperandSpec::one, OperandSpec::keep}},
     .attributes = {kAxis, {"epsilon", 1e-5, AttributeSpec::defaulted}},
     .type = batch_norm_type,
     .precision = Precision::full_inside,
     .vjp = batch_norm_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_batch_norm,
     .inference = batch_norm_inference},
    {.name = "dropout",
     .onnx = "Dropout",
     .operands = {{"x"}, {"seed"}, {"iteration"}},
     .attributes = {{"ratio", 0.5}, {"site", int64_t{0}}},
     .type = dropout_type,
     .vjp = dropout_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_dropout,
     .inference = [](const ExpandContext& c) -> std::vector<Value> { return {c.operands[0]}; }},
};

}  // namespace

std::span<const Op> composite_ops() { return kOps; }

}  // namespace halfstep
