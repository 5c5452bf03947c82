// Steps through the C API: the executable's numbers, bit for bit.
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <thread>

#include "tests/api/api_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;

const Keys kKeys{{"batch", "8"}, {"precision", "fp16"}, {"momentum", "0.9"}, {"device", "cpu"}, {"shape", "-1,4"}};

// Of each step of a run.
std::vector<json> step_rows(const std::string& metrics) {
  std::vector<json> rows;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);)
    if (json row = json::parse(line); row["kind"] == "step") rows.push_back(row);
  return rows;
}

class SameSteps : public Api, public testing::WithParamInterface<Keys> {};

TEST_P(SameSteps, TrainsAsTheExecutableDoes) {
  write("m.onnx", tiny_mlp());
  Keys keys{{"batch", "8"}, {"device", "cpu"}, {"shape", "-1,4"}, {"seed", "5"}, {"learning_rate", "0.02"}};
  keys.insert(keys.end(), GetParam().begin(), GetParam().end());
  succeed(Arguments{"train", "m.onnx", "--out", "out", "--epochs", "3", "--shuffle", "false"} + arguments_of(keys) +
          data({4}));
  const std::vector<json> rows = step_rows(read("out/metrics.jsonl"));

  compile("m.onnx", keys, "step");
  const StepHandle step = load("step");
  const Points points({4}, 8);
  const bool accumulates =
      std::ranges::find(keys, std::pair<std::string, std::string>("accumulation", "2")) != keys.end();
  ASSERT_EQ(static_cast<int64_t>(rows.size()), 3 * points.batches() / (accumulates ? 2 : 1));
  int64_t batch = 0, epochs = 0;
  for (const json& row : rows) {
    const int64_t before = row["epoch"].get<int64_t>() - 1;
    if (before > 0) ok(api->epoch_count(step.get(), &epochs));
    if (before > epochs) ok(api->set_epochs(step.get(), before, 64));
    double loss = 0, scale = 0;
    int32_t skipped = 0;
    if (accumulates) train(step.get(), points.batch(batch++));
    loss = train(step.get(), points.batch(batch++));
    EXPECT_EQ(loss, row["loss"].get<double>()) << "step " << row["step"];
    ok(api->loss_scale(step.get(), &scale));
    ok(api->skipped(step.get(), &skipped));
    EXPECT_EQ(scale, row.value("loss_scale", 1.0));
    EXPECT_EQ(skipped != 0, row["skipped"].get<bool>());
  }
  ok(api->save_checkpoint(step.get(), path("api").c_str(), 3));
  const std::string digits = std::to_string(rows.size()), name = "step-" + std::string(9 - digits.size(), '0') + digits;
  for (const std::string file : {"weights.safetensors", "slots.safetensors"})
    EXPECT_EQ(read("api/" + name + "/" + file), read("out/checkpoints/" + name + "/" + file)) << file;
}

INSTANTIATE_TEST_SUITE_P(Recipes, SameSteps,
                         testing::Values(Keys{{"precision", "fp16"}, {"momentum", "0.9"}},
                                         Keys{{"precision", "fp16"},
                                              {"initial_scale", "1e9"}},  // the first steps overflow and are skipped
                                         Keys{{"precision", "bf16"}, {"optimizer", "adam"}, {"accumulation", "2"}},
                                         Keys{{"unfreeze", "w1=2"}, {"groups", "parameters=w2,learning_rate=0.5"}},
                                         Keys{{"precision", "fp32"}, {"classes", "3"}}));

TEST_F(Api, TheStateOfAGradScalerGoesInAndComesOut) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", kKeys, "step");
  const Points points({4}, 8);
  const StepHandle step = load("step");
  const halfstep_grad_scaler state{4096, 2, 0.5, 2000, 1998};
  ok(api->write_grad_scaler(step.get(), &state));
  halfstep_grad_scaler found{};
  double used = 0;
  for (int64_t i = 0; i < 2; ++i) train(step.get(), points.batch(i));
  ok(api->loss_scale(step.get(), &used));
  EXPECT_EQ(used, 4096);
  ok(api->read_grad_scaler(step.get(), &found));
  EXPECT_EQ(found.scale, 8192) << "the 2,000th step without overflow doubles it";
  EXPECT_EQ(found.growth_tracker, 0);
  EXPECT_EQ(found.growth_factor, 2);
  EXPECT_EQ(found.backoff_factor, 0.5);
  EXPECT_EQ(found.growth_interval, 2000);
  const halfstep_grad_scaler other{4096, 3, 0.5, 2000, 0};
  refused(api->write_grad_scaler(step.get(), &other), HALFSTEP_ERROR,
          {"grad scaler: 'growth_factor' is 3, the step was compiled with 2"});
}

TEST_F(Api, StatesOfGradScalersOfEachLoss) {
  write("m.onnx", tiny_mlp());
  Keys keys{{"losses", "name=a,output=logits,labels=labels;name=b,output=logits,labels=labels,weight=0.5"},
            {"loss_scales", "each"},
            {"precision", "fp16"},
            {"batch", "8"},
            {"device", "cpu"},
            {"shape", "-1,4"}};
  compile("m.onnx", keys, "step");
  const Points points({4}, 8);
  const StepHandle step = load("step");
  size_t count = 0;
  ok(api->grad_scaler_count(step.get(), &count));
  ASSERT_EQ(count, 2u);
  halfstep_grad_scaler one{};
  refused(api->read_grad_scaler(step.get(), &one), HALFSTEP_ERROR, {"read_grad_scalers"});
  // In any order, and all of them.
  const halfstep_loss_grad_scaler wanted[] = {{"b", {1024, 2, 0.5, 2000, 5}}, {"a", {4096, 2, 0.5, 2000, 1999}}};
  ok(api->write_grad_scalers(step.get(), wanted, 2));
  train(step.get(), points.batch(0));
  halfstep_loss_grad_scaler found[2] = {};
  ok(api->read_grad_scalers(step.get(), found, 2));
  EXPECT_STREQ(found[0].loss, "a");
  EXPECT_EQ(found[0].state.scale, 8192) << "the 2,000th step without overflow doubles it";
  EXPECT_STREQ(found[1].loss, "b");
  EXPECT_EQ(found[1].state.scale, 1024);
  EXPECT_EQ(found[1].state.growth_tracker, 6);
  refused(api->write_grad_scalers(step.get(), wanted, 1), HALFSTEP_ERROR, {"that of loss 'a' is missing"});
  const halfstep_loss_grad_scaler twice[] = {wanted[0], wanted[0]}, other[] = {wanted[0], {"c", wanted[1].state}};
  refused(api->write_grad_scalers(step.get(), twice, 2), HALFSTEP_INVALID_ARGUMENT, {"loss 'b' is given twice"});
  refused(api->write_grad_scalers(step.get(), other, 2), HALFSTEP_ERROR,
          {"loss 'c': no loss of the step has that name", "that of loss 'a' is missing"});
  refused(api->read_grad_scalers(step.get(), found, 1), HALFSTEP_INVALID_ARGUMENT, {"the step has 2 loss scales"});
  ok(api->read_grad_scalers(step.get(), found, 2));
  EXPECT_EQ(found[1].state.growth_tracker, 6) << "what was refused has changed nothing";
  const halfstep_loss_grad_scaler all{"", {256, 2, 0.5, 2000, 0}};
  ok(api->write_grad_scalers(step.get(), &all, 1));
  ok(api->read_grad_scalers(step.get(), found, 2));
  EXPECT_EQ(found[0].state.scale, 256);
  EXPECT_EQ(found[1].state.scale, 256);

  compile("m.onnx", kKeys, "one");
  const StepHandle shared = load("one");
  ok(api->grad_scaler_count(shared.get(), &count));
  ASSERT_EQ(count, 1u);
  ok(api->write_grad_scalers(shared.get(), &all, 1));
  ok(api->read_grad_scalers(shared.get(), found, 1));
  EXPECT_STREQ(found[0].loss, "");
  EXPECT_EQ(found[0].state.scale, 256);
}

// What a run writes for PyTorch is what another begins with.
TEST_F(Api, TheExecutableBeginsWithAGradScaler) {
  write("m.onnx", tiny_mlp());
  write(
      "scaler.json",
      R"({"scale": 1024.0, "growth_factor": 4.0, "backoff_factor": 0.5, "growth_interval": 3, "_growth_tracker": 2})");
  const Arguments train =
      Arguments{"train", "m.onnx", "--batch", "8", "--device", "cpu", "--shape", "-1,4", "--max_steps", "1"} +
      data({4});
  succeed(train + Arguments{"--grad-scaler", "scaler.json", "--out", "a"});
  EXPECT_EQ(step_rows(read("a/metrics.jsonl")).at(0)["loss_scale"], 1024);
  const json written = json::parse(read("a/checkpoints/step-000000001/grad_scaler.json"));
  EXPECT_EQ(written["scale"], 4096) << "it grew after that step";
  EXPECT_EQ(written["_growth_tracker"], 0);
  EXPECT_EQ(written["growth_factor"], 4);
  succeed(train + Arguments{"--grad-scaler", "a/checkpoints/step-000000001/grad_scaler.json", "--out", "b"});
  EXPECT_EQ(step_rows(read("b/metrics.jsonl")).at(0)["loss_scale"], 4096);
  // A resumed run has its own, with the factors that it began with.
  write("scaler.json", "gone");
  succeed(train +
          Arguments{"--grad-scaler", "scaler.json", "--out", "a", "--max_steps", "2", "--resume", "a/checkpoints"});
  const json resumed = json::parse(read("a/checkpoints/step-000000002/grad_scaler.json"));
  EXPECT_EQ(resumed["growth_factor"], 4);
  EXPECT_EQ(resumed["growth_interval"], 3);
}

TEST_F(Api, CheckpointsGoOnBitForBit) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", kKeys, "step");
  const Points points({4}, 8);
  const StepHandle step = load("step");
  for (int64_t i = 0; i < 5; ++i) train(step.get(), points.batch(i));
  ok(api->save_checkpoint(step.get(), path("checkpoints").c_str(), 3));
  const StepHandle resumed = load("step", {{"seed", "77"}});
  ok(api->load_checkpoint(resumed.get(), path("checkpoints").c_str()));
  refused(api->loss(resumed.get(), std::make_unique<double>().get()), HALFSTEP_INVALID_ARGUMENT, {"train_step"});
  for (int64_t i = 5; i < 12; ++i)
    EXPECT_EQ(train(step.get(), points.batch(i)), train(resumed.get(), points.batch(i))) << i;
  EXPECT_EQ(weights_of(step.get()), weights_of(resumed.get()));
  int64_t count = 0;
  ok(api->step_count(resumed.get(), &count));
  EXPECT_EQ(count, 12);
}

TEST_F(Api, ParametersGoToOneBufferAndBack) {
  write("m.onnx", tiny_convnet());
  compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}, {"precision", "fp16"}}, "step");
  const Points points({1, 6, 6}, 8);
  const StepHandle step = load("step"), other = load("step");
  for (int64_t i = 0; i < 6; ++i) train(step.get(), points.batch(i));
  size_t tensors = 0, elements = 0;
  ok(api->parameter_count(step.get(), &tensors, &elements));
  std::map<std::string, halfstep_parameter> parameters;
  size_t offset = 0;
  for (size_t i = 0; i < tensors; ++i) {
    halfstep_parameter p{};
    ok(api->parameter_at(step.get(), i, &p));
    EXPECT_EQ(p.offset, offset);
    offset += p.elements;
    parameters[p.name] = p;
  }
  EXPECT_EQ(offset, elements);
  ASSERT_TRUE(parameters.contains("w") && parameters.contains("bn.mean"));
  const halfstep_parameter& w = parameters["w"];
  EXPECT_EQ(Shape(w.shape, w.shape + w.rank), (Shape{4, 1, 3, 3}));  // as in the ONNX file
  EXPECT_EQ(w.trainable, 1);
  EXPECT_EQ(parameters["bn.mean"].trainable, 0);

  const std::vector<float> values = weights_of(step.get());
  EXPECT_NE(weights_of(other.get()), values);
  ok(api->write_parameters(other.get(), values.data(), values.size()));
  EXPECT_EQ(weights_of(other.get()), values);
  // The fp16 copies that the step reads follow.
  std::vector<float> a(8), b(8);
  const halfstep_output to_a{"row_loss", HALFSTEP_F32, a.data(), sizeof(float) * a.size()},
      to_b{"row_loss", HALFSTEP_F32, b.data(), sizeof(float) * b.size()};
  const std::vector<halfstep_input> batch = points.batch(0);
  ok(api->evaluate_step(step.get(), batch.data(), batch.size(), &to_a, 1));
  ok(api->evaluate_step(other.get(), batch.data(), batch.size(), &to_b, 1));
  EXPECT_EQ(a, b);
}

TEST_F(Api, EvaluatesAndPredictsAsTheExecutableDoes) {
  write("m.onnx", tiny_mlp());
  Keys keys = kKeys;
  keys.emplace_back("keep_outputs", "true");
  compile("m.onnx", keys, "step");
  const json eval = json::parse(succeed(Arguments{"eval", "step", "--json"} + data({4})));
  const StepHandle step = load("step");
  const Points points({4}, 8);
  double sum = 0;
  for (int64_t i = 0; i < points.batches(); ++i) {
    std::vector<float> row_loss(8), logits(24), predicted(24);
    const std::vector<halfstep_output> outputs{{"outputs/logits", HALFSTEP_F32, logits.data(), 96},
                                               {"row_loss", HALFSTEP_F32, row_loss.data(), 32}};
    const halfstep_output prediction{"logits", HALFSTEP_F32, predicted.data(), 96};
    const std::vector<halfstep_input> batch = points.batch(i);
    // The step writes them in f16.
    halfstep_value type{};
    ok(api->value_at(step.get(), HALFSTEP_PREDICT, HALFSTEP_OUTPUT, 0, &type));
    ASSERT_EQ(type.dtype, HALFSTEP_F32) << type.name;
    ok(api->evaluate_step(step.get(), batch.data(), 2, outputs.data(), 2));
    ok(api->predict(step.get(), batch.data(), 1, &prediction, 1));
    EXPECT_EQ(predicted, logits);
    for (size_t row = 0; row < 8; ++row) {
      sum += row_loss[row];
      const auto first = logits.begin() + static_cast<std::ptrdiff_t>(row * 3);
      double exponentials = 0;
      for (int c = 0; c < 3; ++c) exponentials += std::exp(static_cast<double>(first[c]));
      const double label = static_cast<const int64_t*>(batch[1].data)[row];
      EXPECT_NEAR(row_loss[row], std::log(exponentials) - first[static_cast<int>(label)], 1e-5);
    }
  }
  EXPECT_EQ(sum / 64, eval["loss"].get<double>());
  // Training computes no outputs for it.
  EXPECT_EQ(read("step/program.train.txt").find("outputs/"), std::string::npos);
  compile("m.onnx", kKeys, "plain");
  EXPECT_EQ(read("plain/program.train.txt"), read("step/program.train.txt"));
}

TEST_F(Api, StepsRunInParallel) {
  write("m.onnx", tiny_mlp());
  compile("m.onnx", kKeys, "step");
  const Points points({4}, 8);
  std::vector<double> losses[2];
  std::vector<std::thread> threads;
  for (std::vector<double>& own : losses)
    threads.emplace_back([&] {
      const StepHandle step = load("step", {{"threads", "1"}});
      for (int64_t i = 0; i < 200; ++i) own.push_back(train(step.get(), points.batch(i)));
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(losses[0], losses[1]);
}

TEST_F(Api, ExportsAsTheExecutableDoes) {
  write("m.onnx", tiny_convnet());
  compile("m.onnx", {{"batch", "8"}, {"device", "cpu"}}, "step");
  const StepHandle step = load("step");
  const Points points({1, 6, 6}, 8);
  for (int64_t i = 0; i < 4; ++i) train(step.get(), points.batch(i));
  ok(api->save_checkpoint(step.get(), path("checkpoints").c_str(), 0));
  succeed({"export", "m.onnx", "--checkpoint", "checkpoints", "-o", "a.onnx"});
  ok(compiler->export_onnx(step.get(), nullptr, path("b.onnx").c_str()));
  ok(compiler->export_onnx(step.get(), path("m.onnx").c_str(), path("c.onnx").c_str()));
  // The executable adds what it knows of the run.
  const auto model = [&](const char* file) {
    onnx::ModelProto proto;
    EXPECT_TRUE(proto.ParseFromString(read(file)));
    proto.clear_metadata_props();
    return proto.SerializeAsString();
  };
  EXPECT_EQ(model("a.onnx"), model("b.onnx"));
  EXPECT_EQ(model("a.onnx"), model("c.onnx"));
}

}  // namespace
}  // namespace halfstep::test
