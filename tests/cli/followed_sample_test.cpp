// The test sample that train follows layer by layer at its end.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class FollowedSample : public Cli {};

// Its statistics are of a batch; evaluation takes the running ones, of one sample too.
TEST_F(FollowedSample, PassesABatchNormOverRows) {
  TestModel m(17);
  m.input("x", {2, 4}).weight("w", ramp({4, 3}, 0, 0.1)).weight("s", ramp({3}, 1, 0.1)).weight("b", ramp({3}, 0, 0.1));
  m.weight("mean", ramp({3}, 0, 0)).weight("var", ramp({3}, 1, 0));
  m.node("MatMul", {"x", "w"}, {"h"}).node("BatchNormalization", {"h", "s", "b", "mean", "var"}, {"logits"}, {}, "bn");
  write("m.onnx", m.output("logits"));
  EXPECT_THAT(succeed(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "1"} + data({4})),
              AllOf(HasSubstr("test sample 0, layer by layer"), HasSubstr("predicted class")));
}

TEST_F(FollowedSample, ThatCannotBeReadAloneIsANote) {
  TestModel m(17);
  m.input("x", {8, 4}).weight("w", ramp({4, 3}, 0, 0.1)).weight("pairs", ints({3}, {4, 2, 4}));
  m.weight("rows", ints({2}, {8, 4}));
  m.node("Reshape", {"x", "pairs"}, {"p"}).node("Reshape", {"p", "rows"}, {"r"}).node("MatMul", {"r", "w"}, {"logits"});
  write("m.onnx", m.output("logits"));
  const Finished finished = run(Arguments{"train", "m.onnx", "--batch", "8", "--epochs", "1"} + data({4}));
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_THAT(finished.err, HasSubstr("no sample is followed layer by layer"));
}

TEST_F(FollowedSample, OfManyLabelsHasNoOnePredictedClass) {
  TestModel m(17);
  m.input("x", {2, 3, 5}).weight("w", ramp({4, 3, 1}, -0.3, 0.05));
  m.node("Conv", {"x", "w"}, {"logits"}, {}, "conv").output("logits");  // [N, classes, positions]
  write("m.onnx", m);
  std::string x, labels;
  for (int i = 0; i < 16 * 15; ++i) append(x, static_cast<float>(std::sin(0.7 * i)));
  for (int i = 0; i < 16 * 5; ++i) append(labels, static_cast<int64_t>(i % 4));
  write("x.npy", npy("<f4", "(16, 3, 5)", x)), write("y.npy", npy("<i8", "(16, 5)", labels));
  const std::string out = succeed(
      {"train", "m.onnx", "--batch", "8", "--data", "x=x.npy,labels=y.npy", "--test_data", "x=x.npy,labels=y.npy"});
  EXPECT_THAT(out, HasSubstr("test sample 0, layer by layer"));
  EXPECT_THAT(out, testing::Not(HasSubstr("predicted class")));
}

}  // namespace
}  // namespace halfstep::test
