// What the C API refuses, by name, and that nothing changes then.
#include <cmath>
#include <cstddef>
#include <limits>

#include "tests/api/api_fixture.h"

namespace halfstep::test {
namespace {

using testing::HasSubstr;

// Programs hold these by value or by place in the table: what version 1 has may only be followed by more.
static_assert(sizeof(halfstep_option) == 16 && sizeof(halfstep_input) == 40 && sizeof(halfstep_output) == 32);
static_assert(sizeof(halfstep_value) == 32 && sizeof(halfstep_parameter) == 48 && sizeof(halfstep_precision_row) == 40);
static_assert(offsetof(halfstep_api, load_step) == 8 * sizeof(void*) &&
              offsetof(halfstep_api, train_step) == 12 * sizeof(void*) &&
              offsetof(halfstep_api, set_learning_rate) == 17 * sizeof(void*) &&
              offsetof(halfstep_api, parameter_count) == 21 * sizeof(void*) &&
              offsetof(halfstep_api, load_checkpoint) == 26 * sizeof(void*) &&
              offsetof(halfstep_api, set_epochs) == 34 * sizeof(void*) && sizeof(halfstep_tensor) == 56);
static_assert(offsetof(halfstep_compiler_api, export_onnx) == 6 * sizeof(void*));

TEST(ApiVersion, OnlyTheOnesItHas) {
  for (const uint32_t version : {0u, HALFSTEP_API_VERSION + 1u, std::numeric_limits<uint32_t>::max()}) {
    EXPECT_EQ(halfstep_get_api(version), nullptr);
    EXPECT_EQ(halfstep_get_compiler_api(version), nullptr);
  }
  ASSERT_NE(api, nullptr);
  ASSERT_NE(compiler, nullptr);
  EXPECT_STRNE(api->version(), "");
}

TEST(ApiStatus, HoldsNoControlCharacters) {
  halfstep_step* step = nullptr;
  refused(api->load_step("no\x1b[2Jsuch", nullptr, 0, &step), HALFSTEP_ERROR, {"no\\u001b[2Jsuch"});
}

TEST(ApiVersion, NullIsAStatusAndNoCrash) {
  const halfstep_code bad = HALFSTEP_INVALID_ARGUMENT;
  const auto null = [&](halfstep_status* status) { refused(status, bad, {" is NULL"}); };
  double number = 0;
  int32_t flag = 0;
  int64_t count = 0;
  size_t size = 0;
  float value = 0;
  halfstep_step* step = nullptr;
  halfstep_value of_value{};
  halfstep_parameter parameter{};
  halfstep_strings* strings = nullptr;
  halfstep_precision* precision = nullptr;
  halfstep_precision_row row{};
  EXPECT_EQ(api->status_code(nullptr), HALFSTEP_OK);
  EXPECT_STREQ(api->status_message(nullptr), "");
  EXPECT_STREQ(api->status_node(nullptr), "");
  EXPECT_EQ(api->strings_count(nullptr), 0u);
  EXPECT_EQ(api->strings_at(nullptr, 0), nullptr);
  EXPECT_EQ(compiler->precision_count(nullptr), 0u);
  api->release_status(nullptr), api->release_strings(nullptr), api->release_step(nullptr);
  compiler->release_precision(nullptr);
  null(api->load_step("x", nullptr, 0, nullptr));
  null(api->load_step(nullptr, nullptr, 0, &step));
  null(api->load_step("x", nullptr, 1, &step));
  const halfstep_option no_key{nullptr, "1"}, no_value{"batch", nullptr};
  null(api->load_step("x", &no_key, 1, &step));
  null(compiler->check_model("x", &no_value, 1, &strings));
  null(api->value_count(nullptr, 0, 0, &size));
  null(api->value_at(nullptr, 0, 0, 0, &of_value));
  null(api->train_step(nullptr, nullptr, 0));
  null(api->loss(nullptr, &number));
  null(api->loss_scale(nullptr, &number));
  halfstep_grad_scaler scaler{};
  null(api->read_grad_scaler(nullptr, &scaler));
  null(api->write_grad_scaler(nullptr, &scaler));
  halfstep_loss_grad_scaler scalers{};
  null(api->grad_scaler_count(nullptr, &size));
  null(api->read_grad_scalers(nullptr, &scalers, 1));
  null(api->write_grad_scalers(nullptr, &scalers, 1));
  null(api->loss_count(nullptr, &size));
  halfstep_loss of_losses{};
  null(api->loss_at(nullptr, 0, &of_losses));
  null(api->read_losses(nullptr, &number, 1));
  null(api->skipped(nullptr, &flag));
  null(api->step_count(nullptr, &count));
  null(api->set_learning_rate(nullptr, 1));
  null(api->learning_rate(nullptr, &number));
  null(api->evaluate_step(nullptr, nullptr, 0, nullptr, 0));
  null(api->predict(nullptr, nullptr, 0, nullptr, 0));
  null(api->parameter_count(nullptr, &size, &size));
  null(api->parameter_at(nullptr, 0, &parameter));
  null(api->read_parameters(nullptr, &value, 1));
  null(api->write_parameters(nullptr, &value, 1));
  null(api->save_checkpoint(nullptr, "x", 1));
  null(api->load_checkpoint(nullptr, "x"));
  EXPECT_STREQ(api->status_hint(nullptr), "");
  halfstep_device device = 0;
  halfstep_tensor tensor{};
  null(api->step_device(nullptr, &device, &flag));
  null(api->tensor_of_dlpack(nullptr, &tensor));
  null(api->tensor_of_dlpack(&tensor, nullptr));
  null(api->train_tensors(nullptr, nullptr, 0, nullptr));
  null(api->evaluate_tensors(nullptr, nullptr, 0, nullptr, 0, nullptr));
  null(api->predict_tensors(nullptr, nullptr, 0, nullptr, 0, nullptr));
  null(api->next_finished(nullptr, &count, &number, &number, &flag));
  null(api->set_epochs(nullptr, 1, 1));
  null(api->epoch_count(nullptr, &count));
  null(compiler->check_model(nullptr, nullptr, 0, &strings));
  null(compiler->check_model("x", nullptr, 0, nullptr));
  null(compiler->inspect_model(nullptr, nullptr, 0, &precision));
  null(compiler->inspect_model("x", nullptr, 0, nullptr));
  null(compiler->precision_at(nullptr, 0, &row));
  null(compiler->compile_model(nullptr, nullptr, 0, "x", nullptr));
  null(compiler->compile_model("x", nullptr, 0, nullptr, nullptr));
  null(compiler->export_onnx(nullptr, nullptr, "x"));
}

class Refusals : public Api {
 protected:
  void SetUp() override {
    write("m.onnx", tiny_mlp());
    compile("m.onnx", {{"batch", "8"}, {"accumulation", "2"}, {"device", "cpu"}}, "step");
    step_ = load("step");
    for (int64_t i = 0; i < 2; ++i) train(step_.get(), points_.batch(i));
    before_ = weights_of(step_.get());
  }
  // Nothing has changed: the next steps are those of a step that saw no errors.
  void TearDown() override {
    EXPECT_EQ(weights_of(step_.get()), before_);
    const StepHandle other = load("step");
    for (int64_t i = 0; i < 2; ++i) train(other.get(), points_.batch(i));
    for (int64_t i = 2; i < 4; ++i)
      EXPECT_EQ(train(step_.get(), points_.batch(i)), train(other.get(), points_.batch(i)));
  }
  void refuse_batch(const std::vector<halfstep_input>& batch, const Arguments& parts) {
    refused(api->train_step(step_.get(), batch.data(), batch.size()), HALFSTEP_INVALID_ARGUMENT, parts);
    std::vector<float> rows(8);
    const halfstep_output output{"row_loss", HALFSTEP_F32, rows.data(), 32};
    refused(api->evaluate_step(step_.get(), batch.data(), batch.size(), &output, 1), HALFSTEP_INVALID_ARGUMENT, parts);
  }

  Points points_{{4}, 8};
  StepHandle step_{nullptr, api->release_step};
  std::vector<float> before_;
};

TEST_F(Refusals, BatchesThatDoNotFit) {
  const std::vector<halfstep_input> good = points_.batch(2);
  const auto with = [&](const std::function<void(std::vector<halfstep_input>&)>& change) {
    std::vector<halfstep_input> batch = good;
    change(batch);
    return batch;
  };
  const int64_t wrong[]{8, 5};
  refuse_batch({good[0]}, {"input 'labels' i64[8] is missing"});
  refuse_batch({}, {"input 'x' f32[8,4] is missing", "input 'labels'"});
  refuse_batch({good[0], good[1], good[0]}, {"input 'x' is given twice"});
  refuse_batch(with([](auto& b) { b[1].name = "label"; }),
               {"no input 'label'; did you mean 'labels'?", "input 'labels' i64[8] is missing"});
  refuse_batch(with([](auto& b) { b[0].name = nullptr; }), {"the name of an input is NULL"});
  refuse_batch(with([&](auto& b) { b[0].shape = wrong; }), {"input 'x' is f32[8,5], expected f32[8,4]"});
  refuse_batch(with([](auto& b) { b[0].rank = 1; }), {"input 'x' is f32[8], expected f32[8,4]"});
  refuse_batch(with([](auto& b) { b[0].shape = nullptr; }), {"of rank 2 without a shape, expected f32[8,4]"});
  refuse_batch(with([](auto& b) { b[0].dtype = HALFSTEP_F16; }), {"input 'x' is f16[8,4], expected f32[8,4]"});
  refuse_batch(with([](auto& b) { b[0].dtype = 99; }), {"input 'x' is type 99[8,4], expected f32[8,4]"});
  refuse_batch(with([](auto& b) { b[0].data = nullptr; }), {"input 'x' has data that is NULL"});
  refused(api->train_step(step_.get(), nullptr, 2), HALFSTEP_INVALID_ARGUMENT, {"inputs is NULL"});
  // A label that is no class, of which the import has three.
  std::vector<int64_t> labels(8, 1);
  labels[6] = 3;
  const std::vector<halfstep_input> batch = with([&](auto& b) { b[1].data = labels.data(); });
  refused(api->train_step(step_.get(), batch.data(), batch.size()), HALFSTEP_ERROR,
          {"'labels': sample 6 has label 3, expected 0 to 2"});
}

TEST_F(Refusals, OutputsThatDoNotFit) {
  const std::vector<halfstep_input> batch = points_.batch(2);
  std::vector<float> rows(8, 7);
  const auto refuse = [&](const halfstep_output& output, const std::string& part) {
    refused(api->evaluate_step(step_.get(), batch.data(), batch.size(), &output, 1), HALFSTEP_INVALID_ARGUMENT, {part});
  };
  refuse({"row_los", HALFSTEP_F32, rows.data(), 32}, "no output 'row_los'; did you mean 'row_loss'?");
  refuse({nullptr, HALFSTEP_F32, rows.data(), 32}, "the name of an output is NULL");
  refuse({"row_loss", HALFSTEP_F16, rows.data(), 32}, "output 'row_loss' is asked for as f16, it is f32[8]");
  refuse({"row_loss", HALFSTEP_F32, rows.data(), 28}, "f32[8] has 32 bytes, the buffer given 28");
  refuse({"row_loss", HALFSTEP_F32, nullptr, 32}, "has data that is NULL");
  const halfstep_output output{"logits", HALFSTEP_F32, rows.data(), 32};
  refused(api->predict(step_.get(), batch.data(), 1, &output, 1), HALFSTEP_INVALID_ARGUMENT, {"keep_outputs"});
  EXPECT_EQ(rows, std::vector<float>(8, 7));
}

TEST_F(Refusals, NumbersAndPlacesThatAreNone) {
  for (const double rate : {-0.1, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    refused(api->set_learning_rate(step_.get(), rate), HALFSTEP_INVALID_ARGUMENT, {"learning rate"});
  std::vector<float> values = before_;
  refused(api->read_parameters(step_.get(), values.data(), values.size() - 1), HALFSTEP_INVALID_ARGUMENT, {"floats"});
  refused(api->write_parameters(step_.get(), values.data(), values.size() + 1), HALFSTEP_INVALID_ARGUMENT, {"floats"});
  refused(api->write_parameters(step_.get(), nullptr, values.size()), HALFSTEP_INVALID_ARGUMENT, {"values is NULL"});
  values[1] = std::numeric_limits<float>::quiet_NaN();
  refused(api->write_parameters(step_.get(), values.data(), values.size()), HALFSTEP_INVALID_ARGUMENT,
          {"element 1 of ", "a finite number expected"});
  size_t count = 0;
  halfstep_value value{};
  halfstep_parameter parameter{};
  refused(api->value_count(step_.get(), 3, HALFSTEP_INPUT, &count), HALFSTEP_INVALID_ARGUMENT, {"program 3"});
  refused(api->value_count(step_.get(), HALFSTEP_TRAIN, -1, &count), HALFSTEP_INVALID_ARGUMENT, {"direction -1"});
  refused(api->value_at(step_.get(), HALFSTEP_TRAIN, HALFSTEP_INPUT, 2, &value), HALFSTEP_INVALID_ARGUMENT,
          {"value 2"});
  refused(api->parameter_at(step_.get(), 99, &parameter), HALFSTEP_INVALID_ARGUMENT, {"parameter 99"});
  refused(api->loss(step_.get(), nullptr), HALFSTEP_INVALID_ARGUMENT, {"loss is NULL"});
  refused(api->save_checkpoint(step_.get(), path("c").c_str(), -1), HALFSTEP_INVALID_ARGUMENT, {"keep -1"});
  refused(api->load_checkpoint(step_.get(), path("nowhere").c_str()), HALFSTEP_ERROR, {"nowhere"});
  write("file", std::string("no directory"));
  refused(api->save_checkpoint(step_.get(), path("file").c_str(), 1), HALFSTEP_ERROR, {"file"});
}

TEST_F(Refusals, CheckpointsOfOtherModels) {
  write("other.onnx", tiny_mlp(16));
  compile("other.onnx", {{"batch", "8"}, {"device", "cpu"}}, "other");
  const StepHandle other = load("other");
  ok(api->save_checkpoint(other.get(), path("others").c_str(), 1));
  refused(api->load_checkpoint(step_.get(), path("others").c_str()), HALFSTEP_ERROR,
          {"'w1': expected f32[8,4], found f32[16,4]"});
}

TEST_F(Api, BoolsAreZeroOrOne) {
  TestModel m(17);
  m.input("x", {2, 4}).input("mask", {2, 4}, onnx::TensorProto::BOOL).weight("w", ramp({4, 3}, 0.1, 0.1));
  m.weight("zero", Tensor::scalar(DType::f32, 0)).node("Where", {"mask", "x", "zero"}, {"h"}, {}, "masked");
  m.node("MatMul", {"h", "w"}, {"logits"}, {}, "fc").output("logits");
  write("m.onnx", m);
  compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}}, "step");
  const StepHandle step = load("step");
  const Shape shape{8, 4};
  std::vector<uint8_t> mask(32, 1);
  const Points points({4}, 8);
  std::vector<halfstep_input> batch = points.batch(0);
  batch.push_back({"mask", HALFSTEP_BOOL, 2, shape.data(), mask.data()});
  EXPECT_TRUE(std::isfinite(train(step.get(), batch)));
  mask[9] = 255;
  refused(api->train_step(step.get(), batch.data(), batch.size()), HALFSTEP_INVALID_ARGUMENT,
          {"input 'mask': element 9 is 255, a bool is 0 or 1"});
}

TEST_F(Api, CheckpointsStandBetweenSteps) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", {{"batch", "8"}, {"accumulation", "3"}, {"device", "cpu"}}, "step");
  const StepHandle step = load("step");
  train(step.get(), Points({4}, 8).batch(0));
  refused(api->save_checkpoint(step.get(), path("c").c_str(), 1), HALFSTEP_INVALID_ARGUMENT, {"2 times more"});
}

TEST_F(Api, ALossScaleChangesBetweenSteps) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", {{"batch", "8"}, {"accumulation", "2"}, {"precision", "fp16"}, {"device", "cpu"}}, "step");
  const StepHandle step = load("step");
  const Points points({4}, 8);
  const halfstep_grad_scaler state{4096, 2, 0.5, 2000, 0};
  train(step.get(), points.batch(0));
  refused(api->write_grad_scaler(step.get(), &state), HALFSTEP_INVALID_ARGUMENT, {"1 times more"});
  train(step.get(), points.batch(1));
  ok(api->write_grad_scaler(step.get(), &state));
}

// Nobody would mix them.
TEST_F(Api, BatchesOfAStepThatMixesAreNotTrained) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", {{"batch", "8"}, {"mixup", "0.2"}, {"device", "cpu"}}, "step");
  const StepHandle step = load("step");
  const Points points({4}, 8);
  const std::vector<halfstep_input> batch = points.batch(0);
  refused(
      api->train_step(step.get(), batch.data(), batch.size()), HALFSTEP_ERROR,
      {"mixup and cutmix: a step that mixes the samples of a batch is trained by `halfstep train` or halfstep-run"});
}

TEST_F(Api, DirectoriesAndOptionsThatDoNotFit) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}}, "step");
  halfstep_step* step = nullptr;
  const auto refuse = [&](const std::string& directory, const Keys& keys, halfstep_code code, const Arguments& parts) {
    const std::vector<halfstep_option> options = options_of(keys);
    refused(api->load_step(path(directory).c_str(), options.data(), options.size(), &step), code, parts);
    EXPECT_EQ(step, nullptr);
  };
  refuse("nowhere", {}, HALFSTEP_ERROR, {"cannot load compiled step", "nowhere"});
  refuse("step", {{"device", "cuda"}}, HALFSTEP_ERROR, {"device: ", "was compiled for cpu, cuda is asked for"});
  refuse("step", {{"device", "tpu"}, {"thread", "1"}, {"seed", "-1"}, {"tf32", "1"}}, HALFSTEP_INVALID_ARGUMENT,
         {"device: cpu, cuda or auto expected, found 'tpu'",
          "no option 'thread' of a compiled step; did you mean 'threads'?", "seed: ", "tf32: true or false expected"});
  refuse("step", {{"threads", "1"}, {"threads", "2"}}, HALFSTEP_INVALID_ARGUMENT, {"threads: it is given twice"});
  std::string program = read("step/program.train.txt");
  program[program.size() / 2] ^= 1;
  write("step/program.train.txt", program);
  refuse("step", {}, HALFSTEP_ERROR, {"checksum"});
}

}  // namespace
}  // namespace halfstep::test
