#include "compiler/mixed_export.h"

#include <set>

#include "base/error.h"
#include "compiler/compile.h"
#include "frontend/export/export.h"

namespace halfstep {
namespace {

bool is_contraction(const InspectedNode& node) {
  static const std::set<std::string> contractions{"Conv",      "ConvTranspose", "MatMul", "Gemm", "Einsum",
                                                  "Attention", "LSTM",          "GRU",    "RNN"};
  return contractions.contains(node.op);
}

// Moves values and computes none, so that it is no part of a formula.
bool is_movement(const InspectedNode& node) {
  static const std::set<std::string> movements{"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten",
                                               "Expand",  "Identity",  "Slice",   "Split",     "Concat",
                                               "Gather",  "Cast",      "Pad",     "Tile"};
  return movements.contains(node.op);
}

// Each input that the file gives a size has it, where the recipe asks for no other.
Recipe at_sizes_of_file(Recipe recipe) {
  if (recipe.given.contains("batch") || recipe.given.contains("shape")) return recipe;
  for (auto& [input, shape] : fixed_inputs(onnx_model_of(recipe))) recipe.shapes[input] = std::move(shape);
  return recipe;
}

}  // namespace

MixedPrecision mixed_precision_of(const Inspection& inspection) {
  require(inspection.low.has_value(), "there is a low type");
  MixedPrecision mixed{.low = *inspection.low, .nodes = {}};
  std::set<std::string> wholes;
  for (const InspectedNode& node : inspection.nodes)
    if (node.fate == Fate::part && !is_movement(node)) wholes.insert(node.into);
  for (const InspectedNode& node : inspection.nodes) {
    const bool computes = node.fate == Fate::computed || node.fate == Fate::part || node.fate == Fate::merged;
    if (!node.file_node || !node.typed || !computes || (node.fate == Fate::part && is_movement(node))) continue;
    const FileNode& file = inspection.report.file_nodes[*node.file_node];
    if (file.results.empty()) continue;
    const bool is_written_out = node.fate == Fate::part || (wholes.contains(*node.origin.name) && !is_movement(node));
    bool is_in_low = is_low(node.operand) && (is_contraction(node) || (is_low(node.result) && !is_written_out));
    NodeAssignment assigned{.reason = node.reason};
    // One that reads or writes f32 somewhere computes in it, and what is low beside it is rounded.
    for (const auto& [slot, type] : node.slots) {
      is_in_low &= is_low(type);
      if (!is_low(type)) continue;
      if (slot.operand)
        assigned.rounded_operands.push_back(*slot.operand);
      else
        assigned.rounds_result = true;
    }
    assigned.type = is_in_low ? mixed.low : DType::f32;
    mixed.nodes[file.results.front()] = std::move(assigned);
  }
  return mixed;
}

MixedExport export_mixed(const Recipe& recipe, const FileTensors& trained, const std::filesystem::path& path,
                         const std::map<std::string, std::string>& metadata, const std::vector<std::string>& outputs) {
  CompileOptions types;
  types.purpose = TrainingPipelineOptions::typing;
  MixedExport result{.inspection = inspect(at_sizes_of_file(recipe), types)};
  if (!result.inspection.low) {
    result.cut = export_cut(recipe, trained, path, metadata, outputs);
    return result;
  }
  const MixedPrecision assignment = mixed_precision_of(result.inspection);
  OnnxModel whole = inference_model(onnx_model_of(recipe), trained);
  if (!outputs.empty()) result.cut = choose_outputs(whole, outputs, import_options(recipe));
  MixedModel mixed = mixed_precision(std::move(whole), assignment);
  result.low_nodes = mixed.low_nodes, result.casts = mixed.casts, result.low_weights = mixed.low_weights;
  result.weight_bytes = mixed.weight_bytes, result.weight_bytes_before = mixed.weight_bytes_before;
  result.lost_weights = std::move(mixed.lost_weights);
  ExportOptions options{.metadata = metadata};
  options.metadata["halfstep.preset"] = result.inspection.preset;
  options.metadata["halfstep.precision"] = recipe.precision;
  export_model(std::move(mixed.model), path, options);
  return result;
}

CutModel export_cut(const Recipe& recipe, const FileTensors& trained, const std::filesystem::path& path,
                    const std::map<std::string, std::string>& metadata, const std::vector<std::string>& outputs) {
  OnnxModel model = inference_model(onnx_model_of(recipe), trained);
  CutModel cut;
  if (!outputs.empty()) cut = choose_outputs(model, outputs, import_options(recipe));
  export_model(std::move(model), path, {.metadata = metadata});
  return cut;
}

}  // namespace halfstep
