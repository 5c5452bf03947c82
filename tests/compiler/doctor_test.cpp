// Ten planted faults: doctor names the user's node in each, and what it writes makes training match fp32.
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

class PlantedFault : public testing::Test {
 protected:
  Recipe recipe_of(const TestModel& model) {
    const std::string path = (directory_.path() / "m.onnx").string();
    std::ofstream(path, std::ios::binary) << model.proto.SerializeAsString();
    Recipe recipe;
    recipe.model = path, recipe.batch = 8, recipe.learning_rate = 0.05, recipe.architecture = "x86-64-v3";
    recipe.threads = 1;
    return recipe;
  }

  // Doctor's diagnosis; a failure unless `node` is among what it names and its remedy is proven, by a run of ours too.
  Diagnosis examine(const Recipe& recipe, const std::string& node) {
    DoctorOptions options;
    const Batches batches{.data = nullptr, .steps = 6};
    Diagnosis d = diagnose(recipe, DeviceKind::cpu, batches, options);
    std::string found;
    for (const Symptom& f : d.before.findings) found += fmt::format("{} '{}': {}\n", name(f.kind), f.node, f.text);
    std::string remedy;
    for (const auto& [key, value] : d.remedy.settings) remedy += fmt::format("{} = {}\n", key, value);
    for (const auto& [denied, reason] : d.remedy.denied) remedy += fmt::format("'{}' in fp32\n", denied);
    for (const Symptom& f : d.remedy.after.findings)
      remedy += fmt::format("still: {} '{}': {}\n", name(f.kind), f.node, f.text);
    EXPECT_TRUE(std::ranges::any_of(d.before.findings, [&](const Symptom& f) { return f.node == node; })) << found;
    EXPECT_EQ(d.remedy.outcome, Remedy::proven) << found << remedy;
    EXPECT_EQ(d.remedy.after.low.losses.size(), d.before.full.losses.size());
    if (std::getenv("SHOW")) fmt::print("{}{}\n{} runs\n", found, remedy, d.remedy.runs);
    return d;
  }

  TemporaryDirectory directory_;
};

TEST_F(PlantedFault, AProductThatOverflows) {
  Recipe r = recipe_of(Network()
                           .linear("in", 16, 1)
                           .linear("big", 16, 2e5)
                           .times("down", 1e-4)
                           .op("Tanh", "tanh")
                           .linear("out", 4, 1)
                           .done());
  r.preset = "torch", r.learning_rate = 1e-3;
  examine(r, "big");
}

TEST_F(PlantedFault, AValueThatUnderflows) {
  Network n;
  n.linear("in", 16, 1);
  n.model.weight("twenty", test::floats({1}, {20}));
  n.op("Sub", "shift", {"twenty"}).op("Exp", "exp").linear("up", 16, 100).norm("norm").linear("out", 4, 1);
  Recipe r = recipe_of(n.done());
  r.preset = "torch";
  examine(r, "up");
}

TEST_F(PlantedFault, AGradientThatOverflowsDeepInTheBackward) {
  Recipe r = recipe_of(Network()
                           .linear("in", 16, 1)
                           .linear("small", 16, 1e-3)
                           .norm("norm")
                           .linear("mid", 16, 1)
                           .op("Relu", "relu")
                           .linear("out", 4, 1)
                           .done());
  r.loss_scale = "fixed", r.initial_scale = 65536;
  examine(r, "small");
}

TEST_F(PlantedFault, AGradientThatUnderflowsDeepInTheBackward) {
  Recipe r = recipe_of(Network()
                           .linear("in", 16, 1)
                           .op("Tanh", "tanh")
                           .linear("a", 16, 1e-3)
                           .linear("b", 16, 1e-3)
                           .linear("c", 4, 1)
                           .done());
  r.loss_scale = "fixed", r.initial_scale = 1;
  const Diagnosis d = examine(r, "tanh");
  EXPECT_FALSE(d.remedy.settings.empty());
}

TEST_F(PlantedFault, AnAttentionWhoseScoresOverflow) {
  TestModel m;
  m.input("x", {8, 4, 16});
  for (const char* w : {"q", "k", "v"}) {
    m.weight(fmt::format("{}.w", w), spread({16, 16}, *w == 'v' ? 0.25 : 100, static_cast<uint32_t>(*w)));
    m.node("MatMul", {"x", fmt::format("{}.w", w)}, {w}, {}, w);
  }
  m.node("Transpose", {"k"}, {"kt"}, {{"perm", Ints{0, 2, 1}}}, "kt");
  m.node("MatMul", {"q", "kt"}, {"s"}, {}, "scores").node("Relu", {"s"}, {"sr"}, {}, "clip");
  m.weight("root", test::floats({1}, {1e-6})).node("Mul", {"sr", "root"}, {"ss"}, {}, "root");
  m.node("Softmax", {"ss"}, {"p"}, {{"axis", int64_t{-1}}}, "softmax").node("MatMul", {"p", "v"}, {"a"}, {}, "mix");
  m.node("Flatten", {"a"}, {"f"}, {}, "flat").weight("o.w", spread({64, 4}, 0.25, 9));
  m.node("MatMul", {"f", "o.w"}, {"logits"}, {}, "out").output("logits");
  Recipe r = recipe_of(m);
  r.preset = "torch", r.learning_rate = 1e-3;
  examine(r, "scores");
}

TEST_F(PlantedFault, ANormWhoseSquaresOverflow) {
  Network n;
  n.linear("in", 16, 400);
  const std::string x = n.last;
  n.op("Mul", "square", {x}).op("Relu", "keep").op("ReduceMean", "mean", {}, {{"axes", Ints{-1}}});
  n.op("Sqrt", "root");
  n.model.node("Div", {x, n.last}, {"normed"}, {}, "divide");
  n.last = "normed";
  n.linear("out", 4, 1);
  Recipe r = recipe_of(n.done());
  r.preset = "torch", r.learning_rate = 1e-3;
  examine(r, "square");
}

TEST_F(PlantedFault, AnEmbeddingBeyondTheRange) {
  TestModel m;
  m.input("ids", {8, 4}, onnx::TensorProto::INT64).weight("table", spread({20, 16}, 1e5, 3));
  m.node("Gather", {"table", "ids"}, {"e"}, {{"axis", int64_t{0}}}, "embedding");
  m.weight("n.w", ones(16)).weight("n.b", zeros({16}));
  m.node("LayerNormalization", {"e", "n.w", "n.b"}, {"n"}, {{"axis", int64_t{-1}}}, "norm");
  m.node("Flatten", {"n"}, {"f"}, {}, "flat").weight("o.w", spread({64, 4}, 0.25, 9));
  m.node("MatMul", {"f", "o.w"}, {"logits"}, {}, "out").output("logits");
  Recipe r = recipe_of(m);
  r.allow = {"embedding"};
  examine(r, "embedding");
}

TEST_F(PlantedFault, ALossWhoseSquaresOverflow) {
  Network n;
  n.linear("in", 16, 1).linear("out", 4, 300);
  n.model.input("target", {8, 4});
  n.op("Sub", "error", {"target"});
  n.op("Mul", "square", {n.last}).op("Relu", "keep").op("ReduceMean", "loss_mean", {}, {{"keepdims", int64_t{0}}});
  n.model.output(n.last);
  Recipe r = recipe_of(n.model);
  r.loss = "from_graph", r.learning_rate = 1e-6, r.allow = {"error", "square", "keep"};
  examine(r, "square");
}

TEST_F(PlantedFault, AWeightBeyondTheRange) {
  Network n;
  n.linear("in", 16, 1).times("small", 1e-4).linear("heavy", 16, 4e5).op("Tanh", "tanh").linear("out", 4, 1);
  Recipe r = recipe_of(n.done());
  r.preset = "torch", r.learning_rate = 1e-3;
  const Diagnosis d = examine(r, "heavy");
  EXPECT_EQ(d.before.findings.front().kind, Symptom::weight_range);
}

TEST_F(PlantedFault, AnUpdateThatVanishes) {
  Recipe r = recipe_of(Network()
                           .linear("in", 16, 1)
                           .times("small", 1e-3)
                           .linear("heavy", 16, 4e3)
                           .op("Tanh", "tanh")
                           .linear("out", 4, 1)
                           .done());
  r.learning_rate = 1e-3;
  const Diagnosis d = examine(r, "heavy.weight");
  EXPECT_FALSE(d.remedy.settings.empty());
}

TEST(Doctor, FindsNothingInAHealthyTraining) {
  const TemporaryDirectory directory;
  TestModel model = Network().linear("in", 16, 1).op("Relu", "relu").norm("norm", 1e-5).linear("out", 4, 1).done();
  Recipe recipe;
  recipe.model = (directory.path() / "m.onnx").string(), recipe.batch = 8;
  std::ofstream(recipe.model, std::ios::binary) << model.proto.SerializeAsString();
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

TEST(Doctor, BisectsToTheFewestNodesOfACommand) {
  const TemporaryDirectory directory;
  TestModel model = Network().linear("a", 16, 1).linear("b", 16, 1).linear("c", 16, 1).linear("d", 4, 1).done();
  Recipe recipe;
  recipe.model = (directory.path() / "m.onnx").string(), recipe.batch = 8;
  std::ofstream(recipe.model, std::ios::binary) << model.proto.SerializeAsString();
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
