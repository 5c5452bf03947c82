// Graphs of many nodes: every pass, lowering and the search for dependencies take time in proportion.
#include <gmock/gmock.h>

#include <ctime>

#include "codegen/emit/module.h"
#include "codegen/lower/lower.h"
#include "codegen/target/target.h"
#include "ir/builder.h"
#include "passes/pipeline.h"
#include "program/program_check.h"
#include "tests/frontend/test_model.h"

namespace halfstep::test {
namespace {

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// h = h + relu(h w + b), again and again, each time with its own weights.
Graph residual_blocks(int64_t blocks) {
  Builder b("model");
  Value h = b.input("x", {DType::f32, {4, 8}});
  for (int64_t i = 0; i < blocks; ++i) {
    const std::string name = "block" + std::to_string(i);
    OriginScope scope(b, {name, Phase::forward});
    const Value w = b.parameter(name + ".weight", {DType::f32, {8, 8}}),
                bias = b.parameter(name + ".bias", {DType::f32, {8}});
    h = b.add(h, b.unary("relu", b.add(b.matmul(h, w), bias)));
  }
  b.output("logits", h);
  return std::move(b).finish();
}

// A recurrent layer over a long sequence.
Graph recurrent_layer(int64_t steps) {
  const int64_t hidden = 8;
  TestModel model(17);
  model.input("x", {steps, 4, 3})
      .weight("W", ramp({1, 4 * hidden, 3}, -0.1, 0.001))
      .weight("R", ramp({1, 4 * hidden, hidden}, -0.1, 0.0005))
      .weight("shape", ints({2}, {4, hidden}))
      .node("LSTM", {"x", "W", "R"}, {"", "last"}, {}, "lstm")
      .node("Reshape", {"last", "shape"}, {"logits"})
      .output("logits");
  return import_model(model.file(), {}).graph;
}

struct Effort {
  std::map<std::string, double> seconds;  // by stage
  size_t kernels = 0, steps = 0;
};

Effort compile(const Graph& model) {
  Effort effort;
  double last = processor_seconds();
  const auto lap = [&](const std::string& stage) {
    const double now = processor_seconds();
    effort.seconds[stage] += now - std::exchange(last, now);
  };
  TrainingPipelineOptions options;
  options.autocast.low = DType::f16;
  const PipelineResult result = run_training_pipeline(model, options);
  lap("passes");
  KernelModule module({DeviceKind::cpu, "x86-64-v3"});
  const Program program = lower(*result.find("train"), "train", module).program;
  lap("lower");
  dependencies(program);
  lap("dependencies");
  std::set<std::string> kernels;
  for (const Step& step : program.steps)
    if (const auto* launch = std::get_if<KernelLaunch>(&step.call)) kernels.insert(launch->kernel);
  effort.kernels = kernels.size(), effort.steps = program.steps.size();
  return effort;
}

void expect_proportional(Graph (*model)(int64_t), int64_t size) {
  const auto disproportionate = [](const Effort& small, const Effort& large) {
    std::vector<std::string> stages;
    for (const char* stage : {"passes", "lower", "dependencies"})
      if (large.seconds.at(stage) >= 8 * small.seconds.at(stage) + 0.05) stages.push_back(stage);
    return stages;
  };
  Effort small, large;
  std::vector<std::string> slow{"not measured"};
  // Other programs disturb a measurement; what is not in proportion is too slow in each.
  for (int trials = 0; trials < 5 && !slow.empty(); ++trials) {
    small = compile(model(size)), large = compile(model(4 * size));
    slow = disproportionate(small, large);
  }
  EXPECT_THAT(slow, testing::IsEmpty());
  EXPECT_GT(large.steps, 3 * small.steps);
  // Equal regions are one kernel, however many there are.
  EXPECT_LE(large.kernels, small.kernels + 4);
}

TEST(Scaling, ManyBlocks) { expect_proportional(residual_blocks, 100); }
TEST(Scaling, LongSequences) { expect_proportional(recurrent_layer, 50); }

}  // namespace
}  // namespace halfstep::test
