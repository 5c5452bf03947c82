#include "training/checkpoint.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "program/safetensors.h"
#include "tests/slots.h"
#include "tests/training/fake_executor.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

TrainState state_at(int64_t step) {
  return {.step = step,
          .epoch = 2,
          .position = 96,
          .iteration = 2 * step,
          .seed = 0xfedcba9876543210u,
          .samples = 1000,
          .totals = {.steps = 7, .skipped = 1, .samples = 28, .loss = 0.1 + 0.2, .correct = 11, .loss_scale = 512}};
}

// A fresh executor whose state differs everywhere from the model's initial state.
FakeExecutor used_executor() {
  FakeExecutor executor;
  for (auto& [name, tensor] : executor.state())
    for (int64_t i = 0; i < tensor.type.element_count(); ++i)
      if (tensor.type.shape != Shape{32} || i < 12 || i == 16 || i == 17)  // not the gap
        tensor.set(i, tensor.at(i) + 0.37 * static_cast<double>(i + 3));
  executor.state()[Name(Role::slot, "parameters.f16")] = executor.state()[kParameterArena].cast(DType::f16);
  return executor;
}

// Limits the size of files this process may write, as a full disk would.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    former_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &former_);
    const rlimit limit{bytes, former_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &former_);
    ::signal(SIGXFSZ, former_handler_);
  }

 private:
  rlimit former_{};
  void (*former_handler_)(int);
};

class Checkpoints : public testing::Test {
 protected:
  fs::path save(Executor& executor, int64_t step, int keep = 0) {
    return save_checkpoint(directory_.path() / "run", executor, state_at(step), keep);
  }
  std::vector<std::string> names() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_.path() / "run"))
      names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  }
  static void flip_byte(const fs::path& path, int64_t place) {
    std::string bytes = read_file(path);
    bytes.at(static_cast<size_t>(place < 0 ? place + static_cast<int64_t>(bytes.size()) : place)) ^= 1;
    write_file_atomically(path, bytes);
  }

  TemporaryDirectory directory_;
};

TEST_F(Checkpoints, RestoreEverything) {
  FakeExecutor before = used_executor();
  const fs::path path = save(before, 1234);
  EXPECT_EQ(path.filename(), "step-000001234");
  EXPECT_THAT(names(), ElementsAre("step-000001234"));
  FakeExecutor after;
  ASSERT_NE(after.state(), before.state());
  EXPECT_EQ(load_checkpoint(path, after), state_at(1234));
  EXPECT_EQ(after.state(), before.state());
}

TEST_F(Checkpoints, TensorsStandInTheOnnxLayoutUnderOnnxNames) {
  FakeExecutor executor;
  const fs::path path = save(executor, 1);
  const FileTensors weights = read_checkpoint_weights(directory_.path() / "run");
  std::vector<std::string> found;
  for (const auto& [name, unused] : weights) found.push_back(name);
  EXPECT_THAT(found, ElementsAre("bn.running_mean", "conv.weight", "conv/bias"));
  const Tensor& conv = weights.at("conv.weight");
  ASSERT_EQ(conv.type, (TensorType{DType::f32, {2, 3, 2, 1}}));
  // Stored [o, h, w, i]: element (o, i, h, 0) is at o * 6 + h * 3 + i.
  const Tensor& arena = executor.state()[kParameterArena];
  for (int64_t o = 0; o < 2; ++o)
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t h = 0; h < 2; ++h) EXPECT_EQ(conv.at((o * 3 + i) * 2 + h), arena.at(o * 6 + h * 3 + i));
  EXPECT_THAT(weights.at("conv/bias").values(), ElementsAre(-1, -1));
  std::vector<std::string> slots;
  for (const auto& [name, unused] : read_safetensors(path / "slots.safetensors").tensors) slots.push_back(name);
  EXPECT_THAT(slots,
              ElementsAre("loss_scale.scale", "loss_scale.tracker", "momentum/conv.weight", "momentum/conv/bias"));
}

TEST_F(Checkpoints, AreIndependentOfTheOrderOfTheArena) {
  FakeExecutor before = used_executor();
  save(before, 5);
  CompiledModel other = fake_model();
  other.parameters = {{"conv/bias", {2}, {}, 4}, {"conv.weight", {2, 3, 2, 1}, {}, 8}};
  FakeExecutor after(other);
  load_checkpoint(directory_.path() / "run", after);
  EXPECT_EQ(read_model_state(after).weights, read_model_state(before).weights);
  EXPECT_EQ(read_model_state(after).slots, read_model_state(before).slots);
  EXPECT_EQ(after.state()[Name(Role::slot, "parameters.f16")], after.state()[kParameterArena].cast(DType::f16));
}

TEST_F(Checkpoints, ManifestSaysWhatIsThere) {
  FakeExecutor executor = used_executor();
  const auto manifest = nlohmann::json::parse(read_file(save(executor, 9) / "manifest.json"));
  EXPECT_EQ(manifest["version"], 1);
  EXPECT_EQ(manifest["step"], 9);
  EXPECT_EQ(manifest["seed"], 0xfedcba9876543210u);
  EXPECT_EQ(manifest["loss_scale"], executor.state()[kLossScaleState].at(0));
  EXPECT_EQ(manifest["files"]["weights.safetensors"]["conv.weight"]["shape"], (Shape{2, 3, 2, 1}));
}

TEST_F(Checkpoints, TheNewestIsFoundAndOldOnesGo) {
  FakeExecutor executor;
  for (const int64_t step : {int64_t{7}, int64_t{100}, int64_t{20}, int64_t{3000000000}}) save(executor, step);
  write_file_atomically(directory_.path() / "run" / "step-7", "not ours");
  write_file_atomically(directory_.path() / "run" / "notes.txt", "not ours");
  EXPECT_EQ(read_checkpoint(directory_.path() / "run").train.step, 3000000000);
  save(executor, 3000000001, 2);
  EXPECT_THAT(names(), ElementsAre("notes.txt", "step-3000000000", "step-3000000001", "step-7"));
}

TEST_F(Checkpoints, SavingAStepAgainReplacesIt) {
  FakeExecutor first, second = used_executor();
  save(first, 5);
  save(second, 5);
  EXPECT_THAT(names(), ElementsAre("step-000000005"));
  EXPECT_EQ(read_checkpoint(directory_.path() / "run").model.weights, read_model_state(second).weights);
}

TEST_F(Checkpoints, LeftoversOfADeadRunAreRemoved) {
  FakeExecutor executor;
  fs::create_directories(directory_.path() / "run" / ".partial-step-000000003");
  fs::create_directories(directory_.path() / "run" / ".replaced-step-000000002");
  fs::create_directories(directory_.path() / "run" / ".partial-other");
  save(executor, 5);
  EXPECT_THAT(names(), ElementsAre(".partial-other", "step-000000005"));
}

// Where two directories cannot change places, a run may die when both copies are hidden.
TEST_F(Checkpoints, AWholeCopyThatADeadRunHidIsFound) {
  FakeExecutor first, second = used_executor();
  const fs::path run = directory_.path() / "run", old = save(first, 5), fresh = save(second, 6);
  fs::rename(old, run / ".replaced-step-000000005");
  fs::rename(fresh, run / ".partial-step-000000005");
  fs::create_directories(run / ".partial-step-000000007");  // begun, not whole
  write_file_atomically(run / ".partial-step-000000007" / "manifest.json", "{");
  FakeExecutor reader;
  EXPECT_EQ(load_checkpoint(run, reader).step, 6) << "as its manifest says";
  EXPECT_EQ(reader.state(), second.state()) << "the newer of two hidden copies";
  recover_checkpoints(run);
  EXPECT_THAT(names(), ElementsAre("step-000000005"));
  EXPECT_EQ(read_checkpoint(run).model.weights, read_model_state(second).weights);
}

TEST_F(Checkpoints, OnlyANewerHiddenCopyIsTaken) {
  FakeExecutor executor;
  const fs::path run = directory_.path() / "run";
  save(executor, 5);
  fs::rename(save(executor, 3), run / ".partial-step-000000003");
  EXPECT_EQ(read_checkpoint(run).train.step, 5);
  fs::rename(save(executor, 7), run / ".removed-step-000000007");
  EXPECT_EQ(read_checkpoint(run).train.step, 5) << "that one was not wanted any more";
}

TEST_F(Checkpoints, WhatIsThereIsNotWrittenAgain) {
  FakeExecutor executor = used_executor();
  const fs::path file = save(executor, 5) / "weights.safetensors";
  const auto written = fs::last_write_time(file);
  const auto inode = [&] {
    struct stat info{};
    ::stat(file.c_str(), &info);
    return info.st_ino;
  };
  const ino_t former = inode();
  save(executor, 5);
  EXPECT_EQ(inode(), former);
  EXPECT_EQ(fs::last_write_time(file), written);
  flip_byte(file, -1);
  save(executor, 5);
  EXPECT_EQ(read_checkpoint(directory_.path() / "run").model.weights, read_model_state(executor).weights);
}

TEST_F(Checkpoints, AFullDiskLeavesTheOldOne) {
  FakeExecutor executor = used_executor();
  save(executor, 1, 1);
  const ModelState old = read_model_state(executor);
  executor.state()[kParameterArena].set(0, 99);
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{100}, rlim_t{1000}}) {
    FullDisk full(bytes);
    EXPECT_THAT([&] { save(executor, 2, 1); },
                ThrowsMessage<Error>(AllOf(HasSubstr("cannot write"), HasSubstr("File too large"))));
  }
  EXPECT_THAT(names(), ElementsAre("step-000000001"));
  EXPECT_EQ(read_checkpoint(directory_.path() / "run").model.weights, old.weights);
  {
    FullDisk full(100);  // the same step again
    EXPECT_THROW(save(executor, 1, 1), Error);
  }
  EXPECT_EQ(read_checkpoint(directory_.path() / "run").model.weights, old.weights);
}

TEST_F(Checkpoints, DirectoriesThatCannotBeWrittenAreNamed) {
  write_file_atomically(directory_.path() / "file", "x");
  EXPECT_THAT([&] { prepare_checkpoint_directory(directory_.path() / "file" / "run"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("cannot create checkpoint directory"), HasSubstr("file/run'"))));
  EXPECT_THAT([&] { prepare_checkpoint_directory(directory_.path() / "file"); },
              ThrowsMessage<Error>(HasSubstr("file'")));
  EXPECT_THAT([&] { prepare_checkpoint_directory("/proc/none"); }, ThrowsMessage<Error>(HasSubstr("/proc/none'")));
  EXPECT_THAT([&] { list_checkpoints(directory_.path() / "none"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("none'"), HasSubstr("No such file"))));
  EXPECT_THAT([&] { read_checkpoint(directory_.path()); }, ThrowsMessage<Error>(HasSubstr("holds no checkpoint")));
}

TEST_F(Checkpoints, EveryDamageIsFoundAndAnOlderOneOffered) {
  struct Damage {
    const char* file;
    const char* expected;
    void (*apply)(const fs::path&);
  };
  const Damage damages[] = {
      {"weights.safetensors", "weights.safetensors: tensor", [](const fs::path& p) { flip_byte(p, -1); }},
      {"slots.safetensors", "slots.safetensors: tensor", [](const fs::path& p) { flip_byte(p, -1); }},
      {"weights.safetensors", "weights.safetensors",
       [](const fs::path& p) { fs::resize_file(p, fs::file_size(p) - 4); }},
      {"weights.safetensors", "weights.safetensors", [](const fs::path& p) { fs::resize_file(p, 3); }},
      {"slots.safetensors", "slots.safetensors", [](const fs::path& p) { fs::remove(p); }},
      {"manifest.json", "manifest.json: checksum",
       [](const fs::path& p) {
         std::string text = read_file(p);
         text.replace(text.find("\"position\": 96"), 14, "\"position\": 97");
         write_file_atomically(p, text);
       }},
      {"manifest.json", "manifest.json is not a manifest", [](const fs::path& p) { fs::resize_file(p, 50); }},
      {"manifest.json", "manifest.json", [](const fs::path& p) { fs::remove(p); }},
  };
  for (const Damage& damage : damages) {
    FakeExecutor executor = used_executor();
    save(executor, 1);
    const fs::path newest = save(executor, 3);
    FakeExecutor reader;
    const NamedTensors untouched = reader.state();
    flip_byte(save(executor, 2) / "weights.safetensors", -1);  // the next older one is corrupt too
    damage.apply(newest / damage.file);
    EXPECT_THAT([&] { load_checkpoint(directory_.path() / "run", reader); },
                ThrowsMessage<Error>(AllOf(HasSubstr("step-000000003' is corrupt"), HasSubstr(damage.expected),
                                           HasSubstr("use the older intact one"), HasSubstr("step-000000001'"))));
    EXPECT_EQ(reader.state(), untouched);
    flip_byte(directory_.path() / "run" / "step-000000001" / "slots.safetensors", -1);
    EXPECT_THAT([&] { read_checkpoint(newest); }, ThrowsMessage<Error>(HasSubstr("no older intact one is there")));
    fs::remove_all(directory_.path() / "run");
  }
}

// The checksum finds damage, not what someone else wrote.
TEST_F(Checkpoints, CountsThatAreNoneAreRefused) {
  FakeExecutor executor;
  const fs::path manifest = save(executor, 1) / "manifest.json";
  const auto intact = nlohmann::json::parse(read_file(manifest));
  const auto refused = [&](const char* pointer, const nlohmann::json& value, const std::string& part) {
    auto json = intact;
    json[nlohmann::json::json_pointer(pointer)] = value;
    json.erase("crc32");
    const std::string text = json.dump();
    json["crc32"] = crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size());
    write_file_atomically(manifest, json.dump());
    EXPECT_THAT([&] { read_checkpoint(directory_.path() / "run"); }, ThrowsMessage<Error>(HasSubstr(part))) << text;
  };
  for (const char* key : {"step", "epoch", "position", "iteration", "samples"}) {
    const std::string place = "/" + std::string(key);
    for (const nlohmann::json& value : {nlohmann::json(-1), nlohmann::json(1e300), nlohmann::json(2.5),
                                        nlohmann::json(UINT64_MAX), nlohmann::json("1"), nlohmann::json()})
      refused(place.c_str(), value, "'" + std::string(key) + "': an integer from 0 expected, found ");
    refused(place.c_str(), INT64_MAX, "at most 2^53 expected");
  }
  refused("/position", 1001, "'position': at most the 1000 samples expected, found 1001");
  refused("/epoch_totals/steps", -4, "'steps': an integer from 0 expected, found -4");
  refused("/seed", -1, "'seed'");
  refused("/version", 1e300, "format version 1e+300, expected 1");
}

TEST_F(Checkpoints, OnlyAnOlderOneIsOffered) {
  FakeExecutor executor;
  const fs::path path = save(executor, 1);
  save(executor, 2);
  flip_byte(path / "weights.safetensors", -1);
  EXPECT_THAT([&] { read_checkpoint(path); }, ThrowsMessage<Error>(HasSubstr("no older intact one is there")));
}

TEST_F(Checkpoints, AnotherModelsCheckpointIsRefusedWhole) {
  FakeExecutor executor = used_executor();
  save(executor, 1);
  CompiledModel other = fake_model();
  other.parameters = {{"conv.weight", {2, 2, 1, 2}, {0, 2, 3, 1}, 0}, {"fc.bias", {2}, {}, 16}};
  FakeExecutor reader(other);
  const NamedTensors untouched = reader.state();
  EXPECT_THAT([&] { load_checkpoint(directory_.path() / "run", reader); },
              ThrowsMessage<Error>(AllOf(HasSubstr("'conv.weight': expected f32[2,2,2,1], found f32[2,3,2,1]"),
                                         HasSubstr("'fc.bias' f32[2] is missing"),
                                         HasSubstr("it holds 'conv/bias', which this model does not"),
                                         HasSubstr("'momentum/fc.bias' f32[2] is missing"))));
  EXPECT_EQ(reader.state(), untouched);
}

TEST_F(Checkpoints, WeightsAloneCanBeWritten) {
  FakeExecutor before = used_executor(), after;
  const Tensor momentum = after.state()[kMomentumArena];
  write_weights(after, read_model_state(before).weights, "weights");
  EXPECT_EQ(after.state()[kParameterArena], before.state()[kParameterArena]);
  EXPECT_EQ(after.state()[Name(Role::slot, "parameters.f16")], before.state()[Name(Role::slot, "parameters.f16")]);
  EXPECT_EQ(after.state()["bn.running_mean"], before.state()["bn.running_mean"]);
  EXPECT_EQ(after.state()[kMomentumArena], momentum);
  EXPECT_THAT([&] { write_weights(after, {}, "file 'w'"); },
              ThrowsMessage<Error>(HasSubstr("file 'w': 'conv.weight' f32[2,3,2,1] is missing")));
}

TEST_F(Checkpoints, SumsThatAreNotFiniteSurvive) {
  FakeExecutor executor;
  TrainState state = state_at(1);
  state.totals.loss = std::nan("");
  state.totals.correct = std::nullopt;
  const fs::path path = save_checkpoint(directory_.path() / "run", executor, state, 0);
  const TrainState read = read_checkpoint(path).train;
  EXPECT_TRUE(std::isnan(read.totals.loss));
  EXPECT_EQ(read.totals.correct, std::nullopt);
}

}  // namespace
}  // namespace halfstep
