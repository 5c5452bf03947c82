// Every differentiable row: its vjp equals central differences in double; and the page that lists the rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "base/file.h"
#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "tests/ir/gradient_samples.h"
#include "tests/random_tensors.h"

namespace halfstep {
namespace {

// The gradient of sum(result * weights) with respect to every floating operand.
Graph gradient_graph(const Graph& forward, NamedTensors& leaves, uint64_t seed) {
  Builder b("gradient");
  const ValueMap map = copy_nodes(forward, b);
  const NodeId last = forward.size() - 1;
  const Node& node = forward.node(last);
  std::vector<Value> operands, cotangents;
  for (Value v : node.operands) operands.push_back(map(v));
  for (size_t i = 0; i < node.results.size(); ++i) {
    if (i > 0 || !is_floating(node.results[i].dtype)) {
      cotangents.push_back({});
      continue;
    }
    const std::string name = "dy" + std::to_string(i);
    leaves[name] = random_tensor(node.results[i], seed, -1, 1, 2);
    cotangents.push_back(b.input(name, node.results[i]));
  }
  const std::vector<Value> gradients = node.op->vjp({b, node, operands, map.at(last), cotangents});
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

// Floating leaves on a grid that f32 holds, so that a step of the differences stays on it.
NamedTensors gradient_leaves(const Graph& forward, const GradientSample& sample) {
  NamedTensors leaves = random_leaves(forward, 11, sample.low, sample.high, sample.bound);
  for (auto& [name, tensor] : leaves)
    if (tensor.type.dtype == DType::f32)
      for (int64_t i = 0; i < tensor.type.element_count(); ++i) tensor.set(i, std::round(tensor.at(i) * 4096) / 4096);
  return leaves;
}

// Of every floating operand, against `backward`; an operand without a gradient has the gradient 0.
void expect_central_differences(const Graph& forward, const Graph& backward, const NamedTensors& leaves) {
  NamedTensors known;
  for (const Node& n : backward.nodes())
    if (is_leaf(*n.op)) known[leaf_name(n)] = leaves.at(leaf_name(n));
  const auto gradients = interpret(backward, known, {.rounding = Rounding::none, .observe = nullptr}).outputs;
  const Node& node = forward.node(forward.size() - 1);
  for (size_t operand = 0; operand < node.operands.size(); ++operand) {
    const std::string name = std::to_string(operand);
    if (!node.operands[operand] || !is_floating(leaves.at(name).type.dtype)) continue;
    const Tensor& leaf = leaves.at(name);
    const auto gradient = gradients.find("d" + name);
    // f32 operands (batch statistics) hold too few digits for a small step.
    const double step = leaf.type.dtype == DType::f64 ? 1e-6 : 1.0 / 1024;
    for (int64_t i = 0; i < leaf.type.element_count(); ++i) {
      NamedTensors above = leaves, below = leaves;
      above.at(name).set(i, leaf.at(i) + step), below.at(name).set(i, leaf.at(i) - step);
      const double difference = (weighted_sum(forward, above) - weighted_sum(forward, below)) / (2 * step);
      const double found = gradient == gradients.end() ? 0 : gradient->second.values[static_cast<size_t>(i)];
      EXPECT_NEAR(found, difference, 2e-5 * (1 + std::abs(difference))) << "operand " << name << "[" << i << "]";
    }
  }
}

// Its vjp is an estimate: the identity, where the derivative is zero almost everywhere.
constexpr std::string_view kStraightThrough = "round_through";

TEST(Gradients, StraightThroughIsTheIdentity) {
  int checked = 0;
  for (const GradientSample& sample : gradient_samples()) {
    if (sample.op != kStraightThrough) continue;
    NamedTensors leaves;
    const Graph backward = gradient_graph(parse_graph(sample.text), leaves, 99);
    ASSERT_EQ(backward.outputs().size(), 1u);
    EXPECT_EQ(backward.node(backward.outputs()[0].value).attributes.text("name"), "dy0");
    ++checked;
  }
  EXPECT_GE(checked, 10);
}

struct CheckedShapes {
  std::set<std::string> graphs;
  bool size_zero = false, size_one = false;  // of an axis of an operand
};

TEST(Gradients, OfEveryRowAreCentralDifferences) {
  std::map<std::string_view, CheckedShapes> rows;
  for (const GradientSample& sample : gradient_samples()) {
    if (sample.op == kStraightThrough) continue;
    SCOPED_TRACE(sample.text);
    const Graph forward = parse_graph(sample.text);
    const Node& node = forward.node(forward.size() - 1);
    const auto floating = [&](Value v) { return v && is_floating(forward.type(v).dtype); };
    if (!is_floating(node.results[0].dtype) || std::ranges::none_of(node.operands, floating)) continue;
    CheckedShapes& row = rows[sample.op];
    for (Value v : node.operands) {
      if (!floating(v)) continue;
      for (int64_t size : forward.type(v).shape) row.size_zero |= size == 0, row.size_one |= size == 1;
    }
    NamedTensors leaves = gradient_leaves(forward, sample);
    const Graph backward = gradient_graph(forward, leaves, 99);
    expect_central_differences(forward, backward, leaves);
    row.graphs.insert(sample.text);
  }
  for (const Op* op : all_ops()) {
    if (!op->vjp || op->name == kStraightThrough) continue;
    const CheckedShapes& row = rows[op->name];
    EXPECT_GE(row.graphs.size(), 10) << op->name << ": add shapes to tests/ir/gradient_samples.cpp";
    EXPECT_TRUE(row.size_zero) << op->name << ": no shape with size 0";
    EXPECT_TRUE(row.size_one) << op->name << ": no shape with size 1";
  }
}

std::string gradients_markdown() {
  std::string text =
      "# Gradients of the graph's operators\n\n"
      "Written from the operator table (`ir/ops/`) by `ir_test`; run it with `UPDATE_EXPECTED=1` after a change of\n"
      "the table. Every differentiable operator's gradient equals central differences in double on at least ten "
      "shapes,\n"
      "sizes 0 and 1 among them (`tests/ir/gradients_test.cpp`). A graph in which an operator without a gradient lies\n"
      "between a trained parameter and the loss is refused, with the operator's name and this reason; parameters that\n"
      "reach the loss only through gradients of zero are named by `check` and `train`.\n\n"
      "| operator | ONNX | gradient |\n|---|---|---|\n";
  for (const Op* row : all_ops())
    text += "| " + std::string(row->name) + " | " + std::string(row->onnx) + " | " +
            (!row->vjp                       ? "none: " + std::string(row->not_differentiable)
             : row->name == kStraightThrough ? "estimate: the identity"
             : row->vjp == zero_vjp          ? "zero: its derivative is zero almost everywhere"
                                             : "yes") +
            " |\n";
  return text;
}

TEST(Gradients, PageIsThatOfTheTable) {
  const std::filesystem::path page = std::filesystem::path(HALFSTEP_SOURCE_DIR) / "docs/gradients.md";
  if (std::getenv("UPDATE_EXPECTED")) write_file_atomically(page, gradients_markdown());
  EXPECT_EQ(gradients_markdown(), std::filesystem::exists(page) ? read_file(page) : "") << "run with UPDATE_EXPECTED=1";
}

}  // namespace
}  // namespace halfstep
