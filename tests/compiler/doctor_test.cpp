// Doctor on small models; planted faults go through the executable (tests/cli/doctor_faults_test.cpp).
#include "compiler/doctor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/file.h"
#include "compiler/minimise.h"
#include "tests/frontend/test_model.h"

namespace halfstep {
namespace {

using test::TestModel;

// Reproducible on every machine: the standard's distributions are not.
Tensor spread(const Shape& shape, double scale, uint32_t seed) {
  std::mt19937 random(seed);
  Tensor tensor(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < tensor.type.element_count(); ++i)
    tensor.set(i, scale * (static_cast<double>(random()) / 2147483648.0 - 1) * 1.7320508);
  return tensor;
}
Tensor zeros(const Shape& shape) { return Tensor(TensorType{DType::f32, shape}); }
Tensor ones(int64_t size) { return test::ramp({size}, 1, 0); }

class Network {
 public:
  explicit Network(int64_t features = 16) : width_(features) { model.input("x", {8, features}); }

  Network& linear(const std::string& name, int64_t to, double scale) {
    model.weight(name + ".weight", spread({width_, to}, scale / std::sqrt(static_cast<double>(width_)), ++seed_));
    model.weight(name + ".bias", zeros({to}));
    width_ = to;
    return op("Gemm", name, {name + ".weight", name + ".bias"});
  }
  Network& op(const std::string& op, const std::string& name, const std::vector<std::string>& more = {},
              const test::AttributeList& attributes = {}) {
    std::vector<std::string> inputs{last};
    inputs.insert(inputs.end(), more.begin(), more.end());
    model.node(op, inputs, {name + ".out"}, attributes, name);
    last = name + ".out";
    return *this;
  }
  Network& norm(const std::string& name, double epsilon = 1e-12) {
    model.weight(name + ".weight", ones(width_)).weight(name + ".bias", zeros({width_}));
    return op("LayerNormalization", name, {name + ".weight", name + ".bias"},
              {{"axis", int64_t{-1}}, {"epsilon", epsilon}});
  }
  Network& times(const std::string& name, double factor) {
    model.weight(name + ".by", test::floats({1}, {factor}));
    return op("Mul", name, {name + ".by"});
  }
  TestModel done() {
    model.node("Identity", {last}, {"logits"}, {}, "logits");
    return model.output("logits");
  }

  TestModel model;
  std::string last = "x";

 private:
  int64_t width_;
  uint32_t seed_ = 0;
};

Recipe recipe_of(const TemporaryDirectory& directory, const TestModel& model) {
  Recipe recipe;
  recipe.model = (directory.path() / "m.onnx").string(), recipe.batch = 8, recipe.threads = 1;
  std::ofstream(recipe.model, std::ios::binary) << model.proto.SerializeAsString();
  return recipe;
}

// Of 128 elements three are counted and compared; one column of 16 is beyond f16.
TEST(Doctor, OneElementAmongManyIsNotMissed) {
  const TemporaryDirectory directory;
  Network n;
  n.linear("in", 16, 1);
  Tensor bias = zeros({16});
  bias.set(5, 1e5);
  n.model.weight("beyond", bias);
  const TestModel model = n.op("Add", "add", {"beyond"}).norm("norm").linear("out", 4, 1).done();
  Recipe recipe = recipe_of(directory, model);
  recipe.preset = "apex-o2";
  DoctorOptions options;
  options.taps.most_counted = options.taps.samples = 3;
  const Diagnosis d = diagnose(recipe, DeviceKind::cpu, {.data = nullptr, .steps = 3}, options);
  const TensorReading* add = d.before.low.find(Tap::forward, "add");
  ASSERT_NE(add, nullptr);
  EXPECT_EQ(add->first.counted, 3);
  EXPECT_EQ(add->first.infinite, 0);
  EXPECT_FALSE(std::isfinite(add->first.largest));
  ASSERT_FALSE(d.before.findings.empty());
  EXPECT_EQ(d.before.findings.front().node, "add");
  EXPECT_EQ(d.remedy.outcome, Remedy::proven);
}

// The weights grow until a product is beyond f16: step 1 shows nothing of it.
TEST(Doctor, WhatOverflowsInALaterStepIsNamed) {
  const TemporaryDirectory directory;
  Network n;
  const TestModel model = n.linear("in", 16, 1).linear("big", 16, 1e4).norm("norm").linear("out", 4, 1).done();
  Recipe recipe = recipe_of(directory, model);
  recipe.preset = "torch", recipe.optimizer = "adam", recipe.learning_rate = 1e3;
  recipe.freeze = {"in*", "norm*", "out*"};
  const Diagnosis d = diagnose(recipe, DeviceKind::cpu, {.data = nullptr, .steps = 8}, {});
  ASSERT_FALSE(d.before.findings.empty());
  EXPECT_EQ(d.before.findings.front().node, "big");
  EXPECT_THAT(d.before.findings.front().text, testing::HasSubstr("is not finite in f16 after "));
  EXPECT_EQ(d.remedy.outcome, Remedy::proven);
}

TEST(Doctor, FindsNothingInAHealthyTraining) {
  const TemporaryDirectory directory;
  TestModel model = Network().linear("in", 16, 1).op("Relu", "relu").norm("norm", 1e-5).linear("out", 4, 1).done();
  Recipe recipe = recipe_of(directory, model);
  for (const char* precision : {"fp16", "bf16"}) {
    recipe.precision = precision;
    const Diagnosis d = diagnose(recipe, DeviceKind::cpu, {.data = nullptr, .steps = 4}, {});
    EXPECT_THAT(d.before.findings, testing::IsEmpty()) << precision << ": " << d.before.findings.front().text;
    EXPECT_EQ(d.remedy.outcome, Remedy::not_needed);
  }
  // An overflow that hysteresis spares leaves the scale, and the step is made again.
  recipe.precision = "fp16", recipe.initial_scale = 0x1p20, recipe.hysteresis = 3;
  const Diagnosis spared = diagnose(recipe, DeviceKind::cpu, {.data = nullptr, .steps = 4}, {});
  EXPECT_GT(spared.before.low.skipped, 0);
  EXPECT_EQ(spared.before.low.stuck, "");
  EXPECT_EQ(spared.before.low.losses.size(), 4u);
}

// Exported models whose gradients cancel out in places: of an attention's keys' bias, of norms before other norms.
TEST(Doctor, FindsNothingInExportedModels) {
  for (const char* name : {"distilbert.ts17", "convnext.ts17", "shufflenet_v2.ts17"}) {
    Recipe recipe;
    recipe.model = fmt::format("{}/models/families/{}.onnx", HALFSTEP_SOURCE_DIR, name);
    recipe.batch = 4, recipe.threads = 1;
    const Diagnosis d = diagnose(recipe, DeviceKind::cpu, {.data = nullptr, .steps = 3}, {});
    EXPECT_THAT(d.before.findings, testing::IsEmpty()) << name << ": " << d.before.findings.front().text;
  }
}

TEST(Doctor, BisectsToTheFewestNodesOfACommand) {
  const TemporaryDirectory directory;
  TestModel model = Network().linear("a", 16, 1).linear("b", 16, 1).linear("c", 16, 1).linear("d", 4, 1).done();
  Recipe recipe = recipe_of(directory, model);
  const auto has = [](const std::vector<std::string>& list, const char* node) {
    return std::ranges::find(list, node) != list.end();
  };
  const Bisection b =
      bisect(recipe, DeviceKind::cpu, [&](const auto& denied) { return has(denied, "b") && has(denied, "d"); });
  EXPECT_THAT(b.denied, testing::UnorderedElementsAre("b", "d"));
  EXPECT_THROW(bisect(recipe, DeviceKind::cpu, [](const auto&) { return true; }), Error);
  EXPECT_THROW(bisect(recipe, DeviceKind::cpu, [](const auto&) { return false; }), Error);
}

TEST(Doctor, FewestKeepsWhatIsNeededTogether) {
  std::vector<int> all;
  for (int i = 0; i < 100; ++i) all.push_back(i);
  const std::function<bool(const std::vector<int>&)> needs = [](const std::vector<int>& some) {
    int found = 0;
    for (const int i : some) found += i == 3 || i == 50 || i == 97;
    return found == 3;
  };
  EXPECT_THAT(fewest<int>(all, needs), testing::UnorderedElementsAre(3, 50, 97));
}

}  // namespace
}  // namespace halfstep
