#include "frontend/export/operator_rows.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace halfstep {
namespace {

constexpr std::string_view kLeaf = "a leaf is an input or an initializer of the file";
constexpr std::string_view kExpanded = "a composite is expanded before a graph is written";

// What is no operator of a step's graph when it is written.
constexpr ExportRow kRefused[] = {
    {.op = "input", .refused = kLeaf},
    {.op = "parameter", .refused = kLeaf},
    {.op = "state", .refused = kLeaf},
    {.op = "fused", .refused = "graphs are written before they are fused"},
    {.op = "softmax", .refused = kExpanded},
    {.op = "log_softmax", .refused = kExpanded},
    {.op = "softmax_cross_entropy", .refused = kExpanded},
    {.op = "argmax", .refused = kExpanded},
    {.op = "dropout", .refused = kExpanded},
    {.op = "full_matmul", .refused = kExpanded},
    {.op = "batch_norm", .refused = kExpanded},
    {.op = "layer_norm", .refused = kExpanded},
    {.op = "rms_norm", .refused = kExpanded},
    {.op = "group_norm", .refused = kExpanded},
    {.op = "attention", .refused = kExpanded},
    {.op = "flash_attention", .refused = kExpanded},
    {.op = "flash_attention_grad", .refused = kExpanded},
    {.op = "attention_grad", .refused = kExpanded},
    {.op = "recurrent", .refused = kExpanded},
    {.op = "recurrent_grad", .refused = kExpanded},
    {.op = "resample", .refused = kExpanded},
};

// The type that a value of `type` is computed in.
DType computed(DType type, const ExportRow& row) {
  return type == DType::bf16 || (type == DType::f16 && row.work == ExportRow::computes) ? DType::f32 : type;
}

}  // namespace

const ExportRow* find_export_row(std::string_view op) {
  for (const std::span<const ExportRow> rows :
       {pointwise_rows(), movement_rows(), window_rows(), contraction_rows(), std::span<const ExportRow>(kRefused)})
    if (const auto found = std::ranges::find(rows, op, &ExportRow::op); found != rows.end()) return &*found;
  return nullptr;
}

std::vector<OnnxValue> write_node(OnnxBuilder& onnx, const Node& node, std::span<const OnnxValue> operands) {
  const std::string name = to_string(node.origin);
  onnx.set_origin(name.empty() ? std::string(node.op->name) : name);
  const ExportRow* row = find_export_row(node.op->name);
  require(row != nullptr, "every op has a row of the export");
  if (!row->write)
    throw InternalError(std::string(node.op->name) + " '" + name +
                        "' cannot be written as ONNX: " + std::string(row->refused));
  ExportContext context{onnx, node, {}, *node.results};
  std::vector<OnnxValue> wide(operands.begin(), operands.end());
  if (node.op->name != "cast") {
    for (OnnxValue& operand : wide)
      if (operand) operand = onnx.cast(operand, computed(operand.type.dtype, *row));
    for (TensorType& type : context.results) type.dtype = computed(type.dtype, *row);
  }
  context.operands = wide;
  std::vector<OnnxValue> results = row->write(context);
  require(results.size() == node.results->size(), "a row writes each result of its op");
  for (size_t i = 0; i < results.size(); ++i) {
    if (!results[i]) continue;  // nothing reads it
    results[i] = onnx.cast(results[i], node.results[i].dtype);
    require(results[i].type == node.results[i], "a row writes results of the node's types");
  }
  return results;
}

}  // namespace halfstep
