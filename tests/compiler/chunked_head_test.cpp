// A step whose logits are computed in chunks of rows trains as one that has them whole.
#include <gmock/gmock.h>

#include "ir/text.h"
#include "tests/compiled_graph.h"
#include "tests/random_tensors.h"
#include "training/checkpoint_state.h"

namespace halfstep {
namespace {

constexpr int64_t kVocabulary = 517, kWidth = 24, kBatch = 8, kPositions = 4;  // classes are padded, and no multiples

struct HeadCase {
  std::string name;
  bool tied = true, biased = false;
  LossOptions loss = {};
  OptimizerOptions optimizer = {};
  int64_t heads = 1;
};
void PrintTo(const HeadCase& c, std::ostream* out) { *out << c.name; }

LossOptions loss_with(std::map<std::string, std::vector<double>> parameters, std::optional<int64_t> ignored = {}) {
  LossOptions loss;
  for (auto& [key, values] : parameters) loss.parameters[key] = values;
  loss.ignore_index = ignored;
  return loss;
}

std::vector<double> class_weights() {
  std::vector<double> weights;
  for (int64_t i = 0; i < kVocabulary; ++i) weights.push_back(0.25 + static_cast<double>(i % 7));
  return weights;
}

std::vector<HeadCase> head_cases() {
  std::vector<HeadCase> cases{
      {.name = "tied"},
      {.name = "untied", .tied = false},
      {.name = "biased", .tied = false, .biased = true},
      {.name = "ignored", .loss = loss_with({}, 3)},
      {.name = "smoothed", .loss = loss_with({{"label_smoothing", {0.1}}}, 3)},
      {.name = "weighted", .tied = false, .loss = loss_with({{"class_weights", class_weights()}}, 3)},
      {.name = "weighted_and_smoothed",
       .loss = loss_with({{"class_weights", class_weights()}, {"label_smoothing", {0.1}}})},
      {.name = "focal", .loss = loss_with({{"focal_gamma", {2}}})},
      {.name = "accumulated", .biased = true, .loss = loss_with({}, 3)},
      {.name = "overflowing"},
      {.name = "several", .tied = false, .loss = loss_with({}, 3), .heads = 2},
      {.name = "backward_each", .tied = false, .heads = 2},
  };
  for (HeadCase& c : cases) {
    c.loss.class_axis = 2, c.loss.model_outputs = LossOptions::dropped;
    c.optimizer.parameters["momentum"] = 0.9;
    c.optimizer.scaling = {.mode = LossScaleMode::dynamic, .initial = 256};
    if (c.name == "accumulated") c.optimizer.accumulation = 2;
    if (c.name == "overflowing") c.optimizer.scaling.initial = 0x1p22;
    for (int64_t head = 0; c.heads > 1 && head < c.heads; ++head) {
      LossTerm term{.name = "head" + std::to_string(head), .weight = head == 0 ? 1 : 0.5, .loss = c.loss};
      term.loss.output = "logits" + std::to_string(head);
      c.loss.terms.push_back(term);
    }
    if (c.name == "backward_each") c.optimizer.scaling.losses = {1, 0.5};
  }
  return cases;
}

Graph model_of(const HeadCase& c) {
  Builder b("model");
  const Value table = b.parameter("table", {DType::f32, {kVocabulary, kWidth}});
  const Value ids = b.input("ids", {DType::i64, {kBatch, kPositions}});
  const Value x = b.reshape(b.call("gather", {table, ids}, {{"axis", int64_t{0}}}), {kBatch * kPositions, kWidth});
  const Value h = b.unary("tanh", b.matmul(x, b.parameter("hidden", {DType::f32, {kWidth, kWidth}})));
  for (int64_t head = 0; head < c.heads; ++head) {
    const std::string number = c.heads > 1 ? std::to_string(head) : "";
    const Value w = c.tied ? table : b.parameter("head" + number, {DType::f32, {kVocabulary, kWidth}});
    const Shape wide{kBatch * kPositions, kVocabulary};
    Value logits = b.matmul(h, w, {{"transpose_b", int64_t{1}}});
    if (c.biased) {
      const Value bias = b.parameter("bias" + number, {DType::f32, {kVocabulary}});
      logits = b.add(logits, b.broadcast(b.reshape(bias, {1, kVocabulary}), wide));
    }
    b.output("logits" + number, b.reshape(logits, {kBatch, kPositions, kVocabulary}));
  }
  return std::move(b).finish();
}

struct Trained {
  std::vector<double> losses, scales;
  NamedTensors states;
};

Trained train(const Graph& model, const HeadCase& c, const TrainingPipelineOptions& options) {
  const std::unique_ptr<Executor> executor = compile_step(model, options, DeviceKind::cpu);
  FileTensors weights;
  uint64_t seed = 1;
  for (const Node& node : model.nodes())
    if (node.op->leaf == Leaf::parameter)
      weights[node.attributes.text("name")] = random_tensor(node.results[0], ++seed, -0.5, 0.5, 0);
  write_weights(*executor, weights, "weights");
  Trained run;
  for (int step = 0; step < 4; ++step) {
    NamedTensors inputs{{kStepLearningRate, Tensor::scalar(DType::f32, 0.1)},
                        {kStepSeed, Tensor::scalar(DType::i64, 1)},
                        {kStepIteration, Tensor::scalar(DType::i32, step)}};
    const TensorType tokens{DType::i64, {kBatch, kPositions}};
    for (const char* name : {"ids", "labels", "labels0", "labels1"})
      inputs[name] = random_tensor(tokens, 100 + static_cast<uint64_t>(step), 0, 0, name[0] == 'i' ? kVocabulary : 9);
    const bool adds = c.optimizer.accumulation > 1 && step % 2 == 0;
    const NamedTensors outputs = run_program(*executor, adds ? "accumulate" : "train", inputs);
    run.losses.push_back(outputs.at(kLoss).at(0));
    if (!adds) run.scales.push_back(outputs.at(kOverflow).at(0));
  }
  for (const Buffer& buffer : executor->model().find("train")->buffers)
    if (buffer.kind == BufferKind::state && !buffer.name.is(Role::transient))
      run.states[buffer.name] = executor->read_state(buffer.name);
  return run;
}

void expect_near(const Tensor& found, const Tensor& expected, double tolerance, const std::string& what) {
  double most = 0;
  for (int64_t i = 0; i < expected.type.element_count(); ++i)
    most = std::max(most, std::abs(found.at(i) - expected.at(i)) / std::max(1.0, std::abs(expected.at(i))));
  EXPECT_LE(most, tolerance) << what;
}

class ChunkedHead : public testing::TestWithParam<HeadCase> {};

TEST_P(ChunkedHead, TrainsAsTheWholeOne) {
  const Graph model = model_of(GetParam());
  for (const bool low : {false, true})
    for (const TargetForms& forms : {TargetForms{}, kGpuForms}) {
      SCOPED_TRACE(std::string(low ? "fp16" : "fp32") + (forms.product_alignment > 1 ? ", forms of the GPU" : ""));
      TrainingPipelineOptions options;
      options.loss = GetParam().loss, options.optimizer = GetParam().optimizer, options.forms = forms;
      if (low) options.autocast.low = DType::f16;
      const Trained whole = train(model, GetParam(), options);
      options.chunks = ChunkOptions{.fewest_bytes = 16384, .fewest_rows = 8, .most_traffic = 1e9};
      const Chunking chunking = run_training_pipeline(model, options).chunking;
      EXPECT_EQ(chunking.products, GetParam().heads);
      EXPECT_EQ(chunking.chunks, 4 * chunking.products);
      const Trained chunked = train(model, GetParam(), options);
      for (size_t i = 0; i < whole.losses.size(); ++i)
        EXPECT_NEAR(chunked.losses[i], whole.losses[i], (low ? 1e-3 : 1e-6) * std::abs(whole.losses[i])) << i;
      EXPECT_EQ(chunked.scales, whole.scales);
      for (const auto& [name, state] : whole.states)
        expect_near(chunked.states.at(name), state, low ? 1e-3 : 1e-6, to_string(name));
    }
}

INSTANTIATE_TEST_SUITE_P(, ChunkedHead, testing::ValuesIn(head_cases()), [](const auto& c) { return c.param.name; });

}  // namespace
}  // namespace halfstep
