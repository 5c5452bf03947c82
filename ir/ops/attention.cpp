// Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), one node until it is expanded, and its gradient,
// which computes the weights again (Dao et al. 2022, section 3.1). Contractions in the operands' type, everything
// between them in f32.
#include <cmath>
#include <limits>

#include "ir/ops/families.h"

namespace halfstep {
namespace {

using ops::expect;
using ops::rank;

// Query head h reads key head h / group.
struct AttentionSizes {
  int64_t batch, heads, key_heads, group, queries, keys, depth, value_depth;
};

AttentionSizes attention_sizes(const TensorType& q, const TensorType& k, const TensorType& v) {
  const std::string found = ", found " + to_string(q) + ", " + to_string(k) + " and " + to_string(v);
  expect(rank(q) == 4 && rank(k) == 4 && rank(v) == 4, "q, k and v [batch, heads, length, depth] expected" + found);
  expect(is_floating(q.dtype) && k.dtype == q.dtype && v.dtype == q.dtype, "one floating type expected" + found);
  expect(k.shape[0] == q.shape[0] && v.shape[0] == q.shape[0], "one batch size expected" + found);
  expect(k.shape[1] > 0 && q.shape[1] % k.shape[1] == 0 && v.shape[1] == k.shape[1],
         "k and v with as many heads, and q with a multiple of them expected" + found);
  expect(k.shape[3] == q.shape[3] && v.shape[2] == k.shape[2],
         "q and k of one depth, k and v of one length expected" + found);
  return {q.shape[0], q.shape[1], k.shape[1], q.shape[1] / k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3]};
}

// [batch, heads, queries, keys]
Shape weights_shape(const AttentionSizes& s) { return {s.batch, s.heads, s.queries, s.keys}; }

// The operands after q, k and v: mask, seed, iteration, each optional.
void check_options(const TypeContext& c, const AttentionSizes& s, size_t first) {
  const auto given = [&](size_t i) { return first + i < c.operands.size() ? c.operands[first + i] : nullptr; };
  if (const TensorType* mask = given(0)) {
    const Shape weights = weights_shape(s);
    bool fits = rank(*mask) <= weights.size() && (mask->dtype == DType::boolean || is_floating(mask->dtype));
    for (size_t i = 0; fits && i < rank(*mask); ++i) {
      const int64_t size = mask->shape[i];
      fits = size == 1 || size == weights[weights.size() - rank(*mask) + i];
    }
    expect(fits,
           "a bool or floating mask that broadcasts to " + to_string(weights) + " expected, found " + to_string(*mask));
  }
  const double ratio = c.attributes.number("ratio");
  expect(ratio >= 0 && ratio < 1, "ratio " + std::to_string(ratio) + " is outside [0, 1)");
  const TensorType *seed = given(1), *iteration = given(2);
  expect(ratio == 0
             ? !seed && !iteration
             : seed && iteration && *seed == TensorType{DType::i64, {}} && *iteration == TensorType{DType::i32, {}},
         "seed i64[] and iteration i32[] belong to a dropout ratio above 0");
  expect(c.attributes.number("softcap") >= 0, "softcap is negative");
}

std::vector<TensorType> attention_type(const TypeContext& c) {
  const AttentionSizes s = attention_sizes(c.operand(0), c.operand(1), c.operand(2));
  check_options(c, s, 3);
  const TensorType row{DType::f32, {s.batch, s.heads, s.queries}};
  return {{c.operand(0).dtype, {s.batch, s.heads, s.queries, s.value_depth}}, row, row};
}

// The steps that forward and backward share.
class AttentionSteps {
 public:
  AttentionSteps(Builder& b, const Attributes& attributes, std::span<const Value> qkv, std::span<const Value> options)
      : b_(b),
        attributes_(attributes),
        q_(qkv[0]),
        k_(qkv[1]),
        v_(qkv[2]),
        mask_(options.size() > 0 ? options[0] : Value{}),
        sizes_(attention_sizes(b.type(q_), b.type(k_), b.type(v_))) {
    if (attributes.number("ratio") > 0) {
      const Value u = b.call("uniform", {options[1], options[2]},
                             {{"shape", weights_shape(sizes_)}, {"site", attributes.integer("site")}});
      kept_ = b.call("less_equal", {b.constant_like(u, attributes.number("ratio")), u});
    }
  }

  const AttentionSizes& sizes() const { return sizes_; }

  // The heads that share a key head as one matrix: [batch * key_heads, group * length, depth].
  Value matrices(Value v) const {
    const Shape s = b_.shape(v);
    return b_.reshape(v, {sizes_.batch * sizes_.key_heads, s[1] * s[2] / sizes_.key_heads, s[3]});
  }
  // matmul of two such batches.
  Value product(Value x, Value y, Attributes attributes) const {
    return b_.matmul(matrices(x), matrices(y), std::move(attributes));
  }
  // x y^T [batch, heads, queries, keys] in f32.
  Value similarity(Value x, Value y) const {
    Attributes attributes{{"transpose_b", int64_t{1}}};
    if (is_low(b_.dtype(x))) attributes.set("result", std::string(name(DType::f32)));
    return b_.cast(b_.reshape(product(x, y, std::move(attributes)), weights_shape(sizes_)), DType::f32);
  }

  // scale q k^T, softcapped: what the mask is added to.
  Value capped_scores() const {
    const Value scores = b_.mul(similarity(q_, k_), attributes_.number("scale"));
    const double cap = attributes_.number("softcap");
    return cap == 0 ? scores : b_.mul(b_.unary("tanh", b_.mul(scores, 1 / cap)), cap);
  }
  // `fill` where the query does not see the key.
  Value masked(Value scores) const {
    if (mask_ && b_.dtype(mask_) != DType::boolean) scores = b_.add(scores, b_.cast(mask_, DType::f32));
    return where_seen(scores, attributes_.number("fill"));
  }
  // The cotangent of what `masked` takes; weights of 0 pass none on.
  Value masked_cotangent(Value ds) const { return std::isfinite(attributes_.number("fill")) ? where_seen(ds, 0) : ds; }
  Value where_seen(Value scores, double otherwise) const {
    const Value hidden = b_.constant_like(scores, otherwise);
    const Shape shape = b_.shape(scores);
    if (mask_ && b_.dtype(mask_) == DType::boolean) scores = b_.select(b_.broadcast(mask_, shape), scores, hidden);
    if (attributes_.integer("causal") == 0) return scores;
    const Value key = b_.call("iota", {}, {{"shape", Shape{sizes_.queries, sizes_.keys}}, {"axis", int64_t{1}}}),
                query = b_.call("iota", {}, {{"shape", Shape{sizes_.queries, sizes_.keys}}, {"axis", int64_t{0}}});
    return b_.select(b_.broadcast(b_.call("less_equal", {key, query}), shape), scores, hidden);
  }
  // Applies dropout to the weights, or to their cotangent.
  Value dropped(Value weights) const {
    if (!kept_) return weights;
    return b_.select(kept_, b_.mul(weights, 1 / (1 - attributes_.number("ratio"))), b_.constant_like(weights, 0));
  }

 private:
  Builder& b_;
  const Attributes& attributes_;
  Value q_, k_, v_, mask_, kept_;
  AttentionSizes sizes_;
};

// The softmax's maximum and sum stay apart: in a row that hides all keys by a large number their logarithm would lose
// how many there are. A row of -infinity: its maximum is held above that, so that all its exponentials are 0, and its
// sum, which is at least 1 in any other row, above 0.
std::vector<Value> expand_attention(const ExpandContext& c) {
  Builder& b = c.builder;
  const AttentionSteps steps(b, c.node.attributes, c.operands.first(3), c.operands.subspan(3));
  const Value scores = steps.masked(steps.capped_scores());
  const Value maximum = b.call("reduce_max", {scores}, {{"axes", Ints{3}}});
  const Value finite = b.call("max", {maximum, b.constant_like(maximum, std::numeric_limits<float>::lowest())});
  const Value exponentials = b.unary("exp", b.sub(scores, finite));
  const Value total = b.call("reduce_sum", {exponentials}, {{"axes", Ints{3}}});
  const Value sum = b.call("max", {total, b.constant_like(total, 1)});
  const Value weights = steps.dropped(b.mul(exponentials, b.unary("reciprocal", sum)));
  const Value y = steps.product(b.cast(weights, b.dtype(c.operands[2])), c.operands[2], {});
  const auto row = [&](Value v) { return b.reshape(v, c.node.results[1].shape); };
  return {b.reshape(y, c.node.results[0].shape), row(finite), row(sum)};
}

// Operands of attention_grad: dy, y, maximum and sum come first.
enum GradOperand : size_t { kGradQ = 4, kGradK, kGradV, kGradMask, kGradSeed };

std::vector<TensorType> attention_grad_type(const TypeContext& c) {
  const AttentionSizes s = attention_sizes(c.operand(kGradQ), c.operand(kGradK), c.operand(kGradV));
  check_options(c, s, kGradMask);
  const TensorType y{c.operand(kGradQ).dtype, {s.batch, s.heads, s.queries, s.value_depth}},
      row{DType::f32, {s.batch, s.heads, s.queries}};
  expect(c.operand(0) == y && c.operand(1) == y && c.operand(2) == row && c.operand(3) == row,
         "dy and y " + to_string(y) + ", maximum and sum " + to_string(row) + " expected, found " +
             to_string(c.operand(0)) + ", " + to_string(c.operand(1)) + ", " + to_string(c.operand(2)) + " and " +
             to_string(c.operand(3)));
  std::vector<TensorType> results{c.operand(kGradQ), c.operand(kGradK), c.operand(kGradV)};
  if (c.operands.size() > kGradMask && c.operands[kGradMask] && is_floating(c.operand(kGradMask).dtype))
    results.push_back(c.operand(kGradMask));
  return results;
}

// With P the weights, P' those after dropout and rows summed over the keys: dv = P'^T dy, dP = dropped(dy v^T),
// ds = P (dP - sum(P dP)) = P (dP - sum(dy y)); dq = scale ds k, dk = scale ds^T q.
std::vector<Value> expand_attention_grad(const ExpandContext& c) {
  Builder& b = c.builder;
  const Value dy = c.operands[0], y = c.operands[1], q = c.operands[kGradQ], k = c.operands[kGradK],
              v = c.operands[kGradV];
  const Attributes& attributes = c.node.attributes;
  // The weights are computed again when dy is there.
  std::vector<Value> again(c.operands.begin() + kGradQ, c.operands.end());
  again[0] = b.call("after", {q, dy});
  if (attributes.number("ratio") > 0) again[kGradSeed - kGradQ] = b.call("after", {c.operands[kGradSeed], dy});
  const AttentionSteps steps(b, attributes, std::span(again).first(3), std::span(again).subspan(3));
  const AttentionSizes& s = steps.sizes();
  const Value capped = steps.capped_scores();
  const auto column = [&](Value row) { return b.reshape(row, {s.batch, s.heads, s.queries, 1}); };
  const Value exponentials = b.unary("exp", b.sub(steps.masked(capped), column(c.operands[2])));
  const Value weights = b.mul(exponentials, b.unary("reciprocal", column(c.operands[3])));
  const Value inner = b.call("reduce_sum", {b.mul(b.cast(dy, DType::f32), b.cast(y, DType::f32))}, {{"axes", Ints{3}}});
  const Value ds = steps.masked_cotangent(b.mul(weights, b.sub(steps.dropped(steps.similarity(dy, v)), inner)));
  Value dz = b.mul(ds, attributes.number("scale"));
  if (const double cap = attributes.number("softcap"); cap > 0) {
    const Value bounded = b.mul(capped, 1 / cap);
    dz = b.mul(dz, b.sub(b.constant_like(dz, 1), b.mul(bounded, bounded)));
  }
  dz = b.cast(dz, b.dtype(q));
  const Value used = b.cast(steps.dropped(weights), b.dtype(v));
  const Attributes transpose_first{{"transpose_a", int64_t{1}}};
  std::vector<Value> gradients{b.reshape(steps.product(dz, k, {}), b.shape(q)),
                               b.reshape(steps.product(dz, q, transpose_first), b.shape(k)),
                               b.reshape(steps.product(used, dy, transpose_first), b.shape(v))};
  if (c.node.results.size() > 3) {
    const Value mask = c.operands[kGradMask];
    gradients.push_back(b.cast(b.sum_to(ds, b.shape(mask)), b.dtype(mask)));
  }
  return gradients;
}

std::vector<Value> attention_vjp(const VjpContext& c) {
  expect(!c.cotangents[1] && !c.cotangents[2], "a gradient through the maxima and sums is not supported");
  if (!c.cotangents[0]) return std::vector<Value>(c.operands.size());
  std::vector<Value> operands{c.cotangents[0], c.results[0], c.results[1], c.results[2]};
  operands.insert(operands.end(), c.operands.begin(), c.operands.end());
  std::vector<Value> gradients = c.builder.call_all(op("attention_grad"), std::move(operands), c.node.attributes);
  gradients.resize(c.operands.size());
  return gradients;
}

std::vector<Value> attention_inference(const ExpandContext& c) {
  Attributes attributes = c.node.attributes;
  attributes.set("ratio", 0.0), attributes.set("site", int64_t{0});
  return c.builder.call_all(
      op("attention"),
      {c.operands.begin(), c.operands.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(4, c.operands.size()))},
      std::move(attributes));
}

// Multiplications and additions of `products` contractions over [queries, keys, depth].
double contraction_cost(const TensorType& q, const TensorType& v, double products) {
  const int64_t queries = q.element_count() / std::max<int64_t>(1, q.shape[3]);
  return products * static_cast<double>(q.element_count() + queries * v.shape[3]) * static_cast<double>(v.shape[2]);
}

const OperandSpec kMask{"mask", OperandSpec::optional, OperandSpec::keep};
const OperandSpec kSeed{"seed", OperandSpec::optional}, kIteration{"iteration", OperandSpec::optional};
const std::vector<AttributeSpec> kAttributes{
    {"scale", 1.0},
    {"causal", int64_t{0}, AttributeSpec::defaulted},
    {"softcap", 0.0, AttributeSpec::defaulted},
    {"fill", -std::numeric_limits<double>::infinity(), AttributeSpec::defaulted},
    {"ratio", 0.0, AttributeSpec::defaulted},
    {"site", int64_t{0}, AttributeSpec::defaulted}};

const std::vector<Op> kOps{
    {.name = "attention",
     .onnx = "Attention",
     .operands = {{"q"}, {"k"}, {"v"}, kMask, kSeed, kIteration},
     .attributes = kAttributes,
     .type = attention_type,
     .precision = Precision::low,
     .vjp = attention_vjp,
     .kernel = KernelKind::composite,
     .expand = expand_attention,
     .inference = attention_inference,
     .cost = [](const Node&, std::span<const TensorType> t) { return contraction_cost(t[0], t[2], 2); }},
    {.name = "attention_grad",
     .operands = {{"dy"},
                  {"y"},
                  {"maximum", OperandSpec::one, OperandSpec::keep},
                  {"sum", OperandSpec::one, OperandSpec::keep},
                  {"q"},
                  {"k"},
                  {"v"},
                  kMask,
                  kSeed,
                  kIteration},
     .attributes = kAttributes,
     .type = attention_grad_type,
     .precision = Precision::low,
     .not_differentiable = "second derivatives are not built",
     .kernel = KernelKind::composite,
     .expand = expand_attention_grad,
     .cost = [](const Node&, std::span<const TensorType> t) { return contraction_cost(t[kGradQ], t[kGradV], 5); }},
};

}  // namespace

std::span<const Op> attention_ops() { return kOps; }

}  // namespace halfstep
