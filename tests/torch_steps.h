// Optimizers and loss scale against what PyTorch recorded (models/record_references.py), for a step however it is run.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>

#include "ir/text.h"
#include "passes/model/attach_loss.h"
#include "passes/training/add_update.h"
#include "tests/recorded.h"

namespace halfstep {

// A training step of some graph, interpreted or compiled.
class TrainingStep {
 public:
  virtual ~TrainingStep() = default;
  virtual std::map<Name, double> run(const NamedTensors& inputs) = 0;  // a step; its measures
  double loss(const NamedTensors& inputs) { return run(inputs).at(kLoss); }
  virtual FileTensors parameters() = 0;  // in the layout of the file
  virtual FileTensors average() = 0;     // of the parameters: slot "ema"
  virtual double scalar_state(const Name& name) = 0;
};

using MakeTrainingStep = std::function<std::unique_ptr<TrainingStep>(
    const Graph& model, const LossOptions& loss, const OptimizerOptions& optimizer, const FileTensors& parameters)>;

inline OptimizerOptions recorded_optimizer(const nlohmann::json& trajectory) {
  const nlohmann::json& o = trajectory.at("options");
  OptimizerOptions options;
  const std::string kind = trajectory.at("optimizer");
  options.name = kind == "SGD" ? "sgd" : kind == "Adam" ? "adam" : "adamw";
  for (const char* parameter : {"momentum", "dampening"}) options.parameters[parameter] = o.value(parameter, 0.0);
  options.parameters["nesterov"] = o.value("nesterov", false);
  options.parameters["epsilon"] = o.value("eps", 1e-8);
  options.weight_decay = o.value("weight_decay", 0.0);
  if (o.contains("betas")) options.parameters["beta1"] = o["betas"][0], options.parameters["beta2"] = o["betas"][1];
  if (!trajectory.at("clip").is_null()) options.clip_norm = trajectory.at("clip").get<double>();
  return options;
}

// Softmax cross-entropy over one linear layer, twenty steps.
inline void expect_recorded_trajectories(const MakeTrainingStep& make_step) {
  const Graph model = parse_graph(R"(
    graph linear {
      %x = input() {name="x"} : f32[8,6]
      %w = parameter() {name="weight"} : f32[4,6]
      %b = parameter() {name="bias"} : f32[4]
      %0 = matmul(%x, %w) {transpose_b=1}
      %1 = reshape(%b) {shape=[1,4]}
      %2 = broadcast(%1) {shape=[8,4]}
      %3 = add(%0, %2)
      output "logits" = %3
    })");
  const nlohmann::json reference = recorded("sgd_adam");
  const auto tensor = [&](const std::string& name) {
    return recorded_tensor("linear." + name, reference.at("tensors").at("linear." + name));
  };
  const std::vector<double> labels = reference.at("labels");
  for (const auto& [name, trajectory] : reference.at("trajectories").items()) {
    SCOPED_TRACE(name);
    const std::unique_ptr<TrainingStep> step =
        make_step(model, {}, recorded_optimizer(trajectory), {{"weight", tensor("weight")}, {"bias", tensor("bias")}});
    const NamedTensors batch{
        {"x", tensor("x")},
        {"labels", Tensor::from_values({DType::i64, {8}}, labels)},
        {kStepLearningRate, Tensor::scalar(DType::f32, trajectory.at("options").at("lr").get<double>())}};
    const std::vector<double> losses = trajectory.at("losses");
    for (size_t i = 1; i <= losses.size(); ++i) {
      EXPECT_NEAR(step->loss(batch), losses[i - 1], 1e-5 * losses[i - 1]) << "step " << i;
      const auto snapshot = trajectory.at("parameters").find(std::to_string(i));
      if (snapshot == trajectory.at("parameters").end()) continue;
      for (const auto& [parameter, found] : step->parameters()) {
        const std::vector<double> expected = snapshot->at(parameter);
        ASSERT_EQ(static_cast<int64_t>(expected.size()), found.type.element_count());
        for (size_t k = 0; k < expected.size(); ++k)
          EXPECT_NEAR(found.at(static_cast<int64_t>(k)), expected[k], 2e-6)
              << parameter << "[" << k << "] after step " << i;
      }
    }
  }
}

inline OptimizerOptions recorded_row(const nlohmann::json& trajectory) {
  OptimizerOptions options;
  options.name = trajectory.at("optimizer");
  for (const auto& [key, value] : trajectory.at("parameters").items()) options.parameters[key] = value.get<double>();
  options.weight_decay = trajectory.at("weight_decay");
  options.no_decay = trajectory.value("no_decay", std::vector<std::string>());
  if (trajectory.contains("clip_value")) options.clip_value = trajectory["clip_value"].get<double>();
  if (trajectory.contains("clip_adaptive")) options.clip_adaptive = trajectory["clip_adaptive"].get<double>();
  if (trajectory.contains("ema")) options.ema = trajectory["ema"].get<double>();
  return options;
}

// Twenty steps of models/record_optimizers.py: gradients that do not depend on the weights, of two matrices, a filter
// that is stored in another layout than its file has, and a vector.
inline void expect_recorded_optimizers(const MakeTrainingStep& make_step, double tolerance) {
  const Graph model = parse_graph(R"(
    graph weighted {
      %gw = input() {name="g.wide"} : f32[4,6]
      %gt = input() {name="g.tall"} : f32[7,3]
      %gf = input() {name="g.filter"} : f32[3,2,3,2]
      %gv = input() {name="g.vector"} : f32[5]
      %w = parameter() {name="wide"} : f32[4,6]
      %t = parameter() {name="tall"} : f32[7,3]
      %f = parameter() {name="filter", permutation=[0,2,3,1]} : f32[3,3,2,2]
      %v = parameter() {name="vector"} : f32[5]
      %gs = transpose(%gf) {permutation=[0,2,3,1]}
      %0 = mul(%w, %gw)
      %1 = mul(%t, %gt)
      %2 = mul(%f, %gs)
      %3 = mul(%v, %gv)
      %4 = reduce_sum(%0) {axes=[0,1]}
      %5 = reduce_sum(%1) {axes=[0,1]}
      %6 = reduce_sum(%2) {axes=[0,1,2,3]}
      %7 = reduce_sum(%3) {axes=[0]}
      %8 = reshape(%4) {shape=[]}
      %9 = reshape(%5) {shape=[]}
      %10 = reshape(%6) {shape=[]}
      %11 = reshape(%7) {shape=[]}
      %12 = add(%8, %9)
      %13 = add(%10, %11)
      %14 = add(%12, %13)
      output "sum" = %14
    })");
  const nlohmann::json reference = recorded("optimizers");
  const auto tensor = [&](const std::string& name, const nlohmann::json& shape, float high) {
    return recorded_tensor(name, {{"shape", shape}, {"low", -high}, {"high", high}});
  };
  FileTensors initial;
  for (const auto& [name, shape] : reference.at("shapes").items())
    initial.emplace(name, tensor("weight." + name, shape, 1));
  for (const auto& [name, trajectory] : reference.at("trajectories").items()) {
    SCOPED_TRACE(name);
    double farthest = 0;
    OptimizerOptions options = recorded_row(trajectory);
    options.scaling = {.initial = 64, .interval = 4};
    LossOptions loss;
    loss.kind = "from_graph", loss.output = "sum";
    const std::unique_ptr<TrainingStep> step = make_step(model, loss, options, initial);
    const auto compare = [&](const nlohmann::json& expected, const FileTensors& found) {
      ASSERT_EQ(found.size(), expected.size());
      for (const auto& [parameter, value] : found) {
        const std::vector<double> wanted = expected.at(parameter);
        ASSERT_EQ(static_cast<int64_t>(wanted.size()), value.type.element_count());
        for (size_t k = 0; k < wanted.size(); ++k) {
          const double distance = std::abs(value.at(static_cast<int64_t>(k)) - wanted[k]);
          farthest = std::max(farthest, distance);
          EXPECT_LE(distance, tolerance) << parameter << "[" << k << "]";
        }
      }
    };
    for (int i = 1; i <= 20; ++i) {
      NamedTensors batch{{kStepLearningRate, Tensor::scalar(DType::f32, trajectory.at("learning_rate").get<double>())}};
      for (const auto& [parameter, shape] : reference.at("shapes").items())
        batch.emplace("g." + parameter,
                      tensor("gradient." + parameter + "." + std::to_string(i), shape, i % 3 == 0 ? 2.0f : 0.5f));
      step->run(batch);
      SCOPED_TRACE("step " + std::to_string(i));
      if (const auto after = trajectory.at("after").find(std::to_string(i)); after != trajectory.at("after").end())
        compare(*after, step->parameters());
    }
    if (trajectory.contains("average")) compare(trajectory.at("average"), step->average());
    if (std::getenv("HALFSTEP_DEVIATIONS")) std::printf("%-24s %.1e\n", name.c_str(), farthest);
  }
}

// Three weighted losses over two outputs, ten steps.
inline void expect_recorded_several_losses(const MakeTrainingStep& make_step) {
  const Graph model = parse_graph(R"(
    graph two_outputs {
      %x = input() {name="x"} : f32[8,6]
      %t = parameter() {name="trunk"} : f32[5,6]
      %c = parameter() {name="class"} : f32[4,5]
      %b = parameter() {name="box"} : f32[3,5]
      %0 = matmul(%x, %t) {transpose_b=1}
      %1 = tanh(%0)
      %2 = matmul(%1, %c) {transpose_b=1}
      %3 = matmul(%1, %b) {transpose_b=1}
      output "logits" = %2
      output "boxes" = %3
    })");
  const nlohmann::json reference = recorded("several_losses");
  const auto tensor = [&](const std::string& name) {
    return recorded_tensor("several." + name, reference.at("tensors").at(name));
  };
  const auto labels = [&](const char* name) {
    return Tensor::from_values({DType::i64, {8}}, reference.at(name).get<std::vector<double>>());
  };
  LossOptions loss;
  const std::vector<double> weights = reference.at("weights");
  loss.terms = {{.name = "", .weight = weights[0], .loss = {.output = "logits"}},
                {.name = "", .weight = weights[1], .loss = {.kind = "mean_squared_error", .output = "boxes"}},
                {.name = "soft", .weight = weights[2], .loss = {.output = "logits", .labels = "others"}}};
  loss.terms[0].loss.ignore_index = reference.at("ignore_index").get<int64_t>();
  loss.terms[2].loss.parameters["label_smoothing"] = {reference.at("label_smoothing").get<double>()};
  const double rate = reference.at("lr");
  const FileTensors initial{{"trunk", tensor("trunk")}, {"class", tensor("class")}, {"box", tensor("box")}};
  const std::unique_ptr<TrainingStep> step =
      make_step(model, loss, {.name = "sgd", .parameters = {{"momentum", 0}}, .scaling = {.initial = 1024}}, initial);
  const NamedTensors batch{{"x", tensor("x")},
                           {"targets", tensor("targets")},
                           {"labels", labels("labels")},
                           {"others", labels("others")},
                           {kStepLearningRate, Tensor::scalar(DType::f32, rate)}};
  for (size_t i = 0; i < reference.at("steps").size(); ++i) {
    SCOPED_TRACE(i);
    const nlohmann::json& expected = reference.at("steps")[i];
    const std::map<Name, double> found = step->run(batch);
    EXPECT_NEAR(found.at(kLoss), expected.at("loss").get<double>(), 2e-6);
    for (size_t k = 0; k < weights.size(); ++k)
      EXPECT_NEAR(found.at(of_loss(kLoss, k)), expected.at("losses")[k].get<double>(), 2e-6) << k;
    EXPECT_EQ(found.at(of_loss(kCounted, 0)), 6) << "two labels are ignored";
    if (i > 0) continue;
    for (const auto& [name, after] : step->parameters()) {
      const std::vector<double> gradient = reference.at("gradients").at(name);
      for (size_t k = 0; k < gradient.size(); ++k) {
        const auto at = static_cast<int64_t>(k);
        EXPECT_NEAR((initial.at(name).at(at) - after.at(at)) / rate, gradient[k], 2e-6) << name << "[" << k << "]";
      }
    }
  }
}

// One weight, gradient 1 or infinity, learning rate 1: the weight counts the applied steps downwards.
inline void expect_recorded_loss_scales(const MakeTrainingStep& make_step) {
  const Graph model = parse_graph(R"(
    graph one {
      %g = input() {name="g"} : f32[1]
      %w = parameter() {name="w"} : f32[1]
      %0 = mul(%w, %g)
      output "loss" = %0
    })");
  const auto one_value = [](double v) { return Tensor::from_values({DType::f32, {1}}, std::vector<double>{v}); };
  LossOptions from_graph;
  from_graph.kind = "from_graph";
  const nlohmann::json reference = recorded("grad_scaler");
  for (const auto& [name, trace] : reference.at("traces").items()) {
    SCOPED_TRACE(name);
    const nlohmann::json& o = trace.at("options");
    OptimizerOptions options;
    options.scaling = {.mode = LossScaleMode::dynamic,
                       .initial = o.at("scale"),
                       .growth = o.at("growth_factor"),
                       .backoff = o.at("backoff_factor"),
                       .interval = o.at("growth_interval"),
                       .floor = 0};
    const std::unique_ptr<TrainingStep> step = make_step(model, from_graph, options, {{"w", one_value(0)}});
    const std::set<size_t> overflows = trace.at("overflows");
    for (size_t i = 0; i < trace.at("steps").size(); ++i) {
      const double g = overflows.contains(i) ? std::numeric_limits<double>::infinity() : 1;
      step->loss({{"g", one_value(g)}, {kStepLearningRate, Tensor::scalar(DType::f32, 1)}});
      const nlohmann::json& expected = trace.at("steps")[i];
      EXPECT_EQ(step->scalar_state(kLossScaleState), expected.at("scale").get<double>()) << "step " << i;
      EXPECT_EQ(step->scalar_state(kLossScaleTracker), expected.at("tracker").get<double>()) << "step " << i;
      EXPECT_EQ(step->parameters().at("w").at(0), expected.at("weight").get<double>()) << "step " << i;
    }
  }
}

// Two losses of one weight with a scale each, against two of PyTorch's scalers: a step is skipped if any overflows,
// each scale moves by its own overflows.
inline void expect_recorded_scales_of_each(const MakeTrainingStep& make_step) {
  const Graph model = parse_graph(R"(
    graph two {
      %g = input() {name="g"} : f32[1]
      %h = input() {name="h"} : f32[1]
      %w = parameter() {name="w"} : f32[1]
      %0 = mul(%w, %g)
      %1 = mul(%w, %h)
      output "a" = %0
      output "b" = %1
    })");
  const auto one_value = [](double v) { return Tensor::from_values({DType::f32, {1}}, std::vector<double>{v}); };
  const nlohmann::json reference = recorded("loss_scales");
  const std::vector<double> weights = reference.at("weights");
  LossOptions loss;
  loss.terms = {{.name = "a", .weight = weights[0], .loss = {.kind = "from_graph", .output = "a"}},
                {.name = "b", .weight = weights[1], .loss = {.kind = "from_graph", .output = "b"}}};
  OptimizerOptions options;
  options.scaling = {.mode = LossScaleMode::dynamic,
                     .initial = reference.at("scale"),
                     .interval = reference.at("growth_interval"),
                     .floor = 0,
                     .losses = weights,
                     .scales = LossScaling::of_each};
  const std::unique_ptr<TrainingStep> step = make_step(model, loss, options, {{"w", one_value(0)}});
  for (size_t i = 0; i < reference.at("steps").size(); ++i) {
    SCOPED_TRACE(i);
    const nlohmann::json& expected = reference.at("steps")[i];
    const auto gradient = [&](size_t k) {
      return one_value(expected.at("overflows")[k].get<bool>() ? std::numeric_limits<double>::infinity() : 1);
    };
    const std::map<Name, double> found =
        step->run({{"g", gradient(0)}, {"h", gradient(1)}, {kStepLearningRate, Tensor::scalar(DType::f32, 1)}});
    EXPECT_EQ(step->parameters().at("w").at(0), expected.at("weight").get<double>());
    EXPECT_EQ(found.at(kOverflow) != 0,
              expected.at("overflows")[0].get<bool>() || expected.at("overflows")[1].get<bool>());
    for (size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(found.at(of_loss(kOverflow, k)) != 0, expected.at("overflows")[k].get<bool>()) << k;
      EXPECT_EQ(step->scalar_state(of_loss(kLossScaleState, k)), expected.at("scales")[k].get<double>()) << k;
      EXPECT_EQ(step->scalar_state(of_loss(kLossScaleTracker, k)), expected.at("trackers")[k].get<double>()) << k;
    }
  }
}

}  // namespace halfstep
