// Whole-table tests: every row is complete, prints and parses, and its vjp equals central differences.
#include <gtest/gtest.h>

#include <cmath>

#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "tests/op_samples.h"
#include "tests/random_tensors.h"

namespace halfstep {
namespace {

TEST(OpTable, EveryRowIsComplete) {
  for (const Op* row : all_ops()) {
    SCOPED_TRACE(row->name);
    EXPECT_NE(row->type, nullptr);
    EXPECT_NE(row->vjp == nullptr, row->not_differentiable.empty()) << "a vjp, or the reason why there is none";
    EXPECT_TRUE(row->body || row->kernel != KernelKind::pointwise);
    EXPECT_TRUE(row->expand || row->kernel != KernelKind::composite);
    EXPECT_TRUE(is_leaf(*row) || row->body || row->expand || row->evaluate);
    EXPECT_EQ(find_op(row->name), row) << "the name is unique";
  }
}

TEST(OpTable, EveryOpHasASample) {
  for (const Op* row : all_ops()) {
    if (row->kernel == KernelKind::leaf || row->kernel == KernelKind::fused) continue;
    bool found = false;
    for (const OpSample& sample : op_samples()) found |= sample.op == row->name;
    EXPECT_TRUE(found) << row->name;
  }
}

TEST(OpTable, SamplesPrintAndParseBack) {
  for (const OpSample& sample : op_samples()) {
    const Graph graph = parse_graph(sample_text(sample, "f16"));
    verify(graph);
    EXPECT_EQ(print(parse_graph(print(graph))), print(graph));
  }
}

// The gradient of sum(result * weights) with respect to every floating operand.
Graph gradient_graph(const Graph& forward, NamedTensors& leaves, uint64_t seed) {
  Builder b("gradient");
  const ValueMap map = copy_nodes(forward, b);
  const NodeId last = forward.size() - 1;
  const Node& node = forward.node(last);
  std::vector<Value> operands, cotangents;
  for (Value v : node.operands) operands.push_back(v ? map[static_cast<size_t>(v.node)][0] : Value{});
  for (size_t i = 0; i < node.results.size(); ++i) {
    if (i > 0 || !is_floating(node.results[i].dtype)) {
      cotangents.push_back({});
      continue;
    }
    const std::string name = "dy" + std::to_string(i);
    leaves[name] = random_tensor(node.results[i], seed, -1, 1, 2);
    cotangents.push_back(b.input(name, node.results[i]));
  }
  const std::vector<Value> gradients = node.op->vjp({b, node, operands, map[static_cast<size_t>(last)], cotangents});
  EXPECT_EQ(gradients.size(), operands.size());
  for (size_t i = 0; i < gradients.size(); ++i)
    if (gradients[i]) {
      EXPECT_EQ(b.type(gradients[i]), b.type(operands[i])) << "the cotangent has the operand's type";
      b.output("d" + std::to_string(i), gradients[i]);
    }
  return std::move(b).finish();
}

double weighted_sum(const Graph& forward, const NamedTensors& leaves) {
  const auto result = interpret(forward, leaves, {.rounding = Rounding::none, .observe = nullptr});
  const InterpretedTensor& y = result.outputs.at("0");
  double sum = 0;
  for (size_t i = 0; i < y.values.size(); ++i) sum += y.values[i] * leaves.at("dy0").at(static_cast<int64_t>(i));
  return sum;
}

TEST(OpTable, VjpEqualsCentralDifferences) {
  int checked = 0;
  for (const OpSample& sample : op_samples()) {
    SCOPED_TRACE(std::string(sample.op) + " {" + std::string(sample.attributes) + "}");
    if (sample.op == "round_through") continue;  // its vjp is an estimate where the derivative is zero
    const Graph forward = parse_graph(sample_text(sample, "f64"));
    const Node& node = forward.node(forward.size() - 1);
    if (!node.op->vjp || !is_floating(forward.node(0).results[0].dtype) || !is_floating(node.results[0].dtype) ||
        node.results[0].dtype == DType::f16)
      continue;
    NamedTensors leaves = random_leaves(forward, 11, sample.low, sample.high, sample.bound);
    const Graph backward = gradient_graph(forward, leaves, 99);
    NamedTensors known;
    for (const Node& n : backward.nodes())
      if (is_leaf(*n.op)) known[n.attributes.text("name")] = leaves.at(n.attributes.text("name"));
    const auto gradients = interpret(backward, known, {.rounding = Rounding::none, .observe = nullptr}).outputs;
    EXPECT_FALSE(gradients.empty());
    for (const auto& [name, gradient] : gradients) {
      const std::string leaf = name.substr(1);
      // f32 operands (batch statistics) hold too few digits for a small step.
      const double step = leaves.at(leaf).type.dtype == DType::f64 ? 1e-6 : 1.0 / 1024;
      for (size_t i = 0; i < gradient.values.size(); ++i) {
        NamedTensors above = leaves, below = leaves;
        const double at = leaves.at(leaf).at(static_cast<int64_t>(i));
        above.at(leaf).set(static_cast<int64_t>(i), at + step), below.at(leaf).set(static_cast<int64_t>(i), at - step);
        const double difference = (weighted_sum(forward, above) - weighted_sum(forward, below)) / (2 * step);
        EXPECT_NEAR(gradient.values[i], difference, 2e-5 * (1 + std::abs(difference)))
            << "operand " << leaf << "[" << i << "]";
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 1000);
}

}  // namespace
}  // namespace halfstep
