// Movement: results hold operand elements at other places. iota and uniform make elements from their index.
#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/philox.h"
#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::expect;
using ops::for_each_index;
using ops::linear_index;
using ops::rank;

// results[0][i] = operands[0][source(i)], or `otherwise` where source gives -1.
template <typename Source>
void gather_elements(const EvaluateContext& c, Source&& source, double otherwise = 0) {
  size_t at = 0;
  for_each_index(c.node.results[0].shape, [&](const Ints& index) {
    const int64_t from = source(index);
    c.results[0][at++] = from < 0 ? otherwise : (*c.operands[0])[static_cast<size_t>(from)];
  });
}

std::vector<TensorType> broadcast_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  const Ints& shape = c.attributes.ints("shape");
  bool fits = shape.size() == rank(x);
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = x.shape[i] == shape[i] || x.shape[i] == 1;
  expect(fits, [&] { return to_string(x) + " does not broadcast to " + to_string(shape); });
  return {{x.dtype, shape}};
}

void evaluate_broadcast(const EvaluateContext& c) {
  std::vector<int64_t> strides = row_major_strides(c.types[0].shape);
  for (size_t i = 0; i < strides.size(); ++i)
    if (c.types[0].shape[i] == 1) strides[i] = 0;
  gather_elements(c, [&](const Ints& index) { return linear_index(index, strides); });
}

IndexReads broadcast_reads(const TypeContext& c) {
  std::vector<AxisRead> axes;
  for (size_t i = 0; i < rank(c.operand(0)); ++i)
    axes.push_back({.axis = i, .step = c.operand(0).shape[i] == 1 ? 0 : 1});
  return {{axes}};
}

std::vector<TensorType> reshape_type(const TypeContext& c) {
  const TensorType to{c.operand(0).dtype, c.attributes.ints("shape")};
  expect(to.element_count() == c.operand(0).element_count(),
         [&] { return to_string(c.operand(0)) + " has another number of elements than " + to_string(to.shape); });
  return {to};
}

std::vector<TensorType> transpose_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  const Ints& permutation = c.attributes.ints("permutation");
  Ints sorted = permutation;
  std::sort(sorted.begin(), sorted.end());
  Ints all(rank(x));
  std::iota(all.begin(), all.end(), 0);
  expect(sorted == all, [&] { return to_string(permutation) + " is no permutation of the axes of " + to_string(x); });
  TensorType result{x.dtype, {}};
  for (int64_t axis : permutation) result.shape.push_back(x.shape[static_cast<size_t>(axis)]);
  return {result};
}

void evaluate_transpose(const EvaluateContext& c) {
  const std::vector<int64_t> strides = row_major_strides(c.types[0].shape);
  std::vector<int64_t> step;
  for (int64_t axis : c.node.attributes.ints("permutation")) step.push_back(strides[static_cast<size_t>(axis)]);
  gather_elements(c, [&](const Ints& index) { return linear_index(index, step); });
}

IndexReads transpose_reads(const TypeContext& c) {
  const Ints& permutation = c.attributes.ints("permutation");
  std::vector<AxisRead> axes(permutation.size());
  for (size_t i = 0; i < axes.size(); ++i) axes[static_cast<size_t>(permutation[i])].axis = i;
  return {{axes}};
}

std::vector<Value> transpose_vjp(const VjpContext& c) {
  const Ints& permutation = c.node.attributes.ints("permutation");
  Ints inverse(permutation.size());
  for (size_t i = 0; i < permutation.size(); ++i)
    inverse[static_cast<size_t>(permutation[i])] = static_cast<int64_t>(i);
  return {c.builder.transpose(c.cotangents[0], std::move(inverse))};
}

std::vector<TensorType> slice_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  const Ints &starts = c.attributes.ints("starts"), &limits = c.attributes.ints("limits"),
             &steps = c.attributes.ints("steps");
  expect(starts.size() == rank(x) && limits.size() == rank(x) && steps.size() == rank(x),
         "one start, limit and step for each axis of " + to_string(x) + " expected");
  TensorType result{x.dtype, {}};
  for (size_t i = 0; i < rank(x); ++i) {
    expect(0 <= starts[i] && starts[i] <= limits[i] && limits[i] <= x.shape[i] && steps[i] > 0,
           "slice " + std::to_string(starts[i]) + ":" + std::to_string(limits[i]) + ":" + std::to_string(steps[i]) +
               " is outside axis " + std::to_string(i) + " of " + to_string(x));
    result.shape.push_back(ceil_div(limits[i] - starts[i], steps[i]));
  }
  return {result};
}

void evaluate_slice(const EvaluateContext& c) {
  const std::vector<int64_t> strides = row_major_strides(c.types[0].shape);
  const Ints &starts = c.node.attributes.ints("starts"), &steps = c.node.attributes.ints("steps");
  gather_elements(c, [&](const Ints& index) {
    int64_t at = 0;
    for (size_t i = 0; i < index.size(); ++i) at += (starts[i] + index[i] * steps[i]) * strides[i];
    return at;
  });
}

IndexReads slice_reads(const TypeContext& c) {
  const Ints &starts = c.attributes.ints("starts"), &steps = c.attributes.ints("steps");
  std::vector<AxisRead> axes;
  for (size_t i = 0; i < starts.size(); ++i) axes.push_back({.axis = i, .step = steps[i], .offset = starts[i]});
  return {{axes}};
}

// Pads dy back to the operand; between stepped elements stand zeros (`interior`).
std::vector<Value> slice_vjp(const VjpContext& c) {
  const Shape shape = c.builder.shape(c.operands[0]);
  const Ints &starts = c.node.attributes.ints("starts"), &steps = c.node.attributes.ints("steps");
  const Shape from = c.builder.shape(c.cotangents[0]);
  Ints high, interior;
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t covered = from[i] == 0 ? 0 : (from[i] - 1) * steps[i] + 1;
    high.push_back(shape[i] - starts[i] - covered);
    interior.push_back(steps[i] - 1);
  }
  return {c.builder.call("pad", {c.cotangents[0]}, {{"low", starts}, {"high", high}, {"interior", interior}})};
}

std::vector<TensorType> pad_type(const TypeContext& c) {
  const TensorType& x = c.operand(0);
  const Ints low = ops::per_axis(c.attributes, "low", rank(x), 0),
             high = ops::per_axis(c.attributes, "high", rank(x), 0),
             interior = ops::per_axis(c.attributes, "interior", rank(x), 0);
  TensorType result{x.dtype, {}};
  for (size_t i = 0; i < rank(x); ++i) {
    expect(low[i] >= 0 && high[i] >= 0 && interior[i] >= 0, "padding is negative; slice instead");
    const int64_t between = x.shape[i] == 0 ? 0 : checked_mul(x.shape[i] - 1, interior[i], "padding"),
                  around = checked_add(low[i], high[i], "padding");
    result.shape.push_back(checked_add(around, checked_add(x.shape[i], between, "padding"), "padding"));
  }
  return {result};
}

void evaluate_pad(const EvaluateContext& c) {
  const Shape& shape = c.types[0].shape;
  const std::vector<int64_t> strides = row_major_strides(shape);
  const Ints low = ops::per_axis(c.node.attributes, "low", shape.size(), 0),
             interior = ops::per_axis(c.node.attributes, "interior", shape.size(), 0);
  gather_elements(
      c,
      [&](const Ints& index) {
        int64_t at = 0;
        for (size_t i = 0; i < index.size(); ++i) {
          const int64_t step = interior[i] + 1, offset = index[i] - low[i];
          if (offset < 0 || offset % step != 0 || offset / step >= shape[i]) return int64_t{-1};
          at += offset / step * strides[i];
        }
        return at;
      },
      c.node.attributes.number("value"));
}

IndexReads pad_reads(const TypeContext& c) {
  const size_t count = rank(c.operand(0));
  const Ints low = ops::per_axis(c.attributes, "low", count, 0),
             interior = ops::per_axis(c.attributes, "interior", count, 0);
  std::vector<AxisRead> axes;
  for (size_t i = 0; i < count; ++i)
    axes.push_back({.axis = i, .offset = -low[i], .divisor = interior[i] + 1, .bounded = true});
  return {{axes}, c.attributes.number("value")};
}

std::vector<Value> pad_vjp(const VjpContext& c) {
  const Shape shape = c.builder.shape(c.operands[0]);
  const Ints low = ops::per_axis(c.node.attributes, "low", shape.size(), 0),
             interior = ops::per_axis(c.node.attributes, "interior", shape.size(), 0);
  Ints limits, steps;
  for (size_t i = 0; i < shape.size(); ++i) {
    steps.push_back(interior[i] + 1);
    limits.push_back(shape[i] == 0 ? low[i] : low[i] + (shape[i] - 1) * steps[i] + 1);
  }
  return {c.builder.slice(c.cotangents[0], low, limits, steps)};
}

std::vector<TensorType> concat_type(const TypeContext& c) {
  expect(!c.operands.empty(), "no operands given");
  TensorType result = c.operand(0);
  const size_t axis = ops::axis_of(c.attributes, rank(result));
  result.shape[axis] = 0;
  for (const TensorType* t : c.operands) {
    TensorType rest = *t;
    expect(rank(*t) == rank(result), "operands differ in rank: " + to_string(c.operand(0)) + " and " + to_string(*t));
    result.shape[axis] += std::exchange(rest.shape[axis], c.operand(0).shape[axis]);
    expect(rest == c.operand(0), "operands differ outside axis " + std::to_string(axis) + ": " +
                                     to_string(c.operand(0)) + " and " + to_string(*t));
  }
  return {result};
}

void evaluate_concat(const EvaluateContext& c) {
  const size_t axis = static_cast<size_t>(c.node.attributes.integer("axis"));
  const Shape& shape = c.node.results[0].shape;
  size_t outer = 1;
  for (size_t i = 0; i < axis; ++i) outer *= static_cast<size_t>(shape[i]);
  size_t at = 0;
  for (size_t o = 0; o < outer; ++o)
    for (const std::vector<double>* operand : c.operands) {
      const size_t piece = operand->size() / outer;
      std::copy_n(operand->begin() + static_cast<std::ptrdiff_t>(o * piece), piece,
                  c.results[0].begin() + static_cast<std::ptrdiff_t>(at));
      at += piece;
    }
}

IndexReads concat_reads(const TypeContext& c) {
  const size_t axis = ops::axis_of(c.attributes, rank(c.operand(0)));
  IndexReads reads;
  int64_t before = 0;
  for (const TensorType* operand : c.operands) {
    std::vector<AxisRead> axes(rank(*operand));
    for (size_t i = 0; i < axes.size(); ++i) axes[i].axis = i;
    axes[axis].offset = -before;
    axes[axis].bounded = true;
    reads.operands.push_back(std::move(axes));
    before += operand->shape[axis];
  }
  return reads;
}

std::vector<Value> concat_vjp(const VjpContext& c) {
  const size_t axis = static_cast<size_t>(c.node.attributes.integer("axis"));
  Shape limits = c.node.results[0].shape;
  Ints starts(limits.size(), 0);
  std::vector<Value> cotangents;
  for (Value operand : c.operands) {
    limits[axis] = starts[axis] + c.builder.shape(operand)[axis];
    cotangents.push_back(c.builder.slice(c.cotangents[0], starts, limits));
    starts[axis] = limits[axis];
  }
  return cotangents;
}

std::vector<TensorType> iota_type(const TypeContext& c) {
  const Ints& shape = c.attributes.ints("shape");
  ops::axis_of(c.attributes, shape.size());
  return {{DType::i64, shape}};
}

void evaluate_iota(const EvaluateContext& c) {
  const size_t axis = static_cast<size_t>(c.node.attributes.integer("axis"));
  size_t at = 0;
  for_each_index(c.node.results[0].shape,
                 [&](const Ints& index) { c.results[0][at++] = static_cast<double>(index[axis]); });
}

// x itself, but not before `event` is computed. It stands before what is computed again in the backward, so that this
// is neither shared with its first computation nor scheduled there.
std::vector<TensorType> after_type(const TypeContext& c) { return {c.operand(0)}; }

IndexReads after_reads(const TypeContext& c) {
  std::vector<AxisRead> axes(rank(c.operand(0)));
  for (size_t i = 0; i < axes.size(); ++i) axes[i].axis = i;
  return {{axes}};
}

std::vector<TensorType> uniform_type(const TypeContext& c) {
  expect(
      c.operand(0) == TensorType{DType::i64, {}} && c.operand(1) == TensorType{DType::i32, {}},
      "seed i64[] and iteration i32[] expected, found " + to_string(c.operand(0)) + " and " + to_string(c.operand(1)));
  return {{DType::f32, c.attributes.ints("shape")}};
}

void evaluate_uniform(const EvaluateContext& c) {
  const uint64_t seed = static_cast<uint64_t>(static_cast<int64_t>((*c.operands[0])[0]));
  const uint32_t step = static_cast<uint32_t>((*c.operands[1])[0]);
  const uint32_t site = static_cast<uint32_t>(c.node.attributes.integer("site"));
  for (size_t i = 0; i < c.results[0].size(); ++i) c.results[0][i] = philox_element(seed, step, site, i);
}

const AttributeSpec kShape{"shape", Ints()};
const AttributeSpec kPerAxisShape{"shape", Ints(), AttributeSpec::required, AxisRole::per_axis};

const std::vector<Op> kOps{
    {.name = "broadcast",
     .operands = {{"x"}},
     .attributes = {kPerAxisShape},
     .type = broadcast_type,
     .vjp = [](const VjpContext& c) -> std::vector<Value> {
       return {c.builder.sum_to(c.cotangents[0], c.builder.shape(c.operands[0]))};
     },
     .kernel = KernelKind::movement,
     .index_map = IndexMap::repeated,
     .reads = broadcast_reads,
     .evaluate = evaluate_broadcast},
    {.name = "reshape",
     .operands = {{"x"}},
     .attributes = {kShape},
     .type = reshape_type,
     .vjp = [](const VjpContext& c) -> std::vector<Value> {
       return {c.builder.reshape(c.cotangents[0], c.builder.shape(c.operands[0]))};
     },
     .kernel = KernelKind::movement,
     .index_map = IndexMap::row_major,
     .evaluate = [](const EvaluateContext& c) { c.results[0] = *c.operands[0]; }},
    {.name = "transpose",
     .onnx = "Transpose",
     .operands = {{"x"}},
     .attributes = {{"permutation", Ints()}},
     .type = transpose_type,
     .vjp = transpose_vjp,
     .kernel = KernelKind::movement,
     .index_map = IndexMap::permuted,
     .reads = transpose_reads,
     .evaluate = evaluate_transpose},
    {.name = "slice",
     .operands = {{"x"}},
     .attributes = {{"starts", Ints(), AttributeSpec::required, AxisRole::per_axis},
                    {"limits", Ints(), AttributeSpec::required, AxisRole::per_axis},
                    {"steps", Ints(), AttributeSpec::required, AxisRole::per_axis}},
     .type = slice_type,
     .vjp = slice_vjp,
     .kernel = KernelKind::movement,
     .index_map = IndexMap::part,
     .reads = slice_reads,
     .evaluate = evaluate_slice},
    {.name = "pad",
     .operands = {{"x"}},
     .attributes = {{"low", Ints(), AttributeSpec::defaulted, AxisRole::per_axis},
                    {"high", Ints(), AttributeSpec::defaulted, AxisRole::per_axis},
                    {"interior", Ints(), AttributeSpec::defaulted, AxisRole::per_axis},
                    {"value", 0.0, AttributeSpec::defaulted}},
     .type = pad_type,
     .vjp = pad_vjp,
     .kernel = KernelKind::movement,
     .index_map = IndexMap::padded,
     .reads = pad_reads,
     .evaluate = evaluate_pad},
    {.name = "concat",
     .onnx = "Concat",
     .operands = {{"operands", OperandSpec::variadic}},
     .attributes = {{"axis", int64_t{0}, AttributeSpec::required, AxisRole::axis}},
     .type = concat_type,
     .precision = Precision::widest,
     .vjp = concat_vjp,
     .kernel = KernelKind::movement,
     .index_map = IndexMap::joined,
     .reads = concat_reads,
     .evaluate = evaluate_concat},
    {.name = "iota",
     .attributes = {kShape, {"axis", int64_t{0}}},
     .type = iota_type,
     .not_differentiable = "its result does not depend on a value",
     .kernel = KernelKind::movement,
     .index_map = IndexMap::coordinate,
     .evaluate = evaluate_iota},
    {.name = "after",
     .operands = {{"x"}, {"event", OperandSpec::one, OperandSpec::keep, OperandSpec::control}},
     .type = after_type,
     .vjp = [](const VjpContext& c) -> std::vector<Value> { return {c.cotangents[0], Value{}}; },
     .kernel = KernelKind::movement,
     .index_map = IndexMap::same,
     .reads = after_reads,
     .evaluate = [](const EvaluateContext& c) { c.results[0] = *c.operands[0]; }},
    {.name = "uniform",
     .operands = {{"seed"}, {"iteration"}},
     .attributes = {kShape, {"site", int64_t{0}}},
     .type = uniform_type,
     .not_differentiable = "its result is random",
     .kernel = KernelKind::random,
     .evaluate = evaluate_uniform},
};

}  // namespace

std::span<const Op> movement_ops() { return kOps; }

}  // namespace halfstep
