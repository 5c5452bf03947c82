// IR op -> ONNX nodes: a row for each op of the IR, or why there is none. What low types compute is said once here: in
// float32 between two casts, which is the IR's meaning. Engines take a float16 node for more or less than that: ONNX
// Runtime on a CPU computes runs of them in float32 and rounds at the end alone. A row that only moves elements is
// written in float16 as it is; bfloat16, which few engines move, never.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "frontend/export/onnx_builder.h"
#include "ir/op.h"

namespace halfstep {

struct ExportContext {
  OnnxBuilder& onnx;
  const Node& node;
  std::span<const OnnxValue> operands;  // absent: without a name
  std::vector<TensorType> results;      // the node's, in the type that is computed in
};

using ExportRule = std::vector<OnnxValue> (*)(const ExportContext&);

struct ExportRow {
  std::string_view op;
  ExportRule write = nullptr;
  enum Work : uint8_t { computes, moves } work = computes;
  std::string_view refused = "";  // the reason, where `write` is missing
};

std::span<const ExportRow> pointwise_rows();
std::span<const ExportRow> movement_rows();
std::span<const ExportRow> window_rows();
std::span<const ExportRow> contraction_rows();

const ExportRow* find_export_row(std::string_view op);  // nullptr if there is none

// The node's results as ONNX values. Error naming the node where the op is refused.
std::vector<OnnxValue> write_node(OnnxBuilder& onnx, const Node& node, std::span<const OnnxValue> operands);

}  // namespace halfstep
