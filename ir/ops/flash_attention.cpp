// Attention as one call of a library (Dao et al. 2022): sequences before heads, as projections leave them, and of the
// softmax only the logarithm of each row's sum is kept. passes/model/choose_attention.h makes it of `attention` where
// every query sees a key.
#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::expect;
using ops::rank;

// q [batch, queries, heads, depth], k [batch, keys, key heads, depth], v [batch, keys, key heads, value depth]
struct Sizes {
  Shape y, statistics;  // [batch, queries, heads, value depth], [batch, heads, queries]
};

Sizes sizes(const TensorType& q, const TensorType& k, const TensorType& v) {
  const std::string found = ", found " + to_string(q) + ", " + to_string(k) + " and " + to_string(v);
  expect(rank(q) == 4 && rank(k) == 4 && rank(v) == 4, "q, k and v [batch, length, heads, depth] expected" + found);
  expect(is_floating(q.dtype) && k.dtype == q.dtype && v.dtype == q.dtype, "one floating type expected" + found);
  expect(k.shape[0] == q.shape[0] && v.shape[0] == q.shape[0], "one batch size expected" + found);
  expect(k.shape[2] > 0 && q.shape[2] % k.shape[2] == 0 && v.shape[2] == k.shape[2],
         "k and v with as many heads, and q with a multiple of them expected" + found);
  expect(k.shape[3] == q.shape[3] && v.shape[1] == k.shape[1],
         "q and k of one depth, k and v of one length expected" + found);
  return {{q.shape[0], q.shape[1], q.shape[2], v.shape[3]}, {q.shape[0], q.shape[2], q.shape[1]}};
}

std::vector<TensorType> flash_type(const TypeContext& c) {
  const Sizes s = sizes(c.operand(0), c.operand(1), c.operand(2));
  return {{c.operand(0).dtype, s.y}, {DType::f32, s.statistics}};
}

enum GradOperand : size_t { kDy, kY, kStatistics, kQ, kK, kV };

std::vector<TensorType> flash_grad_type(const TypeContext& c) {
  const Sizes s = sizes(c.operand(kQ), c.operand(kK), c.operand(kV));
  const TensorType y{c.operand(kQ).dtype, s.y}, statistics{DType::f32, s.statistics};
  expect(c.operand(kDy) == y && c.operand(kY) == y && c.operand(kStatistics) == statistics,
         "dy and y " + to_string(y) + " and statistics " + to_string(statistics) + " expected, found " +
             to_string(c.operand(kDy)) + ", " + to_string(c.operand(kY)) + " and " + to_string(c.operand(kStatistics)));
  return {c.operand(kQ), c.operand(kK), c.operand(kV)};
}

std::vector<Value> flash_vjp(const VjpContext& c) {
  expect(!c.cotangents[1], "a gradient through the statistics is not supported");
  if (!c.cotangents[0]) return std::vector<Value>(c.operands.size());
  std::vector<Value> operands{c.cotangents[0], c.results[0], c.results[1]};
  operands.insert(operands.end(), c.operands.begin(), c.operands.end());
  return c.builder.call_all(op("flash_attention_grad"), std::move(operands), c.node.attributes);
}

Value heads_first(Builder& b, Value v) { return b.transpose(v, {0, 2, 1, 3}); }

Attributes attention_attributes(const Node& node) {
  return {{"scale", node.attributes.number("scale")}, {"causal", node.attributes.integer("causal")}};
}

std::vector<Value> expand_flash(const ExpandContext& c) {
  Builder& b = c.builder;
  std::vector<Value> operands;
  for (size_t i = 0; i < 3; ++i) operands.push_back(heads_first(b, c.operands[i]));
  const std::vector<Value> found = b.call_all(op("attention"), std::move(operands), attention_attributes(c.node));
  return {heads_first(b, found[0]), b.add(found[1], b.unary("log", found[2]))};
}

// The maximum and the sum of the expanded form together: what the weights are divided by is in the exponent.
std::vector<Value> expand_flash_grad(const ExpandContext& c) {
  Builder& b = c.builder;
  const Value statistics = c.operands[kStatistics];
  std::vector<Value> operands{heads_first(b, c.operands[kDy]), heads_first(b, c.operands[kY]), statistics,
                              b.constant_like(statistics, 1)};
  for (const GradOperand i : {kQ, kK, kV}) operands.push_back(heads_first(b, c.operands[i]));
  std::vector<Value> found = b.call_all(op("attention_grad"), std::move(operands), attention_attributes(c.node));
  for (Value& v : found) v = heads_first(b, v);
  return found;
}

// Multiplications and additions of so many products over [queries, keys, depth].
double products_cost(const TensorType& q, const TensorType& v, double products) {
  return products * static_cast<double>(q.shape[0] * q.shape[1] * q.shape[2]) *
         static_cast<double>(v.shape[1] * (q.shape[3] + v.shape[3]));
}

const OperandSpec kStatisticsOperand{"statistics", OperandSpec::one, OperandSpec::keep};
const std::vector<AttributeSpec> kAttributes{{"scale", 1.0},
                                             {"causal", int64_t{0}, AttributeSpec::defaulted},
                                             {"deterministic", int64_t{0}, AttributeSpec::defaulted}};

const std::vector<Op> kOps{
    {.name = "flash_attention",
     .operands = {{"q"}, {"k"}, {"v"}},
     .attributes = kAttributes,
     .type = flash_type,
     .precision = Precision::low,
     .vjp = flash_vjp,
     .kernel = KernelKind::attention,
     .expand = expand_flash,
     .cost = [](const Node&, std::span<const TensorType> t) { return products_cost(t[0], t[2], 2); }},
    {.name = "flash_attention_grad",
     .operands = {{"dy"}, {"y"}, kStatisticsOperand, {"q"}, {"k"}, {"v"}},
     .attributes = kAttributes,
     .type = flash_grad_type,
     .precision = Precision::low,
     .not_differentiable = "second derivatives are not built",
     .kernel = KernelKind::attention,
     .gradient = Gradient::data,
     .expand = expand_flash_grad,
     .cost = [](const Node&, std::span<const TensorType> t) { return products_cost(t[kQ], t[kV], 5); }},
};

}  // namespace

std::span<const Op> flash_attention_ops() { return kOps; }

}  // namespace halfstep
