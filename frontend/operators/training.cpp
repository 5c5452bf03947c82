// Training as nodes of the model, of the domain ai.onnx.preview.training: gradients and optimizer steps.
#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "frontend/import/operators.h"
#include "ir/gradients.h"

namespace halfstep {
namespace {

// ---- gradients ----

// What makes a value, as a function of its own: first of the tensors that are declared, then of the inputs of the model
// that it reads besides.
class ExtractedFunction {
 public:
  explicit ExtractedFunction(const Builder& model) : model_(model.graph()), b_(model.graph().name()) {}

  // False if the tensor is declared already.
  bool declare(Value tensor, Value argument) {
    const Value input = b_.input(std::to_string(arguments_.size()), model_.type(tensor));
    arguments_.push_back(argument);
    return in_function_.emplace(tensor, input).second;
  }

  // The function, and an argument for each of its inputs.
  std::pair<Graph, std::vector<Value>> finish(Value result) && {
    std::vector<char> needed(static_cast<size_t>(result.node) + 1);
    const auto need = [&](Value v) {
      if (v && !in_function_.contains(v)) needed[static_cast<size_t>(v.node)] = 1;
    };
    need(result);
    for (NodeId id = result.node; id >= 0; --id)
      if (needed[static_cast<size_t>(id)]) std::ranges::for_each(model_.node(id).operands, need);
    for (NodeId id = 0; id <= result.node; ++id)
      if (needed[static_cast<size_t>(id)]) copy(id);
    b_.output("result", in_function_.at(result));
    return {std::move(b_).finish(), std::move(arguments_)};
  }

 private:
  void copy(NodeId id) {
    const Node& node = model_.node(id);
    if (node.op->name == "input") {
      declare({id, 0}, {id, 0});
      return;
    }
    std::vector<Value> operands;
    for (Value v : node.operands) operands.push_back(v ? in_function_.at(v) : Value{});
    OriginScope scope(b_, node.origin);
    const std::vector<Value> results = b_.call_all(*node.op, operands, node.attributes);
    for (size_t i = 0; i < results.size(); ++i) in_function_.emplace(Value{id, static_cast<int32_t>(i)}, results[i]);
  }

  const Graph& model_;
  Builder b_;
  std::map<Value, Value> in_function_;
  std::vector<Value> arguments_;
};

// The derivatives of the sum of y by its first `count` inputs, as outputs.
Graph gradient_graph(const Graph& function, size_t count) {
  const Graph graph = expand_for_vjp(function);
  Builder b(graph.name());
  const ValueMap map = copy_nodes(graph, b);
  std::vector<Value> sources;
  for (NodeId id = 0; sources.size() < count; ++id)
    if (graph.node(id).op->name == "input") sources.push_back(map({id, 0}));
  const Value result = graph.output("result"), y = map(result);
  const std::vector<Value> found = gradients(
      b,
      {.y = y, .cotangent = b.constant_like(y, 1), .sources = sources, .y_name = "'y'", .source_name = "one of 'xs'"});
  for (size_t i = 0; i < count; ++i) b.output(std::to_string(i), found[i] ? found[i] : b.constant_like(sources[i], 0));
  return std::move(b).finish();
}

std::vector<Value> import_gradient(NodeContext& c) {
  const std::vector<std::string> xs = c.text_list("xs", {});
  std::vector<std::string> names = xs;
  for (const std::string& name : c.text_list("zs", {})) names.push_back(name);
  const Value y = c.named_tensor(c.text("y", ""));
  if (xs.empty() || names.size() != c.operand_count())
    c.fail("an operand for each name in 'xs' and 'zs' expected, found " + std::to_string(c.operand_count()) +
           " operands and " + std::to_string(names.size()) + " names");
  ExtractedFunction function(c.b);
  for (size_t i = 0; i < names.size(); ++i) {
    const Value tensor = c.named_tensor(names[i]), argument = c.operand(i);
    if (c.b.type(tensor) != c.b.type(argument))
      c.fail("operand " + std::to_string(i) + ": " + to_string(c.b.type(tensor)) + " expected, as '" + names[i] +
             "', found " + to_string(c.b.type(argument)));
    if (i < xs.size() && !is_floating(c.b.dtype(tensor))) c.fail("'" + names[i] + "' in 'xs' is not of floating type");
    if (!function.declare(tensor, argument)) c.fail("'" + names[i] + "' names the same tensor as another one");
  }
  if (!is_floating(c.b.dtype(y))) c.fail("'y' is not of floating type");
  const auto [extracted, arguments] = std::move(function).finish(y);
  return inline_graph(gradient_graph(extracted, xs.size()), c.b, arguments);
}

// ---- optimizer steps ----

// The learning rate R and the number T of updates before this one, in the type of the tensor that is updated.
class StepOperands {
 public:
  StepOperands(NodeContext& c, DType dtype) : c_(c), rate_(scalar(0, "R", dtype)), count_(scalar(1, "T", dtype)) {}

  Value rate() const { return rate_; }
  Value count() const { return count_; }
  Value on_first(Value first, Value later) const {
    Builder& b = c_.b;
    return b.select(b.call("less", {b.constant_like(count_, 0), count_}), later, first);
  }

 private:
  Value scalar(size_t i, const char* name, DType dtype) const {
    const Value v = c_.operand(i);
    if (c_.b.type(v).element_count() != 1)
      c_.fail(std::string("operand ") + name + ": one number expected, found " + to_string(c_.b.type(v)));
    return c_.b.cast(c_.b.reshape(v, {}), dtype);
  }

  NodeContext& c_;
  Value rate_, count_;
};

// The value, the gradient and what the optimizer remembers of one tensor; returns all but the gradient, updated.
using TensorStep = std::function<std::vector<Value>(const StepOperands&, std::span<const Value>)>;

// Operands: R, T, the values of all tensors, their gradients, then each memory of all of them. Results likewise.
std::vector<Value> step_each_tensor(NodeContext& c, size_t memories, const TensorStep& step) {
  const size_t groups = 2 + memories, given = c.operand_count() - 2;
  if (given % groups != 0)
    c.fail("a multiple of " + std::to_string(groups) + " tensors expected after R and T, found " +
           std::to_string(given));
  const size_t count = given / groups;
  std::vector<Value> results((1 + memories) * count);
  for (size_t i = 0; i < count; ++i) {
    std::vector<Value> tensors;
    for (size_t group = 0; group < groups; ++group) {
      tensors.push_back(c.operand(2 + group * count + i));
      if (c.b.type(tensors[group]) != c.b.type(tensors[0]))
        c.fail("operand " + std::to_string(2 + group * count + i) + ": " + to_string(c.b.type(tensors[0])) +
               " expected, as the tensor that is updated, found " + to_string(c.b.type(tensors[group])));
    }
    const std::vector<Value> updated = step(StepOperands(c, c.b.dtype(tensors[0])), tensors);
    for (size_t group = 0; group <= memories; ++group) results[group * count + i] = updated[group];
  }
  return results;
}

double required_number(NodeContext& c, const char* name) {
  if (!c.has_attribute(name)) c.fail(std::string("attribute '") + name + "' is missing");
  return c.number(name, 0);
}

// The gradient with that of coefficient / 2 * |x|^2.
Value regularized(Builder& b, Value x, Value gradient, double coefficient) {
  return coefficient == 0 ? gradient : b.add(b.mul(x, coefficient), gradient);
}

std::vector<Value> import_momentum(NodeContext& c) {
  Builder& b = c.b;
  const double alpha = required_number(c, "alpha"), beta = required_number(c, "beta"),
               norm = required_number(c, "norm_coefficient");
  const std::string mode = c.text("mode", "");
  if (mode != "standard" && mode != "nesterov")
    c.fail("attribute 'mode': standard or nesterov expected, found '" + mode + "'");
  return step_each_tensor(c, 1, [&](const StepOperands& s, std::span<const Value> tensors) -> std::vector<Value> {
    const Value x = tensors[0], gradient = regularized(b, x, tensors[1], norm);
    const Value share = s.on_first(b.constant_like(s.count(), 1), b.constant_like(s.count(), beta));
    const Value velocity = b.add(b.mul(tensors[2], alpha), b.mul(gradient, share));
    const Value direction = mode == "nesterov" ? b.add(gradient, b.mul(velocity, alpha)) : velocity;
    return {b.sub(x, b.mul(direction, s.rate())), velocity};
  });
}

std::vector<Value> import_adam(NodeContext& c) {
  Builder& b = c.b;
  const double alpha = c.number("alpha", 0.9), beta = c.number("beta", 0.999), epsilon = c.number("epsilon", 1e-6),
               norm = c.number("norm_coefficient", 0), norm_post = c.number("norm_coefficient_post", 0);
  return step_each_tensor(c, 2, [&](const StepOperands& s, std::span<const Value> tensors) -> std::vector<Value> {
    const Value x = tensors[0], gradient = regularized(b, x, tensors[1], norm);
    const Value mean = b.add(b.mul(tensors[2], alpha), b.mul(gradient, 1 - alpha));
    const Value square = b.add(b.mul(tensors[3], beta), b.mul(b.mul(gradient, gradient), 1 - beta));
    const auto unbias = [&](double decay) {  // 1 - decay ^ T
      const Value power = b.binary("pow", b.constant_like(s.count(), decay), s.count());
      return b.sub(b.constant_like(power, 1), power);
    };
    const Value rate = s.on_first(s.rate(), b.div(b.mul(s.rate(), b.unary("sqrt", unbias(beta))), unbias(alpha)));
    const Value step = b.div(b.mul(mean, rate), b.add(b.unary("sqrt", square), epsilon));
    return {b.mul(b.sub(x, step), 1 - norm_post), mean, square};
  });
}

std::vector<Value> import_adagrad(NodeContext& c) {
  Builder& b = c.b;
  const double decay = c.number("decay_factor", 0), epsilon = c.number("epsilon", 1e-6),
               norm = c.number("norm_coefficient", 0);
  return step_each_tensor(c, 1, [&](const StepOperands& s, std::span<const Value> tensors) -> std::vector<Value> {
    const Value x = tensors[0], gradient = regularized(b, x, tensors[1], norm);
    const Value square = b.add(tensors[2], b.mul(gradient, gradient));
    const Value rate = b.div(s.rate(), b.add(b.mul(s.count(), decay), 1));
    const Value step = b.div(b.mul(gradient, rate), b.add(b.unary("sqrt", square), epsilon));
    return {b.sub(x, step), square};
  });
}

const std::vector<OnnxOperator> kRows{
    {"ai.onnx.preview.training.Adagrad", {1}, 5, kVariadic, import_adagrad},
    {"ai.onnx.preview.training.Adam", {1}, 6, kVariadic, import_adam},
    {"ai.onnx.preview.training.Gradient", {1}, 1, kVariadic, import_gradient, "'y' must be made before the node"},
    {"ai.onnx.preview.training.Momentum", {1}, 5, kVariadic, import_momentum},
};

}  // namespace

std::span<const OnnxOperator> training_operators() { return kRows; }

}  // namespace halfstep
