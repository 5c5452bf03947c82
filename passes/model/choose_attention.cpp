#include "passes/model/choose_attention.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"
#include "passes/rewrite/strided_view.h"

namespace halfstep {
namespace {

constexpr int64_t kDeepest = 128, kDepthMultiple = 8;  // of cuDNN's engines, forward and backward, from sm_80 on

bool takes_depth(int64_t depth) { return depth > 0 && depth <= kDeepest && depth % kDepthMultiple == 0; }

bool library_takes(Builder& b, const Node& node, std::span<const Value> operands) {
  const TensorType &q = b.type(operands[0]), &k = b.type(operands[1]), &v = b.type(operands[2]);
  const bool masked = operands.size() > 3 && operands[3];
  const bool empty = q.element_count() == 0 || k.element_count() == 0;
  return is_low(q.dtype) && !masked && !empty && node.attributes.number("ratio") == 0 &&
         node.attributes.number("softcap") == 0 && takes_depth(q.shape[3]) && takes_depth(v.shape[3]) &&
         q.shape[2] > 1 && k.shape[2] > 1;
}

// What q, k and v [batch, length, heads, depth] are the three parts of, in each position beside each other; absent:
// they lie otherwise.
Value packed(Builder& b, std::span<const Value> qkv) {
  const Shape q = b.shape(qkv[0]), k = b.shape(qkv[1]), v = b.shape(qkv[2]);
  if (q[0] != k[0] || q[1] != k[1] || k != v || q[3] != k[3]) return {};
  const Shape all{q[0], q[1], q[2] + 2 * k[2], q[3]};
  const Ints expected = row_major_strides(all);
  int64_t offset = 0;
  Value base;
  for (const Value part : qkv) {
    const Shape shape = b.shape(part);
    const StridedView view = strided_view(b.graph(), part);
    if (view.offset != offset || (base && view.base != base)) return {};
    for (size_t axis = 0; axis < shape.size(); ++axis)
      if (shape[axis] != 1 && view.strides[axis] != expected[axis]) return {};
    base = view.base, offset += shape[2] * shape[3];
  }
  const TensorType type = b.type(base);
  return type.element_count() == TensorType{type.dtype, all}.element_count() ? b.reshape(base, all) : Value{};
}

}  // namespace

Graph choose_attention(const Graph& graph, AttentionForm form) {
  if (form == AttentionForm::expanded) return graph;
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value> operands) -> std::vector<Value> {
    if (!is(node, "attention") || !library_takes(b, node, operands)) return {};
    const Ints exchanged{0, 2, 1, 3};
    std::vector<Value> qkv;
    for (const Value v : operands.first(3)) qkv.push_back(permuted_axes(b, v, exchanged));
    Attributes attributes{{"scale", node.attributes.number("scale")}, {"causal", node.attributes.integer("causal")}};
    if (form == AttentionForm::deterministic) attributes.set("deterministic", int64_t{1});
    if (const Value together = packed(b, qkv)) {
      attributes.set("key_heads", b.shape(qkv[1])[2]);
      qkv = {together};
    }
    const std::vector<Value> found = b.call_all(op("flash_attention"), std::move(qkv), std::move(attributes));
    // The logarithm of the sum is a maximum whose sum is 1.
    return {permuted_axes(b, found[0], exchanged), found[1], b.constant_like(found[1], 1)};
  });
}

}  // namespace halfstep
