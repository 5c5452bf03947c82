// The gradient of a whole model against its loss, which the interpreter computes in double, along one line.
#pragma once

#include <cmath>
#include <map>

#include "compiler/compile.h"
#include "ir/builder.h"
#include "ir/interpret.h"
#include "passes/model/attach_loss.h"
#include "tests/random_tensors.h"
#include "tests/recorded.h"

namespace halfstep {

struct Slope {
  double loss = 0;
  double by_gradients = 0, by_differences = 0;  // of the loss along the line
  double scale = 0;  // what by_gradients would be if every parameter's part had the same sign
};

// A direction in which every parameter weighs alike: random, and the shorter the larger the parameter's gradient is.
inline FileTensors line_through(const FileTensors& gradients) {
  std::map<std::string, double> norms;
  double largest = 0;
  for (const auto& [name, gradient] : gradients) {
    double sum = 0;
    for (double v : gradient.values()) sum += v * v;
    largest = std::max(largest, norms[name] = std::sqrt(sum));
  }
  FileTensors direction;
  for (const auto& [name, gradient] : gradients) {
    const double length = 1 / std::max(norms.at(name), 1e-3 * largest);
    direction[name] = random_tensor(gradient.type, crc32(name), -length, length, 0);
  }
  return direction;
}

// The graph with each parameter moved along `direction` by the input "along". Its leaves are exact, its sums double.
inline Graph along_line(const Graph& graph, const FileTensors& direction) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value>) -> std::vector<Value> {
    if (node.op->name != "parameter") return {};
    const std::string& name = node.attributes.text("name");
    const Ints& permutation = node.attributes.ints("permutation");
    const Tensor& step = direction.at(name);
    const Value along = b.broadcast(b.input("along", {DType::f32, {}}), node.results[0].shape);
    return {b.add(b.parameter(name, node.results[0], permutation),
                  b.mul(along, b.constant(permutation.empty() ? step : step.transpose(permutation))))};
  });
}

// `gradients` by initializer, in the file's layout.
inline Slope slope_of_loss(const Recipe& recipe, const NamedTensors& inputs, const FileTensors& gradients) {
  constexpr double kStep = 0x1p-30;  // between the kinks of activations, and far above the rounding of doubles
  const ImportedModel model = import_for(recipe);
  const FileTensors direction = line_through(gradients);
  const Graph graph = along_line(attach_loss(model.graph, pipeline_options(recipe, model).loss), direction);
  NamedTensors leaves = inputs;
  leaves.merge(named(model.weights));
  const auto loss_at = [&](double along) {
    leaves["along"] = Tensor::scalar(DType::f32, along);
    return interpret(graph, leaves, {.rounding = Rounding::none, .observe = nullptr}).outputs.at(kLoss).values[0];
  };
  Slope slope{.loss = loss_at(0)};
  slope.by_differences = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
  for (const auto& [name, gradient] : gradients) {
    double part = 0;
    for (int64_t i = 0; i < gradient.type.element_count(); ++i) part += gradient.at(i) * direction.at(name).at(i);
    slope.by_gradients += part, slope.scale += std::abs(part);
  }
  return slope;
}

}  // namespace halfstep
