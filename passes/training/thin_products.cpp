#include "passes/training/thin_products.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ir/builder.h"
#include "ir/op.h"
#include "ir/views.h"
#include "passes/rewrite/rules.h"

namespace halfstep {
namespace {

constexpr int64_t kThin = 16, kMostProducts = int64_t{1} << 20;

// One operand over the domain: its two axes stand at `places` of three, in the order in which it has them.
Value spread(Builder& b, Value v, std::array<size_t, 2> places, const Shape& domain) {
  Value at = b.cast(v, DType::f32);
  if (places[0] > places[1]) at = b.transpose(at, {1, 0}), std::swap(places[0], places[1]);
  Shape shape(domain.size(), 1);
  for (const size_t place : places) shape[place] = domain[place];
  return b.broadcast(b.reshape(at, shape), domain);
}

}  // namespace

Graph thin_products(const Graph& graph) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    const TensorType& c = node.results[0];
    if (!is(node, "matmul") || c.shape.size() != 2 || c.dtype == DType::f64) return {};
    const bool ta = node.attributes.integer("transpose_a") != 0, tb = node.attributes.integer("transpose_b") != 0;
    const int64_t m = c.shape[0], n = c.shape[1], k = b.shape(operands[0])[ta ? 0 : 1];
    if (m * n == 0 || k == 0 || std::min(n, k) > kThin || m * n > kMostProducts / k || (ta && tb)) return {};
    // Along the last axis lie neighbours of the second operand: [m, n, k] where its rows are summed, else [m, k, n].
    const size_t columns = tb ? 1 : 2, depth = tb ? 2 : 1;
    Shape domain(3, m);
    domain[columns] = n, domain[depth] = k;
    const Value left = spread(b, operands[0], ta ? std::array{depth, size_t{0}} : std::array{size_t{0}, depth}, domain),
                right = spread(b, operands[1], tb ? std::array{columns, depth} : std::array{depth, columns}, domain);
    Value sum = b.reshape(b.reduce("reduce_sum", b.mul(left, right), {static_cast<int64_t>(depth)}), c.shape);
    if (const Value bias = operands.size() > kProductBias ? operands[kProductBias] : Value{})
      sum = b.add(sum, b.broadcast(b.cast(bias, DType::f32), c.shape));
    if (const Value addend = operands.size() > kProductAddend ? operands[kProductAddend] : Value{})
      sum = b.add(sum, b.cast(addend, DType::f32));
    const Value y = b.cast(sum, c.dtype);
    return {node.attributes.integer("rectified") != 0 ? b.unary("relu", y) : y};
  });
}

}  // namespace halfstep
