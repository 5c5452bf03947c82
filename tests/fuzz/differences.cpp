// Central differences of a graph's loss along one direction for each parameter, beside the graph's own gradients.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "passes/model/attach_loss.h"
#include "tests/fuzz/perturbed.h"
#include "tests/fuzz/random.h"
#include "tests/fuzz/reference.h"

namespace halfstep::fuzz {
namespace {

constexpr std::string_view kGradient = "gradient/";

Graph with_loss(const Graph& graph) {
  LossOptions options;
  options.kind = "from_graph";
  options.output = "loss";
  return attach_loss(graph, options);
}

// The graph with one parameter moved along `direction` by the input "along"; in double, with no gradients.
Graph along_line(const Graph& graph, const std::string& parameter, const Tensor& direction) {
  return rewrite(graph, [&](Builder& b, const Node& node, std::span<const Value>) -> std::vector<Value> {
    if (node.op->name != "parameter" || node.attributes.text("name") != parameter) return {};
    const Value along = b.broadcast(b.input(".along", {DType::f32, {}}), node.results[0].shape);
    return {b.add(b.parameter(parameter, node.results[0]), b.mul(along, b.constant(direction)))};
  });
}

// A function that stands still between jumps: whatever differences see of it is no slope.
bool is_step(const Node& node, const Graph& graph) {
  const std::string_view name = node.op->name;
  return name == "floor" || name == "ceil" || name == "round" || name == "sign" || name == "argmax" ||
         (name == "cast" && is_floating(graph.type(node.operands[0]).dtype) && !is_floating(node.results[0].dtype));
}

double sign_of(double v) { return v > 0 ? 1 : v < 0 ? -1 : 0; }

// Which branch each element of a function with a kink takes, and what a comparison says.
void append_branches(const Graph& graph, const Node& node, std::span<const std::vector<double>* const> operands,
                     const std::vector<InterpretedTensor>& results, std::vector<std::vector<double>>& taken) {
  const std::string_view name = node.op->name;
  const std::vector<double>& result = results[0].values;
  const auto add = [&](const std::vector<double>& of, auto&& branch) {
    std::vector<double>& one = taken.emplace_back();
    for (size_t i = 0; i < of.size(); ++i) one.push_back(branch(i));
  };
  const auto attains = [&](const std::vector<double>& x) {
    add(x, [&](size_t i) { return std::ranges::find(result, x[i]) != result.end() ? 1.0 : 0.0; });
  };
  if (results[0].type.dtype == DType::boolean && !node.operands.empty() &&
      is_floating(graph.type(node.operands[0]).dtype))
    taken.push_back(result);
  if (name == "fmod")
    add(result, [&](size_t i) { return std::round(((*operands[0])[i] - result[i]) / (*operands[1])[i]); });
  if (name == "abs" || name == "relu") add(*operands[0], [&](size_t i) { return sign_of((*operands[0])[i]); });
  if (name == "max" || name == "min")
    add(result, [&](size_t i) { return sign_of((*operands[0])[i] - (*operands[1])[i]); });
  if (name == "reduce_max" || name == "reduce_min") attains(*operands[0]);
  if (name == "max_pool") taken.push_back(results[1].values);
  if (name != "scatter" || (node.attributes.text("reduction") != "max" && node.attributes.text("reduction") != "min"))
    return;
  add(result, [&](size_t i) { return sign_of((*operands[0])[i] - result[i]); });
  attains(*operands[2]);
}

class Line {
 public:
  Line(const Graph& forward, const ExactGraph& exact, const std::string& parameter, const Tensor& direction)
      : moved_(along_line(forward, parameter, direction)),
        exact_(exact),
        leaves_(exact.leaves),
        parameter_(parameter),
        direction_(direction) {}

  double loss(double along) {
    return at(along, [](NodeId, const std::vector<InterpretedTensor>&) {});
  }

  // Whether a step function has another value at one of both.
  bool steps_between(double below, double above) {
    const auto steps = [&](double along) {
      std::vector<std::vector<double>> values;
      at(along, [&](NodeId id, const std::vector<InterpretedTensor>& results) {
        if (is_step(moved_.node(id), moved_)) values.push_back(results[0].values);
      });
      return values;
    };
    return steps(below) != steps(above);
  }

  // Whether the operand of an elementary function moves by more than 1 from one to the other: the function may turn, or
  // come to its end, in between.
  bool moves_far_between(double from, double to) {
    const auto operands = [&](double along) {
      std::vector<std::vector<double>> values;
      std::vector<double> moving;
      at(along, [&](NodeId id, const std::vector<InterpretedTensor>& results) {
        values.push_back(results[0].values);
        const Node& node = moved_.node(id);
        if (node.op->kernel != KernelKind::pointwise || node.operands.size() != 1 || node.operands[0].result != 0 ||
            node.op->name == "neg" || node.op->name == "abs" || node.op->name == "relu" || node.op->name == "cast")
          return;
        const std::vector<double>& operand = values[static_cast<size_t>(node.operands[0].node)];
        moving.insert(moving.end(), operand.begin(), operand.end());
      });
      return moving;
    };
    const std::vector<double> a = operands(from), b = operands(to);
    return !std::ranges::equal(a, b, [](double x, double y) { return !(std::abs(x - y) > 1); });
  }

  // Whether a function takes another of its branches at one of both than between them: a gradient is of the branch at
  // hand, or shared among those that meet there, and its slope is that of the line only by chance.
  bool branches_between(double below, double above) {
    const auto taken = branches(0);
    return taken != branches(below) || taken != branches(above);
  }

  // The slope that the graph's own gradient says, at another point of the line.
  double own_slope(double along) {
    NamedTensors leaves = exact_.leaves;
    Tensor& point = leaves.at(parameter_);
    for (int64_t i = 0; i < point.type.element_count(); ++i) point.set(i, point.at(i) + along * direction_.at(i));
    const auto outputs = interpret_exactly(exact_.graph, leaves).outputs;
    const std::vector<double>& gradient = outputs.at({Role::gradient, parameter_}).values;
    double slope = 0;
    for (size_t i = 0; i < gradient.size(); ++i) slope += gradient[i] * direction_.at(static_cast<int64_t>(i));
    return slope;
  }

 private:
  std::vector<std::vector<double>> branches(double along) {
    std::vector<std::vector<double>> values, taken;
    at(along, [&](NodeId id, const std::vector<InterpretedTensor>& results) {
      values.push_back(results[0].values);
      const Node& node = moved_.node(id);
      std::vector<const std::vector<double>*> operands;
      for (Value v : node.operands)
        operands.push_back(v && v.result == 0 ? &values[static_cast<size_t>(v.node)] : nullptr);
      append_branches(moved_, node, operands, results, taken);
    });
    return taken;
  }

  double at(double along, const Observe& observe) {
    leaves_[".along"] = Tensor::scalar(DType::f32, along);
    return interpret(moved_, leaves_, {.rounding = Rounding::none, .observe = observe}).outputs.at(kLoss).values[0];
  }

  const Graph moved_;
  const ExactGraph& exact_;
  NamedTensors leaves_;
  const std::string& parameter_;
  const Tensor& direction_;
};

}  // namespace

Differences compare_differences(const FuzzCase& fuzz_case, const ExactGraph& exact) {
  Differences result;
  const Graph forward = with_loss(fuzz_case.graph);
  for (const Node& node : forward.nodes())  // the gradients of these are not those of what they compute
    if (node.op->name == "round_through" || (node.op->name == "cast" && is_low(node.results[0].dtype))) return result;
  // The gradients' own constants are in f32.
  const std::unique_ptr<Reference> reference = exact_reference(exact, nullptr, DType::f32);
  // In double a loss is exact to about this, whatever cancels in it.
  const double noise = 0x1p-48 * std::max(1.0, exact.largest);
  for (const auto& [name, gradient] : exact.results) {
    if (!name.starts_with(kGradient)) continue;
    const std::string parameter = name.substr(kGradient.size());
    Tensor direction(exact.leaves.at(parameter).type);
    double expected = 0;
    for (size_t i = 0; i < gradient.values.size(); ++i) {
      direction.set(static_cast<int64_t>(i),
                    static_cast<double>(static_cast<int64_t>(mix(hash_of(name), i) % 9) - 4) / 4);
      expected += gradient.values[i] * direction.at(static_cast<int64_t>(i));
    }
    // An infinite slope times 0 is nothing that the chain rule knows.
    if (!std::isfinite(expected) && exact.has_pole) continue;
    Line line(forward, exact, parameter, direction);
    const double at = line.loss(0);
    if (!std::isfinite(at)) return result;
    struct Slopes {
      double central, bend;
    };
    const auto slopes = [&](double h) {
      const double above = (line.loss(h) - at) / h, below = (at - line.loss(-h)) / h;
      return Slopes{(above + below) / 2, above - below};
    };
    constexpr double kStep = 0x1p-14;
    const Slopes wide = slopes(kStep), half = slopes(kStep / 2), quarter = slopes(kStep / 4);
    const double blur = 8 * noise / kStep;
    // Where the loss is smooth the bend halves with the step, and the error of the central slope falls to a quarter.
    const auto halves = [&](double a, double b) { return std::abs(b - a / 2) <= 0.02 * std::abs(a) + blur; };
    const double first = std::abs(wide.central - half.central), second = std::abs(half.central - quarter.central);
    if (!halves(wide.bend, half.bend) || !halves(half.bend, quarter.bend) || !(second <= 0.5 * first + blur)) continue;
    const double allowed = 4 * second + 4 * blur + 1e-9 * std::abs(quarter.central);
    if (allowed > 1e-2 * std::max(std::abs(quarter.central), 1e-3)) continue;
    if (line.steps_between(-kStep, kStep)) continue;
    result.smooth = true;
    const double wrong = std::abs(expected - quarter.central);
    if (wrong <= allowed || !result.wrong.empty()) continue;
    double rounded = 0;
    const std::vector<double>& rounding = reference->differences(16).at(name).values;
    for (size_t i = 0; i < rounding.size(); ++i)
      if (direction.at(static_cast<int64_t>(i)) != 0)
        rounded += kWidening * rounding[i] * std::abs(direction.at(static_cast<int64_t>(i)));
    if (wrong <= allowed + rounded) continue;
    // At a kink whose sides meet smoothly the gradient is right on both sides; there the slope is another point's, by
    // three times the error of the central one.
    const auto right_at = [&](double along) {
      return std::abs(line.own_slope(along) - quarter.central) <=
             allowed + rounded + 2 * std::abs(wide.bend) + 4 * first;
    };
    if (line.moves_far_between(-kStep, 0) || line.moves_far_between(0, kStep)) continue;
    if (line.branches_between(-kStep, kStep) && right_at(kStep) && right_at(-kStep)) continue;
    result.wrong = fmt::format("{}: slope {:.9g}, by differences {:.9g} within {:.3g}", name, expected, quarter.central,
                               allowed + rounded);
  }
  return result;
}

}  // namespace halfstep::fuzz
