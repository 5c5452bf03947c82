#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <set>
#include <thread>

#include "base/file.h"
#include "program/host_cpu.h"
#include "tests/program/error_message.h"
#include "tests/runtime/contraction_program.h"

namespace halfstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

CompiledModel kernel_model(std::vector<Program> programs) {
  CompiledModel model;
  model.architecture = "x86-64";
  model.kernels = read_file(HALFSTEP_TEST_KERNELS);
  model.programs = std::move(programs);
  return model;
}

// y = 2 x + 1 through a kernel; total becomes its y through a copy.
Program affine_program(const std::string& name) {
  Program p;
  p.name = name;
  p.buffers = {{"x", BufferKind::input, {DType::f32, {4}}},
               {"rate", BufferKind::input, {DType::f32, {}}},
               {"y", BufferKind::output, {DType::f32, {4}}},
               {"total", BufferKind::state, {DType::f32, {4}}},
               {"scratch", BufferKind::scratch, {DType::u8, {4096}}}};
  p.steps = {{KernelLaunch{"affine", {{0, 0}, {4, 64}}, {1, 1, 1}, 1, 4, 32}, "double"},
             {Copy{{4, 64}, {2, 0}, 16}, "out"},
             {KernelLaunch{"affine", {{3, 0}, {4, 1024}}, {1, 1, 1}, 1, 4, 32}, "grow"},
             {Copy{{4, 1024}, {3, 0}, 16}, "grow"}};
  return p;
}

int64_t submit_with(Executor& executor, int program, float first) {
  const std::vector<std::span<std::byte>> inputs = executor.begin_step(program);
  for (size_t i = 0; i < 4; ++i) reinterpret_cast<float*>(inputs[0].data())[i] = first + static_cast<float>(i);
  return executor.submit();
}

TEST(CpuExecutor, RunsStepsAndHandsOutResultsInOrder) {
  const auto executor = make_cpu_executor(kernel_model({affine_program("train"), affine_program("evaluate")}), {});
  EXPECT_FALSE(executor->poll(Wait::yes).has_value());
  const std::vector<std::span<std::byte>> inputs = executor->begin_step(0);
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0].size(), 16u);
  EXPECT_EQ(inputs[1].size(), 4u);
  const int64_t first = submit_with(*executor, 0, 10), second = submit_with(*executor, 1, 20);
  EXPECT_LT(first, second);
  const std::optional<StepResult> a = executor->poll(Wait::no), b = executor->poll(Wait::yes);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->ticket, first);
  EXPECT_EQ(b->ticket, second);
  EXPECT_THAT(a->outputs.at("y").values(), ElementsAre(21, 23, 25, 27));
  EXPECT_THAT(b->outputs.at("y").values(), ElementsAre(41, 43, 45, 47));
  EXPECT_EQ(a->outputs.size(), 1u);
  EXPECT_FALSE(executor->poll(Wait::no).has_value());
  // Both programs advanced the one state.
  EXPECT_THAT(executor->read_state("total").values(), ElementsAre(3, 3, 3, 3));
  const ExecutorCounters counters = executor->counters();
  EXPECT_EQ(counters.steps, 2);
  EXPECT_EQ(counters.graph_launches + counters.stream_synchronisations + counters.slot_waits + counters.result_waits,
            0);
}

TEST(CpuExecutor, StateStartsAsTheModelSaysElseZero) {
  CompiledModel model = kernel_model({affine_program("train")});
  model.programs[0].buffers.push_back({"slots", BufferKind::state, {DType::i32, {2}}});
  model.state["total"] = Tensor::from_values({DType::f32, {4}}, std::vector<double>{1, 2, 3, 4});
  const auto executor = make_cpu_executor(model, {});
  EXPECT_EQ(executor->read_state("total"), model.state["total"]);
  EXPECT_EQ(executor->read_state("slots"), Tensor({DType::i32, {2}}));
  executor->write_state("total", Tensor::from_values({DType::f32, {4}}, std::vector<double>{5, 6, 7, 8}));
  submit_with(*executor, 0, 0);
  EXPECT_THAT(executor->read_state("total").values(), ElementsAre(11, 13, 15, 17));
}

TEST(CpuExecutor, StateIsCheckedByNameAndType) {
  const auto executor = make_cpu_executor(kernel_model({affine_program("train")}), {});
  EXPECT_THAT(error_of([&] { executor->read_state("totl"); }), HasSubstr("no state 'totl': did you mean 'total'?"));
  EXPECT_THAT(error_of([&] { executor->write_state("total", Tensor({DType::f32, {5}})); }),
              HasSubstr("state 'total': type f32[4] expected, found f32[5]"));
  EXPECT_THAT(error_of([&] { executor->write_state("total", Tensor({DType::i32, {4}})); }), HasSubstr("found i32[4]"));
}

TEST(CpuExecutor, MisuseIsAnInternalError) {
  const auto executor = make_cpu_executor(kernel_model({affine_program("train")}), {});
  EXPECT_THROW(executor->submit(), InternalError);
  EXPECT_THROW(executor->begin_step(1), InternalError);
  EXPECT_THROW(executor->begin_step(-1), InternalError);
}

class Splitting : public testing::TestWithParam<int> {};

// Every unit once, in at most one range a thread; a launch that moves little is not split.
TEST_P(Splitting, CoversEveryUnitOnce) {
  ExecutorOptions options;
  options.threads = GetParam();
  for (const int64_t units : {1, 2, 5, 1000}) {
    for (const int64_t bytes : {int64_t{64}, int64_t{1} << 30}) {
      Program p;
      p.name = "train";
      p.buffers = {{"visits", BufferKind::state, {DType::i64, {units}}},
                   {"begins", BufferKind::state, {DType::i64, {units}}}};
      p.steps = {{KernelLaunch{"visit", {{0, 0}, {1, 0}}, {1, 1, 1}, 1, units, bytes}, ""}};
      const auto executor = make_cpu_executor(kernel_model({p}), options);
      run_step(*executor);
      run_step(*executor);
      EXPECT_EQ(executor->read_state("visits").values(), std::vector<double>(static_cast<size_t>(units), 2.0));
      const std::vector<double> begins = executor->read_state("begins").values();
      const size_t ranges = std::set(begins.begin(), begins.end()).size();
      EXPECT_EQ(ranges, bytes == 64 ? 1u : static_cast<size_t>(std::min<int64_t>(units, GetParam())));
    }
  }
}

// oneDNN 2.6's generated products use the stack pointer for their own ends.
TEST_P(Splitting, NoThreadOfAStepTakesASignal) {
  ExecutorOptions options;
  options.threads = GetParam();
  Program p;
  p.name = "train";
  p.buffers = {{"open", BufferKind::state, {DType::i64, {1000}}}};
  p.steps = {{KernelLaunch{"open_to_signals", {{0, 0}}, {1, 1, 1}, 1, 1000, int64_t{1} << 30}, ""}};
  const auto executor = make_cpu_executor(kernel_model({p}), options);
  run_step(*executor);
  executor->time_steps(0, 1);
  EXPECT_EQ(executor->read_state("open").values(), std::vector<double>(1000, 0.0));
  sigset_t mask;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_FALSE(sigismember(&mask, SIGTERM)) << "between steps the caller's mask is its own again";
}

INSTANTIATE_TEST_SUITE_P(Threads, Splitting, testing::Values(1, 2, 3));

// oneDNN plans for a number of threads; another number must give the same integers.
TEST(CpuExecutor, ContractionsRunOnAnyNumberOfThreads) {
  Gemm g;
  g.m = 96, g.n = 80, g.k = 130;
  g.a = {0, 0}, g.b = {1, 0}, g.c = {2, 0};
  const Tensor a = small_integers({DType::f32, {96, 130}}, 1), b = small_integers({DType::f32, {130, 80}}, 2);
  const Tensor expected = expected_gemm(g, a, b, Tensor({DType::f32, {96, 80}}), Tensor(), Tensor());
  for (const int threads : {1, 2, 4}) {
    ExecutorOptions options;
    options.threads = threads;
    const auto executor = make_cpu_executor(model_of(g, {{"a", a.type}, {"b", b.type}, {"c", expected.type}}), options);
    executor->write_state("a", a);
    executor->write_state("b", b);
    run_step(*executor);
    EXPECT_EQ(executor->read_state("c"), expected) << threads;
  }
}

TEST(CpuExecutor, ProfileNamesTheCallsAndRestoresState) {
  const auto executor = make_cpu_executor(kernel_model({affine_program("train")}), {});
  submit_with(*executor, 0, 0);
  const Tensor before = executor->read_state("total");
  const std::vector<StepTime> times = executor->profile(0, 3);
  ASSERT_EQ(times.size(), 4u);
  EXPECT_EQ(times[0].call, "kernel affine");
  EXPECT_EQ(times[0].origin, "double");
  EXPECT_EQ(times[0].bytes, 32);
  EXPECT_EQ(times[1].call, "copy");
  for (const StepTime& time : times) EXPECT_GT(time.microseconds, 0);
  EXPECT_EQ(executor->time_steps(0, 5).size(), 5u);
  EXPECT_EQ(executor->read_state("total"), before);
  EXPECT_EQ(executor->counters().steps, 1);
}

TEST(CpuExecutor, ReportsItsMemory) {
  CompiledModel model = kernel_model({affine_program("train"), affine_program("evaluate")});
  Gemm g;
  g.m = 64, g.n = 64, g.k = 64;
  g.operand = DType::f16, g.result = DType::f16;
  g.a = {1, 0}, g.b = {1, 8192}, g.c = {1, 16384};
  model.programs[0].buffers = {{"total", BufferKind::state, {DType::f32, {4}}},
                               {"scratch", BufferKind::scratch, {DType::u8, {24576}}}};
  model.programs[0].steps = {{g, "fc"}};
  const MemoryReport memory = make_cpu_executor(model, {})->memory();
  EXPECT_EQ(memory.state_bytes, 16);
  EXPECT_EQ(memory.scratch_bytes, 24576 + 4096);
  EXPECT_GE(memory.workspace_bytes, 3 * 64 * 64 * 4);  // fp32 copies of three operands
  EXPECT_GT(memory.measured_bytes, memory.workspace_bytes);
}

TEST(CpuExecutor, HugeScratchTakesNoMemoryUntilItIsUsed) {
  Program p = affine_program("train");
  p.buffers[4].type.shape = {int64_t{4} << 30};
  const auto untouched = make_cpu_executor(kernel_model({affine_program("train")}), {});
  const int64_t before = untouched->memory().measured_bytes;
  const auto executor = make_cpu_executor(kernel_model({p}), {});
  submit_with(*executor, 0, 1);
  EXPECT_THAT(executor->poll(Wait::yes)->outputs.at("y").values(), ElementsAre(3, 5, 7, 9));
  EXPECT_LT(executor->memory().measured_bytes - before, int64_t{64} << 20);
}

TEST(CpuExecutor, AStepLargerThanTheMachineNamesItsLargestBuffers) {
  Program p = affine_program("train");
  p.buffers[4].type.shape = {int64_t{1} << 50};
  const std::string message = error_of([&] { make_cpu_executor(kernel_model({p}), {}); });
  EXPECT_THAT(message, HasSubstr("the step needs 1048576.0 GiB"));
  EXPECT_THAT(message, HasSubstr("scratch 'scratch' of program 'train'"));
}

TEST(CpuExecutor, TwoModelsKeepTheirOwnKernelsAndState) {
  const auto first = make_cpu_executor(kernel_model({affine_program("train")}), {});
  auto second = make_cpu_executor(kernel_model({affine_program("train")}), {});
  submit_with(*first, 0, 0);
  submit_with(*second, 0, 0);
  second.reset();
  submit_with(*first, 0, 0);
  EXPECT_THAT(first->read_state("total").values(), ElementsAre(3, 3, 3, 3));
}

// Several threads make, run and drop executors of kernels and of oneDNN's calls at once, and one goes from thread to
// thread; tools/sanitize.sh thread looks for races between them.
TEST(CpuExecutor, ExecutorsLiveOnSeveralThreadsAtOnce) {
  Gemm g;
  g.m = 24, g.n = 20, g.k = 30;
  g.a = {0, 0}, g.b = {1, 0}, g.c = {2, 0};
  const Tensor a = small_integers({DType::f32, {24, 30}}, 1), b = small_integers({DType::f32, {30, 20}}, 2);
  const Tensor expected = expected_gemm(g, a, b, Tensor({DType::f32, {24, 20}}), Tensor(), Tensor());
  const CompiledModel kernels = kernel_model({affine_program("train")}),
                      products = model_of(g, {{"a", a.type}, {"b", b.type}, {"c", expected.type}});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        const auto doubles = make_cpu_executor(kernels, {.threads = 1 + i % 2});
        submit_with(*doubles, 0, static_cast<float>(i));
        EXPECT_EQ(doubles->poll(Wait::yes)->outputs.at("y").at(0), 2 * i + 1);
        const auto multiplies = make_cpu_executor(products, {.threads = 1 + i % 2});
        multiplies->write_state("a", a), multiplies->write_state("b", b);
        run_step(*multiplies);
        EXPECT_EQ(multiplies->read_state("c"), expected);
        EXPECT_THROW(multiplies->read_state("d"), Error);
      }
    });
  for (std::thread& thread : threads) thread.join();
  auto moved = make_cpu_executor(kernels, {.threads = 2});
  for (int i = 0; i < 3; ++i) std::thread([&] { submit_with(*moved, 0, 1); }).join();
  EXPECT_THAT(moved->read_state("total").values(), ElementsAre(7, 7, 7, 7));
  std::thread([&] { moved.reset(); }).join();
}

TEST(CpuExecutor, RefusesWhatItCannotRun) {
  const auto message = [](const CompiledModel& model) { return error_of([&] { make_cpu_executor(model, {}); }); };
  const CompiledModel good = kernel_model({affine_program("train"), affine_program("evaluate")});
  EXPECT_EQ(message(good), "");

  CompiledModel m = good;
  m.device = DeviceKind::cuda;
  EXPECT_THAT(message(m), HasSubstr("compiled for device cuda"));

  m = good;
  m.kernels = "not an object file";
  EXPECT_THAT(message(m), HasSubstr("cannot load the step's kernels"));

  m = good;
  m.kernels.clear();
  EXPECT_THAT(message(m), HasSubstr("the step's kernels do not hold 'affine'"));

  m = good;
  std::get<KernelLaunch>(m.programs[0].steps[0].call).kernel = "fused_7";
  EXPECT_THAT(message(m), HasSubstr("do not hold 'fused_7'"));

  m = good;
  m.programs[1].buffers[3].type.dtype = DType::i32;
  EXPECT_THAT(message(m), HasSubstr("state 'total' is f32[4] in one program and i32[4] in program 'evaluate'"));

  m = good;
  m.state["total"] = Tensor({DType::f32, {3}});
  EXPECT_THAT(message(m), HasSubstr("state 'total': initial value of type f32[4] expected, found f32[3]"));

  m = good;
  std::get<Copy>(m.programs[0].steps[1].call).bytes = 17;
  EXPECT_THAT(message(m), HasSubstr("program 'train', step 1 (copy, 'out'): 'to' needs 17 bytes"));
}

TEST(CpuExecutor, KernelsForAnotherCpuAreRefused) {
  CompiledModel m = kernel_model({affine_program("train")});
  m.architecture = "znver5";
  EXPECT_EQ(error_of([&] { check_host_runs(m); }), "") << "compiled in this process";
  m.notes.host = host_fingerprint();
  EXPECT_EQ(error_of([&] { check_host_runs(m); }), "") << "compiled on this machine";
  m.notes.host = "Another CPU 01234567";
  EXPECT_THAT(error_of([&] { make_cpu_executor(m, {}); }),
              HasSubstr("compiled for CPU 'znver5' (Another CPU 01234567), this one is " + host_fingerprint()));
  m.architecture = "x86-64";
  EXPECT_EQ(error_of([&] { check_host_runs(m); }), "") << "a level travels";
  m.architecture = "x86-64-v4";
  EXPECT_EQ(error_of([&] { check_host_runs(m); }).empty(), __builtin_cpu_supports("x86-64-v4") != 0);
}

TEST(Executor, IsChosenByTheModelsDevice) {
  CompiledModel m = kernel_model({affine_program("train")});
  EXPECT_EQ(error_of([&] { make_executor(m, {}); }), "");
  m.device = DeviceKind::cuda;
  m.kernels.clear();
  const std::string message = error_of([&] { make_executor(m, {}); });
  EXPECT_THAT(message, testing::Not(HasSubstr("compiled for device")));
  EXPECT_NE(message, "") << "a CPU step's kernels are no PTX";
}

}  // namespace
}  // namespace halfstep
