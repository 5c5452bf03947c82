// Every loss against what PyTorch recorded (models/record_losses.py), for a step however it is run.
#pragma once

#include <algorithm>
#include <cmath>
#include <set>

#include "base/losses.h"
#include "tests/torch_steps.h"

namespace halfstep {

inline LossOptions recorded_loss(const nlohmann::json& c) {
  LossOptions loss;
  loss.kind = c.at("kind").get<std::string>();
  for (const auto& [key, values] : c.at("parameters").items()) loss.parameters[key] = values.get<std::vector<double>>();
  if (c.contains("ignore_index")) loss.ignore_index = c.at("ignore_index").get<int64_t>();
  if (c.contains("mix_share")) loss.samples = LossOptions::mixed;
  return loss;
}

// `entry`: low and high, or values.
inline Tensor recorded_values(const std::string& name, const nlohmann::json& entry, const TensorType& type) {
  if (entry.contains("values")) return Tensor::from_values(type, entry.at("values").get<std::vector<double>>());
  nlohmann::json with_shape = entry;
  with_shape["shape"] = type.shape;
  return recorded_tensor(name, with_shape);
}

// The loss of x + p in type `low`, p = 0: one step of rate 1 leaves minus the gradient in p.
inline void expect_recorded_loss(const MakeTrainingStep& make_step, const std::string& name, const nlohmann::json& c,
                                 DType low) {
  const Shape shape = c.at("shape");
  Builder b("one");
  const Value x = b.input("x", {DType::f32, shape}), p = b.parameter("p", {DType::f32, shape});
  b.output("y", b.cast(b.add(x, p), low));
  const LossOptions loss = recorded_loss(c);
  const bool classes = function_of(loss).labels == LossFunction::classes;
  Shape labels = shape;
  if (classes) labels.erase(labels.begin() + 1);
  const std::unique_ptr<TrainingStep> step =
      make_step(std::move(b).finish(), loss, {.name = "sgd", .scaling = {.mode = LossScaleMode::none}},
                {{"p", Tensor(TensorType{DType::f32, shape})}});
  const double found =
      step->loss({{"x", recorded_values("losses." + name + ".output", c.at("output"), {DType::f32, shape})},
                  {label_input(loss), recorded_values("losses." + name + ".targets", c.at("labels"),
                                                      {classes ? DType::i64 : DType::f32, labels})},
                  {kStepLearningRate, Tensor::scalar(DType::f32, 1)},
                  {kStepMixShare, Tensor::scalar(DType::f32, c.value("mix_share", 1.0))}});
  const nlohmann::json& run = c.at("runs").at(std::string(halfstep::name(low)));
  const double expected = run.at("loss");
  EXPECT_NEAR(found, expected, 1e-6 * std::max(1.0, std::abs(expected)));
  // A gradient is rounded to the type of the output.
  const double relative = low == DType::f16 ? 0x1p-10 : low == DType::bf16 ? 0x1p-7 : 1e-6;
  const Tensor gradient = step->parameters().at("p");
  for (int64_t i = 0; i < gradient.type.element_count(); ++i) {
    const double g = run.at("gradient").at(static_cast<size_t>(i));
    EXPECT_NEAR(-gradient.at(i), g, relative * std::abs(g) + 1e-6) << "element " << i;
  }
}

inline void expect_recorded_losses(const MakeTrainingStep& make_step) {
  std::set<std::string> seen;
  const nlohmann::json reference = recorded("losses");
  for (const auto& [name, c] : reference.at("cases").items()) {
    seen.insert(c.at("kind").get<std::string>());
    for (const DType low : {DType::f32, DType::f16, DType::bf16}) {
      SCOPED_TRACE(name + " " + std::string(halfstep::name(low)));
      expect_recorded_loss(make_step, name, c, low);
    }
  }
  for (const LossFunction& row : loss_functions())
    EXPECT_TRUE(row.scores == LossFunction::own_loss || seen.contains(std::string(row.name))) << row.name;
}

}  // namespace halfstep
