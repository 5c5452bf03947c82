#include "compiler/precision_rows.h"

#include <fmt/format.h>

#include <algorithm>

#include "ir/op.h"

namespace halfstep {
namespace {

// Which of the IR nodes of an ONNX node says what it is: the library call before the loop, the loop before the move.
// What gives a value comes before what only prepares indices for it.
int rank(const PrecisionRow& row) {
  if (!is_floating(row.result)) return 4;
  switch (op(row.op).kernel) {
    case KernelKind::gemm:
    case KernelKind::convolution:
    case KernelKind::attention:
      return 0;
    case KernelKind::composite:
    case KernelKind::reduction:
    case KernelKind::window:
    case KernelKind::random:
      return 1;
    case KernelKind::pointwise:
      return 2;
    default:
      return 3;
  }
}

}  // namespace

OnnxNodeIndex::OnnxNodeIndex(const std::vector<OnnxNode>& nodes) : nodes_(nodes) {
  for (size_t i = 0; i < nodes.size(); ++i) positions_.emplace(nodes[i].name, i);
}

std::string OnnxNodeIndex::operator_of(const Origin& origin, std::string_view ir_op) const {
  if (const auto found = positions_.find(*origin.name); found != positions_.end()) return nodes_[found->second].op;
  return origin.phase == Phase::forward ? "preprocessing" : std::string(ir_op);
}

size_t OnnxNodeIndex::position_of(const Origin& origin) const {
  if (const auto found = positions_.find(*origin.name); found != positions_.end()) return found->second + 1;
  return origin.phase == Phase::forward ? 0 : nodes_.size() + 1;
}

AutocastReport by_onnx_node(const AutocastReport& report, const std::vector<OnnxNode>& nodes,
                            const std::map<std::string, std::string>& part_of) {
  AutocastReport rows;
  std::map<std::pair<std::string, Phase>, size_t> row_of;
  for (const PrecisionRow& row : report) {
    const auto [known, added] = row_of.emplace(std::pair(row.origin.name, row.origin.phase), rows.size());
    if (added) {
      rows.push_back(row);
      continue;
    }
    PrecisionRow& of_node = rows[known->second];
    if (rank(row) < rank(of_node))
      of_node = row;
    else if (op(of_node.op).kernel == KernelKind::reduction && is_floating(row.result))
      of_node.result = row.result;  // a mean's product, the logarithm of a sum
  }
  for (const OnnxNode& node : nodes) {
    if (node.op == "Constant" || row_of.contains({node.name, Phase::forward})) continue;
    if (node.folded) {
      PrecisionRow& row = rows.emplace_back();
      row.origin.name = node.name, row.op = node.op, row.reason = kFolded;
      row.operand = row.result = *node.folded;
      continue;
    }
    const auto whole = part_of.find(node.name);
    if (whole == part_of.end()) continue;
    const auto row = row_of.find({whole->second, Phase::forward});
    if (row == row_of.end()) continue;
    PrecisionRow part = rows[row->second];
    part.origin.name = node.name;
    const bool merged = node.same_as && nodes[*node.same_as].name == whole->second;
    part.reason = fmt::format("{} '{}'", merged ? "merged with" : "part of", whole->second);
    rows.push_back(std::move(part));
  }
  const OnnxNodeIndex index(nodes);
  std::ranges::stable_sort(rows, {}, [&](const PrecisionRow& row) { return index.position_of(row.origin); });
  for (PrecisionRow& row : rows) row.op = index.operator_of(row.origin, row.op);
  return rows;
}

}  // namespace halfstep
