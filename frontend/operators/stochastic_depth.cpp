#include "frontend/operators/stochastic_depth.h"

#include <algorithm>
#include <cmath>

namespace halfstep {
namespace {

// Through what does not change elements: exporters broadcast and cast on the way.
const Node& maker(Builder& b, Value v) {
  const Node* node = &b.graph().node(v);
  while (node->op->name == "broadcast" || node->op->name == "reshape" || node->op->name == "cast")
    node = &b.graph().node(node->operands[0]);
  return *node;
}

// The one value of all elements of a constant.
std::optional<double> common_value(NodeContext& c, Value v) {
  const std::optional<Tensor> tensor = c.importer().constants().evaluate(v);
  if (!tensor || tensor->type.element_count() == 0) return std::nullopt;
  const std::vector<double> values = tensor->values();
  const bool same = std::all_of(values.begin(), values.end(), [&](double other) { return other == values[0]; });
  return same ? std::optional(values[0]) : std::nullopt;
}

// v / constant: v and the constant.
std::optional<std::pair<Value, double>> quotient(NodeContext& c, Value v) {
  const Node& node = c.b.graph().node(v);
  if (node.op->name != "div") return std::nullopt;
  const Value numerator = node.operands[0];
  const std::optional<double> divisor = common_value(c, node.operands[1]);
  if (!divisor) return std::nullopt;
  return std::pair(numerator, *divisor);
}

// p, if `mask` is 1 with probability p and else 0.
std::optional<double> survival(NodeContext& c, Value mask) {
  const Node node = maker(c.b, mask);
  const auto is_uniform = [&](Value v) { return maker(c.b, v).op->name == "uniform"; };
  if (node.op->name == "less" && is_uniform(node.operands[0])) return common_value(c, node.operands[1]);
  if (node.op->name != "floor") return std::nullopt;
  const Node sum = maker(c.b, node.operands[0]);
  if (sum.op->name != "add") return std::nullopt;
  for (size_t i : {0, 1})
    if (is_uniform(sum.operands[i])) return common_value(c, sum.operands[1 - i]);
  return std::nullopt;
}

bool equal(double p, double q) { return std::abs(p - q) <= 1e-6; }

// The mask's shape beside x's, or nothing if it does not broadcast.
std::optional<Shape> shape_beside(Shape mask, const Shape& x) {
  if (mask.size() > x.size()) return std::nullopt;
  mask.insert(mask.begin(), x.size() - mask.size(), 1);
  for (size_t i = 0; i < x.size(); ++i)
    if (mask[i] != 1 && mask[i] != x[i]) return std::nullopt;
  return mask;
}

Value dropped(NodeContext& c, Value x, Value mask, double p) {
  const std::optional<Shape> shape = shape_beside(c.b.shape(mask), c.b.shape(x));
  if (!shape || !(p > 0) || p > 1 || !is_floating(c.b.dtype(x))) return {};
  // A mask of every element is a dropout that the exporter took apart, and has the ratio that dropouts are given.
  const std::optional<double> chosen = c.importer().inputs().options.dropout;
  const double ratio = *shape == c.b.shape(x) || chosen == 0.0 ? chosen.value_or(1 - p) : 1 - p;
  if (ratio == 0) return x;
  return c.b.call("dropout", {x, c.step_seed(), c.step_iteration()},
                  {{"ratio", ratio}, {"site", c.importer().next_random_site()}, {"shape", *shape}});
}

Value dropped_by(NodeContext& c, Value x, Value mask) {
  if (const auto scaled = quotient(c, mask))
    if (const auto p = survival(c, scaled->first); p && equal(*p, scaled->second)) return dropped(c, x, mask, *p);
  if (const auto scaled = quotient(c, x))
    if (const auto p = survival(c, mask); p && equal(*p, scaled->second)) return dropped(c, scaled->first, mask, *p);
  return {};
}

}  // namespace

Value stochastic_depth(NodeContext& c, Value x, Value y) {
  if (!c.training()) return {};
  const Value found = dropped_by(c, x, y);
  return found ? found : dropped_by(c, y, x);
}

}  // namespace halfstep
