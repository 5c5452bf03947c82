// Runs on tables, on folders of images, and on data of which a part is held out.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "tests/cli/cli_fixture.h"
#include "tests/data/data_files.h"
#include "tests/data/image_writing.h"
#include "training/checkpoint.h"

namespace halfstep::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kFiles[] = {"weights.safetensors", "slots.safetensors", "manifest.json"};

class DataRuns : public Cli {
 protected:
  std::filesystem::path newest(const std::string& run) const {
    return list_checkpoints(path(run) / "checkpoints").front().path;
  }
  void expect_equal(const std::string& run, const std::string& other) const {
    for (const char* file : kFiles) EXPECT_EQ(read_file(newest(run) / file), read_file(newest(other) / file)) << file;
  }
  // Stopped inside an epoch and gone on with `more`, it ends with the bits of one that ran through.
  void resumes(const Arguments& train, const Arguments& more = {}) const {
    succeed(train + Arguments{"--out", "whole", "--max_steps", "11"});
    succeed(train + Arguments{"--out", "parts", "--max_steps", "4"});
    ASSERT_GT(read_checkpoint(newest("parts")).train.position, 0);
    succeed(train + more + Arguments{"--out", "parts", "--max_steps", "11", "--resume", "parts/checkpoints"});
    expect_equal("whole", "parts");
  }
};

class TableRuns : public DataRuns {
 protected:
  void SetUp() override {
    write("m.onnx", tiny_mlp());
    std::string text = "a;b;c;d;kind\r\n";
    const char* kinds[] = {"setosa", "iris", "\"the \"\"other\"\"\""};
    for (int i = 0; i < 60; ++i) {
      const int kind = i % 3;
      for (int j = 0; j < 4; ++j) text += std::to_string(100 * j + (j == kind ? 20 : -10) + (i * 7 + j) % 5) + ";";
      text += std::string(kinds[kind]) + "\r\n";
    }
    write("t.csv", text);
  }
  Arguments train(const Arguments& more = {}) const {
    return Arguments{"train",           "m.onnx", "--data", "t.csv", "--batch",       "8",
                     "--learning_rate", "0.1",    "--seed", "3",     "--standardize", "*"} +
           more;
  }
};

TEST_F(TableRuns, ATableIsLearnedAndItsClassesAreKept) {
  const json report = json::parse(
      succeed(train({"--test_fraction", "0.2", "--epochs", "15", "--out", "run", "--dropout", "0", "--json"})));
  const json last = report["epochs"].back();
  EXPECT_GT(last["test_accuracy"], 0.9);
  const TrainState state = read_checkpoint(newest("run")).train;
  EXPECT_EQ(state.samples, 48);
  EXPECT_EQ(state.data.classes, (std::vector<std::string>{"iris", "setosa", "the \"other\""}));
  EXPECT_EQ(state.data.columns, (std::vector<std::string>{"a", "b", "c", "d"}));
  ASSERT_EQ(state.data.scalings.size(), 4u);
  EXPECT_EQ(state.data.split, "test_fraction 0.2");
  // Another engine has to standardise them alike.
  const Finished exported = run({"export", "m.onnx", "--checkpoint", "run/checkpoints", "-o", "t.onnx"});
  EXPECT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_THAT(exported.err, HasSubstr("the model takes its columns as they were standardised"));
  for (const char* file : {"t.onnx", "run/m.trained.onnx"})
    EXPECT_THAT(read(file), testing::AllOf(HasSubstr("halfstep.data_facts"), HasSubstr("class_names"))) << file;
  // The very samples that were held out, whatever seed the evaluation has, and in the order of the data.
  const Arguments eval{"eval",         "m.onnx",          "--data", "t.csv", "--test_fraction", "0.2",
                       "--checkpoint", "run/checkpoints", "--seed", "77",    "--json"};
  const json evaluated = json::parse(succeed(eval));
  EXPECT_EQ(evaluated["samples"], 12);
  EXPECT_NEAR(evaluated["loss"].get<double>(), last["test_loss"].get<double>(), 1e-5);
  // Columns by their names in another order, and a part of the classes.
  write("few.csv", "kind,d,c,b,a\nsetosa,291,192,121,-9\niris,291,192,91,21\n");
  const json few = json::parse(succeed({"eval", "m.onnx", "--test_data", "few.csv", "--checkpoint", "run/checkpoints",
                                        "--label_column", "kind", "--json"}));
  EXPECT_EQ(few["samples"], 2);
  succeed({"predict", "m.onnx", "--test_data", "few.csv", "--checkpoint", "run/checkpoints", "--label_column", "kind",
           "--top", "1", "-o", "top.csv"});
  EXPECT_THAT(read("top.csv"), AllOf(HasSubstr("\n0,iris,"), HasSubstr("\n1,setosa,")));
  fail(1, {"eval", "m.onnx", "--data", "t.csv", "--test_fraction", "0.3", "--checkpoint", "run/checkpoints"},
       {"test_fraction 0.3: the checkpoint's run held out test_fraction 0.2: give the same"});
  fail(1, {"train", "m.onnx", "--data", "t.csv", "--out", "run", "--epochs", "20", "--resume", "run/checkpoints"},
       {"the run of 'run/checkpoints' held out test_fraction 0.2: give the same"});
  write("odd.csv", "a,b,c,d,kind\n1,2,3,4,rose\n");
  fail(1, {"eval", "m.onnx", "--test_data", "odd.csv", "--checkpoint", "run/checkpoints"},
       {"odd.csv', line 2, column 'kind': 'rose' is none of the run's 3 classes"});
}

TEST_F(TableRuns, GoOnBitForBit) {
  resumes(train({"--folds", "4", "--fold", "2", "--sampling", "balanced", "--epochs", "5"}));
}

TEST_F(TableRuns, LargerThanMemoryTheyAreTheSame) {
  const Arguments all = train({"--test_fraction", "0.2", "--epochs", "5"});
  succeed(all + Arguments{"--out", "memory"});
  succeed(all + Arguments{"--out", "files", "--data_memory", "1"});
  expect_equal("memory", "files");
  resumes(all + Arguments{"--data_memory", "64"}, {"--data_memory", "1MiB"});
}

// The seed of the split is the run's, whatever the recipe says later.
TEST_F(TableRuns, ASeedGivenLaterDoesNotMixTheParts) {
  succeed(train({"--test_fraction", "0.25", "--epochs", "2", "--out", "parts"}));
  succeed(train(
      {"--test_fraction", "0.25", "--epochs", "4", "--out", "parts", "--resume", "parts/checkpoints", "--seed", "9"}));
  succeed(train({"--test_fraction", "0.25", "--epochs", "4", "--out", "whole"}));
  expect_equal("whole", "parts");
}

TEST_F(TableRuns, ACompiledStepTakesThemToo) {
  succeed({"compile", "m.onnx", "--batch", "8", "--keep_outputs", "true", "--learning_rate", "0.1", "-o", "step"});
  const auto on_device = [&](const Arguments& arguments) {
    const Finished finished = run(arguments, {.executable = "halfstep-run"});
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
  };
  on_device({"train", "step", "--data", "t.csv", "--standardize", "*", "--folds", "5", "--out", "run"});
  write("new.csv", "a;b;c;d\n20;90;190;290\n");
  on_device({"predict", "step", "--checkpoint", "run/checkpoints", "--test_data", "new.csv", "-o", "p.npz"});
  EXPECT_TRUE(std::filesystem::exists(path("p.npz")));
}

TEST_F(TableRuns, MistakesAreTold) {
  const auto refuse = [&](const Arguments& more, const Arguments& parts) { fail(1, train(more), parts); };
  refuse({"--test_fraction", "0.2", "--folds", "3"}, {"test_fraction and folds: both are given"});
  refuse({"--test_fraction", "1"}, {"test_fraction: below 1 expected"});
  refuse({"--folds", "3", "--fold", "4"}, {"fold: 1 to 3, the folds, expected, found 4"});
  refuse({"--test_fraction", "0.2", "--test_data", "t.csv"}, {"test_fraction: held-out data is named already"});
  refuse({"--label_column", "kinds"}, {"label_column: there is no column 'kinds'; did you mean 'kind'?"});
  refuse({"--delimiter", ","}, {"no column is left for the model: it has 1"});
  refuse({"--standardize", "z*"}, {"standardize: 'z*' matches no column"});
  refuse({"--drop_columns", "a"}, {"takes samples of [4], those of data array 'table' f32[60,3] are [3]"});
  refuse({"--sampling", "balanced", "--shuffle", "false"}, {"sampling: balanced draws its samples in a new order"});
  write("bad.csv", "a,b,c,d,kind\n1,2,,4,x\n1,2,3,4\n1,2,3,4,x\n");
  refuse({"--data", "bad.csv"}, {"bad.csv', line 2, column 'c': it is empty", "line 3: 4 columns, expected 5"});
}

class ImageRuns : public DataRuns {
 protected:
  void SetUp() override {
    write("m.onnx", tiny_convnet());
    const char* classes[] = {"dark", "light", "middle"};
    for (const std::string part : {"train", "val"})
      for (int c = 0; c < 3; ++c) {
        const std::string folder = "pets/" + part + "/" + classes[c];
        std::filesystem::create_directories(path(folder));
        for (int i = 0; i < (part == "train" ? 14 : 4); ++i) {
          const int64_t height = 9 + i % 3, width = 8 + i % 4;
          std::vector<uint8_t> pixels = pattern(height, width, 3, i);
          for (uint8_t& p : pixels) p = static_cast<uint8_t>(p / 8 + (c == 0 ? 0 : c == 1 ? 200 : 100));
          write(folder + "/" + std::to_string(i) + (i % 2 == 0 ? ".png" : ".JPG"),
                i % 2 == 0 ? png_file(height, width, pixels) : jpeg_file(height, width, pixels));
        }
      }
  }
  Arguments train(const Arguments& more = {}) const {
    return Arguments{"train", "m.onnx", "--data",  "pets", "--scale",         "0.00392157", "--mean", "0.5",
                     "--std", "0.5",    "--batch", "4",    "--learning_rate", "0.02",       "--seed", "3"} +
           more;
  }
};

TEST_F(ImageRuns, AFolderOfImagesIsLearned) {
  const json report =
      json::parse(succeed(train({"--epochs", "40", "--augment", "flip,shift", "--out", "run", "--json"})));
  EXPECT_GT(report["epochs"].back()["test_accuracy"], 0.9);
  EXPECT_NE(read("run/metrics.jsonl").find("\"data_wait\":"), std::string::npos);
  const TrainState state = read_checkpoint(newest("run")).train;
  EXPECT_EQ(state.data.classes, (std::vector<std::string>{"dark", "light", "middle"}));
  const Finished evaluated = run({"eval", "m.onnx", "--data", "pets", "--scale", "0.00392157", "--mean", "0.5", "--std",
                                  "0.5", "--checkpoint", "run/checkpoints"});
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.err;
  EXPECT_THAT(evaluated.out, HasSubstr("12 samples"));
  EXPECT_THAT(evaluated.err, AllOf(HasSubstr("pets/val': 12 images, classes 0 'dark', 1 'light', 2 'middle'"),
                                   HasSubstr("images go to input 'x' u8[32,1,6,6] in grey, channels first: as small as "
                                             "they still fill it, and the middle is cut out")));
}

// Whatever the number of threads.
TEST_F(ImageRuns, GoOnBitForBit) {
  const Arguments all = train({"--epochs", "5", "--augment", "crop,flip,shift,color,cutout", "--loader_threads", "3"});
  resumes(all, {"--loader_threads", "1"});
}

TEST_F(ImageRuns, MixedBatchesGoOnBitForBit) {
  resumes(train({"--epochs", "5", "--mixup", "0.4", "--cutmix", "1", "--augment", "flip"}), {"--loader_threads", "1"});
}

// Training has no accuracy then, and evaluation is of images as they are.
TEST_F(ImageRuns, MixedBatchesAreForTrainingAlone) {
  const Arguments mixed{"--mixup", "0.4", "--cutmix", "1", "--label_smoothing", "0.1"};
  const json report = json::parse(succeed(train(mixed + Arguments{"--epochs", "3", "--out", "run", "--json"})));
  const json last = report["epochs"].back();
  EXPECT_FALSE(last.contains("accuracy")) << last;
  ASSERT_TRUE(last.contains("test_accuracy")) << last;
  for (const char* key : {"\"accuracy\"", "\"mix_share\""})
    EXPECT_EQ(read("run/metrics.jsonl").find(key), std::string::npos);
  const json evaluated =
      json::parse(succeed({"eval", "m.onnx", "--data", "pets", "--scale", "0.00392157", "--mean", "0.5", "--std", "0.5",
                           "--label_smoothing", "0.1", "--checkpoint", "run/checkpoints", "--json"}));
  EXPECT_NEAR(evaluated["loss"].get<double>(), last["test_loss"].get<double>(), 1e-5);
  EXPECT_EQ(evaluated["accuracy"], last["test_accuracy"]);
  fail(1, train(mixed + Arguments{"--best", "accuracy"}), {"best: "});
  fail(1, train({"--cutmix", "1", "--loss", "mse"}), {"mixup and cutmix: loss mean_squared_error takes no shares"});
  fail(1, train({"--cutmix", "1", "--batch", "1"}), {"cutmix: input 'x' takes a batch of 1"});
  fail(1, train({"--mixup", "-1"}), {"mixup: at least 0 expected"});
}

TEST_F(ImageRuns, WithAccumulationTheyComeInTheSameOrder) {
  const Arguments options{"--epochs", "3",       "--augment", "flip",        "--accumulation",
                          "2",        "--batch", "4",         "--max_steps", "7"};
  succeed(train(options + Arguments{"--out", "one", "--loader_threads", "1"}));
  succeed(train(options + Arguments{"--out", "four", "--loader_threads", "4"}));
  expect_equal("one", "four");
}

TEST_F(ImageRuns, AnImageThatCannotBeDecodedStopsTheRunOrIsLeftOut) {
  const std::string whole = read("pets/train/dark/0.png");
  write("pets/train/dark/cut.png", whole.substr(0, whole.size() / 2));
  write("pets/train/light/page.jpg", "<html>no such page</html>");
  fail(1, train({"--out", "run", "--epochs", "2"}), {"image 'pets/train/", "bad_images skip leaves out"});
  const Finished skipped = run(train({"--out", "skip", "--bad_images", "skip"}));
  EXPECT_EQ(skipped.exit_code, 0) << skipped.err;
  EXPECT_THAT(skipped.err, AllOf(HasSubstr("left out: image 'pets/train/dark/cut.png': it is cut off"),
                                 HasSubstr("left out: image 'pets/train/light/page.jpg': it is neither PNG nor JPEG")));
  EXPECT_EQ(read_checkpoint(newest("skip")).train.samples, 42);
}

TEST_F(ImageRuns, MistakesAreTold) {
  const auto refuse = [&](const Arguments& more, const Arguments& parts) { fail(1, train(more), parts); };
  refuse({"--augment", "mirror"}, {"augment: crop, flip, shift, color, hue or cutout expected, found 'mirror'"});
  refuse({"--resize", "4"}, {"resize: 4 is less than a side of input 'x'"});
  refuse({"--max_image_pixels", "50"}, {"pixels are more than max_image_pixels, 50"});
  fail(1, {"train", "m.onnx", "--data", "pets", "--out", "o"},
       {"input 'x': it takes f32[32,1,6,6], and images are bytes: say with scale"});
  std::filesystem::create_directories(path("pets/train/none"));
  refuse({}, {"data folder 'pets/train': class 'none' has no PNG or JPEG file: remove it, or fill it"});
  std::filesystem::remove(path("pets/train/none"));
  std::filesystem::create_directories(path("pets/val/wolf"));
  std::filesystem::copy(path("pets/val/dark/0.png"), path("pets/val/wolf/0.png"));
  refuse({}, {"data folder 'pets/val': 'wolf' is none of the 3 classes that the model was trained on"});
  std::filesystem::create_directories(path("empty"));
  refuse({"--data", "empty"},
         {"data directory 'empty': neither 'train-images-idx3-ubyte.gz' nor", "folders of PNG and JPEG files"});
}

// A table of paths and labels, tar shards, and a table from standard input.
TEST_F(ImageRuns, ComeFromATableOfPathsAndFromShards) {
  std::string table = "file,kind\n", shard;
  const auto member = [&](const std::string& name, const std::string& bytes) {
    std::string header(512, '\0');
    header.replace(0, name.size(), name).replace(124, 11, fmt::format("{:011o}", bytes.size())).replace(148, 8, 8, ' ');
    header[156] = '0';
    int sum = 0;
    for (const char c : header) sum += static_cast<uint8_t>(c);
    header.replace(148, 7, fmt::format("{:06o}", sum) + '\0');
    shard += header + bytes + std::string((512 - bytes.size() % 512) % 512, '\0');
  };
  const char* classes[] = {"dark", "light", "middle"};
  for (int i = 0; i < 14; ++i)
    for (int c = 0; c < 3; ++c) {
      const std::string file =
          std::string("train/") + classes[c] + "/" + std::to_string(i) + (i % 2 == 0 ? ".png" : ".JPG");
      table += file + "," + classes[c] + "\n";
      member(fmt::format("{:03}", 3 * i + c) + (i % 2 == 0 ? ".png" : ".jpg"), read("pets/" + file));
      member(fmt::format("{:03}.cls", 3 * i + c), std::to_string(c));
    }
  write("pets/all.csv", table), write("s-0.tar", shard + std::string(1024, '\0'));
  const Arguments options{"--test_fraction", "0.2", "--epochs", "3", "--augment", "flip"};
  succeed(train(options + Arguments{"--data", "pets/all.csv", "--image_column", "file", "--out", "table"}));
  succeed(train(options + Arguments{"--data", "s-{0..0}.tar", "--out", "shards"}));
  // The same images, labels and split, and so the same weights.
  EXPECT_EQ(read_file(newest("table") / kFiles[0]), read_file(newest("shards") / kFiles[0]));
  resumes(train(options + Arguments{"--epochs", "5", "--data", "s-{0..0}.tar", "--shuffle_buffer", "8"}));
}

class TextRuns : public DataRuns {
 protected:
  static Tensor weights(const Shape& shape, double phase) {
    Tensor t(TensorType{DType::f32, shape});
    for (int64_t i = 0; i < t.type.element_count(); ++i) t.set(i, 0.5 * std::sin(phase + 2.3 * static_cast<double>(i)));
    return t;
  }
  std::string tokenizer(const std::string& name) const {
    const json all =
        json::parse(read_file(std::filesystem::path(HALFSTEP_SOURCE_DIR) / "tests/data/tokenizers" / (name + ".json")));
    return write(name + ".json", all["tokenizer"].dump());
  }
};

TEST_F(TextRuns, TextsOfATableAreClassified) {
  TestModel m(17);
  m.input("input_ids", {2, 12}, onnx::TensorProto::INT64);
  m.weight("table", weights({400, 8}, 0)).weight("w", weights({8, 2}, 1));
  m.node("Gather", {"table", "input_ids"}, {"e"}, {}, "embedding");
  m.node("ReduceMean", {"e"}, {"m"}, {{"axes", Ints{1}}, {"keepdims", int64_t{0}}}, "mean");
  m.node("MatMul", {"m", "w"}, {"logits"}, {}, "head").output("logits");
  write("m.onnx", m);
  std::string text = "review,kind\n";
  for (int i = 0; i < 40; ++i)
    text += i % 2 == 0 ? "\"The model is good, number " + std::to_string(i) + "\",yes\n"
                       : "this training fails " + std::to_string(i) + ",no\n";
  write("t.csv", text);
  const Arguments train{
      "train",       "m.onnx", "--data",  "t.csv", "--text_column", "review", "--tokenizer",     tokenizer("wordpiece"),
      "--batch",     "4",      "--folds", "4",     "--epochs",      "6",      "--learning_rate", "0.5",
      "--precision", "fp32"};
  const json report = json::parse(succeed(train + Arguments{"--out", "run", "--json"}));
  EXPECT_EQ(report["epochs"].back()["test_accuracy"], 1);
  resumes(train);
  fail(1, {"train", "m.onnx", "--data", "t.csv", "--text_column", "review", "--out", "o"},
       {"text_column: a tokenizer makes numbers of texts"});
  fail(1, {"train", "m.onnx", "--data", "t.csv", "--out", "o"},
       {"column 'review': 'The model is good, number 0' is no number"});
}

TEST_F(TextRuns, AStreamIsEncodedByATokenizer) {
  TestModel m(17);
  m.input("input_ids", {2, 8}, onnx::TensorProto::INT64);
  m.weight("table", weights({420, 8}, 0)).weight("w", weights({8, 420}, 1));
  m.node("Gather", {"table", "input_ids"}, {"e"}, {}, "embedding").node("MatMul", {"e", "w"}, {"logits"}, {}, "head");
  m.output("logits");
  write("m.onnx", m);
  std::string text;
  for (int i = 0; i < 300; ++i) text += "the training of a model ";
  write("t.txt", text);
  const json report =
      json::parse(succeed({"train", "m.onnx", "--data", "t.txt", "--objective", "next_token", "--tokenizer",
                           tokenizer("byte_level"), "--batch", "4", "--epochs", "2", "--test_fraction", "0.2",
                           "--optimizer", "adamw", "--learning_rate", "0.02", "--json"}));
  const json last = report["epochs"].back();
  EXPECT_LT(last["test_bits_per_byte"].get<double>(), last["test_loss"].get<double>() / std::log(2.0));
}

}  // namespace
}  // namespace halfstep::test
