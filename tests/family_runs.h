// The small models of models/families, trained from their weights and held to what PyTorch recorded in NAME.json.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "compiler/compile.h"
#include "tests/compiled_graph.h"
#include "tests/loss_slope.h"
#include "tests/recorded.h"
#include "training/checkpoint_state.h"

namespace halfstep {

struct FamilyCase {
  std::string name, form;  // models/families/<name>.<form>.onnx
};
inline void PrintTo(const FamilyCase& c, std::ostream* out) { *out << c.name << "." << c.form; }

inline std::filesystem::path families_directory() { return source_directory() / "models/families"; }

inline std::vector<FamilyCase> family_cases() {
  std::vector<FamilyCase> cases;
  for (const auto& entry : std::filesystem::directory_iterator(families_directory()))
    if (entry.path().extension() == ".onnx") {
      const std::filesystem::path stem = entry.path().stem();
      cases.push_back({stem.stem().string(), stem.extension().string().substr(1)});
    }
  std::ranges::sort(cases, {}, [](const FamilyCase& c) { return c.name + "." + c.form; });
  return cases;
}

inline nlohmann::json family_reference(const FamilyCase& c) {
  return nlohmann::json::parse(read_file(families_directory() / (c.name + ".json")));
}

// Floats as recorded_tensor; ids floor(bound * u).
inline Tensor family_input(const std::string& name, const nlohmann::json& spec) {
  if (!spec.contains("bound")) return recorded_tensor(name, spec);
  Tensor ids(TensorType{DType::i64, spec.at("shape").get<Shape>()});
  const float bound = spec.at("bound");
  uint64_t index = 0;
  for (int64_t& id : ids.as<int64_t>())
    id = static_cast<int64_t>(std::floor(bound * philox_uniform(crc32(name), 0, 0, index++)));
  return ids;
}

inline Recipe family_recipe(const FamilyCase& c, const nlohmann::json& reference, const std::string& precision) {
  Recipe recipe;
  recipe.model = (families_directory() / (c.name + "." + c.form + ".onnx")).string();
  for (const auto& [name, spec] : reference.at("inputs").items()) recipe.shapes[name] = spec.at("shape").get<Shape>();
  recipe.batch = recipe.shapes.begin()->second.front();
  recipe.dropout = 0;
  recipe.optimizer_parameters["momentum"] = reference.at("sgd").at("momentum");
  recipe.restore_parameters = c.form == "fresh";
  recipe.bn_insert = c.form == "fresh" && reference.at("batch_norm");
  recipe.precision = precision;
  recipe.loss_scale = precision == "fp16" ? "fixed" : "none";
  recipe.initial_scale = 1024;
  recipe.ignore_index = reference.at("labels").at("ignored").get<int64_t>();
  return recipe;
}

struct FamilyRun {
  std::vector<double> losses;
  FileTensors gradients;  // of the first step, by initializer
};

inline NamedTensors family_inputs(const nlohmann::json& reference) {
  NamedTensors inputs;
  for (const auto& [name, spec] : reference.at("inputs").items()) inputs[name] = family_input(name, spec);
  const nlohmann::json& labels = reference.at("labels");
  inputs["labels"] = Tensor(TensorType{DType::i64, labels.at("shape").get<Shape>()});
  std::ranges::copy(labels.at("values").get<std::vector<int64_t>>(), inputs["labels"].as<int64_t>().begin());
  inputs[kStepSeed] = Tensor::scalar(DType::i64, 1);
  inputs[kStepIteration] = Tensor::scalar(DType::i32, 0);
  inputs[kStepLearningRate] = Tensor::scalar(DType::f32, reference.at("sgd").at("lr").get<double>());
  return inputs;
}

inline std::unique_ptr<Executor> compile_family(const FamilyCase& c, const nlohmann::json& reference,
                                                const std::string& precision, DeviceKind device) {
  return make_executor(compile_training(family_recipe(c, reference, precision), device).model, kTestExecutor);
}

// `change`: of every floating input, relative, up and down in turns.
inline FamilyRun run_family(const FamilyCase& c, const nlohmann::json& reference, const std::string& precision,
                            DeviceKind device, int steps, double change = 0) {
  const std::unique_ptr<Executor> executor = compile_family(c, reference, precision, device);
  NamedTensors inputs = family_inputs(reference);
  for (auto& [name, tensor] : inputs)
    for (int64_t i = 0; change != 0 && tensor.type.dtype == DType::f32 && i < tensor.type.element_count(); ++i)
      tensor.set(i, tensor.at(i) * (1 + (i % 2 == 0 ? change : -change)));
  FamilyRun run;
  for (int step = 0; step < steps; ++step) {
    run.losses.push_back(run_program(*executor, "train", inputs).at(kLoss).at(0));
    constexpr std::string_view kSlot = "momentum/";  // after the first step it is the gradient
    if (step > 0) continue;
    for (auto& [name, slot] : read_model_state(*executor).slots)
      if (name.starts_with(kSlot)) run.gradients[name.substr(kSlot.size())] = slot;
  }
  return run;
}

// The gradient of PyTorch's parameter in its layout, summed over the initializers that the export made of it; empty if
// the file keeps it nowhere.
inline std::vector<double> family_gradient(const FamilyRun& run, const nlohmann::json& places, const Shape& shape) {
  std::vector<double> sum;
  for (const nlohmann::json& place : places) {
    const auto found = run.gradients.find(place.at(0).get<std::string>());
    if (found == run.gradients.end()) continue;  // tied to another of the places
    std::vector<double> values = found->second.values();
    if (!place.at(1).is_null()) {
      const auto rows = static_cast<size_t>(shape.at(0)), columns = static_cast<size_t>(shape.at(1));
      std::vector<double> transposed(values.size());
      for (size_t r = 0; r < rows; ++r)
        for (size_t k = 0; k < columns; ++k) transposed[r * columns + k] = values[k * rows + r];
      values = std::move(transposed);
    }
    if (sum.empty()) sum.resize(values.size());
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
  }
  return sum;
}

inline double l2(std::span<const double> values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

// Norm, sum and samples against the fp64 run, relative to the gradient's norm; a gradient that is zero in theory (a
// bias in front of a norm) is measured against the model's largest.
inline void expect_family_gradients(const FamilyRun& run, const FamilyCase& c, const nlohmann::json& reference,
                                    double tolerance) {
  double largest = 0;
  for (const auto& [name, truth] : reference.at("gradients").items())
    largest = std::max(largest, truth.at("norm").get<double>());
  size_t compared = 0;
  for (const auto& [name, truth] : reference.at("gradients").items()) {
    const Shape shape = truth.at("shape");
    const std::vector<double> found = family_gradient(run, reference.at("parameters").at(c.form).at(name), shape);
    if (found.empty()) continue;
    ++compared;
    const double norm = truth.at("norm"), limit = tolerance * std::max(norm, 1e-3 * largest);
    EXPECT_NEAR(l2(found), norm, limit) << name;
    EXPECT_NEAR(std::accumulate(found.begin(), found.end(), 0.0), truth.at("sum").get<double>(),
                limit * std::sqrt(static_cast<double>(found.size())))
        << name;
    const std::vector<size_t> indices = truth.at("indices");
    for (size_t i = 0; i < indices.size(); ++i)
      EXPECT_NEAR(found.at(indices[i]), truth.at("values")[i].get<double>(), limit) << name << "[" << indices[i] << "]";
  }
  EXPECT_GT(compared, 0u);
}

// Whether the file holds every parameter of the model: nothing was folded away.
inline bool keeps_every_parameter(const FamilyCase& c, const nlohmann::json& reference) {
  return std::ranges::none_of(reference.at("parameters").at(c.form).items(),
                              [](const auto& entry) { return entry.value().empty(); });
}

// The gradient of what the file trains is the slope of its loss, whatever PyTorch's parameters became.
inline void expect_slope_of_loss(const FamilyRun& run, const FamilyCase& c, const nlohmann::json& reference) {
  const Slope slope = slope_of_loss(family_recipe(c, reference, "fp32"), family_inputs(reference), run.gradients);
  EXPECT_NEAR(run.losses[0], slope.loss, 1e-5 * slope.loss);
  EXPECT_NEAR(slope.by_gradients, slope.by_differences, 1e-4 * slope.scale);
}

// Batch norms that were folded away are those of inference: the file evaluates as the one that kept them.
inline void expect_evaluation_of_raw(const FamilyCase& c, const nlohmann::json& reference, DeviceKind device) {
  const auto evaluate = [&](const std::string& form) {
    const std::unique_ptr<Executor> executor = compile_family({c.name, form}, reference, "fp32", device);
    return run_program(*executor, "evaluate", family_inputs(reference)).at("logits").values();
  };
  const std::vector<double> expected = evaluate("raw"), found = evaluate(c.form);
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0;
  for (double v : expected) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-4 * largest) << "logit " << i;
}

// What the exporter merged, removed and folded is back, and trains as in PyTorch.
inline void check_fresh_family(const FamilyCase& c, const nlohmann::json& reference, DeviceKind device) {
  const std::vector<double> losses = reference.at("fresh_losses");
  const FamilyRun run = run_family(c, reference, "fp32", device, static_cast<int>(losses.size()));
  for (size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(run.losses[i], losses[i], 1e-4 * losses[0]) << "step " << i + 1;
}

inline void check_family(const FamilyCase& c, DeviceKind device) {
  const nlohmann::json reference = family_reference(c);
  if (c.form == "fresh") return check_fresh_family(c, reference, device);
  const std::vector<double> losses = reference.at("losses"), errors = reference.at("fp32_error").at("losses");
  const bool folded = c.form.starts_with("dynamo") && reference.at("batch_norm");
  const FamilyRun run = run_family(c, reference, "fp32", device, static_cast<int>(losses.size()));
  if (folded) {
    expect_evaluation_of_raw(c, reference, device);
    return expect_slope_of_loss(run, c, reference);
  }
  EXPECT_NEAR(run.losses[0], losses[0], 1e-5 * losses[0]);
  expect_family_gradients(run, c, reference, 1e-3);
  if (!keeps_every_parameter(c, reference)) return expect_slope_of_loss(run, c, reference);
  const double error = *std::ranges::max_element(errors);  // of PyTorch's own fp32 run: chaos where it is large
  const double limit = std::max(1e-4, 50 * error) * losses[0];
  const auto is_near = [&](size_t i, double within) { return std::abs(run.losses[i] - losses[i]) <= within; };
  std::vector<double> limits(losses.size(), limit);
  bool all_near = true;
  for (size_t i = 0; i < losses.size(); ++i) all_near &= is_near(i, limit);
  // PyTorch's one run may have met no kink that ours did: how far does a change of a few units in the last place go?
  for (const double change : all_near ? std::vector<double>() : std::vector{0x1p-22, -0x1p-22, 0x1p-21, -0x1p-21}) {
    const FamilyRun other = run_family(c, reference, "fp32", device, static_cast<int>(losses.size()), change);
    for (size_t i = 0; i < losses.size(); ++i)
      limits[i] = std::max(limits[i], 2 * std::abs(other.losses[i] - run.losses[i]));
  }
  for (size_t i = 0; i < losses.size(); ++i)
    EXPECT_TRUE(is_near(i, limits[i])) << "step " << i + 1 << ": " << run.losses[i] << ", not " << losses[i];
}

}  // namespace halfstep
