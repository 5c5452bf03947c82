// halfstep-run over what `halfstep compile` made: the same run as `halfstep train`, with the runtime alone.
#include <gtest/gtest.h>

#include <filesystem>

#include "data/npy.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Run : public Cli {
 protected:
  Finished run_step(const Arguments& arguments) const { return run(arguments, {.executable = "halfstep-run"}); }
  std::string succeed_step(const Arguments& arguments) const {
    const Finished finished = run_step(arguments);
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    return finished.out;
  }
  void fail_step(int code, const Arguments& arguments, const Arguments& parts) const {
    const Finished finished = run_step(arguments);
    EXPECT_EQ(finished.exit_code, code) << finished.err;
    for (const std::string& part : parts) EXPECT_THAT(finished.err, HasSubstr(part));
    EXPECT_THAT(finished.err, testing::StartsWith("halfstep-run: "));
    EXPECT_THAT(finished.err, testing::Not(HasSubstr("internal error")));
  }
  // A compiled tiny_mlp in "step".
  void compile(const Arguments& keys) const {
    write("m.onnx", tiny_mlp());
    succeed(Arguments{"compile", "m.onnx", "-o", "step", "--batch", "8", "--shape", "-1,4"} + keys);
  }
};

TEST_F(Run, TrainsAndEvaluatesToTheSameBits) {
  compile({"--accumulation", "2", "--optimizer", "adam", "--schedule", "cosine"});
  const Arguments keys = Arguments{"--epochs", "3", "--seed", "5", "--learning-rate", "0.02"} + data({4});
  const json with_run = json::parse(succeed_step(Arguments{"train", "step", "--out", "a", "--json"} + keys));
  const json with_all = json::parse(succeed(Arguments{"train", "step", "--out", "b", "--json"} + keys));
  ASSERT_EQ(with_run["epochs"].size(), 3u);
  for (size_t epoch = 0; epoch < 3; ++epoch)
    for (const char* value : {"loss", "test_loss", "test_accuracy"})
      EXPECT_EQ(with_run["epochs"][epoch][value], with_all["epochs"][epoch][value]);
  for (const char* file : {"weights.safetensors", "slots.safetensors", "manifest.json"})
    EXPECT_EQ(read(std::string("a/checkpoints/step-000000012/") + file),
              read(std::string("b/checkpoints/step-000000012/") + file));
  const Arguments eval = Arguments{"eval", "step", "--checkpoint", "a/checkpoints", "--json"} + data({4});
  EXPECT_EQ(json::parse(succeed_step(eval))["loss"], json::parse(succeed(eval))["loss"]);
  // It goes on where another stopped.
  succeed_step(Arguments{"train", "step", "--out", "b", "--resume", "b/checkpoints", "--epochs", "4", "--json"} +
               data({4}));
  EXPECT_TRUE(std::filesystem::exists(path("b/checkpoints/step-000000016")));
}

TEST_F(Run, PredictsWithoutLabels) {
  compile({"--keep_outputs", "true", "--precision", "fp16"});
  data({4}, 13);  // the last batch is not full
  succeed_step({"predict", "step", "--data", "x=x.npy", "-o", "all.npz"});
  succeed_step({"predict", "step", "--data", "x=x.npy,labels=y.npy", "-o", "logits.npy"});
  const FileTensors all = read_npz(path("all.npz"));
  ASSERT_EQ(all.size(), 1u);
  const Tensor& logits = all.at("logits");
  EXPECT_EQ(logits.type, (TensorType{DType::f32, {13, 3}}));
  EXPECT_EQ(read_npy(*open_data_file(path("logits.npy"))), logits);
  // Each row is its sample's: the labels say which output is the largest once it is trained.
  succeed_step(Arguments{"train", "step", "--epochs", "40", "--learning_rate", "0.3", "--out", "run"} + data({4}, 64));
  data({4}, 13);
  succeed_step({"predict", "step", "--checkpoint", "run/checkpoints", "--data", "x=x.npy", "-o", "after.npy"});
  const Tensor after = read_npy(*open_data_file(path("after.npy")));
  for (int64_t i = 0; i < 13; ++i)
    for (int64_t j = 0; j < 3; ++j) EXPECT_LE(after.at(i * 3 + j), after.at(i * 3 + i % 3)) << i;
}

TEST_F(Run, RefusesByName) {
  compile({});
  fail_step(1, Arguments{"train", "step", "--batch", "16"} + data({4}),
            {"batch: 'step' was compiled with 8, 16 is asked for"});
  fail_step(1, {"train", "step", "--epochs", "0", "--gamma", "x"}, {"--epochs: at least 1", "--gamma: a number"});
  fail_step(1, {"eval", "m.onnx"}, {"'m.onnx' is no directory that `halfstep compile` made"});
  fail_step(1, {"predict", "step", "--data", "x=x.npy", "-o", "p.npz"}, {"compile it again with keep_outputs true"});
  fail_step(2, {"train", "step", "--epoch", "3"}, {"no option '--epoch'; did you mean '--epochs'?"});
  fail_step(2, {"trian", "step"}, {"no command 'trian'; did you mean 'train'?"});
  fail_step(2, {"predict", "step", "-o", "p.txt"}, {"no file that ends in .npz, .npy, .csv or .jsonl"});
  fail_step(2, {"predict", "step", "-o", "p.csv", "--top", "none"}, {"--top 'none': a whole number of at least 1"});
  fail_step(2, {"train"}, {"DIR is missing"});
  fail_step(2, {}, {"a command is missing"});
  EXPECT_THAT(succeed_step({"--help"}), testing::AllOf(HasSubstr("native code"), HasSubstr("--learning_rate NUMBER")));
  EXPECT_THAT(succeed_step({"--version"}), testing::StartsWith("halfstep-run "));
}

}  // namespace
}  // namespace halfstep::test
