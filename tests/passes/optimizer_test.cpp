// Trajectories of the optimizers against loops in double that follow torch.optim line by line.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "passes/model/attach_loss.h"
#include "tests/passes/stepper.h"
#include "tests/slots.h"

namespace halfstep {
namespace {

// loss = sum(w * g): the gradient is the input g, whatever w is.
constexpr const char* kLinear = R"(
graph linear {
  %g = input() {name="g"} : f32[3]
  %w = parameter() {name="w"} : f32[3]
  %0 = mul(%w, %g)
  %1 = reduce_sum(%0) {axes=[0]}
  %2 = reshape(%1) {shape=[]}
  output measure "loss" = %2
})";

// The same in f16, as autocast types it.
constexpr const char* kMixed = R"(
graph mixed {
  %g = input() {name="g"} : f32[3]
  %w = parameter() {name="w"} : f32[3]
  %h = cast(%w) {to=f16}
  %x = cast(%h) {to=f32}
  %0 = mul(%x, %g)
  %1 = reduce_sum(%0) {axes=[0]}
  %2 = reshape(%1) {shape=[]}
  output measure "loss" = %2
})";

constexpr int kSteps = 20;
constexpr double kRate = 0.05;

// f16 holds them.
std::vector<double> gradient_at(int step) {
  const std::vector<double> g{std::sin(0.7 * step) * 2, std::cos(1.3 * step) - 0.3, 0.01 * (step % 5 - 2)};
  return Tensor::from_values({DType::f16, {3}}, g).values();
}

Tensor tensor_of(const std::vector<double>& values) {
  return Tensor::from_values({DType::f32, {static_cast<int64_t>(values.size())}}, values);
}

// One weight's optimizer in double.
using Reference =
    std::function<std::vector<double>(std::vector<double> weights, const std::vector<double>& g, int step)>;

struct Trajectory {
  const char* model = kLinear;
  double tolerance = 2e-6;
};

void expect_trajectory(const OptimizerOptions& options, const Reference& reference, const Trajectory& trajectory = {}) {
  const StepGraphs graphs = training_step(parse_graph(trajectory.model), options);
  std::vector<double> weights{1, -2, 0.5};
  Tensor arena(TensorType{DType::f32, {graphs.layout.size}});
  for (size_t i = 0; i < weights.size(); ++i) arena.set(static_cast<int64_t>(i), weights[i]);
  NamedTensors initial = initial_states(options);
  initial.emplace(kParameterArena, arena);
  Stepper stepper(graphs.train, initial);
  for (int step = 1; step <= kSteps; ++step) {
    const std::vector<double> g = gradient_at(step);
    stepper.step({{"g", tensor_of(g)}, {kStepLearningRate, Tensor::scalar(DType::f32, kRate)}});
    weights = reference(weights, g, step);
    for (size_t i = 0; i < weights.size(); ++i)
      ASSERT_NEAR(stepper.at(kParameterArena, static_cast<int64_t>(i)), weights[i], trajectory.tolerance)
          << "step " << step;
    if (const Name copy = arena_name(DType::f16); graphs.train.leaf(copy)) {
      EXPECT_EQ(stepper.state(copy), stepper.state(kParameterArena).cast(DType::f16));
    }
  }
}

LossScaling no_scaling() { return {.mode = LossScaleMode::none}; }

Reference sgd(double momentum, double dampening, double decay, bool nesterov) {
  return [=, buffer = std::vector<double>()](std::vector<double> w, std::vector<double> g, int step) mutable {
    for (size_t i = 0; i < w.size(); ++i) g[i] += decay * w[i];
    if (step == 1) {
      buffer = g;
    } else {
      for (size_t i = 0; i < w.size(); ++i) buffer[i] = momentum * buffer[i] + (1 - dampening) * g[i];
    }
    for (size_t i = 0; i < w.size(); ++i)
      w[i] -= kRate * (momentum == 0 ? g[i] : nesterov ? g[i] + momentum * buffer[i] : buffer[i]);
    return w;
  };
}

TEST(Optimizer, SgdFollowsTorch) {
  expect_trajectory({.scaling = no_scaling()}, sgd(0, 0, 0, false));
  expect_trajectory({.weight_decay = 0.1, .scaling = no_scaling()}, sgd(0, 0, 0.1, false));
}

TEST(Optimizer, MomentumFollowsTorch) {
  expect_trajectory({.parameters = {{"momentum", 0.9}}, .scaling = no_scaling()}, sgd(0.9, 0, 0, false));
  expect_trajectory(
      {.parameters = {{"momentum", 0.9}, {"dampening", 0.5}}, .weight_decay = 0.01, .scaling = no_scaling()},
      sgd(0.9, 0.5, 0.01, false));
}

TEST(Optimizer, NesterovFollowsTorch) {
  expect_trajectory({.parameters = {{"momentum", 0.8}, {"nesterov", 1}}, .weight_decay = 0.01, .scaling = no_scaling()},
                    sgd(0.8, 0, 0.01, true));
}

Reference adam(double coupled_decay, double decoupled_decay) {
  return [=, m = std::vector<double>(3), v = std::vector<double>(3)](std::vector<double> w, std::vector<double> g,
                                                                     int step) mutable {
    for (size_t i = 0; i < w.size(); ++i) {
      w[i] *= 1 - kRate * decoupled_decay;
      g[i] += coupled_decay * w[i];
      m[i] = 0.9 * m[i] + 0.1 * g[i];
      v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
      const double correction1 = 1 - std::pow(0.9, step), correction2 = 1 - std::pow(0.999, step);
      w[i] -= kRate / correction1 * m[i] / (std::sqrt(v[i]) / std::sqrt(correction2) + 1e-8);
    }
    return w;
  };
}

TEST(Optimizer, AdamFollowsTorch) {
  expect_trajectory({.name = "adam", .weight_decay = 0.1, .scaling = no_scaling()}, adam(0.1, 0));
}

TEST(Optimizer, AdamWFollowsTorch) {
  expect_trajectory({.name = "adamw", .weight_decay = 0.1, .scaling = no_scaling()}, adam(0, 0.1));
}

Reference rmsprop(double alpha, double momentum, bool centered, double decay) {
  return [=, v = std::vector<double>(3), mean = std::vector<double>(3), buffer = std::vector<double>(3)](
             std::vector<double> w, std::vector<double> g, int) mutable {
    for (size_t i = 0; i < w.size(); ++i) {
      g[i] += decay * w[i];
      v[i] = alpha * v[i] + (1 - alpha) * g[i] * g[i];
      mean[i] = alpha * mean[i] + (1 - alpha) * g[i];
      const double variance = centered ? v[i] - mean[i] * mean[i] : v[i];
      buffer[i] = momentum * buffer[i] + g[i] / (std::sqrt(variance) + 1e-8);
      w[i] -= kRate * buffer[i];
    }
    return w;
  };
}

TEST(Optimizer, RmspropFollowsTorch) {
  for (const double momentum : {0.0, 0.5})
    for (const bool centered : {false, true}) {
      const HyperParameters parameters{{"alpha", 0.9}, {"momentum", momentum}, {"centered", centered}};
      expect_trajectory({.name = "rmsprop", .parameters = parameters, .weight_decay = 0.01, .scaling = no_scaling()},
                        rmsprop(0.9, momentum, centered, 0.01), {.tolerance = 1e-6});
      expect_trajectory({.name = "rmsprop",
                         .parameters = parameters,
                         .weight_decay = 0.01,
                         .scaling = {.initial = 64, .interval = 4}},
                        rmsprop(0.9, momentum, centered, 0.01), {.model = kMixed, .tolerance = 1e-6});
    }
}

Reference adagrad(double rate_decay) {
  return [=, sum = std::vector<double>(3)](std::vector<double> w, std::vector<double> g, int step) mutable {
    for (size_t i = 0; i < w.size(); ++i) {
      g[i] += 0.01 * w[i];
      sum[i] += g[i] * g[i];
      w[i] -= kRate / (1 + (step - 1) * rate_decay) * g[i] / (std::sqrt(sum[i]) + 1e-10);
    }
    return w;
  };
}

TEST(Optimizer, AdagradFollowsTorch) {
  for (const double rate_decay : {0.0, 0.25})
    expect_trajectory(
        {.name = "adagrad", .parameters = {{"rate_decay", rate_decay}}, .weight_decay = 0.01, .scaling = no_scaling()},
        adagrad(rate_decay));
}

// onnx.reference's _apply_adam.
Reference onnx_adam(int first_count) {
  return [=, v = std::vector<double>(3), h = std::vector<double>(3)](std::vector<double> w, std::vector<double> g,
                                                                     int step) mutable {
    const int t = first_count + step - 1;
    const double rate = t > 0 ? kRate * std::sqrt(1 - std::pow(0.999, t)) / (1 - std::pow(0.9, t)) : kRate;
    for (size_t i = 0; i < w.size(); ++i) {
      g[i] += 0.01 * w[i];
      v[i] = 0.9 * v[i] + 0.1 * g[i];
      h[i] = 0.999 * h[i] + 0.001 * g[i] * g[i];
      w[i] -= rate * v[i] / (std::sqrt(h[i]) + 1e-3);
    }
    return w;
  };
}

TEST(Optimizer, OnnxAdamFollowsOnnx) {
  for (const int first_count : {0, 1})
    expect_trajectory({.name = "onnx_adam",
                       .parameters = {{"epsilon", 1e-3}, {"first_count", first_count}},
                       .weight_decay = 0.01,
                       .scaling = no_scaling()},
                      onnx_adam(first_count));
}

TEST(Optimizer, ALossScaleChangesNothingButTheScale) {
  expect_trajectory({.name = "adamw", .weight_decay = 0.1, .scaling = {.interval = 4}}, adam(0, 0.1));
}

TEST(Optimizer, ClippingFollowsTorch) {
  const Reference plain = sgd(0, 0, 0, false);
  expect_trajectory({.clip_norm = 0.5, .scaling = {.interval = 3}},
                    [=](std::vector<double> w, std::vector<double> g, int step) {
                      double square = 0;
                      for (double x : g) square += x * x;
                      const double factor = std::min(1.0, 0.5 / (std::sqrt(square) + 1e-6));
                      for (double& x : g) x *= factor;
                      return plain(w, g, step);
                    });
}

// ----- loss scale -----

OptimizerOptions everything_on() {
  return {.name = "adamw", .weight_decay = 0.01, .clip_norm = 1.0, .scaling = {.interval = 5}};
}

TEST(LossScale, FollowsTheRecordedTrace) {
  const OptimizerOptions options = everything_on();
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  Stepper stepper(graphs.train, initial_states(options));
  const std::set<int> overflows{3, 4, 11, 19, 20, 21, 33};
  std::vector<double> expected;
  for (auto [scale, count] : {std::pair(65536, 3),
                              {32768, 1},
                              {16384, 5},
                              {32768, 2},
                              {16384, 5},
                              {32768, 3},
                              {16384, 1},
                              {8192, 1},
                              {4096, 5},
                              {8192, 5},
                              {16384, 2},
                              {8192, 5},
                              {16384, 2}})
    expected.insert(expected.end(), static_cast<size_t>(count), scale);
  ASSERT_EQ(expected.size(), 40u);
  double used = 65536;
  int tracker = 0;
  for (int step = 0; step < 40; ++step) {
    const bool overflow = overflows.contains(step);
    const double bad = step % 2 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    const auto outputs = stepper.step({{"g", vector_of({1, overflow ? bad : 2, 3})}});
    EXPECT_EQ(outputs.at(kOverflow), overflow ? 1 : 0);
    EXPECT_EQ(outputs.at(kUsedLossScale), used) << "the scale used in step " << step;
    used = stepper.at(kLossScaleState);
    EXPECT_EQ(used, expected[static_cast<size_t>(step)]) << "after step " << step;
    tracker = overflow || tracker + 1 == 5 ? 0 : tracker + 1;
    EXPECT_EQ(stepper.at(kLossScaleTracker), tracker) << "after step " << step;
  }
}

// As after an interval was made shorter between two runs.
TEST(LossScale, ATrackerBeyondTheIntervalGrowsTheScaleAtOnce) {
  const OptimizerOptions options = everything_on();
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  NamedTensors initial = initial_states(options);
  initial[kLossScaleTracker] = Tensor::scalar(DType::i32, 1500);
  Stepper stepper(graphs.train, initial);
  stepper.step({{"g", vector_of({1, 2, 3})}});
  EXPECT_EQ(stepper.at(kLossScaleState), 131072);
  EXPECT_EQ(stepper.at(kLossScaleTracker), 0);
}

TEST(LossScale, AnOverflowLeavesEverythingElseBitIdentical) {
  OptimizerOptions options = everything_on();
  options.scaling.initial = 1024;
  const Graph forward = parse_graph(R"(
    graph model {
      %g = input() {name="g"} : f32[3]
      %w = parameter() {name="w"} : f32[3]
      %m = state() {name="running_mean"} : f32[3]
      %h = cast(%w) {to=f16}
      %x = cast(%h) {to=f32}
      %0 = mul(%x, %g)
      %1 = reduce_sum(%0) {axes=[0]}
      %2 = reshape(%1) {shape=[]}
      output measure "loss" = %2
      update %m = %g
    })");
  const StepGraphs graphs = training_step(forward, options);
  Stepper stepper(graphs.train, initial_states(options));
  const Tensor rate = Tensor::scalar(DType::f32, 0.1);
  for (int i = 0; i < 3; ++i) stepper.step({{"g", vector_of({1, 2, 3})}, {kStepLearningRate, rate}});
  NamedTensors before = stepper.states();
  EXPECT_EQ(before.at(kAdamStep).at(0), 3);
  EXPECT_EQ(before.at("running_mean").at(1), 2);
  EXPECT_NE(before.at(Name(Role::slot, "parameters.f16")).at(0), 0);
  const auto outputs =
      stepper.step({{"g", vector_of({4, -std::numeric_limits<double>::infinity(), 6})}, {kStepLearningRate, rate}});
  EXPECT_EQ(outputs.at(kOverflow), 1);
  EXPECT_EQ(stepper.at(kLossScaleState), 512);
  EXPECT_EQ(stepper.at(kLossScaleTracker), 0);
  NamedTensors after = stepper.states();
  for (const OwnName& moved : {kLossScaleState, kLossScaleTracker}) before.erase(moved), after.erase(moved);
  EXPECT_EQ(before, after);
}

TEST(LossScale, DoesNotFallBelowItsFloor) {
  OptimizerOptions options;
  options.scaling = {.initial = 8, .floor = 4};
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  Stepper stepper(graphs.train, initial_states(options));
  const Tensor bad = vector_of({1, std::numeric_limits<double>::quiet_NaN(), 3});
  for (int i = 0; i < 3; ++i) stepper.step({{"g", bad}});
  EXPECT_EQ(stepper.at(kLossScaleState), 4);
}

TEST(LossScale, DoesNotGrowToInfinity) {
  OptimizerOptions options;
  options.scaling = {.initial = std::ldexp(1.0, 127), .interval = 1};
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  Stepper stepper(graphs.train, initial_states(options));
  stepper.step({{"g", vector_of({0, 0, 0})}});
  EXPECT_EQ(stepper.at(kLossScaleState), std::ldexp(1.0, 127));
}

TEST(LossScale, GoesOnFromAnyTracker) {
  OptimizerOptions options;
  options.scaling = {.initial = 8, .interval = 5};
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  const auto after = [&](int32_t tracker) {
    NamedTensors states = initial_states(options);
    states[kLossScaleTracker] = Tensor::scalar(DType::i32, tracker);
    Stepper stepper(graphs.train, states);
    stepper.step({{"g", vector_of({0, 0, 0})}});
    return std::pair(stepper.at(kLossScaleState), stepper.at(kLossScaleTracker));
  };
  EXPECT_EQ(after(3), std::pair(8.0, 4.0));
  EXPECT_EQ(after(4), std::pair(16.0, 0.0));
  EXPECT_EQ(after(std::numeric_limits<int32_t>::max()), std::pair(16.0, 0.0));
  EXPECT_EQ(after(std::numeric_limits<int32_t>::min()), std::pair(8.0, 1.0));
}

// A cotangent of about 1e-9 passes through f16: without a scale it is zero.
constexpr const char* kUnderflowing = R"(
graph underflowing {
  %x = input() {name="x"} : f16[1,1]
  %w = parameter() {name="w"} : f32[1,1]
  %c = constant() {value=f32[1,1](1e-9)}
  %t = constant() {value=f32[1,1](1)}
  %h = cast(%w) {to=f16}
  %0 = matmul(%x, %h)
  %1 = cast(%0) {to=f32}
  %2 = sub(%1, %t)
  %3 = mul(%2, %2)
  %4 = mul(%3, %c)
  %5 = reshape(%4) {shape=[]}
  output measure "loss" = %5
})";

double weight_after_training(const LossScaling& scaling) {
  OptimizerOptions options;
  options.scaling = scaling;
  const StepGraphs graphs = training_step(parse_graph(kUnderflowing), options);
  Stepper stepper(graphs.train, initial_states(options));
  const Tensor x = Tensor::from_values({DType::f16, {1, 1}}, std::vector<double>{1});
  for (int i = 0; i < 20; ++i) stepper.step({{"x", x}, {kStepLearningRate, Tensor::scalar(DType::f32, 1e8)}});
  return stepper.at(kParameterArena);
}

TEST(LossScale, AModelThatUnderflowsTrainsOnlyWithIt) {
  EXPECT_EQ(weight_after_training({.mode = LossScaleMode::fixed, .initial = 1}), 0);
  EXPECT_NEAR(weight_after_training({.mode = LossScaleMode::dynamic}), 1, 0.05);
}

// ----- accumulation -----

TEST(Accumulation, FourBatchesMakeOneStepOfTheirMean) {
  OptimizerOptions options{.parameters = {{"momentum", 0.9}}, .scaling = {.interval = 2}, .accumulation = 4};
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  Stepper accumulated(graphs.train, initial_states(options));
  options.accumulation = 1;
  const StepGraphs plain_graphs = training_step(parse_graph(kLinear), options);
  Stepper plain(plain_graphs.train, initial_states(options));
  const Tensor rate = Tensor::scalar(DType::f32, 0.125);
  for (int step = 0; step < 3; ++step) {
    for (double batch : {1, 2, 3})
      accumulated.step({{"g", vector_of({batch, 2 * batch, 0})}, {kStepLearningRate, rate}}, &graphs.accumulate);
    accumulated.step({{"g", vector_of({6, 12, 8})}, {kStepLearningRate, rate}});
    plain.step({{"g", vector_of({3, 6, 2})}, {kStepLearningRate, rate}});
    EXPECT_EQ(accumulated.state(kParameterArena), plain.state(kParameterArena));
    EXPECT_EQ(accumulated.state(kLossScaleState), plain.state(kLossScaleState));
    EXPECT_EQ(accumulated.at(kGradientArena, 0), 0);
  }
}

// Logits of `rows` samples, some labels of which do not count.
Graph classifier(int64_t rows, const LossParameters& parameters) {
  const std::string n = std::to_string(rows);
  LossOptions options;
  options.ignore_index = -1;
  options.parameters = parameters;
  return attach_loss(parse_graph("graph model {\n  %x = input() {name=\"x\"} : f32[" + n +
                                 ",2]\n  %w = parameter() {name=\"w\"} : f32[3,2]\n"
                                 "  %y = matmul(%x, %w) {transpose_b=1}\n  output \"y\" = %y\n}\n"),
                     options);
}

void expect_one_batch_of_all(const LossParameters& parameters) {
  OptimizerOptions options{.parameters = {{"momentum", 0.9}},
                           .clip_norm = 0.25,
                           .scaling = {.initial = 8, .interval = 2},
                           .accumulation = 2};
  const StepGraphs graphs = training_step(classifier(2, parameters), options);
  Stepper accumulated(graphs.train, initial_states(options));
  options.accumulation = 1;
  const StepGraphs whole_graphs = training_step(classifier(4, parameters), options);
  Stepper whole(whole_graphs.train, initial_states(options));
  const auto tensor = [](DType dtype, const Shape& shape, const std::vector<double>& values) {
    return Tensor::from_values({dtype, shape}, values);
  };
  const Tensor rate = Tensor::scalar(DType::f32, 0.5);
  for (const std::vector<double>& labels : {std::vector<double>{0, -1, 1, 2}, {-1, -1, -1, 2}, {-1, -1, -1, -1}}) {
    accumulated.step({{"x", tensor(DType::f32, {2, 2}, {1, 2, 3, -4})},
                      {"labels", tensor(DType::i64, {2}, {labels[0], labels[1]})},
                      {kStepLearningRate, rate}},
                     &graphs.accumulate);
    accumulated.step({{"x", tensor(DType::f32, {2, 2}, {-1, 0, 2, 2})},
                      {"labels", tensor(DType::i64, {2}, {labels[2], labels[3]})},
                      {kStepLearningRate, rate}});
    whole.step({{"x", tensor(DType::f32, {4, 2}, {1, 2, 3, -4, -1, 0, 2, 2})},
                {"labels", tensor(DType::i64, {4}, labels)},
                {kStepLearningRate, rate}});
    for (int64_t i = 0; i < 6; ++i)
      EXPECT_NEAR(accumulated.at(kParameterArena, i), whole.at(kParameterArena, i), 1e-6) << labels[0] << " " << i;
    EXPECT_EQ(accumulated.at(kCountedLabels), 0);
  }
  EXPECT_NE(whole.at(kParameterArena), 0);
}

TEST(Accumulation, LabelsOfAllItsBatchesWeighAlike) { expect_one_batch_of_all({}); }
TEST(Accumulation, LabelsOfAllItsBatchesWeighAsTheirClasses) {
  expect_one_batch_of_all({{"class_weights", {0.5, 3, 1}}});
}

// Two losses of which each has labels of its own that count.
TEST(Accumulation, LabelsOfEachLossWeighAlike) {
  const auto losses = [](int64_t rows) {
    LossOptions options;
    options.terms = {{.name = "a", .weight = 0.5, .loss = {.output = "y", .labels = "a", .ignore_index = -1}},
                     {.name = "b", .weight = 2, .loss = {.output = "y", .labels = "b", .ignore_index = -1}},
                     {.name = "c", .weight = 1, .loss = {.kind = "mean_squared_error", .output = "y"}}};
    options.terms[1].loss.parameters["class_weights"] = {1, 0.5, 4};
    const std::string n = std::to_string(rows);
    return attach_loss(parse_graph("graph model {\n  %x = input() {name=\"x\"} : f32[" + n +
                                   ",2]\n  %w = parameter() {name=\"w\"} : f32[3,2]\n"
                                   "  %y = matmul(%x, %w) {transpose_b=1}\n  output \"y\" = %y\n}\n"),
                       options);
  };
  for (const LossScaling::Scales scales : {LossScaling::shared, LossScaling::of_each}) {
    OptimizerOptions options{.scaling = {.initial = 8, .losses = {0.5, 2, 1}, .scales = scales}, .accumulation = 2};
    const StepGraphs graphs = training_step(losses(2), options);
    Stepper accumulated(graphs.train, initial_states(options));
    options.accumulation = 1;
    options.scaling.losses.clear(), options.scaling.scales = LossScaling::shared;
    const StepGraphs whole_graphs = training_step(losses(4), options);
    Stepper whole(whole_graphs.train, initial_states(options));
    const std::vector<double> x{1, 2, 3, -4, -1, 0, 2, 2}, a{0, -1, 1, 2}, b{-1, 2, 0, 1};
    std::vector<double> c(12);
    for (size_t i = 0; i < c.size(); ++i) c[i] = 0.25 * static_cast<double>(i);
    const auto batch = [&](size_t first, size_t rows) {
      const auto part = [&](DType dtype, const std::vector<double>& values, size_t columns, Shape shape) {
        const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first * columns);
        return Tensor::from_values({dtype, std::move(shape)},
                                   std::vector<double>(begin, begin + static_cast<std::ptrdiff_t>(rows * columns)));
      };
      const auto n = static_cast<int64_t>(rows);
      return NamedTensors{{"x", part(DType::f32, x, 2, {n, 2})},
                          {"a", part(DType::i64, a, 1, {n})},
                          {"b", part(DType::i64, b, 1, {n})},
                          {"targets", part(DType::f32, c, 3, {n, 3})},
                          {kStepLearningRate, Tensor::scalar(DType::f32, 0.5)}};
    };
    for (int step = 0; step < 3; ++step) {
      accumulated.step(batch(0, 2), &graphs.accumulate);
      accumulated.step(batch(2, 2));
      whole.step(batch(0, 4));
      for (int64_t i = 0; i < 6; ++i)
        EXPECT_NEAR(accumulated.at(kParameterArena, i), whole.at(kParameterArena, i), 1e-5) << step << " " << i;
    }
    EXPECT_NE(whole.at(kParameterArena), 0);
  }
}

// One loss whose gradients overflow f16 beyond a scale of 32, beside one of gradients of 2^-30.
double faint_weight(LossScaling::Scales scales) {
  const Graph model = parse_graph(R"(
    graph two {
      %x = input() {name="x"} : f32[1]
      %w = parameter() {name="loud"} : f32[1]
      %v = parameter() {name="faint"} : f32[1]
      %0 = cast(%w) {to=f16}
      %1 = constant() {value=f16[1](1024)}
      %2 = mul(%0, %1)
      %3 = cast(%2) {to=f32}
      %4 = cast(%v) {to=f16}
      %5 = cast(%4) {to=f32}
      %6 = constant() {value=f32[1](9.313225746154785e-10)}
      %7 = mul(%5, %6)
      output "a" = %3
      output "b" = %7
    })");
  LossOptions loss;
  loss.terms = {{.name = "loud", .loss = {.kind = "from_graph", .output = "a"}},
                {.name = "faint", .loss = {.kind = "from_graph", .output = "b"}}};
  OptimizerOptions options;
  if (scales == LossScaling::of_each) options.scaling.losses = {1, 1};
  options.scaling.scales = scales;
  const StepGraphs graphs = training_step(attach_loss(model, loss), options);
  Stepper stepper(graphs.train, initial_states(options));
  for (int i = 0; i < 20; ++i)
    stepper.step({{"x", Tensor::from_values({DType::f32, {1}}, std::vector<double>{1})},
                  {kStepLearningRate, Tensor::scalar(DType::f32, 0x1p30)}});
  for (const ArenaSlice& slice : graphs.layout.slices)
    if (slice.name == "faint") return stepper.at(kParameterArena, slice.offset);
  return 0;
}

TEST(LossScale, AFaintLossTrainsOnlyAtItsOwn) {
  EXPECT_EQ(faint_weight(LossScaling::shared), 0) << "the scale of the sum fell to 32, at which its gradients are 0";
  EXPECT_EQ(faint_weight(LossScaling::of_each), -9) << "-1 a step, but for the eleven in which the loud one overflowed";
}

TEST(Accumulation, OneBadBatchSkipsTheWholeStep) {
  const OptimizerOptions options{.accumulation = 2};
  const StepGraphs graphs = training_step(parse_graph(kLinear), options);
  Stepper stepper(graphs.train, initial_states(options));
  const Tensor rate = Tensor::scalar(DType::f32, 1);
  stepper.step({{"g", vector_of({std::numeric_limits<double>::quiet_NaN(), 1, 1})}, {kStepLearningRate, rate}},
               &graphs.accumulate);
  const auto outputs = stepper.step({{"g", vector_of({1, 1, 1})}, {kStepLearningRate, rate}});
  EXPECT_EQ(outputs.at(kOverflow), 1);
  EXPECT_EQ(stepper.at(kParameterArena, 1), 0);
  EXPECT_EQ(stepper.at(kGradientArena, 0), 0);
}

}  // namespace
}  // namespace halfstep
