// Tensors by pointer and from DLPack, losses without waiting, hints, and checkpoints that the executable goes on from.
#include <array>
#include <cmath>

#include "tests/api/api_fixture.h"
#include "tests/api/dlpack.h"

namespace halfstep::test {
namespace {

class Tensors : public Api {
 protected:
  void SetUp() override {
    write("m.onnx", tiny_mlp());
    compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}, {"keep_outputs", "true"}, {"momentum", "0.9"}}, "step");
  }
  void refuse(halfstep_step* step, const std::vector<halfstep_tensor>& batch, const Arguments& parts) {
    refused(api->train_tensors(step, batch.data(), batch.size(), nullptr), HALFSTEP_INVALID_ARGUMENT, parts);
    std::vector<float> rows(8);
    const halfstep_tensor output = rows_of(rows);
    refused(api->evaluate_tensors(step, batch.data(), batch.size(), &output, 1, nullptr), HALFSTEP_INVALID_ARGUMENT,
            parts);
  }
  halfstep_tensor rows_of(std::vector<float>& rows) const {
    return {"row_loss", HALFSTEP_F32, 1, rows_shape_.data(), nullptr, rows.data(), HALFSTEP_CPU, 0};
  }

  std::array<int64_t, 1> rows_shape_{8};
  Points points_{{4}, 8};
};

TEST_F(Tensors, TrainAndEvaluateAsInputsDo) {
  const StepHandle a = load("step"), b = load("step");
  for (int64_t i = 0; i < 4; ++i) {
    const std::vector<halfstep_tensor> batch = tensors_of(points_.batch(i));
    ok(api->train_tensors(a.get(), batch.data(), batch.size(), nullptr));
    double loss = 0;
    ok(api->loss(a.get(), &loss));
    EXPECT_EQ(loss, train(b.get(), points_.batch(i)));
  }
  EXPECT_EQ(weights_of(a.get()), weights_of(b.get()));

  const std::vector<halfstep_input> batch = points_.batch(0);
  const std::vector<halfstep_tensor> tensors = tensors_of(batch);
  std::vector<float> rows(8), tensor_rows(8), logits(24);
  const halfstep_output output{"row_loss", HALFSTEP_F32, rows.data(), 32};
  const halfstep_tensor wanted = rows_of(tensor_rows);
  ok(api->evaluate_step(a.get(), batch.data(), 2, &output, 1));
  ok(api->evaluate_tensors(a.get(), tensors.data(), 2, &wanted, 1, nullptr));
  EXPECT_EQ(rows, tensor_rows);
  const std::array<int64_t, 2> shape{8, 3};
  const halfstep_tensor predicted{"logits", HALFSTEP_F32, 2, shape.data(), nullptr, logits.data(), HALFSTEP_CPU, 0};
  ok(api->predict_tensors(a.get(), tensors.data(), 1, &predicted, 1, nullptr));
  EXPECT_NE(logits, std::vector<float>(24));
}

TEST_F(Tensors, MeasuresAreThoseOfTheExecutable) {
  const Arguments keys{"eval", "step", "--json", "--measures", "f1,auc"};
  const nlohmann::json eval = nlohmann::json::parse(succeed(keys + data({4}, 61)));
  const StepHandle step = load("step");
  double value = 0;
  const char* name = nullptr;
  refused(api->measure_at(step.get(), 0, &name, &value), HALFSTEP_INVALID_ARGUMENT, {"call begin_measures first"});
  refused(api->begin_measures(step.get(), "f1,f2"), HALFSTEP_ERROR, {"no measure 'f2'"});
  ok(api->begin_measures(step.get(), "f1,auc"));
  const Points points({4}, 8, 64);
  for (int64_t i = 0; i < points.batches(); ++i) {
    const std::vector<halfstep_tensor> batch = tensors_of(points.batch(i));
    ok(api->measure_tensors(step.get(), batch.data(), batch.size(), nullptr, i + 1 == points.batches() ? 5 : 0));
  }
  size_t count = 0;
  ok(api->measure_count(step.get(), &count));
  ASSERT_EQ(count, 4u);
  for (size_t i = 0; i < count; ++i) {
    ok(api->measure_at(step.get(), i, &name, &value));
    EXPECT_NEAR(value, eval.at(name).get<double>(), 1e-9) << name;
  }
  const std::vector<halfstep_tensor> batch = tensors_of(points.batch(0));
  refused(api->measure_tensors(step.get(), batch.data(), batch.size(), nullptr, 9), HALFSTEP_INVALID_ARGUMENT,
          {"rows 9: the step has a batch of 8"});
}

TEST_F(Tensors, FromDlpack) {
  const StepHandle a = load("step"), b = load("step");
  const std::vector<halfstep_input> batch = points_.batch(0);
  std::vector<int64_t> shape{8, 4}, strides{4, 1};
  // Behind 8 bytes that are another's, and with any stride along an axis of 1.
  Dltensor x = dltensor_of(batch[0], shape, strides);
  x.data = static_cast<std::byte*>(x.data) - 8, x.byte_offset = 8;
  halfstep_tensor tensor{};
  tensor.name = "x";
  ok(api->tensor_of_dlpack(&x, &tensor));
  EXPECT_STREQ(tensor.name, "x");
  const std::vector<halfstep_tensor> given{tensor, tensors_of(batch)[1]};
  ok(api->train_tensors(a.get(), given.data(), 2, nullptr));
  train(b.get(), batch);
  EXPECT_EQ(weights_of(a.get()), weights_of(b.get()));

  x.dtype = {5, 64, 1};
  refused(api->tensor_of_dlpack(&x, &tensor), HALFSTEP_INVALID_ARGUMENT, {"of complex64", "no step takes"});
  x.dtype = {2, 32, 4};
  refused(api->tensor_of_dlpack(&x, &tensor), HALFSTEP_INVALID_ARGUMENT, {"of float32 in vectors of 4"});
}

TEST_F(Tensors, ThatAStepCannotReadAreRefused) {
  const StepHandle step = load("step");
  const std::vector<float> before = weights_of(step.get());
  const std::vector<halfstep_tensor> good = tensors_of(points_.batch(0));
  const auto with = [&](const std::function<void(halfstep_tensor&)>& change) {
    std::vector<halfstep_tensor> batch = good;
    change(batch[0]);
    return batch;
  };
  const std::array<int64_t, 2> transposed{1, 8}, negative{-4, 1}, wrong{4, 8};
  refuse(step.get(), with([&](auto& t) { t.strides = transposed.data(); }),
         {"input 'x' is not contiguous: its strides are [1,8], expected [4,1]: give a contiguous copy"});
  refuse(step.get(), with([&](auto& t) { t.strides = negative.data(); }), {"its strides are [-4,1]"});
  refuse(step.get(), with([&](auto& t) { t.shape = wrong.data(); }), {"input 'x' is f32[4,8], expected f32[8,4]"});
  refuse(step.get(), with([](auto& t) { t.data = nullptr; }), {"input 'x' has data that is NULL"});
  refuse(step.get(), with([](auto& t) { t.device = HALFSTEP_CUDA; }),
         {"input 'x' lies on cuda:0, the step runs on the CPU: give a copy that lies there, in host memory"});
  refuse(step.get(), with([](auto& t) { t.device = HALFSTEP_CUDA_MANAGED; }), {"lies on managed memory of CUDA"});
  refuse(step.get(), with([](auto& t) { t.device = 10; }), {"lies on a device of DLPack's type 10"});
  int of_none = 0;
  refused(api->train_tensors(step.get(), good.data(), good.size(), &of_none), HALFSTEP_INVALID_ARGUMENT,
          {"stream: the step runs on the CPU"});
  const std::vector<halfstep_tensor> elsewhere = with([](auto& t) { t.device = HALFSTEP_CUDA; });
  refused(api->train_tensors(step.get(), elsewhere.data(), elsewhere.size(), &of_none), HALFSTEP_INVALID_ARGUMENT,
          {"input 'x' lies on cuda:0"});
  // Outputs likewise.
  std::vector<float> rows(8, 7);
  halfstep_tensor output = rows_of(rows);
  const std::array<int64_t, 1> strided{2};
  output.strides = strided.data();
  refused(api->evaluate_tensors(step.get(), good.data(), 2, &output, 1, nullptr), HALFSTEP_INVALID_ARGUMENT,
          {"output 'row_loss' is not contiguous"});
  EXPECT_EQ(rows, std::vector<float>(8, 7));
  EXPECT_EQ(weights_of(step.get()), before);
}

TEST_F(Tensors, EveryLossIsToldOnceWithoutWaiting) {
  const StepHandle step = load("step");
  int64_t number = -1;
  double loss = 0, scale = 0;
  int32_t skipped = 0;
  ok(api->next_finished(step.get(), &number, &loss, &scale, &skipped));
  EXPECT_EQ(number, 0);
  std::vector<double> losses;
  for (int64_t i = 0; i < 5; ++i) losses.push_back(train(step.get(), points_.batch(i)));
  for (int64_t i = 0; i < 5; ++i) {
    ok(api->next_finished(step.get(), &number, &loss, &scale, &skipped));
    EXPECT_EQ(number, i + 1);
    EXPECT_EQ(loss, losses[static_cast<size_t>(i)]);
  }
  ok(api->next_finished(step.get(), &number, &loss, &scale, &skipped));
  EXPECT_EQ(number, 0);
}

TEST_F(Tensors, AStatusSaysWhatToDo) {
  const StepHandle step = load("step");
  std::vector<halfstep_input> batch = points_.batch(0);
  const auto hint_of = [&](halfstep_status* status) {
    std::string hint = api->status_hint(status);
    api->release_status(status);
    return hint;
  };
  batch[1].name = "label";
  EXPECT_EQ(hint_of(api->train_step(step.get(), batch.data(), 2)), "did you mean 'labels'?");
  double loss = 0;
  EXPECT_EQ(hint_of(api->loss(step.get(), &loss)), "call train_step first");
  EXPECT_EQ(hint_of(api->set_learning_rate(step.get(), -1)), "");
}

TEST_F(Tensors, TheStepSaysWhereItRuns) {
  halfstep_device device = 0;
  int32_t index = -1;
  ok(api->step_device(load("step").get(), &device, &index));
  EXPECT_EQ(device, HALFSTEP_CPU);
  EXPECT_EQ(index, 0);
}

// The executable goes on where a program stopped at the end of an epoch, with the bits of a run of its own.
TEST_F(Tensors, TheExecutableGoesOnFromAnEpochOfTheApi) {
  const Arguments train_it = Arguments{"train",    "m.onnx", "--batch",   "8",     "--momentum",     "0.9",
                                       "--device", "cpu",    "--shuffle", "false", "--keep-outputs", "true"} +
                             data({4});
  succeed(train_it + Arguments{"--out", "whole", "--epochs", "3"});
  const StepHandle step = load("step");
  for (int64_t i = 0; i < points_.batches(); ++i) train(step.get(), points_.batch(i));
  ok(api->save_checkpoint(step.get(), path("midst").c_str(), 0));
  ok(api->set_epochs(step.get(), 1, 64));
  ok(api->save_checkpoint(step.get(), path("epoch").c_str(), 0));
  fail(1, train_it + Arguments{"--out", "refused", "--resume", path("midst").string(), "--epochs", "3"},
       {"written through the API", "set_epochs"});
  succeed(train_it + Arguments{"--out", "resumed", "--resume", path("epoch").string(), "--epochs", "3"});
  const std::string last = "checkpoints/step-000000024/weights.safetensors";
  EXPECT_EQ(read("whole/" + last), read("resumed/" + last));
  refused(api->set_epochs(step.get(), 1, 0), HALFSTEP_INVALID_ARGUMENT, {"samples"});
}

}  // namespace
}  // namespace halfstep::test
