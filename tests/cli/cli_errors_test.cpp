// Bad input, at the command line: the exit code, and a message that names the place and what to do.
#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"

namespace halfstep::test {
namespace {

class CliErrors : public Cli {
 protected:
  void check_refuses(const TestModel& model, const Arguments& parts) const {
    write("m.onnx", model);
    const Finished checked = run({"check", "m.onnx"});
    EXPECT_EQ(checked.exit_code, 4) << checked.err;
    for (const std::string& part : parts) EXPECT_THAT(checked.out, testing::HasSubstr(part));
    fail(1, {"compile", "m.onnx", "-o", "step"}, parts);
    EXPECT_FALSE(std::filesystem::exists(path("step")));
  }
  Arguments train(const Arguments& more) const {
    return Arguments{"train", "m.onnx", "--batch", "8", "--out", "run"} + more;
  }
};

TEST_F(CliErrors, FilesThatAreNoModel) {
  const std::string whole = tiny_mlp().proto.SerializeAsString();
  write("truncated.onnx", whole.substr(0, whole.size() / 2));
  write("text.onnx", "this is a text file\n");
  write("empty.onnx", "");
  for (const std::string command : {"check", "inspect", "train", "bench"}) {
    const Arguments more = data({4});
    fail(1, Arguments{command, "truncated.onnx"} + more, {"model 'truncated.onnx'", "truncated"});
    fail(1, Arguments{command, "text.onnx"} + more, {"model 'text.onnx'", "text file"});
    fail(1, Arguments{command, "empty.onnx"} + more, {"model 'empty.onnx'", "empty"});
    fail(1, Arguments{command, "missing.onnx"} + more, {"missing.onnx", "No such file"});
  }
}

TEST_F(CliErrors, EmptyGraph) { check_refuses(TestModel().input("x", {2, 4}), {"graph"}); }

TEST_F(CliErrors, EveryUnknownOperatorAtOnce) {
  TestModel m = tiny_mlp();
  m.node("Frobnicate", {"x"}, {"a"}, {}, "first").node("Whirl", {"x"}, {"b"}, {}, "second").output("a").output("b");
  check_refuses(m, {"operator Frobnicate is not supported", "'first'", "operator Whirl is not supported", "'second'"});
}

TEST_F(CliErrors, UnknownOpset) {
  TestModel m = tiny_mlp();
  m.proto.mutable_opset_import(0)->set_version(99);
  check_refuses(m, {"opset 99 is not supported: 7 to 28 are; export the model again"});
}

TEST_F(CliErrors, MissingInitializer) {
  TestModel m = tiny_mlp();
  m.proto.mutable_graph()->mutable_initializer()->DeleteSubrange(0, 1);
  check_refuses(m, {"Gemm 'fc1': operand 'w1' is nowhere defined"});
}

TEST_F(CliErrors, ExternalDataThatIsMissingOrElsewhere) {
  const auto external = [](const std::string& location) {
    TestModel m = tiny_mlp();
    onnx::TensorProto& w = *m.proto.mutable_graph()->mutable_initializer(0);
    w.clear_raw_data();
    w.set_data_location(onnx::TensorProto::EXTERNAL);
    auto& entry = *w.add_external_data();
    entry.set_key("location"), entry.set_value(location);
    return m;
  };
  check_refuses(external("m.data"), {"external data 'm.data' of tensor 'w1' is missing", "fresh weights with --init"});
  EXPECT_EQ(run({"check", "m.onnx", "--init", "absent"}).exit_code, 0);
  EXPECT_EQ(run({"check", "--init", "m.onnx"}).exit_code, 0) << "alone it means absent";
  write("secret", std::string(128, 'x'));
  std::filesystem::create_directory(path("model"));
  std::filesystem::create_symlink(path("secret"), path("link"));
  for (const std::string location : {"../secret", "/etc/passwd", "sub/../../secret"})
    check_refuses(external(location), {"tensor 'w1'", "outside"});
  std::filesystem::create_hard_link(path("secret"), path("hard"));
  check_refuses(external("hard"), {"tensor 'w1'", "'hard' is a hard link"});
}

// A graph without its data is checked and compiled, but no run ends in a model that cannot be written.
TEST_F(CliErrors, MissingConstantsEndARunAtItsStart) {
  TestModel m = tiny_mlp();
  m.node("Gather", {"logits", "order"}, {"sorted"}, {{"axis", int64_t{1}}}, "sort")
      .weight("order", ints({3}, {2, 0, 1}));
  m.proto.mutable_graph()->mutable_output(0)->set_name("sorted");
  onnx::TensorProto& order = *m.proto.mutable_graph()->mutable_initializer(5);
  order.clear_raw_data(), order.clear_int64_data();
  order.set_data_location(onnx::TensorProto::EXTERNAL);
  auto& entry = *order.add_external_data();
  entry.set_key("location"), entry.set_value("gone.data");
  write("m.onnx", m);
  EXPECT_EQ(run({"check", "m.onnx", "--init"}).exit_code, 0);
  EXPECT_EQ(run({"compile", "m.onnx", "--init", "-o", "step"}).exit_code, 0);
  fail(1, train({"--init"}) + data({4}),
       {"external data 'gone.data' of tensor 'order' is missing", "these are constants"});
  fail(1, Arguments{"train", "step", "--out", "run"} + data({4}),
       {"compiled without constants of its model", "'order' is missing"});
}

TEST_F(CliErrors, CyclicGraphAndDuplicateNames) {
  TestModel cyclic = tiny_mlp();
  cyclic.node("Add", {"x", "q"}, {"p"}, {}, "one").node("Relu", {"p"}, {"q"}, {}, "two");
  check_refuses(cyclic, {"cycle", "Add 'one'", "Relu 'two'"});
  TestModel twice = tiny_mlp();
  twice.node("Relu", {"h"}, {"r"}, {}, "again");
  check_refuses(twice, {"value 'r' is defined twice", "'again'"});
}

TEST_F(CliErrors, IntegerModelHasNothingToTrain) {
  TestModel m;
  m.input("x", {2, 4}, onnx::TensorProto::INT64).weight("w", ints({4}, {1, 2, 3, 4}));
  m.node("Mul", {"x", "w"}, {"y"}).output("y");
  check_refuses(m, {"nothing to train"});
}

TEST_F(CliErrors, LossOnAnOutputThatIsMissing) {
  write("m.onnx", tiny_mlp());
  fail(1, train(Arguments{"--output", "logit"} + data({4})), {"no output 'logit'", "did you mean 'logits'?"});
  fail(1, train(Arguments{"--loss", "from_graph"} + data({4})), {"output 'logits'", "expected"});
}

TEST_F(CliErrors, WeightsThatAreNotFinite) {
  TestModel m = tiny_mlp();
  Tensor w = ramp({8, 4});
  w.set(5, std::numeric_limits<double>::quiet_NaN());
  *m.proto.mutable_graph()->mutable_initializer(0) = tensor_proto("w1", w);
  write("m.onnx", m);
  fail(1, train(data({4})), {"tensor 'w1': element 5 of 32 is nan", "--init fresh"});
  EXPECT_EQ(run(train(Arguments{"--init", "fresh"} + data({4}))).exit_code, 0);
}

TEST_F(CliErrors, KeysWithoutEffectAreNamed) {
  write("m.onnx", tiny_mlp());
  const Finished done = run(train(data({4}) + Arguments{"--optimizer", "adam", "--momentum", "0.9", "--batch", "48"}));
  EXPECT_EQ(done.exit_code, 0);
  EXPECT_THAT(done.err, testing::HasSubstr("note: momentum has no effect: optimizer is adam"));
  EXPECT_THAT(done.err, testing::HasSubstr("note: 16 of 64 samples do not fill a step of 48"));
}

TEST_F(CliErrors, ANewRunBesideTheCheckpointsOfAnother) {
  write("m.onnx", tiny_mlp());
  succeed(train(data({4})));
  fail(1, train(data({4})),
       {"output directory 'run' holds the checkpoints of another run",
        "--resume run/checkpoints, choose another directory with --out, or remove that run with --overwrite"});
}

TEST_F(CliErrors, AStepLargerThanTheMemory) {
  TestModel m;
  m.input("x", {2, 1 << 20}).weight("w", floats({1}, {2})).node("Mul", {"x", "w"}, {"y"}, {}, "mul").output("y");
  write("m.onnx", m);
  fail(1, {"bench", "m.onnx", "--batch", "1000000", "--loss", "mean_squared_error"},
       {"the step needs", "use a smaller batch; largest:", "'x'"});
}

TEST_F(CliErrors, DataThatDoesNotFit) {
  write("m.onnx", tiny_mlp());
  fail(1, train({}), {"no training data is given", "--data"});
  fail(1, train(data({5})), {"input 'x'", "takes samples of [4]", "are [5]"});
  data({4});
  write("bad_labels.npy", npy("<i8", "(64,)", [] {
          std::string bytes;
          for (int64_t i = 0; i < 64; ++i) append(bytes, i == 17 ? int64_t{3} : i % 3);
          return bytes;
        }()));
  fail(1, train({"--data", "x=x.npy,labels=bad_labels.npy"}),
       {"data array 'labels': sample 17 has label 3, expected 0 to 2 (1 such samples)"});
  fail(1, train({"--data", "x=x.npy,labels=bad_labels.npy", "--classes", "4"}),
       {"classes: 4 are given, but the output has 3"});
  write("bytes", idx_u8({64, 4}, std::string(256, 'a')));
  fail(1, train({"--data", "x=bytes,labels=y.npy"}),
       {"input 'x': expected f32, but data array 'x' is u8: say with scale"});
  write("strings.npy", npy("<U1", "(64,)", std::string(256, '\0')));
  fail(1, train({"--data", "x=x.npy,labels=strings.npy"}), {"strings.npy", "<U1"});
  fail(1, train({"--data", "x=y.npy,labels=y.npy"}), {"input 'x'"});
  std::string values;
  for (int i = 0; i < 256; ++i) append(values, i == 100 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
  write("nan.npy", npy("<f4", "(64, 4)", values));
  fail(1, train({"--data", "x=nan.npy,labels=y.npy"}), {"data array 'x': sample 25 holds NaN (element 0)"});
  fail(1, train({"--data", "x=x.npy"}), {"inputs 'x', 'labels'", "arrays 'x'", "one array for each input"});
  fail(1, train(Arguments{"--batch", "65"} + data({4})),
       {"one step takes 65 samples", "has 64", "choose a smaller batch"});
}

TEST_F(CliErrors, CorruptGzip) {
  write("m.onnx", tiny_mlp());
  std::string images = gzip(idx_u8({64, 4}, std::string(256, 'a')));
  images[images.size() - 6] = static_cast<char>(images[images.size() - 6] ^ 1);  // in the checksum
  std::filesystem::create_directory(path("set"));
  write("set/train-images-idx3-ubyte.gz", images);
  write("set/train-labels-idx1-ubyte.gz", gzip(idx_u8({64}, std::string(64, '\1'))));
  fail(1, train({"--data", "set"}), {"train-images-idx3-ubyte.gz", "compressed data is corrupt"});
}

TEST_F(CliErrors, DirectoriesThatCannotBeReadOrWritten) {
  write("m.onnx", tiny_mlp());
  write("file", "x");
  fail(1, {"compile", "m.onnx", "-o", "file/step"}, {"cannot write compiled step 'file/step'"});
  fail(1, {"compile", "m.onnx", "-o", "file"}, {"'file'", "not a compiled step", "choose another directory"});
  fail(1, train(data({4}) + Arguments{"--out", "file/run"}), {"cannot create output directory 'file/run'"});
  fail(1, train({"--data", "none"}), {"'none'", "No such file"});
  fail(1, {"inspect", "."}, {"is a directory"});
  fail(1, train(data({4}) + Arguments{"--resume", "none"}), {"'none'", "No such file"});
}

TEST_F(CliErrors, FullDiskKeepsTheOldCheckpoint) {
  write("m.onnx", tiny_mlp(8192));  // weights of 200 KiB
  succeed(train(data({4}) + Arguments{"--metrics_every", "0"}));
  const std::string before = read("run/checkpoints/step-000000008/weights.safetensors");
  const Finished full =
      run(train(data({4}) + Arguments{"--metrics_every", "0", "--epochs", "2", "--resume", "run/checkpoints"}),
          {.largest_file = 150 * 1024});
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, testing::AllOf(testing::HasSubstr("cannot write"), testing::HasSubstr("step-000000016"),
                                       testing::HasSubstr("File too large")));
  EXPECT_EQ(read("run/checkpoints/step-000000008/weights.safetensors"), before);
  EXPECT_FALSE(std::filesystem::exists(path("run/checkpoints/step-000000016")));
}

TEST_F(CliErrors, CorruptCheckpointOffersTheOlderOne) {
  write("m.onnx", tiny_mlp());
  const auto arguments = train(data({4}) + Arguments{"--epochs", "3"});
  succeed(arguments);
  std::string weights = read("run/checkpoints/step-000000024/weights.safetensors");
  weights.back() = static_cast<char>(weights.back() ^ 1);
  write("run/checkpoints/step-000000024/weights.safetensors", weights);
  fail(1, arguments + Arguments{"--epochs", "4", "--resume", "run/checkpoints"},
       {"step-000000024' is corrupt", "checksum", "use the older intact one 'run/checkpoints/step-000000016'"});
  fail(1, Arguments{"eval", "m.onnx", "--checkpoint", "run/checkpoints"} + data({4}), {"is corrupt"});
  TestModel other = tiny_mlp();
  other.proto.mutable_graph()->mutable_initializer(0)->set_name("another");
  other.proto.mutable_graph()->mutable_node(0)->set_input(1, "another");
  write("other.onnx", other);
  fail(1, Arguments{"eval", "other.onnx", "--checkpoint", "run/checkpoints/step-000000016"} + data({4}),
       {"'another' f32[8,4] is missing", "it holds 'w1'", "another model"});
}

TEST_F(CliErrors, RecipesAndKeys) {
  write("m.onnx", tiny_mlp());
  write("r.toml", "model = \"m.onnx\"\nlerning_rate = 0.1\nbatch = \"many\"\nprecision = \"fp61\"\n[step]\n");
  fail(1, {"train", "r.toml"},
       {"recipe 'r.toml', line 2: no key 'lerning_rate'; did you mean 'learning_rate'?",
        "line 3: batch: a whole number expected, found 'many'", "line 4: precision: one of fp16|bf16|fp32 expected",
        "did you mean 'fp16'?", "line 5: no key 'step'"});
  write("bad.toml", "model = \n");
  fail(1, {"train", "bad.toml"}, {"recipe 'bad.toml', line 1"});
  fail(1, {"train", "none.toml"}, {"none.toml", "No such file"});
  fail(1, train({"--batch", "0"}), {"--batch: at least 1 expected, found 0"});
  fail(1, train({"--learning-rate", "nan", "--epochs", "-1"}),
       {"--learning_rate: a number expected, found 'nan'", "--epochs: at least 1 expected, found -1"});
  fail(1, train(Arguments{"--deny", "fc3"} + data({4})), {"'fc3'"});
  fail(1, train(Arguments{"--min-scale", "2048", "--initial-scale", "1024"} + data({4})),
       {"min_scale 2048 is above initial_scale 1024"});
  fail(1, train(Arguments{"--shape", "4,4"} + data({4})), {"shape: its first axis, the batch, is 4, but batch is 8"});
}

TEST_F(CliErrors, CudaWithoutAGpu) {
  write("m.onnx", tiny_mlp());
  fail(1, train(Arguments{"--device", "cuda"} + data({4})),
       {"device 'cuda': ", "run on the CPU instead (--device cpu)"});
  // Compiling for one needs none.
  succeed({"compile", "m.onnx", "-o", "step", "--device", "cuda", "--architecture", "sm_90"});
  fail(1, Arguments{"train", "step"} + data({4}), {"device 'cuda': "});
}

TEST_F(CliErrors, UnknownPass) {
  write("m.onnx", tiny_mlp());
  fail(1, {"compile", "m.onnx", "--stop-after", "autocats"}, {"no pass 'autocats', did you mean 'autocast'?"});
}

TEST_F(CliErrors, AreJsonOnStderrWhereThatIsAskedFor) {
  TestModel m = tiny_mlp();
  m.node("Frobnicate", {"x"}, {"a"}).node("Whirl", {"x"}, {"b"}).output("a").output("b");
  write("m.onnx", m);
  const Finished finished = run({"inspect", "m.onnx", "--json"});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_EQ(finished.out, "");
  const nlohmann::json error = nlohmann::json::parse(finished.err);
  ASSERT_EQ(error["problems"].size(), 2u);
  EXPECT_THAT(error["problems"][1].get<std::string>(), testing::HasSubstr("Whirl"));
  EXPECT_EQ(error["error"], error["problems"][0].get<std::string>() + "\n" + error["problems"][1].get<std::string>());
  EXPECT_EQ(error["exit_code"], 1);
  EXPECT_EQ(nlohmann::json::parse(run({"trian", "--json"}).err)["exit_code"], 2);
}

}  // namespace
}  // namespace halfstep::test
