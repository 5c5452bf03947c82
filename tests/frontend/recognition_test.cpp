// Import and recognition together: what the exporters write for one model ends as one graph, of the operators that the
// model was made of, which computes what the file says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/op.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/model/recognise.h"
#include "passes/rewrite/canonicalise.h"
#include "test_model.h"
#include "tests/random_tensors.h"

namespace halfstep::test {
namespace {

constexpr int64_t kBatch = 2;

// Without dropout, which the default exporter leaves out of attention.
ImportedModel import_family(const std::string& model, InitialWeights weights = InitialWeights::none) {
  const auto path = std::filesystem::path(HALFSTEP_SOURCE_DIR) / "models/families" / (model + ".onnx");
  return import_model(read_onnx_file(path), {.batch = kBatch, .weights = weights, .dropout = 0});
}

Graph recognised(const Graph& graph) {
  const Graph result = canonicalise(recognise(canonicalise(graph)));
  verify(result);
  return result;
}

// Cosines differ in their last digit by who computed them.
Tensor rounded(const Tensor& tensor) {
  constexpr double kDigits = 1e5;
  std::vector<double> values = tensor.values();
  for (double& v : values) v = std::round(v * kDigits) / kDigits;
  return Tensor::from_values(tensor.type, values);
}

// The graph in the order in which its outputs need it, its leaves numbered in that order, without origins: what is left
// is what it computes. How the file stores a parameter, transposed or with axes of size 1, is left out too.
std::string content(const Graph& graph) {
  Builder b("content");
  std::map<NodeId, std::vector<Value>> made;
  std::vector<NodeId> open;
  int leaves = 0;
  const auto value = [&](Value v) { return v ? made.at(v.node)[static_cast<size_t>(v.result)] : Value{}; };
  for (size_t output = 0; output < graph.outputs().size(); ++output) {
    open.push_back(graph.outputs()[output].value.node);
    while (!open.empty()) {
      const NodeId id = open.back();
      const Node& node = graph.node(id);
      const size_t before = open.size();
      for (size_t i = node.operands.size(); i-- > 0;)
        if (node.operands[i] && !made.contains(node.operands[i].node)) open.push_back(node.operands[i].node);
      if (open.size() > before) continue;
      open.pop_back();
      if (made.contains(id)) continue;
      Attributes attributes = node.attributes;
      if (is_leaf(*node.op)) attributes.set("name", "leaf " + std::to_string(leaves++));
      if (node.op->name == "constant" && is_floating(node.results[0].dtype))
        attributes.set("value", rounded(attributes.tensor("value")));
      std::vector<Value> operands;
      for (Value v : node.operands) operands.push_back(value(v));
      if (node.op->name == "parameter") {
        Shape shape = node.results[0].shape;
        std::erase(shape, 1);
        made[id] = {
            b.reshape(b.parameter(attributes.text("name"), {node.results[0].dtype, shape}), node.results[0].shape)};
      } else {
        made[id] = b.call_all(*node.op, operands, attributes);
      }
    }
    b.output(std::to_string(output), value(graph.outputs()[output].value));
  }
  return print(canonicalise(std::move(b).finish()));
}

std::map<std::string, int> counts(const Graph& graph) {
  std::map<std::string, int> result;
  for (const Node& node : graph.nodes()) ++result[std::string(node.op->name)];
  return result;
}

struct Expected {
  std::string model;
  std::vector<std::string> forms;
  int attention = 0, layer_norm = 0, rms_norm = 0, gelu = 0, silu = 0;
};

void PrintTo(const Expected& e, std::ostream* out) { *out << e.model; }

class Recognition : public testing::TestWithParam<Expected> {};

TEST_P(Recognition, FindsTheOperatorsInEveryForm) {
  for (const std::string& form : GetParam().forms) {
    std::map<std::string, int> found = counts(recognised(import_family(GetParam().model + "." + form).graph));
    EXPECT_EQ(found["attention"], GetParam().attention) << form;
    EXPECT_EQ(found["layer_norm"], GetParam().layer_norm) << form;
    EXPECT_EQ(found["rms_norm"], GetParam().rms_norm) << form;
    EXPECT_EQ(found["gelu"] + found["gelu_tanh"], GetParam().gelu) << form;
    EXPECT_EQ(found["silu"], GetParam().silu) << form;
    EXPECT_EQ(found["softmax"] + found["erf"] + found["is_nan"], 0) << form;
  }
}

TEST_P(Recognition, KeepsTheValues) {
  for (const std::string& form : GetParam().forms) {
    const ImportedModel model = import_family(GetParam().model + "." + form, InitialWeights::from_file);
    const Graph after = recognised(model.graph);
    NamedTensors leaves = random_leaves(model.graph, 5, -1, 1, 16), stored;
    for (const auto& [name, tensor] : model.weights) leaves[name] = tensor;
    stored = leaves;
    for (const auto& [name, tensor] : in_onnx_layout(model.graph, model.weights)) {
      const Value leaf = after.leaf(name);
      if (!leaf) continue;
      const Attribute* permutation = after.node(leaf).attributes.find("permutation");
      const Ints axes = permutation ? std::get<Ints>(*permutation) : Ints();
      stored[name] = axes.empty() ? tensor : tensor.transpose(axes);
    }
    const InterpretOptions exact{.rounding = Rounding::none, .observe = nullptr};
    const auto expected = interpret(model.graph, leaves, exact).outputs,
               found = interpret(after, stored, exact).outputs;
    for (const auto& [name, tensor] : expected)
      for (size_t i = 0; i < tensor.values.size(); ++i)
        ASSERT_NEAR(found.at(name).values[i], tensor.values[i], 1e-5 * std::max(1.0, std::abs(tensor.values[i])))
            << form << " " << to_string(name) << "[" << i << "]";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Transformers, Recognition,
    testing::Values(
        Expected{.model = "bert",
                 .forms = {"dynamo", "dynamo23", "raw", "ts17"},
                 .attention = 2,
                 .layer_norm = 6,
                 .gelu = 3},
        Expected{.model = "distilbert",
                 .forms = {"dynamo", "dynamo23", "raw", "ts17"},
                 .attention = 2,
                 .layer_norm = 5,
                 .gelu = 2},
        Expected{.model = "gpt2", .forms = {"dynamo", "dynamo23", "raw"}, .attention = 2, .layer_norm = 5, .gelu = 2},
        Expected{.model = "llama", .forms = {"dynamo", "dynamo23", "raw"}, .attention = 2, .rms_norm = 5, .silu = 2},
        Expected{.model = "swin", .forms = {"dynamo", "raw", "ts17"}, .attention = 4, .layer_norm = 11, .gelu = 4},
        Expected{.model = "t5", .forms = {"dynamo", "dynamo23", "raw", "ts17"}, .attention = 6, .rms_norm = 12},
        Expected{.model = "vit",
                 .forms = {"dynamo", "dynamo23", "raw", "ts17"},
                 .attention = 2,
                 .layer_norm = 5,
                 .gelu = 2}),
    [](const auto& info) { return info.param.model; });

class OneGraph : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(OneGraph, WhoeverExportedIt) {
  const std::string first = content(recognised(import_family(GetParam().front()).graph));
  for (const std::string& model : GetParam())
    EXPECT_EQ(content(recognised(import_family(model).graph)), first) << model;
}

INSTANTIATE_TEST_SUITE_P(
    Families, OneGraph,
    testing::Values(std::vector<std::string>{"vit.ts17", "vit.raw", "vit.dynamo", "vit.dynamo23"},
                    std::vector<std::string>{"bert.ts17", "bert.raw"},
                    std::vector<std::string>{"bert.dynamo", "bert.dynamo23"},  // rows of token types are folded
                    std::vector<std::string>{"distilbert.ts17", "distilbert.raw", "distilbert.dynamo",
                                             "distilbert.dynamo23"},
                    std::vector<std::string>{"gpt2.raw", "gpt2.dynamo", "gpt2.dynamo23"},
                    std::vector<std::string>{"llama.raw", "llama.dynamo", "llama.dynamo23"},
                    std::vector<std::string>{"t5.ts17", "t5.raw"},
                    std::vector<std::string>{"t5.dynamo", "t5.dynamo23"},  // position biases are folded
                    std::vector<std::string>{"convnext.ts17", "convnext.raw", "convnext.dynamo"},
                    std::vector<std::string>{"squeezenet.ts17", "squeezenet.raw", "squeezenet.dynamo"},
                    std::vector<std::string>{"unet.ts17", "unet.raw", "unet.dynamo"},
                    std::vector<std::string>{"swin.ts17", "swin.raw"},
                    std::vector<std::string>{"shufflenet_v2.ts17", "shufflenet_v2.raw"},
                    std::vector<std::string>{"resnet.ts17", "resnet.raw"},
                    std::vector<std::string>{"resnet_bottleneck.ts17", "resnet_bottleneck.raw"},
                    std::vector<std::string>{"densenet.ts17", "densenet.raw"},
                    std::vector<std::string>{"mobilenet_v2.ts17", "mobilenet_v2.raw"},
                    std::vector<std::string>{"mobilenet_v3.ts17", "mobilenet_v3.raw"},
                    std::vector<std::string>{"efficientnet.ts17", "efficientnet.raw"},
                    std::vector<std::string>{"regnet.ts17", "regnet.raw"},
                    std::vector<std::string>{"gru.ts17", "gru.raw"}, std::vector<std::string>{"lstm.ts17", "lstm.raw"}),
    [](const auto& info) {
      std::string name = info.param.front();
      std::ranges::replace(name, '.', '_');
      return name;
    });

}  // namespace
}  // namespace halfstep::test
