// `halfstep gradients`: the gradients it writes are those that a training step applies.
#include <gtest/gtest.h>

#include "program/safetensors.h"
#include "tests/cli/cli_fixture.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

using nlohmann::json;

class Gradients : public Cli {
 protected:
  void SetUp() override { write("m.onnx", tiny_convnet()); }
  FileTensors gradients(const Arguments& more) const {
    succeed(Arguments{"gradients", "m.onnx", "--batch", "8", "-o", "g.safetensors"} + data({1, 6, 6}) + more);
    return read_safetensors(path("g.safetensors")).tensors;
  }
  // Of plain gradient descent: weights after a step of the first batch.
  FileTensors weights_after_a_step(const std::string& out, const Arguments& more) const {
    succeed(Arguments{"train", "m.onnx", "--batch", "8", "--shuffle", "false", "--max_steps", "1", "--learning_rate",
                      "0.5", "--out", out} +
            data({1, 6, 6}) + more);
    return read_checkpoint_weights(path(out) / "checkpoints");
  }
};

TEST_F(Gradients, AreWhatAStepSubtractsInOnnxLayout) {
  for (const std::string precision : {"fp32", "fp16"}) {
    const Arguments options{"--precision", precision};
    const FileTensors found = gradients(options), after = weights_after_a_step(precision, options);
    const FileTensors before = weights_after_a_step(precision + "0", options + Arguments{"--learning_rate", "0"});
    for (const std::string name : {"w", "bn.scale", "bn.bias", "fc.weight"}) {
      const Tensor& gradient = found.at("gradients/" + name);
      ASSERT_EQ(gradient.type, before.at(name).type);
      for (int64_t i = 0; i < gradient.type.element_count(); ++i)
        EXPECT_NEAR(after.at(name).at(i), before.at(name).at(i) - 0.5 * gradient.at(i), 2e-6)
            << name << "[" << i << "]";
    }
    EXPECT_EQ(found.at("outputs/logits").type.shape, (Shape{8, 3}));
    EXPECT_EQ(read_safetensors(path("g.safetensors")).metadata.at("precision"), precision);
  }
}

TEST_F(Gradients, TheLossIsThatOfTheFirstBatch) {
  const json printed = json::parse(
      succeed(Arguments{"gradients", "m.onnx", "--batch", "8", "-o", "g.safetensors", "--json"} + data({1, 6, 6})));
  weights_after_a_step("run", {});
  const json step = json::parse(read("run/metrics.jsonl").substr(0, read("run/metrics.jsonl").find('\n')));
  EXPECT_EQ(printed["loss"], step["loss"]);
  EXPECT_EQ(printed["parameters"], 4);
  EXPECT_FALSE(printed["overflow"]);
}

TEST_F(Gradients, ALossInsideTheFileIsTheSameLoss) {
  TestModel with_loss = tiny_mlp();
  with_loss.proto.mutable_graph()->clear_output();
  with_loss.input("labels", {2}, onnx::TensorProto::INT64).weight("last", ints({1}, {1}));
  with_loss.node("LogSoftmax", {"logits"}, {"logarithms"}).node("Unsqueeze", {"labels", "last"}, {"column"});
  with_loss.node("GatherElements", {"logarithms", "column"}, {"chosen"}, {{"axis", int64_t{1}}});
  with_loss.node("ReduceMean", {"chosen"}, {"mean"}, {{"keepdims", int64_t{0}}});
  with_loss.node("Neg", {"mean"}, {"nll"}).output("nll");
  write("inside.onnx", with_loss);
  write("m.onnx", tiny_mlp());
  for (const std::string precision : {"fp32", "fp16"}) {
    const auto found = [&](const std::string& model, const Arguments& more) {
      succeed(Arguments{"gradients", model, "--batch", "8", "--precision", precision, "-o", "g.safetensors"} +
              data({4}) + more);
      return read_safetensors(path("g.safetensors")).tensors;
    };
    const FileTensors beside = found("m.onnx", {}), inside = found("inside.onnx", {"--loss", "from_graph"});
    for (const auto& [name, tensor] : beside)
      for (int64_t i = 0; i < tensor.type.element_count() && (name == "loss" || name.starts_with("gradients/")); ++i)
        EXPECT_NEAR(inside.at(name).at(i), tensor.at(i), 1e-6) << precision << " " << name << "[" << i << "]";
  }
}

TEST_F(Gradients, DropoutIsOffUnlessAskedFor) {
  write("m.onnx", tiny_mlp());
  const Arguments command =
      Arguments{"gradients", "m.onnx", "--batch", "8", "--json", "-o"} + Arguments{"g.safetensors"} + data({4});
  const auto loss = [&](const Arguments& more) { return json::parse(succeed(command + more))["loss"]; };
  EXPECT_EQ(loss({}), loss({"--dropout", "0"}));
  EXPECT_NE(loss({}), loss({"--dropout", "0.5"}));
}

TEST_F(Gradients, StoredOrderFeedsTheSameBatchesEachEpoch) {
  succeed(Arguments{"train", "m.onnx", "--batch", "32", "--shuffle", "false", "--epochs", "2", "--learning_rate", "0",
                    "--precision", "fp32", "--out", "run"} +
          data({1, 6, 6}));
  std::vector<double> losses;
  std::istringstream metrics(read("run/metrics.jsonl"));
  for (std::string line; std::getline(metrics, line);)
    if (const json row = json::parse(line); row["kind"] == "step") losses.push_back(row["loss"]);
  ASSERT_EQ(losses.size(), 4u);
  EXPECT_EQ(losses[0], losses[2]);
  EXPECT_EQ(losses[1], losses[3]);
  EXPECT_NE(losses[0], losses[1]);
}

TEST_F(Gradients, WhatIsMissingIsNamed) {
  fail(1, {"gradients", "m.onnx", "-o", "g.safetensors"}, {"no training data is given"});
  fail(1, Arguments{"gradients", "m.onnx", "--batch", "65", "-o", "g.safetensors"} + data({1, 6, 6}),
       {"the data holds 64 samples, the batch takes 65: give --batch 64"});
  fail(2, {"gradients", "m.onnx"}, {"the file to write is missing: name it with -o"});
  succeed({"compile", "m.onnx", "-o", "m.step"});
  fail(1, {"gradients", "m.step", "-o", "g.safetensors"}, {"'m.step' is a compiled step", "name the ONNX file"});
}

}  // namespace
}  // namespace halfstep::test
