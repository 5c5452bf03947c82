// Transfer learning at the command line: new heads, frozen backbones, fresh weights, and what inspect says of them.
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <cmath>
#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/cli/json_schema.h"
#include "tests/recorded.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class Transfer : public Cli {
 protected:
  void SetUp() override { write("m.onnx", tiny_mlp()); }
  json parameters(const Arguments& more) const {
    return json::parse(succeed(Arguments{"inspect", "m.onnx", "--parameters", "--json"} + more));
  }
  static json row_of(const json& report, const std::string& name) {
    for (const json& row : report.at("parameters"))
      if (row.at("name") == name) return row;
    return json();
  }
  onnx::ModelProto model(const std::string& name) const {
    onnx::ModelProto proto;
    EXPECT_TRUE(proto.ParseFromString(read(name)));
    return proto;
  }
  static Shape dims_of(const onnx::ModelProto& model, const std::string& initializer) {
    for (const onnx::TensorProto& tensor : model.graph().initializer())
      if (tensor.name() == initializer) return Shape(tensor.dims().begin(), tensor.dims().end());
    return {};
  }
};

TEST_F(Transfer, ParametersSayWhatIsTrainedAndWhy) {
  write("c.onnx", tiny_convnet());
  const Arguments command{"inspect",        "c.onnx", "--parameters", "--freeze", "bn.scale",
                          "--weight_decay", "0.1",    "--no_decay",   "vectors",  "--json"};
  const json report = json::parse(succeed(command));
  const json schema = json::parse(read_file(std::string(HALFSTEP_SOURCE_DIR) + "/docs/schemas/parameters.schema.json"));
  EXPECT_THAT(schema_problems(schema, report), IsEmpty());
  const json w = row_of(report, "w"), scale = row_of(report, "bn.scale"), mean = row_of(report, "bn.mean"),
             bias = row_of(report, "bn.bias");
  EXPECT_EQ(w["state"], "trained");
  EXPECT_EQ(w["shape"], (Shape{4, 1, 3, 3}));
  EXPECT_EQ(w["readers"], json({"conv"}));
  EXPECT_EQ(w["decay"], 0.1);
  EXPECT_EQ(w["learning_rate"], 0.01);
  EXPECT_EQ(w["starts"], "file");
  EXPECT_EQ(scale["state"], "frozen");
  EXPECT_EQ(scale["why"], "freeze 'bn.scale'");
  EXPECT_EQ(scale["decay"], json());
  EXPECT_NEAR(scale["mean"].get<double>(), 1.15, 1e-6);
  EXPECT_EQ(bias["decay"], 0);
  EXPECT_EQ(mean["state"], "statistic");
  EXPECT_EQ(report["totals"]["trained"]["values"], 36 + 48 + 4);
  EXPECT_THAT(succeed({"inspect", "c.onnx", "--parameters", "--freeze", "bn.*"}),
              HasSubstr("4 tensors: freeze 'bn.*'"));
  const std::string text = succeed({"inspect", "c.onnx", "--parameters"});
  EXPECT_THAT(text, AllOf(HasSubstr("fc.weight"), HasSubstr("trained"), HasSubstr("92 values in 4 tensors"),
                          Not(HasSubstr("decay"))));
}

TEST_F(Transfer, ParametersHaveTheRatesOfTheirGroups) {
  const Arguments rates{
      "--groups", "parameters=w2|b2,learning_rate=0.5,weight_decay=0", "--unfreeze", "w1=3", "--weight_decay", "0.1"};
  const json report = parameters(rates);
  EXPECT_EQ(row_of(report, "w2")["learning_rate"], 0.5);
  EXPECT_EQ(row_of(report, "w2")["decay"], 0);
  EXPECT_EQ(row_of(report, "w1")["learning_rate"], 0.01);
  EXPECT_EQ(row_of(report, "w1")["from_epoch"], 3);
  EXPECT_EQ(row_of(report, "b1")["from_epoch"], 1);
  EXPECT_THAT(succeed(Arguments{"inspect", "m.onnx", "--parameters"} + rates),
              AllOf(HasSubstr("0.01 from epoch 3"), HasSubstr("decay")));
}

TEST_F(Transfer, AHeadGetsOtherClassesAndTheTrainedModelHasThem) {
  write("names.txt", "one\ntwo\nthree\nfour\nfive\n");
  std::string values, labels;
  const Arguments train =
      Arguments{"train", "m.onnx", "--resize_head", "5", "--class_names", "names.txt", "--batch", "8"};
  const std::string said = run(train + data({4})).err;
  EXPECT_THAT(said, HasSubstr("the last layer 'fc2' gives 5 classes instead of 3: 'w2' and 'b2' start fresh"));
  const onnx::ModelProto trained = model("halfstep-out/m.trained.onnx");
  EXPECT_EQ(dims_of(trained, "w2"), (Shape{5, 8}));
  EXPECT_EQ(dims_of(trained, "b2"), (Shape{5}));
  EXPECT_EQ(dims_of(trained, "w1"), (Shape{8, 4}));
  const std::string metadata = trained.ShortDebugString();
  EXPECT_THAT(metadata, AllOf(HasSubstr("class_names"), HasSubstr("\\\"five\\\"")));
  succeed(Arguments{"eval", "halfstep-out/m.trained.onnx", "--batch", "8"} + data({4}));
}

TEST_F(Transfer, ANewHeadTrainsAloneBesideAFrozenBackbone) {
  write("c.onnx", tiny_convnet());
  const Arguments train =
      Arguments{"train",    "c.onnx", "--resize_head", "3", "--freeze",        "*",  "--train", "fc.*",
                "--epochs", "2",      "--batch",       "8", "--learning_rate", "0.1"};
  succeed(train + data({1, 6, 6}));
  const onnx::ModelProto before = model("c.onnx"), after = model("halfstep-out/c.trained.onnx");
  for (int i = 0; i < before.graph().initializer_size(); ++i) {
    const onnx::TensorProto &old = before.graph().initializer(i), &now = after.graph().initializer(i);
    ASSERT_EQ(old.name(), now.name());
    EXPECT_EQ(old.raw_data() == now.raw_data(), old.name() != "fc.weight") << old.name();
  }
}

TEST_F(Transfer, WhatIsNamedFreshDoesNotComeFromTheFile) {
  const json report = parameters({"--fresh", "w1"});
  EXPECT_EQ(row_of(report, "w1")["starts"], "uniform ±0.5");
  EXPECT_EQ(row_of(report, "w2")["starts"], "file");
  EXPECT_EQ(row_of(parameters({"--fresh", "w*", "--init_scheme", "normal", "--init_std", "0.1"}), "w2")["starts"],
            "normal 0.1");
  EXPECT_EQ(row_of(parameters({"--init", "fresh", "--init_scheme", "xavier"}), "w1")["starts"], "uniform ±0.707");
  EXPECT_EQ(row_of(parameters({"--init", "fresh", "--init_scheme", "xavier"}), "b1")["starts"], "0");
  // Of GPT-2 what adds to the residual stream, four times, starts smaller, and the product in a gelu does not.
  const json gpt2 = json::parse(succeed({"inspect", (source_directory() / "models/families/gpt2.raw.onnx").string(),
                                         "--parameters", "--json", "--init", "fresh"}));
  for (const char* layer : {"m.transformer.h.0.", "m.transformer.h.1."}) {
    EXPECT_EQ(row_of(gpt2, std::string(layer) + "attn.c_proj.weight")["starts"], "normal 0.01");
    EXPECT_EQ(row_of(gpt2, std::string(layer) + "mlp.c_proj.weight")["starts"], "normal 0.01");
    EXPECT_EQ(row_of(gpt2, std::string(layer) + "mlp.c_fc.weight")["starts"], "normal 0.02");
    EXPECT_EQ(row_of(gpt2, std::string(layer) + "ln_1.weight")["starts"], "1");
  }
  fail(1, {"inspect", "m.onnx", "--parameters", "--fresh", "w3"}, {"fresh: no initializer is called 'w3'", "'w1'"});
}

TEST_F(Transfer, HeadsThatAreNoneAreRefusedByName) {
  const auto refused = [&](const TestModel& m, const std::string& part, const Arguments& more = {}) {
    write("bad.onnx", m);
    fail(1, Arguments{"inspect", "bad.onnx", "--parameters", "--resize_head", "4"} + more, {"resize_head: ", part});
  };
  TestModel tied(17);
  tied.input("ids", {2, 3}, onnx::TensorProto::INT64).weight("wte", ramp({40, 8}, -1, 0.005));
  tied.node("Gather", {"wte", "ids"}, {"e"}, {}, "embed").node("Transpose", {"wte"}, {"t"}, {}, "turn");
  tied.node("MatMul", {"e", "t"}, {"y"}, {}, "lm_head").output("y");
  refused(tied, "the weight 'wte' of 'lm_head' is shared with 'embed'");

  TestModel apart(17);
  apart.input("ids", {2, 3}, onnx::TensorProto::INT64).weight("wte", ramp({40, 8}, -1, 0.005));
  apart.weight("head", ramp({40, 8}, -1, 0.005)).node("Gather", {"wte", "ids"}, {"e"}, {}, "embed");
  apart.node("Transpose", {"head"}, {"t"}, {}, "turn").node("MatMul", {"e", "t"}, {"y"}, {}, "lm_head").output("y");
  refused(apart, "is tied to");

  TestModel none(17);
  none.input("x", {2, 4}).weight("w", ramp({4, 3})).weight("s", ramp({3}));
  none.node("MatMul", {"x", "w"}, {"h"}, {}, "fc")
      .node("LayerNormalization", {"h", "s"}, {"y"}, {}, "norm")
      .output("y");
  refused(none, "ends at LayerNormalization 'norm'");

  TestModel read = tiny_mlp();
  read.node("ReduceSum", {"logits"}, {"sum"}, {}, "total").output("sum");
  refused(read, "what 'fc2' gives is also read by 'total'", {"--output", "logits"});
  refused(read, "2 outputs, 'logits', 'sum'");
  refused(read, "did you mean 'logits'?", {"--output", "logit"});

  TestModel product(17);
  product.input("x", {2, 4}).input("z", {4, 3}).node("MatMul", {"x", "z"}, {"y"}, {}, "product").output("y");
  refused(product, "multiplies two activations");
  fail(1, {"inspect", "m.onnx", "--parameters", "--resize_head", "-1"}, {"resize_head: at least 0"});
  fail(1, {"inspect", "m.onnx", "--parameters", "--resize_head", "100000000000"}, {"more weights than"});
  fail(1, {"export", "m.onnx", "--resize_head", "5", "--precision", "fp16", "-o", "low.onnx"}, {"has no values yet"});
}

// A GPT-2 that starts fresh begins at the loss of guessing, and so does a ResNet.
TEST_F(Transfer, FreshModelsBeginAtTheLossOfGuessing) {
  const std::string families = (source_directory() / "models/families").string();
  std::string tokens;
  for (int i = 0; i < 4096; ++i) {
    const auto token = static_cast<uint16_t>((i * 2654435761u >> 7) % 64);
    tokens.append(reinterpret_cast<const char*>(&token), 2);
  }
  write("tokens.u16", tokens);
  const auto first_loss = [&](const Arguments& more) {
    std::filesystem::remove_all(path("halfstep-out"));
    const Arguments still{"train", more[0], "--init", "fresh", "--learning_rate", "0", "--json", "--max_steps", "2"};
    const Arguments rest(more.begin() + 1, more.end());
    const json result = json::parse(succeed(still + rest));
    return result["epochs"][0]["loss"].get<double>();
  };
  const Arguments text{"--objective", "next_token", "--data", "tokens.u16", "--batch", "8"};
  for (const std::string model : {"gpt2.raw", "gpt2.dynamo", "llama.dynamo"})
    EXPECT_NEAR(first_loss(Arguments{families + "/" + model + ".onnx"} + text), std::log(64), 0.1) << model;
  // Tied to a table of unit variance, the scores are not.
  EXPECT_GT(first_loss(Arguments{families + "/gpt2.raw.onnx", "--init_scheme", "pytorch"} + text), 6);
  EXPECT_NEAR(first_loss(Arguments{families + "/resnet.raw.onnx", "--batch", "16"} + data({3, 32, 32})), std::log(10),
              0.3);
}

// What tools/compare_fine_tuning.py recorded of PyTorch: the backbone frozen, the same new head, ten steps.
TEST_F(Transfer, ANewHeadLearnsAsPyTorchs) {
  const json recorded = json::parse(read_file(std::string(HALFSTEP_SOURCE_DIR) + "/tests/references/fine_tuning.json"));
  const std::string folder = (source_directory() / "models/shapes").string();
  for (const auto& [name, run] : recorded.at("runs").items()) {
    SCOPED_TRACE(name);
    Arguments arguments{"train", folder + "/shapes.onnx", "--data", folder + "/corners.npz", "--out", name};
    for (const json& word : run.at("arguments")) arguments.push_back(word);
    succeed(arguments);
    std::istringstream lines(read(name + "/metrics.jsonl"));
    std::vector<double> losses;
    for (std::string line; std::getline(lines, line);)
      if (const json row = json::parse(line); row.at("kind") == "step" && losses.size() < 10)
        losses.push_back(row.at("loss"));
    ASSERT_EQ(losses.size(), 10u);
    for (size_t i = 0; i < losses.size(); ++i)
      EXPECT_NEAR(losses[i], run.at("losses")[i].get<double>(), 2e-5 * losses[i]) << "step " << i + 1;
  }
}

}  // namespace
}  // namespace halfstep::test
