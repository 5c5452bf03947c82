// Reductions and softmax.
#include <numeric>

#include "frontend/import/operators.h"

namespace halfstep {
namespace {

struct ReducedAxes {
  Ints axes;
  Shape result;      // with keepdims applied
  double count = 1;  // elements that one result is made of
};

ReducedAxes reduced_axes(NodeContext& c) {
  const Shape shape = c.shape(0);
  const bool as_operand = c.version >= (c.op_type() == "ReduceSum" ? 13 : 18);
  const bool keep = c.integer("keepdims", 1) != 0;
  const bool noop = as_operand && c.integer("noop_with_empty_axes", 0) != 0;
  Ints axes = !as_operand ? c.int_list("axes") : c.has_operand(1) ? c.ints(1, "axes") : Ints();
  ReducedAxes r{.axes = {}, .result = {}};
  std::vector<char> reduced(shape.size(), axes.empty() && !noop);
  for (int64_t a : axes) reduced[c.axis(a, shape.size())] = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (reduced[i]) r.axes.push_back(static_cast<int64_t>(i)), r.count *= static_cast<double>(shape[i]);
    if (!reduced[i] || keep) r.result.push_back(reduced[i] ? 1 : shape[i]);
  }
  return r;
}

Value reduce(NodeContext& c, const ReducedAxes& r, std::string_view op, Value x) {
  return c.b.reshape(c.b.reduce(op, x, r.axes), r.result);
}

Value floating_operand(NodeContext& c) {
  if (!is_floating(c.b.dtype(c.operand(0))))
    c.fail("floating values expected, found " + to_string(c.b.type(c.operand(0))));
  return c.operand(0);
}

std::vector<Value> import_reduce_sum(NodeContext& c) {
  return {reduce(c, reduced_axes(c), "reduce_sum", c.operand(0))};
}
// The maximum of no booleans is false and the minimum true: those of numbers, held against 0.
std::vector<Value> reduce_to_extreme(NodeContext& c, std::string_view op) {
  const Value x = c.operand(0);
  if (c.b.dtype(x) != DType::boolean) return {reduce(c, reduced_axes(c), op, x)};
  const Value extreme = reduce(c, reduced_axes(c), op, c.b.cast(x, DType::i32));
  return {c.b.call("less", {c.b.constant_like(extreme, 0), extreme})};
}

std::vector<Value> import_reduce_max(NodeContext& c) { return reduce_to_extreme(c, "reduce_max"); }
std::vector<Value> import_reduce_min(NodeContext& c) { return reduce_to_extreme(c, "reduce_min"); }

std::vector<Value> import_reduce_mean(NodeContext& c) {
  const ReducedAxes r = reduced_axes(c);
  return {c.b.mul(reduce(c, r, "reduce_sum", floating_operand(c)), 1 / r.count)};
}

std::vector<Value> import_reduce_l1(NodeContext& c) {
  return {reduce(c, reduced_axes(c), "reduce_sum", c.b.unary("abs", floating_operand(c)))};
}

std::vector<Value> import_reduce_l2(NodeContext& c) {
  const Value x = floating_operand(c);
  return {c.b.unary("sqrt", reduce(c, reduced_axes(c), "reduce_sum", c.b.mul(x, x)))};
}

std::vector<Value> import_reduce_sum_square(NodeContext& c) {
  const Value x = c.operand(0);
  return {reduce(c, reduced_axes(c), "reduce_sum", c.b.mul(x, x))};
}

std::vector<Value> import_reduce_log_sum(NodeContext& c) {
  return {c.b.unary("log", reduce(c, reduced_axes(c), "reduce_sum", floating_operand(c)))};
}

// By products of halves, in as many steps as the length has digits: no division, so that the gradient is right at
// zeros.
Value product_along(Builder& b, Value x, size_t axis) {
  const Shape shape = b.shape(x);
  const auto part = [&](Value v, int64_t begin, int64_t end) {
    Ints starts(shape.size(), 0), limits = b.shape(v);
    starts[axis] = begin, limits[axis] = end;
    return b.slice(v, starts, limits);
  };
  const auto product = [&](Value u, Value v) {
    return is_floating(b.dtype(u)) ? b.binary("product", u, v) : b.mul(u, v);
  };
  int64_t n = shape[axis];
  if (n == 0) {
    Shape single = shape;
    single[axis] = 1;
    return b.broadcast(b.constant(b.dtype(x), 1), single);
  }
  Value odd;  // the product of what no half took
  for (; n > 1; n /= 2) {
    if (n % 2 == 1) {
      const Value last = part(x, n - 1, n);
      odd = odd ? product(odd, last) : last;
    }
    x = product(part(x, 0, n / 2), part(x, n / 2, n / 2 * 2));
  }
  return odd ? product(x, odd) : x;
}

std::vector<Value> import_reduce_prod(NodeContext& c) {
  const ReducedAxes r = reduced_axes(c);
  Value x = c.operand(0);
  for (int64_t axis : r.axes) x = product_along(c.b, x, static_cast<size_t>(axis));
  return {c.b.reshape(x, r.result)};
}

// A vector of zeros stays one.
std::vector<Value> import_lp_normalization(NodeContext& c) {
  Builder& b = c.b;
  const Value x = floating_operand(c);
  const int64_t p = c.integer("p", 2);
  const Ints axes{static_cast<int64_t>(c.axis(c.integer("axis", -1), c.shape(0).size()))};
  if (p != 1 && p != 2) c.fail("attribute 'p' is " + std::to_string(p) + "; 1 or 2 expected");
  const Value sum = b.reduce("reduce_sum", p == 1 ? b.unary("abs", x) : b.mul(x, x), axes);
  const Value one_for_zeros = b.select(b.binary("eq", sum, b.constant_like(sum, 0)), b.constant_like(sum, 1), sum);
  return {b.div(x, p == 1 ? one_for_zeros : b.unary("sqrt", one_for_zeros))};
}

// The maximum is taken out first, so that no exponential overflows.
std::vector<Value> import_reduce_log_sum_exp(NodeContext& c) {
  const Value x = floating_operand(c);
  const ReducedAxes r = reduced_axes(c);
  const Value maximum = c.b.reduce("reduce_max", x, r.axes);
  const Value sum = c.b.reduce("reduce_sum", c.b.unary("exp", c.b.sub(x, maximum)), r.axes);
  return {c.b.reshape(c.b.add(c.b.unary("log", sum), maximum), r.result)};
}

// Before opset 13 the axes from `axis` on are one; since then `axis` is one axis, the last by default.
std::vector<Value> import_softmax(NodeContext& c) {
  const std::string_view op = c.op_type() == "Softmax" ? "softmax" : "log_softmax";
  const Shape shape = c.shape(0);
  if (shape.empty()) c.fail("a scalar has no axis to normalise over");
  const auto over = [&](Value x, size_t axis) { return c.b.call(op, {x}, {{"axis", static_cast<int64_t>(axis)}}); };
  const size_t axis = c.axis(c.integer("axis", c.version >= 13 ? -1 : 1), shape.size());
  if (c.version >= 13 || axis + 1 == shape.size()) return {over(c.operand(0), axis)};
  const auto split = shape.begin() + static_cast<std::ptrdiff_t>(axis);
  const int64_t rows = std::accumulate(shape.begin(), split, int64_t{1}, std::multiplies<>());
  const int64_t columns = std::accumulate(split, shape.end(), int64_t{1}, std::multiplies<>());
  return {c.b.reshape(over(c.b.reshape(c.operand(0), {rows, columns}), 1), shape)};
}

const std::vector<OnnxOperator> kRows{
    {"LogSoftmax", {1, 13}, 1, 1, import_softmax},
    {"LpNormalization", {1}, 1, 1, import_lp_normalization},
    {"ReduceL1", {1, 18}, 1, 2, import_reduce_l1},
    {"ReduceL2", {1, 18}, 1, 2, import_reduce_l2},
    {"ReduceLogSum", {1, 18}, 1, 2, import_reduce_log_sum},
    {"ReduceLogSumExp", {1, 18}, 1, 2, import_reduce_log_sum_exp},
    {"ReduceMax", {1, 18}, 1, 2, import_reduce_max},
    {"ReduceMean", {1, 18}, 1, 2, import_reduce_mean},
    {"ReduceMin", {1, 18}, 1, 2, import_reduce_min},
    {"ReduceProd", {1, 18}, 1, 2, import_reduce_prod},
    {"ReduceSum", {1, 13}, 1, 2, import_reduce_sum},
    {"ReduceSumSquare", {1, 18}, 1, 2, import_reduce_sum_square},
    {"Softmax", {1, 13}, 1, 1, import_softmax},
};

}  // namespace

std::span<const OnnxOperator> reduction_operators() { return kRows; }

}  // namespace halfstep
