// Runs on tokens, on dense labels and on labels that do not all count.
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

Tensor weights(const Shape& shape, double phase) {
  Tensor t(TensorType{DType::f32, shape});
  for (int64_t i = 0; i < t.type.element_count(); ++i) t.set(i, 0.5 * std::sin(phase + 2.3 * static_cast<double>(i)));
  return t;
}

Tensor axis(int64_t value) {
  Tensor t(TensorType{DType::i64, {1}});
  t.set(0, static_cast<double>(value));
  return t;
}

// input_ids i64[2,8] -> logits f32[2,8,vocabulary]: what follows depends on one token alone.
TestModel bigrams(int64_t vocabulary = 256) {
  TestModel m(17);
  m.input("input_ids", {2, 8}, onnx::TensorProto::INT64).weight("table", weights({vocabulary, 8}, 0));
  m.weight("w", weights({8, vocabulary}, 1)).weight("ratio", Tensor::scalar(DType::f32, 0.1));
  m.node("Gather", {"table", "input_ids"}, {"e"}, {}, "embedding").node("Dropout", {"e", "ratio"}, {"d"}, {}, "drop");
  m.node("MatMul", {"d", "w"}, {"logits"}, {}, "head").output("logits");
  return m;
}

class TokenRuns : public Cli {
 protected:
  void SetUp() override {
    write("m.onnx", bigrams());
    std::string text;
    for (int i = 0; i < 120; ++i) text += "the quick brown fox ";
    write("t.txt", text);
  }
  Arguments train(const Arguments& more) const {
    return Arguments{"train",       "m.onnx", "--batch",         "4",    "--data", "t.txt", "--objective", "next_token",
                     "--optimizer", "adamw",  "--learning_rate", "0.02", "--out",  "run"} +
           more;
  }
  std::vector<json> metrics(const std::string& run, const std::string& kind) const {
    std::vector<json> rows;
    std::istringstream lines(read(run + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (json row = json::parse(line); row["kind"] == kind) rows.push_back(std::move(row));
    return rows;
  }
};

TEST_F(TokenRuns, TextIsLearnedAndMeasured) {
  const json report = json::parse(succeed(train({"--test_fraction", "0.2", "--epochs", "6", "--json"})));
  const json epoch = metrics("run", "epoch").back();
  EXPECT_LT(epoch["test_loss"], 1.2);  // 256 equally likely bytes: 5.5
  EXPECT_GT(epoch["test_accuracy"], 0.6);
  EXPECT_NEAR(epoch["test_perplexity"].get<double>(), std::exp(epoch["test_loss"].get<double>()), 1e-9);
  EXPECT_NEAR(epoch["test_bits_per_byte"].get<double>(), epoch["test_loss"].get<double>() / std::log(2.0), 1e-9);
  EXPECT_NEAR(epoch["tokens_per_second"].get<double>(), 8 * epoch["samples_per_second"].get<double>(), 1e-6);
  EXPECT_EQ(report["epochs"].back()["test_perplexity"], epoch["test_perplexity"]);
  EXPECT_TRUE(metrics("run", "step").front().contains("perplexity"));
  const Arguments eval{"eval", "m.onnx",  "--data", "t.txt",        "--objective",    "next_token", "--test_fraction",
                       "0.2",  "--batch", "5",      "--checkpoint", "run/checkpoints"};
  const json evaluated = json::parse(succeed(eval + Arguments{"--json"}));  // batches that do not divide the windows
  EXPECT_EQ(evaluated["samples"], 59);
  EXPECT_NEAR(evaluated["loss"].get<double>(), epoch["test_loss"].get<double>(), 2e-4);
  EXPECT_NEAR(evaluated["accuracy"].get<double>(), epoch["test_accuracy"].get<double>(), 1e-6);
  EXPECT_THAT(succeed(eval), testing::AllOf(HasSubstr("perplexity "), HasSubstr(" bits a byte")));
}

// Of several losses the one of the tokens is measured, and its classes are the vocabulary.
TEST_F(TokenRuns, OneOfSeveralLossesIsOfTheTokens) {
  const Arguments losses{"--losses", "name=next,output=logits,class_axis=-1,weight=0.5"};
  const json report = json::parse(succeed(train(losses + Arguments{"--test_fraction", "0.2", "--json"})));
  for (const std::string prefix : {"", "test_"}) {
    const json epoch = metrics("run", "epoch").back();
    EXPECT_NEAR(epoch.at(prefix + "perplexity").get<double>(),
                std::exp(epoch.at(prefix + "losses").at("next").at("loss").get<double>()), 1e-9);
  }
  const json step = metrics("run", "step").front();
  EXPECT_NEAR(step["perplexity"].get<double>(), std::exp(2 * step["loss"].get<double>()), 1e-2);
  write("small.onnx", bigrams(10));
  std::string ids;
  for (uint16_t i = 0; i < 400; ++i) append(ids, static_cast<uint16_t>(i == 100 ? 77 : i % 10));
  write("t.u16", ids);
  fail(1,
       {"train", "small.onnx", "--batch", "4", "--data", "t.u16", "--objective", "next_token", "--out", "other",
        "--losses", "output=logits,class_axis=-1"},
       {"token file 't.u16': token 77 at position 100, expected 0 to 9"});
}

TEST_F(TokenRuns, AStoppedRunGoesOnWithTheVeryNextWindowAndMask) {
  for (const Arguments& objective :
       {Arguments{"--objective", "next_token"}, Arguments{"--objective", "masked_token", "--mask_token", "1"}}) {
    const std::string whole = "whole" + objective[1], parts = "parts" + objective[1];
    const Arguments options = objective + Arguments{"--epochs", "3", "--seed", "3"};
    succeed(train(options + Arguments{"--out", whole, "--max_steps", "90"}));
    succeed(train(options + Arguments{"--out", parts, "--max_steps", "80"}));
    succeed(train(options + Arguments{"--out", parts, "--max_steps", "90", "--resume", parts + "/checkpoints"}));
    for (const char* file : {"weights.safetensors", "slots.safetensors", "manifest.json"})
      EXPECT_EQ(read(whole + "/checkpoints/step-000000090/" + file),
                read(parts + "/checkpoints/step-000000090/" + file))
          << objective[1] << " " << file;
  }
}

TEST_F(TokenRuns, MaskedTokensAreTheOnlyOnesThatCount) {
  const Arguments masked{"--objective", "masked_token", "--mask_token", "1", "--mask_probability", "0.3"};
  succeed(train(masked + Arguments{"--epochs", "2", "--learning_rate", "0"}));
  const auto steps = metrics("run", "step");
  for (const json& row : steps) EXPECT_NEAR(row["loss"].get<double>(), std::log(256), 2);
  const Arguments eval = Arguments{"eval", "m.onnx", "--data", "t.txt", "--batch", "4", "--json"} + masked;
  json first = json::parse(succeed(eval)), second = json::parse(succeed(eval));
  EXPECT_EQ(first["loss"], second["loss"]);
  EXPECT_NEAR(first["loss"].get<double>(), std::log(256), 1);
}

TEST_F(TokenRuns, TheRecipesOfTheTextModelsAreRead) {
  const std::string recipe = std::string(HALFSTEP_SOURCE_DIR) + "/models/gpt2_tiny.toml";
  succeed({"train", recipe, "--data", "t.txt", "--max_steps", "2", "--batch", "4", "--out", "run"});
  EXPECT_EQ(metrics("run", "step").size(), 2u);
}

TEST_F(TokenRuns, WhatMakesNoSenseIsSaid) {
  const auto refuse = [&](const Arguments& more, const Arguments& parts) { fail(1, train(more), parts); };
  refuse({"--objective", "masked_token"}, {"give the token that stands for a hidden one as mask_token"});
  const Arguments masked{"--objective", "masked_token", "--mask_token"};
  refuse(masked + Arguments{"256"}, {"mask_token: 256 is outside the model's vocabulary of 256"});
  refuse(masked + Arguments{"1", "--special_tokens", "5"}, {"special_tokens: FIRST,LAST expected"});
  refuse(masked + Arguments{"1", "--ignore_index", "0"}, {"ignore_index: objective masked_token", "leave it out"});
  refuse({"--ids", "idz"}, {"ids: the model has no input 'idz'; its inputs are 'input_ids'"});
  refuse({"--test_fraction", "0.2", "--test_data", "t.txt"}, {"test_fraction: held-out data is named already"});
  refuse({"--objective", "labels"}, {"data 't.txt': expected a folder of images by class, a directory with IDX files"});
  refuse({"--loss", "mean_squared_error"}, {"its labels are tokens, which loss mean_squared_error does not take"});
  refuse({"--no_decay", "tabel"}, {"no_decay: no parameter is called 'tabel'; did you mean 'table'?"});
  write("short.txt", "eight by");
  refuse({"--data", "short.txt"}, {"token file 'short.txt': 8 tokens, but one window takes 9"});
  std::string ids;
  for (uint16_t i = 0; i < 400; ++i) append(ids, i);
  write("t.u16", ids);
  refuse({"--data", "t.u16"}, {"token file 't.u16': token 256 at position 256, expected 0 to 255"});
  refuse({"--data", "t.u16", "--class_axis", "3"}, {"logits [N, ...] with classes on axis 3 expected"});
}

TEST_F(TokenRuns, TokensWithLabelsComeFromAnArchive) {
  TestModel m(17);
  m.input("input_ids", {2, 4}, onnx::TensorProto::INT64).input("attention_mask", {2, 4});
  m.weight("table", weights({16, 8}, 0)).weight("w", weights({8, 3}, 1));
  m.weight("axes", axis(1));
  m.node("Gather", {"table", "input_ids"}, {"e"}, {}, "embedding");
  m.weight("last", axis(2));
  m.node("Unsqueeze", {"attention_mask", "last"}, {"mask"}).node("Mul", {"e", "mask"}, {"masked"});
  m.node("ReduceSum", {"masked", "axes"}, {"s"}, {{"keepdims", int64_t{0}}}, "pool");
  m.node("MatMul", {"s", "w"}, {"logits"}, {}, "head").output("logits");
  write("c.onnx", m);
  const auto archive = [&](int64_t largest) {
    std::string ids, labels;
    for (int32_t i = 0; i < 160; ++i) append(ids, i == 77 ? static_cast<int32_t>(largest) : i * 7 % 16);
    for (uint8_t i = 0; i < 40; ++i) append(labels, static_cast<uint8_t>(i % 3));
    write("d.npz", zip({{"input_ids.npy", npy("<i4", "(40, 4)", ids)}, {"labels.npy", npy("|u1", "(40,)", labels)}}));
  };
  const Arguments command{"train", "c.onnx", "--batch", "8", "--data", "d.npz", "--out"};
  archive(3);
  const Finished trained = run(command + Arguments{"run"});
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_THAT(trained.err, HasSubstr("input 'attention_mask' has no data and holds ones"));
  EXPECT_FALSE(metrics("run", "step").front().contains("perplexity"));
  archive(16);
  fail(1, command + Arguments{"other"}, {"data array 'input_ids': sample 19 has value 16, expected -16 to 15"});
}

TEST_F(TokenRuns, DenseLabelsAreIgnoredWhereTheyDoNotCount) {
  TestModel m(17);
  m.input("x", {2, 3, 4, 4}).weight("w", weights({5, 3, 1, 1}, 0));
  m.node("Conv", {"x", "w"}, {"logits"}, {{"kernel_shape", Ints{1, 1}}}, "conv").output("logits");
  write("s.onnx", m);
  const auto evaluate = [&](auto label_of) {
    std::string images, labels;
    for (int i = 0; i < 6 * 48; ++i) append(images, static_cast<uint8_t>(i * 37 % 256));
    for (int i = 0; i < 6 * 16; ++i) append(labels, static_cast<uint8_t>(label_of(i)));
    write("d.npz",
          zip({{"x.npy", npy("|u1", "(6, 3, 4, 4)", images)}, {"labels.npy", npy("|u1", "(6, 4, 4)", labels)}}));
    return json::parse(succeed({"eval", "s.onnx", "--batch", "4", "--data", "d.npz", "--scale", "0.004", "--precision",
                                "fp32", "--ignore_index", "255", "--json"}));
  };
  const json all = evaluate([](int i) { return i % 5; });
  // Each position twice: once counted, once not.
  const json half = evaluate([](int i) { return i / 16 % 2 ? i % 5 : 255; });
  EXPECT_EQ(all["samples"], 6);
  EXPECT_NEAR(all["loss"].get<double>(), half["loss"].get<double>(), 0.3);
  const json none = evaluate([](int) { return 255; });
  EXPECT_EQ(none["loss"], 0);
  EXPECT_FALSE(none.contains("accuracy"));
  succeed({"train", "s.onnx", "--batch", "4", "--data", "d.npz", "--scale", "0.004", "--ignore_index", "255", "--out",
           "run"});
  EXPECT_EQ(metrics("run", "step").front()["loss"], 0);
}

}  // namespace
}  // namespace halfstep::test
