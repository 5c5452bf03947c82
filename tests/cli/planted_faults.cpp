#include "tests/cli/planted_faults.h"

#include <fmt/format.h>

#include <cmath>
#include <random>

#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

// Uniform with this deviation; reproducible on every machine, which the standard's distributions are not.
Tensor spread(const Shape& shape, double deviation, uint32_t seed, double mean = 0) {
  std::mt19937 random(seed);
  Tensor tensor(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < tensor.type.element_count(); ++i)
    tensor.set(i, mean + deviation * (static_cast<double>(random()) / 2147483648.0 - 1) * 1.7320508);
  return tensor;
}

// Of an operator that reads its axes.
std::string last_axis(TestModel& model) {
  model.weight("last_axis", ints({1}, {-1}));
  return "last_axis";
}

const Arguments kTorch{"--preset", "torch"}, kApexO3{"--preset", "apex-o3"};

PlantedFault overflow_forward() {
  Layers n;
  n.linear("in", 16, 1);
  const std::string stream = n.last();
  n.linear("up", 32, 400).op("Relu", "relu").linear("down", 16, 400).op("Add", "residual", {stream}).norm("norm");
  return {"OverflowForward", n.linear("out", 4, 1).done(), kTorch, {"down"}, "400 * 400 * 0.7 is beyond 65504"};
}

PlantedFault underflow_forward() {
  Layers n;
  n.linear("logp", 16, 1).with("Sub", "unlikely", 22).op("Exp", "likelihood");
  n.model.weight("mixture.weight", spread({16, 4}, 0.02, 77, 0.25));
  n.op("MatMul", "mixture", {"mixture.weight"}).op("Log", "log");
  return {"UnderflowForward", n.done(), kTorch, {"mixture"}, "exp(-22) is 3e-10; f16 ends at 3e-8"};
}

PlantedFault overflow_backward() {
  Layers n;
  n.linear("in", 16, 1).linear("small", 16, 1e-3).norm("norm").linear("mid", 16, 1).op("Relu", "relu");
  return {"OverflowBackward",
          n.linear("out", 4, 1).done(),
          {"--loss_scale", "fixed", "--initial_scale", "65536"},
          {"small"},
          "the norm divides gradients of 65536 * 0.05 / 8 by 1e-3"};
}

PlantedFault underflow_backward() {
  Layers n;
  n.linear("in", 16, 1).op("Tanh", "tanh").linear("out", 64, 1e-3).with("Pow", "square", 2);
  n.op("ReduceMean", "mean", {}, {{"keepdims", int64_t{0}}});
  return {"UnderflowBackward",
          n.done("error"),
          kTorch + Arguments{"--loss", "from_graph", "--loss_scale", "none", "--optimizer", "adam", "--learning_rate",
                             "0.02", "--freeze", "out*"},
          {"tanh"},
          "2 * 1e-3 / 512 * 1e-3 / 4 * sqrt(64) is 8e-9; f16 ends at 3e-8"};
}

PlantedFault attention() {
  TestModel m;
  m.input("x", {8, 16}).weight("into", spread({16, 64}, 0.25, 1)).weight("shape", ints({3}, {-1, 4, 16}));
  m.node("MatMul", {"x", "into"}, {"t"}, {}, "tokens").node("Reshape", {"t", "shape"}, {"s"}, {}, "split");
  for (const char* w : {"q", "k", "v"}) {
    m.weight(fmt::format("{}.w", w), spread({16, 16}, *w == 'v' ? 0.25 : 75, static_cast<uint32_t>(*w)));
    m.node("MatMul", {"s", fmt::format("{}.w", w)}, {w}, {}, w);
  }
  m.node("Transpose", {"k"}, {"kt"}, {{"perm", Ints{0, 2, 1}}}, "kt").node("MatMul", {"q", "kt"}, {"qk"}, {}, "scores");
  m.weight("cap", floats({}, {0x1p18})).weight("strength", floats({}, {8}));  // soft-capped scores
  m.node("Div", {"qk", "cap"}, {"c"}, {}, "over_cap").node("Tanh", {"c"}, {"ct"}, {}, "soft");
  m.node("Mul", {"ct", "strength"}, {"cs"}, {}, "times_cap");
  m.node("Softmax", {"cs"}, {"p"}, {{"axis", int64_t{-1}}}, "softmax");
  m.node("MatMul", {"p", "v"}, {"a"}, {}, "mix").node("Flatten", {"a"}, {"f"}, {}, "flat");
  m.weight("o.w", spread({64, 4}, 0.25, 9)).node("MatMul", {"f", "o.w"}, {"logits"}, {}, "out").output("logits");
  return {"Attention", m, kTorch, {"scores"}, "300 * 300 * sqrt(16) is 360000"};
}

PlantedFault norm() {
  Layers n;
  n.linear("in", 16, 400);
  const std::string x = n.last();
  n.op("Mul", "square", {x}).op("ReduceSum", "sum", {last_axis(n.model)}).op("Sqrt", "length");
  n.model.node("Div", {x, n.last()}, {"unit"}, {}, "divide");
  return {"Norm", n.from("unit", 16).linear("out", 4, 4).done(), kTorch, {"square"}, "400 * 400 is 160000"};
}

PlantedFault embedding() {
  TestModel m;
  m.input("ids", {8, 4}, onnx::TensorProto::INT64).weight("users", spread({20, 16}, 400, 3));
  m.weight("items", spread({20, 16}, 400, 4)).node("Gather", {"users", "ids"}, {"u"}, {}, "user");
  m.node("Gather", {"items", "ids"}, {"i"}, {}, "item").node("Mul", {"u", "i"}, {"ui"}, {}, "match");
  m.weight("n.w", ramp({16}, 1, 0)).weight("n.b", ramp({16}, 0, 0));
  m.node("LayerNormalization", {"ui", "n.w", "n.b"}, {"n"}, {{"axis", int64_t{-1}}}, "norm");
  m.node("Flatten", {"n"}, {"f"}, {}, "flat").weight("o.w", spread({64, 4}, 0.25, 9));
  m.node("MatMul", {"f", "o.w"}, {"logits"}, {}, "out").output("logits");
  return {"Embedding", m, kApexO3 + Arguments{"--learning_rate", "0.2"}, {"match"}, "rows of 400 * 400"};
}

PlantedFault loss() {
  Layers n;
  n.linear("student_in", 16, 1).op("Tanh", "student_tanh").linear("student", 4, 300);
  const std::string student = n.last();
  n.from("x", 16).linear("teacher_in", 16, 1).op("Tanh", "teacher_tanh").linear("teacher", 4, 400);
  n.op("Sub", "distance", {student});
  const std::string distance = n.last();
  n.op("Mul", "square", {distance}).op("ReduceMean", "mean", {}, {{"keepdims", int64_t{0}}});
  return {"Loss",
          n.done("distillation"),
          kTorch + Arguments{"--loss", "from_graph", "--learning_rate", "1e-5", "--freeze", "teacher*"},
          {"square"},
          "a distance of 500, squared, is 250000"};
}

PlantedFault weight() {
  Layers n;
  n.with("Mul", "metres", 1e-4).linear("first", 16, 6e5).op("Tanh", "tanh").linear("out", 4, 1);
  return {"Weight", n.done(), {}, {"first"}, "weights of 150000"};
}

PlantedFault update() {
  Layers n;
  n.linear("hidden", 16, 4).op("Tanh", "tanh").linear("out", 4, 4);
  return {"Update",
          n.done(),
          kApexO3 + Arguments{"--learning_rate", "0.001"},
          {"hidden.weight", "out.weight"},
          "0.001 * 0.05 is below half of 2^-10, what a weight of 1 moves by",
          400};
}

PlantedFault variance() {
  Layers n;
  const AttributeList rows{{"axes", Ints{-1}}};
  n.linear("in", 16, 1, 200);
  const std::string x = n.last();
  n.op("ReduceMean", "mean", {}, rows).op("Mul", "mean_squared", {"mean.out"});
  n.from(x, 16).op("Mul", "square", {x}).op("ReduceMean", "mean_of_squares", {}, rows);
  n.op("Sub", "variance", {"mean_squared.out"}).op("Abs", "abs").op("Sqrt", "deviation");
  n.from(x, 16).op("Sub", "centred", {"mean.out"}).op("Div", "normed", {"deviation.out"}).linear("out", 4, 1);
  return {"VarianceOfLargeMeans",
          n.done(),
          kTorch,
          {"variance", "mean_of_squares", "square", "mean_squared", "mean"},
          "40000 + 1 in steps of 32"};
}

PlantedFault temperature() {
  Layers n;
  n.linear("in", 16, 1).linear("keys", 16, 0.05, 12).with("Mul", "sharper", 100);
  n.op("Softmax", "softmax", {}, {{"axis", int64_t{-1}}}).linear("out", 4, 4);
  return {"SoftmaxTemperature",
          n.done(),
          kTorch + Arguments{"--learning_rate", "1e-4"},
          {"softmax", "keys", "sharper"},
          "12 in steps of 2^-7, times 100"};
}

PlantedFault gate() {
  Layers n;
  n.linear("in", 16, 1).with("Add", "open", 12).op("Exp", "gate").linear("read", 16, 0.1).norm("norm");
  return {"ExponentialGate", n.linear("out", 4, 1).done(), kTorch, {"read"}, "exp(12) is 160000"};
}

PlantedFault deviation_near_zero() {
  Layers n;
  n.model.weight("groups", ints({3}, {-1, 4, 4}));
  n.linear("in", 16, 1e-4).op("Reshape", "split", {"groups"});
  const std::string x = n.last();
  n.op("Mul", "square", {x}).op("ReduceMean", "mean", {}, {{"axes", Ints{-1}}, {"keepdims", int64_t{0}}});
  n.with("Add", "epsilon", 1e-12).op("Sqrt", "deviation").from("deviation.out", 4).with("Mul", "scale", 1e4);
  return {"DeviationNearZero",
          n.done(),
          kTorch + Arguments{"--learning_rate", "1e-9"},
          {"square"},
          "1e-4 * 1e-4 is 1e-8; f16 ends at 3e-8"};
}

PlantedFault length_of_zero() {
  Layers n;
  n.linear("in", 16, 1);
  const std::string stream = n.last();
  n.op("Sub", "distance", {stream});
  const std::string zero = n.last();
  n.op("Mul", "square", {zero}).op("ReduceSum", "sum", {last_axis(n.model)}).with("Add", "epsilon", 1e-16);
  n.op("Sqrt", "length");
  const std::string length = n.last();
  n.from(stream, 16).op("Add", "shifted", {length}).op("Tanh", "tanh").linear("out", 4, 1);
  return {"LengthOfZero", n.done(), kTorch, {"square", "sum"}, "the root's slope is 5e7 where fp32 multiplies it by 0"};
}

PlantedFault offset() {
  Layers n;
  n.linear("in", 16, 1).with("Add", "kelvin", 273).with("Sub", "celsius", 273).linear("out", 4, 1);
  return {"OffsetInBf16",
          n.done(),
          kTorch + Arguments{"--precision", "bf16"},
          {"kelvin", "celsius"},
          "bf16 steps by 2 at 273, and what stood there is 1"};
}

PlantedFault mean_of_many() {
  Layers n;
  n.model.weight("column", ints({3}, {-1, 16, 1})).weight("many", ints({3}, {8, 16, 12800}));
  n.linear("in", 16, 1).op("Reshape", "split", {"column"}).op("Expand", "repeat", {"many"});
  n.op("ReduceMean", "mean", {}, {{"axes", Ints{1, 2}}, {"keepdims", int64_t{0}}});
  n.from("mean.out", 1).op("Unsqueeze", "again", {last_axis(n.model)}).linear("out", 4, 1);
  return {"MeanOfMany",
          n.done(),
          {"--preset", "apex-o2"},
          {},
          "200,000 elements are summed in fp32, whatever they are stored in"};
}

}  // namespace

Layers::Layers(int64_t features) : width_(features) { model.input("x", {8, features}); }

Layers& Layers::linear(const std::string& name, int64_t to, double scale, double bias) {
  model.weight(name + ".weight", spread({width_, to}, scale / std::sqrt(static_cast<double>(width_)), ++seed_));
  model.weight(name + ".bias", spread({to}, 0, 1, bias));
  width_ = to;
  return op("Gemm", name, {name + ".weight", name + ".bias"});
}

Layers& Layers::op(const std::string& op, const std::string& name, const std::vector<std::string>& more,
                   const AttributeList& attributes) {
  std::vector<std::string> inputs{last_};
  inputs.insert(inputs.end(), more.begin(), more.end());
  last_ = name + ".out";
  model.node(op, inputs, {last_}, attributes, name);
  return *this;
}

Layers& Layers::norm(const std::string& name) {
  model.weight(name + ".weight", ramp({width_}, 1, 0)).weight(name + ".bias", ramp({width_}, 0, 0));
  return op("LayerNormalization", name, {name + ".weight", name + ".bias"},
            {{"axis", int64_t{-1}}, {"epsilon", 1e-12}});
}

Layers& Layers::with(const std::string& op, const std::string& name, double constant) {
  model.weight(name + ".by", floats({}, {constant}));
  return this->op(op, name, {name + ".by"});
}

Layers& Layers::from(const std::string& value, int64_t width) {
  last_ = value, width_ = width;
  return *this;
}

TestModel Layers::done(const std::string& output) {
  model.node("Identity", {last_}, {output}, {}, output);
  return model.output(output);
}

std::vector<PlantedFault> planted_faults() {
  return {overflow_forward(),
          underflow_forward(),
          overflow_backward(),
          underflow_backward(),
          attention(),
          norm(),
          embedding(),
          loss(),
          weight(),
          update()};
}

std::vector<PlantedFault> further_faults() {
  return {variance(), temperature(), gate(), deviation_near_zero(), length_of_zero(), offset(), mean_of_many()};
}

Arguments fault_data(const std::filesystem::path& directory, const PlantedFault& fault) {
  constexpr int64_t kBatch = 8;
  const Tensor x = spread({kBatch, 16}, 1, 1234);
  std::string values, ids, labels;
  for (int64_t i = 0; i < kBatch * 16; ++i) append(values, static_cast<float>(x.at(i)));
  for (int64_t i = 0; i < kBatch * 4; ++i) append(ids, (i * 7 + i / 4) % 20);
  for (int64_t i = 0; i < kBatch; ++i)
    append(labels, static_cast<int64_t>(x.at(i * 16) > 0) + 2 * (x.at(i * 16 + 1) > 0));
  const auto write = [&](const char* name, const char* type, const std::string& row, const std::string& batch) {
    std::string all;
    for (int64_t step = 0; step < fault.steps; ++step) all += batch;
    write_file_atomically(directory / name, npy(type, fmt::format("({}{})", kBatch * fault.steps, row), all));
  };
  write("x.npy", "<f4", ", 16", values), write("ids.npy", "<i8", ", 4", ids), write("labels.npy", "<i8", ",", labels);
  const std::string input = fault.model.proto.graph().input(0).name();
  const bool labelled = fault.model.proto.graph().output(0).name() == "logits";
  return {"--data", input + "=" + input + ".npy" + (labelled ? ",labels=labels.npy" : ""), "--batch", "8", "--shuffle",
          "false"};
}

}  // namespace halfstep::test
