// A run that is stuck names the node at fault.
#include <gtest/gtest.h>

#include <cmath>

#include "driver/find_non_finite.h"
#include "tests/driver/cli_fixture.h"

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
        "f16 ends at 65504: --deny burst keeps it in f32"});
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
        "a loss scale below 100000 keeps it in range"});
}

TEST_F(Headway, WeightsThatAreGoneAreNamed) {
  write("m.onnx", tiny_mlp());
  fail(1, train({"--precision", "fp32", "--learning_rate", "1e30"}),
       {"the loss of the last 3 steps is not finite", "weights are not finite any more: 'b1' ("});
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
  EXPECT_THAT(explain(tiny_mlp(), 1), AllOf(HasSubstr("a replay of 8 of the step's 8 samples stayed finite"),
                                            HasSubstr("only sums over the whole batch overflow")));
}

TEST_F(Explanation, WithoutTheModelsFileIsSaid) {
  Recipe recipe;
  recipe.model = path("gone.onnx").string();
  EXPECT_THAT(explain_non_finite(recipe, {}, {}, {}, {}), HasSubstr("file is gone"));
}

}  // namespace
}  // namespace halfstep::test
