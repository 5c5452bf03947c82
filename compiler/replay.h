// Samples of a data set taken through a graph of the pipeline in the reference interpreter: for traces, and for finding
// where values stop being finite.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compiler/recipe.h"
#include "data/data_feed.h"
#include "frontend/import/import.h"
#include "ir/graph.h"
#include "ir/interpret.h"
#include "training/checkpoint_state.h"

namespace halfstep {

class Replay {
 public:
  // Graph `graph` as pass `pass` leaves it, of the recipe's model at another batch.
  Replay(const Recipe& recipe, int64_t batch, const std::string& pass, const std::string& graph);

  const Graph& graph() const { return graph_; }
  int64_t batch() const { return batch_; }
  double operations() const { return operations_; }  // floating-point operations of one run
  const std::vector<OnnxNode>& onnx_nodes() const { return onnx_nodes_; }

  using Observer = std::function<void(NodeId, const std::vector<InterpretedTensor>&)>;
  // `samples`: 1 to batch() of them.
  InterpretResult run(const ModelState& state, const Dataset& dataset, const FeedOptions& feed,
                      std::span<const int64_t> samples, const StepInputs& step, const Observer& observe,
                      Rounding rounding = Rounding::to_type) const;

 private:
  Graph graph_;
  int64_t batch_;
  double operations_ = 0;
  std::vector<OnnxNode> onnx_nodes_;
};

}  // namespace halfstep
