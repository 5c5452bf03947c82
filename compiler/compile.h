// From a recipe to a compiled step: the composition of frontend, passes and codegen.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "compiler/recipe.h"
#include "frontend/import/import.h"
#include "frontend/onnx/onnx_model.h"
#include "passes/pipeline.h"
#include "program/program.h"

namespace halfstep {

struct CompileOptions {
  std::string stop_after;      // a pass; empty: all
  std::filesystem::path dump;  // where passes, kernels and programs are written; empty: nowhere
  TrainingPipelineOptions::Programs programs = TrainingPipelineOptions::training;
  LossOptions::ModelOutputs model_outputs = LossOptions::kept;
  TrainingPipelineOptions::Arenas arenas = TrainingPipelineOptions::kept;
  std::optional<TapOptions> taps;  // beside the step's own results: what its tensors hold
  MissingConstants constants = MissingConstants::refused;
  TrainingPipelineOptions::Purpose purpose = TrainingPipelineOptions::compiling;
  std::optional<FileTensors> weights{};  // in the place of the file's, from
  std::string weights_from{};
};

struct CompileReport {
  std::string preset;  // with its version: "torch 2.11"
  AutocastReport precision;
  AutocastNotes autocast;
  std::vector<OnnxNode> onnx_nodes;
  std::vector<FileNode> file_nodes;
  std::map<std::string, std::string> part_of;  // of an ONNX node that became part of another: that one's name
  AutocastReport parts;                        // what the preset says of these by themselves (rows_of_parts)
  std::vector<std::string> remarks;
  std::vector<PassTime> times;  // import, each pass, kernels
  int64_t parameters = 0;       // trainable elements
  int64_t nodes = 0;            // of the training graph before fusion
  int64_t kernels = 0, steps = 0;
  int64_t scratch_bytes = 0, scratch_floor = 0, state_bytes = 0;
  std::optional<Recomputation> recomputation;  // where there is a memory budget
  Chunking chunking;                           // the same
  double seconds = 0;
};

struct CompiledTraining {
  CompiledModel model;
  CompileReport report;
  std::vector<Tap> taps;
  PipelineResult stopped;  // with stop_after: what the passes left
};

// The assumption that `bn_insert` made about `model`, the recipe's; empty: none.
std::string batch_norm_remark(const Recipe& recipe, const OnnxModel& model);
// The recipe's model as it is trained and written back: with batch norms put back where it says so.
OnnxModel onnx_model_of(const Recipe& recipe);
ImportOptions import_options(const Recipe& recipe);
// The model as the recipe wants it imported.
ImportedModel import_for(const Recipe& recipe, MissingConstants constants = MissingConstants::refused,
                         ImportOptions::Reading reading = ImportOptions::at_once,
                         ImportOptions::RecurrentLayers recurrent = ImportOptions::unrolled);
// What runs of a step that is compiled for training compute beside measures: nothing, or what the recipe keeps.
LossOptions::ModelOutputs outputs_of_runs(const Recipe& recipe);
// What the step does about gradients that are not finite.
LossScaling loss_scaling(const Recipe& recipe);
// Without weights, and so also of a file that lacks them.
ImportedModel import_graph(const Recipe& recipe, ImportOptions::Statistics statistics = ImportOptions::of_batches,
                           ImportOptions::RecurrentLayers recurrent = ImportOptions::unrolled);
TrainingPipelineOptions pipeline_options(const Recipe& recipe, const ImportedModel& model);
// Compiles programs "train", "accumulate" (with accumulation), "gradients" (where asked for) and "evaluate" for
// `target` "cpu" or "cuda"; for predictions "evaluate" alone, of the model's outputs without a loss.
CompiledTraining compile_training(const Recipe& recipe, DeviceKind device, const CompileOptions& options = {});
// The same of a model that was imported as the recipe wants it.
CompiledTraining compile_imported(const Recipe& recipe, ImportedModel imported, DeviceKind device,
                                  const CompileOptions& options = {});

// The arena of parameters: weights, whose axes stand as the leaves of `imported` say, as the passes lay them out. Each
// is asked for once.
Tensor gather_parameters(const ArenaLayout& arenas, const Graph& imported,
                         const std::function<Tensor(const std::string&)>& weight);

// cpu or cuda as the recipe says; auto: cuda where there is a device.
DeviceKind choose_device(const Recipe& recipe);
// For a step that will be moved: unless the recipe names an architecture, one that nearly every CPU has.
Recipe portable(Recipe recipe, DeviceKind device);

}  // namespace halfstep
