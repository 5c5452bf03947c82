// Attention as one call of a library (Dao et al. 2022): sequences before heads, as projections leave them, and of the
// softmax only the logarithm of each row's sum is kept. passes/model/choose_attention.h makes it of `attention` where
// every query sees a key. Without k and v, q holds all three beside each other in each position, as one projection
// leaves them: [batch, length, heads + 2 key heads, depth]; so does its gradient.
#include <array>
#include <utility>

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

// The types of q, k and v, which stand at `first`.
std::array<TensorType, 3> parts(const TypeContext& c, size_t first) {
  const auto given = [&](size_t i) { return first + i < c.operands.size() && c.operands[first + i]; };
  const int64_t key_heads = c.attributes.integer("key_heads");
  if (given(1) || given(2)) {
    expect(given(1) && given(2) && key_heads == 0, "k and v, or key_heads and neither of them, expected");
    return {c.operand(first), c.operand(first + 1), c.operand(first + 2)};
  }
  TensorType q = c.operand(first);
  expect(rank(q) == 4, "q, k and v beside each other [batch, length, heads, depth] expected, found " + to_string(q));
  expect(key_heads > 0 && key_heads <= (q.shape[2] - 1) / 2,
         to_string(q) + " does not hold " + std::to_string(key_heads) + " key heads twice and heads of queries");
  TensorType k = q;
  q.shape[2] -= 2 * key_heads, k.shape[2] = key_heads;
  return {q, k, k};
}

std::vector<TensorType> flash_type(const TypeContext& c) {
  const auto [q, k, v] = parts(c, 0);
  const Sizes s = sizes(q, k, v);
  return {{q.dtype, s.y}, {DType::f32, s.statistics}};
}

enum GradOperand : size_t { kDy, kY, kStatistics, kQ, kK, kV };

std::vector<TensorType> flash_grad_type(const TypeContext& c) {
  const auto [q, k, v] = parts(c, kQ);
  const Sizes s = sizes(q, k, v);
  const TensorType y{q.dtype, s.y}, statistics{DType::f32, s.statistics};
  expect(c.operand(kDy) == y && c.operand(kY) == y && c.operand(kStatistics) == statistics,
         "dy and y " + to_string(y) + " and statistics " + to_string(statistics) + " expected, found " +
             to_string(c.operand(kDy)) + ", " + to_string(c.operand(kY)) + " and " + to_string(c.operand(kStatistics)));
  if (c.attributes.integer("key_heads") > 0) return {c.operand(kQ)};
  return {q, k, v};
}

std::vector<Value> flash_vjp(const VjpContext& c) {
  expect(!c.cotangents[1], "a gradient through the statistics is not supported");
  if (!c.cotangents[0]) return std::vector<Value>(c.operands.size());
  std::vector<Value> operands{c.cotangents[0], c.results[0], c.results[1]};
  operands.insert(operands.end(), c.operands.begin(), c.operands.end());
  std::vector<Value> gradients = c.builder.call_all(op("flash_attention_grad"), std::move(operands), c.node.attributes);
  gradients.resize(c.operands.size());
  return gradients;
}

Value heads_first(Builder& b, Value v) { return b.transpose(v, {0, 2, 1, 3}); }

Attributes attention_attributes(const Node& node) {
  return {{"scale", node.attributes.number("scale")}, {"causal", node.attributes.integer("causal")}};
}

// q, k and v, which stand at `first`, [batch, heads, length, depth].
std::vector<Value> heads_first(const ExpandContext& c, size_t first) {
  Builder& b = c.builder;
  std::vector<Value> found;
  if (const int64_t key_heads = c.node.attributes.integer("key_heads"); key_heads > 0) {
    const Value packed = c.operands[first];
    const int64_t all = b.shape(packed)[2], heads = all - 2 * key_heads;
    for (const auto& [from, to] :
         {std::pair{int64_t{0}, heads}, {heads, heads + key_heads}, {heads + key_heads, all}}) {
      Shape limits = b.shape(packed);
      limits[2] = to;
      found.push_back(heads_first(b, b.slice(packed, {0, 0, from, 0}, limits)));
    }
    return found;
  }
  for (size_t i = 0; i < 3; ++i) found.push_back(heads_first(b, c.operands[first + i]));
  return found;
}

std::vector<Value> expand_flash(const ExpandContext& c) {
  Builder& b = c.builder;
  std::vector<Value> operands = heads_first(c, 0);
  const std::vector<Value> found = b.call_all(op("attention"), std::move(operands), attention_attributes(c.node));
  return {heads_first(b, found[0]), b.add(found[1], b.unary("log", found[2]))};
}

// The maximum and the sum of the expanded form together: what the weights are divided by is in the exponent.
std::vector<Value> expand_flash_grad(const ExpandContext& c) {
  Builder& b = c.builder;
  const Value statistics = c.operands[kStatistics];
  std::vector<Value> operands{heads_first(b, c.operands[kDy]), heads_first(b, c.operands[kY]), statistics,
                              b.constant_like(statistics, 1)};
  for (const Value v : heads_first(c, kQ)) operands.push_back(v);
  std::vector<Value> found = b.call_all(op("attention_grad"), std::move(operands), attention_attributes(c.node));
  for (Value& v : found) v = heads_first(b, v);
  if (c.node.results.size() == 1) return {b.call("concat", std::move(found), {{"axis", int64_t{2}}})};
  return found;
}

// Multiplications and additions of so many products over [queries, keys, depth].
double products_cost(const TensorType& y, std::span<const TensorType> qkv, double products) {
  const int64_t keys = qkv.size() > 1 ? qkv[1].shape[1] : y.shape[1];
  return products * static_cast<double>(y.shape[0] * y.shape[1] * y.shape[2]) *
         static_cast<double>(keys * (qkv[0].shape[3] + y.shape[3]));
}

const OperandSpec kStatisticsOperand{"statistics", OperandSpec::one, OperandSpec::keep};
const std::vector<AttributeSpec> kAttributes{{"scale", 1.0},
                                             {"causal", int64_t{0}, AttributeSpec::defaulted},
                                             {"key_heads", int64_t{0}, AttributeSpec::defaulted},
                                             {"deterministic", int64_t{0}, AttributeSpec::defaulted}};

const std::vector<Op> kOps{
    {.name = "flash_attention",
     .operands = {{"q"}, {"k", OperandSpec::optional}, {"v", OperandSpec::optional}},
     .attributes = kAttributes,
     .type = flash_type,
     .precision = Precision::low,
     .vjp = flash_vjp,
     .kernel = KernelKind::attention,
     .expand = expand_flash,
     .cost = [](const Node& n, std::span<const TensorType> t) { return products_cost(n.results[0], t, 2); }},
    {.name = "flash_attention_grad",
     .operands = {{"dy"}, {"y"}, kStatisticsOperand, {"q"}, {"k", OperandSpec::optional}, {"v", OperandSpec::optional}},
     .attributes = kAttributes,
     .type = flash_grad_type,
     .precision = Precision::low,
     .not_differentiable = "second derivatives are not built",
     .kernel = KernelKind::attention,
     .gradient = Gradient::data,
     .expand = expand_flash_grad,
     .cost = [](const Node&, std::span<const TensorType> t) { return products_cost(t[kY], t.subspan(kQ), 5); }},
};

}  // namespace

std::span<const Op> flash_attention_ops() { return kOps; }

}  // namespace halfstep
