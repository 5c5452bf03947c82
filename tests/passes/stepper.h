// Runs a training step graph with the reference interpreter, keeping its states from step to step.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "base/error.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/text.h"
#include "passes/training/add_update.h"
#include "passes/training/differentiate.h"

namespace halfstep {

struct StepGraphs {
  ArenaLayout layout;
  Graph train, accumulate;
};

// The step of a forward graph with measure "loss".
inline StepGraphs training_step(const Graph& forward, const OptimizerOptions& options) {
  const Graph differentiated =
      differentiate(forward, {.scaling = options.scaling, .accumulation = options.accumulation});
  const ArenaLayout layout = plan_arenas(differentiated, arena_order(options));
  const Graph bound = bind_arenas(differentiated, layout);
  return {layout, add_update(bound, options, layout),
          options.accumulation > 1 ? add_accumulation(bound, options, layout) : Graph()};
}

class Stepper {
 public:
  // All states start at zero but `initial`.
  explicit Stepper(const Graph& graph, NamedTensors initial = {}) : graph_(graph), leaves_(std::move(initial)) {
    for (const Node& node : graph_.nodes())
      if (is_leaf(*node.op)) leaves_.try_emplace(leaf_name(node), Tensor(node.results[0]));
  }

  // The outputs of one step on these inputs.
  std::map<Name, double> step(const NamedTensors& inputs, const Graph* other_program = nullptr) {
    for (const auto& [name, value] : inputs) leaves_.insert_or_assign(name, value);
    const InterpretResult result = interpret(other_program ? *other_program : graph_, leaves_);
    for (const auto& [name, value] : result.updates)
      leaves_.insert_or_assign(name, Tensor::from_values(value.type, value.values));
    std::map<Name, double> outputs;
    for (const auto& [name, value] : result.outputs) outputs.emplace(name, value.values.front());
    return outputs;
  }

  const Tensor& state(const Name& name) const { return leaves_.at(name); }
  double at(const Name& name, int64_t index = 0) const { return state(name).at(index); }
  NamedTensors states() const {
    NamedTensors result;
    for (const Node& node : graph_.nodes())
      if (node.op->name == "state") result.emplace(leaf_name(node), state(leaf_name(node)));
    return result;
  }

 private:
  const Graph& graph_;
  NamedTensors leaves_;
};

inline Tensor vector_of(std::initializer_list<double> values) {
  return Tensor::from_values({DType::f32, {static_cast<int64_t>(values.size())}}, std::vector<double>(values));
}

}  // namespace halfstep
