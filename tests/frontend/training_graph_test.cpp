// Training steps as ONNX models: every row of the export, and whole steps, come back through the importer and compute
// the same. With HALFSTEP_OP_GRAPHS=DIR each row's graph and values are also written there, for
// tools/compare_training_graphs.py --op-graphs DIR, which runs them in ONNX Runtime.
#include "frontend/export/training_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/file.h"
#include "frontend/export/operator_rows.h"
#include "frontend/export/write_model.h"
#include "ir/builder.h"
#include "ir/interpret.h"
#include "ir/text.h"
#include "passes/pipeline.h"
#include "test_model.h"
#include "tests/op_samples.h"
#include "tests/random_tensors.h"
#include "tests/slots.h"

namespace halfstep::test {
namespace {

using ::testing::HasSubstr;

TEST(TrainingGraphRows, EveryOpHasARowOrAReason) {
  for (const Op* op : all_ops()) {
    const ExportRow* row = find_export_row(op->name);
    ASSERT_NE(row, nullptr) << op->name << " has no row in frontend/export";
    EXPECT_NE(row->write != nullptr, !row->refused.empty()) << op->name;
    EXPECT_EQ(row->write == nullptr,
              op->name != "constant" && (op->kernel == KernelKind::composite || op->kernel == KernelKind::leaf ||
                                         op->kernel == KernelKind::fused || op->kernel == KernelKind::attention ||
                                         op->kernel == KernelKind::recurrent))
        << op->name << ": what a step's graph holds is written, all else is not";
  }
}

void write_values(const NamedTensors& leaves, const InterpretResult& expected, const std::filesystem::path& path) {
  onnx::ModelProto model;
  for (const auto& [name, tensor] : leaves)
    *model.mutable_graph()->add_initializer() = tensor_message("in/" + name.text, tensor);
  for (const auto& [name, value] : expected.outputs)
    *model.mutable_graph()->add_initializer() =
        tensor_message("out/" + name.text, Tensor::from_values(value.type, value.values));
  write_model(model, path, 1'000'000);
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0;
  for (const double v : expected)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < found.size(); ++i) {
    if (std::isfinite(expected[i]))
      EXPECT_NEAR(found[i], expected[i], tolerance * std::max(1.0, largest)) << "element " << i;
    else
      EXPECT_TRUE(found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]))) << "element " << i;
  }
}

// With other names of outputs than of inputs, as a file needs them.
std::string text_of(const OpSample& sample, std::string_view element) {
  std::string text = sample_text(sample, element);
  constexpr std::string_view kOutput = "output \"";
  for (size_t at = 0; (at = text.find(kOutput, at)) != std::string::npos; at += kOutput.size())
    text.insert(at + kOutput.size(), "y");
  return text;
}

TEST(TrainingGraphRows, ComeBackThroughTheImporter) {
  const TemporaryDirectory directory;
  const char* kept = std::getenv("HALFSTEP_OP_GRAPHS");
  int number = 0;
  for (const char* element : {"f32", "f16", "bf16"})
    for (const OpSample& sample : op_samples()) {
      const ExportRow* row = find_export_row(sample.op);
      if (!row || !row->write || sample.op == "constant") continue;
      const std::string text = text_of(sample, element);
      if (element != std::string("f32") && text == text_of(sample, "f32")) continue;
      SCOPED_TRACE(text);
      const Graph graph = parse_graph(text);
      NamedTensors leaves = random_leaves(graph, 5, sample.low, sample.high, sample.bound);
      const InterpretResult expected = interpret(graph, leaves);
      const std::filesystem::path path = directory.path() / "op.onnx";
      export_training_graph(graph, {}, path);
      if (kept) {
        const std::string stem = std::to_string(number++) + "." + std::string(sample.op) + "." + element;
        export_training_graph(graph, {}, std::filesystem::path(kept) / (stem + ".onnx"));
        write_values(leaves, expected, std::filesystem::path(kept) / (stem + ".values"));
      }
      // The importer has no exclusive or of values that are not known, and takes an axis of size 0 for an open one.
      const auto is_empty = [](const auto& leaf) { return leaf.second.type.element_count() == 0; };
      if (sample.op == "uniform" || std::ranges::any_of(leaves, is_empty)) continue;
      const ImportedModel imported = import_model(read_onnx_file(path), {.mode = ImportMode::as_exported});
      const Graph& again = imported.graph;
      for (const auto& [name, tensor] : imported.weights) leaves[name] = tensor;
      for (const Node& node : again.nodes())  // every floating type of a file is f32
        if (node.op->name == "input") {
          Tensor& leaf = leaves.at(node.attributes.text("name"));
          if (leaf.type.dtype != node.results[0].dtype) leaf = leaf.cast(node.results[0].dtype);
        }
      const InterpretResult found = interpret(again, leaves);
      ASSERT_EQ(found.outputs.size(), expected.outputs.size());
      const double tolerance = text.find("bf16") != std::string::npos  ? 1.6e-2
                               : text.find("f16") != std::string::npos ? 2e-3
                                                                       : 2e-6;
      for (const auto& [name, value] : expected.outputs)
        expect_near(found.outputs.at(name).values, value.values, tolerance);
    }
}

constexpr const char* kNetwork = R"(
graph network {
  %0 = input() {name="images"} : f32[4,2,9,9]
  %1 = parameter() {name="c1.weight", permutation=[0,2,3,1]} : f32[4,3,3,1]
  %2 = parameter() {name="c1.bias"} : f32[4]
  %3 = transpose(%0) {permutation=[0,2,3,1]} @"conv1"
  %4 = convolution(%3, %1) {pads_begin=[1,1], pads_end=[1,1], strides=[2,2], groups=2} @"conv1"
  %5 = reshape(%2) {shape=[1,1,1,4]} @"conv1"
  %6 = broadcast(%5) {shape=[4,5,5,4]} @"conv1"
  %7 = add(%4, %6) @"conv1"
  %9 = relu(%7) @"relu1"
  %11, %12 = max_pool(%9) {window=[2,2], strides=[2,2]} @"pool1"
  %14 = reshape(%11) {shape=[4,16]} @"flatten"
  %15 = parameter() {name="fc.weight"} : f32[3,16]
  %16 = matmul(%14, %15) {transpose_b=1} @"fc"
  output "logits" = %16
})";

struct StepCase {
  std::string name;
  TrainingPipelineOptions options;
  double tolerance;
};

std::vector<StepCase> step_cases() {
  TrainingPipelineOptions plain;
  plain.optimizer.scaling.mode = LossScaleMode::none;
  plain.autocast.low.reset();
  TrainingPipelineOptions adamw = plain;
  adamw.optimizer.name = "adamw";
  adamw.optimizer.weight_decay = 0.1;
  adamw.optimizer.no_decay = {"vectors"};
  adamw.optimizer.clip_norm = 0.5;
  TrainingPipelineOptions mixed;
  mixed.autocast.low = DType::f16;
  mixed.optimizer.parameters["momentum"] = 0.9;
  mixed.optimizer.scaling.initial = 256;  // the importer's f16 is f32, and overflows elsewhere
  TrainingPipelineOptions overflowing = mixed;
  overflowing.autocast.low.reset();
  overflowing.optimizer.scaling.initial = 3e38;
  TrainingPipelineOptions lamb = adamw, muon = adamw, adafactor = adamw;
  lamb.optimizer.name = "lamb", lamb.optimizer.ema = 0.5;
  muon.optimizer.name = "muon", muon.optimizer.clip_adaptive = 0.1;
  adafactor.optimizer.name = "adafactor";
  return {{"lamb", lamb, 1e-5},           {"muon", muon, 1e-5},
          {"adafactor", adafactor, 1e-5}, {"overflowing", overflowing, 1e-6},
          {"plain", plain, 1e-6},         {"adamw", adamw, 1e-5},
          {"mixed", mixed, 4e-3}};
}

void PrintTo(const StepCase& c, std::ostream* out) { *out << c.name; }

class TrainingGraphSteps : public testing::TestWithParam<StepCase> {};

// Each step's states become the next one's initial values: the file as an engine without our names would use it.
TEST_P(TrainingGraphSteps, ComputeWhatOursDo) {
  TrainingPipelineOptions options = GetParam().options;
  const Graph model = parse_graph(kNetwork);
  options.stop_after = std::string(kBeforeFusion);
  const PipelineResult ours = run_training_pipeline(model, options);
  options.arenas = TrainingPipelineOptions::taken_apart;
  const Graph step = *run_training_pipeline(model, options).find("train");
  NamedTensors inputs = random_leaves(step, 3, -0.5, 0.5);
  NamedTensors states = ours.initial_states;
  for (const Node& node : step.nodes())
    if (node.op->name == "state") {
      const Name name = leaf_name(node);
      if (name.is(Role::model)) states.emplace(name, inputs.at(name));
      states.emplace(name, Tensor(node.results[0]));
      inputs.erase(name);
    }
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "step.onnx";
  for (int iteration = 0; iteration < 4; ++iteration) {
    inputs[kStepLearningRate] = Tensor::scalar(DType::f32, 0.1);
    NamedTensors leaves = states;
    for (const auto& [name, tensor] : inputs) leaves[name] = tensor;
    const InterpretResult expected = interpret(step, leaves);
    export_training_graph(step, states, path);
    const ImportedModel imported = import_model(read_onnx_file(path), {.mode = ImportMode::as_exported});
    NamedTensors again = named(imported.weights);
    for (const Node& node : imported.graph.nodes())
      if (node.op->name == "input") {
        const std::string& name = node.attributes.text("name");
        const std::string_view step = "step.";
        const bool told = name.starts_with(step);
        again[name] = inputs.at(told ? Name(Role::step_input, name.substr(step.size())) : Name(name));
      }
    const InterpretResult found = interpret(imported.graph, again);
    for (const auto& [name, value] : expected.outputs) {
      SCOPED_TRACE(to_string(name));
      expect_near(found.outputs.at(name.text).values, value.values, GetParam().tolerance);
    }
    for (const auto& [name, value] : expected.updates) {
      SCOPED_TRACE(to_string(name));
      expect_near(found.outputs.at(name.text + "_out").values, value.values, GetParam().tolerance);
      states[name] = Tensor::from_values(value.type, value.values);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, TrainingGraphSteps, testing::ValuesIn(step_cases()),
                         [](const auto& c) { return c.param.name; });

TEST(TrainingGraph, OurNamesGiveWayToTheModels) {
  Builder b("step");
  const Value x = b.input("step.seed", {DType::f32, {2}}), seed = b.input(kStepSeed, {DType::f32, {2}});
  const Value state = b.state("w", {DType::f32, {2}}), other = b.state("w_out", {DType::f32, {2}});
  const Value slot = b.state(kMomentumArena, {DType::f32, {2}}), weight = b.state("momentum", {DType::f32, {2}});
  b.update(state, b.add(state, b.add(b.add(x, seed), other)));
  b.update(slot, b.add(slot, weight));
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "step.onnx";
  export_training_graph(std::move(b).finish(), {}, path);
  const ImportedModel imported = import_model(read_onnx_file(path), {.mode = ImportMode::as_exported});
  for (const char* name : {"step.seed", "step.seed_", "w", "w_out", "momentum", "momentum_"})
    EXPECT_TRUE(imported.graph.leaf(name)) << name;
  for (const char* name : {"w_out_", "momentum__out"}) EXPECT_TRUE(imported.graph.output(name)) << name;
}

TEST(TrainingGraph, ANameThatTheModelHasTwiceIsRefused) {
  Builder b("step");
  b.output("x", b.unary("neg", b.input("x", {DType::f32, {2}})));
  const TemporaryDirectory directory;
  try {
    export_training_graph(std::move(b).finish(), {}, directory.path() / "step.onnx");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("output 'x' of the training graph has the name of another value"));
  }
}

}  // namespace
}  // namespace halfstep::test
