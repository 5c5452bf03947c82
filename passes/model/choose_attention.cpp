#include "passes/model/choose_attention.h"

#include <algorithm>

#include "ir/builder.h"
#include "ir/op.h"
#include "passes/rewrite/rules.h"

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
    const std::vector<Value> found = b.call_all(op("flash_attention"), std::move(qkv), std::move(attributes));
    // The logarithm of the sum is a maximum whose sum is 1.
    return {permuted_axes(b, found[0], exchanged), found[1], b.constant_like(found[1], 1)};
  });
}

}  // namespace halfstep
