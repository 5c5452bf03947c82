#include "training/grad_scaler.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "tests/training/fake_executor.h"
#include "training/checkpoint.h"
#include "training/recipe_keys.h"

namespace halfstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// As PyTorch 2.11 writes it: json.dump(torch.amp.GradScaler("cpu", init_scale=4096.).state_dict(), file), some steps
// on.
constexpr const char* kOfTorch =
    R"({"scale": 8192.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 1234})";

class GradScalerFiles : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    const std::filesystem::path path = directory_.path() / "scaler.json";
    write_file_atomically(path, text);
    return path;
  }
  TemporaryDirectory directory_;
};

TEST_F(GradScalerFiles, OfTorchAreReadAndWritten) {
  const GradScalerState state = read_grad_scalers(write(kOfTorch)).at("");
  EXPECT_EQ(state, (GradScalerState{8192, 2, 0.5, 2000, 1234}));
  const auto written = nlohmann::json::parse(to_json(GradScalers{{"", state}}));
  EXPECT_EQ(written, nlohmann::json::parse(kOfTorch));
  EXPECT_TRUE(written.at("_growth_tracker").is_number_integer());
  EXPECT_TRUE(written.at("scale").is_number_float());
}

TEST_F(GradScalerFiles, ThatAreNoneAreRefused) {
  const auto expect = [&](const std::string& text, const auto& matcher) {
    SCOPED_TRACE(text);
    const auto path = write(text);
    EXPECT_THAT([&] { read_grad_scalers(path); }, ThrowsMessage<Error>(matcher));
  };
  expect("{}", HasSubstr("it is empty, the state of a scaler that was not enabled"));
  expect("[1]", HasSubstr("no JSON object"));
  expect("\x80\x02}", HasSubstr("no JSON object"));  // a pickle
  expect(R"({"scale": -1.0, "growth_factor": "2", "backoff_factor": 0.5, "growth_interval": 0.5, "step": 3})",
         AllOf(HasSubstr("'scale': a number from"), HasSubstr("'growth_factor': a number expected, found \"2\""),
               HasSubstr("'growth_interval': a whole number from 1 to 2147483647 expected, found 0.5"),
               HasSubstr("'_growth_tracker' is missing"), HasSubstr("GradScaler has no 'step' in its state")));
  expect(R"({"scale": 1e300, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 4294967296,
             "_growth_tracker": -1})",
         AllOf(HasSubstr("found 1e+300"), HasSubstr("found 4294967296"), HasSubstr("found -1")));
}

TEST_F(GradScalerFiles, GiveTheKeysOfARecipeTheirValues) {
  Recipe recipe;
  recipe.grad_scaler = write(R"({"scale": 512.0, "growth_factor": 4.0, "backoff_factor": 0.25,
                                 "growth_interval": 100, "_growth_tracker": 3})");
  take_grad_scaler(recipe);
  EXPECT_EQ(recipe.initial_scale, 512);
  EXPECT_EQ(recipe.growth_factor, 4);
  EXPECT_EQ(recipe.backoff_factor, 0.25);
  EXPECT_EQ(recipe.growth_interval, 100);
  set_key(recipe, "growth_interval", "50");
  set_key(recipe, "min_scale", "1024");
  EXPECT_THAT([&] { take_grad_scaler(recipe); },
              ThrowsMessage<Error>(AllOf(HasSubstr("growth_interval: 50 is given, but grad_scaler"),
                                         HasSubstr("has 100: leave one of them out"),
                                         HasSubstr("min_scale: the loss scale of grad_scaler"))));
}

TEST(GradScaler, GoesIntoAStepAndComesOut) {
  CompiledModel model = fake_model();
  model.notes.recipe["growth_interval"] = "100";
  FakeExecutor executor(model);
  const GradScalerState state{.scale = 64, .growth_interval = 100, .growth_tracker = 99};
  write_grad_scalers(executor, {{"", state}}, "grad_scaler");
  EXPECT_EQ(read_grad_scaler(executor), state);
  EXPECT_THAT([&] { write_grad_scalers(executor, {{"", {.scale = 0.5, .growth_factor = 4}}}, "grad_scaler"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("grad_scaler: 'growth_factor' is 4, the step was compiled with 2"),
                                         HasSubstr("'growth_interval' is 2000, the step was compiled with 100"),
                                         HasSubstr("'scale' is 0.5, below the step's floor"))));
  EXPECT_THAT([&] { write_grad_scalers(executor, {{"", {.scale = -1, .growth_interval = 100}}}, "grad_scaler"); },
              ThrowsMessage<Error>(HasSubstr("'scale': a number from")));
  EXPECT_EQ(read_grad_scaler(executor), state);
  model.state.erase(kLossScaleState);
  FakeExecutor fixed(model);
  EXPECT_THAT([&] { read_grad_scaler(fixed); }, ThrowsMessage<Error>(HasSubstr("no dynamic loss scale")));
}

TEST(GradScaler, StandsBesideACheckpoint) {
  const TemporaryDirectory directory;
  FakeExecutor executor;
  write_grad_scalers(executor, {{"", {.scale = 256, .growth_tracker = 17}}}, "grad_scaler");
  const auto path = save_checkpoint(directory.path(), executor, {.step = 3}, 0);
  EXPECT_EQ(read_grad_scalers(path / "grad_scaler.json"), (GradScalers{{"", {.scale = 256, .growth_tracker = 17}}}));
}

// Old checkpoints have no count of spared overflows; a recipe may begin to have one, and cease to.
TEST(GradScaler, CheckpointsFitWithHysteresisAndWithout) {
  CompiledModel with = fake_model();
  for (Program& program : with.programs)
    program.buffers.push_back({kLossScaleHysteresis, BufferKind::state, {DType::i32, {}}});
  with.state[kLossScaleHysteresis] = Tensor::scalar(DType::i32, 3);
  const TemporaryDirectory directory;
  FakeExecutor without, other(with);
  const auto old = save_checkpoint(directory.path() / "old", without, {.step = 3}, 0);
  other.write_state(kLossScaleHysteresis, Tensor::scalar(DType::i32, 1));
  load_checkpoint(old, other);
  EXPECT_EQ(other.read_state(kLossScaleHysteresis).at(0), 3);
  other.write_state(kLossScaleHysteresis, Tensor::scalar(DType::i32, 2));
  const auto written = save_checkpoint(directory.path() / "new", other, {.step = 4}, 0);
  FakeExecutor same(with);
  load_checkpoint(written, same);
  EXPECT_EQ(same.read_state(kLossScaleHysteresis).at(0), 2);
  EXPECT_NO_THROW(load_checkpoint(written, without));
  with.state[kLossScaleHysteresis] = Tensor::scalar(DType::i32, 1);  // a recipe that spares fewer
  FakeExecutor fewer(with);
  load_checkpoint(written, fewer);
  EXPECT_EQ(fewer.read_state(kLossScaleHysteresis).at(0), 1);
}

}  // namespace
}  // namespace halfstep
