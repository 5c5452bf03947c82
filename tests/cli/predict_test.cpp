// halfstep predict: a model's, a run's or a compiled step's outputs as files, without labels.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "data/npy.h"
#include "tests/cli/cli_fixture.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Predict : public Cli {
 protected:
  const Arguments keys_{"--batch", "8", "--shape", "-1,4"};

  void SetUp() override { write("m.onnx", tiny_mlp()); }
  Tensor predicted(const Arguments& arguments) const {
    succeed(Arguments{"predict"} + arguments + Arguments{"-o", "p.npy"});
    return read_npy(*open_data_file(path("p.npy")));
  }
  std::string step(const Arguments& arguments) const {
    const Finished finished = run(Arguments{"predict", "step"} + arguments, {.executable = "halfstep-run"});
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    return finished.err;
  }
};

TEST_F(Predict, IsTheSameOfAModelARunAndACompiledStep) {
  succeed(Arguments{"train", "m.onnx", "--epochs", "3", "--out", "run", "--json"} + keys_ + data({4}, 64));
  data({4}, 13);  // the last batch is not full
  const Arguments with{"--checkpoint", "run/checkpoints", "--data", "x=x.npy", "--precision", "fp16"};
  const Tensor of_model = predicted(Arguments{"m.onnx"} + keys_ + with);
  EXPECT_EQ(of_model.type, (TensorType{DType::f32, {13, 3}}));
  EXPECT_NE(of_model, predicted(Arguments{"m.onnx", "--data", "x=x.npy"} + keys_)) << "the file's own weights";
  EXPECT_EQ(of_model, predicted(Arguments{"run/m.trained.onnx", "--data", "x=x.npy"} + keys_));
  write("r.toml", "model = \"m.onnx\"\nbatch = 8\nshape = \"-1,4\"\ndata = \"x=x.npy,labels=y.npy\"\n");
  EXPECT_EQ(of_model, predicted({"r.toml", "--checkpoint", "run/checkpoints"})) << "labels are not read";
  succeed(Arguments{"compile", "m.onnx", "-o", "step", "--keep_outputs", "true"} + keys_);
  EXPECT_EQ(of_model, predicted({"step", "--checkpoint", "run/checkpoints", "--data", "x=x.npy"}));
  step({"--checkpoint", "run/checkpoints", "--data", "x=x.npy", "-o", "r.npy"});
  EXPECT_EQ(of_model, read_npy(*open_data_file(path("r.npy"))));
}

TEST_F(Predict, TopClassesHaveNamesAndProbabilities) {
  data({4}, 5);
  write("names.txt", "cat\ndog\n\"eel\"\n");
  const Arguments model = Arguments{"predict", "m.onnx", "--data", "x=x.npy", "--precision", "fp32"} + keys_;
  succeed(model + Arguments{"-o", "all.npz", "--probabilities"});
  const Tensor all = read_npz(path("all.npz")).at("logits");
  succeed(model + Arguments{"-o", "top.npz", "--probabilities", "--top", "2"});
  const FileTensors top = read_npz(path("top.npz"));
  succeed(model + Arguments{"-o", "top.jsonl", "--probabilities", "--top", "2", "--class_names", "names.txt"});
  succeed(model + Arguments{"-o", "top.csv", "--top", "1", "--class_names", "names.txt"});
  EXPECT_THAT(read("top.csv"), testing::StartsWith("sample,logits_class_1,logits_score_1\n0,"));
  std::istringstream lines(read("top.jsonl"));
  const std::vector<std::string> names{"cat", "dog", "\"eel\""};
  for (int64_t i = 0; i < 5; ++i) {
    std::string line;
    std::getline(lines, line);
    const json row = json::parse(line);
    double sum = 0;
    for (int64_t c = 0; c < 3; ++c) sum += all.at(i * 3 + c);
    EXPECT_NEAR(sum, 1, 1e-6);
    for (int64_t k = 0; k < 2; ++k) {
      const auto chosen = static_cast<int64_t>(top.at("logits_class").at(i * 2 + k));
      EXPECT_EQ(row["logits_class"][static_cast<size_t>(k)], names[static_cast<size_t>(chosen)]);
      EXPECT_EQ(top.at("logits_probability").at(i * 2 + k), all.at(i * 3 + chosen));
    }
    EXPECT_GE(top.at("logits_probability").at(i * 2), top.at("logits_probability").at(i * 2 + 1));
  }
  const json told = json::parse(succeed(model + Arguments{"-o", "top.csv", "--top", "1", "--json"}));
  EXPECT_EQ(told["samples"], 5);
  EXPECT_EQ(told["arrays"][0]["name"], "logits_class");
}

TEST_F(Predict, ArraysOfOneNameAreRefused) {
  TestModel two = tiny_mlp();
  two.node("Relu", {"h"}, {"logits_class"}).output("logits_class");
  write("two.onnx", two);
  data({4}, 8);
  fail(1,
       Arguments{"predict", "two.onnx", "--data", "x=x.npy", "--output", "logits", "--top", "1", "-o", "p.npz"} + keys_,
       {"'logits_class' is an output's name and that of another one's classes or scores"});
}

TEST_F(Predict, DataOfTheCommandLineIsNotReplacedByARecipesTestData) {
  data({4}, 64);
  std::filesystem::copy(path("x.npy"), path("held.npy"));
  data({4}, 5);
  write("r.toml", "model = \"m.onnx\"\nbatch = 8\nshape = \"-1,4\"\ntest_data = \"x=held.npy\"\nkeep_outputs = true\n");
  EXPECT_EQ(predicted({"r.toml"}).type.shape[0], 64);
  EXPECT_EQ(predicted({"r.toml", "--data", "x=x.npy"}).type.shape[0], 5);
  succeed({"compile", "r.toml", "-o", "step"});
  step({"--data", "x=x.npy", "-o", "r.npy"});
  EXPECT_EQ(read_npy(*open_data_file(path("r.npy"))).type.shape[0], 5);
}

TEST_F(Predict, RefusesByName) {
  data({4}, 5);
  const Arguments model = Arguments{"predict", "m.onnx", "--data", "x=x.npy"} + keys_;
  fail(1, model + Arguments{"-o", "p.txt"}, {"a file that ends in .npz, .npy, .csv or .jsonl expected"});
  fail(2, model, {"the file to write is missing: name it with -o"});
  fail(2, model + Arguments{"-o", "p.csv", "--top", "0"}, {"--top"});
  write("names.txt", "cat\ndog\n");
  fail(1, model + Arguments{"-o", "p.csv", "--top", "2", "--class_names", "names.txt"},
       {"2 names are given, output 'logits' has 3 classes"});
  fail(1, model + Arguments{"-o", "p.csv", "--class_names", "none.txt"}, {"none.txt"});
  fail(1, model + Arguments{"-o", "p.csv", "--top", "2", "--loss", "mean_squared_error"},
       {"top: no output is known to hold classes"});
  fail(1, Arguments{"predict", "m.onnx", "-o", "p.csv"} + keys_, {"no data is given"});
  fail(1, Arguments{"predict", "m.onnx", "--data", "labels=y.npy", "-o", "p.csv"} + keys_, {"labels alone"});
  fail(1, model + Arguments{"-o", "p.csv", "--output", "logit"},
       {"output: the model has none named 'logit', did you mean 'logits'?"});
  fail(1, model + Arguments{"-o", "none/p.csv"}, {"cannot write 'none/p.csv'"});
  EXPECT_FALSE(std::filesystem::exists(path("p.csv")));
}

}  // namespace
}  // namespace halfstep::test
