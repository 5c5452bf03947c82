// Precision assignments in the user's terms: a row for each node of the ONNX file.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compiler/compile.h"

namespace halfstep {

// The reason of a node that was folded.
inline constexpr std::string_view kFolded = "folded: constant";

// The model's nodes by name.
class OnnxNodeIndex {
 public:
  // Of nodes that outlive it.
  explicit OnnxNodeIndex(const std::vector<OnnxNode>& nodes);

  // The ONNX operator of the node that `origin` names, or what stands for it where we added it ourselves.
  std::string operator_of(const Origin& origin, std::string_view ir_op) const;
  // For rows in the model's order, which passes do not keep: preprocessing is first, the loss last.
  size_t position_of(const Origin& origin) const;

 private:
  const std::vector<OnnxNode>& nodes_;
  std::unordered_map<std::string_view, size_t> positions_;
};

// One row per ONNX node, in the model's order, instead of one per IR node: that of its main IR node, with the ONNX
// operator. Preprocessing and the loss are one row each. A node that became part of another or was merged with it
// (`part_of`) has that one's row under its own name, one that was folded the type of its constants. Those of the
// operator Constant have none.
AutocastReport by_onnx_node(const AutocastReport& report, const std::vector<OnnxNode>& nodes,
                            const std::map<std::string, std::string>& part_of);

}  // namespace halfstep
