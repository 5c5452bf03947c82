// Whole models against recorded PyTorch runs (models/record_references.py): logits, every gradient, ten losses.
// docs/references.md tells how each number is judged and why.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>

#include "compiler/compile.h"
#include "ir/op.h"
#include "tests/compiled_graph.h"
#include "tests/recorded.h"
#include "training/checkpoint_state.h"

namespace halfstep {

struct ReferenceCase {
  std::string model, form;  // models/exports/<model>.<form>.onnx
  std::string prefix = {};  // what the export puts before PyTorch's parameter names
};

struct ReferenceRun {
  std::vector<double> losses;  // of SGD steps on one batch
  Tensor logits;               // before the first step
  FileTensors gradients;       // of the first step, unscaled, in PyTorch's layout and names
};

// Of torchvision's batch norms: running = 0.9 * running + 0.1 * batch.
inline constexpr double kStatisticsRate = 0.1;

inline Recipe reference_recipe(const ReferenceCase& c, const nlohmann::json& reference, const std::string& precision) {
  Recipe recipe;
  recipe.model = (source_directory() / "models/exports" / (c.model + "." + c.form + ".onnx")).string();
  recipe.init = "fresh";
  recipe.shapes[""] = reference.at("inputs").at("images").at("shape").get<Shape>();
  recipe.batch = recipe.shapes[""][0];
  recipe.dropout = 0;
  recipe.optimizer_parameters["momentum"] = reference.at("sgd").at("momentum");
  recipe.precision = precision;
  recipe.loss_scale = precision == "fp16" ? "fixed" : "none";
  recipe.initial_scale = reference.at("loss_scale");
  return recipe;
}

// What the recorded runs were fed, by the names of the executor's inputs.
inline NamedTensors reference_inputs(const Executor& executor, const nlohmann::json& reference) {
  NamedTensors inputs;
  for (const Buffer& buffer : executor.model().find("train")->buffers)
    if (buffer.kind == BufferKind::input && is_floating(buffer.type.dtype) && buffer.name.is(Role::model))
      inputs[buffer.name] = recorded_tensor("images", reference.at("inputs").at("images"));
  inputs["labels"] = recorded_labels(reference.at("inputs").at("labels"));
  inputs[kStepLearningRate] = Tensor::scalar(DType::f32, reference.at("sgd").at("lr").get<double>());
  return inputs;
}

// The recorded weights, and running statistics of zero, from which one step leaves kStatisticsRate times the batch's.
inline FileTensors reference_weights(Executor& executor, const ReferenceCase& c, const nlohmann::json& reference) {
  FileTensors weights = read_model_state(executor).weights;
  for (auto& [name, value] : weights) {
    const auto spec = reference.at("parameters").find(name.substr(c.prefix.size()));
    value = spec == reference.at("parameters").end() ? Tensor(value.type) : recorded_tensor(spec.key(), *spec);
  }
  return weights;
}

// By the names of running statistics: what the batch's own one was multiplied with.
inline std::map<std::string, double> statistics_rates(const Recipe& recipe) {
  std::map<std::string, double> rates;
  const ImportedModel imported = import_graph(recipe);
  for (const Node& node : imported.graph.nodes()) {
    if (node.op->name != "batch_norm") continue;
    const auto name_of = [&](size_t i) { return imported.graph.node(node.operands[i]).attributes.text("name"); };
    const double count =
        static_cast<double>(node.results[0].element_count()) / static_cast<double>(node.results[1].element_count());
    rates[name_of(3)] = kStatisticsRate;
    rates[name_of(4)] = kStatisticsRate * count / (count - 1);
  }
  return rates;
}

// Evaluates with this batch's own statistics, which the first step left: the logits of training.
inline Tensor training_logits(Executor& executor, const NamedTensors& inputs, FileTensors weights,
                              const std::map<std::string, double>& rates) {
  const ModelState after_step = read_model_state(executor);
  for (auto& [name, value] : weights)
    if (std::ranges::find(executor.model().parameters, name, &ParameterSlice::name) ==
        executor.model().parameters.end())
      for (int64_t i = 0; i < value.type.element_count(); ++i)
        value.set(i, after_step.weights.at(name).at(i) / rates.at(name));
  write_weights(executor, weights, "weights for evaluation");
  const NamedTensors outputs = run_program(executor, "evaluate", inputs);
  write_model_state(executor, after_step, "the state after one step");
  for (const auto& [name, value] : outputs)
    if (name.is(Role::model)) return value;
  throw InternalError("the evaluation program has no logits");
}

// Each value moved by half a unit in the last place of f32, up or down by `seed`.
inline void disturb(FileTensors& weights, uint32_t seed) {
  std::minstd_rand bits(seed);
  for (auto& [name, value] : weights)
    for (int64_t i = 0; i < value.type.element_count(); ++i)
      value.set(i, value.at(i) * (1 + (bits() / 2 % 2 == 0 ? 0x1p-24 : -0x1p-24)));
}

// `seed`: of disturbed weights; 0: the recorded ones.
inline ReferenceRun run_reference(const ReferenceCase& c, const nlohmann::json& reference, const std::string& precision,
                                  DeviceKind device, int steps, uint32_t seed = 0) {
  CompiledTraining compiled = compile_training(reference_recipe(c, reference, precision), device);
  const std::unique_ptr<Executor> executor = make_executor(std::move(compiled.model), kTestExecutor);
  FileTensors weights = reference_weights(*executor, c, reference);
  if (seed != 0) disturb(weights, seed);
  write_weights(*executor, weights, "recorded weights");
  const NamedTensors inputs = reference_inputs(*executor, reference);
  ReferenceRun run;
  for (int step = 0; step < steps; ++step) {
    run.losses.push_back(run_program(*executor, "train", inputs).at(kLoss).at(0));
    if (step > 0) continue;
    // Without dampening the momentum of the first step is the gradient.
    constexpr std::string_view kSlot = "momentum/";
    for (auto& [name, slot] : read_model_state(*executor).slots)
      if (name.starts_with(kSlot)) run.gradients[name.substr(kSlot.size() + c.prefix.size())] = slot;
    run.logits =
        training_logits(*executor, inputs, weights, statistics_rates(reference_recipe(c, reference, precision)));
  }
  return run;
}

// The largest of a set of deviations, and where it is.
struct Worst {
  double value = 0;
  std::string where = "-";
  void see(double v, const std::string& place) {
    if (!(v <= value)) value = v, where = place;
  }
};

inline double norm(std::span<const double> values) {
  double square = 0;
  for (double v : values) square += v * v;
  return std::sqrt(square);
}

// |found - truth| / |truth|.
inline double relative_distance(std::span<const double> found, std::span<const double> truth) {
  std::vector<double> difference(found.begin(), found.end());
  for (size_t i = 0; i < difference.size(); ++i) difference[i] -= truth[i];
  return norm(difference) / norm(truth);
}

inline Worst loss_deviation(const ReferenceRun& run, const nlohmann::json& reference, size_t first_steps) {
  Worst worst;
  for (size_t i = 0; i < first_steps; ++i) {
    const double truth = reference.at("runs").at("fp64").at("losses")[i];
    worst.see(std::abs(run.losses[i] / truth - 1), "step " + std::to_string(i + 1));
  }
  return worst;
}

inline double logits_deviation(const ReferenceRun& run, const nlohmann::json& reference) {
  const std::vector<double> truth = reference.at("runs").at("fp64").at("logits");
  return relative_distance(run.logits.values(), truth);
}

// From the recorded fp64 gradients: of the norm, of the sum and of sampled elements, the largest for each parameter.
inline std::map<std::string, double> recorded_gradient_deviations(const ReferenceRun& run,
                                                                  const nlohmann::json& reference) {
  std::map<std::string, double> deviations;
  for (const auto& [name, spec] : reference.at("parameters").items()) {
    const nlohmann::json& truth = reference.at("runs").at("fp64").at("gradients").at(name);
    const std::vector<double> found = run.gradients.at(name).values(), samples = truth.at("values");
    double sum = 0, largest = 0, sampled = 0;
    for (double v : found) sum += v;
    for (size_t i = 0; i < samples.size(); ++i) {
      largest = std::max(largest, std::abs(samples[i]));
      sampled = std::max(sampled, std::abs(found[spec.at("indices")[i].get<size_t>()] - samples[i]));
    }
    const double true_norm = truth.at("norm"), true_sum = truth.at("sum");
    deviations[name] = std::max({std::abs(norm(found) / true_norm - 1),
                                 // A vector of norm e sums to at most e * sqrt(size).
                                 std::abs(sum - true_sum) / true_norm / std::sqrt(static_cast<double>(found.size())),
                                 sampled / largest});
  }
  return deviations;
}

// Whole-tensor distances from `truth`, an fp32 run that has been held to the recorded fp64 one.
inline std::map<std::string, double> gradient_distances(const ReferenceRun& run, const ReferenceRun& truth) {
  std::map<std::string, double> distances;
  for (const auto& [name, gradient] : truth.gradients)
    distances[name] = relative_distance(run.gradients.at(name).values(), gradient.values());
  return distances;
}

inline Worst worst_of(const std::map<std::string, double>& deviations) {
  Worst worst;
  for (const auto& [name, value] : deviations) worst.see(value, name);
  return worst;
}

inline double geometric_mean(const std::map<std::string, double>& values) {
  double sum = 0;
  for (const auto& [name, value] : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

// The larger error of PyTorch's recorded fp16 runs, or that of its fp32 run.
struct TorchError {
  double logits = 0, losses = 0;
  std::map<std::string, double> gradients;
};

inline TorchError torch_error(const nlohmann::json& reference, const std::string& precision) {
  TorchError larger;
  for (const std::string& run :
       precision == "fp32" ? std::vector<std::string>{"fp32"} : std::vector<std::string>{"fp16", "fp16_other"}) {
    const nlohmann::json& error = reference.at("runs").at(run).at("error");
    larger.logits = std::max(larger.logits, error.at("logits").get<double>());
    for (double loss : error.at("losses")) larger.losses = std::max(larger.losses, loss);
    for (const auto& [name, value] : error.at("gradients").items())
      larger.gradients[name] = std::max(larger.gradients[name], value.get<double>());
  }
  return larger;
}

// Appends a row for docs/references.md to the file that HALFSTEP_REFERENCE_TABLE names.
inline void write_reference_row(const ReferenceCase& c, const std::string& precision, DeviceKind device,
                                const nlohmann::json& reference, const ReferenceRun& run,
                                const std::map<std::string, double>& gradients) {
  const char* const path = std::getenv("HALFSTEP_REFERENCE_TABLE");
  if (path == nullptr) return;
  const TorchError torch = torch_error(reference, precision);
  const Worst worst = worst_of(gradients), losses = loss_deviation(run, reference, run.losses.size());
  std::ofstream(path, std::ios::app) << fmt::format(
      "| {}.{} | {} | {} | {:.1e} ({:.1e}) | {:.1e} ({:.1e}) | {:.1e} ({:.1e}) `{}` | {:.1e} ({:.1e}) |\n", c.model,
      c.form, precision, name(device), logits_deviation(run, reference), torch.logits, losses.value, torch.losses,
      worst.value, torch.gradients.at(worst.where), worst.where, geometric_mean(gradients),
      geometric_mean(torch.gradients));
}

// How far the losses move when the weights do by half a unit in the last place: the most of three runs.
inline double loss_sensitivity(const ReferenceCase& c, const nlohmann::json& reference, DeviceKind device,
                               const ReferenceRun& run) {
  double most = 0;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    const std::vector<double> losses =
        run_reference(c, reference, "fp32", device, static_cast<int>(run.losses.size()), seed).losses;
    for (size_t i = 0; i < losses.size(); ++i) most = std::max(most, std::abs(losses[i] / run.losses[i] - 1));
  }
  return most;
}

// fp32: 1e-4 relative, and no less than twice what PyTorch's own fp32 run deviates by, nor than twice what ten steps
// make of weights that differ in their last bit (which is measured where the others do not suffice).
inline void expect_fp32_reference(const ReferenceCase& c, const ReferenceRun& run, const nlohmann::json& reference,
                                  DeviceKind device) {
  const TorchError torch = torch_error(reference, "fp32");
  EXPECT_LE(logits_deviation(run, reference), 1e-4);
  const Worst losses = loss_deviation(run, reference, run.losses.size());
  if (losses.value > std::max(1e-4, 2 * torch.losses)) {
    const double sensitivity = loss_sensitivity(c, reference, device, run);
    fmt::print("  losses differ by {:.1e}, disturbed runs by {:.1e}\n", losses.value, sensitivity);
    EXPECT_LE(losses.value, 2 * sensitivity) << losses.where;
  }
  for (const auto& [name, deviation] : recorded_gradient_deviations(run, reference)) EXPECT_LE(deviation, 1e-4) << name;
}

// One activation whose sign falls the other way moves a gradient by as much as this: see docs/references.md.
inline constexpr double kOneSign = 0.02;

// fp16: as far from fp64 as PyTorch's fp16, each parameter within chance and all of them together within a quarter.
inline void expect_fp16_reference(const ReferenceRun& run, const nlohmann::json& reference, const ReferenceRun& fp32) {
  const TorchError torch = torch_error(reference, "fp16");
  EXPECT_LE(logits_deviation(run, reference), 1.5 * torch.logits);
  EXPECT_LE(loss_deviation(run, reference, 5).value, 2e-3);
  EXPECT_LE(loss_deviation(run, reference, run.losses.size()).value, 5e-2);
  const std::map<std::string, double> distances = gradient_distances(run, fp32);
  EXPECT_LE(geometric_mean(distances), 1.25 * geometric_mean(torch.gradients));
  for (const auto& [name, distance] : distances) EXPECT_LE(distance, 1.5 * torch.gradients.at(name) + kOneSign) << name;
}

inline void check_reference(const ReferenceCase& c, DeviceKind device) {
  constexpr int kSteps = 10;
  const nlohmann::json reference = recorded(c.model);
  const ReferenceRun fp32 = run_reference(c, reference, "fp32", device, kSteps);
  {
    SCOPED_TRACE("fp32");
    expect_fp32_reference(c, fp32, reference, device);
    write_reference_row(c, "fp32", device, reference, fp32, recorded_gradient_deviations(fp32, reference));
  }
  SCOPED_TRACE("fp16");
  const ReferenceRun fp16 = run_reference(c, reference, "fp16", device, kSteps);
  expect_fp16_reference(fp16, reference, fp32);
  write_reference_row(c, "fp16", device, reference, fp16, gradient_distances(fp16, fp32));
}

}  // namespace halfstep
