// The second start of a step on a GPU: it takes what the first one kept, and computes the same bits.
#include "program/kept_choices.h"

#include <gmock/gmock.h>

#include "base/file.h"
#include "compiler/cubins.h"
#include "runtime/cuda_probe.h"
#include "tests/gpu/gpu_test.h"
#include "tests/table_kernels.h"

namespace halfstep {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Products, convolutions with their gradients, attention both ways, a recurrent network, and kernels of ours between
// them.
constexpr const char* kGraph = R"(graph g {
  %a = input() {name="a"} : f16[128,784]
  %b = input() {name="b"} : f16[784,512]
  %c = input() {name="c"} : f32[512,96]
  %x = input() {name="x"} : f16[4,16,16,32]
  %w = input() {name="w"} : f16[64,3,3,32]
  %q = input() {name="q"} : f16[2,96,4,64]
  %k = input() {name="k"} : f16[2,96,4,64]
  %v = input() {name="v"} : f16[2,96,4,64]
  %steps = input() {name="steps"} : f16[5,4,3]
  %network = input() {name="network"} : f16[14]
  %ab = matmul(%a, %b)
  %h = relu(%ab)
  %wide = cast(%h) {to=f32}
  %abc = matmul(%wide, %c)
  %y = convolution(%x, %w) {pads_begin=[1,1], pads_end=[1,1]}
  %z = relu(%y)
  %dw = convolution_filter_grad(%x, %z) {window=[3,3], pads_begin=[1,1], pads_end=[1,1]}
  %t, %s = flash_attention(%q, %k, %v) {scale=0.125, causal=1}
  %dq, %dk, %dv = flash_attention_grad(%t, %t, %s, %q, %k, %v) {scale=0.125, causal=1, deterministic=1}
  %read, %last, %reserve = recurrent(%steps, %network) {cell="tanh", hidden=2}
  output "abc" = %abc
  output "read" = %read
  output "z" = %z
  output "dw" = %dw
  output "t" = %t
  output "dq" = %dq
  output "dk" = %dk
  output "dv" = %dv
})";

TEST(KeptWithoutGpu, TheGraphIsOfEveryLibraryCall) {
  const CompiledModel model = compiled_model(parse_graph(kGraph), DeviceKind::cuda, LibraryCalls::keep);
  std::set<size_t> kinds;
  for (const Step& step : model.programs[0].steps) kinds.insert(step.call.index());
  EXPECT_EQ(kinds.size(), std::variant_size_v<StepCall> - 1) << print(model.programs[0]);  // all but a copy
}

class KeptOnTheGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    graph_.emplace(parse_graph(kGraph));
    model_ = compiled_model(*graph_, DeviceKind::cuda, LibraryCalls::keep);
    leaves_ = random_leaves(*graph_, 3, -1, 1);
  }
  std::unique_ptr<Executor> start(int autotune = 8) const {
    ExecutorOptions options = kTestExecutor;
    options.keep_in = step_.path();
    options.autotune = autotune;
    return make_executor(model_, options);
  }
  // cuDNN's fastest filter gradients may sum in any order, and are not compared.
  NamedTensors run(Executor& executor) const {
    NamedTensors outputs = run_program(executor, "train", leaves_);
    outputs.erase("dw");
    return outputs;
  }
  std::vector<fs::path> kept(const char* extension) const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(step_.path() / "kept"))
      if (entry.path().extension() == extension) files.push_back(entry.path());
    return files;
  }
  // The choices with one changed, with a checksum that fits.
  void change(const std::string& library, const std::string& choice) const {
    const fs::path file = kept(".txt").at(0);
    KeptChoices choices = parse_kept_choices(read_file(file));
    bool changed = false;
    for (auto& [call, value] : choices.choices)
      if (call.starts_with(library)) value = choice, changed = true;
    ASSERT_TRUE(changed) << library;
    write_file_atomically(file, print(choices), Writers::owner_alone);
  }

  std::optional<Graph> graph_;
  CompiledModel model_;
  NamedTensors leaves_;
  TemporaryDirectory step_;
};

TEST_F(KeptOnTheGpu, TheSecondStartTunesNothingAndGivesTheSameBits) {
  const std::unique_ptr<Executor> first = start();
  EXPECT_THAT(first->remarks(), IsEmpty());
  const NamedTensors outputs = run(*first);
  ASSERT_EQ(kept(".txt").size(), 1u);
  const fs::path file = kept(".txt")[0];
  const std::string text = read_file(file);
  for (const char* call :
       {"\ngemm 128 512 784", "\ngemm 128 96 512", "\nattention forward", "\nattention backward", "\nkernels "})
    EXPECT_THAT(text, HasSubstr(call));
  const fs::file_time_type long_ago = fs::file_time_type::clock::now() - std::chrono::hours(1);
  fs::last_write_time(file, long_ago);
  const std::unique_ptr<Executor> second = start();
  EXPECT_THAT(second->remarks(), IsEmpty());
  // A convolution is chosen again where its engine, built from what it tells, is slower than as it was found.
  const bool all_kept = text.find("\nconvolution forward") != std::string::npos &&
                        text.find("\nconvolution filter_grad") != std::string::npos;
  if (all_kept) {
    EXPECT_EQ(fs::last_write_time(file), long_ago) << "something was chosen again";
  }
  EXPECT_EQ(run(*second), outputs);
  RecordProperty("first_ms", std::to_string(first->load_times().kernels + first->load_times().libraries));
  RecordProperty("second_ms", std::to_string(second->load_times().kernels + second->load_times().libraries));
}

TEST_F(KeptOnTheGpu, OtherSettingsTuneForThemselves) {
  start();
  start(2);
  EXPECT_EQ(kept(".txt").size(), 2u);
}

TEST_F(KeptOnTheGpu, WhatTheLibrariesRefuseIsToldAndTunedAgain) {
  start();
  const std::vector<std::pair<std::string, std::string>> forged{
      {"gemm ", "direct 0 0000000000000000"},
      {"gemm ",
       "direct 0 ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff "
       "ffffffffffffffff ffffffffffffffff"},
      {"convolution ", "engine 47 knobs"},
      {"convolution ", "engine 9999 knobs 3=1 does nothing"},
      {"kernels ", "0"}};
  for (const auto& [library, choice] : forged) {
    SCOPED_TRACE(library + choice);
    change(library, choice);
    const std::unique_ptr<Executor> again = start();
    if (library != "kernels ") {
      EXPECT_THAT(again->remarks(), Contains(HasSubstr("the kept choice for '" + library)));
    }
    run(*again);
    EXPECT_THAT(start()->remarks(), IsEmpty());
  }
}

TEST_F(KeptOnTheGpu, ADamagedPlanOrKernelIsToldAndMadeAgain) {
  const NamedTensors outputs = run(*start());
  for (const fs::path& file : kept(".bin")) write_file_atomically(file, "damage", Writers::owner_alone);
  const std::unique_ptr<Executor> again = start();
  EXPECT_THAT(again->remarks(), Contains(HasSubstr("the kept choice for 'kernels ")));
  EXPECT_EQ(run(*again), outputs);
  EXPECT_THAT(start()->remarks(), IsEmpty());
}

TEST_F(KeptOnTheGpu, AnAttentionIsBuiltFromItsEngineWhereItsPlanIsGone) {
  const NamedTensors outputs = run(*start());
  const fs::path file = kept(".txt").at(0);
  KeptChoices choices = parse_kept_choices(read_file(file));
  std::erase_if(choices.choices, [](const auto& choice) { return choice.first.starts_with("plan of "); });
  write_file_atomically(file, print(choices), Writers::owner_alone);
  const std::unique_ptr<Executor> again = start();
  EXPECT_THAT(again->remarks(), IsEmpty());
  EXPECT_EQ(run(*again), outputs);
}

TEST_F(KeptOnTheGpu, ADirectoryThatCannotBeWrittenIsNoError) {
  write_file_atomically(step_.path() / "kept", "a file where the folder would be");
  const std::unique_ptr<Executor> executor = start();
  EXPECT_THAT(executor->remarks(), ElementsAre(HasSubstr("what was tuned is not kept for the next start")));
  run(*executor);
}

TEST_F(KeptOnTheGpu, MachineCodeThatDoesNotLoadIsToldAndThePtxCompiled) {
  const NamedTensors outputs = run(*start());
  const std::string architecture = probe_cuda(0).architecture;
  model_.cubins[architecture] = "no machine code";
  const std::unique_ptr<Executor> broken = start();
  EXPECT_THAT(broken->remarks(),
              ElementsAre(HasSubstr("the machine code for " + architecture + " does not load, the PTX is compiled")));
  EXPECT_EQ(run(*broken), outputs);
}

TEST_F(KeptOnTheGpu, MachineCodeOfPtxasGivesTheSameBits) {
  if (std::system("command -v ptxas >/dev/null") != 0) return;  // machines that run steps need not have it
  const NamedTensors outputs = run(*start());
  add_cubins(model_, probe_cuda(0).architecture);
  const std::unique_ptr<Executor> assembled = start();
  EXPECT_THAT(assembled->remarks(), IsEmpty());
  EXPECT_EQ(run(*assembled), outputs);
}

}  // namespace
}  // namespace halfstep
