// Weighted sums of elements along one axis, at positions that are known when the model is compiled: interpolation,
// padding with what is there, reversal, and the gradients of all of them.
#include <algorithm>

#include "base/checked.h"
#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::expect;

// y[.., o, ..] = sum over t of weights[o, t] x[.., positions[o, t], ..].
struct Taps {
  std::span<const int64_t> positions;
  std::span<const float> weights;
  int64_t outputs, taps;

  size_t at(int64_t output, int64_t tap) const { return static_cast<size_t>(output * taps + tap); }
  bool moves_only() const {
    return taps == 1 && std::all_of(weights.begin(), weights.end(), [](float w) { return w == 1; });
  }
};

Taps taps_of(const Attributes& attributes) {
  const Tensor &positions = attributes.tensor("positions"), &weights = attributes.tensor("weights");
  expect(positions.type.dtype == DType::i64 && positions.type.shape.size() == 2 && positions.type.shape[1] > 0,
         "positions i64[outputs,taps] expected, found " + to_string(positions.type));
  expect(weights.type == TensorType{DType::f32, positions.type.shape},
         "weights as f32" + to_string(positions.type.shape) + " expected, found " + to_string(weights.type));
  return {positions.as<int64_t>(), weights.as<float>(), positions.type.shape[0], positions.type.shape[1]};
}

std::vector<TensorType> resample_type(const TypeContext& c) {
  TensorType result = c.operand(0);
  int64_t& size = result.shape[ops::axis_of(c.attributes, ops::rank(result))];
  const Taps t = taps_of(c.attributes);
  expect(std::all_of(t.positions.begin(), t.positions.end(), [&](int64_t p) { return p >= 0 && p < size; }),
         "a position is outside the axis of " + to_string(c.operand(0)));
  expect(is_floating(result.dtype) || t.moves_only(), "elements of " + to_string(result) + " cannot be weighted");
  size = t.outputs;
  return {result};
}

// [outputs, taps] of the taps in [begin, end).
template <typename T>
Tensor columns(DType dtype, std::span<const T> values, const Taps& t, int64_t begin, int64_t end) {
  Tensor result(TensorType{dtype, {t.outputs, end - begin}});
  auto to = result.as<T>().begin();
  for (int64_t output = 0; output < t.outputs; ++output)
    for (int64_t tap = begin; tap < end; ++tap) *to++ = values[t.at(output, tap)];
  return result;
}

// x at taps [begin, end) with their weights: [.., outputs, end - begin, ..].
Value weighted(Builder& b, Value x, const Taps& t, int64_t axis, int64_t begin, int64_t end) {
  const Value indices = b.constant(columns<int64_t>(DType::i64, t.positions, t, begin, end));
  const Value read = b.call("gather", {x, indices}, {{"axis", axis}});
  Shape beside{t.outputs, end - begin};
  beside.resize(b.shape(read).size() - static_cast<size_t>(axis), 1);
  const Tensor weights = columns<float>(DType::f32, t.weights, t, begin, end);
  const float first = weights.type.element_count() == 0 ? 1 : weights.as<float>()[0];
  if (std::ranges::any_of(weights.as<float>(), [&](float w) { return w != first; }))
    return b.mul(read, b.reshape(b.constant(weights), beside));
  return first == 1 ? read : b.mul(read, first);
}

std::vector<Value> expand_resample(const ExpandContext& c) {
  constexpr int64_t kUnrolled = 8;
  Builder& b = c.builder;
  const Taps t = taps_of(c.node.attributes);
  const int64_t axis = c.node.attributes.integer("axis");
  const TensorType type = c.node.results[0];
  const Value x = t.moves_only() ? c.operands[0] : b.cast(c.operands[0], DType::f32);
  Value sum;
  if (t.taps > kUnrolled) {
    sum = b.reduce("reduce_sum", weighted(b, x, t, axis, 0, t.taps), {axis + 1});
  } else {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const Value term = b.reshape(weighted(b, x, t, axis, tap, tap + 1), type.shape);
      sum = sum ? b.add(sum, term) : term;
    }
  }
  return {b.cast(b.reshape(sum, type.shape), type.dtype)};
}

// The transposed map: input p of tap (o, t) takes weights[o, t] dy[o]. Inputs with fewer taps repeat one with weight 0.
std::vector<Value> resample_vjp(const VjpContext& c) {
  const Taps t = taps_of(c.node.attributes);
  const int64_t axis = c.node.attributes.integer("axis");
  const int64_t inputs = c.builder.shape(c.operands[0])[static_cast<size_t>(axis)];
  std::vector<std::vector<size_t>> readers(static_cast<size_t>(inputs));
  for (size_t i = 0; i < t.positions.size(); ++i)
    if (t.weights[i] != 0) readers[static_cast<size_t>(t.positions[i])].push_back(i);
  size_t most = 1;
  for (const auto& list : readers) most = std::max(most, list.size());
  if (t.outputs == 0) return {Value{}};
  const int64_t taps = static_cast<int64_t>(most);
  constexpr int64_t kMostTaps = int64_t{1} << 24;
  expect(checked_mul(inputs, taps, "taps of a resampling gradient") <= kMostTaps,
         "its gradient would add up " + std::to_string(taps) + " elements at one of " + std::to_string(inputs) +
             " places: too many are repeated");
  Tensor positions(TensorType{DType::i64, {inputs, taps}}), weights(TensorType{DType::f32, {inputs, taps}});
  for (size_t input = 0; input < readers.size(); ++input)
    for (size_t i = 0; i < most; ++i) {
      const auto& list = readers[input];
      const size_t at = input * most + i;
      if (list.empty()) continue;
      positions.as<int64_t>()[at] = static_cast<int64_t>(list[i < list.size() ? i : 0]) / t.taps;
      weights.as<float>()[at] = i < list.size() ? t.weights[list[i]] : 0;
    }
  return {c.builder.call("resample", {c.cotangents[0]},
                         {{"axis", axis}, {"positions", std::move(positions)}, {"weights", std::move(weights)}})};
}

const std::vector<Op> kOps{
    {.name = "resample",
     .onnx = "Resize",
     .operands = {{"x"}},
     .attributes = {{"axis", int64_t{0}, AttributeSpec::required, AxisRole::axis},
                    {"positions", Tensor()},
                    {"weights", Tensor()}},
     .type = resample_type,
     .precision = Precision::full_inside,
     .vjp = resample_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_resample,
     .cost =
         [](const Node& node, std::span<const TensorType>) {
           return 2.0 * static_cast<double>(node.results[0].element_count()) *
                  static_cast<double>(node.attributes.tensor("positions").type.shape[1]);
         }},
};

}  // namespace

std::span<const Op> resample_ops() { return kOps; }

}  // namespace halfstep
