#include <array>
#include <string>
#include <unordered_map>

#include "ir/ops/families.h"

namespace halfstep {
namespace {

std::vector<const Op*> join_families() {
  std::vector<const Op*> table;
  for (std::span<const Op> family :
       {leaf_ops(), pointwise_ops(), movement_ops(), indexing_ops(), reduction_ops(), window_ops(), depthwise_ops(),
        contraction_ops(), composite_ops(), normalization_ops(), attention_ops(), flash_attention_ops(),
        recurrent_ops(), resample_ops()})
    for (const Op& row : family) table.push_back(&row);
  return table;
}

const std::vector<const Op*>& table() {
  static const std::vector<const Op*> joined = join_families();
  return joined;
}

}  // namespace

std::string_view name(Precision precision) {
  constexpr std::array<std::string_view, 5> names{"low", "full", "full_inside", "widest", "follow"};
  return names[static_cast<size_t>(precision)];
}

std::string_view name(KernelKind kind) {
  constexpr std::array<std::string_view, 12> names{"leaf",      "pointwise", "movement",  "reduction",
                                                   "window",    "random",    "gemm",      "convolution",
                                                   "attention", "recurrent", "composite", "fused"};
  return names[static_cast<size_t>(kind)];
}

std::vector<Value> zero_vjp(const VjpContext& c) { return std::vector<Value>(c.operands.size()); }

std::span<const Op* const> all_ops() { return table(); }

const Op* find_op(std::string_view wanted) {
  static const std::unordered_map<std::string_view, const Op*> by_name = [] {
    std::unordered_map<std::string_view, const Op*> map;
    for (const Op* row : table()) map.emplace(row->name, row);
    return map;
  }();
  const auto found = by_name.find(wanted);
  return found == by_name.end() ? nullptr : found->second;
}

const Op& op(std::string_view wanted) {
  const Op* row = find_op(wanted);
  if (!row) throw InternalError("no op '" + std::string(wanted) + "'");
  return *row;
}

}  // namespace halfstep
