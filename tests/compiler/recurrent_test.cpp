// Recurrent layers through import, differentiation and the joining of sums: gradients against central differences for
// every form of a layer, and against PyTorch's.
#include <gtest/gtest.h>

#include "frontend/import/import.h"
#include "ir/interpret.h"
#include "passes/model/attach_loss.h"
#include "passes/model/stack_recurrent.h"
#include "passes/rewrite/canonicalise.h"
#include "passes/rewrite/expand_composites.h"
#include "passes/rewrite/join_sums.h"
#include "passes/rewrite/simplify.h"
#include "passes/training/differentiate.h"
#include "tests/frontend/test_model.h"
#include "tests/random_tensors.h"
#include "tests/recorded.h"

namespace halfstep::test {
namespace {

constexpr double kStep = 1.0 / 1024;

// "out": all results of the layer, one after another. Every operand is a weight, so that every gradient is there.
TestModel model_of(const std::string& op, const FileTensors& operands, const AttributeList& attributes) {
  TestModel model(22);
  const int results = op == "LSTM" ? 3 : 2;
  std::vector<std::string> names, flat;
  for (const std::string name : {"X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"}) {
    const auto found = operands.find(name);
    names.push_back(found == operands.end() ? "" : name);
    if (found != operands.end()) model.weight(name, found->second);
  }
  while (names.back().empty()) names.pop_back();
  model.weight("flat", ints({1}, {-1}));
  std::vector<std::string> outputs;
  for (int i = 0; i < results; ++i) outputs.push_back("y" + std::to_string(i));
  model.node(op, names, outputs, attributes, "layer");
  for (const std::string& y : outputs) {
    flat.push_back(y + ".flat");
    model.node("Reshape", {y, "flat"}, {flat.back()});
  }
  return model.node("Concat", flat, {"out"}, {{"axis", int64_t{0}}}).output("out");
}

Graph forward_of(const TestModel& model, ImportOptions::RecurrentLayers layers = ImportOptions::unrolled) {
  return attach_loss(import_model(model.file(), {.mode = ImportMode::training, .recurrent = layers}).graph,
                     {{.kind = "mean_squared_error", .output = "out"}});
}

Graph differentiated(const Graph& forward) {
  return simplify(join_sums(simplify(expand_composites(differentiate(forward)))));
}

std::map<Name, InterpretedTensor> run(const Graph& graph, const NamedTensors& leaves) {
  return interpret(graph, leaves, {.rounding = Rounding::none, .observe = nullptr}).outputs;
}

struct Form {
  std::string name, op;
  int64_t directions = 1;
  AttributeList attributes = {};
  std::set<std::string> operands = {};  // beside X, W and R
};

std::vector<Form> forms() {
  const std::set<std::string> all{"B", "initial_h", "initial_c"};
  const AttributeList both{{"direction", std::string("bidirectional")}};
  return {
      {"Plain", "LSTM"},
      {"Both", "LSTM", 2, both, all},
      {"Reverse", "LSTM", 1, {{"direction", std::string("reverse")}}, {"B"}},
      {"Peepholes", "LSTM", 1, {}, {"B", "initial_h", "initial_c", "P"}},
      {"Lengths", "LSTM", 2, both, {"B", "initial_h", "initial_c", "sequence_lens"}},
      {"InputForget", "LSTM", 1, {{"input_forget", int64_t{1}}, {"layout", int64_t{1}}}, all},
      {"BatchFirst", "LSTM", 1, {{"layout", int64_t{1}}}, all},
      {"Clipped", "LSTM", 1, {{"clip", 0.4}}, all},
      {"Activations",
       "LSTM",
       1,
       {{"activations", std::vector<std::string>{"HardSigmoid", "ScaledTanh", "Elu"}},
        {"activation_alpha", std::vector<double>{0.3, 1.5, 0.7}},
        {"activation_beta", std::vector<double>{0.4, 0.6}}},
       all},
      {"Plain", "GRU"},
      {"Both", "GRU", 2, both, {"B", "initial_h"}},
      {"ResetAfter", "GRU", 1, {{"linear_before_reset", int64_t{1}}}, {"B", "initial_h"}},
      {"ResetAfterFromZero", "GRU", 2, {{"linear_before_reset", int64_t{1}}, both[0]}, {"B"}},
      {"Lengths", "GRU", 1, {{"layout", int64_t{1}}}, {"B", "sequence_lens"}},
      {"Both", "RNN", 2, both, {"B", "initial_h"}},
      {"Activations",
       "RNN",
       1,
       {{"activations", std::vector<std::string>{"Affine"}},
        {"activation_alpha", std::vector<double>{0.5}},
        {"activation_beta", std::vector<double>{0.1}}},
       {"initial_h"}},
  };
}

FileTensors operands_of(const Form& form) {
  const int64_t steps = 6, batch = 2, inputs = 3, hidden = 2, d = form.directions;
  const int64_t rows = hidden * (form.op == "LSTM" ? 4 : form.op == "GRU" ? 3 : 1);
  bool batch_first = false;
  for (const auto& [name, value] : form.attributes) batch_first |= name == "layout";
  const Shape state = batch_first ? Shape{batch, d, hidden} : Shape{d, batch, hidden};
  const std::map<std::string, Shape> shapes{
      {"X", batch_first ? Shape{batch, steps, inputs} : Shape{steps, batch, inputs}},
      {"W", {d, rows, inputs}},
      {"R", {d, rows, hidden}},
      {"B", {d, 2 * rows}},
      {"initial_h", state},
      {"initial_c", state},
      {"P", {d, 3 * hidden}}};
  FileTensors operands;
  uint64_t seed = 5;
  for (const auto& [name, shape] : shapes) {
    if (shape.size() < 3 ? !form.operands.contains(name) : name.starts_with("i") && !form.operands.contains(name))
      continue;
    if (name == "initial_c" && form.op != "LSTM") continue;
    Tensor t = random_tensor({DType::f32, shape}, seed++, -1, 1, 2);
    // A grid that f32 holds exactly, and so that a step of kStep stays on it.
    for (float& v : t.as<float>()) v = std::round(v * 4096) / 4096;
    operands[name] = std::move(t);
  }
  if (form.operands.contains("sequence_lens"))
    operands["sequence_lens"] = Tensor::from_values({DType::i32, {batch}}, std::vector<double>{4, 6});
  return operands;
}

// Weights as the graph's leaves have them.
NamedTensors leaves_of(const Graph& forward, const FileTensors& operands) {
  NamedTensors leaves;
  for (const Node& node : forward.nodes()) {
    if (node.op->name != "parameter") continue;
    const Tensor& weight = operands.at(node.attributes.text("name"));
    const Ints& stored = node.attributes.ints("permutation");
    leaves[node.attributes.text("name")] = stored.empty() ? weight : weight.transpose(stored);
  }
  return leaves;
}

class Recurrent : public testing::TestWithParam<Form> {};

TEST_P(Recurrent, GradientsAreCentralDifferences) {
  const Form& form = GetParam();
  const FileTensors operands = operands_of(form);
  const Graph forward = forward_of(model_of(form.op, operands, form.attributes));
  NamedTensors leaves = leaves_of(forward, operands);
  const NamedTensors weights = leaves;
  leaves["targets"] = random_tensor(forward.type(forward.leaf("targets")), 3, -1, 1, 2);
  const auto found = run(differentiated(forward), leaves);
  const auto loss = [&](const NamedTensors& at) { return run(forward, at).at(kLoss).values[0]; };
  for (const auto& [name, tensor] : weights) {
    const std::vector<double>& gradient = found.at({Role::gradient, name.text}).values;
    for (int64_t i = 0; i < tensor.type.element_count(); ++i) {
      NamedTensors above = leaves, below = leaves;
      above.at(name).set(i, tensor.at(i) + kStep), below.at(name).set(i, tensor.at(i) - kStep);
      const double expected = (loss(above) - loss(below)) / (2 * kStep);
      EXPECT_NEAR(gradient[static_cast<size_t>(i)], expected, 1e-5 + 1e-4 * std::abs(expected))
          << to_string(name) << "[" << i << "]";
    }
  }
}

// A weight that every step reads has one product in the backward, and the slices of the projection are one concat.
TEST_P(Recurrent, WeightGradientsAreOneProduct) {
  const Form& form = GetParam();
  const Graph graph = differentiated(forward_of(model_of(form.op, operands_of(form), form.attributes)));
  int64_t products = 0;
  for (const Node& node : graph.nodes())
    products += node.op->name == "matmul" && node.attributes.integer("transpose_a") != 0;
  // Of W, R and, from an initial state, the first step's own; a GRU that resets first reads R in two pieces.
  EXPECT_LE(products, form.directions * 6);
}

// What a library has is one node where the target has the library, and computes what the steps do one by one.
TEST_P(Recurrent, OneCallIsTheSame) {
  const Form& form = GetParam();
  const FileTensors operands = operands_of(form);
  const TestModel model = model_of(form.op, operands, form.attributes);
  const Graph unrolled = forward_of(model), called = forward_of(model, ImportOptions::as_calls);
  const std::set<std::string> calls{"LSTMPlain",     "LSTMBoth", "LSTMBatchFirst",
                                    "GRUResetAfter", "RNNBoth",  "GRUResetAfterFromZero"};
  const auto is_call = [](const Node& node) { return node.op->name == "recurrent"; };
  EXPECT_EQ(std::ranges::count_if(called.nodes(), is_call), calls.contains(form.op + form.name) ? 1 : 0);
  EXPECT_EQ(std::ranges::count_if(unrolled.nodes(), is_call), 0);
  const auto computed = [&](const Graph& forward) {
    NamedTensors leaves = leaves_of(forward, operands);
    leaves["targets"] = random_tensor(forward.type(forward.leaf("targets")), 3, -1, 1, 2);
    return run(differentiated(forward), leaves);
  };
  const auto expected = computed(unrolled), found = computed(called);
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, value] : expected) {
    SCOPED_TRACE(to_string(name));
    const std::vector<double>& values = found.at(name).values;
    ASSERT_EQ(values.size(), value.values.size());
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], value.values[i], 1e-12) << i;
  }
}

// Layers as exporters write them, one above the other, are one network.
TEST(RecurrentNetworks, ExportedLayersAreOneCall) {
  for (const std::string name : {"lstm", "gru"})
    for (const std::string exporter : {"ts17", "dynamo", "raw"}) {
      SCOPED_TRACE(name + "." + exporter);
      const std::string path = std::string(HALFSTEP_SOURCE_DIR) + "/models/families/" + name + "." + exporter + ".onnx";
      Graph graph = import_model(read_onnx_file(path), {.recurrent = ImportOptions::as_calls}).graph;
      graph = simplify(stack_recurrent(canonicalise(graph)));
      std::vector<const Node*> networks;
      for (const Node& node : graph.nodes())
        if (node.op->name == "recurrent") networks.push_back(&node);
      ASSERT_EQ(networks.size(), 1u);
      EXPECT_EQ(networks[0]->attributes.integer("layers"), 2);
      EXPECT_EQ(networks[0]->attributes.integer("directions"), 2);
      // Where the exporter exchanged gates, weights are PyTorch's again, one after another.
      const size_t pieces = graph.node(networks[0]->operands[1]).operands.size();
      EXPECT_TRUE(pieces == 16 || exporter == "dynamo") << pieces;
    }
}

INSTANTIATE_TEST_SUITE_P(, Recurrent, testing::ValuesIn(forms()),
                         [](const auto& c) { return c.param.op + c.param.name; });

TEST(RecurrentReference, OutputsAndGradientsArePyTorchs) {
  const nlohmann::json reference = recorded("recurrent");
  for (const auto& [op, layer] : reference.at("layers").items()) {
    FileTensors operands;
    for (const auto& [name, entry] : layer.at("operands").items())
      operands[name] = recorded_tensor(op + "." + name, entry);
    AttributeList attributes{{"direction", std::string("bidirectional")}};
    if (op == "GRU") attributes.push_back({"linear_before_reset", int64_t{1}});
    const Graph forward = forward_of(model_of(op, operands, attributes));
    NamedTensors leaves = named(operands);
    leaves["targets"] = Tensor(forward.type(forward.leaf("targets")));
    const auto found = run(differentiated(forward), leaves);
    EXPECT_NEAR(found.at(kLoss).values[0], layer.at("loss").get<double>(), 1e-7);
    const auto expect_equal = [&](const std::vector<double>& values, const nlohmann::json& expected) {
      ASSERT_EQ(values.size(), expected.size());
      for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i].get<double>(), 1e-6);
    };
    expect_equal(found.at("out").values, layer.at("outputs"));
    for (const auto& [name, gradient] : layer.at("gradients").items()) {
      SCOPED_TRACE(op + " " + name);
      expect_equal(found.at({Role::gradient, name}).values, gradient);
    }
  }
}

}  // namespace
}  // namespace halfstep::test
