#include "ir/interpret.h"

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "ir/builder.h"
#include "ir/op.h"

namespace halfstep {
namespace {

// Scalar bodies on doubles. A conversion rounds only if `rounding` says so, and then only floating types do.
class DoubleArithmetic final : public ScalarArithmetic {
 public:
  explicit DoubleArithmetic(Rounding rounding) : rounding_(rounding) {}

  Scalar constant(double value) override { return {this, value, nullptr}; }

  Scalar unary(ScalarOp op, Scalar x) override {
    const double v = x.number;
    switch (op) {
      case ScalarOp::negate:
        return constant(-v);
      case ScalarOp::absolute:
        return constant(std::abs(v));
      case ScalarOp::square_root:
        return constant(std::sqrt(v));
      case ScalarOp::exponential:
        return constant(std::exp(v));
      case ScalarOp::logarithm:
        return constant(std::log(v));
      case ScalarOp::sine:
        return constant(std::sin(v));
      case ScalarOp::cosine:
        return constant(std::cos(v));
      case ScalarOp::hyperbolic_tangent:
        return constant(std::tanh(v));
      case ScalarOp::error_function:
        return constant(std::erf(v));
      case ScalarOp::logistic:
        return constant(1 / (1 + std::exp(-v)));
      case ScalarOp::normal_distribution:
        return constant(std::erfc(-v / std::numbers::sqrt2) / 2);
      case ScalarOp::normal_density:
        return constant(std::exp(v * v / -2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2);
      case ScalarOp::round_down:
        return constant(std::floor(v));
      case ScalarOp::round_up:
        return constant(std::ceil(v));
      case ScalarOp::round_even:
        return constant(std::nearbyint(v));
      case ScalarOp::logical_not:
        return constant(v == 0);
      default:
        throw InternalError("not a unary scalar op");
    }
  }

  Scalar binary(ScalarOp op, Scalar x, Scalar y) override {
    const double a = x.number, b = y.number;
    switch (op) {
      case ScalarOp::add:
        return constant(a + b);
      case ScalarOp::subtract:
        return constant(a - b);
      case ScalarOp::multiply:
        return constant(a * b);
      case ScalarOp::divide:
        return constant(a / b);
      case ScalarOp::power:
        return constant(std::pow(a, b));
      case ScalarOp::remainder:
        return constant(std::fmod(a, b));
      case ScalarOp::maximum:
        return constant(std::isnan(a) || a > b ? a : b);
      case ScalarOp::minimum:
        return constant(std::isnan(a) || a < b ? a : b);
      case ScalarOp::equal:
        return constant(a == b);
      case ScalarOp::less:
        return constant(a < b);
      case ScalarOp::less_equal:
        return constant(a <= b);
      case ScalarOp::logical_and:
        return constant(a != 0 && b != 0);
      case ScalarOp::logical_or:
        return constant(a != 0 || b != 0);
      default:
        throw InternalError("not a binary scalar op");
    }
  }

  Scalar select(Scalar condition, Scalar if_true, Scalar if_false) override {
    return condition.number != 0 ? if_true : if_false;
  }

  Scalar convert(DType to, Scalar x) override {
    if (!is_floating(to) && to != DType::boolean) return constant(round_to(to, std::trunc(x.number)));
    return constant(is_floating(to) && rounding_ == Rounding::none ? x.number : round_to(to, x.number));
  }

 private:
  Rounding rounding_;
};

void evaluate_body(const Node& node, std::span<const InterpretedTensor* const> operands, Rounding rounding,
                   std::vector<double>& result) {
  DoubleArithmetic arithmetic(rounding);
  std::vector<Scalar> arguments(operands.size());
  for (size_t i = 0; i < result.size(); ++i) {
    for (size_t k = 0; k < operands.size(); ++k) arguments[k] = arithmetic.constant(operands[k]->values[i]);
    result[i] = node.op->body(node.attributes, arguments).number;
  }
}

std::vector<InterpretedTensor> evaluate_expansion(const Node& node, std::span<const InterpretedTensor* const> operands,
                                                  Rounding rounding);

}  // namespace

std::unique_ptr<ScalarArithmetic> double_arithmetic() { return std::make_unique<DoubleArithmetic>(Rounding::to_type); }

std::vector<InterpretedTensor> interpret_node(const Node& node, std::span<const InterpretedTensor* const> operands,
                                              Rounding rounding) {
  const Op& op = *node.op;
  if (!op.body && !op.evaluate) {
    require(op.expand != nullptr, "an op has a body, an expansion or an evaluation");
    return evaluate_expansion(node, operands, rounding);
  }
  std::vector<InterpretedTensor> results;
  for (const TensorType& type : node.results)
    results.push_back({type, std::vector<double>(static_cast<size_t>(type.element_count()))});
  if (op.body) {
    evaluate_body(node, operands, rounding, results[0].values);
  } else {
    std::vector<TensorType> types;
    std::vector<const std::vector<double>*> values;
    for (const InterpretedTensor* operand : operands) {
      types.push_back(operand ? operand->type : TensorType());
      values.push_back(operand ? &operand->values : nullptr);
    }
    std::vector<std::vector<double>> raw;
    for (InterpretedTensor& r : results) raw.push_back(std::move(r.values));
    op.evaluate({node, types, values, raw});
    for (size_t i = 0; i < raw.size(); ++i) results[i].values = std::move(raw[i]);
  }
  for (InterpretedTensor& r : results)
    if (!(is_floating(r.type.dtype) && rounding == Rounding::none) && r.type.dtype != DType::f64)
      for (double& v : r.values) v = round_to(r.type.dtype, v);
  return results;
}

namespace {

using Environment = std::vector<std::vector<InterpretedTensor>>;

// Evaluates every node but the leaves already in `environment`; frees a node's results after their last use unless
// kept.
void evaluate_nodes(const Graph& graph, Environment& environment, const InterpretOptions& options) {
  std::vector<NodeId> last_use(graph.nodes().size(), -1);
  for (NodeId id = 0; id < graph.size(); ++id)
    for (Value v : graph.node(id).operands)
      if (v) last_use[static_cast<size_t>(v.node)] = id;
  const auto keep = [&](Value v) { last_use[static_cast<size_t>(v.node)] = graph.size(); };
  for (const NamedValue& o : graph.outputs()) keep(o.value);
  for (const StateUpdate& u : graph.updates()) keep(u.value);
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    std::vector<InterpretedTensor>& results = environment[static_cast<size_t>(id)];
    if (results.empty()) {
      std::vector<const InterpretedTensor*> operands;
      for (Value v : node.operands)
        operands.push_back(v ? &environment[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)] : nullptr);
      results = interpret_node(node, operands, options.rounding);
    }
    if (options.observe) options.observe(id, results);
    for (Value v : node.operands)
      if (v && last_use[static_cast<size_t>(v.node)] == id) environment[static_cast<size_t>(v.node)] = {};
  }
}

const InterpretedTensor& at(const Environment& environment, Value v) {
  return environment[static_cast<size_t>(v.node)][static_cast<size_t>(v.result)];
}

std::vector<InterpretedTensor> evaluate_expansion(const Node& node, std::span<const InterpretedTensor* const> operands,
                                                  Rounding rounding) {
  Builder builder("expansion");
  std::vector<Value> inputs;
  for (size_t i = 0; i < operands.size(); ++i)
    inputs.push_back(operands[i] ? builder.input(std::to_string(i), operands[i]->type) : Value{});
  const std::vector<Value> results = node.op->expand({builder, node, inputs});
  for (size_t i = 0; i < results.size(); ++i) builder.output(std::to_string(i), results[i]);
  const Graph graph = std::move(builder).finish();
  Environment environment(graph.nodes().size());
  for (NodeId id = 0; id < graph.size(); ++id)
    if (is_leaf(*graph.node(id).op))
      environment[static_cast<size_t>(id)] = {*operands[std::stoul(graph.node(id).attributes.text("name"))]};
  evaluate_nodes(graph, environment, {.rounding = rounding, .observe = nullptr});
  std::vector<InterpretedTensor> values;
  for (const NamedValue& o : graph.outputs()) values.push_back(at(environment, o.value));
  return values;
}

}  // namespace

InterpretResult interpret(const Graph& graph, const NamedTensors& leaves, const InterpretOptions& options) {
  Environment environment(graph.nodes().size());
  Problems problems;
  for (NodeId id = 0; id < graph.size(); ++id) {
    const Node& node = graph.node(id);
    if (!is_leaf(*node.op)) continue;
    const Name name = leaf_name(node);
    const auto found = leaves.find(name);
    if (found == leaves.end())
      problems.add("no value for " + std::string(node.op->name) + " '" + to_string(name) + "'");
    else if (found->second.type != node.results[0])
      problems.add("'" + to_string(name) + "' is " + to_string(found->second.type) + ", " + to_string(node.results[0]) +
                   " expected");
    else
      environment[static_cast<size_t>(id)] = {{node.results[0], found->second.values()}};
  }
  problems.throw_if_any();
  evaluate_nodes(graph, environment, options);
  InterpretResult result;
  for (const NamedValue& o : graph.outputs()) result.outputs[o.name] = at(environment, o.value);
  for (const StateUpdate& u : graph.updates())
    result.updates[leaf_name(graph.node(u.state))] = at(environment, u.value);
  return result;
}

}  // namespace halfstep
