#include "frontend/import/operators.h"

#include <algorithm>

#include "frontend/import/operator_names.h"

namespace halfstep {

const std::vector<const OnnxOperator*>& onnx_operators() {
  static const std::vector<const OnnxOperator*> rows = [] {
    std::vector<const OnnxOperator*> all;
    for (const std::span<const OnnxOperator> family :
         {shape_operators(),       control_operators(),      sequence_operators(),  activation_operators(),
          pointwise_operators(),   movement_operators(),     indexing_operators(),  order_operators(),
          contraction_operators(), einsum_operators(),       pooling_operators(),   spatial_operators(),
          grid_operators(),        random_operators(),       reduction_operators(), normalization_operators(),
          loss_operators(),        recurrent_operators(),    attention_operators(), microsoft_operators(),
          training_operators(),    quantization_operators(), integer_operators(),   signal_operators(),
          state_operators(),       region_operators(),       selection_operators()})
      for (const OnnxOperator& row : family) all.push_back(&row);
    std::sort(all.begin(), all.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
    return all;
  }();
  return rows;
}

const OnnxOperator* find_onnx_operator(std::string_view name) {
  const auto& rows = onnx_operators();
  const auto found = std::lower_bound(rows.begin(), rows.end(), name,
                                      [](const OnnxOperator* row, std::string_view n) { return row->name < n; });
  return found != rows.end() && (*found)->name == name ? *found : nullptr;
}

std::set<std::string> onnx_operator_names() {
  std::set<std::string> names;
  for (const OnnxOperator* row : onnx_operators()) {
    names.emplace(row->name);
    names.emplace(row->name.substr(row->name.rfind('.') + 1));  // as reports print it
  }
  return names;
}

std::string operators_markdown() {
  std::string text =
      "# ONNX operators\n\n"
      "Written from the import table (`frontend/operators/*.cpp`) by `frontend_test`; run it with `UPDATE_EXPECTED=1` "
      "after a\n"
      "change of the table. Files of opset " +
      std::to_string(kOldestOpset) + " to " + std::to_string(kNewestOpset) +
      " are read, whatever their IR version. Local functions are inlined.\n\n"
      "| operator | since opset | limits |\n|---|---|---|\n";
  for (const OnnxOperator* row : onnx_operators()) {
    const bool standard = row->name.find('.') == std::string_view::npos;
    const int64_t since = std::max<int64_t>(row->versions.front(), standard ? kOldestOpset : 1);
    text += "| " + std::string(row->name) + " | " + std::to_string(since) + " | " + std::string(row->limits) + " |\n";
  }
  return text +
         "\n## Fresh weights\n\n"
         "`--init` gives a weight that the file has no data for what PyTorch gives its layer: Conv, ConvTranspose, "
         "Gemm and "
         "MatMul with\n"
         "their biases (an Add behind them too) uniform within 1 / sqrt(inputs of one output); LSTM, GRU and RNN "
         "uniform "
         "within 1 / sqrt(hidden\n"
         "size); a table read by Gather normal with deviation 1; scales of norms (a vector in a Mul too) and running "
         "variances 1, biases of norms and\n"
         "running means 0; PRelu 0.25. Anything else: vectors 0, more axes uniform by the product of the trailing "
         "ones. "
         "A weight with several uses\n"
         "follows the first in the file. Missing integers are 0 and missing booleans true, with a warning.\n";
}

}  // namespace halfstep
