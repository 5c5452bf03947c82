// A model may name its inputs, weights and outputs as Halfstep names its own: every number is what plain names give.
#include <gtest/gtest.h>

#include "frontend/import/import.h"
#include "program/safetensors.h"
#include "tests/cli/cli_fixture.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

using nlohmann::json;

const std::vector<std::string> kReserved{"parameters",
                                         "parameters.f16",
                                         "gradients",
                                         "momentum",
                                         "momentum.started",
                                         "adam.m",
                                         "adam.v",
                                         "adam.step",
                                         "loss_scale",
                                         "loss_scale.scale",
                                         "loss",
                                         "correct",
                                         "counted",
                                         "row_loss",
                                         "row_correct",
                                         "row_counted",
                                         "overflow",
                                         "step.iteration",
                                         "step.seed",
                                         "loss_scale.tracker",
                                         "train",
                                         "evaluate",
                                         "accumulate",
                                         "optimizer",
                                         ".constant.train.0",
                                         ".arena.train.0",
                                         "gradient/w",
                                         "gradients/w",
                                         "outputs/w",
                                         "momentum/w",
                                         "adam.m/w",
                                         ".constant.train.3",
                                         "step.learning_rate",
                                         "gradient/adam.m",
                                         ":parameters",
                                         ":parameters.f16",
                                         ":momentum",
                                         ":step.seed",
                                         ".:constant.train.0",
                                         "slot momentum",
                                         "slot/momentum",
                                         "measure loss",
                                         "model/w",
                                         "seed",
                                         "iteration",
                                         "learning_rate"};

// x -> a chain of scales [4], of which every fourth is frozen -> logits [2,3], with some of the chain as outputs too.
struct Named {
  TestModel model;
  std::vector<std::string> weights, outputs, frozen;
};

Named chain(const std::string& input, const std::vector<std::string>& weights, const std::vector<std::string>& values) {
  Named named{.model = TestModel(17), .weights = weights, .outputs = values, .frozen = {}};
  TestModel& m = named.model;
  m.input(input, {2, 4});
  std::string x = input;
  for (size_t i = 0; i < weights.size(); ++i) {
    m.weight(weights[i], ramp({4}, 0.9 + 0.0025 * static_cast<double>(i), 0.02));
    m.node("Mul", {x, weights[i]}, {values[i]}, {}, values[i]);
    if (i % 4 == 3) named.frozen.push_back(weights[i]);
    x = values[i];
  }
  m.weight("head", ramp({4, 3}, -0.3, 0.07)).node("MatMul", {x, "head"}, {"logits"}, {}, "loss").output("logits");
  for (const std::string& value : values) m.output(value);
  named.weights.emplace_back("head"), named.outputs.emplace_back("logits");
  return named;
}

struct Numbers {
  std::vector<Tensor> gradients, outputs, trained, exported;
  Tensor loss;
  json evaluated;
};

class Names : public Cli {
 protected:
  Numbers numbers(const Named& named, const std::string& input, const Arguments& optimized) const {
    write("m.onnx", named.model);
    data({4});
    std::string frozen;
    for (const std::string& name : named.frozen) frozen += (frozen.empty() ? "" : ",") + name;
    const Arguments with_data{"--data", input + "=x.npy,labels=y.npy", "--test_data", input + "=x.npy,labels=y.npy"};
    const Arguments keys{"--batch", "8", "--output", "logits", "--precision", "fp16", "--freeze", frozen};
    Numbers found;
    succeed(Arguments{"gradients", "m.onnx", "-o", "g.safetensors"} + keys + with_data);
    const FileTensors results = read_safetensors(path("g.safetensors")).tensors;
    found.loss = results.at("loss");
    for (const std::string& name : named.outputs) found.outputs.push_back(results.at("outputs/" + name));
    for (const std::string& name : named.weights)
      if (std::ranges::find(named.frozen, name) == named.frozen.end())
        found.gradients.push_back(results.at("gradients/" + name));

    succeed(Arguments{"compile", "m.onnx", "-o", "step"} + keys + optimized);
    const Arguments train = Arguments{"--seed", "3", "--metrics_every", "1", "--learning_rate", "0.01"} + with_data;
    std::filesystem::remove_all(path("run"));
    succeed(Arguments{"train", "step", "--out", "run", "--max_steps", "5"} + train);
    succeed(Arguments{"train", "m.onnx", "--out", "run", "--max_steps", "9", "--resume", "run/checkpoints"} + keys +
            optimized + train);
    const FileTensors trained = read_checkpoint_weights(path("run") / "checkpoints");
    for (const std::string& name : named.weights) found.trained.push_back(trained.at(name));
    succeed({"export", "m.onnx", "--checkpoint", "run/checkpoints", "-o", "t.onnx"});
    const FileTensors exported = import_model(read_onnx_file(path("t.onnx"))).weights;
    for (const std::string& name : named.weights) found.exported.push_back(exported.at(name));
    found.evaluated = json::parse(
        succeed(Arguments{"eval", "m.onnx", "--checkpoint", "run/checkpoints", "--json"} + keys + with_data));
    found.evaluated.erase("seconds");
    return found;
  }
};

TEST_F(Names, OfTheModelNeverMeetOurs) {
  std::vector<std::string> plain_weights, plain_values, values;
  for (size_t i = 0; i < kReserved.size(); ++i) {
    plain_weights.push_back("p" + std::to_string(100 + i));
    plain_values.push_back("v" + std::to_string(100 + i));
    values.push_back("y" + std::to_string(100 + i));
  }
  for (const Arguments& optimizer : {Arguments{"--optimizer", "sgd", "--momentum", "0.9", "--dampening", "0.1"},
                                     Arguments{"--optimizer", "adamw", "--accumulation", "2"}}) {
    const Numbers plain = numbers(chain("x", plain_weights, plain_values), "x", optimizer);
    // A name belongs to one value: once all are weights, once all are values and the input.
    const std::vector<std::pair<std::string, Named>> cases{
        {"x", chain("x", kReserved, values)},
        {"step.rate", chain("step.rate", plain_weights, kReserved)},
        {"step.learning_rate", chain("step.learning_rate", plain_weights, plain_values)},
        {":step.learning_rate", chain(":step.learning_rate", plain_weights, plain_values)}};
    for (const auto& [input, named] : cases) {
      SCOPED_TRACE(optimizer[1] + ", " + input + ", " + named.weights[0]);
      const Numbers found = numbers(named, input, optimizer);
      EXPECT_EQ(found.loss, plain.loss);
      EXPECT_EQ(found.outputs, plain.outputs);
      EXPECT_EQ(found.gradients, plain.gradients);
      EXPECT_EQ(found.trained, plain.trained);
      EXPECT_EQ(found.exported, plain.exported);
      EXPECT_EQ(found.evaluated, plain.evaluated);
    }
  }
}

}  // namespace
}  // namespace halfstep::test
