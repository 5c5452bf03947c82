// Optimizers and loss scale against what PyTorch recorded (models/record_references.py), through the interpreter.
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/philox.h"
#include "passes/attach_loss.h"
#include "tests/passes/stepper.h"

namespace halfstep {
namespace {

using nlohmann::json;

json reference(const std::string& name) {
  return json::parse(read_file(std::string(HALFSTEP_SOURCE_DIR) + "/tests/references/" + name + ".json"));
}

uint32_t crc32(const std::string& text) {
  uint32_t crc = ~0u;
  for (unsigned char c : text) {
    crc ^= c;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

// As philox.tensor of models/philox.py: every operation rounded to f32.
Tensor recorded_tensor(const std::string& name, const json& entry) {
  Tensor t(TensorType{DType::f32, entry.at("shape").get<Shape>()});
  const float low = entry.at("low"), high = entry.at("high");
  for (int64_t i = 0; i < t.type.element_count(); ++i)
    t.as<float>()[static_cast<size_t>(i)] =
        low + (high - low) * philox_uniform(crc32(name), 0, 0, static_cast<uint64_t>(i));
  return t;
}

constexpr const char* kLinear = R"(
graph linear {
  %x = input() {name="x"} : f32[8,6]
  %w = parameter() {name="weight"} : f32[4,6]
  %b = parameter() {name="bias"} : f32[4]
  %0 = matmul(%x, %w) {transpose_b=1}
  %1 = reshape(%b) {shape=[1,4]}
  %2 = broadcast(%1) {shape=[8,4]}
  %3 = add(%0, %2)
  output "logits" = %3
})";

OptimizerOptions options_of(const json& trajectory) {
  const json& o = trajectory.at("options");
  OptimizerOptions options;
  const std::string kind = trajectory.at("optimizer");
  options.kind = kind == "SGD" ? OptimizerKind::sgd : kind == "Adam" ? OptimizerKind::adam : OptimizerKind::adamw;
  options.momentum = o.value("momentum", 0.0);
  options.dampening = o.value("dampening", 0.0);
  options.weight_decay = o.value("weight_decay", 0.0);
  options.epsilon = o.value("eps", 1e-8);
  if (o.contains("betas")) options.beta1 = o["betas"][0], options.beta2 = o["betas"][1];
  if (o.value("nesterov", false)) options.acceleration = OptimizerOptions::nesterov;
  if (!trajectory.at("clip").is_null()) options.clip_norm = trajectory.at("clip").get<double>();
  return options;
}

TEST(TorchReference, TwentyStepsOfEveryOptimizer) {
  const json recorded = reference("sgd_adam");
  const json& tensors = recorded.at("tensors");
  const std::vector<double> labels = recorded.at("labels");
  for (const auto& [name, trajectory] : recorded.at("trajectories").items()) {
    SCOPED_TRACE(name);
    const OptimizerOptions options = options_of(trajectory);
    const StepGraphs graphs = training_step(attach_loss(parse_graph(kLinear), {}), options);
    Tensor arena(TensorType{DType::f32, {graphs.layout.size}});
    for (const ArenaSlice& slice : graphs.layout.slices) {
      const Tensor values = recorded_tensor("linear." + slice.name, tensors.at("linear." + slice.name));
      for (int64_t i = 0; i < slice.size(); ++i) arena.set(slice.offset + i, values.at(i));
    }
    NamedTensors initial = initial_states(options);
    initial.emplace("parameters", arena);
    Stepper stepper(graphs.train, initial);
    const NamedTensors batch{
        {"x", recorded_tensor("linear.x", tensors.at("linear.x"))},
        {"labels", Tensor::from_values({DType::i64, {8}}, labels)},
        {"step.learning_rate", Tensor::scalar(DType::f32, trajectory.at("options").at("lr").get<double>())}};
    const std::vector<double> losses = trajectory.at("losses");
    for (size_t step = 1; step <= losses.size(); ++step) {
      EXPECT_NEAR(stepper.step(batch).at("loss"), losses[step - 1], 1e-5 * losses[step - 1]) << "step " << step;
      const auto parameters = trajectory.at("parameters").find(std::to_string(step));
      if (parameters == trajectory.at("parameters").end()) continue;
      for (const ArenaSlice& slice : graphs.layout.slices) {
        const std::vector<double> expected = parameters->at(slice.name);
        ASSERT_EQ(static_cast<int64_t>(expected.size()), slice.size());
        for (int64_t i = 0; i < slice.size(); ++i)
          EXPECT_NEAR(stepper.at("parameters", slice.offset + i), expected[static_cast<size_t>(i)], 2e-6)
              << slice.name << "[" << i << "] after step " << step;
      }
    }
  }
}

// The recorded model: one weight, gradient 1 or infinity, learning rate 1.
TEST(TorchReference, EveryLossScaleTrace) {
  const Graph forward = parse_graph(R"(
    graph one {
      %g = input() {name="g"} : f32[]
      %w = parameter() {name="w"} : f32[]
      %0 = mul(%w, %g)
      output "loss" = %0
    })");
  const json recorded = reference("grad_scaler");
  for (const auto& [name, trace] : recorded.at("traces").items()) {
    SCOPED_TRACE(name);
    const json& o = trace.at("options");
    OptimizerOptions options;
    options.scaling = {.mode = LossScaleMode::dynamic,
                       .initial = o.at("scale"),
                       .growth = o.at("growth_factor"),
                       .backoff = o.at("backoff_factor"),
                       .interval = o.at("growth_interval"),
                       .floor = 0};
    const StepGraphs graphs = training_step(forward, options);
    Stepper stepper(graphs.train, initial_states(options));
    const std::set<size_t> overflows = trace.at("overflows");
    for (size_t step = 0; step < trace.at("steps").size(); ++step) {
      const double g = overflows.contains(step) ? std::numeric_limits<double>::infinity() : 1;
      stepper.step({{"g", Tensor::scalar(DType::f32, g)}, {"step.learning_rate", Tensor::scalar(DType::f32, 1)}});
      const json& expected = trace.at("steps")[step];
      EXPECT_EQ(stepper.at("loss_scale.scale"), expected.at("scale").get<double>()) << "step " << step;
      EXPECT_EQ(stepper.at("loss_scale.tracker"), expected.at("tracker").get<double>()) << "step " << step;
      EXPECT_EQ(stepper.at("parameters"), expected.at("weight").get<double>()) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace halfstep
