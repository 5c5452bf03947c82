// train, eval, export and bench over a step that was compiled before, and the files a run leaves.
#include <gtest/gtest.h>

#include <filesystem>

#include "compiler/compile.h"
#include "ir/builder.h"
#include "tests/cli/cli_fixture.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Compiled : public Cli {
 protected:
  const Arguments keys_{"--batch", "8",           "--accumulation", "2",       "--precision",
                        "bf16",    "--optimizer", "adam",           "--shape", "-1,4"};
};

TEST_F(Compiled, TrainsAsItsModelDoes) {
  write("m.onnx", tiny_mlp());
  const Arguments run_keys = Arguments{"--epochs", "3", "--seed", "5", "--learning_rate", "0.02"} + data({4});
  succeed(Arguments{"compile", "m.onnx", "-o", "step", "--architecture", "native"} + keys_);
  const std::string program = read("step/program.train.txt");
  const json trained = json::parse(succeed(Arguments{"train", "step", "--out", "a", "--json"} + run_keys));
  EXPECT_FALSE(trained.contains("compile"));  // it was not compiled again
  EXPECT_EQ(read("step/program.train.txt"), program);
  succeed(Arguments{"train", "m.onnx", "--out", "b"} + keys_ + run_keys);
  for (const char* file : {"weights.safetensors", "slots.safetensors", "manifest.json"})
    EXPECT_EQ(read(std::string("a/checkpoints/step-000000012/") + file),
              read(std::string("b/checkpoints/step-000000012/") + file));
  // The record of the run says what held.
  EXPECT_THAT(read("a/recipe.toml"), testing::AllOf(HasSubstr("batch = 8\n"), HasSubstr("precision = \"bf16\"")));
  EXPECT_EQ(json::parse(succeed({"bench", "step", "--repeats", "3", "--json"}))["batch"], 8);
}

TEST_F(Compiled, KeysThatNeedAnotherCompilationAreRefusedByName) {
  write("m.onnx", tiny_mlp());
  succeed(Arguments{"compile", "m.onnx", "-o", "step"} + keys_);
  fail(1,
       Arguments{"train", "step", "--batch", "16", "--precision", "fp16", "--momentum", "0.5", "--epochs", "2"} +
           data({4}),
       {"batch: 'step' was compiled with 8, 16 is asked for: compile the model again, or leave it out",
        "precision: 'step' was compiled with bf16, fp16 is asked for", "momentum: "});
  EXPECT_THAT(run(Arguments{"train", "step", "--accumulation", "4"} + data({4})).err,
              testing::Not(HasSubstr("epochs")));
  // The same values are no contradiction.
  succeed(Arguments{"train", "step", "--out", "run", "--batch", "8", "--device", "auto", "--seed", "1"} + data({4}));
}

TEST_F(Compiled, RecipesBecomeItsBase) {
  write("m.onnx", tiny_mlp());
  data({4});
  std::filesystem::create_directory(path("recipes"));
  write("recipes/r.toml",
        "model = \"../m.onnx\"\ndata = \"x=../x.npy,labels=../y.npy\"\nepochs = 2\nbatch = 4\nout = \"there\"\n");
  succeed({"compile", "recipes/r.toml", "-o", "step"});
  const json trained = json::parse(succeed({"train", "step", "--json"}));
  EXPECT_EQ(trained["steps"], 32);
  EXPECT_TRUE(std::filesystem::exists(path("there/m.trained.onnx")));
  // Without the ONNX file there is no trained one, and everything else.
  std::filesystem::remove(path("m.onnx"));
  const Finished alone = run({"train", "step", "--out", "alone"});
  EXPECT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_THAT(alone.err, HasSubstr("no trained ONNX file is written"));
  EXPECT_TRUE(std::filesystem::exists(path("alone/checkpoints/step-000000032")));
}

TEST_F(Compiled, DamageIsRefused) {
  write("m.onnx", tiny_mlp());
  succeed({"compile", "m.onnx", "-o", "step"});
  std::string program = read("step/program.train.txt");
  write("step/program.train.txt", program + " ");
  fail(1, Arguments{"train", "step"} + data({4}), {"cannot load compiled step 'step'", "program.train.txt"});
  write("step/manifest.json", "{}");
  fail(1, {"bench", "step"}, {"cannot load compiled step 'step'", "manifest"});
}

TEST_F(Compiled, EvaluationRepeatsWhatTrainingReported) {
  write("m.onnx", tiny_convnet());
  const Arguments keys = Arguments{"--batch", "24", "--learning_rate", "0.1"} + data({1, 6, 6}, 100);
  const json trained =
      json::parse(succeed(Arguments{"train", "m.onnx", "--epochs", "4", "--out", "run", "--json"} + keys));
  const json& last = trained["epochs"].back();
  EXPECT_GT(last["test_accuracy"], 0.5);
  const auto check = [&](const Arguments& command) {
    const json found = json::parse(succeed(command + Arguments{"--json"} + keys));
    EXPECT_EQ(found["samples"], 100);
    EXPECT_EQ(found["accuracy"], last["test_accuracy"]);
    EXPECT_EQ(found["loss"], last["test_loss"]);
  };
  check({"eval", "m.onnx", "--checkpoint", "run/checkpoints"});
  succeed(Arguments{"compile", "m.onnx", "-o", "step"} + keys);
  check({"eval", "step", "--checkpoint", "run/checkpoints"});
  // The trained model and an exported one hold these weights.
  check({"eval", "run/m.trained.onnx"});
  succeed({"export", "step", "--checkpoint", "run/checkpoints", "-o", "exported.onnx"});
  EXPECT_EQ(read("exported.onnx"), read("run/m.trained.onnx"));
  EXPECT_NE(json::parse(succeed(Arguments{"eval", "m.onnx", "--json"} + keys))["loss"], last["test_loss"]);
}

TEST_F(Compiled, ExportedModelsImportWithTheTrainedWeights) {
  write("m.onnx", tiny_convnet());
  succeed(Arguments{"train", "m.onnx", "--batch", "8", "--out", "run"} + data({1, 6, 6}));
  const FileTensors trained = read_checkpoint_weights(path("run/checkpoints"));
  const ImportedModel imported = import_model(read_onnx_file(path("run/m.trained.onnx")));
  const FileTensors weights = in_onnx_layout(imported.graph, imported.weights);
  for (const char* name : {"w", "fc.weight", "bn.scale", "bn.bias", "bn.mean", "bn.var"}) {
    EXPECT_EQ(weights.at(name), trained.at(name)) << name;
    EXPECT_NE(trained.at(name),
              in_onnx_layout(imported.graph, import_model(read_onnx_file(path("m.onnx"))).weights).at(name));
  }
}

TEST(Arena, HoldsParametersAsThePassesLayThemOut) {
  const Tensor onnx = ramp({2, 3, 4}), plain = ramp({5}, 100);
  Builder b("model");
  b.output("w", b.parameter("w", {DType::f32, {4, 2, 3}}, {2, 0, 1}));  // as the import stores it
  b.output("v", b.parameter("v", plain.type));
  const Graph imported = std::move(b).finish();
  for (const Ints& permutation : {Ints{}, Ints{1, 2, 0}, Ints{2, 0, 1}, Ints{2, 1, 0}}) {
    const Tensor wanted = permutation.empty() ? onnx : onnx.transpose(permutation);
    ArenaLayout arenas;
    arenas.size = 40, arenas.slices = {{"w", wanted.type.shape, permutation, 0}, {"v", {5}, {}, 32}};
    const FileTensors weights{{"w", onnx.transpose(Ints{2, 0, 1})}, {"v", plain}};
    const Tensor arena =
        gather_parameters(arenas, imported, [&](const std::string& weight) { return weights.at(weight); });
    for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(arena.at(i), wanted.at(i)) << to_string(permutation) << " " << i;
    for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(arena.at(32 + i), plain.at(i));
  }
}

}  // namespace
}  // namespace halfstep::test
