// A run that is stuck names the node at fault.
#include <gtest/gtest.h>

#include <cmath>

#include "compiler/find_non_finite.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Headway : public Cli {
 protected:
  Arguments train(const Arguments& more) const {
    return Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "20", "--overflow_limit", "3"} + data({4}) + more;
  }
};

// x * 1e3 * 1e3 overflows fp16 in the second product.
TestModel overflowing() {
  TestModel m = tiny_mlp();
  m.proto.mutable_graph()->mutable_node(0)->set_input(0, "x2");
  m.weight("a", floats({4}, {1, 1, 1, 1})).weight("k", floats({4, 4}, std::vector<double>(16, 1e3)));
  m.node("MatMul", {"x", "k"}, {"x1"}, {}, "grow").node("MatMul", {"x1", "k"}, {"x2"}, {}, "burst");
  return m;
}

TEST_F(Headway, AnOverflowInTheForwardNamesItsNode) {
  write("m.onnx", overflowing());
  fail(1, train({}),
       {"training stopped at step", "with the loss scale at its floor 1",
        "the first value that is not finite: an infinity in the output of 'burst' (MatMul) for sample ", "f16[8,4]",
        "e+06, and f16 ends at 65504: --deny burst keeps it in f32"});
  EXPECT_EQ(run(train({"--deny", "*", "--out", "other", "--learning_rate", "1e-12"})).exit_code, 0);
}

TEST_F(Headway, AnOverflowInTheBackwardNamesItsNode) {
  write("m.onnx", tiny_mlp());
  // The loss's own gradient is 1e5 / 8 at most; the large weights of fc2 carry it out of range.
  TestModel m = tiny_mlp();
  Tensor w2 = ramp({3, 8}, 100, 10);
  *m.proto.mutable_graph()->mutable_initializer(2) = tensor_proto("w2", w2);
  write("m.onnx", m);
  fail(1, train({"--loss_scale", "fixed", "--initial_scale", "100000", "--learning_rate", "0"}),
       {"the first value that is not finite: an infinity in the gradient that 'fc2' (Gemm) hands back for sample ",
        "and f16 ends at 65504: a loss scale of at most ", " keeps it in range"});
}

// A scale or a type does not help there, and is not offered.
TEST_F(Headway, WhatNoPrecisionHoldsIsSaid) {
  TestModel m = tiny_mlp();
  m.proto.mutable_graph()->mutable_node(0)->set_input(0, "x2");
  m.weight("k", floats({4}, {0, 0, 0, 0}));
  m.node("Div", {"x", "k"}, {"x2"}, {}, "ratio");
  write("m.onnx", m);
  for (const std::string precision : {"fp32", "bf16", "fp16"}) {
    const Finished finished = run(train({"--precision", precision, "--out", precision}));
    EXPECT_EQ(finished.exit_code, 1) << precision;
    EXPECT_THAT(finished.err, AllOf(HasSubstr("an infinity in the output of 'ratio' (Div) for sample"),
                                    HasSubstr("it is not finite in double precision either"),
                                    HasSubstr("its model, weights or data are at fault"),
                                    testing::Not(HasSubstr("loss scale of at most"))));
    EXPECT_FALSE(std::filesystem::exists(path(precision + "/m.trained.onnx")));
  }
}

TEST_F(Headway, WithoutAScaleTheFirstStepThatIsNotFiniteEndsTheRunAndChangesNothing) {
  write("m.onnx", tiny_mlp());
  for (const std::string precision : {"fp32", "bf16"})
    fail(1, train({"--precision", precision, "--learning_rate", "1e30", "--checkpoint_every", "1", "--out", precision}),
         {"training stopped at step ", "of this step are not finite", "lower the learning rate or clip the gradients",
          "the first value that is not finite: ",
          "the last checkpoint is '" + precision + "/checkpoints/step-00000000"});
}

TEST_F(Headway, ARunWithoutAFiniteStepWritesNoTrainedModel) {
  write("m.onnx", overflowing());
  fail(1, train({"--max_steps", "3"}),
       {"training has changed nothing: in each of its 3 steps", "--deny burst keeps it in f32"});
  EXPECT_FALSE(std::filesystem::exists(path("run/m.trained.onnx")));
}

TEST_F(Headway, WeightsThatTheLastStepRuinedAreNotWritten) {
  write("m.onnx", tiny_mlp());
  fail(1, train({"--precision", "fp32", "--learning_rate", "1e38", "--weight_decay", "1e38", "--max_steps", "1"}),
       {"weights are not finite any more: 'b1' (", "no trained model is written"});
  EXPECT_FALSE(std::filesystem::exists(path("run/m.trained.onnx")));
}

TEST_F(Headway, LossScalesThatRuinARunAreRefused) {
  write("m.onnx", tiny_mlp());
  for (const std::string scale : {"0", "-1", "-0", "3.5e38", "1e-40", "nan", "inf"})
    fail(1, train({"--initial_scale", scale}), {"initial_scale: "});
}

TEST_F(Headway, WeightsThatAreGoneAreNamed) {
  write("m.onnx", tiny_mlp());
  fail(1, train({"--precision", "fp32", "--loss_scale", "none", "--learning_rate", "1e30"}),
       {"the loss of this step is not finite", "weights are not finite any more: 'b1' ("});
}

class Explanation : public Cli {
 protected:
  // What is said of a step over all 64 samples.
  std::string explain(const TestModel& model, double scale) const {
    Recipe recipe;
    recipe.model = path(write("m.onnx", model)).string(), recipe.batch = 8;
    const ImportedModel imported = import_model(read_onnx_file(recipe.model), {.batch = 8});
    ModelState state{in_onnx_layout(imported.graph, imported.weights), {}};
    state.slots["loss_scale.scale"] = Tensor::scalar(DType::f32, scale);
    data({4});
    const Dataset dataset =
        open_dataset("x=" + path("x.npy").string() + ",labels=" + path("y.npy").string(), Split::train);
    HeadwayError::Step step{.step = 9, .iteration = 9, .seed = 0};
    for (int64_t i = 0; i < 8; ++i) step.samples.push_back(40 + i);
    return explain_non_finite(recipe, state, dataset, {}, step);
  }
};

TEST_F(Explanation, NamesTheSampleOfTheDataSet) {
  EXPECT_THAT(explain(overflowing(), 1), AllOf(HasSubstr("'burst' (MatMul) for sample 40,")));
}

TEST_F(Explanation, OfAFiniteStepSaysWhatIsLeft) {
  EXPECT_THAT(explain(tiny_mlp(), 1), HasSubstr("a replay of 8 of the step's 8 samples, 8 at a time, stayed finite, "
                                                "forward and backward, and so did one of whole batches"));
}

TEST_F(Explanation, WithoutTheModelsFileIsSaid) {
  Recipe recipe;
  recipe.model = path("gone.onnx").string();
  EXPECT_THAT(explain_non_finite(recipe, {}, {}, {}, {}), HasSubstr("file is gone"));
}

}  // namespace
}  // namespace halfstep::test
