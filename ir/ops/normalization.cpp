// Norms: statistics over some axes, computed in f32 whatever they read and write, then scale and bias. Composite.
#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::axis_of;
using ops::expect;
using ops::rank;

Value sum(Builder& b, Value x, const Ints& axes) { return b.reduce("reduce_sum", x, axes); }

Value inverse_deviation(Builder& b, Value variance, double epsilon) {
  return b.unary("rsqrt", b.add(variance, epsilon));
}

void expect_floating(const TensorType& x) {
  expect(is_floating(x.dtype), "a floating operand expected, found " + to_string(x));
}

// ---- batch norm ----

// Batch normalisation over every axis but `axis`; statistics in f32, y in x's type. Without running statistics
// inference takes those of its batch too.
std::vector<TensorType> batch_norm_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  const TensorType channel{DType::f32, {x.shape[axis_of(c.attributes, rank(x))]}};
  for (size_t i = 1; i < c.operands.size(); ++i)
    if (c.operands[i])
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
  const Value inverse = inverse_deviation(b, b.reshape(variance, a.channel), epsilon);
  return b.mul(b.sub(x32, b.reshape(mean, a.channel)), inverse);
}

// The first elements of x, which has the shape of `channel` where that is not 1; 0 where there are none.
Value first_elements(Builder& b, Value x, const Shape& channel) {
  const Shape shape = b.shape(x);
  if (b.type(x).element_count() == 0) return b.broadcast(b.constant(DType::f32, 0), channel);
  return b.slice(x, Ints(shape.size(), 0), channel);
}

// One pass: sums of (x - k) and (x - k)^2, where k is each channel's first element, so that a large mean does not
// cancel.
std::vector<Value> expand_batch_norm(const ExpandContext& c) {
  Builder& b = c.builder;
  const Shape shape = b.shape(c.operands[0]);
  const BatchNormAxes a = batch_norm_axes(c.node.attributes, shape);
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value k = first_elements(b, x, a.channel);
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
  const Value inverse = inverse_deviation(b, b.reshape(c.results[2], a.channel), epsilon);
  const Value slope = b.mul(b.reshape(c.operands[1], a.channel), inverse);
  const Value inner = b.sub(b.sub(dy, b.mul(dbias, 1 / a.count)), b.mul(normal, b.mul(dscale, 1 / a.count)));
  const Shape channel = b.shape(c.operands[1]);
  std::vector<Value> gradients{b.cast(b.mul(inner, slope), b.dtype(c.operands[0])), b.reshape(dscale, channel),
                               b.reshape(dbias, channel)};
  gradients.resize(c.operands.size());
  return gradients;
}

std::vector<Value> batch_norm_inference(const ExpandContext& c) {
  Builder& b = c.builder;
  if (c.operands.size() < 5 || !c.operands[3] || !c.operands[4]) return {};
  const BatchNormAxes a = batch_norm_axes(c.node.attributes, b.shape(c.operands[0]));
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value normal = normalise(b, x, c.operands[3], c.operands[4], a, c.node.attributes.number("epsilon"));
  const Value y = b.add(b.mul(normal, b.reshape(c.operands[1], a.channel)), b.reshape(c.operands[2], a.channel));
  return {b.cast(y, c.node.results[0].dtype), c.operands[3], c.operands[4]};
}

// ---- layer norm and RMS norm: over the axes from `axis` on; the statistics keep them with size 1 ----

struct RowAxes {
  Ints reduced;
  double count = 1;  // elements of a row
};

RowAxes row_axes(const Attributes& attributes, const Shape& x) {
  RowAxes a;
  for (size_t i = static_cast<size_t>(attributes.integer("axis")); i < x.size(); ++i) {
    a.reduced.push_back(static_cast<int64_t>(i));
    a.count *= static_cast<double>(x[i]);
  }
  return a;
}

// Scale and bias, where given, have the shape of the normalised axes. Results: y and `statistics` of a row.
std::vector<TensorType> row_norm_type(const TypeContext& c, size_t statistics) {
  const TensorType& x = c.operand(0);
  expect_floating(x);
  const auto axis = static_cast<std::ptrdiff_t>(axis_of(c.attributes, rank(x)));
  const Shape row(x.shape.begin() + axis, x.shape.end());
  for (size_t i = 1; i < c.operands.size(); ++i)
    expect(!c.operands[i] || (is_floating(c.operand(i).dtype) && c.operand(i).shape == row),
           "a floating operand of shape " + to_string(row) + " expected beside " + to_string(x));
  TensorType statistic{DType::f32, x.shape};
  std::fill(statistic.shape.begin() + axis, statistic.shape.end(), 1);
  std::vector<TensorType> results(1 + statistics, statistic);
  results[0] = x;
  return results;
}

// x scale + bias, each where given, as `type`.
Value scaled_and_shifted(const ExpandContext& c, Value normal) {
  Builder& b = c.builder;
  for (size_t i = 1; i < c.operands.size(); ++i)
    if (c.operands[i]) normal = b.binary(i == 1 ? "mul" : "add", normal, b.cast(c.operands[i], DType::f32));
  return b.cast(normal, c.node.results[0].dtype);
}

// A mean in f32 is not that of equal numbers: what the differences from it sum to corrects it and the variance, in the
// pass that takes their squares (Chan, Golub and LeVeque 1983).
std::vector<Value> expand_layer_norm(const ExpandContext& c) {
  Builder& b = c.builder;
  const RowAxes a = row_axes(c.node.attributes, b.shape(c.operands[0]));
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value near = b.mul(sum(b, x, a.reduced), 1 / a.count), away = b.sub(x, near);
  const Value first = b.mul(sum(b, away, a.reduced), 1 / a.count);
  const Value second = b.mul(sum(b, b.mul(away, away), a.reduced), 1 / a.count);
  const Value variance = b.sub(second, b.mul(first, first)), mean = b.add(near, first);
  const Value inverse = inverse_deviation(b, b.call("max", {variance, b.constant_like(variance, 0)}),
                                          c.node.attributes.number("epsilon"));
  return {scaled_and_shifted(c, b.mul(b.sub(x, mean), inverse)), mean, inverse};
}

std::vector<Value> expand_rms_norm(const ExpandContext& c) {
  Builder& b = c.builder;
  const RowAxes a = row_axes(c.node.attributes, b.shape(c.operands[0]));
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value square = b.mul(sum(b, b.mul(x, x), a.reduced), 1 / a.count);
  const Value inverse = inverse_deviation(b, square, c.node.attributes.number("epsilon"));
  return {scaled_and_shifted(c, b.mul(x, inverse)), inverse};
}

// What reaches x through the statistics' own results: dmean / n, and for the inverse deviation
// r = (mean(u^2) + epsilon)^-1/2 of u, which is x, centred or not: -r^3 u / n. Absent if neither is read.
Value through_statistics(const VjpContext& c, Value centred, const RowAxes& a, bool is_centred) {
  Builder& b = c.builder;
  const Value dmean = is_centred ? c.cotangents[1] : Value{}, dinverse = c.cotangents.back();
  Value sum = dmean ? b.mul(b.broadcast(dmean, b.shape(centred)), 1 / a.count) : Value{};
  if (dinverse) {
    const Value r = c.results.back(), cube = b.mul(r, b.mul(r, r));
    const Value term = b.mul(centred, b.mul(b.mul(dinverse, cube), -1 / a.count));
    sum = sum ? b.add(sum, term) : term;
  }
  return sum;
}

// With g = dy scale and xhat the normalised x: dx = invstd (g - mean(g) - xhat mean(g xhat)), where the middle term
// falls away if x was not centred; dscale = sum(dy xhat), dbias = sum(dy) over the rows.
std::vector<Value> row_norm_vjp(const VjpContext& c, Value centred, bool is_centred) {
  Builder& b = c.builder;
  const RowAxes a = row_axes(c.node.attributes, b.shape(c.operands[0]));
  const auto operand = [&](size_t i) { return i < c.operands.size() ? c.operands[i] : Value{}; };
  const Value statistics = through_statistics(c, centred, a, is_centred);
  if (!c.cotangents[0]) {
    std::vector<Value> gradients{statistics ? b.cast(statistics, b.dtype(c.operands[0])) : Value{}};
    gradients.resize(c.operands.size());
    return gradients;
  }
  const Value dy = b.cast(c.cotangents[0], DType::f32), inverse = c.results.back();
  const Value normal = b.mul(centred, inverse);
  const Value g = operand(1) ? b.mul(dy, b.cast(operand(1), DType::f32)) : dy;
  Value inner = b.sub(g, b.mul(normal, b.mul(sum(b, b.mul(g, normal), a.reduced), 1 / a.count)));
  if (is_centred) inner = b.sub(inner, b.mul(sum(b, g, a.reduced), 1 / a.count));
  const Value dx = statistics ? b.add(b.mul(inner, inverse), statistics) : b.mul(inner, inverse);
  std::vector<Value> gradients{b.cast(dx, b.dtype(c.operands[0]))};
  for (size_t i = 1; i < c.operands.size(); ++i) {
    const Value v = c.operands[i];
    gradients.push_back(v ? b.cast(b.sum_to(i == 1 ? b.mul(dy, normal) : dy, b.shape(v)), b.dtype(v)) : Value{});
  }
  return gradients;
}

std::vector<Value> layer_norm_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  return row_norm_vjp(c, b.sub(b.cast(c.operands[0], DType::f32), c.results[1]), true);
}

std::vector<Value> rms_norm_vjp(const VjpContext& c) {
  return row_norm_vjp(c, c.builder.cast(c.operands[0], DType::f32), false);
}

void expect_no_statistics_gradient(const VjpContext& c) {
  for (size_t i = 1; i < c.cotangents.size(); ++i)
    expect(!c.cotangents[i], "gradients through the statistics' outputs are not supported");
}

// ---- group norm: over the channels of a group and all other axes but `batch` ----

struct GroupNormAxes {
  size_t batch, channel;
  Ints reduced;       // neither batch nor channel
  Shape per_channel;  // of x, with the reduced axes 1
  Shape channels;     // and the batch axis 1 too
  int64_t n, groups, group_size;
  double positions = 1;  // elements of one channel of one sample
};

GroupNormAxes group_norm_axes(const Attributes& attributes, const Shape& x) {
  GroupNormAxes a{.batch = static_cast<size_t>(attributes.integer("batch")),
                  .channel = axis_of(attributes, x.size()),
                  .reduced = {},
                  .per_channel = Shape(x.size(), 1),
                  .channels = Shape(x.size(), 1),
                  .n = 0,
                  .groups = attributes.integer("groups"),
                  .group_size = 0};
  for (size_t i = 0; i < x.size(); ++i) {
    if (i == a.batch || i == a.channel) continue;
    a.reduced.push_back(static_cast<int64_t>(i));
    a.positions *= static_cast<double>(x[i]);
  }
  a.n = a.per_channel[a.batch] = x[a.batch];
  a.channels[a.channel] = a.per_channel[a.channel] = x[a.channel];
  a.group_size = x[a.channel] / a.groups;
  return a;
}

std::vector<TensorType> group_norm_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  expect_floating(x);
  const size_t axis = axis_of(c.attributes, rank(x));
  const int64_t batch = c.attributes.integer("batch"), groups = c.attributes.integer("groups");
  expect(batch >= 0 && batch < static_cast<int64_t>(rank(x)) && batch != static_cast<int64_t>(axis),
         "batch axis " + std::to_string(batch) + " is the channels' or outside " + to_string(x));
  expect(groups > 0 && x.shape[axis] % groups == 0,
         std::to_string(x.shape[axis]) + " channels do not split into " + std::to_string(groups) + " groups");
  const TensorType channel{DType::f32, {x.shape[axis]}};
  for (size_t i : {1u, 2u})
    expect(c.operand(i) == channel, to_string(channel) + " expected, found " + to_string(c.operand(i)));
  const TensorType statistic{DType::f32, {x.shape[static_cast<size_t>(batch)], groups, 1}};
  return {x, statistic, statistic};
}

// Between a value for every sample and channel, beside x, and [N, groups, group_size].
Value by_group(Builder& b, Value v, const GroupNormAxes& a) {
  const int64_t channels = a.groups * a.group_size;
  if (a.batch > a.channel) v = b.transpose(b.reshape(v, {channels, a.n}), {1, 0});
  return b.reshape(v, {a.n, a.groups, a.group_size});
}

Value by_channel(Builder& b, Value v, const GroupNormAxes& a) {
  const int64_t channels = a.groups * a.group_size;
  v = b.broadcast(v, {a.n, a.groups, a.group_size});
  if (a.batch > a.channel) v = b.transpose(b.reshape(v, {a.n, channels}), {1, 0});
  return b.reshape(v, a.per_channel);
}

// One pass over x: each channel's sums of (x - k) and (x - k)^2, k its first element, so that a large mean does not
// cancel; then the channels of a group are combined (Chan, Golub and LeVeque 1979).
std::vector<Value> expand_group_norm(const ExpandContext& c) {
  Builder& b = c.builder;
  const Shape shape = b.shape(c.operands[0]);
  const GroupNormAxes a = group_norm_axes(c.node.attributes, shape);
  const Value x = b.cast(c.operands[0], DType::f32);
  const Value k = first_elements(b, x, a.per_channel);
  const Value d = b.sub(x, k);
  const Value first = by_group(b, b.mul(sum(b, d, a.reduced), 1 / a.positions), a);
  const Value second = by_group(b, b.mul(sum(b, b.mul(d, d), a.reduced), 1 / a.positions), a);
  const Value channel_mean = b.add(by_group(b, k, a), first);
  const double share = 1 / static_cast<double>(a.group_size);
  const Value mean = b.mul(sum(b, channel_mean, {2}), share);
  const Value away = b.sub(channel_mean, mean);
  const Value spread = b.add(b.sub(second, b.mul(first, first)), b.mul(away, away));
  const Value variance = b.mul(sum(b, spread, {2}), share);
  const Value inverse = inverse_deviation(b, b.call("max", {variance, b.constant_like(variance, 0)}),
                                          c.node.attributes.number("epsilon"));
  const Value slope = b.mul(by_channel(b, inverse, a), b.reshape(c.operands[1], a.channels));
  const Value normal = b.mul(b.sub(x, by_channel(b, mean, a)), slope);
  return {b.cast(b.add(normal, b.reshape(c.operands[2], a.channels)), c.node.results[0].dtype), mean, inverse};
}

// As layer_norm_vjp, with the sums over a group made of sums over its channels, which dscale and dbias want too.
std::vector<Value> group_norm_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  expect_no_statistics_gradient(c);
  const GroupNormAxes a = group_norm_axes(c.node.attributes, b.shape(c.operands[0]));
  const Value x = b.cast(c.operands[0], DType::f32), dy = b.cast(c.cotangents[0], DType::f32);
  const Value inverse = by_channel(b, c.results[2], a), scale = b.reshape(c.operands[1], a.channels);
  const Value normal = b.mul(b.sub(x, by_channel(b, c.results[1], a)), inverse);
  const Value dy_sum = sum(b, dy, a.reduced), dy_normal_sum = sum(b, b.mul(dy, normal), a.reduced);
  const double share = 1 / (a.positions * static_cast<double>(a.group_size));
  const auto group_mean = [&](Value per_channel) {
    return by_channel(b, b.mul(sum(b, by_group(b, b.mul(per_channel, scale), a), {2}), share), a);
  };
  const Value inner = b.sub(b.sub(b.mul(dy, scale), group_mean(dy_sum)), b.mul(normal, group_mean(dy_normal_sum)));
  const auto over_batch = [&](Value per_channel) {
    return b.reshape(sum(b, per_channel, {static_cast<int64_t>(a.batch)}), b.shape(c.operands[1]));
  };
  return {b.cast(b.mul(inner, inverse), b.dtype(c.operands[0])), over_batch(dy_normal_sum), over_batch(dy_sum)};
}

std::optional<OperandAxes> resize_row_norm(const Node& node, size_t axis) {
  return ops::axis_of_first(node, axis, static_cast<int64_t>(axis) < node.attributes.integer("axis"));
}

const AttributeSpec kChannelAxis{"axis", int64_t{0}, AttributeSpec::required, AxisRole::axis};
const AttributeSpec kEpsilon{"epsilon", 1e-5, AttributeSpec::defaulted};
const AttributeSpec kFirstAxis{"axis", int64_t{0}, AttributeSpec::required, AxisRole::last_axes};

const std::vector<Op> kOps{
    {.name = "batch_norm",
     .onnx = "BatchNormalization",
     .operands = {{"x"},
                  {"scale", OperandSpec::one, OperandSpec::keep},
                  {"bias", OperandSpec::one, OperandSpec::keep},
                  {"running_mean", OperandSpec::optional, OperandSpec::keep},
                  {"running_variance", OperandSpec::optional, OperandSpec::keep}},
     .attributes = {kChannelAxis, kEpsilon},
     .type = batch_norm_type,
     .precision = Precision::full_inside,
     .vjp = batch_norm_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_batch_norm,
     .inference = batch_norm_inference},
    {.name = "layer_norm",
     .onnx = "LayerNormalization",
     .operands = {{"x"},
                  {"scale", OperandSpec::optional, OperandSpec::keep},
                  {"bias", OperandSpec::optional, OperandSpec::keep}},
     .attributes = {kFirstAxis, kEpsilon},
     .type = [](const TypeContext& c) { return row_norm_type(c, 2); },
     .precision = Precision::full_inside,
     .vjp = layer_norm_vjp,
     .kernel = KernelKind::composite,
     .resize = resize_row_norm,
     .expand = expand_layer_norm},
    {.name = "rms_norm",
     .onnx = "RMSNormalization",
     .operands = {{"x"}, {"scale", OperandSpec::optional, OperandSpec::keep}},
     .attributes = {kFirstAxis, kEpsilon},
     .type = [](const TypeContext& c) { return row_norm_type(c, 1); },
     .precision = Precision::full_inside,
     .vjp = rms_norm_vjp,
     .kernel = KernelKind::composite,
     .resize = resize_row_norm,
     .expand = expand_rms_norm},
    {.name = "group_norm",
     .onnx = "GroupNormalization",
     .operands = {{"x"}, {"scale", OperandSpec::one, OperandSpec::keep}, {"bias", OperandSpec::one, OperandSpec::keep}},
     .attributes = {kChannelAxis,
                    {"batch", int64_t{0}, AttributeSpec::required, AxisRole::axis},
                    {"groups", int64_t{1}},
                    kEpsilon},
     .type = group_norm_type,
     .precision = Precision::full_inside,
     .vjp = group_norm_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_group_norm},
};

}  // namespace

std::span<const Op> normalization_ops() { return kOps; }

}  // namespace halfstep
