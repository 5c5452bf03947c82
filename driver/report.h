// What commands print about a compiled step.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "driver/compile.h"
#include "driver/recipe.h"

namespace halfstep {

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
// Rows of node, operator, operand / accumulator / result type, reason.
std::string precision_table(const AutocastReport& report);
nlohmann::json precision_json(const AutocastReport& report);
// "9 nodes write f16, 4 write f32".
std::string precision_summary(const AutocastReport& report);
std::string pass_times_table(const CompileReport& report);
// Compile time, steps, planned memory.
std::string compile_summary(const CompileReport& report);
nlohmann::json compile_json(const CompileReport& report);

}  // namespace halfstep
