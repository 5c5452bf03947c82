// The pipeline: from an imported model to the graphs of a training step and of evaluation, ready to be lowered. The
// table in pipeline.cpp is the order of the passes; the runner times, dumps and, where asked, verifies after each.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"
#include "ir/graph.h"
#include "passes/fusion/chunk_rows.h"
#include "passes/fusion/recompute.h"
#include "passes/model/attach_loss.h"
#include "passes/model/attach_preprocessing.h"
#include "passes/model/choose_attention.h"
#include "passes/precision/autocast.h"
#include "passes/rewrite/add_epilogues.h"
#include "passes/training/add_update.h"
#include "passes/training/bind_arenas.h"
#include "passes/training/check_factors.h"
#include "passes/training/depthwise_windows.h"
#include "passes/training/tap_values.h"
#include "passes/training/thin_products.h"

namespace halfstep {

// What a target wants of the same graph.
struct TargetForms {
  DepthwiseForm depthwise = DepthwiseForm::calls;
  ThinProducts thin_products = ThinProducts::calls;
  ProductRelu product_relu = ProductRelu::apart;
  OverflowCheck overflow_check = OverflowCheck::gradients;
  int64_t product_alignment = 1;  // bytes: where products want rows to begin
};
// Products of rows that begin elsewhere run at a quarter of the speed there.
inline constexpr TargetForms kGpuForms{DepthwiseForm::windows, ThinProducts::sums, ProductRelu::in_products,
                                       OverflowCheck::factors, 16};

struct TrainingPipelineOptions {
  std::vector<PreprocessingOptions> preprocessing;
  LossOptions loss;
  AutocastOptions autocast;
  OptimizerOptions optimizer;
  TargetForms forms;
  AttentionForm attention = AttentionForm::expanded;  // another if the target has a library for it
  // Of states and of what a step keeps; above it values are computed again. Library calls' values stay for some calls.
  std::optional<int64_t> memory_budget;
  int overlapping_calls = 0;
  std::optional<ChunkOptions> chunks;  // what is computed in chunks, whatever the budget
  enum Programs : uint8_t { training, training_and_gradients } programs = training;
  // The verifier: on what the last pass leaves (the builder has checked every node), or to find the pass at fault.
  enum Verification : uint8_t { at_the_end, after_each_pass } verification = at_the_end;
  // How weights and slots lie: what this machine runs has arenas, what other engines run (export) a state for each.
  enum Arenas : uint8_t { kept, taken_apart } arenas = kept;
  // To see whether a model trains no report on precision is made, and nothing of evaluation. For the types of the
  // model's own nodes (with a stop before evaluation is split off) there is no loss, and for predictions neither, nor
  // anything but evaluation.
  enum Purpose : uint8_t { compiling, checking, typing, predicting } purpose = compiling;
  std::optional<TapOptions> taps;  // of "train": what doctor reads
  std::string stop_after;          // a pass of the table; empty: run all
  std::filesystem::path dump;      // a directory for "05_autocast.forward.ir", ... of what changed; empty: none
};

inline bool has_loss(TrainingPipelineOptions::Purpose purpose) {
  return purpose != TrainingPipelineOptions::typing && purpose != TrainingPipelineOptions::predicting;
}

struct PassTime {
  std::string pass;
  double seconds = 0;
};

struct PipelineResult {
  // "train", "accumulate" with gradient accumulation, "gradients" where asked for, "evaluate"; after stop_after maybe
  // still the one "forward".
  std::vector<Graph> graphs;
  AutocastReport precision;
  AutocastNotes autocast;
  std::map<std::string, std::string> part_of;  // parts_taken_in by the graph that autocast sees
  AutocastReport parts;                        // rows_of_parts
  std::vector<std::string> remarks;            // what its user should know, one sentence each
  ArenaLayout arenas;
  std::vector<Name> arena_states;  // the states laid out like `arenas`
  NamedTensors initial_states;     // of states that are neither weights nor zero at first
  std::vector<Tap> taps;
  std::vector<PassTime> times;
  std::optional<Recomputation> recomputation;  // of "train", where there is a memory budget
  Chunking chunking;                           // of "train"

  const Graph* find(std::string_view name) const;
};

// The last pass whose graphs hold no kernels: what is exported, and what is compared.
inline constexpr std::string_view kBeforeFusion = "simplify_placed";

// Error if the model, the options or `stop_after` are at fault; a graph that fails the verifier names the pass.
PipelineResult run_training_pipeline(const Graph& model, const TrainingPipelineOptions& options);
// Names of the passes in order, for --stop-after.
std::vector<std::string> pipeline_passes();

// How the cases of a pass (tests/passes/FOLDER/*.ir) show that it keeps what a graph computes: what both graphs have as
// outputs, on the same leaves, and the outputs' gradients.
struct ValueCheck {
  enum Kind : uint8_t { none, values, values_and_gradients } kind = none;
  std::string_view reason = {};  // why none, and what is checked instead
};

struct PassRow {
  std::string_view name;
  std::array<std::string_view, 2> cases;  // folders
  ValueCheck check;
};

std::vector<PassRow> pipeline_rows();

}  // namespace halfstep
