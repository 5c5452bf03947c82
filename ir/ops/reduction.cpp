// Reductions over axes; the reduced axes stay with size 1.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/ops/families.h"

namespace halfstep {
namespace {

std::vector<TensorType> reduction_type(const TypeContext& c) {
  TensorType result = c.operand(0);
  for (int64_t axis : c.attributes.ints("axes")) {
    ops::expect(axis >= 0 && axis < static_cast<int64_t>(result.shape.size()),
                "axis " + std::to_string(axis) + " is outside " + to_string(c.operand(0)));
    result.shape[static_cast<size_t>(axis)] = 1;
  }
  return {result};
}

template <typename Combine>
void reduce(const EvaluateContext& c, double identity, Combine&& combine) {
  std::vector<int64_t> strides = row_major_strides(c.node.results[0].shape);
  for (int64_t axis : c.node.attributes.ints("axes")) strides[static_cast<size_t>(axis)] = 0;
  std::fill(c.results[0].begin(), c.results[0].end(), identity);
  size_t at = 0;
  ops::for_each_index(c.types[0].shape, [&](const Ints& index) {
    double& result = c.results[0][static_cast<size_t>(ops::linear_index(index, strides))];
    result = combine(result, (*c.operands[0])[at++]);
  });
}

void evaluate_sum(const EvaluateContext& c) {
  reduce(c, 0, [](double a, double b) { return a + b; });
}

void evaluate_max(const EvaluateContext& c) {
  reduce(c, -std::numeric_limits<double>::infinity(),
         [](double a, double b) { return std::isnan(a) || a > b ? a : b; });
}

void evaluate_min(const EvaluateContext& c) {
  reduce(c, std::numeric_limits<double>::infinity(), [](double a, double b) { return std::isnan(a) || a < b ? a : b; });
}

std::vector<Value> sum_vjp(const VjpContext& c) {
  return {c.builder.broadcast(c.cotangents[0], c.builder.shape(c.operands[0]))};
}

// The cotangent is split evenly among the elements that attain the extremum; their count may be beyond a low type's
// digits.
std::vector<Value> extremum_vjp(const VjpContext& c) {
  Builder& b = c.builder;
  const Value x = c.operands[0];
  const Shape shape = b.shape(x);
  const DType type = b.dtype(x), wide = is_low(type) ? DType::f32 : type;
  const Value attained = b.cast(b.call("eq", {x, b.broadcast(c.results[0], shape)}), wide);
  const Value count = b.call("reduce_sum", {attained}, {{"axes", c.node.attributes.ints("axes")}});
  const Value share = b.div(b.cast(c.cotangents[0], wide), count);
  return {b.cast(b.mul(attained, b.broadcast(share, shape)), type)};
}

double reduction_cost(const Node&, std::span<const TensorType> types) {
  return static_cast<double>(types[0].element_count());
}

std::optional<OperandAxes> resize_reduction(const Node& node, size_t axis) {
  return ops::axis_of_first(node, axis, !std::ranges::count(node.attributes.ints("axes"), static_cast<int64_t>(axis)));
}

Op reduction(std::string_view name, ScalarOp combine, Precision precision, VjpRule vjp, EvaluateRule evaluate) {
  return {.name = name,
          .operands = {{"x"}},
          .attributes = {{"axes", Ints(), AttributeSpec::required, AxisRole::axes}},
          .type = reduction_type,
          .precision = precision,
          .vjp = vjp,
          .kernel = KernelKind::reduction,
          .combine = combine,
          .resize = resize_reduction,
          .evaluate = evaluate,
          .cost = reduction_cost};
}

const std::vector<Op> kOps{
    reduction("reduce_sum", ScalarOp::add, Precision::full_inside, sum_vjp, evaluate_sum),
    reduction("reduce_max", ScalarOp::maximum, Precision::follow, extremum_vjp, evaluate_max),
    reduction("reduce_min", ScalarOp::minimum, Precision::follow, extremum_vjp, evaluate_min),
};

}  // namespace

std::span<const Op> reduction_ops() { return kOps; }

}  // namespace halfstep
