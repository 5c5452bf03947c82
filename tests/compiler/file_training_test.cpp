// A model that carries loss and optimizer trains without a recipe as with the one that it was written from.
#include "compiler/file_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "compiler/compile.h"
#include "compiler/training_graph.h"
#include "frontend/export/training_graph.h"
#include "tests/compiled_graph.h"
#include "tests/recorded.h"
#include "training/random_inputs.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Recipe with(const std::string& model, const std::vector<std::pair<std::string, std::string>>& keys) {
  Recipe recipe;
  recipe.model = model;
  for (const auto& [key, value] : keys) set_key(recipe, key, value);
  return recipe;
}

std::string own_model(const std::string& name) { return (source_directory() / "models" / name).string(); }

// The weights and slots after three steps on random data.
NamedTensors states_after_steps(const CompiledTraining& compiled, double rate) {
  const std::unique_ptr<Executor> executor = make_executor(compiled.model, kTestExecutor);
  for (int step = 0; step < 3; ++step) {
    fill_random(executor->model(), *executor->model().find("train"), rate, executor->begin_step(0));
    executor->submit();
    executor->poll(Wait::yes);
  }
  NamedTensors states;
  for (const Buffer& buffer : executor->model().find("train")->buffers)
    if (buffer.kind == BufferKind::state) states.emplace(buffer.name, executor->read_state(buffer.name));
  return states;
}

void expect_same_training(const std::string& model, const std::vector<std::pair<std::string, std::string>>& training) {
  SCOPED_TRACE(model);
  const TemporaryDirectory directory;
  const std::string file = (directory.path() / "trains.onnx").string();
  const std::vector<std::pair<std::string, std::string>> run{{"batch", "4"}, {"precision", "bf16"}};
  std::vector<std::pair<std::string, std::string>> both = run;
  both.insert(both.end(), training.begin(), training.end());
  const Recipe recipe = with(own_model(model), both);
  export_with_training(recipe, file, {});
  const Recipe found = over_training_of_file(with(file, run));
  EXPECT_EQ(found.learning_rate, recipe.learning_rate);
  const CompiledTraining expected = compile_training(recipe, DeviceKind::cpu);
  const CompiledTraining actual = compile_training(found, DeviceKind::cpu);
  ASSERT_EQ(actual.model.programs.size(), expected.model.programs.size());
  for (size_t i = 0; i < actual.model.programs.size(); ++i)
    EXPECT_EQ(print(actual.model.programs[i]), print(expected.model.programs[i]));
  EXPECT_EQ(actual.model.state, expected.model.state);
  EXPECT_EQ(states_after_steps(actual, found.learning_rate), states_after_steps(expected, recipe.learning_rate));
}

TEST(TrainingOfAFile, EqualsTheRecipeItWasWrittenFrom) {
  expect_same_training("mlp.onnx", {{"momentum", "0.9"}, {"learning_rate", "0.03"}});
  expect_same_training("lenet.onnx", {{"momentum", "0.8"},
                                      {"dampening", "0.1"},
                                      {"weight_decay", "0.0005"},
                                      {"no_decay", "vectors"},
                                      {"freeze", "c1.*"}});
  expect_same_training("lenet.onnx",
                       {{"loss", "mean_squared_error"}, {"optimizer", "adagrad"}, {"rate_decay", "0.01"}});
  expect_same_training("mlp.onnx", {{"loss", "l1"}, {"momentum", "0.9"}});
  expect_same_training("mlp.onnx", {{"loss", "huber"}, {"delta", "0.3"}});
  expect_same_training("mlp.onnx", {{"loss", "smooth_l1"}, {"beta", "0.4"}});
  expect_same_training("mlp.onnx", {{"loss", "kl_div"}});
  expect_same_training("mlp.onnx", {{"loss", "bce_with_logits"}, {"pos_weight", "1,2,3,4,5,6,7,8,9,10"}});
  expect_same_training("mlp.onnx", {{"loss", "bce_with_logits"}, {"focal_gamma", "2"}, {"focal_alpha", "0.25"}});
  expect_same_training("gpt2_tiny.onnx", {{"optimizer", "onnx_adam"}, {"weight_decay", "0.01"}});
}

TEST(TrainingOfAFile, ARecipeThatNamesLossOrOptimizerTakesNoneOfIt) {
  const TemporaryDirectory directory;
  const std::string file = (directory.path() / "trains.onnx").string();
  export_with_training(with(own_model("mlp.onnx"), {{"momentum", "0.9"}}), file, {});
  EXPECT_EQ(over_training_of_file(with(file, {{"optimizer", "adam"}})).optimizer, "adam");
  EXPECT_EQ(over_training_of_file(with(file, {{"loss", "mean_squared_error"}})).optimizer_parameters.size(), 0u);
  const Recipe other = over_training_of_file(with(file, {{"learning_rate", "0.5"}}));
  EXPECT_EQ(other.learning_rate, 0.5);
  EXPECT_EQ(other.optimizer_parameters.at("momentum"), 0.9);
}

TEST(TrainingOfAFile, AStepThatIsWrittenOutIsRefusedWithWhatToDo) {
  const TemporaryDirectory directory;
  const std::string file = (directory.path() / "step.onnx").string();
  const TrainingGraph graph = training_graph(with(own_model("mlp.onnx"), {{"precision", "fp32"}}));
  export_training_info(graph.inference, graph.step, graph.initial, file);
  try {
    over_training_of_file(with(file, {}));
    ADD_FAILURE() << "it was read";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("no operator Gradient of ai.onnx.preview.training: it is written out"),
                                    HasSubstr("name loss or optimizer, and the model is trained by the recipe")));
  }
  EXPECT_EQ(over_training_of_file(with(file, {{"optimizer", "sgd"}})).optimizer, "sgd");
}

TEST(TrainingOfAFile, KeysWithoutAnOperatorAreRefusedTogether) {
  try {
    export_with_training(with(own_model("mlp.onnx"), {{"optimizer", "adamw"}, {"clip_norm", "1"}}), "/dev/null", {});
    ADD_FAILURE() << "it was written";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("clip_norm: training operators do not say it: leave it out"),
                                    HasSubstr("optimizer: training operators do not say it: ONNX's Adam places")));
  }
}

}  // namespace
}  // namespace halfstep
